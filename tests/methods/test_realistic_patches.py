"""RDED against a loop over single crops, and its stitching on images made by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck.data.preprocessing import Identity, Normalise, Preprocessing
from limbeck.data.split import Split, whole
from limbeck.distilled.initial import class_orders
from limbeck.methods.realistic_patches import build, cut, draw_boxes, stitch
from limbeck.methods.settings import RdedSettings
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.random import generator

CPU = torch.device("cpu")
NORMALISE = Normalise(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25]))


class Taste(nn.Module):
    """Logits of K classes that grow with how near an image's mean colour is to the class's own."""

    def __init__(self, colours: Tensor) -> None:
        super().__init__()
        self.colours = colours
        self.dropout = nn.Dropout(0.9)  # only asked in evaluation mode is it what it should be

    def forward(self, x: Tensor) -> Tensor:
        return -20 * self.dropout((x.mean((2, 3))[:, None] - self.colours).square().sum(2))


def photographs(count: int, shape: tuple[int, int, int], num_classes: int, seed: int = 0) -> Split:
    draws = np.random.default_rng(seed)
    images = draws.integers(0, 256, (count, *shape), dtype=np.uint8)
    return whole(images, draws.permutation(np.arange(count) % num_classes))


def by_loops(
    teacher: nn.Module, split: Split, preprocessing: Preprocessing, num_classes: int, ipc: int, s: RdedSettings, seed: int
) -> Tensor:
    """One crop after the other."""
    channels, height, width = split.storage.shape[1:]
    factor = s.factor or 1
    tall, wide = height // factor, width // factor
    made = []
    for k, order in enumerate(class_orders(split, num_classes, seed, "rded")):
        order = order[: max(s.images, ipc * factor**2)]
        boxes = draw_boxes(s, len(order), (height, width), generator(seed, "rded crops", k))
        best = []
        for position, rows in zip(order.tolist(), boxes.tolist(), strict=True):
            tries = []
            for top, left, h, w in rows:
                pixels = torch.from_numpy(split.storage[split.rows[position]])[None, :, top : top + h, left : left + w] / 255
                crop = interpolate(pixels, (tall, wide), mode="bilinear", antialias=True)
                seen = torch.zeros(1, channels, height, width)
                if s.fit == "pad":
                    top, left = (height - tall) // 2, (width - wide) // 2
                    seen[:, :, top : top + tall, left : left + wide] = preprocessing.forward(crop)
                else:
                    seen = preprocessing.forward(interpolate(crop, (height, width), mode="bilinear", antialias=True))
                tries.append((-teacher(seen).double().log_softmax(1)[0, k].item(), crop))
            best.append(min(tries, key=lambda pair: pair[0]))
        crops = [crop for _, crop in sorted(best, key=lambda pair: pair[0])][: ipc * factor**2]
        rows = [side // factor + (1 if part < side % factor else 0) for side in (height, width) for part in range(factor)]
        for i in range(ipc):
            image = torch.full((1, channels, height, width), torch.nan)
            for p in range(factor**2):
                (a, b), (h, w) = divmod(p, factor), (rows[p // factor], rows[factor + p % factor])
                top, left = sum(rows[:a]), sum(rows[factor : factor + b])
                patch = interpolate(crops[p * ipc + i], (h, w), mode="bilinear", antialias=True)
                image[:, :, top : top + h, left : left + w] = patch
            made.append(preprocessing.forward(image))
    return torch.cat(made)


@pytest.mark.parametrize("fit", ["pad", "resize"])
@pytest.mark.parametrize(("factor", "shape"), [(1, (3, 6, 6)), (2, (3, 8, 8)), (2, (3, 9, 7)), (3, (3, 8, 7))])
def test_rded_is_the_loop(factor: int, shape: tuple[int, int, int], fit: Any) -> None:
    split = photographs(44, shape, 2)
    teacher = Taste(torch.tensor([[0.5, -0.5, 0.0], [-0.5, 0.5, 0.2]])).train()
    chosen = RdedSettings(factor=factor, images=19, crops=3, fit=fit)
    images, classes = build(teacher, split, NORMALISE, 2, 2, chosen, 5, CPU)
    assert images.shape == (4, *shape)
    assert images.dtype == torch.float32
    assert classes.tolist() == [0, 0, 1, 1]
    assert teacher.training and teacher.dropout.training  # left as it was
    torch.testing.assert_close(images, by_loops(teacher.eval(), split, NORMALISE, 2, 2, chosen, 5), rtol=0, atol=2e-5)


def test_the_best_crops_make_the_images_in_their_order() -> None:
    # Every image has one colour, which all of its crops have: the nearest to the class's make the set.
    levels = {0: [10, 200, 40, 90, 60, 120, 20, 240], 1: [250, 0, 130, 180, 170, 210, 60, 140]}
    values = [(v, k) for k in levels for v in levels[k]]
    storage = np.stack([np.full((1, 4, 4), v, dtype=np.uint8) for v, _ in values])
    split = whole(storage, np.array([k for _, k in values]))
    teacher = Taste(torch.tensor([[0.0], [1.0]]))
    images, _ = build(teacher, split, Identity(), 2, 2, RdedSettings(factor=2, fit="resize", crops=2), 0, CPU)
    levels_of = (images * 255).round().long()
    # ascending loss of class 0 is ascending brightness: 10 20 40 60 90 120 200 240
    assert levels_of[0, 0].tolist() == [[10, 10, 40, 40]] * 2 + [[90, 90, 200, 200]] * 2
    assert levels_of[1, 0].tolist() == [[20, 20, 60, 60]] * 2 + [[120, 120, 240, 240]] * 2
    # of class 1 descending: 250 210 180 170 140 130 60 0
    assert levels_of[2, 0].tolist() == [[250, 250, 180, 180]] * 2 + [[140, 140, 60, 60]] * 2


def test_stitching_by_hand() -> None:
    patches = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 2, 3)
    found = stitch(patches, 2, (4, 6))
    assert found[0, 0].tolist() == [[0] * 3 + [2] * 3] * 2 + [[4] * 3 + [6] * 3] * 2
    assert found[1, 0].tolist() == [[1] * 3 + [3] * 3] * 2 + [[5] * 3 + [7] * 3] * 2
    uneven = stitch(patches, 2, (5, 7))
    assert uneven[1, 0].tolist() == [[1] * 4 + [3] * 3] * 3 + [[5] * 4 + [7] * 3] * 2
    whole_images = torch.rand(3, 2, 4, 4, generator=generator(0))
    assert torch.equal(stitch(whole_images, 1, (4, 4)), whole_images)


def test_crops_are_those_of_pillow() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 20, 24), dtype=np.uint8))
    boxes = torch.tensor([[[0, 0, 20, 24], [3, 5, 11, 9], [19, 23, 1, 1], [2, 2, 5, 6]]])
    found = cut(image, boxes, (5, 6))
    assert torch.equal((found[0, 3] * 255).round().byte(), image[0, :, 2:7, 2:8])
    for number, (top, left, tall, wide) in enumerate(boxes[0].tolist()):
        pillow = Image.fromarray(image[0].permute(1, 2, 0).numpy())
        # Cut first: with `box` Pillow would read beyond the crop's borders. It rounds to levels, twice.
        expected = np.asarray(pillow.crop((left, top, left + wide, top + tall)).resize((6, 5), Image.Resampling.BILINEAR))
        assert np.abs(found[0, number].permute(1, 2, 0).numpy() * 255 - expected).max() < 1.01


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    low=st.floats(0.01, 1.0),
)
def test_boxes_lie_within_the_image(seed: int, size: tuple[int, int], low: float) -> None:
    boxes = draw_boxes(RdedSettings(crop_scale=(low, 1.0), crops=3), 4, size, generator(seed))
    assert boxes.shape == (4, 3, 4)
    assert boxes.dtype == torch.int64
    first, sides = boxes[..., :2], boxes[..., 2:]
    assert bool((first >= 0).all()) and bool((sides >= 1).all())
    assert bool((first + sides <= torch.tensor(size)).all())
    # The share of the area, and the image's proportions, up to half a pixel, or a whole one where a side is less than one.
    share = sides / torch.tensor(size)
    assert bool((share >= low**0.5 - 0.5 / torch.tensor(size)).all())
    assert bool(((share[..., 0] - share[..., 1]).abs() <= 1 / size[0] + 1 / size[1] + 1e-6).all())


def test_seeds_and_batches() -> None:
    split, teacher = photographs(40, (3, 8, 8), 2), Taste(torch.zeros(2, 3))
    made = [build(teacher, split, NORMALISE, 2, 1, RdedSettings(images=9), seed, CPU)[0] for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    counted: list[int] = []
    build(teacher, split, NORMALISE, 2, 1, RdedSettings(), 0, CPU, counted.append)
    assert counted == [1, 2]


@pytest.mark.parametrize(("size", "factor"), [((32, 32), 1), ((64, 64), 1), ((128, 128), 2), ((256, 200), 2), ((200, 100), 1)])
def test_the_usual_factor(size: tuple[int, int], factor: int) -> None:
    assert RdedSettings().factor_for(*size) == factor


def test_what_is_refused() -> None:
    split, teacher = photographs(12, (3, 8, 8), 2), Taste(torch.zeros(2, 3))
    for changes, message in (
        ({"factor": 0}, "rded.factor: 0"),
        ({"images": 0}, "rded.images: 0"),
        ({"crops": 0}, "rded.crops: 0"),
        ({"crop_scale": (0.5, 0.2)}, "rded.crop_scale"),
        ({"fit": "fill"}, "rded.fit: 'fill' is not one of pad, resize"),
    ):
        with pytest.raises(UsageError, match=message):
            RdedSettings(**changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="ipc: 2 is not at most 1: class 0 has 6 training images, 4 of which make one"):
        build(teacher, split, NORMALISE, 2, 2, RdedSettings(factor=2), 0, CPU)
    with pytest.raises(UsageError, match="rded.factor: 9 is not at most 8"):
        build(teacher, split, NORMALISE, 2, 1, RdedSettings(factor=9), 0, CPU)
    with pytest.raises(UsageError, match="rded.teacher: 5 is not a teacher of the data's 2 classes"):
        build(Taste(torch.zeros(5, 3)), split, NORMALISE, 2, 1, RdedSettings(), 0, CPU)
    with pytest.raises(Failure, match="not finite"):
        build(Taste(torch.full((2, 3), torch.nan)), split, NORMALISE, 2, 1, RdedSettings(), 0, CPU)
