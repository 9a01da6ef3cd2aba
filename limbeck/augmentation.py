"""Differentiable Siamese augmentation (DSA): x ↦ A(x), drawn first and applied second.

One of six operations is drawn at each call, with parameters per image (or, siamese, one set for the whole batch); u is
uniform on [0, 1), independently for every use:

    color    x ← x + u − ½                        brightness
             x ← m + 2u · (x − m)                 saturation, m the pixel's mean over the channels
             x ← μ + (u + ½) · (x − μ)            contrast, μ the image's mean
    crop     y[i, j] = x[i + a, j + b]            integers |a| ≤ ⌊rH + ½⌋, |b| ≤ ⌊rW + ½⌋, zero outside
    cutout   y = 0 in a rectangle of half the sides, centred anywhere, cut off at the borders
    flip     y[i, j] = x[i, W−1−j]                with probability ½
    scale    y(p) = x(diag(s, t) p)               s, t uniform on [1/1.2, 1.2], zero outside
    rotate   y(p) = x(R(φ) p)                     φ uniform on ±15°, zero outside

p is the pixel's place relative to the image's centre, in pixels, so that a rotation is rigid whatever H and W are; between
pixels x(p) is bilinear. Every operation is affine in x, all but `color` (brightness) linear.

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", 2021, arXiv:2102.08259.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from limbeck.augmentation_settings import OPERATIONS
from limbeck.runtime.checked import check_fields, within
from limbeck.runtime.errors import require
from limbeck.runtime.fingerprint import described, encodable, source_of

Applied = Callable[[Tensor], Tensor]
SCALE = 1.2
ANGLE = math.radians(15)


class Augmentation(ABC):
    """A random change of images, drawn first and applied second.

    Example:
        >>> import torch
        >>> class Dark(Augmentation):
        ...     def draw(self, generator, shape, siamese=False):
        ...         factor = torch.rand(1 if siamese else shape[0], 1, 1, 1, generator=generator)
        ...         return lambda x: x * factor.to(x)
        >>> Dark().draw(torch.Generator(), (4, 3, 8, 8))(torch.rand(4, 3, 8, 8)).shape
        torch.Size([4, 3, 8, 8])
    """

    flip: bool = True
    """Whether a mirrored image means the same, for whatever else might mirror it."""

    @abstractmethod
    def draw(self, generator: torch.Generator, shape: Sequence[int], siamese: bool = False) -> Applied:
        """A(x) for images x of `shape` (N, C, H, W): a differentiable function that gives the same at every call.

        Args:
            generator: a CPU generator, the only source of chance.
            shape: of the batch; the same draw fits any C, and when siamese any N.
            siamese: draw one set of parameters, shared by all images.

        Where what it gives has a method `part(positions)`, the same change of those images of the batch alone, several devices each
        change only their own (`Draw` below has it); without, each changes the whole batch.
        """

    def cropping(self, crop_ratio: float) -> "Augmentation":
        """The same with another greatest shift of crops, where there are crops."""
        return self

    def identity(self) -> Any:
        """What determines it, in JSON's types: its class, with the source of that, and what it holds."""
        return [described(self), source_of(type(self)), described([vars(self)])]


