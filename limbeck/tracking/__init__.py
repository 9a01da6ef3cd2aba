"""Where else a run's figures and pictures go while it is made: TensorBoard, Weights & Biases, trackio, or a sink of one's own."""
