"""With which network, step size, batches and epochs studies train."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from own_networks import LeNet

from limbeck.augmentation import Dsa
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity
from limbeck.data.split import whole
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.fitting import ProtocolFit, training_images
from limbeck.evaluation.settings import EvalSettings
from limbeck.evaluation.trials import Outcome, Trial, Trials
from limbeck.networks.flat import flat_network
from limbeck.training.images import Images


@pytest.fixture
def evaluator() -> Evaluator:
    labels = np.arange(12) % 3
    split = whole(np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16)).astype(np.uint8), labels)
    data = ImageSet(split, split, split, ("a", "b", "c"), "noise", "fingerprint")
    settings = EvalSettings(epochs=7, batch_size=5, full_lr=0.03, full_epochs=2, full_batch_size=6)
    network = flat_network("ConvNetD1-w4", data.shape, 3)
    return Evaluator(data, Identity(), network, settings, Dsa("flip"), 0, torch.device("cpu"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Trials, Trial]]:
    """What would have been trained."""
    found: list[tuple[Trials, Trial]] = []

    def run(self: Trials, trials: Sequence[Trial], asked: Sequence[Images], *_: Any) -> list[Outcome]:
        found.extend((self, trial) for trial in trials)
        return [Outcome(torch.zeros(1), [torch.zeros(len(one), 3) for one in asked])] * len(trials)

    monkeypatch.setattr(Trials, "run", run)
    return found


def test_a_set_has_its_step_size_and_random_images_theirs(evaluator: Evaluator, trained: list[tuple[Trials, Trial]]) -> None:
    fit, small = ProtocolFit(evaluator, 0.2), evaluator.random_subset(2, None, "set")
    own = dataclasses.replace(small, syn_lr=0.7, labels=3 * small.labels, kind="logits")
    for one in (own, small, training_images(evaluator)):
        fit("MLP-w8", one, seed=4, measure=[evaluator.images_of("test")])
    assert [trials.network.name for trials, _ in trained] == ["MLP-w8"] * 3
    hows = [trial.how for _, trial in trained]
    assert [(how.optimiser.lr, how.epochs, how.batch_size) for how in hows] == [(0.7, 7, 5), (0.2, 7, 5), (0.03, 2, 6)]
    assert [trial.key for _, trial in trained] == [("fit", 4)] * 3
    assert fit.trained(own).to_dict() == {"protocol": "dd 1, 7 epochs", "batch_size": 5, "lr": 0.7, "random_lr": 0.2}


def test_a_network_is_what_it_is_given_as(evaluator: Evaluator, trained: list[tuple[Trials, Trial]]) -> None:
    fit, small = ProtocolFit(evaluator, 0.2), evaluator.random_subset(1, None, "set")
    few = SmallSet.of_classes(small.images[:2], torch.arange(2), 2)
    for network, one in ((LeNet(3), small), (LeNet, small), (LeNet, few), ("LeNet", small)):
        fit(network, one, seed=0, measure=[])
    sizes = [3 * 16 * 16 * classes + classes for classes in (3, 3, 2)]
    assert [trials.network.num_parameters for trials, _ in trained[:3]] == sizes
    assert trained[3][0].network.num_parameters not in sizes
