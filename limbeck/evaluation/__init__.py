"""How good a small set is: fresh networks trained on it, beside a random subset and the full data."""
