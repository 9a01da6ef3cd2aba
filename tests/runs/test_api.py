"""The calls from Python: objects in, typed results out, and nothing left on disk that was not asked for."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import limbeck
from limbeck.evaluation.settings import EvalSettings
from limbeck.runtime.progress import LogProgress

SIZES: dict[str, Any] = {
    "num_experts": 2,
    "train_epochs": 3,
    "syn_steps": 2,
    "expert_epochs": 1,
    "first_max_start_epoch": 1,
    "max_start_epoch": 2,
    "iterations": 4,
    "every": 2,
    "epochs": 2,
    "eval.seeds": 2,
    "full_epochs": 1,
    "random_lr": 0.01,
    "features": "none",
    "compile": "no",
}
FEW = {"epochs": 2, "full_epochs": 1, "seeds": 2, "random_lr": 0.01}


class Small(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(4, 4), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten())
        self.head = nn.Linear(4 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


class Blobs(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images of three colours."""

    def __init__(self, count: int, seed: int) -> None:
        draws = np.random.default_rng(seed)
        self.labels = np.arange(count) % 3
        self.images = draws.integers(0, 128, (count, 16, 16, 3), dtype=np.uint8)
        self.images[np.arange(count), :, :, self.labels] += 127

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.images[index]).permute(2, 0, 1), int(self.labels[index])


TRAIN, TEST = Blobs(36, 0), Blobs(30, 1)
DATA = limbeck.ImageSet.from_arrays(TRAIN.images, TRAIN.labels, TEST.images, TEST.labels)


class First(limbeck.Criterion):
    """Keeps the first half."""

    def keep(self, losses: Tensor, *, layers: Any, generator: torch.Generator) -> Tensor:
        return torch.arange(len(losses)) < len(losses) // 2


