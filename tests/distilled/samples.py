"""Small distilled sets to test with."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from limbeck.data.preprocessing import Identity, Normalise, Preprocessing, Whiten
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet

NAMES = ("owl", "mole", "newt")


def normalise(channels: int) -> Normalise:
    return Normalise(torch.linspace(0.4, 0.6, channels), torch.linspace(0.2, 0.3, channels))


def whiten(shape: tuple[int, int, int]) -> Whiten:
    size = shape[0] * shape[1] * shape[2]
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64) * 0.05 + torch.eye(size, dtype=torch.float64)
    matrix = root @ root.T
    return Whiten(torch.full((size,), 0.5), matrix.float(), matrix.inverse().float())


def sample_set(
    names: tuple[str, ...] = NAMES,
    ipc: int = 2,
    shape: tuple[int, int, int] = (3, 8, 10),
    preprocessing: str = "normalise",
    hard: bool = False,
    images: Tensor | None = None,
    metadata: dict | None = None,
) -> DistilledSet:
    generator = torch.Generator().manual_seed(3)
    count = ipc * len(names)
    made: Preprocessing = {
        "identity": lambda: Identity(),
        "normalise": lambda: normalise(shape[0]),
        "whiten": lambda: whiten(shape),
    }[preprocessing]()
    classes = torch.arange(len(names)).repeat_interleave(ipc)
    logits = torch.randn(count, len(names), generator=generator)
    x = made.forward(torch.rand(count, *shape, generator=generator)) if images is None else images
    y = torch.nn.functional.one_hot(classes, len(names)).float() if hard else logits
    small = SmallSet(x, y, classes, 0.012345678901234567, "hard" if hard else "logits")
    return DistilledSet(set=small, preprocessing=made, class_names=names, metadata={} if metadata is None else metadata)


def changed(held: DistilledSet, **changes: Any) -> DistilledSet:
    """The set with other images, labels, classes, syn_lr, kind or views, or with another preprocessing, names or metadata."""
    inner = {name: changes.pop(name) for name in ("images", "labels", "classes", "syn_lr", "kind", "views") if name in changes}
    return dataclasses.replace(held, set=dataclasses.replace(held.set, **inner), **changes)


def summary(mean: float, std: float = 0.012, n: int = 5) -> dict:
    return {"mean": mean, "std": std, "ci95": [mean - 1.24 * std, mean + 1.24 * std], "n": n, "values": [mean] * n}
