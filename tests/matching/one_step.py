"""One student step, a point to take it at, and everything that it gives there."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from limbeck.losses import soft_cross_entropy
from limbeck.matching.closed_form import Staged
from limbeck.matching.derivatives import Pulled
from limbeck.matching.steps import StudentStep
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runtime.random import generator

KINDS = ("reverse", "staged")
CLASSES = 4


def student(name: str, shape: tuple[int, int, int] = (3, 8, 12), kind: str = "reverse", **options: Any) -> StudentStep:
    """An uncompiled step, by reverse mode or in closed form."""
    step = StudentStep(flat_network(name, shape, CLASSES), soft_cross_entropy, **options)
    if kind == "staged":
        stages = step.network.stages(torch.bfloat16 if options.get("precision") == "bf16" else None)
        assert stages is not None
        object.__setattr__(step, "functions", Staged(step.network, stages, soft_cross_entropy))
    return step


class At:
    """θ with norms that scale and shift, λ, and B images with labels."""

    def __init__(self, network: FlatNetwork, batch: int, shape: tuple[int, ...] = (3, 8, 12), seed: int = 0) -> None:
        draws = generator(seed, "at", batch)
        self.theta = network.initial(draws).double()
        self.theta += 0.1 * torch.randn(self.theta.shape, generator=draws, dtype=torch.float64)
        self.cotangent = torch.randn(self.theta.shape, generator=draws, dtype=torch.float64)
        self.x = torch.randn(batch, *shape, generator=draws, dtype=torch.float64)
        self.y = torch.randn(batch, CLASSES, generator=draws, dtype=torch.float64)

    def float(self) -> "At":
        for name in ("theta", "cotangent", "x", "y"):
            setattr(self, name, getattr(self, name).float())
        return self

    @property
    def point(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.theta, self.x, self.y


def error(value: Tensor, reference: Tensor) -> float:
    assert value.shape == reference.shape
    assert reference.norm() > 1e-6
    return ((value.double() - reference.double()).norm() / reference.double().norm()).item()


def everything(step: StudentStep, at: At) -> list[tuple[str, Tensor]]:
    """What each function of a step gives."""
    gradient, kept = step.keep(*at.point)
    found: list[tuple[str, Tensor]] = [("g", step.gradient(*at.point)), ("g kept", gradient)]
    ways: dict[str, Callable[[], Pulled]] = {
        "again": lambda: step.pullback(*at.point, at.cotangent),
        "kept": lambda: step.pullback(*at.point, at.cotangent, kept),
        "data": lambda: step.pullback(*at.point, at.cotangent, by_theta=False),
    }
    for way, pull in ways.items():
        pulled = pull()
        found += [(f"{part} {way}", value.clone()) for part, value in pulled._asdict().items() if (way, part) != ("data", "theta")]
        assert (len(pulled.theta) == 0) == (way == "data")
    assert not any(value.requires_grad for _, value in found)
    return found


def same(found: list[tuple[str, Tensor]], expected: list[tuple[str, Tensor]], tolerance: float) -> None:
    for (name, value), (expected_name, reference) in zip(found, expected, strict=True):
        assert name == expected_name
        assert error(value, reference) < tolerance, name
