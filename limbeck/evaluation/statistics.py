"""Mean, standard deviation and interval of a few accuracies.

s² = Σ (x_i − x̄)² / (n − 1)        95 % interval: x̄ ± t_{0.975, n−1} · s / √n
"""

import math
from collections.abc import Sequence
from typing import Any


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """{mean, std, ci95: [low, high], n, values}; with one value std and ci95 are None."""
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return {"mean": mean, "std": None, "ci95": None, "n": n, "values": list(values)}
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return {"mean": mean, "std": std, "ci95": [mean - half, mean + half], "n": n, "values": list(values)}
