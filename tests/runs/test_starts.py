"""What a run starts from: another set, of which not a bit is lost, or the middles of clusters."""

from pathlib import Path

import pytest
import torch
from distilled.samples import changed
from methods.test_methods import settings
from torch import Tensor, nn

import limbeck.methods.outer as outer
from limbeck.distilled.export import export_research
from limbeck.distilled.selection import centres
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.distances import features_of
from limbeck.recipes import load_recipe
from limbeck.runs.checks import check
from limbeck.runs.distill import distill
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, read_tensors
from limbeck.runtime.progress import NoProgress


def start_of(run: Path) -> dict[str, Tensor]:
    return read_tensors(run / "snapshots" / "iteration-000000.safetensors")[0]


def a_set(method: str) -> DistilledSet:
    """Images in no order of their classes, with logits or hard labels, as the method has them, and a step size of its own."""
    workspace = Workspace(settings("dm"), NoProgress())
    made = workspace.initial()
    draws = torch.Generator().manual_seed(0)
    labels = made.labels if method != "edf" else 5 * torch.eye(10)[made.classes] + torch.randn(10, 10, generator=draws)
    order, kind = torch.randperm(10, generator=draws), "logits" if method == "edf" else "hard"
    images = made.images + 0.1 * torch.randn(made.images.shape, generator=draws)
    return DistilledSet(
        set=SmallSet(images[order], labels[order], made.classes[order], torch.tensor(0.03).item(), kind),
        preprocessing=workspace.preprocessing,
        class_names=workspace.data.class_names,
    )


@pytest.mark.parametrize(("method", "form"), [("edf", "set"), ("mtt", "research"), ("dm", "set")])
def test_another_set_is_taken_up_to_the_bit(tmp_path: Path, method: str, form: str) -> None:
    held = a_set(method)
    path = held.save(tmp_path / "set") if form == "set" else export_research(held, tmp_path / "research")
    results = distill(settings(method, init=str(path), outer__iterations="2"), tmp_path / "run")
    first, order = start_of(tmp_path / "run"), held.classes.argsort()
    assert torch.equal(first["X"], held.images[order])
    assert torch.equal(first["Y"], held.labels[order])
    assert first["syn_lr"].item() == held.syn_lr
    made = DistilledSet.load(tmp_path / "run" / "distilled")
    assert made.classes.tolist() == list(range(10))
    assert len(made.metadata["fingerprints"]["init"]) == 16
    assert results.accuracy.initial.n == 2


def test_a_run_goes_on_where_another_ended_and_so_do_its_labels(tmp_path: Path) -> None:
    distill(settings("edf", outer__iterations="2"), tmp_path / "first")
    ended = DistilledSet.load(tmp_path / "first" / "distilled")
    distill(settings("edf", init=str(tmp_path / "first"), outer__iterations="2"), tmp_path / "second")
    first = start_of(tmp_path / "second")
    assert torch.equal(first["X"], ended.images)
    assert torch.equal(first["Y"], ended.labels)
    assert first["syn_lr"].item() == ended.syn_lr
    # Between hard and soft labels the classes are kept; soft ones are those of the experts.
    distill(settings("mtt", init=str(tmp_path / "first"), outer__iterations="1"), tmp_path / "hard")
    assert torch.equal(start_of(tmp_path / "hard")["Y"], torch.eye(10)[ended.classes])
    distill(settings("edf", init=str(tmp_path / "hard"), outer__iterations="1"), tmp_path / "soft")
    workspace = Workspace(settings("edf"), NoProgress())
    theta = [workspace.experts.read(expert, 3) for expert in range(2)]
    found = DistilledSet.load(tmp_path / "hard" / "distilled").images
    logits = torch.stack([workspace.network.with_parameters(one)(found) for one in theta]).detach()
    votes = (logits.argmax(2) == ended.classes).float()
    votes = torch.where(votes.sum(0) == 0, 1.0, votes).unsqueeze(2)
    torch.testing.assert_close(start_of(tmp_path / "soft")["Y"], (votes * logits).sum(0) / votes.sum(0))


class Stop(Exception):
    pass


