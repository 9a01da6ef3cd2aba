"""Data: where the images come from, how they are split, and how pixels become what a network takes (and back)."""
