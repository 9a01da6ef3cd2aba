"""Complexity against plain loops."""

import numpy as np
import pytest
import torch

from limbeck.image_complexity.maps import class_means, complexity, subset_mean
from limbeck.runtime.errors import UsageError


def plain(maps: np.ndarray, threshold: float) -> list[float]:
    found = []
    for active in maps:
        count = sum(1 for place in np.ndindex(active.shape) if active[place] >= threshold)
        found.append(100 - 100 * count / active.size)
    return found


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9, 1.0])
def test_share_of_pixels_that_are_not_active(threshold: float) -> None:
    maps = np.random.default_rng(0).random((4, 3, 5))
    maps[0, 0, :3] = threshold, np.nextafter(threshold, 0), 1
    assert complexity(torch.from_numpy(maps), threshold).tolist() == pytest.approx(plain(maps, threshold), abs=1e-12)


def test_a_value_at_the_threshold_is_active_in_single_precision_too() -> None:
    # float32's 0.9 is below that of float64.
    assert complexity(torch.full((1, 2, 2), 0.9), 0.9).item() == 0
    assert complexity(torch.full((1, 2, 2), 0.9, dtype=torch.float16), 0.9).item() == 0


def test_zero_maps_have_complexity_100() -> None:
    assert complexity(torch.zeros(2, 7, 7)).tolist() == [100, 100]


def test_published_example() -> None:
    """Of 49 pixels of a 7×7 map 17 active: complexity 65.3 %, about that of Comp-DD's easy birds (66.0 %)."""
    maps = torch.zeros(1, 49)
    maps[0, :17] = 0.5
    assert complexity(maps.view(1, 7, 7)).item() == pytest.approx(100 * 32 / 49)


@pytest.mark.parametrize(
    ("maps", "threshold", "said"),
    [
        (torch.zeros(1, 2, 2), 0.0, "threshold: 0.0 is not in (0, 1]"),
        (torch.zeros(1, 2, 2), float("nan"), "threshold: nan"),
        (torch.full((1, 2, 2), float("nan")), 0.5, "not in [0, 1]"),
        (torch.full((1, 2, 2), 1.5), 0.5, "not in [0, 1]"),
        (torch.zeros(2, 2), 0.5, "of shape (N, H, W)"),
    ],
)
def test_refusals(maps: torch.Tensor, threshold: float, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        complexity(maps, threshold)
    assert said in str(raised.value)


def test_class_means_leave_out_what_is_not_known() -> None:
    values = np.array([[1.0, 10.0], [3.0, np.nan], [np.nan, np.nan], [5.0, 20.0]])
    found = class_means(values, np.array([0, 0, 1, 0]), 3)
    assert found[0].tolist() == [3.0, 15.0]
    assert np.isnan(found[1:]).all()


def test_every_class_weighs_the_same_whatever_its_images() -> None:
    values, labels = np.array([10.0] * 9 + [50.0]), np.array([0] * 9 + [1])
    assert subset_mean(class_means(values, labels, 3)) == 30
    assert np.isnan(subset_mean(np.array([np.nan])))
