"""The six operations against formulas written pixel by pixel and kornia's, and what is drawn."""

import math
from collections import Counter

import kornia
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import dsa
from torch import Tensor

from limbeck.augmentation import Draw, Dsa
from limbeck.augmentation_settings import OPERATIONS
from limbeck.runtime.random import generator

SHAPE = (4, 3, 7, 10)


def images(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(operation: str, seed: int = 0, shape: tuple[int, ...] = SHAPE, siamese: bool = False, ratio: float = 0.25) -> Draw:
    return Dsa(operation, ratio).draw(generator(seed), shape, siamese)


def plain(operation: str, parameters: dict[str, Tensor], i: int, image: Tensor) -> Tensor:
    """The operation on one image by the reference, with the i-th parameters in the order of the drawn dictionary."""
    values = [value for tensor in parameters.values() for value in tensor[i].reshape(-1).tolist()]
    return torch.from_numpy(getattr(dsa, operation)(image.numpy(), *values))


@pytest.mark.parametrize("siamese", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (3, 1, 6, 6), (2, 4, 9, 4), (2, 2, 1, 5)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_are_the_formulas(operation, shape, siamese):
    x = images(shape)
    for seed in range(3):
        chosen = drawn(operation, seed, shape, siamese)
        assert chosen.operation == operation
        expected = [plain(operation, chosen.parameters, 0 if siamese else i, image) for i, image in enumerate(x)]
        torch.testing.assert_close(chosen(x), torch.stack(expected), rtol=0, atol=1e-13)


def test_rotation_is_rigid_in_pixels_as_kornias():
    chosen, x = drawn("rotate"), images()
    degrees = chosen.parameters["angle"].rad2deg()
    expected = kornia.geometry.rotate(x, degrees, align_corners=True)
    torch.testing.assert_close(chosen(x), expected, rtol=0, atol=1e-10)


def test_a_quarter_turn_moves_pixels_exactly():
    x = images((1, 2, 5, 5))
    turned = Draw("rotate", {"angle": torch.tensor([math.pi / 2], dtype=torch.float64)})(x)
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), rtol=0, atol=1e-12)


def test_scaling_is_kornias_with_the_inverse_factors():
    chosen, x = drawn("scale"), images()
    expected = kornia.geometry.scale(x, 1 / chosen.parameters["factors"].flip(1), align_corners=True)
    torch.testing.assert_close(chosen(x), expected, rtol=0, atol=1e-12)


def test_crop_is_kornias_translation():
    chosen, x = drawn("crop", ratio=0.5), images()
    expected = kornia.geometry.translate(x, -chosen.parameters["shift"].flip(1).double(), align_corners=True)
    torch.testing.assert_close(chosen(x), expected, rtol=0, atol=1e-12)


def test_flip_is_kornias():
    x = images()
    assert torch.equal(Draw("flip", {"flipped": torch.tensor([True])})(x), kornia.geometry.hflip(x))


def color(brightness: float = 0, saturation: float = 1, contrast: float = 1) -> Draw:
    values = {"brightness": brightness, "saturation": saturation, "contrast": contrast}
    return Draw("color", {name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()})


def test_brightness_and_contrast_are_kornias():
    x, grey = images(), images((2, 1, 5, 6)) / 100 + 0.5
    expected = kornia.enhance.adjust_brightness(x, 0.3, clip_output=False)
    torch.testing.assert_close(color(brightness=0.3)(x), expected, rtol=0, atol=1e-14)
    expected = kornia.enhance.adjust_contrast_with_mean_subtraction(grey, 1.3)
    torch.testing.assert_close(color(contrast=1.3)(grey), expected, rtol=0, atol=1e-14)


