"""The data card: counts by hand, pictures of the right images, and what is no card."""

from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity, Normalise, Preprocessing
from limbeck.data.split import whole
from limbeck.runs import data_card
from limbeck.runs.data_card import DATA_CARD, FILE, DataCard, small
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.sealed import Damaged


def images(labels: list[int], side: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (len(labels), 3, side, side)).astype(np.uint8)


def data(side: int = 4) -> ImageSet:
    """Two classes, of which training images are known by their pixels."""
    parts = {"train": [1, 0, 1, 1, 0, 1, 1, 1, 1, 1], "val": [0, 0, 1], "test": [1]}
    splits = [whole(images(labels, side, number), np.array(labels)) for number, labels in enumerate(parts.values())]
    return ImageSet.of(*splits, ("cat <b>", "dog"), "pets")


def test_it_counts_and_shows_training_images_by_class(tmp_path: Path) -> None:
    held = data()
    DataCard.of(held, pictures=True).write(tmp_path, "run")
    card = DataCard.read(tmp_path)
    assert card.about.counts == {"train": (2, 8), "val": (2, 1), "test": (0, 1)}
    assert card.about.totals == {"train": 10, "val": 3, "test": 1}
    assert (card.about.class_names, card.about.source) == (("cat <b>", "dog"), "pets")
    assert (card.about.shape, card.about.fingerprint) == ((3, 4, 4), held.fingerprint)
    assert card.classes.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert torch.equal(card.examples, held.train.images(np.array([1, 4, 0, 2, 3, 6, 7, 8])))  # as they are, and no others


@pytest.mark.parametrize("way", [Identity(), Normalise(torch.tensor([0.1, 0.2, 0.3]), torch.ones(3) / 4), None])
def test_it_says_how_images_become_pixels_again(tmp_path: Path, way: Preprocessing | None) -> None:
    DataCard.of(data(), way, pictures=True).write(tmp_path, "run")
    found, x = DataCard.read(tmp_path).preprocessing, torch.randn(2, 3, 4, 4)
    assert (found is None) == (way is None) and (way is None or torch.equal(found.inverse(x), way.inverse(x)))


def test_without_pictures_it_counts_all_the_same(tmp_path: Path) -> None:
    DataCard.of(data(), pictures=False).write(tmp_path, "run")
    card = DataCard.read(tmp_path)
    assert card.about.totals["train"] == 10
    assert len(card.examples) == len(card.classes) == 0


def test_pictures_are_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert small((3, 32, 32), 60, 2**21) == (32, 32)
    assert small((3, 256, 128), 60, 2**21) == (64, 32)
    assert small((3, 64, 64), 1000, 2**21) == (26, 26)
    assert 1000 * 3 * 26 * 26 <= 2**21 < 1000 * 3 * 27 * 27
    assert small((1, 8, 8), 10**9, 2**21) == (1, 1)
    monkeypatch.setattr(data_card, "LARGEST_SIDE", 2)
    held = data()
    found = DataCard.of(held, pictures=True).examples
    means = held.train.images(np.array([1])).float().view(1, 3, 2, 2, 2, 2).mean((3, 5))
    assert torch.equal(found[:1], means.round().byte())


@pytest.mark.parametrize(
    "change",
    [
        {"counts": {"train": [1, 2], "val": [0, 0], "test": [1]}},
        {"counts": {"train": [1, 2]}},
        {"class_names": ["one"]},
        {"class_names": 3},
        {"preprocessing": "normalise"},
        {"preprocessing": "magic"},
        {"preprocessing": 3},
        {"examples": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)},
        {"examples": torch.zeros(8, 3, 4, 4)},
        {"classes": torch.full((8,), 2)},
        {"classes": torch.full((8,), -1)},
        {"classes": torch.zeros(8)},
    ],
)
def test_what_no_run_can_have_written_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    DataCard.of(data(), pictures=True).write(tmp_path, "run")
    tensors, metadata = read_tensors(tmp_path / FILE)
    for name, value in change.items():
        (tensors if isinstance(value, torch.Tensor) else metadata)[name] = value  # type: ignore[index]
    write_tensors(tmp_path / FILE, tensors, metadata, DATA_CARD)
    with pytest.raises(Damaged):
        DataCard.read(tmp_path)