def left_map(module: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Looks to the left."""
    maps = torch.zeros(len(x), *x.shape[2:])
    maps[:, :, : x.shape[3] // 2] = 1
    return maps


def run(method: Any = "edf", **changes: Any) -> limbeck.RunResult:
    return limbeck.distill(DATA, method, **{**SIZES, "network": Small, **changes})


def test_objects_go_in_and_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    here, passing = tmp_path / "here", tmp_path / "passing"
    here.mkdir()
    passing.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(passing))  # others use the system's at the same time
    seen: list[limbeck.Snapshot] = []
    used: list[bool] = []
    result = run(
        limbeck.methods.edf(criterion=First(), beta=2.0, cam=left_map),
        network=lambda channels, height, width, classes: Small(classes),
        adjoint=limbeck.Truncated(steps=1),
        schedule=limbeck.Uniform(0, 2),
        distance=limbeck.LayerCosine(),
        augmentation=limbeck.Dsa("crop", crop_ratio=0.1),
        callbacks=[seen.append, lambda one: used.append(any(passing.rglob("run")))],
    )
    assert list(here.iterdir()) == []
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert [path for path in passing.rglob("*") if path.name == "run"] == []
    assert all(used)
    assert [one.iteration for one in seen] == [0, 2, 4]
    assert torch.equal(seen[1].weights[0, 0, 0], torch.tensor([3.0] * 8 + [1.0] * 8))  # β + M on the left, 1 on the right
    assert not torch.equal(seen[0].images, seen[2].images)
    assert result.distilled.images.shape == (3, 3, 16, 16)
    assert 0 <= result.accuracy.distilled.mean <= 1
    assert result.distilled.metadata["settings"]["match"]["criterion"].endswith("First")


def test_an_object_does_what_its_name_does(tmp_path: Path) -> None:
    named = run(criterion="loss", drop_ratio=0.25, schedule="uniform", output=tmp_path / "named")
    given = run(limbeck.methods.edf(criterion=limbeck.LowLossDropout(0.25)), schedule=limbeck.Uniform(0, 2))
    assert torch.equal(named.distilled.images, given.distilled.images)
    assert named.accuracy == given.accuracy
    assert limbeck.DistilledSet.load(tmp_path / "named" / "distilled").ipc == 1


def test_other_doors_to_the_same_images() -> None:
    whole = run("random")
    for data in (limbeck.ImageSet.from_dataset(TRAIN, TEST), (TRAIN.images, TRAIN.labels, TEST.images, TEST.labels)):
        found = limbeck.distill(data, "random", **{**SIZES, "network": Small})
        assert torch.equal(found.distilled.images, whole.distilled.images)


def test_experts_are_given_and_checked(tmp_path: Path) -> None:
    sizes = {"num_experts": 2, "train_epochs": 3, "compile": "no"}
    store = limbeck.train_experts(DATA, Small, **sizes)
    assert store.read(1, 3).shape == (limbeck.flat_network(Small, DATA.shape, 3).num_parameters,)
    result = run(experts=store)
    assert torch.equal(result.distilled.images, run().distilled.images)
    with pytest.raises(limbeck.UsageError, match="^experts: "):
        run(experts=store, network="ConvNetD2-w4")
    with pytest.raises(limbeck.UsageError, match="^experts: "):
        run(experts=store, train_epochs=5)


def test_a_run_goes_on_from_its_folder(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(snapshot: limbeck.Snapshot) -> None:
        if snapshot.iteration == 2:
            raise Stop

    with pytest.raises(Stop):
        run(output=tmp_path / "run", checkpoint_every=1, callbacks=[stop])
    with pytest.raises(limbeck.UsageError, match="^output: .* is not empty"):
        run(output=tmp_path / "run", checkpoint_every=1)
    went_on = run(output=tmp_path / "run", checkpoint_every=1, resume=True)
    assert torch.equal(went_on.distilled.images, run(checkpoint_every=1).distilled.images)


def test_evaluation_takes_sets_runs_and_networks(tmp_path: Path) -> None:
    result = run("random")
    path = result.distilled.save(tmp_path / "tiny")
    found = limbeck.evaluate(result.distilled, DATA, networks=["ConvNetD2-w4", Small], **FEW)
    assert found.accuracy.distilled.n == 2
    text = str(found.table())
    assert "ConvNetD2-w4" in text and "Small" in text
    several = limbeck.evaluate([result, path], DATA, networks=[Small], **FEW)
    assert several.sets[0].accuracy == several.sets[1].accuracy  # the same set, in memory and on disk
    assert len(several.comparisons) == 1
    assert limbeck.DistilledSet.load(path).metadata.get("evaluations", []) == []  # Python changes nothing it was not asked to


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("dd", 2, 7)),
        ({"protocol": "dd-hard"}, ("dd-hard", None, None)),  # what was changed about one protocol is no change of another
        ({"eval.protocol": "none", "epochs": 4}, ("none", 4, None)),
        ({"eval": {"protocol": "kd"}}, ("kd", None, None)),
        ({"eval": {"epochs": 5}}, ("dd", 5, 7)),
        ({"eval": EvalSettings(seeds=3)}, ("dd", None, None)),  # all of it
    ],
)
def test_a_protocol_that_is_given_is_taken_as_it_is(
    given: dict[str, Any], expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    monkeypatch.setattr("limbeck.runs.api.evaluate_sets", lambda sets, made, **_: found.append(made.eval))
    limbeck.evaluate(run("random", **{"eval.batch_size": 7}).distilled, DATA, networks=[Small], **given)
    assert [(one.protocol, one.epochs, one.batch_size) for one in found] == [expected]


def test_groups_of_keys_are_no_second_word(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("limbeck.runs.api.find_settings", lambda settings, **_: made.append(settings))
    monkeypatch.setattr("limbeck.runs.api.running.train_experts", lambda settings, **_: made.append(settings))
    limbeck.tune(DATA, "mtt", schedule={"max_start_epoch": 3}, match={"expert_epochs": 2})
    assert (made[0].schedule.max_start_epoch, made[0].match.expert_epochs) == (3, 2)
    limbeck.train_experts(DATA, Small, experts={"train_epochs": 3, "num_experts": 1})
    assert (made[1].experts.train_epochs, made[1].schedule.max_start_epoch) == (3, 3)
    limbeck.tune(DATA, limbeck.methods.mtt(syn_steps=9), match={"syn_steps": 8})  # what is given goes before the method's own
    assert made[2].match.syn_steps == 8


def test_a_start_is_a_set() -> None:
    first = run("random").distilled
    seen: list[limbeck.Snapshot] = []
    run("mtt", init=first, callbacks=[seen.append])
    assert torch.equal(seen[0].images, first.images)
    with pytest.raises(limbeck.UsageError, match="^ipc: 2 is not 1"):
        run("mtt", init=first, ipc=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_ratio": 1.5}, r"^match.drop_ratio: 1.5 is not in \[0, 1\)"),
        ({"dropratio": 0.5}, "^dropratio: is not a key"),
        ({"method": "mttt"}, "^method: 'mttt' is not one of edf, "),
        ({"network": lambda classes: nn.Linear(3, classes)}, "^network: "),
        ({"criterion": limbeck.Dsa()}, "^match.criterion: 'Dsa' is not a Criterion"),
        ({"adjoint": "exactly"}, "^engine.kind: 'exactly' is not "),
        ({"iterations": 2.5}, "^outer.iterations: 2.5 is not a whole number"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_before_anything_is_done(changes: dict[str, Any], message: str, cache: Path) -> None:
    with pytest.raises(limbeck.UsageError, match=message) as raised:
        run(**changes)
    assert "\n" not in str(raised.value)
    assert not any(path.is_file() for path in cache.rglob("*"))


def test_progress_goes_through_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="limbeck"):
        run("mtt", init="noise")
    stages = {record.getMessage().partition(":")[0] for record in caplog.records}
    assert {"distil", "initial images"} <= stages  # experts may be those of a test before
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="limbeck"):
        LogProgress().say("note: nothing of note")
        LogProgress().say("warning: look out")
    assert [record.getMessage() for record in caplog.records] == ["look out"]