def test_saturation_0_is_grey_and_leaves_a_grey_image():
    x = images()
    torch.testing.assert_close(color(saturation=0)(x), x.mean(1, keepdim=True).expand_as(x), rtol=0, atol=1e-14)
    torch.testing.assert_close(color(saturation=1.7)(x[:, :1]), x[:, :1], rtol=0, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(operation=st.sampled_from(OPERATIONS), seed=st.integers(0, 10**6), siamese=st.booleans(), data=st.data())
def test_operations_are_affine_with_the_adjoint_that_autograd_gives(operation, seed, siamese, data):
    """⟨A x − A 0, h⟩ = ⟨x, Aᵀ h⟩; all but brightness are linear: A 0 = 0."""
    shape = tuple(data.draw(st.integers(low, high)) for low, high in [(1, 3), (1, 4), (2, 9), (2, 9)])
    chosen = drawn(operation, seed, shape, siamese)
    x, h = images(shape, seed).requires_grad_(), images(shape, seed + 1)
    zero = chosen(torch.zeros_like(x))
    (adjoint,) = torch.autograd.grad(chosen(x), x, h)
    assert ((chosen(x) - zero) * h).sum().item() == pytest.approx((x * adjoint).sum().item(), rel=1e-10, abs=1e-10)
    assert operation == "color" or not zero.any()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_are_right(operation):
    chosen = drawn(operation, 2, (2, 2, 4, 5))
    assert torch.autograd.gradcheck(chosen, images((2, 2, 4, 5)).requires_grad_())


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_flipping_twice_changes_nothing(seed):
    chosen, x = drawn("flip", seed), images()
    assert torch.equal(chosen(chosen(x)), x)


@given(seed=st.integers(0, 10**6), height=st.integers(1, 20), width=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_cutout_removes_a_rectangle_of_half_the_sides_or_what_the_border_leaves_of_it(seed, height, width):
    ones = torch.ones(3, 2, height, width)
    gone = drawn("cutout", seed, tuple(ones.shape))(ones) == 0
    rows, columns = gone[:, 0].any(2).sum(1), gone[:, 0].any(1).sum(1)
    for side, lengths in [(height, rows), (width, columns)]:
        half = (side + 1) // 2
        assert lengths.amax() <= half and lengths.amin() >= (half + 1) // 2
    assert torch.equal(gone.sum((1, 2, 3)), 2 * rows * columns)


def test_cutout_reaches_every_place_and_is_mostly_whole():
    bounds = drawn("cutout", shape=(4000, 3, 8, 6)).parameters
    assert Counter(map(tuple, bounds["columns"].tolist())).keys() == {(0, 2), (0, 3), (1, 4), (2, 5), (3, 6), (4, 6)}
    tops = Counter(map(tuple, bounds["rows"].tolist()))
    assert tops.keys() == {(0, 2), (0, 3), (0, 4), (1, 5), (2, 6), (3, 7), (4, 8), (5, 8), (6, 8)}
    assert all(abs(count - 4000 / 9) < 5 * math.sqrt(4000 / 9) for count in tops.values())


def test_an_operation_is_chosen_uniformly_from_those_named():
    g = generator(0)
    counts = Counter(Dsa().draw(g, (1, 1, 2, 2)).operation for _ in range(3000))
    assert counts.keys() == set(OPERATIONS)
    assert all(abs(count - 500) < 5 * math.sqrt(500) for count in counts.values())
    without = Dsa(flip=False, rotate=False)
    assert {without.draw(g, (1, 1, 2, 2)).operation for _ in range(200)} == {"color", "crop", "cutout", "scale"}


def test_parameters_have_the_stated_distributions():
    number = 20000
    stated = {
        "color": {"brightness": (-0.5, 0.5), "saturation": (0, 2), "contrast": (0.5, 1.5)},
        "scale": {"factors": (1 / 1.2, 1.2)},
        "rotate": {"angle": (-math.pi / 12, math.pi / 12)},
    }
    for operation, parameters in stated.items():
        values = drawn(operation, shape=(number, 1, 4, 4)).parameters
        assert values.keys() == parameters.keys()
        for name, (low, high) in parameters.items():
            column = values[name].reshape(number, -1)
            assert column.amin() >= low and column.amax() < high
            shares = torch.stack([torch.histc(part, 10, low, high) for part in column.unbind(1)]) / number
            torch.testing.assert_close(shares, torch.full_like(shares, 0.1), rtol=0, atol=0.012)
    color_of_two = drawn("color", shape=(number, 1, 4, 4)).parameters
    assert abs(torch.corrcoef(torch.stack(list(color_of_two.values())))[0, 1]) < 0.03
    assert drawn("flip", shape=(number, 1, 4, 4)).parameters["flipped"].double().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("ratio", "rows", "columns"), [(0.25, 2, 3), (0.125, 1, 1), (0.0, 0, 0), (1.0, 7, 10)])
def test_crop_shifts_by_whole_numbers_up_to_the_rounded_share_of_each_side(ratio, rows, columns):
    shift = drawn("crop", shape=(4000, 3, 7, 10), ratio=ratio).parameters["shift"]
    for values, most in [(shift[:, 0], rows), (shift[:, 1], columns)]:
        counts = Counter(values.tolist())
        share = 4000 / (2 * most + 1)
        assert counts.keys() == set(range(-most, most + 1))
        assert all(abs(count - share) < 5 * math.sqrt(share) for count in counts.values())


def test_the_same_with_another_crop_ratio():
    named = Dsa("crop", crop_ratio=1.0)
    assert not named.cropping(0.0).draw(generator(0), SHAPE).parameters["shift"].any()
    assert named.cropping(0.5) == Dsa("crop", crop_ratio=0.5)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_siamese_parameters_are_shared_by_batches_of_any_size(operation):
    chosen, x = drawn(operation, 3, siamese=True), images((5, 3, 7, 10))
    assert all(len(value) == 1 for value in chosen.parameters.values())
    alone = torch.cat([chosen(image[None]) for image in x])
    torch.testing.assert_close(chosen(x), alone, rtol=0, atol=1e-14)
    again = drawn(operation, 3, (64, 1, 7, 10), siamese=True)
    assert all(torch.equal(value, again.parameters[name]) for name, value in chosen.parameters.items())


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "flip"])
def test_parameters_differ_from_image_to_image(operation):
    x = images((1, *SHAPE[1:])).expand(SHAPE)
    y = drawn(operation, 3)(x)
    assert len({tuple(image.reshape(-1).tolist()) for image in y}) > 1


def test_draws_are_keyed_and_touch_no_other_generator():
    before = torch.get_rng_state()
    first = [Dsa().draw(generator(1, "augment", step), SHAPE) for step in range(30)]
    second = [Dsa().draw(generator(1, "augment", step), SHAPE) for step in reversed(range(30))][::-1]
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first, second, strict=True):
        assert a.operation == b.operation and a.parameters.keys() == b.parameters.keys()
        assert all(torch.equal(a.parameters[name], b.parameters[name]) for name in a.parameters)
    assert len({chosen.operation for chosen in first}) > 1


@pytest.mark.parametrize("nothing", [Dsa("none"), Dsa("flip_rotate", flip=False, rotate=False)])
def test_an_empty_strategy_changes_nothing(nothing):
    chosen = nothing.draw(generator(0), SHAPE)
    assert (chosen.operation, chosen.parameters) == ("none", {})
    assert torch.equal(chosen(images()), images())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_results_keep_type_and_device_and_the_input(operation):
    chosen, x = drawn(operation), images()
    kept = x.clone()
    single = chosen(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), chosen(x), rtol=0, atol=2e-5)
    assert torch.equal(x, kept)
    assert chosen(x.to("meta")).device.type == "meta"
