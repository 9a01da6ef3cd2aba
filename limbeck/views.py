"""Views: the augmentation of protocols with knowledge distillation, drawn first and applied second.

Each image is changed on its own, then images are mixed in pairs, in this order:

    patches  the k columns of the image in a random order, then its k rows (RDED): of 2 × 2 patches 4 arrangements. Where k does
             not divide a side, the first parts are a pixel longer, and keep their sizes wherever they go
    crop     a random box, resized to the image's size; its share of the area is uniform on `crop_scale`, the logarithm of its
             width / height on that of `ratio`, its place uniform within the image. A pair that gives a box wider or higher than
             the image is drawn again, nine times at most; then the largest box of an accepted shape is taken from the middle.
    flip     y[i, j] = x[i, W−1−j]                 with probability ½
    roll     y[i, j] = x[(i − a) mod H, (j − b) mod W],  integers a, b from 0 to `roll` (SRe2L)
    mix      with a partner i' (a permutation of the batch) and λ from Beta(α, α), one for the batch:
             mixup    λ x_i + (1 − λ) x_i'
             cutmix   x_i with a box of x_i' pasted in: sides √(1 − λ) of the image's, centred anywhere, cut off at the borders;
                      λ is then 1 − the pasted share of the area
             targets  λ p_i + (1 − λ) p_i'
             of batches only a share `mix_share`, drawn for each, where that is not 1 (NCFM)

Boxes have real borders in pixels; between pixels images are bilinear, and beyond the outermost pixels' centres constant. Every
view is linear in x.

Yin, Xing and Shen, "Squeeze, Recover and Relabel" (SRe2L), 2023, arXiv:2306.13092; Sun, Shi, Yu and Lin, "On the Diversity and
Realism of Distilled Dataset" (RDED), 2024, arXiv:2312.03526; Yun, Han, Oh, Chun, Choe and Yoo, "CutMix", 2019,
arXiv:1905.04899; Zhang, Cisse, Dauphin and Lopez-Paz, "mixup", 2018, arXiv:1710.09412.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from limbeck.runtime.checked import Checked, Count, Positive, Rule, at_least, within
from limbeck.runtime.errors import require
from limbeck.runtime.records import Record

ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Views(Checked, Record):
    """How views are drawn.

    Args:
        crop_scale: least and greatest share of the area that a crop has, in (0, 1]; None does not crop.
        ratio: least and greatest width / height of a crop, above 0.
        flip: whether half of the images are mirrored (not for digits and letters).
        patches: k; the k columns and the k rows of an image are shuffled, where k is not 1.
        mix: how pairs of images are mixed.
        alpha: α of the distribution of λ, above 0.
        mix_share: the share of batches that are mixed.
        roll: the greatest shift down and to the right, in pixels.

    Raises:
        UsageError: when a value is not accepted.
    """

    prefix: ClassVar[str] = "views."
    crop_scale: Annotated[
        tuple[float, float] | None,
        Rule("two shares in (0, 1], the smaller first, or null", lambda shares: shares is None or 0 < shares[0] <= shares[1] <= 1),
    ] = (0.08, 1.0)
    ratio: Annotated[
        tuple[float, float],
        Rule("two numbers above 0 and finite, the smaller first", lambda r: 0 < r[0] <= r[1] < math.inf),
    ] = (3 / 4, 4 / 3)
    flip: bool = True
    patches: Count = 1
    mix: Literal["none", "cutmix", "mixup"] = "none"
    alpha: Positive = 1.0
    mix_share: Annotated[float, within("[0, 1]")] = 1.0
    roll: Annotated[int, at_least(0)] = 0


class ViewDraw(NamedTuple):
    """The views of a batch of B images, on the CPU; None for what is not done. With it the views can be repeated exactly.

    Args:
        order: int64 with shape (B, k²); patch p, row by row, comes from patch `order[:, p]`.
        boxes: float64 with shape (B, 4): first row, first column, height and width of the crops, in pixels.
        flipped: bool with shape (B,).
        shifts: int64 with shape (B, 2), rows and columns.
        partner: int64 with shape (B,), i' of each image.
        weight: λ, float64 with shape (): the share of an image itself in its mixture.
        pasted: int64 with shape (4,), first and one past the last row, first and one past the last column of the box that is
            the partner's; None where `partner` is not means mixup.
    """

    order: Tensor | None = None
    boxes: Tensor | None = None
    flipped: Tensor | None = None
    shifts: Tensor | None = None
    partner: Tensor | None = None
    weight: Tensor | None = None
    pasted: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What was drawn, by name: to be stored, and read again by `from_tensors`."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "ViewDraw":
        """The draw with these tensors.

        Raises:
            UsageError: when they are not those of a draw.
        """
        names, known = sorted(tensors), ", ".join(cls._fields)
        require(set(names) <= set(cls._fields), "views", names, f"some of {known}")
        mixed = {"partner", "weight"} <= set(names) or not {"partner", "weight", "pasted"} & set(names)
        require(mixed, "views", names, "with both partner and weight, which pasted belongs to, or without them")
        return cls(**{name: value.cpu() for name, value in tensors.items()})


def draw(views: Views, generator: torch.Generator, shape: Sequence[int]) -> ViewDraw:
    """Draw the views of a batch.

    Args:
        views: what to draw.
        generator: a CPU generator, the only source of chance.
        shape: of the batch, (B, C, H, W); the draw fits any C.

    Raises:
        UsageError: when `views.patches` is more than the pixels of a side.
    """
    number, _, height, width = shape
    fits = views.patches <= min(height, width)
    require(fits, "views.patches", views.patches, f"at most the images' shorter side, {min(height, width)}")
    order = boxes = None
    if views.patches > 1:
        columns, rows = torch.rand(2, number, views.patches, generator=generator, dtype=torch.float64).argsort(2)
        order = (views.patches * rows[:, :, None] + columns[:, None, :]).flatten(1)
    if views.crop_scale is not None:
        boxes = _boxes(views.crop_scale, views.ratio, generator, number, height, width)
    flipped = torch.rand(number, generator=generator) < 0.5 if views.flip else None
    shifts = torch.randint(views.roll + 1, (number, 2), generator=generator) if views.roll else None
    each = ViewDraw(order, boxes, flipped, shifts)
    if views.mix == "none":
        return each
    if views.mix_share < 1 and float(torch.rand((), generator=generator)) >= views.mix_share:
        return each
    partner, weight = torch.randperm(number, generator=generator), _beta(views.alpha, generator)
    if views.mix == "mixup":
        return each._replace(partner=partner, weight=weight)
    pasted, weight = _pasted(weight, generator, height, width)
    return each._replace(partner=partner, weight=weight, pasted=pasted)


def apply(draw: ViewDraw, x: Tensor) -> Tensor:
    """The views of images x with shape (B, C, H, W), float32 or float64, on any device; differentiable in x.

    Args:
        draw: for a batch of this B, H and W.
        x: left as it is.

    Raises:
        ValueError: when the draw is for another number of images.
    """
    sizes = {len(value) for value in (draw.order, draw.boxes, draw.flipped, draw.shifts, draw.partner) if value is not None}
    if not sizes <= {len(x)}:
        raise ValueError(f"views of {sorted(sizes)} images cannot be applied to {len(x)}")
    if draw.order is not None:
        x = _reorder(x, draw.order)
    if draw.boxes is not None:
        x = _crop(x, draw.boxes)
    if draw.flipped is not None:
        x = torch.where(draw.flipped.to(x.device)[:, None, None, None], x.flip(3), x)
    if draw.shifts is not None:
        x = _roll(x, draw.shifts)
    if draw.pasted is not None and draw.partner is not None:
        return torch.where(_within(draw.pasted, *x.shape[2:]).to(x.device), x[draw.partner.to(x.device)], x)
    return mix_targets(draw, x)


def mix_targets(draw: ViewDraw, probabilities: Tensor) -> Tensor:
    """λ p_i + (1 − λ) p_i' for labels p with first dimension B, such as probabilities (B, K); p itself where nothing is mixed."""
    if draw.partner is None or draw.weight is None:
        return probabilities
    partner = probabilities[draw.partner.to(probabilities.device)]
    return partner.lerp(probabilities, draw.weight.item())


