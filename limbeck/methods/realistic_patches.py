"""RDED: the crops of real images that a teacher finds most like their class, stitched together. Nothing is optimised.

    for each class k:    random real images, of each some random crops c of the sides (H, W) / f, f = `factor`
        realism          ℓ(c) = −log softmax(teacher(c))_k
        of each image    the crop of least ℓ; of these crops the ipc · f² of least ℓ, in ascending order
        image i          its cell p, row by row, is the crop p · ipc + i

so that every image gets one of each quarter's crops. Labels are the teacher's on views (`distilled.view_labels`).

Sun, Shi, Yu and Lin, "On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation Paradigm" (RDED), 2024,
arXiv:2312.03526. As in the published runs, crops have the image's proportions and are resized with antialiasing, and the teacher
sees a crop in the middle of what it takes for zeros. Unlike there, crops are taken from images that have `data.size` already.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from limbeck import views
from limbeck.data.preprocessing import Preprocessing
from limbeck.data.split import Split
from limbeck.distilled.initial import class_orders
from limbeck.distilled.view_labels import evaluating
from limbeck.methods.materials import Materials
from limbeck.methods.settings import RdedSettings
from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.random import generator
from limbeck.runtime.ranks import Ranks
from limbeck.saliency.settings import EnhanceSettings
from limbeck.views import Views

AT_ONCE = 512 * 32 * 32  # pixels that the teacher sees at a time


@torch.no_grad()
def build(
    teacher: nn.Module,
    split: Split,
    preprocessing: Preprocessing,
    num_classes: int,
    ipc: int,
    settings: RdedSettings,
    seed: int,
    device: torch.device,
    after_class: Callable[[int], None] = lambda count: None,
    part: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """Distil.

    Args:
        teacher: a classifier of these K classes, on `device`; asked in evaluation mode and left as it was.
        split: the real images.
        preprocessing: of them.
        num_classes: K.
        ipc: images per class.
        settings: the keys `rded.*`.
        seed: of the draws.
        device: to compute on.
        after_class: told how many classes are finished.
        part: of the classes, to make alone.

    Returns:
        X as the network takes them, float32 with shape (K · ipc, C, H, W), on `device`, and the class of each, int64, class by
        class; of the classes in `part`.

    Raises:
        UsageError: when a class has fewer than ipc · factor² images, an image fewer pixels than `rded.factor` parts, or the
            teacher another number of classes.
        Failure: when the teacher's logits are not finite.
    """
    height, width = split.storage.shape[2:]
    factor = settings.factor_for(height, width)
    needed = ipc * factor**2
    size = (height // factor, width // factor)
    orders = class_orders(split, num_classes, seed, "rded")
    _check_ipc(split, num_classes, ipc, factor)
    made, asked = [], range(num_classes)[part]
    with evaluating(teacher):
        for k in asked:
            order = orders[k]
            members = split.take(order[: max(settings.images, needed)].numpy())
            boxes = draw_boxes(settings, len(members), (height, width), generator(seed, "rded crops", k))
            losses = torch.cat(list(_losses(teacher, members, boxes, size, preprocessing, settings, k, num_classes, device)))
            best = losses.min(1)
            chosen = best.values.sort(stable=True).indices[:needed]
            patches = cut(members.images(chosen.numpy()).to(device), boxes[chosen, best.indices[chosen]][:, None], size)
            made.append(preprocessing.forward(stitch(patches[:, 0], factor, (height, width))))
            after_class(k + 1)
    images = torch.cat(made) if made else torch.empty(0, *split.storage.shape[1:], device=device)
    return images, torch.tensor(asked, dtype=torch.int64).repeat_interleave(ipc)


def draw_boxes(settings: RdedSettings, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """First row, first column, height and width, in whole pixels, of the crops of `count` images: int64 (count, crops, 4)."""
    height, width = size
    how = Views(crop_scale=settings.crop_scale, ratio=(width / height, width / height), flip=False)
    boxes = views.draw(how, generator, (count * settings.crops, 1, height, width)).boxes
    assert boxes is not None  # crops are what was asked for
    whole = torch.tensor(size)
    sides = boxes[:, 2:].round().long().clamp_min(1).minimum(whole)
    first = boxes[:, :2].round().long().minimum(whole - sides)
    return torch.cat([first, sides], 1).view(count, settings.crops, 4)


def cut(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Crops of uint8 images (n, C, H, W) by boxes (n, m, 4), resized: pixels in [0, 1] with shape (n, m, C, h, w)."""
    crops = [
        interpolate(image[None, :, top : top + tall, left : left + wide], size, mode="bilinear", antialias=True)
        for image, rows in zip(images.float() / 255, boxes.tolist(), strict=True)
        for top, left, tall, wide in rows
    ]
    return torch.cat(crops).view(*boxes.shape[:2], images.shape[1], *size)


