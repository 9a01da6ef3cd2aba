"""Class-incremental learning with trainings whose results are known."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from evaluation.layout import in_json
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation import continual as module
from limbeck.evaluation.continual import class_tasks, restricted
from limbeck.evaluation.fitting import Cell, Cells
from limbeck.losses import soft_cross_entropy
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import derived_seed
from limbeck.training.images import Images, TensorImages

continual = in_json(module.continual)

K = 5
# The pixel of an image is its class; three test images of each, by turns.
LABELS = torch.arange(3 * K) % K
TEST = TensorImages(LABELS.float()[:, None, None, None])


def memory(hard: bool, mark: float = 0.0, each: int = 2) -> SmallSet:
    """Images whose pixel is their class, those that `mark` distinguishes with a hundredth of it more."""
    classes = torch.arange(each * K) % K
    labels = torch.eye(K)[classes] if hard else torch.arange(each * K * K).view(-1, K) / 10
    return SmallSet(classes.float()[:, None, None, None] + mark / 100, labels, classes, None, "hard" if hard else "logits")


class Known:
    """A training after which the classes in `known` (of those seen) are right, and of all others the last output is guessed."""

    def __init__(self, tasks: list[list[int]], known: dict[float, set[int]]) -> None:
        self.tasks, self.known, self.calls = tasks, known, []  # type: ignore[var-annotated]

    def __call__(self, network: str, small: SmallSet, *, seed: int, measure: Sequence[Images]) -> list[Tensor]:
        images, num_classes = small.images, small.num_classes
        seen = [k for task in self.tasks for k in task][:num_classes]
        mark = round(100 * (images.flatten()[0].item() % 1))
        assert sorted(set(images.flatten().floor().long().tolist())) == sorted(seen)
        assert images.flatten().floor().tolist() == [seen[k] for k in small.classes]
        (asked,) = measure
        pixels = asked.fetch(torch.arange(len(asked))).flatten().long().tolist()
        assert sorted(pixels) == sorted(3 * seen)  # only the test images of classes seen
        self.calls.append((network, seed, mark, num_classes))
        guesses = [seen.index(k) if k in self.known[mark] else num_classes - 1 for k in pixels]
        return [torch.eye(num_classes)[guesses]]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 3))
def test_tasks_part_the_classes_evenly(num_classes: int, steps: int, seed: int) -> None:
    if steps > num_classes:
        with pytest.raises(UsageError, match=rf"^steps: {steps} is not in 1 … {num_classes}"):
            class_tasks(num_classes, steps, seed)
        return
    tasks = class_tasks(num_classes, steps, seed)
    sizes = [len(task) for task in tasks]
    assert sorted(k for task in tasks for k in task) == list(range(num_classes))
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == steps
    assert sizes[0] - sizes[-1] <= 1


def test_every_seed_has_its_own_order() -> None:
    assert len({tuple(class_tasks(10, 2, seed)[0]) for seed in range(9)}) == 9
    assert class_tasks(10, 5, 3) == class_tasks(10, 5, 3)


def test_accuracies_of_a_worked_example() -> None:
    tasks = class_tasks(K, 3, 7)  # of 2, 2 and 1 classes
    order = [k for task in tasks for k in task]
    known = {1: set(order), 2: {order[0]}}
    fit = Known(tasks, known)
    memories = {"distilled": [memory(False, 1)], "random": [memory(True, 2)]}
    found = continual(fit, "ConvNetD1", memories, TEST, LABELS, steps=3, seeds=[7])
    # The second knows the first class and guesses the last one, which is right for that one alone.
    first, second = (found["memories"][name] for name in memories)
    assert [step["mean"] for step in first["steps"]] == [1, 1, 1]
    assert [step["mean"] for step in second["steps"]] == [1, 2 / 4, 2 / 5]
    assert second["average"]["mean"] == pytest.approx((1 + 1 / 2 + 2 / 5) / 3)
    assert [step["mean"] for step in found["differences"]["random"]["steps"]] == [0, 1 / 2, 3 / 5]
    assert found["differences"]["random"]["average"]["mean"] == pytest.approx((1 / 2 + 3 / 5) / 3)
    assert list(found["differences"]) == ["random"]
    assert found["images"] == {"distilled": 10, "random": 10}
    assert found["tasks"] == {"7": tasks}
    assert [call[0] for call in fit.calls] == ["ConvNetD1"] * 6
    assert [call[2:] for call in fit.calls] == [(1, 2), (1, 4), (1, 5), (2, 2), (2, 4), (2, 5)]
    # Both memories start from the same networks, a fresh one for each task.
    assert [call[1] for call in fit.calls[:3]] == [call[1] for call in fit.calls[3:]]
    assert len({call[1] for call in fit.calls}) == 3


def test_seeds_are_paired_and_take_their_own_draw() -> None:
    seeds = [0, 4]
    orders = {derived_seed(seed, "continual", 0): class_tasks(K, 1, seed)[0] for seed in seeds}  # that of the outputs

    def fit(network: str, small: SmallSet, *, seed: int, measure: Sequence[Images]) -> list[Tensor]:
        right = {1: 9, 2: 6, 3: 3}[round(100 * (small.images.flatten()[0].item() % 1))]  # of 15
        classes = measure[0].fetch(torch.arange(15)).flatten()
        places = [orders[seed].index(int(k)) for k in classes]
        return [torch.eye(K)[[place if i < right else (place + 1) % K for i, place in enumerate(places)]]]

    memories = {"distilled": [memory(False, 1)], "random": [memory(True, 2), memory(True, 3)]}
    found = continual(fit, "n", memories, TEST, LABELS, steps=1, seeds=seeds)
    assert found["memories"]["distilled"]["average"]["values"] == [9 / 15, 9 / 15]
    assert found["memories"]["random"]["average"]["values"] == [6 / 15, 3 / 15]
    # Differences 0.2 and 0.4: s = 0.1 √2, half the interval 12.7062 · s / √2.
    difference = found["differences"]["random"]["average"]
    assert (difference["mean"], difference["std"]) == pytest.approx((0.3, 0.1 * math.sqrt(2)))
    assert difference["wins"] == 1
    assert difference["ci95"] == pytest.approx([0.3 - 1.27062, 0.3 + 1.27062], abs=1e-5)


def test_labels_are_restricted_and_renormalised() -> None:
    logits = torch.randn(K, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes, images = torch.arange(K), torch.arange(float(K))[:, None, None, None]
    soft = SmallSet(images, logits, classes, None, "logits")
    shares = SmallSet(images, logits.softmax(1), classes, None, "probabilities")
    seen = [3, 0, 4]
    kept = restricted(soft, seen)
    labels = kept.labels
    assert (kept.images.flatten().tolist(), kept.classes.tolist()) == ([0, 3, 4], [1, 0, 2])
    probabilities = logits.softmax(1)[[0, 3, 4]][:, seen]
    expected = probabilities / probabilities.sum(1, keepdim=True)
    assert torch.allclose(labels.softmax(1), expected, atol=1e-12)
    assert torch.allclose(restricted(shares, seen).labels, expected, atol=1e-12)
    # The loss that a network descends is the cross-entropy with these.
    outputs = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert soft_cross_entropy(outputs, labels).item() == pytest.approx(-(expected * outputs.log_softmax(1)).sum(1).mean().item())


def test_one_hot_labels_stay_one_hot() -> None:
    assert restricted(memory(True), [4, 1]).labels.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]


def test_it_goes_on_where_it_was() -> None:
    tasks = class_tasks(K, 2, 1)
    memories = {"distilled": [memory(False, 1)], "random": [memory(True, 2)]}
    kept: dict[str, Cell] = {}
    known = {1: {0, 1, 2}, 2: {3}}
    whole = continual(Known(tasks, known), "n", memories, TEST, LABELS, steps=2, seeds=[1], cells=Cells(after=kept.__setitem__))
    assert sorted(kept) == ["distilled/1/0", "distilled/1/1", "random/1/0", "random/1/1"]
    kept = json.loads(json.dumps(kept))
    del kept["random/1/1"]
    fit = Known(tasks, known)
    assert continual(fit, "n", memories, TEST, LABELS, steps=2, seeds=[1], cells=Cells(kept)) == whole
    assert [call[2:] for call in fit.calls] == [(2, 5)]
    json.dumps(whole)


def test_one_class_is_always_right() -> None:
    lone = SmallSet(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), None, "logits")

    def fit(network: str, small: SmallSet, *, measure: Sequence[Images], **_: Any) -> list[Tensor]:
        return [torch.zeros(len(images), small.num_classes) for images in measure]

    found = continual(
        fit, "n", {"only": [lone]}, TensorImages(torch.zeros(3, 1, 1, 1)), torch.zeros(3, dtype=torch.int64), steps=1, seeds=[0]
    )
    assert found["memories"]["only"]["average"]["mean"] == 1.0
    assert found["differences"] == {}


def test_what_does_not_fit_is_refused_before_training() -> None:
    good = memory(True)

    def check(message: str, **changed: Any) -> None:
        given = {"memories": {"a": [good]}, "test": TEST, "labels": LABELS, "steps": 2, "seeds": [0, 1], **changed}
        with pytest.raises(UsageError, match=message):
            continual(lambda *_, **__: pytest.fail("trained"), "n", **given)

    check(r"^memories: \[\] is not", memories={})
    check(r"^memories: \['a'\] is not", memories={"a": []})
    check(r"^a: 3 is not one memory, or 2, one for each seed", memories={"a": [good] * 3})
    check(r"^a: \[10, 15\] is not of draws with equal numbers", memories={"a": [good, memory(True, each=3)]})
    check(r"^b: 4 is not a set of 5 classes", memories={"a": [good], "b": [SmallSet.of_classes(good.images, good.classes % 4, 4)]})
    check(r"^a.classes: \[0, 1, 2, 3\] is not each of 0 … 4", memories={"a": [replace(good, classes=good.classes % 4)]})
    check(r"^a.labels: 0.0 is not above 0", memories={"a": [replace(good, labels=good.labels.roll(1, 1))]})
    check(r"^test: .* of images of each class", labels=LABELS % 4)
    check(r"^seeds: \[\] is not", seeds=[])
    check(r"^steps: 6 is not in 1 … 5", steps=6)
