"""How far the statistics of activations lie from those of a batch norm, entry by entry in float64."""

import math

import numpy as np


def statistics_distance(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    """‖μ(x) − μ‖ + ‖σ²(x) − σ²‖ over the channels of x (N, C, …)."""
    means, variances = [], []
    for c in range(x.shape[1]):
        values = x[:, c].ravel().tolist()
        centre = math.fsum(values) / len(values)
        means.append(centre - mean[c])
        variances.append(math.fsum((value - centre) ** 2 for value in values) / len(values) - variance[c])
    return math.sqrt(sum(a * a for a in means)) + math.sqrt(sum(a * a for a in variances))


def cross_entropy(logits: np.ndarray, classes: list[int]) -> float:
    rows = [math.log(sum(math.exp(z) for z in row)) - row[k] for row, k in zip(logits.tolist(), classes, strict=True)]
    return sum(rows) / len(rows)
