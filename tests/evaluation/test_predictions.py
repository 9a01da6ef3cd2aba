"""What logits say, worked by hand, against plain loops and scikit-learn."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from torch import Tensor

from limbeck.evaluation.predictions import (
    MOST_ROWS,
    Predictions,
    accuracy,
    brier_score,
    calibration_error,
    confusion,
    describe,
    negative_log_likelihood,
    per_class_accuracy,
    top_k,
)

NOTHING = (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


def of_one(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """The figures of a single network."""
    found = describe([logits], labels).to_dict()
    figures = {key: value["mean"] if isinstance(value, dict) else value for key, value in found.items()}
    return figures | {"per_class": [one and one["mean"] for one in found["per_class"]]}


def case(seed: int, count: int = 200, classes: int = 7) -> tuple[Tensor, Tensor]:
    """Logits that know a little, and labels."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=chance)
    logits = 2 * torch.randn(count, classes, generator=chance)
    return logits + torch.nn.functional.one_hot(labels, classes), labels


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def plain(logits: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """ECE, NLL and Brier in loops."""
    bins: list[list[tuple[float, float]]] = [[] for _ in range(15)]
    nll = brier = 0.0
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        p = softmax(row)
        nll -= math.log(p[label]) / len(labels)
        brier += sum((value - (k == label)) ** 2 for k, value in enumerate(p)) / len(labels)
        place = next(m for m in range(15) if max(p) <= (m + 1) / 15 + 1e-15)
        bins[place].append((float(p.index(max(p)) == label), max(p)))
    ece = sum(abs(np.mean([r for r, _ in b]) - np.mean([c for _, c in b])) * len(b) / len(labels) for b in bins if b)
    return float(ece), nll, brier


def test_worked_by_hand() -> None:
    # p = (.8, .2), (.6, .4), (.3, .7) with labels 0, 1, 1: right, wrong, right.
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]], dtype=torch.float64)
    logits, labels = p.log(), torch.tensor([0, 1, 1])
    found = of_one(logits, labels)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["per_class"] == [1.0, 0.5]
    assert found["confusion"] == [[1, 0], [1, 1]]
    # .8 lies in bin 12, .6 in 9, .7 in 11 (of 15), alone each: (|1 − .8| + |0 − .6| + |1 − .7|) / 3.
    assert found["calibration_error"] == pytest.approx(1.1 / 3)
    assert found["negative_log_likelihood"] == pytest.approx(-(math.log(0.8) + math.log(0.4) + math.log(0.7)) / 3)
    # 2 · .04, 2 · .36, 2 · .09, over 3.
    assert found["brier_score"] == pytest.approx(0.98 / 3)
    assert (found["n"], found["not_finite"], found["top_5"]) == (3, 0, None)
    json.dumps(found, allow_nan=False)


def test_a_bin_averages_before_it_compares() -> None:
    # Both confidences, .9 and .9, in one bin, one right and one wrong: |.5 − .9|, not (.1 + .9) / 2.
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log()
    assert calibration_error(logits, torch.tensor([0, 1])) == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_calibration_equals_loops(seed: int, dtype: torch.dtype) -> None:
    logits, labels = case(seed)
    logits = logits.to(dtype)
    measured = (calibration_error(logits, labels), negative_log_likelihood(logits, labels), brier_score(logits, labels))
    assert measured == pytest.approx(plain(logits, labels), rel=1e-9)


def test_against_scikit_learn() -> None:
    logits, labels = case(2)
    p = logits.double().softmax(1)
    assert confusion(logits, labels).tolist() == confusion_matrix(labels, logits.argmax(1)).tolist()
    assert negative_log_likelihood(logits, labels) == pytest.approx(log_loss(labels, p))
    for k in (1, 3, 7):
        assert top_k(logits, labels, k) == pytest.approx(top_k_accuracy_score(labels, p, k=k) if k < 7 else 1.0)
    binary, sides = case(3, classes=2)
    from sklearn.metrics import brier_score_loss

    # Over two classes the sum is twice the square of one.
    positive = binary.double().softmax(1)[:, 1]
    assert brier_score(binary, sides) == pytest.approx(2 * brier_score_loss(sides, positive))


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 9), st.sampled_from([0.0, 1.0, 30.0, 1e4]))
def test_ranges_and_how_the_figures_hang_together(seed: int, count: int, classes: int, scale: float) -> None:
    logits, labels = case(seed, count, classes)
    logits = scale * logits
    found = of_one(logits, labels)
    assert 0 <= found["calibration_error"] <= 1
    assert 0 <= found["brier_score"] <= 2
    assert found["negative_log_likelihood"] >= 0
    matrix = torch.tensor(found["confusion"])
    assert matrix.sum(1).tolist() == torch.bincount(labels, minlength=classes).tolist()
    assert found["accuracy"] == pytest.approx(matrix.trace().item() / count) == accuracy(logits, labels)
    assert [top_k(logits, labels, k) for k in range(1, classes + 1)] == sorted(
        top_k(logits, labels, k) for k in range(1, classes + 1)
    )
    assert top_k(logits, labels, classes) == 1.0
    shares = [share for share in found["per_class"] if share is not None]
    assert len(shares) == len(set(labels.tolist()))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    again = of_one(logits[order], labels[order])
    assert again["confusion"] == found["confusion"]
    assert again["calibration_error"] == pytest.approx(found["calibration_error"], abs=1e-9)


