"""What a set stores in the place of images, and how images are decoded from it."""
