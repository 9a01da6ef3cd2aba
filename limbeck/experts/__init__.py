"""Expert trajectories: training them, keeping them, reading them."""
