"""Trajectory matching's step and its criteria (arXiv:2203.11932, arXiv:2310.05773, EDF) as plain loops over Python floats."""

import math
from fractions import Fraction


def matching_loss(theta: list[float], start: list[float], target: list[float], drop_ratio: float) -> tuple[float, list[bool]]:
    """L and the kept parameters: the ⌊αP⌋ smallest losses are dropped, of equal ones the earlier."""
    losses = [(a - b) ** 2 for a, b in zip(theta, target, strict=True)]
    order = sorted(range(len(losses)), key=lambda p: (losses[p], p))
    dropped = set(order[: math.floor(Fraction(str(drop_ratio)) * len(losses))])
    kept = [p not in dropped for p in range(len(losses))]
    above = math.fsum(loss for loss, keep in zip(losses, kept, strict=True) if keep)
    below = math.fsum((a - b) ** 2 for a, b, keep in zip(start, target, kept, strict=True) if keep)
    return above / below, kept


def matching_gradient(theta: list[float], start: list[float], target: list[float], drop_ratio: float) -> list[float]:
    """∂L/∂θ with the kept set held fixed."""
    _, kept = matching_loss(theta, start, target, drop_ratio)
    below = math.fsum((a - b) ** 2 for a, b, keep in zip(start, target, kept, strict=True) if keep)
    return [2 * (a - b) / below if keep else 0.0 for a, b, keep in zip(theta, target, kept, strict=True)]


def start_epochs(first: int, last: int, low: int, iterations: int, iteration: int) -> list[int]:
    """The start epochs that the sequential schedule may draw."""
    epochs = list(range(low, first))
    for t in range(first, last):
        # t becomes possible once the upper end has moved past it.
        if (t + 1 - first) * iterations <= (last - first) * iteration:
            epochs.append(t)
    return epochs


def layer_cosine(
    theta: list[float], start: list[float], target: list[float], sizes: list[int], kept: list[bool] | None = None
) -> float:
    """The mean over layers of ½ (1 − cos) between the two ways, over what is kept; where one does not move, cos is 0."""
    halves, first = [], 0
    for size in sizes:
        places = [p for p in range(first, first + size) if kept is None or kept[p]]
        own, wanted = [theta[p] - start[p] for p in places], [target[p] - start[p] for p in places]
        product = math.fsum(a * b for a, b in zip(own, wanted, strict=True))
        lengths = math.sqrt(math.fsum(a * a for a in own) * math.fsum(b * b for b in wanted))
        halves.append((1 - (product / lengths if lengths else 0.0)) / 2)
        first += size
    return math.fsum(halves) / len(sizes)
