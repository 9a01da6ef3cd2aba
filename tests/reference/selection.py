"""Selections entry by entry, in float64, by trying every image at every step."""

import math
import statistics
from collections.abc import Sequence

Vector = Sequence[float]


def distance(a: Vector, b: Vector) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def mean(rows: Sequence[Vector]) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def herding(rows: Sequence[Vector], count: int) -> list[int]:
    """Numbers of the rows, each of which brings the mean of the chosen nearest to that of all."""
    whole, chosen = mean(rows), list[int]()
    for _ in range(count):
        left = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(min(left, key=lambda i: distance(mean([rows[j] for j in [*chosen, i]]), whole)))
    return chosen


def k_center(rows: Sequence[Vector], count: int) -> list[int]:
    """Numbers of the rows: the one nearest the mean, then always the one farthest from those chosen."""
    whole = mean(rows)
    chosen = [min(range(len(rows)), key=lambda i: distance(rows[i], whole))]
    while len(chosen) < count:
        left = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(max(left, key=lambda i: min(distance(rows[i], rows[j]) for j in chosen)))
    return chosen


def moderate(rows: Sequence[Vector], count: int) -> list[int]:
    """Numbers of the rows whose distance to the mean is nearest to the median distance."""
    whole = mean(rows)
    off = [distance(row, whole) for row in rows]
    middle = statistics.median_low(off)
    return sorted(range(len(rows)), key=lambda i: abs(off[i] - middle))[:count]


def strata(scores: Sequence[float], count: int, beta: float, bins: int) -> dict[int, int]:
    """How many images CCS takes of every bin of a class, without the empty ones."""
    left = sorted(scores)[: max(count, len(scores) - math.floor(beta * len(scores)))]
    low, high = min(left), max(left)
    held: dict[int, int] = {}
    for score in left:
        number = min(bins - 1, math.floor((score - low) / (high - low) * bins)) if high > low else 0
        held[number] = held.get(number, 0) + 1
    taken = {}
    while held:
        smallest = min(held, key=lambda number: (held[number], number))
        taken[smallest] = min(held[smallest], count // len(held))
        count -= taken[smallest]
        del held[smallest]
    return taken


def el2n(logits: Sequence[Vector], labels: Sequence[int]) -> list[float]:
    """The length of every error vector."""
    found = []
    for row, label in zip(logits, labels, strict=True):
        whole = math.fsum(math.exp(value) for value in row)
        errors = [math.exp(value) / whole - (k == label) for k, value in enumerate(row)]
        found.append(math.sqrt(math.fsum(error**2 for error in errors)))
    return found


def forgetting(right: Sequence[Sequence[bool]]) -> list[int]:
    """Of rows, one for each epoch, how often every image was right and then wrong; the number of epochs where it never was."""
    columns = zip(*right, strict=True)
    return [sum(a and not b for a, b in zip(one, one[1:], strict=False)) if any(one) else len(one) for one in columns]
