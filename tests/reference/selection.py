"""Herding and k-center entry by entry, in float64, by trying every image at every step."""

import math
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
