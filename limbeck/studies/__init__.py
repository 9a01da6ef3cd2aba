"""Measurements over a grid of cases: what they say is printed, stored and drawn."""
