"""Areas, energy and pointing on maps drawn by hand, against plain loops, and on scenes with a network that sees the box."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from evaluation.layout import in_json
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.enhancement import enhancement
from torch import Tensor, nn

from limbeck.data.scenes import LEVELS, draw, render
from limbeck.evaluation import areas as module
from limbeck.evaluation.areas import box_share, discriminative_area, energy_elsewhere, energy_inside, mean_activation, pointing
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator
from limbeck.saliency.maps import TorchCam

carries = in_json(module.carries)
measure = in_json(module.measure)

# Sum 4, mean 0.25: three pixels above it, two equal to it.
DRAWN = torch.tensor([[1.0, 0.75, 0.0, 0.0], [0.75, 0.25, 0.0, 0.0], [0.25, 0.125, 0.125, 0.125], [0.0, 0.125, 0.25, 0.25]])
FLAT = torch.full((4, 4), 0.1)
ZERO = torch.zeros(4, 4)


def some_maps(number: int = 6, height: int = 5, width: int = 7, seed: int = 0) -> Tensor:
    return torch.rand(number, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_boxes(number: int = 6, height: int = 5, width: int = 7, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows, columns = (np.sort([rng.permutation(side + 1)[:2] for _ in range(number)], axis=1) for side in (height, width))
    return np.stack([rows[:, 0], columns[:, 0], rows[:, 1], columns[:, 1]], axis=1)


def indicators(boxes: np.ndarray, height: int, width: int) -> Tensor:
    """1 inside the box, 0 elsewhere, pixel by pixel."""
    maps = torch.zeros(len(boxes), height, width)
    for i, (top, left, bottom, right) in enumerate(boxes.tolist()):
        for row in range(top, bottom):
            for column in range(left, right):
                maps[i, row, column] = 1
    return maps


def test_area_and_mean_of_drawn_maps() -> None:
    maps = torch.stack([DRAWN, FLAT, ZERO])
    assert maps[0].sum() == 4
    assert discriminative_area(maps).tolist() == [3 / 16, 0, 0]
    assert discriminative_area(maps, 0.75).tolist() == [1 / 16, 0, 0]
    assert discriminative_area(maps, 0.0).tolist() == [11 / 16, 1, 0]
    assert discriminative_area(maps, 1.0).tolist() == [0, 0, 0]
    assert mean_activation(maps).tolist() == [0.25, pytest.approx(0.1), 0]


@pytest.mark.parametrize("share", [1, 5, 13, 35])
def test_a_block_of_exact_area(share: int) -> None:
    maps = torch.zeros(2, 5, 7)
    maps[0].view(-1)[:share] = 0.9
    maps[1].view(-1)[-share:] = 1e-3
    expected = 0 if share == 35 else share / 35
    assert discriminative_area(maps).tolist() == [expected, expected]


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_flat_map_has_no_area_whatever_its_mean_is_rounded_to(value: float, dtype: torch.dtype) -> None:
    assert discriminative_area(torch.full((2, 7, 7), value, dtype=dtype)).tolist() == [0, 0]


def test_the_area_is_where_the_gradient_is_enhanced() -> None:
    maps = some_maps()
    enhanced = enhancement(maps.numpy(), 1.0) > 1
    np.testing.assert_allclose(discriminative_area(maps).numpy(), enhanced.mean(axis=(1, 2)), rtol=0, atol=1e-15)


def plain_energy(image: list[list[float]], box: list[int]) -> float:
    top, left, bottom, right = box
    inside = [image[row][column] for row in range(top, bottom) for column in range(left, right)]
    return math.fsum(inside) / math.fsum(value for row in image for value in row)


def plain_pointing(image: list[list[float]], box: list[int]) -> bool:
    top, left, bottom, right = box
    places = [(value, r, c) for r, row in enumerate(image) for c, value in enumerate(row)]
    highest = [(r, c) for value, r, c in places if value == max(places)[0]]
    return sum(top <= r < bottom and left <= c < right for r, c in highest) > len(highest) / 2


@pytest.mark.parametrize("seed", range(5))
def test_boxes_against_plain_loops(seed: int) -> None:
    maps, boxes = some_maps(seed=seed), some_boxes(seed=seed)
    maps = (maps * 6).round() / 6  # so that the highest value repeats
    images, corners = maps.tolist(), boxes.tolist()
    energy = [plain_energy(image, box) for image, box in zip(images, corners, strict=True)]
    np.testing.assert_allclose(energy_inside(maps, boxes), energy, rtol=1e-13)
    points = [plain_pointing(image, box) for image, box in zip(images, corners, strict=True)]
    assert pointing(maps, boxes).tolist() == points
    others = [[plain_energy(image, box) for j, box in enumerate(corners) if j != i] for i, image in enumerate(images)]
    np.testing.assert_allclose(energy_elsewhere(maps, boxes), np.mean(others, axis=1), rtol=1e-13)
    area = [(bottom - top) * (right - left) / 35 for top, left, bottom, right in corners]
    np.testing.assert_allclose(box_share(boxes, 5, 7), area, rtol=1e-15)
    assert torch.equal(energy_inside(maps, torch.from_numpy(boxes)), energy_inside(maps, boxes))


def test_ties_need_a_majority() -> None:
    maps = torch.zeros(4, 4, 4)
    maps[:, 0, 0] = maps[:, 0, 1] = 0.5
    maps[2:, 3, 3] = 0.5
    boxes = torch.tensor([[0, 0, 1, 2], [0, 0, 1, 1], [0, 0, 1, 2], [3, 3, 4, 4]])
    assert pointing(maps, boxes).tolist() == [True, False, True, False]


def test_a_flat_map_points_nowhere_and_a_zero_map_has_no_energy() -> None:
    boxes = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 4]])
    maps = torch.stack([FLAT, ZERO])
    assert pointing(maps, boxes).tolist() == [False, False]
    assert energy_inside(maps, boxes).tolist() == [1, 0]
    assert energy_elsewhere(maps, boxes).tolist() == [1, 0]


@pytest.mark.parametrize("value", [0.1, 1.0])
def test_a_flat_map_has_the_energy_of_chance(value: float) -> None:
    boxes = some_boxes()
    np.testing.assert_allclose(energy_inside(torch.full((6, 5, 7), value), boxes), box_share(boxes, 5, 7), rtol=1e-14)


def test_one_random_pixel_points_as_often_as_chance() -> None:
    """Every pixel once is the highest."""
    maps = torch.eye(35).view(35, 5, 7)
    box = np.array([[1, 2, 4, 6]])
    assert pointing(maps, box.repeat(35, 0)).double().mean().item() == pytest.approx(box_share(box, 5, 7).item())


@given(st.integers(1, 8), st.integers(0, 99), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_images_in_another_order(number: int, seed: int, random: Any) -> None:
    maps, boxes = some_maps(number, seed=seed), some_boxes(number, seed=seed)
    order = list(range(number))
    random.shuffle(order)
    for found in (discriminative_area, mean_activation):
        assert torch.equal(found(maps[order]), found(maps)[order])
    for judged in (energy_inside, pointing):
        assert torch.equal(judged(maps[order], boxes[order]), judged(maps, boxes)[order])


@given(st.floats(0.01, 1), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_fainter_map_is_as_wide(factor: float, seed: int) -> None:
    maps, boxes = some_maps(seed=seed), some_boxes(seed=seed)
    faint = maps * factor
    assert torch.equal(discriminative_area(faint), discriminative_area(maps))
    torch.testing.assert_close(mean_activation(faint), factor * mean_activation(maps), rtol=1e-12, atol=0)
    torch.testing.assert_close(energy_inside(faint, boxes), energy_inside(maps, boxes), rtol=1e-12, atol=1e-15)


def test_carries_is_the_paired_comparison() -> None:
    """Over single pixels the mean activation is the value: 0.2, 0.4, 0.6 became 0.4, 0.5, 0.9."""
    initial, distilled = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in ([0.2, 0.4, 0.6], [0.4, 0.5, 0.9]))
    found = carries(distilled, initial)["mean_activation"]
    assert (found["initial"]["mean"], found["distilled"]["mean"]) == (pytest.approx(0.4), pytest.approx(0.6))
    assert found["difference"]["values"] == pytest.approx([0.2, 0.1, 0.3])
    half = 4.302653 * 0.1 / math.sqrt(3)  # t(0.975; 2), and the differences' standard deviation
    assert found["difference"]["ci95"] == pytest.approx([0.2 - half, 0.2 + half], abs=1e-6)
    assert found["relative_percent"]["mean"] == pytest.approx(50)
    # var(R) = (s_d² + R² s_x² − 2 R s_dx) / (n x̄²), with the covariances of the six numbers
    s_x, s_d, s_dx = 0.04, 0.07, 0.05
    half = 4.302653 * math.sqrt((s_d + 2.25 * s_x - 3 * s_dx) / (3 * 0.16)) * 100
    assert found["relative_percent"]["ci95"] == pytest.approx([50 - half, 50 + half], abs=1e-4)
    assert found["grown"] == 1
    assert carries(initial, distilled)["mean_activation"]["grown"] == 0


def test_carries_of_areas() -> None:
    initial, distilled = torch.zeros(3, 10, 10), torch.zeros(3, 10, 10)
    for k, (before, after) in enumerate(((20, 22), (40, 44), (60, 66))):
        initial[k].view(-1)[:before] = 1
        distilled[k].view(-1)[:after] = 1
    area = carries(distilled, initial)["area"]
    assert area["initial"]["values"] == pytest.approx([0.2, 0.4, 0.6])
    assert area["difference"]["mean"] == pytest.approx(0.04)
    assert area["relative_percent"]["mean"] == pytest.approx(10)
    assert area["relative_percent"]["ci95"] == pytest.approx([10, 10])  # every image grew by a tenth
    assert carries(distilled, initial, 0.5)["area"] == area


def test_carries_at_the_edges() -> None:
    one = carries(DRAWN[None], ZERO[None])
    assert one["area"]["difference"] == {"mean": 3 / 16, "std": None, "ci95": None, "n": 1, "values": [3 / 16]}
    assert one["area"]["relative_percent"] is None
    assert one["blank"] == {"distilled": 0, "initial": 1}
    same = carries(some_maps(), some_maps())
    assert same["area"]["relative_percent"]["mean"] == 0 and same["area"]["grown"] == 0
    assert json.loads(json.dumps(same, allow_nan=False)) == same


class Looking(nn.Module):
    """Its one block shows the first channel; the logit of class 1 is the mean of that, and of class 0 its negative."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        seen = self.blocks[0](x[:, :1]).mean((1, 2, 3))
        return torch.stack([-seen, seen], 1)


