"""Under which protocol and with which step sizes further measurements train, and what is refused before."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from own_networks import Linear

from limbeck.accuracy import StepSize
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.fitting import Network, ProtocolFit
from limbeck.recipes import load_recipe
from limbeck.runs import measurements
from limbeck.runs.measurements import Subject
from limbeck.runs.record import Rates
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress

SMALL = {"data.size": "16", "data.per_class": "8", "network": "ConvNetD1-w4", "eval.epochs": "3", "eval.batch_size": "6"}
PROTOCOLS = ("kd", "rded", "sre2l", "ncfm-2025")
CHOSEN = 0.05
Tried = list[tuple[str, tuple[float | None, ...]]]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Tried:
    """Every choice of a step size: under which protocol, and which were tried beside the usual ones."""
    found: Tried = []

    def best(self: Evaluator, of: Any, ipc: int, also: Any, *_: Any) -> StepSize:
        found.append((self.protocol.name, tuple(also)))
        return StepSize(CHOSEN, "validation")

    monkeypatch.setattr(Evaluator, "_best", best)
    return found


def subject(protocol: str, network: Network = "ConvNetD1-w4", eta: float | None = 0.3, rate: float = 1e-3) -> Subject:
    """A set with soft labels that has learned η, evaluated with the protocol's step size."""
    workspace = Workspace(load_recipe("scenes", {**SMALL, "eval.protocol": protocol}), NoProgress())
    evaluator = workspace.evaluator()
    drawn = evaluator.random_subset(1, eta, "set")
    small = replace(drawn, labels=3 * drawn.labels, kind="logits")
    held = DistilledSet(
        set=replace(small, syn_lr=eta or 0.01), preprocessing=workspace.preprocessing, class_names=workspace.data.class_names
    )
    rates = Rates(StepSize(rate, "protocol"), StepSize(rate, "protocol"))
    return Subject(evaluator, network, held, small, None, workspace, rates, lambda one: one.own_step_size(small, "ConvNetD1-w4"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_trains_on_stored_labels_has_the_step_sizes_of_dd(tried: Tried, protocol: str) -> None:
    study = measurements._Study.of(subject(protocol), "search")
    assert study.trained.to_dict() == {"protocol": "dd 1, 3 epochs", "batch_size": 6, "lr": 0.3, "random_lr": CHOSEN}
    assert study.fit.evaluator.protocol.optimiser == "sgd"
    assert tried == [("dd", (0.3,))]  # of random images


def test_a_protocol_with_stored_labels_keeps_its_own(tried: Tried) -> None:
    study = measurements._Study.of(subject("soft-ce"), "search")
    assert study.trained.to_dict() == {"protocol": "soft-ce 1, 3 epochs", "batch_size": 6, "lr": 1e-3, "random_lr": 1e-3}
    assert tried == []


def test_a_set_without_a_step_size_chooses_it_under_dd(tried: Tried) -> None:
    study = measurements._Study.of(subject("kd", eta=None), "search")
    assert (study.small.syn_lr, study.fit.random_lr) == (CHOSEN, CHOSEN)
    assert tried == [("dd", (None,)), ("dd", (None,))]


@pytest.mark.parametrize("protocol", ["kd", "dd"])
def test_other_arms_try_the_learned_step_size(tried: Tried, protocol: str) -> None:
    held = subject(protocol, rate=1e-3 if protocol == "kd" else 0.3)
    hard = held.under("dd-hard")
    assert (held.step(held.evaluator), held.step(hard), held.random_step(hard)) == (held.rates.distilled.value, CHOSEN, CHOSEN)
    assert tried == [("dd-hard", (0.3,))] * 2


def test_robustness_is_of_labels_and_augmentation_whatever_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    means = {"kd": 0.9, "none": 0.3, "dd": 0.5, "dd-hard": 0.4}
    monkeypatch.setattr(Subject, "accuracy", lambda self, evaluator: means[evaluator.protocol.name])
    monkeypatch.setattr(Subject, "random", lambda self, evaluator: means[evaluator.protocol.name] / 2)
    for protocol in ("kd", "none", "dd"):
        found = measurements.FURTHER["robustness"](subject(protocol))
        assert found.labels == {"stored": 0.5, "hard": 0.4}
        assert (found.augmentation.acc_syn_aug, found.augmentation.acc_syn_plain) == (0.5, 0.3)
        assert (found.augmentation.acc_random_aug, found.augmentation.acc_random_plain) == (0.25, 0.15)
        assert found.protocols == {"stored": "dd 1, 3 epochs", "hard": "dd-hard 1, 3 epochs", "plain": "none 1, 3 epochs"}


def test_an_evaluator_is_its_own_under_its_own_protocol() -> None:
    held = subject("dd")
    assert held.under("dd") is held.evaluator and held.under("none") is not held.evaluator


@pytest.mark.parametrize(
    "change",
    [
        lambda small: replace(small, labels=torch.eye(10), kind="hard"),
        lambda small: replace(small, kind="probabilities", labels=torch.eye(10)),
        lambda small: replace(small, classes=small.classes.flip(0)),
        lambda small: replace(small, syn_lr=0.4),
    ],
)
def test_finished_trainings_are_those_of_the_same_set(change: Callable[[SmallSet], SmallSet], cache: Path) -> None:
    held = subject("dd")
    small = replace(held.small, labels=torch.eye(10))
    fit = ProtocolFit(held.evaluator, 0.1)
    measurements._cells(fit, small, "continual").after("distilled/0/0", {"accuracy": 0.5})
    assert measurements._cells(fit, replace(small), "continual").done == {"distilled/0/0": {"accuracy": 0.5}}
    assert measurements._cells(fit, change(small), "continual").done == {}
    assert len(list((cache / "further").iterdir())) == 1


def test_sets_that_take_as_many_bytes_as_more_random_images_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    held = subject("dd")
    fit = ProtocolFit(held.evaluator, 0.1)
    measurements._cells(fit, held.small, "search").after("random/a/0", {"accuracy": 0.5})
    monkeypatch.setattr(SmallSet, "real_ipc", 2)
    assert measurements._cells(fit, held.small, "search").done == {}


def test_classes_one_after_another_ask_for_a_network_of_any_number_of_them() -> None:
    held = subject("dd")

    def checked(network: Network) -> None:
        measurements.check(["continual"], held.evaluator, network, held.small, held.workspace)

    for network in ("ConvNetD1-w4", Linear, lambda channels, height, width, classes: Linear(classes)):
        checked(network)
    known = "further: 'continual' is not possible with a network that is not made for 2 classes, too: "
    for network in (Linear(10), lambda classes: Linear(10)):
        with pytest.raises(UsageError) as raised:
            checked(network)
        assert str(raised.value).startswith(known)
        assert str(raised.value).endswith("makes (2, 10) of 2 images of 3×16×16, not logits of shape (2, 2)")
