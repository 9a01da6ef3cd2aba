"""Images and labels that are no numbers, or out of range, are refused when they are loaded, and the item that has them is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import limbeck
from limbeck.data.imageset import ImageSet
from limbeck.distilled.small_set import SmallSet, first_infinite
from limbeck.runtime.errors import UsageError

COUNT = 2600  # more than are looked at together
LABELS = np.arange(COUNT) % 3


def images(**spoiled: float) -> np.ndarray:
    """Floats in [0, 1], of which some are others: image7=nan."""
    made = np.random.default_rng(0).random((COUNT, 4, 4, 3), dtype=np.float32)
    for name, value in spoiled.items():
        made[int(name.removeprefix("image")), 1, 2, 0] = value
    return made


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (images(image7=np.nan), LABELS, "numbers that are not finite, the first in image 7$"),
        (images(image2057=np.inf, image2100=np.nan), LABELS, "numbers that are not finite, the first in image 2057$"),
        (images(), np.where(np.arange(COUNT) == 41, -1, LABELS), "labels from -1 to 2; 0 and up is accepted, and item 41 has -1$"),
    ],
)
def test_of_arrays_the_item_is_named(x: np.ndarray, y: np.ndarray, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ImageSet.from_arrays(x, y, images()[:30], LABELS[:30])


def test_of_test_labels_the_item_is_named() -> None:
    other = np.where(np.arange(30) == 12, 5, LABELS[:30])
    with pytest.raises(UsageError, match="labels from 0 to 5; 0 … 2 is accepted, and item 12 has 5$"):
        ImageSet.from_arrays(images(), LABELS, images()[:30], other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": (4, np.nan)}, "holds images with numbers that are not finite, the first in image 4"),
        ({"labels": (2, np.inf)}, "holds labels with numbers that are not finite, the first of image 2"),
        ({"classes": (5, 9)}, "holds labels from 0 to 9; 0 … 2 is accepted, and image 5 has 9"),
    ],
)
def test_of_a_set_of_others_the_image_is_named(tmp_path: Path, changes: dict[str, tuple[int, float]], said: str) -> None:
    data = ImageSet.from_arrays(images()[:60], LABELS[:60], images()[:30], LABELS[:30])
    held: dict[str, Any] = {"images": images()[:6].transpose(0, 3, 1, 2).copy(), "labels": np.eye(3, dtype=np.float32)[LABELS[:6]]}
    for name, (position, value) in changes.items():
        if name == "classes":
            held["labels"] = LABELS[:6].copy()
            name = "labels"
        held[name][position] = value
    np.savez(tmp_path / "set.npz", **held)
    with pytest.raises(UsageError, match=said):
        limbeck.evaluate(tmp_path / "set.npz", data, network="ConvNetD1-w4")


def test_of_a_small_set_the_image_is_named() -> None:
    x = torch.rand(3, 3, 4, 4)
    x[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="images and labels must be finite, and image 1 is not"):
        SmallSet.of_classes(x, torch.arange(3), 3)


def test_the_first_is_found() -> None:
    values = torch.zeros(5, 2, 3)
    assert first_infinite(values) is None
    values[3, 1, 2], values[4, 0, 0] = torch.inf, torch.nan
    assert first_infinite(values) == 3 and first_infinite(values[:3]) is None