@pytest.fixture(scope="module")
def scenes() -> tuple[Tensor, np.ndarray]:
    images, boxes = render(draw(0, "train", 2, LEVELS["medium"]), 32, 32)
    return torch.from_numpy(images).float() / 255, boxes


def test_a_network_that_sees_the_box_on_scenes(scenes: tuple[Tensor, np.ndarray]) -> None:
    images, boxes = scenes
    x = torch.cat([indicators(boxes, 32, 32)[:, None], images], 1)
    ones = torch.ones(len(x), dtype=torch.long)
    found = measure(Looking(), x, ones, TorchCam(), generator(0), boxes)
    assert found["energy_inside"]["values"] == [1] * 20
    assert found["pointing"]["values"] == [1] * 20
    share = [(bottom - top) * (right - left) / 1024 for top, left, bottom, right in boxes.tolist()]
    assert found["chance"]["values"] == pytest.approx(share)
    assert found["area"]["values"] == found["mean_activation"]["values"] == pytest.approx(share)
    assert found["chance"]["mean"] < found["energy_elsewhere"]["mean"] < 1
    assert found["energy_gain"]["mean"] == pytest.approx(1 - found["energy_elsewhere"]["mean"])
    assert (found["blank"], found["cam"], found["cam_layer"]) == (0, "gradcam", "last")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_network_without_preference_is_counted(scenes: tuple[Tensor, np.ndarray]) -> None:
    images, boxes = scenes
    zeros = torch.zeros(len(images), dtype=torch.long)
    found = measure(Looking(), images, zeros, TorchCam(), generator(0), boxes)
    assert found["blank"] == 20
    assert found["energy_inside"]["mean"] == found["pointing"]["mean"] == found["area"]["mean"] == 0


