"""Networks of an evaluation: names, modules and functions, each once, in all that is measured, and refused by the right key."""

from pathlib import Path
from typing import Any

import pytest
from own_networks import LeNet
from shared_cache import cache, cache_of_the_module  # noqa: F401

import limbeck
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.statistics import Looks
from limbeck.recipes import load_recipe
from limbeck.runs import measurements
from limbeck.runs.checks import check
from limbeck.runs.evaluate import EvaluationOptions, evaluate
from limbeck.runs.needs import check_run
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.progress import NoProgress

SMALL = {
    "data.size": "16",
    "data.per_class": "8",
    "network": "ConvNetD1-w4",
    "eval.epochs": "1",
    "eval.seeds": "2",
    "eval.full_epochs": "1",
    "eval.random_lr": "0.01",
    "engine.compile": "no",
    "features": "none",
}
TRUSTED = EvaluationOptions(trust=True, keep=False)


def settings(**changes: str) -> DistillSettings:
    return load_recipe("scenes", SMALL | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture
def held() -> DistilledSet:
    workspace = Workspace(settings(), NoProgress())
    small = workspace.evaluator().random_subset(1, 0.02, "set")
    return DistilledSet(set=small, preprocessing=workspace.preprocessing, class_names=workspace.data.class_names)


def never(*_: Any, **__: Any) -> None:
    pytest.fail("trained before it was refused")


def test_a_network_of_ones_own_is_what_further_measurements_train(held: DistilledSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    run = measurements.ProtocolFit.__call__

    def noted(self: Any, network: Any, small: Any, **more: Any) -> Any:
        seen.append((small.num_classes, limbeck.flat_network(network, small.shape, small.num_classes).num_parameters))
        return run(self, network, small, **more)

    monkeypatch.setattr(measurements.ProtocolFit, "__call__", noted)
    options = EvaluationOptions(further=("continual",), trust=True, keep=False)
    found = evaluate(held, settings(), networks=[LeNet], options=options)
    assert seen == [(classes, 769 * classes) for classes in (2, 4, 6, 8, 10)] * 4
    assert found.measurements["continual"].training.protocol == "dd 1, 1 epochs"


def test_what_cannot_be_measured_is_refused_before_anything_is_trained(held: DistilledSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.evaluation.trials.train", never)
    options = EvaluationOptions(further=("continual",), trust=True)
    with pytest.raises(
        UsageError, match="^further: 'continual' is not possible with a network that is not made for 2 classes, too: "
    ):
        evaluate(held, settings(), networks=[LeNet(10)], options=options)
    with pytest.raises(UsageError, match="^further: 'beauty' is not one of ranking, robustness, "):
        EvaluationOptions(further=("beauty",))


def test_the_result_is_noted_though_a_further_measurement_fails(
    held: DistilledSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(material: Any) -> None:
        raise Failure("the lights went out")

    path, accuracies = held.save(tmp_path / "set"), {"labels": {}}
    monkeypatch.setitem(measurements.FURTHER, "robustness", lambda material: accuracies)  # type: ignore[index]
    monkeypatch.setitem(measurements.FURTHER, "ranking", fails)  # type: ignore[index]
    with pytest.raises(Failure, match="the lights went out"):
        evaluate(path, settings(), options=EvaluationOptions(further=("robustness", "ranking"), trust=True))
    (noted,) = DistilledSet.load(path).metadata["evaluations"]
    assert noted["accuracy"]["distilled"]["n"] == 2 and noted["further"] == {"robustness": accuracies}


def test_a_name_that_is_given_again_is_one_network(held: DistilledSet) -> None:
    found = evaluate(held, settings(eval__networks="ConvNetD1-w4, MLP-w8,ConvNetD1-w4"), options=TRUSTED)
    assert list(found.sets[0].by_network) == ["ConvNetD1-w4", "MLP-w8"]
    own = evaluate(held, settings(), networks=[LeNet, "LeNet", "LeNet", LeNet(10)], options=TRUSTED)
    assert list(own.sets[0].by_network) == ["LeNet-2", "LeNet", "LeNet-3"]


def test_each_network_shares_the_level(held: DistilledSet) -> None:
    looks = EvaluationOptions(looks=Looks(least=2, most=2, level=0.9), trust=True, keep=False)
    found = evaluate(held, settings(eval__networks="ConvNetD1-w4,MLP-w8"), options=looks)
    assert [(row.a, row.b, row.network, row.n) for row in found.comparisons] == [
        ("set 1", "random images", name, 2) for name in ("ConvNetD1-w4", "MLP-w8")
    ]
    assert all(row.verdict is not None for row in found.comparisons)
    assert found.to_dict()["comparisons"][1]["verdict"] == found.comparisons[1].verdict


@pytest.mark.parametrize(
    ("changes", "networks", "message"),
    [
        ({"eval__networks": "MLP-w8,ConvNet"}, (), "eval.networks: 'ConvNet' is not a name such as"),
        ({"eval__networks": "MLP-w8,ConvNetD5"}, (), "eval.networks: 'ConvNetD5' halves the image 5 times"),
        ({"eval__teacher": "ConvNet"}, (), "eval.teacher: 'ConvNet' is not a name such as"),
        ({"eval__teacher": "ConvNetD5", "eval__protocol": "kd"}, (), "eval.teacher: 'ConvNetD5' halves the image 5 times"),
        ({}, ("ConvNet",), "networks: 'ConvNet' is not a name such as"),
        ({}, ("ConvNetD5",), "networks: 'ConvNetD5' halves the image 5 times"),
        ({"network": "ConvNetD5"}, (), "network: 'ConvNetD5' halves the image 5 times"),
    ],
)
def test_what_is_no_network_is_said_by_its_key(
    held: DistilledSet, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], networks: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr("limbeck.evaluation.trials.train", never)
    with pytest.raises(UsageError) as raised:
        evaluate(held, settings(**changes), networks=networks, options=TRUSTED)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval__networks": "MLP-w8,ConvNet"}, "eval.networks: 'ConvNet' is not a name such as"),
        ({"eval__networks": "MLP-w8,ConvNetD5"}, "eval.networks: 'ConvNetD5' halves the image 5 times"),
        ({"eval__teacher": "ConvNet"}, "eval.teacher: 'ConvNet' is not a name such as"),
        ({"eval__teacher": "ConvNetD5", "eval__protocol": "kd"}, "eval.teacher: 'ConvNetD5' halves the image 5 times"),
    ],
)
def test_a_run_is_refused_before_its_experts_are_trained(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    workspace = Workspace(settings(method="mtt", **changes), NoProgress())
    with pytest.raises(UsageError) as raised:
        check(workspace)
        check_run(workspace, tmp_path / "run")
    assert str(raised.value).startswith(message)
    check(Workspace(settings(eval__teacher="ConvNetD5"), NoProgress()))  # whom no protocol asks
