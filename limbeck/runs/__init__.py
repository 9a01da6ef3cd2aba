"""Runs: distilling, evaluating and planning from settings or objects, and what a run leaves behind."""
