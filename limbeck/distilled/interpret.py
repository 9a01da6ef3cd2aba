"""What images and labels mean that no description comes with.

    images   uint8, or floats in [0, 1]: pixels p, of which x = A(p), A the preprocessing of the data; other floats: x itself, by A
             or by the means and deviations that `distilled.normalised` finds
    labels   integers and one-hot rows: hard; rows q ≥ 0 that sum to 1: probabilities, Y = log max(q, 1e-12), whose softmax is q;
             other rows: logits Y

Every choice that is made comes back as a sentence; where the values leave a doubt, the set is refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from limbeck.data.preprocessing import Identity, Preprocessing, Whiten
from limbeck.distilled import normalised as normalisation
from limbeck.distilled.formats import FLOATS, refusal, shown
from limbeck.distilled.small_set import Kind, are_probabilities, first_infinite, is_one_hot

LEAST = 1e-12
WIDER = (torch.int16, torch.int32, torch.int64)
LEVELS = 255  # what is white, of levels in floats
NEGATIVE = -0.05  # darker than what an optimiser makes of black
MOST_OUTSIDE = 0.3  # share of values outside of [0, 1] in what is said to be pixels


class Prepared(NamedTuple):
    """Images as a network takes them, what leads from pixels to them, and what was assumed."""

    values: Tensor
    preprocessing: Preprocessing
    notes: list[str]


class Understood(NamedTuple):
    """A tensor as it is meant, and what was assumed about it."""

    values: Tensor
    notes: list[str]


def images_of(
    path: Path,
    found: Tensor,
    shape: tuple[int, int, int],
    preprocessing: Preprocessing,
    normalised: Any,
    resize: bool,
    usual: str | None = None,
) -> Prepared:
    """Images as a network takes them.

    Args:
        path: where they are from, for messages.
        found: (N, C, H, W), (N, H, W, C) or, in grey, (N, H, W).
        shape: C, H, W of the data.
        preprocessing: of the data.
        normalised: of images in floats, as `ForeignOptions` has it.
        resize: bring other sizes to H and W.
        usual: by which name of `CONSTANTS` such files are normalised where nothing says it, or None.

    Returns:
        float32 with shape (N, C, H, W), and the rest.

    Raises:
        UsageError: when they do not have this shape, are not finite, or leave a doubt.
    """
    found = _channels_first(path, found, shape[0])
    if found.dtype in WIDER and int(found.min()) >= 0 and int(found.max()) <= LEVELS:  # bytes that are kept in wider numbers
        found = found.byte()
    if found.dtype not in (*FLOATS, torch.uint8):
        raise refusal(path, f"holds images as {found.dtype}; uint8, whole numbers in 0 … {LEVELS} or floats are accepted")
    x = found.float() / 255 if found.dtype == torch.uint8 else found.float()
    if (odd := first_infinite(x)) is not None:
        raise refusal(path, f"holds images with numbers that are not finite, the first in image {odd}")
    if found.dtype != torch.uint8 and normalised == LEVELS:
        x, normalised = x / LEVELS, "no"
    prepared, notes = (False, []) if found.dtype == torch.uint8 else _prepared(path, x, preprocessing, normalised)
    if prepared and normalised != "yes":
        said = None if normalised == "auto" else normalised
        preprocessing, grounds = normalisation.understood(x, said, preprocessing, usual)
        notes = grounds or notes
    sides, wanted = (x.shape[2], x.shape[3]), shape[1:]
    if sides != wanted:
        notes = [*notes, resizing(path, sides, wanted, resize)]
        if prepared and isinstance(preprocessing, Whiten):
            raise refusal(path, f"holds whitened images of {sides[0]}×{sides[1]} pixels, which cannot be resized")
        x = interpolate(x, wanted, mode="bilinear", antialias=True)
    return Prepared((x if prepared else preprocessing.forward(x)).contiguous(), preprocessing, notes)


def _channels_first(path: Path, found: Tensor, channels: int) -> Tensor:
    if found.numel() == 0:
        raise refusal(path, f"holds no images: their shape is {tuple(found.shape)}")
    if found.ndim == 3 and channels == 1:
        return found.unsqueeze(1)
    if found.ndim != 4 or channels not in (found.shape[1], found.shape[3]):
        accepted = f"(N, {channels}, H, W) or (N, H, W, {channels}) is accepted"
        raise refusal(path, f"holds images with shape {tuple(found.shape)}; {accepted}")
    return found if found.shape[1] == channels else found.permute(0, 3, 1, 2)


def _prepared(path: Path, x: Tensor, preprocessing: Preprocessing, normalised: Any) -> tuple[bool, list[str]]:
    """Whether images in floats are as a network takes them, and on what grounds."""
    low, high = float(x.min()), float(x.max())
    span = f"{low:.3g} … {high:.3g}"
    outside = float(((x < 0) | (x > 1)).float().mean())
    if normalised == "no":
        if outside > MOST_OUTSIDE:
            raise refusal(path, f"holds images with values {span}, which are no pixels in [0, 1], as --normalised no says")
        return False, []
    if normalised != "auto" or isinstance(preprocessing, Identity):
        return True, []
    if low >= 0 and high <= 1:
        return False, [f"images have values {span} and are taken for pixels"]
    if low < NEGATIVE and (low < -1 or high > 1):
        return True, [f"images have values {span} and are taken as prepared like the data"]
    ways = f"say --normalised yes{' or no' if outside <= MOST_OUTSIDE else ''}, imagenet, cifar10, … for published numbers"
    ways += f", or {LEVELS} where that is white" if low >= 0 else ""
    raise refusal(path, f"holds images with values {span}, which may be pixels or normalised: {ways}")


def resizing(path: Path, sides: tuple[int, int], wanted: tuple[int, int], resize: bool) -> str:
    """The note that images were resized.

    Raises:
        UsageError: when that was not asked for.
    """
    found = f"{sides[0]}×{sides[1]} pixels"
    if not resize:
        raise refusal(
            path, f"holds images of {found}, where the data have {wanted[0]}×{wanted[1]}; --resize brings them to that size"
        )
    return f"images of {found} are resized to {wanted[0]}×{wanted[1]}"


def labels_of(path: Path, found: Tensor, count: int, num_classes: int, wanted: str) -> tuple[Understood, Kind]:
    """Labels of `count` images, and of which kind they are.

    Args:
        path: where they are from, for messages.
        found: integers (N,), or (N, K).
        count: N.
        num_classes: K.
        wanted: `auto`, `logits`, `probabilities` or `hard`.

    Returns:
        float32 with shape (N, K): logits or one-hot rows.

    Raises:
        UsageError: when they have another shape, are out of range or not finite, or are not what is `wanted`.
    """
    if tuple(found.shape) not in ((count,), (count, num_classes)):
        accepted = f"({count},) or ({count}, {num_classes}) is accepted for {count} images and {num_classes} classes"
        raise refusal(path, f"holds labels with shape {tuple(found.shape)}; {accepted}")
    return _numbers(path, found, num_classes, wanted) if found.ndim == 1 else _rows(path, found.double(), wanted)


def _numbers(path: Path, found: Tensor, num_classes: int, wanted: str) -> tuple[Understood, Kind]:
    if found.dtype in FLOATS or wanted not in ("auto", "hard"):
        kind = "class numbers" if wanted == "auto" else wanted
        raise refusal(path, f"holds labels as {found.dtype} with shape ({len(found)},), which are no {kind}")
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= num_classes:
        odd = int(((found < 0) | (found >= num_classes)).to(torch.uint8).argmax())
        raise refusal(
            path, f"holds labels from {low} to {high}; 0 … {num_classes - 1} is accepted, and image {odd} has {int(found[odd])}"
        )
    return Understood(one_hot(found.long(), num_classes).float(), []), "hard"


def _rows(path: Path, rows: Tensor, wanted: str) -> tuple[Understood, Kind]:
    if (odd := first_infinite(rows.float())) is not None:
        raise refusal(path, f"holds labels with numbers that are not finite, the first of image {odd}")
    total = rows.sum(1, keepdim=True)
    single, shares = is_one_hot(rows), are_probabilities(rows)
    kind = wanted if wanted != "auto" else "hard" if single else "probabilities" if shares else "logits"
    notes = [f"labels are taken for {kind}"] if wanted == "auto" and not single else []
    if kind == "hard":
        if not single:
            raise refusal(path, "holds labels that are not hard: rows with a single 1, or integers, are")
        return Understood(rows.float(), notes), "hard"
    if kind == "probabilities":
        if not shares:
            raise refusal(path, "holds labels that are no probabilities: rows ≥ 0 that sum to 1 are")
        rows = (rows / total).clamp_min(LEAST).log()
    return Understood(rows.float(), notes), "logits"


def positions(path: Path, found: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where each of `names` stands in `found`.

    Raises:
        UsageError: when `found` are not the same names, or has one twice.
    """
    if missing := [name for name in names if name not in found]:
        more = [name for name in found if name not in names]
        extra = f" and has {shown(more)} besides" if more else ""
        raise refusal(path, f"lacks the class{'es' * (len(missing) > 1)} {shown(missing)} of the data{extra}")
    if more := [name for name in found if name not in names]:
        raise refusal(path, f"has the class{'es' * (len(more) > 1)} {shown(more)}, which the data have not")
    if len(found) != len(names):
        raise refusal(path, f"names {len(found)} classes, where the data have {len(names)}")
    return [list(found).index(name) for name in names]


def classes_of(labels: Tensor) -> tuple[Tensor, list[str]]:
    """The class that each image was made for, int64 with shape (N,), given soft labels (N, K), and on what grounds.

    Research code writes as many images of each class one after another. Where most labels of each such block favour one class, and
    each block another, that is the class of its images, a label that favours another class notwithstanding.
    """
    count, num_classes = labels.shape
    favoured = labels.argmax(1)
    if count % num_classes == 0:
        votes = one_hot(favoured.view(num_classes, -1), num_classes).sum(1)
        most, block = votes.max(1)
        if bool((2 * most > count // num_classes).all()) and len(block.unique()) == num_classes:
            return block.repeat_interleave(count // num_classes), ["images are taken to come class by class, as many of each"]
    return favoured, ["each image is taken to be made for the class that its label favours"]