def _boxes(
    scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator, number: int, height: int, width: int
) -> Tensor:
    """First row, first column, height and width of crops: float64 with shape (number, 4)."""
    u = torch.rand(2, number, ATTEMPTS, generator=generator, dtype=torch.float64)
    area = (scale[0] + (scale[1] - scale[0]) * u[0]) * height * width
    least, most = map(math.log, ratio)
    shape = (least + (most - least) * u[1]).exp()
    sides = torch.stack([(area / shape).sqrt(), (area * shape).sqrt()], 2)
    whole = torch.tensor([height, width], dtype=torch.float64)
    # Rounding must not refuse the whole image, the only box of area 1.
    fits = (sides <= whole * (1 + 1e-12)).all(2)
    first = fits.int().argmax(1, keepdim=True)[:, :, None].expand(-1, -1, 2)
    taken = torch.minimum(sides.gather(1, first)[:, 0], whole)
    free = torch.rand(number, 2, generator=generator, dtype=torch.float64)
    in_shape = min(max(width / height, ratio[0]), ratio[1])
    largest = torch.tensor([min(height, width / in_shape), min(width, height * in_shape)], dtype=torch.float64)
    none = ~fits.any(1, keepdim=True)
    taken, free = torch.where(none, largest, taken), torch.where(none, 0.5, free)
    return torch.cat([free * (whole - taken), taken], 1)


