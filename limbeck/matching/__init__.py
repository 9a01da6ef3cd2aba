"""Trajectory matching: start epochs, student steps, the loss and its criterion, and the ways to its gradient."""
