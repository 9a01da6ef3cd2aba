"""Views against formulas written image by image and pixel by pixel, and what is drawn."""

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import interpolate

from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator
from limbeck.views import ViewDraw, Views, apply, cut, draw, mix_targets

SHAPE = (5, 3, 8, 12)
OFF: dict[str, Any] = {"crop_scale": None, "flip": False}


def images(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def only(**changes: Any) -> Views:
    return Views(**(OFF | changes))


def reordered(image: np.ndarray, order: list[int]) -> np.ndarray:
    k = math.isqrt(len(order))
    height, width = image.shape[1] // k, image.shape[2] // k
    result = np.full_like(image, np.nan)
    for to, come_from in enumerate(order):
        (i, j), (a, b) = divmod(to, k), divmod(come_from, k)
        patch = image[:, a * height : (a + 1) * height, b * width : (b + 1) * width]
        result[:, i * height : (i + 1) * height, j * width : (j + 1) * width] = patch
    return result


def cropped(image: np.ndarray, top: float, left: float, tall: float, wide: float) -> np.ndarray:
    """The box cut into as many equal cells as the image has pixels, and the image read at the middle of each."""
    _, height, width = image.shape
    result = np.zeros_like(image)
    for i, j in np.ndindex(height, width):
        # A pixel's middle lies at its number + ½; nothing is read beyond the middle of the outermost.
        y = min(max(top + tall * (i + 0.5) / height - 0.5, 0), height - 1)
        x = min(max(left + wide * (j + 0.5) / width - 0.5, 0), width - 1)
        row, column = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
        for a, b in np.ndindex(min(2, height), min(2, width)):
            share = (1 - abs(y - row - a)) * (1 - abs(x - column - b))
            result[:, i, j] += share * image[:, row + a, column + b]
    return result


def flipped(image: np.ndarray, whether: bool) -> np.ndarray:
    return np.stack([image[:, :, -1 - j] for j in range(image.shape[2])], 2) if whether else image


def rolled(image: np.ndarray, down: int, right: int) -> np.ndarray:
    result = np.zeros_like(image)
    for i, j in np.ndindex(image.shape[1:]):
        result[:, (i + down) % image.shape[1], (j + right) % image.shape[2]] = image[:, i, j]
    return result


def plain(chosen: ViewDraw, x: Tensor) -> Tensor:
    """All steps in their order, one image after the other."""
    each = list(x.numpy())
    for i in range(len(each)):
        if chosen.order is not None:
            each[i] = reordered(each[i], chosen.order[i].tolist())
        if chosen.boxes is not None:
            each[i] = cropped(each[i], *chosen.boxes[i].tolist())
        if chosen.flipped is not None:
            each[i] = flipped(each[i], bool(chosen.flipped[i]))
        if chosen.shifts is not None:
            each[i] = rolled(each[i], *chosen.shifts[i].tolist())
    if chosen.partner is None or chosen.weight is None:
        return torch.from_numpy(np.stack(each))
    mixed = []
    for image, partner in zip(each, chosen.partner.tolist(), strict=True):
        if chosen.pasted is None:
            mixed.append(chosen.weight.item() * image + (1 - chosen.weight.item()) * each[partner])
            continue
        top, bottom, left, right = chosen.pasted.tolist()
        mixed.append(image.copy())
        for i in range(top, bottom):
            for j in range(left, right):
                mixed[-1][:, i, j] = each[partner][:, i, j]
    return torch.from_numpy(np.stack(mixed))


EACH = {
    "patches": only(patches=2),
    "crop": only(crop_scale=(0.08, 1.0)),
    "flip": only(flip=True),
    "roll": only(roll=20),
    "mixup": only(mix="mixup", alpha=0.8),
    "cutmix": only(mix="cutmix"),
    "all": Views(patches=2, mix="cutmix", roll=3),
}


@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 2, 2), (2, 4, 6, 4)])
@pytest.mark.parametrize("name", EACH)
def test_views_are_the_formulas(name: str, shape: tuple[int, ...]) -> None:
    x = images(shape)
    for seed in range(4):
        chosen = draw(EACH[name], generator(seed), shape)
        torch.testing.assert_close(apply(chosen, x), plain(chosen, x), rtol=0, atol=1e-13)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    k=st.integers(1, 3),
    mix=st.sampled_from(["none", "cutmix", "mixup"]),
    alpha=st.floats(0.05, 5),
    roll=st.integers(0, 20),
)
def test_views_of_any_size_are_the_formulas(seed: int, sizes: tuple[int, ...], k: int, mix: Any, alpha: float, roll: int) -> None:
    shape = (*sizes[:2], k * sizes[2], k * sizes[3])
    chosen = draw(Views(patches=k, mix=mix, alpha=alpha, roll=roll), generator(seed), shape)
    torch.testing.assert_close(apply(chosen, images(shape, seed)), plain(chosen, images(shape, seed)), rtol=0, atol=1e-12)


