"""Steps of GSAM entry by entry, in float64, from the equations of arXiv:2203.08065."""

import math
from collections.abc import Callable

Vector = list[float]


def step(
    theta: Vector,
    velocity: Vector,
    gradient: Callable[[Vector], Vector],
    lr: float,
    rho: float,
    alpha: float,
    adaptive: bool,
    momentum: float,
    weight_decay: float,
) -> tuple[Vector, Vector]:
    """θ and v after a step."""
    g = gradient(theta)
    e = climb(theta, g, rho, adaptive)
    g_p = gradient([a + b for a, b in zip(theta, e, strict=True)])
    orthogonal = [a - b for a, b in zip(g, along(g, g_p), strict=True)]
    direction = [a - alpha * b for a, b in zip(g_p, orthogonal, strict=True)]
    velocity = [momentum * v + d + weight_decay * t for v, d, t in zip(velocity, direction, theta, strict=True)]
    return [t - lr * v for t, v in zip(theta, velocity, strict=True)], velocity


def climb(theta: Vector, g: Vector, rho: float, adaptive: bool) -> Vector:
    """e = ρ θ² ∘ g / ‖|θ| ∘ g‖, or ρ g / ‖g‖; 0 where the norm is."""
    weighted = [abs(t) * a if adaptive else a for t, a in zip(theta, g, strict=True)]
    length = math.sqrt(sum(a * a for a in weighted))
    return [0.0 if length == 0 else rho * (t * t * a if adaptive else a) / length for t, a in zip(theta, g, strict=True)]


def along(g: Vector, other: Vector) -> Vector:
    """The part of g in the direction of the other vector: ‖g‖ cos ∠(g, o) times o / ‖o‖."""
    lengths = [math.sqrt(sum(a * a for a in v)) for v in (g, other)]
    if 0 in lengths:
        return [0.0] * len(g)
    cosine = sum(a * b for a, b in zip(g, other, strict=True)) / (lengths[0] * lengths[1])
    return [lengths[0] * cosine * b / lengths[1] for b in other]
