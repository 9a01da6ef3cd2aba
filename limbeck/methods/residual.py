"""Recovery in stages, with a real patch blended in between two of them and every other stage at a lower resolution (FADRM).

The N iterations of a batch are cut into k stages, stage j from ⌊j N / k⌋ on. With D and U for making images smaller and larger,

    stage at a low resolution      X' ← D(X),   X' recovered,   X ← U(X')
    after every stage but the last X ← α X + (1 − α) P

with P the real patch that X may have started from, the same one each time. The last stage has the whole resolution, the one before
it the low one, and so on back, as in the published 200, 224, 200, 224 pixels (k = 4, α = ½, N = 2000). Adam's moments begin anew in
every stage; the cosine of its step size is one, over all N. D and U are bilinear, D with antialiasing; both are matrices on rows
and columns, so that they and their gradients are the same on every device.

Cui, Bi, Luo, Zhao, Liu and Shen, "FADRM: Fast and Accurate Data Residual Matching for Dataset Distillation", 2025,
arXiv:2506.24125. Ours, where the equations leave it open: P is RDED's most realistic crop (the releases' scripts ask for patches of
medium difficulty); a teacher that takes images of one size alone sees U(X').
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Stages:
    """How the iterations of a batch are cut.

    Args:
        iterations: N.
        count: k, at most N.
        low: share of the sides at the low resolution; 1 has none.
    """

    iterations: int
    count: int = 1
    low: float = 1.0

    def of(self, iteration: int) -> int:
        """The stage that an iteration is of, from 0."""
        return ((iteration + 1) * self.count - 1) // self.iterations

    def first(self, stage: int) -> int:
        """The first iteration of a stage; of `count`, N."""
        return stage * self.iterations // self.count

    def place(self, iteration: int) -> tuple[int, int]:
        """Which iteration of its stage that is, from 0, and how many that has."""
        stage = self.of(iteration)
        first = self.first(stage)
        return iteration - first, self.first(stage + 1) - first

    def is_low(self, stage: int) -> bool:
        """Whether X has the low resolution in that stage."""
        return self.low < 1 and (self.count - 1 - stage) % 2 == 1

    def low_size(self, height: int, width: int) -> tuple[int, int]:
        """The sides at the low resolution, of whole sides H and W."""
        return max(1, round(self.low * height)), max(1, round(self.low * width))


def blend(x: Tensor, patches: Tensor, residual: float) -> Tensor:
    """α X + (1 − α) P, of images and patches with one shape."""
    return residual * x + (1 - residual) * patches


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N, C, H, W) with other sides (h, w); x itself where they are the same."""
    if tuple(x.shape[2:]) == size:
        return x
    rows, columns = (_matrix(old, new).to(x) for old, new in zip(x.shape[2:], size, strict=True))
    found: Tensor = rows @ x @ columns.T
    return found


def _matrix(old: int, new: int) -> Tensor:
    """What each of `new` points takes of `old` ones, float64 with shape (new, old); rows sum to 1."""
    whole = torch.eye(old, dtype=torch.float64)[None, None]
    return interpolate(whole, (new, old), mode="bilinear", antialias=True)[0, 0]
