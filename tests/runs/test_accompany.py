"""A run over ranks from Python: all call `limbeck.distill` alike, and all get what rank 0 has found."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from methods.own import METHOD, make
from together import Team

import limbeck
from limbeck.distilled.initial import Initial, Initialisation, Noise
from limbeck.distilled.small_set import Kind, SmallSet
from limbeck.methods.materials import Materials
from limbeck.methods.method import Method
from limbeck.methods.objective import Engine, Objective
from limbeck.runs.accompany import Common
from limbeck.runs.decided import Resolved
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.progress import NoProgress
from limbeck.runtime.ranks import Ranks

SMALL = {"size": 16, "per_class": 12, "epochs": 1, "full_epochs": 1, "random_lr": 0.01, "seeds": 2, "features": "none"}
WALKS = {"num_experts": 1, "train_epochs": 2, "max_start_epoch": 1, "first_max_start_epoch": 1, "syn_steps": 2, "expert_epochs": 1}


def distilled(cache: str, method: Method | str, output: str | None, **settings: Any) -> tuple[Any, torch.Tensor]:
    os.environ["LIMBECK_CACHE"] = cache
    seen: list[int] = []
    given = {**SMALL, **(WALKS if method == "mtt" else {}), **settings, "callbacks": [lambda one: seen.append(one.iteration)]}
    run = limbeck.distill("scenes:easy", method, network="ConvNetD2-w4", output=output, **given)
    assert Ranks.here().first or seen == []
    return run.accuracy.to_dict(), run.distilled.images


def distilled_with(cache: str, method: str, output: str | None, settings: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    return distilled(cache, method, output, **settings)


@pytest.mark.parametrize("kept", [True, False])
def test_all_ranks_get_the_result(two: Team, tmp_path: Path, kept: bool) -> None:
    output = str(tmp_path / "run") if kept else None
    own, other = two(distilled_with, str(tmp_path / "cache"), "mtt", output, {"iterations": 2})
    assert own[0] == other[0] and torch.equal(own[1], other[1])
    if kept:  # what has ended is read again
        again = two(distilled_with, str(tmp_path / "cache"), "mtt", output, {"iterations": 2, "resume": True})
        assert again[0][0] == again[1][0] == own[0]


def test_what_needs_no_loop_rank_0_makes(two: Team, tmp_path: Path) -> None:
    own, other = two(distilled_with, str(tmp_path / "cache"), "random", None, {})
    assert own[0] == other[0]


def test_what_all_do_together_each_does_with_as_many_threads() -> None:
    """Also in a run without a loop."""
    settings = limbeck.DistillSettings.of(method="random")
    workspace, before = Workspace(settings, NoProgress()), torch.get_num_threads()
    common = Common(lambda workspace: torch.get_num_threads(), (), workspace.protocol_named, Resolved("cpu", before + 1))
    try:
        assert common(workspace) == before + 1
    finally:
        torch.set_num_threads(before)


def refused(cache: str, settings: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        distilled(cache, "dm", None, **settings)
    return str(caught.value)


def test_what_rank_0_refuses_all_refuse(two: Team, tmp_path: Path) -> None:
    said = two(refused, str(tmp_path / "cache"), {"shard": "yes", "parametrisation": "multi"})
    why = "the images are decoded from what parametrisation.kind='multi' stores"
    assert said == [f"engine.shard: 'yes' is not auto or no: {why}"] * 2


class Backwards(Initialisation):
    """One of the user's, with the last class first."""

    def __call__(self, initial: Initial, kind: Kind) -> SmallSet:
        made = Noise()(initial, kind)
        return SmallSet(made.images, made.labels.flip(0), made.classes.flip(0), made.syn_lr, made.kind)


class Kept(NoProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def backwards(cache: str, method: str) -> tuple[torch.Tensor, list[str]]:
    """X, where it counts as large enough for shards, and what was said of these."""
    progress = Kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limbeck.runs.workspace.SHARDED_FROM", 0)
        _, images = distilled(cache, method, None, init=Backwards(), iterations=2, ipc=2, progress=progress)
    return images, [line for line in progress.said if "engine.shard" in line]


OUT_OF_ORDER = "the start does not give 2 images of every class, class by class"


@pytest.mark.parametrize("method", ["dm", "mtt"])
def test_a_start_whose_classes_are_in_another_order(two: Team, tmp_path: Path, method: str) -> None:
    """What is shared by classes every process then holds whole."""
    (wanted, nothing), (first, said), (second, silent) = (
        backwards(str(tmp_path / "cache"), method),
        *two(backwards, str(tmp_path / "cache"), method),
    )
    torch.testing.assert_close(first, wanted, rtol=0, atol=1e-4)
    assert torch.equal(first, second) and nothing == silent == []
    assert said == ([f"note: engine.shard: each process holds all of X: {OUT_OF_ORDER}"] if method == "dm" else [])


def test_a_start_that_cannot_be_sharded_is_refused_where_it_is_to_be(two: Team, tmp_path: Path) -> None:
    said = two(refused, str(tmp_path / "cache"), {"shard": "yes", "init": Backwards(), "ipc": 2})
    assert said == [f"engine.shard: 'yes' is not auto or no: {OUT_OF_ORDER}"] * 2


def made_by_rank_0_alone(materials: Materials, classes: torch.Tensor, engine: Engine | None) -> Objective:
    require(Ranks.here().first, "data", "the images", "on this machine")
    return make(materials, classes, engine)


def alone(cache: str) -> str:
    """What this rank, which lives on, ends with where one of them cannot begin."""
    with pytest.raises(Failure if Ranks.here().first else UsageError) as caught:
        distilled(cache, replace(METHOD, make=made_by_rank_0_alone), None, iterations=1)
    return str(caught.value)


def test_a_rank_that_raises_and_lives_on_does_not_leave_the_others_waiting(two: Team, tmp_path: Path) -> None:
    for _ in range(2):  # and all may begin anew
        first, second = two(alone, str(tmp_path / "cache"))
        assert "one of the 2 ranks has ended or cannot be reached" in first and "'the images' is not on this machine" in second
