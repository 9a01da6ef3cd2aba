"""Figures of a run: each function takes numbers and returns a matplotlib `Figure`."""
