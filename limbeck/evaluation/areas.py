"""What an image carries: how much of it speaks for its class, to a given network.

With M in [0, 1] an activation map over H·W pixels p, and B the pixels of the object's box, where that is known,

    area      |{p : M_p > mean M}| / HW       the discriminative area; or the share above a number
    mean      Σ_p M_p / HW
    energy    Σ_{p∈B} M_p / Σ_p M_p           of the activation, inside the box
    pointing  whether M is highest in B

By chance, that is for a map that knows nothing of where the object is, the last two are |B| / HW; because objects and maps alike
favour some places (the middle), the energy inside OTHER images' boxes is the stricter level to judge by.

K. Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios", 2024, arXiv:2410.17193.
Energy: H. Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", 2019, arXiv:1910.01279.
Pointing: J. Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016, arXiv:1608.00507.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.accuracy import Accuracy
from limbeck.evaluation.statistics import summarise
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.records import Record
from limbeck.saliency.maps import Cam


@dataclass(frozen=True, kw_only=True)
class Relative(Record):
    """100 (mean distilled / mean initial − 1), with its interval by the delta method."""

    mean: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Pairs(Record):
    """A figure of distilled images and of those that they began as.

    Args:
        distilled: with the value of every image, as `initial`.
        initial: before.
        difference: of the pairs.
        relative_percent: None where the initial mean is 0.
        grown: the share of images in which it is larger.
    """

    distilled: Accuracy
    initial: Accuracy
    difference: Accuracy
    relative_percent: Relative | None
    grown: float


@dataclass(frozen=True, kw_only=True)
class Maps(Record):
    """What the maps of some images say of them.

    Args:
        cam: the kind of map.
        cam_layer: of which layer.
        blank: maps without preference, which enter with 0.
        area: over the images, as the others.
        mean_activation: likewise.
        energy_inside: where boxes are known, as those below.
        pointing: of values 0 and 1.
        chance: of both.
        energy_elsewhere: None for a single image, as `energy_gain`.
        energy_gain: inside less elsewhere.
    """

    cam: str
    cam_layer: str | None
    blank: int
    area: Accuracy
    mean_activation: Accuracy
    energy_inside: Accuracy | None = None
    pointing: Accuracy | None = None
    chance: Accuracy | None = None
    energy_elsewhere: Accuracy | None = None
    energy_gain: Accuracy | None = None

    LEFT_OUT: ClassVar = ("energy_inside", "pointing", "chance", "energy_elsewhere", "energy_gain")


@dataclass(frozen=True, kw_only=True)
class Carried(Record):
    """What distilled images carry, beside those that they began as.

    Args:
        compared_with: what the initial images are, where that is said; likewise `network` and `test_images`.
        network: whose maps.
        area: of the maps.
        mean_activation: likewise.
        threshold: of the area.
        blank: the numbers of maps without preference, which enter with 0.
        test_images: of images with boxes.
    """

    compared_with: str = ""
    network: str = ""
    area: Pairs
    mean_activation: Pairs
    threshold: str | float
    blank: Mapping[str, int]
    test_images: Maps | None = None

    LEFT_OUT: ClassVar = ("compared_with", "network", "test_images")


def discriminative_area(maps: Tensor, threshold: Literal["mean"] | float = "mean") -> Tensor:
    """The share of pixels, in [0, 1], strictly above each map's own mean or above a number; float64 with shape (N,).

    A map of equal values, such as one of zeros, has nothing above its mean: 0.

    Args:
        maps: in [0, 1] with shape (N, H, W), as everywhere here.
        threshold: `mean` or a number in [0, 1].

    Raises:
        UsageError: for other maps or thresholds.
    """
    number = isinstance(threshold, (int, float)) and 0 <= threshold <= 1
    require(number or threshold == "mean", "threshold", threshold, "mean or a number in [0, 1]")
    wide = _checked(maps)
    if threshold != "mean":
        return (wide > float(threshold)).double().mean((1, 2))
    # A mean that is rounded down would put all of a flat map above it.
    above = (wide > wide.mean((1, 2), keepdim=True)) & (wide > wide.amin((1, 2), keepdim=True))
    return above.double().mean((1, 2))


def mean_activation(maps: Tensor) -> Tensor:
    """The mean of each map, in [0, 1]; float64 with shape (N,)."""
    return _checked(maps).mean((1, 2))


def energy_inside(maps: Tensor, boxes: Tensor | np.ndarray) -> Tensor:
    """The share of each map's sum that lies inside its image's box, in [0, 1], 0 for a map of zeros; float64 with shape (N,).

    Args:
        maps: with shape (N, H, W).
        boxes: integers with shape (N, 4): top, left, bottom and right, the last two exclusive, inside the image.

    Raises:
        UsageError: for other maps or boxes.
    """
    wide = _checked(maps)
    return _weighted_share(wide, _inside(boxes, wide))


def energy_elsewhere(maps: Tensor, boxes: Tensor | np.ndarray) -> Tensor:
    """`energy_inside` the boxes of the other images, the mean over them: what a map has there by its habits alone.

    Raises:
        UsageError: also when there is only one image.
    """
    wide = _checked(maps)
    require(len(wide) > 1, "maps", tuple(maps.shape), "of two images or more")
    inside = _inside(boxes, wide).double()
    return _weighted_share(wide, (inside.sum(0) - inside) / (len(wide) - 1))


def pointing(maps: Tensor, boxes: Tensor | np.ndarray) -> Tensor:
    """Whether each map is highest inside its image's box; bool with shape (N,).

    Where several pixels are the highest (near the border bilinear values repeat), more than half of them must lie inside. A map
    of equal values points nowhere: False.
    """
    wide = _checked(maps)
    highest = (wide == wide.amax((1, 2), keepdim=True)) & (wide > wide.amin((1, 2), keepdim=True))
    return 2 * (highest & _inside(boxes, wide)).sum((1, 2)) > highest.sum((1, 2))


def box_share(boxes: Tensor | np.ndarray, height: int, width: int) -> Tensor:
    """|B| / HW, the chance level of `energy_inside` and `pointing`; float64 with shape (N,)."""
    top, left, bottom, right = _checked_boxes(boxes, height, width).unbind(1)
    return ((bottom - top) * (right - left)).double() / (height * width)


def carries(distilled_maps: Tensor, initial_maps: Tensor, threshold: Literal["mean"] | float = "mean") -> Carried:
    """How area and mean activation of distilled images compare with those of the images that they began as.

    Image i of the one is paired with image i of the other. Both maps have to be of the same network, with the same layer and the
    same noise, or the figures compare those.

    Args:
        distilled_maps: with shape (N, H, W).
        initial_maps: with the same shape; also those of another method that began with the same images.
        threshold: of the area.

    """
    require(
        distilled_maps.shape == initial_maps.shape, "maps", tuple(distilled_maps.shape), f"of shape {tuple(initial_maps.shape)}"
    )
    require(len(distilled_maps) > 0, "maps", tuple(distilled_maps.shape), "of one image or more")
    both = {"distilled": distilled_maps, "initial": initial_maps}
    return Carried(
        area=_paired(*(discriminative_area(maps, threshold) for maps in both.values())),
        mean_activation=_paired(*(mean_activation(maps) for maps in both.values())),
        threshold=threshold,
        blank={name: _blank(maps) for name, maps in both.items()},
    )


def measure(
    map_network: nn.Module,
    x: Tensor,
    classes: Tensor,
    cam: Cam,
    generator: torch.Generator,
    boxes: Tensor | np.ndarray | None = None,
) -> Maps:
    """Maps of `x`, and what they say of every image.

    Args:
        map_network: G; a better judge if it is not the one that distillation used.
        x: images as G takes them, with shape (N, C, H, W).
        classes: G's class ids, int64 with shape (N,).
        cam: what makes the maps; the area is always that above the mean, so that runs can be compared.
        generator: of the noise of `smooth_gradcam_pp`.
        boxes: of the objects, with shape (N, 4), where they are known; those of the real images that `x` began as.
    """
    require(len(x) > 0, "x", tuple(x.shape), "one image or more")
    maps = cam(map_network, x, classes, generator)
    found = Maps(
        cam=getattr(cam, "kind", type(cam).__name__),
        cam_layer=getattr(cam, "layer", None),
        blank=_blank(maps),
        area=_summary(discriminative_area(maps)),
        mean_activation=_summary(mean_activation(maps)),
    )
    if boxes is None:
        return found
    inside, elsewhere = energy_inside(maps, boxes), energy_elsewhere(maps, boxes) if len(maps) > 1 else None
    return replace(
        found,
        energy_inside=_summary(inside),
        pointing=_summary(pointing(maps, boxes)),
        chance=_summary(box_share(boxes, *maps.shape[1:])),
        energy_elsewhere=None if elsewhere is None else _summary(elsewhere),
        energy_gain=None if elsewhere is None else _summary(inside - elsewhere),
    )


def _paired(distilled: Tensor, initial: Tensor) -> Pairs:
    relative = None
    before = initial.mean()
    if before > 0:
        ratio = distilled.mean() / before
        # The delta method: the ratio of means varies as the mean of these does, to first order; their mean is the ratio.
        linear = _summary(100 * (ratio - 1 + (distilled - ratio * initial) / before))
        relative = Relative(mean=float(100 * (ratio - 1)), ci95=linear.ci95)
    return Pairs(
        distilled=_summary(distilled),
        initial=_summary(initial),
        difference=_summary(distilled - initial),
        relative_percent=relative,
        grown=(distilled > initial).double().mean().item(),
    )


def _summary(values: Tensor) -> Accuracy:
    return summarise(values.double().tolist())


def _blank(maps: Tensor) -> int:
    return int((maps == 0).all(2).all(1).sum())


def _weighted_share(wide: Tensor, weight: Tensor) -> Tensor:
    """Σ w_p M_p / Σ M_p with w in [0, 1]; 0 for a map of zeros."""
    total = wide.sum((1, 2))
    return torch.where(total > 0, (wide * weight).sum((1, 2)) / total, 0.0).clamp(max=1)


def _inside(boxes: Tensor | np.ndarray, maps: Tensor) -> Tensor:
    """Which pixels lie in the box; bool with the shape of the maps."""
    number, height, width = maps.shape
    checked = _checked_boxes(boxes, height, width).to(maps.device)
    require(len(checked) == number, "boxes", tuple(checked.shape), f"of shape ({number}, 4), one for every map")
    top, left, bottom, right = checked[:, :, None].unbind(1)
    rows, columns = torch.arange(height, device=maps.device), torch.arange(width, device=maps.device)
    return ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]


def _checked_boxes(boxes: Tensor | np.ndarray, height: int, width: int) -> Tensor:
    found = torch.as_tensor(boxes)
    require(found.ndim == 2 and found.shape[1] == 4, "boxes", tuple(found.shape), "of shape (N, 4)")
    require(not (found.is_floating_point() or found.is_complex()), "boxes", found.dtype, "of integers")
    top, left, bottom, right = found.unbind(1)
    good = (top >= 0) & (top < bottom) & (bottom <= height) & (left >= 0) & (left < right) & (right <= width)
    if not good.all():
        worst = found[~good][0].tolist()
        raise UsageError(f"boxes: {worst} is not top < bottom, left < right inside {height}×{width} pixels")
    return found.long()


def _checked(maps: Tensor) -> Tensor:
    """The maps in float64."""
    require(maps.ndim == 3 and maps.shape[1:].numel() > 0, "maps", tuple(maps.shape), "of shape (N, H, W) with H·W > 0")
    wide = maps.detach().double()
    if not ((wide >= 0) & (wide <= 1)).all():
        raise UsageError(f"maps: values from {wide.min():.4g} to {wide.max():.4g} are not in [0, 1]")
    return wide
