"""The one value for a few labelled images."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.distilled.small_set import SmallSet

CLASSES = torch.tensor([1, 0, 1])
LOGITS = torch.tensor([[0.0, math.log(3)], [2.0, 2.0], [math.log(4), 0.0]])
SMALL = SmallSet(torch.rand(3, 2, 4, 5), LOGITS, CLASSES, 0.1, "logits")


def test_labels_are_probabilities_or_classes() -> None:
    expected = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.8, 0.2]])
    torch.testing.assert_close(SMALL.probabilities(), expected)
    assert torch.equal(replace(SMALL, labels=expected, kind="probabilities").probabilities(), expected)
    assert SMALL.hard().tolist() == [[0, 1], [1, 0], [0, 1]]  # whatever the labels favour
    hard = SmallSet.of_classes(SMALL.images, CLASSES, 4)
    assert (hard.kind, hard.syn_lr, hard.labels.tolist()) == ("hard", None, torch.eye(4)[CLASSES].tolist())
    assert torch.equal(hard.probabilities(), hard.hard())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_counts(classes: list[int]) -> None:
    small = SmallSet.of_classes(torch.zeros(len(classes), 1, 2, 3), torch.tensor(classes), 5)
    assert (len(small), small.num_classes, small.shape) == (len(classes), 5, (1, 2, 3))
    assert small.ipc == max(classes.count(k) for k in range(5))


def test_another_device() -> None:
    moved = SMALL.to("cpu")
    assert torch.equal(moved.images, SMALL.images)
    assert (moved.syn_lr, moved.kind) == (SMALL.syn_lr, SMALL.kind)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": torch.zeros(3, 4, 5)}, r"images must be floats \(N, C, H, W\), not torch.float32 \[3, 4, 5\]"),
        ({"images": torch.zeros(3, 2, 4, 5, dtype=torch.uint8)}, "images must be floats"),
        ({"images": torch.zeros(0, 2, 4, 5)}, "images must be floats"),
        ({"images": torch.full((3, 2, 4, 5), math.inf)}, "finite"),
        ({"labels": torch.zeros(2, 2)}, r"labels must be floats \[3, K\], not torch.float32 \[2, 2\]"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels must be floats"),
        ({"labels": torch.full((3, 2), math.nan)}, "finite"),
        ({"labels": torch.zeros(3, 1)}, "classes must be in 0 … 0"),
        ({"classes": torch.tensor([0, 1])}, r"classes must be int64 \[3\]"),
        ({"classes": torch.tensor([0, -1, 1])}, "classes must be in 0 … 1"),
        ({"kind": "soft"}, "kind 'soft' is not one of logits, probabilities, hard"),
        ({"kind": "hard"}, "hard labels must be one-hot"),
        ({"kind": "probabilities"}, "probabilities must be rows ≥ 0 that sum to 1"),
        ({"syn_lr": 0.0}, "syn_lr must be finite and above 0"),
    ],
)
def test_parts_must_fit_together(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(SMALL, **change)
