"""Where in an image the discriminative area lies: activation maps, and the gradient weights made from them."""