@dataclass(frozen=True)
class Dsa(Augmentation):
    """Differentiable Siamese augmentation: one of the operations, drawn anew at each call.

    Args:
        strategy: operations joined by `_`, each equally likely; `none` has none.
        crop_ratio: r in [0, 1].
        flip: False takes `flip` out of the strategy (for digits and letters).
        rotate: False takes `rotate` out.

    Example:
        >>> import torch
        >>> augmentation = Dsa("crop_flip", crop_ratio=0.125)
        >>> drawn = augmentation.draw(torch.Generator().manual_seed(0), (4, 3, 32, 32))
        >>> drawn(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 3, 32, 32])
    """

    strategy: str = "_".join(OPERATIONS)
    crop_ratio: Annotated[float, within("[0, 1]")] = 0.25
    flip: bool = True
    rotate: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        known = self.strategy == "none" or all(name in OPERATIONS for name in self.strategy.split("_"))
        require(known, "strategy", self.strategy, f"none or some of {'_'.join(OPERATIONS)}")

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations to draw from, in the order named."""
        off = {name for name, on in (("flip", self.flip), ("rotate", self.rotate)) if not on}
        return () if self.strategy == "none" else tuple(name for name in self.strategy.split("_") if name not in off)

    def draw(self, generator: torch.Generator, shape: Sequence[int], siamese: bool = False) -> Applied:
        operations = self.operations
        if not operations:
            return Draw("none", {})
        operation = operations[int(torch.randint(len(operations), (), generator=generator))]
        uniform = _Uniform(generator, 1 if siamese else shape[0])
        return Draw(operation, _parameters(operation, uniform, shape[2], shape[3], self.crop_ratio))

    def cropping(self, crop_ratio: float) -> "Dsa":
        return replace(self, crop_ratio=crop_ratio)

    def identity(self) -> Any:
        return encodable(self)


@dataclass(frozen=True, eq=False)
class Draw:
    """One drawn operation of `Dsa` and its parameters, on the CPU, of first dimension N, or 1 when siamese.

    `none` has no parameters and is the identity. Parameters of `color`: `brightness` (added), `saturation` and `contrast`
    (factors), each (n,); of `crop`: `shift` (n, 2), rows and columns; of `cutout`: `rows` and `columns` (n, 2), first and
    one past the last; of `flip`: `flipped` (n,), bool; of `scale`: `factors` (n, 2), rows and columns; of `rotate`:
    `angle` (n,), radians. Reals are float64.
    """

    operation: str
    parameters: dict[str, Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """A(x) for images x with shape (N, C, H, W), float32 or float64, on any device; differentiable in x.

        The adjoint Aᵀ h is the vector–Jacobian product of this function with h.
        """
        return x if self.operation == "none" else _OPERATIONS[self.operation](x, **self.parameters)

    def part(self, positions: Tensor) -> "Draw":
        """The same for those images alone of the batch that it was drawn for, int64, on the CPU."""
        return Draw(self.operation, {name: one if len(one) == 1 else one[positions] for name, one in self.parameters.items()})


NO_AUGMENTATION = Dsa("none")


class _Uniform:
    """u on [0, 1) and whole numbers, one per image."""

    def __init__(self, generator: torch.Generator, number: int) -> None:
        self.generator, self.number = generator, number

    def __call__(self, *size: int) -> Tensor:
        return torch.rand(self.number, *size, generator=self.generator, dtype=torch.float64)

    def integers(self, low: int, high: int) -> Tensor:
        """Whole numbers from low to high, both included."""
        return torch.randint(low, high + 1, (self.number,), generator=self.generator)


def _parameters(operation: str, u: _Uniform, height: int, width: int, crop_ratio: float) -> dict[str, Tensor]:
    match operation:
        case "color":
            return {"brightness": u() - 0.5, "saturation": 2 * u(), "contrast": u() + 0.5}
        case "crop":
            greatest = (math.floor(crop_ratio * side + 0.5) for side in (height, width))
            return {"shift": torch.stack([u.integers(-most, most) for most in greatest], 1)}
        case "cutout":
            return {"rows": _interval(u, height), "columns": _interval(u, width)}
        case "flip":
            return {"flipped": u() < 0.5}
        case "scale":
            return {"factors": 1 / SCALE + (SCALE - 1 / SCALE) * u(2)}
        case "rotate":
            return {"angle": (2 * u() - 1) * ANGLE}
    raise AssertionError(operation)


def _interval(u: _Uniform, side: int) -> Tensor:
    """First and one past the last of half a side's pixels, centred anywhere on the side and cut off at its ends: (n, 2)."""
    length = math.floor(side / 2 + 0.5)
    # The centre of an odd length is one of the side's pixels, that of an even one a line between two, borders included.
    first = u.integers(0, side - length % 2) - length // 2
    return torch.stack([first.clamp_min(0), (first + length).clamp_max(side)], 1)


def _color(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    b, s, c = (value.to(x)[:, None, None, None] for value in (brightness, saturation, contrast))
    pixel = x.mean(1, keepdim=True)
    image = pixel.mean((2, 3), keepdim=True)
    # The three steps multiplied out: saturation keeps a pixel's mean, so that the mean that contrast turns about is μ + b.
    return torch.addcmul(c * (1 - s) * pixel + (1 - c) * image + b, c * s, x)


def _crop(x: Tensor, shift: Tensor) -> Tensor:
    height, width = x.shape[2:]
    rows = torch.arange(height) + shift[:, :1]
    columns = torch.arange(width) + shift[:, 1:]
    seen = _within(rows, 0, height)[:, :, None] & _within(columns, 0, width)[:, None, :]
    place = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    # One gather of whole pixels: exact, and several times faster forth and back than sampling or advanced indexing.
    index = place.flatten(1)[:, None].to(x.device).expand(x.shape[0], x.shape[1], -1)
    return x.flatten(2).gather(2, index).view(x.shape).masked_fill(~seen[:, None].to(x.device), 0)


def _cutout(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    height, width = x.shape[2:]
    row = _within(torch.arange(height), rows[:, :1], rows[:, 1:])
    column = _within(torch.arange(width), columns[:, :1], columns[:, 1:])
    return x.masked_fill((row[:, :, None] & column[:, None, :])[:, None].to(x.device), 0)


def _flip(x: Tensor, flipped: Tensor) -> Tensor:
    return torch.where(flipped.to(x.device)[:, None, None, None], x.flip(3), x)


def _scale(x: Tensor, factors: Tensor) -> Tensor:
    return _resample(x, torch.diag_embed(factors))


def _rotate(x: Tensor, angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return _resample(x, torch.stack([cos, sin, -sin, cos], 1).view(-1, 2, 2))


def _resample(x: Tensor, matrix: Tensor) -> Tensor:
    """y(p) = x(M p) with M of shape (n, 2, 2) and p = (row, column) relative to the centre, in pixels."""
    sides = x.shape[2:]
    row, column = (torch.arange(side).to(x) - (side - 1) / 2 for side in sides)
    m = matrix.to(x)[:, :, :, None, None]
    down, right = ((m[:, axis, 0] * row[:, None] + m[:, axis, 1] * column) * (2 / sides[axis]) for axis in (0, 1))
    grid = torch.stack([right, down], 3).expand(x.shape[0], -1, -1, -1)
    # About the centre both meanings of the grid give the same pixels; only without align_corners a side may be one pixel.
    return grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _within(value: Tensor, first: Tensor | int, end: Tensor | int) -> Tensor:
    return (value >= first) & (value < end)


_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