def _beta(alpha: float, generator: torch.Generator) -> Tensor:
    """A draw from Beta(α, α), float64 with shape (): the inverse of its distribution function at u, uniform on [0, 1)."""
    u = torch.rand((), generator=generator, dtype=torch.float64)
    if alpha == 1:
        return u
    from scipy.special import betaincinv

    return torch.tensor(float(betaincinv(alpha, alpha, u.item())), dtype=torch.float64)


def _pasted(weight: Tensor, generator: torch.Generator, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The box that the partner fills, and λ for what the borders leave of it."""
    bounds = []
    for side in (height, width):
        length = round(side * math.sqrt(1 - weight.item()))
        first = int(torch.randint(side, (), generator=generator)) - length // 2
        bounds += [max(first, 0), min(first + length, side)]
    top, bottom, left, right = bounds
    share = (bottom - top) * (right - left) / (height * width)
    return torch.tensor(bounds), torch.tensor(1 - share, dtype=torch.float64)


def _reorder(x: Tensor, order: Tensor) -> Tensor:
    number, channels, height, width = x.shape
    k = math.isqrt(order.shape[1])
    if height % k or width % k:
        return _reorder_strips(x, order.unflatten(1, (k, k)))
    patches = x.reshape(number, channels, k, height // k, k, width // k).movedim(4, 3).flatten(2, 3)
    index = order.to(x.device)[:, None, :, None, None].expand(-1, channels, -1, height // k, width // k)
    placed: Tensor = patches.gather(2, index).unflatten(2, (k, k))
    return placed.movedim(4, 3).reshape(x.shape)


def _reorder_strips(x: Tensor, order: Tensor) -> Tensor:
    """The same where parts differ by a pixel: rows of patches, and columns, keep their sizes wherever they go."""
    k = order.shape[1]
    for axis, strips in ((2, order[:, :, 0] // k), (3, order[:, 0] % k)):
        parts = [torch.tensor(part) for part in cut(range(x.shape[axis]), k)]
        index = torch.stack([torch.cat([parts[strip] for strip in row]) for row in strips.tolist()]).to(x.device)
        shape = (len(x), 1, -1, 1) if axis == 2 else (len(x), 1, 1, -1)
        x = x.gather(axis, index.view(shape).expand_as(x))
    return x


def cut(side: Sequence[int], parts: int) -> list[Sequence[int]]:
    """The pixels of a side in `parts` pieces that differ by one at most, the longer ones first."""
    lengths = [len(side) // parts + (part < len(side) % parts) for part in range(parts)]
    ends = list(accumulate(lengths))
    return [side[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _crop(x: Tensor, boxes: Tensor) -> Tensor:
    places = []
    for axis, side in enumerate(x.shape[2:]):
        first, length = boxes[:, axis, None], boxes[:, axis + 2, None]
        border = first + length * (torch.arange(side, dtype=boxes.dtype) + 0.5) / side
        places.append((2 * border / side - 1).to(x.device, x.dtype))
    rows, columns = torch.broadcast_tensors(places[0][:, :, None], places[1][:, None, :])
    return grid_sample(x, torch.stack([columns, rows], 3), mode="bilinear", padding_mode="border", align_corners=False)


def _roll(x: Tensor, shifts: Tensor) -> Tensor:
    height, width = x.shape[2:]
    rows = (torch.arange(height) - shifts[:, :1]) % height
    columns = (torch.arange(width) - shifts[:, 1:]) % width
    place = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None].to(x.device)
    return x.flatten(2).gather(2, place.expand(-1, x.shape[1], -1)).view(x.shape)


def _within(pasted: Tensor, height: int, width: int) -> Tensor:
    """Whether a pixel lies in the box, with shape (H, W)."""
    top, bottom, left, right = pasted.tolist()
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    inside: Tensor = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return inside