def test_a_perfect_network() -> None:
    labels = torch.tensor([0, 3, 1, 1])
    found = of_one(100.0 * torch.nn.functional.one_hot(labels, 7), labels)
    assert (found["accuracy"], found["top_5"]) == (1.0, 1.0)
    assert [found[key] for key in ("calibration_error", "negative_log_likelihood", "brier_score")] == pytest.approx([0, 0, 0])
    assert found["per_class"] == [1.0, 1.0, None, 1.0, None, None, None]


def test_a_sure_and_wrong_network() -> None:
    found = of_one(torch.tensor([[1e4, 0.0]] * 3), torch.ones(3, dtype=torch.long))
    assert [found[key] for key in ("accuracy", "calibration_error", "brier_score")] == [0.0, 1.0, 2.0]
    assert found["negative_log_likelihood"] == 1e4  # finite, where the log of a rounded probability would not be


def test_equal_logits_are_the_first_class() -> None:
    labels = torch.tensor([0, 1, 2, 2])
    logits = torch.zeros(4, 3)
    assert accuracy(logits, labels) == 0.25
    assert top_k(logits, labels, 2) == 0.5
    assert confusion(logits, labels).tolist() == [[1, 0, 0], [1, 0, 0], [2, 0, 0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_wrong(bad: float) -> None:
    logits, labels = torch.eye(6)[[0, 1, 1]], torch.tensor([0, 1, 1])
    logits[0, 0] = bad
    logits[1, 5] = bad
    found = of_one(logits, labels)
    assert (found["n"], found["not_finite"]) == (3, 2)
    assert found["accuracy"] == found["top_5"] == pytest.approx(1 / 3)
    assert found["per_class"] == [0.0, 0.5, None, None, None, None]
    assert torch.tensor(found["confusion"]).sum() == 1
    alone = of_one(logits[2:], labels[2:])
    for key in ("calibration_error", "negative_log_likelihood", "brier_score"):
        assert found[key] == alone[key]
    json.dumps(found, allow_nan=False)


def test_a_network_that_diverged() -> None:
    found = of_one(torch.full((4, 6), math.nan), torch.zeros(4, dtype=torch.long))
    assert (found["accuracy"], found["top_5"], found["not_finite"]) == (0.0, 0.0, 4)
    assert [found[key] for key in ("calibration_error", "negative_log_likelihood", "brier_score")] == [None] * 3
    both = describe([torch.full((4, 6), math.nan), torch.eye(6)[:4]], torch.zeros(4, dtype=torch.long))
    assert both.accuracy is not None and both.accuracy.values == (0.0, 0.25)
    assert both.brier_score is not None and both.brier_score.n == 1
    assert both.not_finite == 4


def test_one_class_and_one_image() -> None:
    found = of_one(torch.tensor([[3.0]]), torch.tensor([0]))
    assert (found["accuracy"], found["confusion"], found["per_class"]) == (1.0, [[1]], [1.0])
    assert [found[key] for key in ("calibration_error", "negative_log_likelihood", "brier_score")] == [0, 0, 0]


def test_average_over_seeds() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    right, half = torch.eye(3)[[0, 0, 1, 1]], torch.eye(3)[[0, 1, 1, 2]]
    found = describe([right, half], labels)
    assert found.accuracy is not None and found.accuracy.mean == 0.75
    assert found.accuracy.std == pytest.approx(0.5 / math.sqrt(2))
    assert [None if share is None else share.mean for share in found.per_class] == [0.75, 0.75, None]
    assert found.confusion == ((1.5, 0.5, 0.0), (0.0, 1.5, 0.5), (0.0, 0.0, 0.0))
    assert (found.n, found.not_finite, found.top_5) == (4, 0, None)
    assert found.calibration_error is not None and found.calibration_error.n == 2
    assert Predictions.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


def test_networks_that_do_not_belong_together() -> None:
    for wrong in ([], [torch.eye(3), torch.eye(3)[:2]], [torch.eye(3), torch.eye(4)[:3]]):
        with pytest.raises(ValueError, match="at least one network"):
            describe(wrong, torch.arange(3))


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (*NOTHING, "at least one image"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.long), "at least one image"),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), "at least one image"),
        (torch.zeros(2, 0), torch.zeros(2, dtype=torch.long), "at least one image"),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long), "at least one image"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"in \[0, 3\), not 0 to 3"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), r"in \[0, 3\), not -1 to 0"),
        (torch.zeros(2, 3), torch.zeros(2), "whole numbers"),
    ],
)
def test_what_is_refused(logits: Tensor, labels: Tensor, message: str) -> None:
    measures: list[Any] = [
        accuracy,
        per_class_accuracy,
        confusion,
        calibration_error,
        negative_log_likelihood,
        brier_score,
        of_one,
    ]
    for measure in measures:
        with pytest.raises(ValueError, match=message):
            measure(logits, labels)


def test_k_is_checked() -> None:
    for k in (0, 4):
        with pytest.raises(ValueError, match=r"k must be in \[1, 3\]"):
            top_k(torch.zeros(2, 3), torch.tensor([0, 1]), k)


def test_of_many_classes_no_confusion_is_kept() -> None:
    draws = torch.Generator().manual_seed(0)
    for classes, rows in ((MOST_ROWS, MOST_ROWS), (MOST_ROWS + 1, 0)):
        logits, labels = torch.randn(20, classes, generator=draws), torch.arange(20)
        found = describe([logits], labels)
        assert len(found.confusion) == rows and len(found.per_class) == classes
        right = [float(logits[k].argmax() == k) for k in range(20)]
        assert [one and one.mean for one in found.per_class] == [*right, *[None] * (classes - 20)]