@pytest.mark.parametrize(("method", "init"), [("edf", "set"), ("dm", "centre")])
def test_a_stopped_run_ends_with_the_same_bits(tmp_path: Path, method: str, init: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(a_set(method).save(tmp_path / "set")) if init == "set" else init
    asked = settings(method, init=path, outer__iterations="4")
    whole = distill(asked, tmp_path / "whole")
    iterate = outer.OuterLoop._iterate

    def stops(self, state, stage):  # type: ignore[no-untyped-def]
        if state.iteration == 3:
            raise Stop
        iterate(self, state, stage)

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(outer.OuterLoop, "_iterate", stops)
        distill(asked, tmp_path / "stopped")
    results = distill(asked, tmp_path / "stopped", resume=True)
    tensors = (tmp_path / run / "distilled" / "distilled.safetensors" for run in ("whole", "stopped"))
    assert next(tensors).read_bytes() == next(tensors).read_bytes()
    assert results.accuracy == whole.accuracy


def test_a_changed_start_is_not_gone_on_with(tmp_path: Path) -> None:
    held = a_set("dm")
    path = held.save(tmp_path / "set")
    asked = settings("dm", init=str(path), outer__iterations="1")
    results = distill(asked, tmp_path / "run")
    DistilledSet.append_evaluation(path, {"accuracy": {}})  # says nothing about what was taken up
    assert distill(asked, tmp_path / "run", resume=True) == results
    changed(held, images=held.images + 1e-3).save(path)
    with pytest.raises(UsageError, match=r"^init: the set in '.*' has changed since the run in '.*' was started$"):
        distill(asked, tmp_path / "run", resume=True)
    assert read_json(tmp_path / "run" / "results.json") == results.to_dict()
    with pytest.raises(UsageError, match=r"^init: 'real' is not '.*', which the run in"):
        distill(settings("dm", init="real", outer__iterations="1"), tmp_path / "run", resume=True)


@pytest.mark.parametrize(("method", "network"), [("edf", "expert"), ("mtt", "expert"), ("dc", "full data")])
def test_centre_starts_from_the_features_of_a_network_that_is_there(method: str, network: str) -> None:
    workspace = Workspace(settings(method, init="centre"), NoProgress())
    check(workspace)
    train, images = workspace.data.train, workspace.preprocessing.prepare(workspace.data.train.images())
    if network == "expert":
        module = workspace.network.with_parameters(workspace.experts.read(0, 3))
    else:
        assert not workspace.needs_experts
        module = workspace.evaluator().trained()
    chosen = centres(features_of(module, images), torch.from_numpy(train.labels), 1, 0)
    found = workspace.initial()
    assert torch.equal(found.images, images[chosen])
    assert (found.labels.sum(1) == 1).all() == (method != "edf")


def convolutions(channels: int, height: int, width: int, classes: int) -> nn.Module:
    """A network whose last layer is a convolution."""
    return nn.Sequential(nn.Conv2d(channels, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("method", ["random", "herding", "rded", "sre2l"])
def test_methods_that_build_at_once_continue_nothing(method: str) -> None:
    with pytest.raises(UsageError, match=rf"^init: 'a/set' is not one of correct, .*, centre: {method} makes its set at once"):
        settings(method, init="a/set")
    for name in ("correct", "real", "noise", "centre"):  # a recipe of several methods may say one
        assert settings(method, init=name).init == name


def test_what_is_no_start_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for init in ("corect", str(tmp_path)):
        with pytest.raises(UsageError, match="^init: "):
            distill(settings("dm", init=init), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=r"^ipc: 2 is not 1, the number of images of a class in"):
        distill(settings("dm", ipc="2", init=str(a_set("dm").save(tmp_path / "set"))), tmp_path / "run")
    with pytest.raises(UsageError, match=r"^init: ' ' is not one of correct, real, noise, centre, or the path of a distilled set"):
        load_recipe("scenes", {"init": " "})
    with pytest.raises(UsageError, match="^network: .* a network with a method `features` or with a linear layer"):
        distill(settings("dm", network="runs.test_starts:convolutions", init="centre"), tmp_path / "run")