def stitch(patches: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """Images made of factor² patches each.

    Args:
        patches: with shape (n · factor², C, h, w); image i takes number p · n + i for its cell p, counted row by row.
        factor: how many patches a side has.
        size: H and W. Where `factor` does not divide them, the first cells are a pixel longer, and patches are resized to them.

    Returns:
        Images with shape (n, C, H, W).
    """
    count = len(patches) // factor**2
    rows = []
    tall_ones, wide_ones = ([len(part) for part in views.cut(range(side), factor)] for side in size)
    for i, tall in enumerate(tall_ones):
        cells = []
        for j, wide in enumerate(wide_ones):
            cell = patches[(i * factor + j) * count :][:count]
            same = cell.shape[2:] == (tall, wide)
            cells.append(cell if same else interpolate(cell, (tall, wide), mode="bilinear", antialias=True))
        rows.append(torch.cat(cells, 3))
    return torch.cat(rows, 2)


def _losses(
    teacher: nn.Module,
    members: Split,
    boxes: Tensor,
    size: tuple[int, int],
    preprocessing: Preprocessing,
    settings: RdedSettings,
    k: int,
    num_classes: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """ℓ of every crop, with shape (n, crops), some images at a time, on the CPU."""
    shape = members.storage.shape[1:]
    at_once = max(1, AT_ONCE // (shape[1] * shape[2] * settings.crops))
    for index in torch.arange(len(members)).split(at_once):
        crops = cut(members.images(index.numpy()).to(device), boxes[index], size).flatten(0, 1)
        losses = crop_losses(teacher, _fitted(crops, shape, preprocessing, settings.fit), preprocessing, k, num_classes)
        if not bool(losses.isfinite().all()):
            raise Failure(f"the teacher gives logits that are not finite for crops of class {k}")
        yield losses.view(len(index), settings.crops).cpu()


def crop_losses(teacher: nn.Module, crops: Tensor, preprocessing: Preprocessing, k: int, num_classes: int) -> Tensor:
    """ℓ of pixels (n, C, H, W) that are to show class k, float64 with shape (n,), on their device."""
    logits = teacher(preprocessing.forward(crops))
    require(logits.shape[1] == num_classes, "rded.teacher", logits.shape[1], f"a teacher of the data's {num_classes} classes")
    return cross_entropy(logits.double(), torch.full((len(crops),), k, device=logits.device), reduction="none")


def _fitted(crops: Tensor, shape: tuple[int, ...], preprocessing: Preprocessing, fit: str) -> Tensor:
    """Crops (n, C, h, w) as pixels of the size that the teacher takes."""
    (height, width), (tall, wide) = shape[1:], crops.shape[2:]
    if (tall, wide) == (height, width):
        return crops
    if fit == "resize":
        return interpolate(crops, (height, width), mode="bilinear", antialias=True)
    # What the network takes for zeros: the mean colour of normalised images.
    whole = preprocessing.inverse(crops.new_zeros(1, *shape)).repeat(len(crops), 1, 1, 1)
    top, left = (height - tall) // 2, (width - wide) // 2
    whole[:, :, top : top + tall, left : left + wide] = crops
    return whole


def make(materials: Materials, folder: Path) -> tuple[Tensor, Tensor, nn.Module]:
    """X, the classes and the teacher of a run, whose ranks make a part of the classes each."""
    m, data, own, here = materials, materials.data, materials.own(RdedSettings), Ranks.sharing()
    teacher, mine = m.teacher(own.teacher), here.share(data.num_classes)
    with materials.progress.stage("rded", mine.stop - mine.start) as stage:
        parts = (data.train, materials.preprocessing, data.num_classes, m.ipc, own, m.seed, m.device)
        found = here.gathered(lambda: build(teacher, *parts, lambda count: stage.advance(), mine))
    images, classes = zip(*found, strict=True)
    return torch.cat([some.to(m.device) for some in images]), torch.cat(classes), teacher


def check(materials: Materials) -> None:
    """Raise `UsageError` when a class has too few images, or there is no such teacher."""
    data, own, weighting = materials.data, materials.own(RdedSettings), materials.own(EnhanceSettings).weighting
    require(weighting == "none", "enhance.weighting", weighting, "none: rded optimises nothing, and has no gradient to weight")
    _check_ipc(data.train, data.num_classes, materials.ipc, own.factor_for(*data.shape[1:]))
    if own.teacher is not None:
        try:
            materials.network_of(own.teacher)
        except UsageError as error:
            raise UsageError(f"rded.teacher: {str(error).removeprefix('network: ')}") from error


def _check_ipc(split: Split, num_classes: int, ipc: int, factor: int) -> None:
    for k in range(num_classes):
        count = len(split.of_class(k))
        accepted = f"at most {count // factor**2}: class {k} has {count} training images, {factor**2} of which make one"
        require(ipc * factor**2 <= count, "ipc", ipc, accepted)
