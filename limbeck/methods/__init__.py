"""Methods: objectives, the one outer loop, and the way from images to an evaluated distilled set."""
