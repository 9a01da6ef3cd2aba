"""Statistics in closed form, and evaluation on images that can only be told apart one way."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.imageset import ImageSet, whole
from limbeck.data.preprocessing import Identity, Normalise
from limbeck.evaluation import evaluate
from limbeck.evaluation.evaluate import Evaluator, recovery_ratio
from limbeck.evaluation.settings import EvalSettings
from limbeck.evaluation.statistics import summarise
from limbeck.losses import soft_cross_entropy
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import Failure
from limbeck.training.sgd import Sgd
from limbeck.training.train import Training


def test_summary_of_a_worked_example() -> None:
    # Mean 2, s² = (1 + 0 + 1) / 2 = 1, t(0.975; 2) = 4.302653: half the interval is 4.302653 / √3.
    summary = summarise([1.0, 2.0, 3.0])
    assert (summary["mean"], summary["std"], summary["n"]) == (2.0, 1.0, 3)
    assert summary["ci95"] == pytest.approx([2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)], abs=1e-6)


def test_one_value_has_no_spread() -> None:
    assert summarise([0.25]) == {"mean": 0.25, "std": None, "ci95": None, "n": 1, "values": [0.25]}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_interval_is_centred_on_the_mean(values: list[float]) -> None:
    summary = summarise(values)
    assert sum(summary["ci95"]) / 2 == pytest.approx(np.mean(values), abs=1e-12)
    assert summary["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def colours(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy red, green and blue images."""
    labels = np.arange(3).repeat(count)
    images = np.random.default_rng(seed).integers(0, 100, (3 * count, 3, 8, 8))
    images[np.arange(3 * count), labels] += 120
    return images.astype(np.uint8), labels


@pytest.fixture
def evaluator() -> Evaluator:
    """Of images whose test labels are all wrong, so that val and test cannot be taken for each other."""
    train, val, test = (whole(*colours(count, seed)) for seed, count in enumerate((20, 5, 10)))
    splits = (train, val, dataclasses.replace(test, labels=(test.labels + 1) % 3))
    data = ImageSet(*splits, ("red", "green", "blue"), "colours", "fingerprint")
    settings = EvalSettings(seeds=3, epochs=40, batch_size=8, full_epochs=12, full_batch_size=10, full_lr=0.05)
    # No norm: an instance norm takes the colour away.
    network = flat_network("ConvNetD1-w8-nonorm", data.shape, 3)
    return Evaluator(data, Identity(), network, settings, AugmentSettings(strategy="flip"), 0, torch.device("cpu"))


def test_the_right_set_scores_and_a_permuted_one_does_not(evaluator: Evaluator) -> None:
    images, labels = torch.full((3, 3, 8, 8), 0.2), torch.full((3, 3), -5.0)
    for k in range(3):
        images[k, k] = 0.7
        labels[k, k] = 5.0
    assert evaluator.distilled(images, labels, 0.05, seeds=range(3), split="val")["mean"] == 1.0
    assert evaluator.distilled(images, labels, 0.05, seeds=range(3))["mean"] == 0.0
    assert evaluator.distilled(images, labels.roll(1, 1), 0.05, seeds=range(3))["mean"] == 1.0
    assert evaluator.distilled(images, labels.softmax(1), 0.05, seeds=range(3), split="val", hard=True)["mean"] == 1.0
    again = [evaluator.distilled(images, labels, 0.003, seeds=range(3), split=split)["values"] for split in ("val", "val")]
    assert again[0] == again[1]


def test_random_takes_the_best_step_size_of_the_validation_split(evaluator: Evaluator) -> None:
    result = evaluator.random(2, 1e-9)
    assert result["lr"] in evaluate.RANDOM_RATES  # the one that is best on val is the worst on this test split
    assert result["n"] == 3
    assert result["mean"] < 0.2  # at the step size 1e-9 it would be a third


def test_every_random_subset_is_another(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(evaluate, "train", lambda n, theta, images, *_, **__: seen.append(images.images) or theta)
    evaluator.random(2, 0.05)
    final = seen[-3:]
    assert not any(torch.equal(a, b) for i, a in enumerate(final) for b in final[:i])
    assert all(len(images) == 6 for images in final)


def test_training_is_the_published_protocol(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Training] = []
    monkeypatch.setattr(evaluate, "train", lambda n, theta, i, y, how, **_: used.append(how) or theta)
    evaluator.distilled(torch.zeros(3, 3, 8, 8), torch.zeros(3, 3), 0.02, seeds=[0])
    (how,) = used
    assert how.optimiser == Sgd(lr=0.02, momentum=0.9, weight_decay=5e-4)
    assert [how.rate.factor(epoch, 10) for epoch in (0, 4, 5, 9)] == [1, 1, 0.1, 0.1]
    assert (how.epochs, how.batch_size, how.loss) == (40, 8, soft_cross_entropy)
    assert how.augment.operations == ("flip",)


def test_full_is_cached_and_extended(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    first = evaluator.full()
    assert first["n"] == 2
    assert first["mean"] < 0.1
    assert first["epochs"] == 12
    assert len(list((cache / "full").glob("*.json"))) == 1
    more = dataclasses.replace(evaluator, settings=dataclasses.replace(evaluator.settings, full_seeds=3))
    extended = more.full()
    assert extended["values"][:2] == first["values"]
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "train", lambda *_, **__: pytest.fail("trained again"))
        assert evaluator.full() == first
        assert more.full() == extended
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    assert more.full() == extended  # three at once


def test_full_under_another_preprocessing_is_another_figure(evaluator: Evaluator, cache: Path) -> None:
    evaluator.full()
    dataclasses.replace(evaluator, preprocessing=Normalise(torch.full((3,), 0.4), torch.ones(3))).full()
    dataclasses.replace(evaluator, preprocessing=Normalise(torch.full((3,), 0.5), torch.ones(3))).full()
    assert len(list((cache / "full").glob("*.json"))) == 3


@pytest.mark.parametrize("content", ["{", "[1]", '{"values": null}', '{"values": [2.0, 0.5]}'])
def test_a_broken_cache_is_measured_again(evaluator: Evaluator, cache: Path, content: str) -> None:
    first = evaluator.full()
    (file,) = (cache / "full").glob("*.json")
    file.write_text(content)
    assert evaluator.full() == first


def test_divergence_is_said_and_never_cached(evaluator: Evaluator, cache: Path) -> None:
    wild = dataclasses.replace(evaluator, settings=dataclasses.replace(evaluator.settings, full_lr=1e20))
    with pytest.raises(Failure, match=r"eval.full_lr \(1e\+20\) is too large"):
        wild.full()
    assert not list((cache / "full").glob("*.json"))
    images, labels = torch.randn(3, 3, 8, 8), torch.eye(3)
    assert evaluator.distilled(images, labels, 1e20, seeds=[0])["values"] == [0.0]


def test_recovery_ratio() -> None:
    assert recovery_ratio({"mean": 0.3}, {"mean": 0.6}) == 0.5
    assert recovery_ratio({"mean": 0.3}, {"mean": 0.0}) is None