def test_measure_without_boxes_and_of_one_image(scenes: tuple[Tensor, np.ndarray]) -> None:
    images, boxes = scenes
    chosen, ones = TorchCam("smooth_gradcam_pp"), torch.ones(len(images), dtype=torch.long)
    found = measure(Looking(), images, ones, chosen, generator(3))
    assert set(found) == {"cam", "cam_layer", "blank", "area", "mean_activation"}
    maps = chosen(Looking(), images, ones, generator(3))
    assert found["area"]["values"] == discriminative_area(maps).tolist()
    one = measure(Looking(), images[:1], ones[:1], chosen, generator(3), boxes[:1])
    assert "energy_elsewhere" not in one and "energy_gain" not in one
    assert one["pointing"]["ci95"] is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: discriminative_area(torch.zeros(4, 4)), "maps: (4, 4) is not of shape (N, H, W) with H·W > 0"),
        (lambda: discriminative_area(torch.zeros(2, 0, 4)), "maps: (2, 0, 4) is not of shape (N, H, W) with H·W > 0"),
        (lambda: mean_activation(torch.full((1, 2, 2), 1.5)), "maps: values from 1.5 to 1.5 are not in [0, 1]"),
        (lambda: mean_activation(torch.full((1, 2, 2), math.nan)), "maps: values from nan to nan are not in [0, 1]"),
        (lambda: discriminative_area(FLAT[None], 1.5), "threshold: 1.5 is not mean or a number in [0, 1]"),
        (lambda: discriminative_area(FLAT[None], math.nan), "threshold: nan is not mean or a number in [0, 1]"),
        (lambda: discriminative_area(FLAT[None], "median"), "threshold: 'median' is not mean or a number in [0, 1]"),
        (lambda: energy_inside(FLAT[None], np.zeros((1, 3), int)), "boxes: (1, 3) is not of shape (N, 4)"),
        (lambda: energy_inside(FLAT[None], np.ones((1, 4))), "boxes: torch.float64 is not of integers"),
        (
            lambda: pointing(FLAT[None], np.array([[0, 0, 4, 5]])),
            "boxes: [0, 0, 4, 5] is not top < bottom, left < right inside 4×4 pixels",
        ),
        (
            lambda: pointing(FLAT[None], np.array([[2, 0, 2, 4]])),
            "boxes: [2, 0, 2, 4] is not top < bottom, left < right inside 4×4 pixels",
        ),
        (lambda: pointing(FLAT[None], np.array([[0, 0, 1, 1]] * 2)), "boxes: (2, 4) is not of shape (1, 4), one for every map"),
        (lambda: energy_elsewhere(FLAT[None], np.array([[0, 0, 1, 1]])), "maps: (1, 4, 4) is not of two images or more"),
        (lambda: carries(FLAT[None], torch.zeros(2, 4, 4)), "maps: (1, 4, 4) is not of shape (2, 4, 4)"),
        (lambda: carries(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4)), "maps: (0, 4, 4) is not of one image or more"),
        (
            lambda: measure(Looking(), torch.zeros(0, 1, 4, 4), torch.zeros(0), TorchCam(), generator(0)),
            "x: (0, 1, 4, 4) is not one image or more",
        ),
    ],
)
def test_what_is_refused(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value) == message


def test_no_images_have_no_figures() -> None:
    assert discriminative_area(torch.zeros(0, 4, 4)).shape == mean_activation(torch.zeros(0, 4, 4)).shape == (0,)
    none = np.zeros((0, 4), int)
    assert energy_inside(torch.zeros(0, 4, 4), none).shape == pointing(torch.zeros(0, 4, 4), none).shape == (0,)
