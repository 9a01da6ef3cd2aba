"""Fetching prepared images."""

import numpy as np
import pytest
import torch

from limbeck.data.preprocessing import Identity
from limbeck.data.split import whole
from limbeck.training import images as module
from limbeck.training.images import LazyImages, TensorImages, prepare_split, sample

SPLIT = whole(np.random.default_rng(0).integers(0, 256, (1100, 3, 4, 5)).astype(np.uint8), np.zeros(1100))


def test_held_and_prepared_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    held = prepare_split(SPLIT, Identity(), torch.device("cpu"))
    monkeypatch.setattr(module, "HELD_BYTES", 1)
    lazy = prepare_split(SPLIT, Identity(), torch.device("cpu"))
    assert isinstance(held, TensorImages)
    assert isinstance(lazy, LazyImages)
    assert len(held) == len(lazy) == 1100
    assert held.shape == lazy.shape == (3, 4, 5)
    index = torch.tensor([3, 1099, 0, 3])
    assert torch.equal(held.fetch(index), lazy.fetch(index))
    assert torch.allclose(held.images * 255, SPLIT.images().float(), atol=1e-4)


def test_a_sample_of_sorted_images_has_all_classes() -> None:
    labels = torch.arange(10).repeat_interleave(100).view(-1, 1, 1, 1).float()
    assert torch.bincount(sample(TensorImages(labels), 50).flatten().long()).tolist() == [5] * 10
    assert torch.equal(sample(TensorImages(labels), 5000), labels)
