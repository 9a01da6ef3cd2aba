"""A tiny network with a global mean before its head, and random images, for the tests of this folder."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity
from limbeck.data.split import Split, whole
from limbeck.image_complexity.classifier import Classifier
from limbeck.image_complexity.measure import Pictures
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.progress import NoProgress, Progress


class Tiny(nn.Module):
    """Convolution → ReLU → 2×2 mean pooling, the mean over space, a linear head."""

    def __init__(self, channels: int = 3, classes: int = 3, width: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(width, classes)

    def front(self, x: Tensor) -> Tensor:
        return self.pool(self.body(x))

    def back(self, a: Tensor) -> Tensor:
        return self.head(a.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.front(x))


def tiny(channels: int = 3, classes: int = 3, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Tiny(channels, classes).eval().requires_grad_(False)


def tiny_judge(
    names: Sequence[str] = ("a", "b", "c"), size: int = 8, channels: int = 3, module: nn.Module | None = None
) -> Classifier:
    return Classifier("tiny", module or tiny(channels, len(names)), (channels, size, size), Identity(), tuple(names))


def image_set(
    per_class: int = 6, names: Sequence[str] = ("a", "b", "c"), size: int = 8, channels: int = 3, test: int = 2, val: int = 1
) -> ImageSet:
    """Random pixels in random order; the classes differ in nothing."""
    rng = np.random.default_rng(3)

    def part(count: int) -> Split:
        labels = rng.permutation(np.repeat(np.arange(len(names)), count))
        return whole(rng.integers(0, 256, (len(labels), channels, size, size), dtype=np.uint8), labels)

    splits = part(per_class), part(val), part(test)
    return ImageSet.of(*splits, tuple(names), "random")


def workspace_of(data: ImageSet, progress: Progress | None = None) -> Workspace:
    workspace = Workspace(DistillSettings(), progress or NoProgress())
    workspace.data = data
    return workspace


def pictures_of(data: ImageSet) -> Pictures:
    n = len(data.train)
    parts = np.zeros(n, dtype=np.int64), np.arange(n), data.train.labels
    return Pictures({"train": data.train}, *parts, data.class_names, data.fingerprint)