def test_a_box_of_whole_pixels_is_torchs_interpolation_inside() -> None:
    """Away from the box's own border, where the crop alone would not see the pixels next to it."""
    x = images((1, 2, 12, 16))
    ours = apply(ViewDraw(boxes=torch.tensor([[3.0, 4.0, 6.0, 8.0]], dtype=torch.float64)), x)
    expected = interpolate(x[:, :, 3:9, 4:12], (12, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_the_whole_image_as_a_crop_is_the_image(dtype: torch.dtype, tolerance: float) -> None:
    x = images((3, 3, 32, 20)).to(dtype)
    whole = torch.tensor([[0.0, 0.0, 32.0, 20.0]], dtype=torch.float64).expand(3, 4)
    torch.testing.assert_close(apply(ViewDraw(boxes=whole), x), x, rtol=0, atol=tolerance)
    drawn = draw(only(crop_scale=(1.0, 1.0), ratio=(0.5, 2.0)), generator(0), x.shape)
    assert torch.equal(drawn.boxes, whole)


def test_no_view_is_the_image_itself() -> None:
    x = images()
    chosen = draw(only(), generator(0), SHAPE)
    assert chosen == ViewDraw()
    assert torch.equal(apply(chosen, x), x)
    p = images((5, 4))
    assert torch.equal(mix_targets(chosen, p), p)


def boxes(views: Views, number: int = 20000, sides: tuple[int, int] = (32, 32)) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of the area, logarithms of width / height and the boxes; all must lie within the image."""
    found = draw(views, generator(1), (number, 3, *sides)).boxes
    assert found is not None
    top, left, tall, wide = found.unbind(1)
    assert found.amin() >= 0 and (tall > 0).all() and (wide > 0).all()
    assert (top + tall <= sides[0] + 1e-9).all() and (left + wide <= sides[1] + 1e-9).all()
    return tall * wide / (sides[0] * sides[1]), (wide / tall).log(), found


def shares(values: Tensor, low: float, high: float) -> Tensor:
    """How much of the values lies in each tenth of the range, which must hold them all."""
    assert values.amin() >= low - 1e-9 and values.amax() <= high + 1e-9
    return torch.histc(values, 10, low, high) / len(values)


def test_crops_that_always_fit_are_uniform_in_area_shape_and_place() -> None:
    area, shape, found = boxes(only(crop_scale=(0.08, 0.75)))
    tenths = torch.full((10,), 0.1, dtype=torch.float64)
    torch.testing.assert_close(shares(area, 0.08, 0.75), tenths, rtol=0, atol=0.012)
    torch.testing.assert_close(shares(shape, math.log(3 / 4), math.log(4 / 3)), tenths, rtol=0, atol=0.012)
    for axis in (0, 1):
        place = found[:, axis] / (32 - found[:, axis + 2])
        torch.testing.assert_close(shares(place, 0, 1), tenths, rtol=0, atol=0.012)
    assert abs(torch.corrcoef(torch.stack([area, shape, *found[:, :2].unbind(1)]))[0, 1]) < 0.03


def test_the_ratio_is_width_to_height() -> None:
    _, shape, _ = boxes(only(crop_scale=(0.1, 0.4), ratio=(1.0, 2.0)), 2000)
    assert shares(shape, 0, math.log(2)).amin() > 0.05


def test_crops_that_may_not_fit_are_uniform_on_those_that_do() -> None:
    """On a square, area a leaves |log shape| ≤ −log a: of those above ¾, the density is −log a / log 4/3 of that below."""
    area, shape, _ = boxes(only(crop_scale=(0.5, 1.0)), 40000)
    assert (shape.abs() <= -area.log() + 1e-9).all()
    weight = torch.tensor([1.0 if a < 0.75 else -math.log(a) / math.log(4 / 3) for a in np.linspace(0.5, 1, 10001)])
    expected = torch.stack([part.mean() for part in weight[:-1].split(1000)])
    torch.testing.assert_close(shares(area, 0.5, 1.0), (expected / expected.sum()).double(), rtol=0, atol=0.012)


def test_where_no_crop_fits_the_largest_of_an_accepted_shape_is_taken_from_the_middle() -> None:
    _, _, found = boxes(only(crop_scale=(0.9, 1.0)), 10, (10, 100))
    expected = torch.tensor([0, 50 - 20 / 3, 10, 40 / 3], dtype=torch.float64).expand(10, 4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    _, _, found = boxes(only(crop_scale=(1.0, 1.0)), 10, (100, 10))
    torch.testing.assert_close(found[:, 2:], torch.tensor([40 / 3, 10], dtype=torch.float64).expand(10, 2), rtol=0, atol=1e-12)
    assert torch.equal(boxes(only(crop_scale=(1.0, 1.0)), 3, (8, 8))[2][:, 2:], torch.full((3, 2), 8.0, dtype=torch.float64))


@pytest.mark.parametrize("k", [2, 3])
def test_columns_then_rows_are_permuted_uniformly_and_from_image_to_image(k: int) -> None:
    """All (k!)² arrangements of strips, of the (k²)! of patches, are as frequent."""
    x = torch.arange(k * k).reshape(k, k)
    strips = [x[:, list(columns)][list(rows)] for columns in permutations(range(k)) for rows in permutations(range(k))]
    expected = sorted(tuple(one.flatten().tolist()) for one in strips)
    assert len(expected) == {2: 4, 3: 36}[k]
    number = 1000 * len(expected)
    order = draw(only(patches=k), generator(0), (number, 3, 4 * k, 2 * k)).order
    assert order is not None
    found, counts = torch.unique(order, dim=0, return_counts=True)
    assert [tuple(row) for row in found.tolist()] == expected
    assert ((counts - 1000).abs() < 5 * math.sqrt(1000)).all()


def test_shuffled_strips_are_cut_and_joined() -> None:
    chosen = draw(only(patches=3), generator(1), (5, 2, 6, 9))
    x = torch.randn(5, 2, 6, 9, generator=generator(2))
    assert chosen.order is not None
    for image, view, order in zip(x, apply(chosen, x), chosen.order.view(-1, 3, 3), strict=True):
        columns = torch.cat([image[:, :, 3 * c : 3 * c + 3] for c in (order[0] % 3).tolist()], 2)
        rows = torch.cat([columns[:, 2 * r : 2 * r + 2] for r in (order[:, 0] // 3).tolist()], 1)
        assert torch.equal(view, rows)


def test_flips_rolls_and_partners() -> None:
    chosen = draw(only(flip=True, roll=2, mix="mixup"), generator(0), (20000, 3, 8, 8))
    assert chosen.flipped is not None and chosen.shifts is not None and chosen.partner is not None
    assert chosen.flipped.double().mean().item() == pytest.approx(0.5, abs=0.02)
    for axis in (0, 1):
        counts = torch.bincount(chosen.shifts[:, axis])  # 0, 1 and 2: none to the other side
        assert len(counts) == 3 and ((counts - 20000 / 3).abs() < 5 * math.sqrt(20000 / 3)).all()
    assert torch.equal(chosen.partner.sort().values, torch.arange(20000))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_weights_have_beta_distribution(alpha: float) -> None:
    """Mean ½, variance 1 / (4 (2α + 1))."""
    source = generator(0)
    weights = torch.stack([draw(only(mix="mixup", alpha=alpha), source, (1, 1, 1, 1)).weight for _ in range(4000)])
    assert weights.amin() >= 0 and weights.amax() <= 1
    assert weights.mean().item() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(4000))
    assert weights.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40), alpha=st.floats(0.1, 4))
def test_cutmix_weight_is_the_share_of_the_image_itself(seed: int, height: int, width: int, alpha: float) -> None:
    chosen = draw(only(mix="cutmix", alpha=alpha), generator(seed), (2, 1, height, width))
    assert chosen.weight is not None and chosen.pasted is not None
    swapped = chosen._replace(partner=torch.tensor([1, 0]))
    views = apply(swapped, torch.tensor([1.0, 0.0], dtype=torch.float64)[:, None, None, None].expand(2, 1, height, width))
    assert views.mean((1, 2, 3)).tolist() == pytest.approx([chosen.weight.item(), 1 - chosen.weight.item()], abs=1e-14)
    assert mix_targets(swapped, torch.eye(2, dtype=torch.float64)).tolist() == [
        pytest.approx([chosen.weight.item(), 1 - chosen.weight.item()]),
        pytest.approx([1 - chosen.weight.item(), chosen.weight.item()]),
    ]
    top, bottom, left, right = chosen.pasted.tolist()
    assert 0 <= top <= bottom <= height and 0 <= left <= right <= width


def test_cutmix_boxes_have_the_sides_that_lambda_asks_for_and_reach_every_pixel() -> None:
    """Before the borders cut: with u the one draw that λ is made of at α = 1, the sides are √(1 − u) of the image's."""
    covered = torch.zeros(16, 8)
    for seed in range(600):
        chosen = draw(only(mix="cutmix"), generator(seed), (1, 1, 16, 8))
        copy = generator(seed)
        torch.randperm(1, generator=copy)
        side = math.sqrt(1 - torch.rand((), generator=copy, dtype=torch.float64).item())
        assert chosen.pasted is not None
        top, bottom, left, right = chosen.pasted.tolist()
        for first, end, length, whole in [(top, bottom, round(16 * side), 16), (left, right, round(8 * side), 8)]:
            assert end - first == length or (end - first < length and (first == 0 or end == whole))
            assert end - first >= length // 2
        covered[top:bottom, left:right] += 1
    assert covered.amin() > 60 and covered.amax() < 480


def test_targets_are_mixed_as_the_images() -> None:
    p = images((5, 4)).softmax(1)
    chosen = draw(only(mix="mixup"), generator(3), SHAPE)
    assert chosen.partner is not None and chosen.weight is not None
    weight = chosen.weight.item()
    expected = torch.stack([weight * p[i] + (1 - weight) * p[j] for i, j in enumerate(chosen.partner.tolist())])
    torch.testing.assert_close(mix_targets(chosen, p), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(mix_targets(chosen, p.float()).sum(1), torch.ones(5))


@pytest.mark.parametrize("name", EACH)
def test_a_stored_draw_repeats_the_views(name: str) -> None:
    chosen, x = draw(EACH[name], generator(7), SHAPE), images()
    again = ViewDraw.from_tensors(load(save({key: value.clone() for key, value in chosen.tensors().items()})))
    assert again.tensors().keys() == chosen.tensors().keys()
    assert torch.equal(apply(again, x), apply(chosen, x))
    assert torch.equal(mix_targets(again, images((5, 4))), mix_targets(chosen, images((5, 4))))


def test_only_the_generator_decides_and_no_other_is_touched() -> None:
    before = torch.get_rng_state()
    for views in EACH.values():
        first, second, other = (draw(views, generator(seed, "views"), SHAPE).tensors() for seed in (1, 1, 2))
        assert first.keys() == second.keys() == other.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert any(not torch.equal(first[key], other[key]) for key in first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", EACH)
def test_views_are_linear_with_the_adjoint_that_autograd_gives(name: str) -> None:
    chosen, x, h = draw(EACH[name], generator(2), SHAPE), images().requires_grad_(), images(seed=1)
    y = apply(chosen, x)
    (adjoint,) = torch.autograd.grad(y, x, h)
    assert (y * h).sum().item() == pytest.approx((x * adjoint).sum().item(), rel=1e-10)


@pytest.mark.parametrize("name", EACH)
def test_type_device_input_and_memory_format(name: str) -> None:
    chosen, x = draw(EACH[name], generator(2), SHAPE), images()
    kept = x.clone()
    single = apply(chosen, x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), apply(chosen, x), rtol=0, atol=2e-5)
    assert torch.equal(apply(chosen, x.to(memory_format=torch.channels_last)), apply(chosen, x))
    assert torch.equal(x, kept)
    assert apply(chosen, x.to("meta")).device.type == "meta"


@pytest.mark.parametrize("name", EACH)
def test_no_images_and_other_numbers_of_images(name: str) -> None:
    empty = draw(EACH[name], generator(0), (0, 3, 8, 12))
    assert apply(empty, images((0, 3, 8, 12))).shape == (0, 3, 8, 12)
    assert mix_targets(empty, torch.zeros(0, 4)).shape == (0, 4)
    for number in (1, 6):
        with pytest.raises(ValueError, match=f"views of \\[5\\] images cannot be applied to {number}"):
            apply(draw(EACH[name], generator(0), SHAPE), images((number, 3, 8, 12)))


def test_one_pixel_and_one_image() -> None:
    """An image that is its own partner keeps its label; one pixel stays what it is."""
    for seed in range(20):
        for mix in ("cutmix", "mixup"):
            chosen = draw(Views(mix=mix, roll=3), generator(seed), (1, 2, 1, 1))
            x, p = images((1, 2, 1, 1)), torch.tensor([[0.25, 0.75]], dtype=torch.float64)
            torch.testing.assert_close(apply(chosen, x), x, rtol=0, atol=1e-15)
            torch.testing.assert_close(mix_targets(chosen, p), p, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_scale": (0.0, 1.0)}, r"views.crop_scale: \[0.0, 1.0\] is not two shares in \(0, 1\]"),
        ({"crop_scale": (0.5, 0.2)}, "views.crop_scale"),
        ({"crop_scale": (0.5, math.nan)}, "views.crop_scale"),
        ({"ratio": (0.0, 1.0)}, r"views.ratio: \[0.0, 1.0\] is not two numbers above 0 and finite"),
        ({"ratio": (1.0, math.inf)}, "views.ratio"),
        ({"patches": 0}, "views.patches: 0 is not at least 1"),
        ({"mix": "blend"}, "views.mix: 'blend' is not one of none, cutmix, mixup"),
        ({"alpha": 0.0}, "views.alpha: 0.0 is not above 0 and finite"),
        ({"roll": -1}, "views.roll: -1 is not at least 0"),
    ],
)
def test_what_is_not_accepted(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Views(**changes)


def test_patches_keep_their_sizes_where_they_do_not_divide_the_sides() -> None:
    """11 = 4 + 4 + 3 rows and 8 = 3 + 3 + 2 columns, put together in the drawn order."""
    shape = (20, 2, 11, 8)
    views = Views(patches=3, crop_scale=None, flip=False)
    x, drawn = torch.rand(shape, generator=generator(1), dtype=torch.float64), draw(views, generator(0), shape)
    assert drawn.order is not None and len(drawn.order.unique(dim=0)) > 5
    found = apply(drawn, x)
    for image, order, made in zip(x, drawn.order.view(-1, 3, 3).tolist(), found, strict=True):
        rows = torch.cat([image[:, [range(4), range(4, 8), range(8, 11)][line[0] // 3]] for line in order], 1)
        parts = [range(3), range(3, 6), range(6, 8)]
        assert torch.equal(made, torch.cat([rows[:, :, parts[patch % 3]] for patch in order[0]], 2))
    with pytest.raises(UsageError, match="views.patches: 9 is not at most the images' shorter side, 8"):
        draw(Views(patches=9), generator(0), shape)


@given(side=st.integers(1, 40), parts=st.integers(1, 40))
def test_a_side_is_cut_into_all_of_its_pixels(side: int, parts: int) -> None:
    pieces = cut(range(side), parts)
    assert [pixel for piece in pieces for pixel in piece] == list(range(side)) and len(pieces) == parts
    lengths = [len(piece) for piece in pieces]
    assert lengths == sorted(lengths, reverse=True) and max(lengths) - min(lengths) <= 1


def test_tensors_that_are_no_draw() -> None:
    with pytest.raises(UsageError, match=r"views: \['angle'\] is not some of order, boxes, flipped"):
        ViewDraw.from_tensors({"angle": torch.zeros(1)})
    with pytest.raises(UsageError, match=r"views: \['partner'\] is not with both partner and weight"):
        ViewDraw.from_tensors({"partner": torch.zeros(1)})
