"""What every room stands on: keyed generators, devices, atomic files, locks, checkpoints, progress and metrics."""
