"""Settings that are read from experts and start images."""

import math
import shlex
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import limbeck
from limbeck.cli.main import main
from limbeck.experts.store import TrajectoryStore
from limbeck.recipes import load_recipe
from limbeck.runs import tuning
from limbeck.runs.api import settings_of
from limbeck.runs.tuning import Tuned, epochs_ahead, start_epochs, tune
from limbeck.runtime.errors import Failure, UsageError

TINY: dict[str, Any] = {"size": 16, "per_class": 12, "num_experts": 2, "train_epochs": 4, "network": "ConvNetD2-w4"}
FIT = {"expert_epochs": 1, "first_max_start_epoch": 1, "max_start_epoch": 1}


class Written(TrajectoryStore):
    """Experts whose epochs are written down, of a network that is to be distilled for."""

    def __init__(self, paths: Tensor) -> None:
        self.paths = paths

    def read(self, expert: int, epoch: int, device: torch.device | None = None) -> Tensor:
        return self.paths[expert, epoch].to(device or "cpu")


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "DRAWS", 4)
        yield


@pytest.fixture
def settings() -> Any:
    return settings_of("scenes:easy", "mtt", {**TINY, **FIT})


def written(monkeypatch: pytest.MonkeyPatch, moves: Tensor) -> Written:
    """The store that `tune` finds: from the same θ*_0 on by these moves, (experts, L, P)."""
    start = torch.linspace(-0.1, 0.1, moves.shape[-1])
    store = Written(torch.cat([torch.zeros(len(moves), 1, moves.shape[-1]), moves.cumsum(1)], 1) + start)
    monkeypatch.setattr(tuning, "train_experts", lambda *_: store)
    return store


def test_targets_lie_as_far_ahead_as_experts_keep_their_direction() -> None:
    """M − 1 is the number of epochs after which a correlation c^k has halved."""
    for number in range(1, 5):
        assert epochs_ahead(0.5 ** (1 / number), 10) == 1 + number
    assert [epochs_ahead(one, 10) for one in (-1.0, 0.0, 1.0)] == [1, 1, 5]
    assert epochs_ahead(1.0, 3) == 2  # there are no more


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=60), st.floats(-1, 1))
def test_what_is_chosen_can_be_read(displacement: list[float], coherence: float) -> None:
    ahead = epochs_ahead(coherence, len(displacement))
    first, last = start_epochs(displacement, ahead)
    assert 1 <= first <= last and last - 1 + ahead <= len(displacement)
    assert last == 1 or displacement[last - 1] >= 0 and last <= math.ceil(len(displacement) / 2)


def test_experts_that_hardly_move_any_more_are_left_out() -> None:
    assert start_epochs([1.0, 0.9, 0.8, 0.4, 0.4, 0.3, 0.2, 0.1], 1) == (1, 3)
    assert start_epochs([9.0, *[1.0] * 11], 1) == (2, 6)
    assert start_epochs([1.0] * 12, 2) == (2, 6)


def test_displacement_and_coherence_have_closed_forms(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moves of lengths 4, 3, 2, 1 that turn by 60 degrees each: c = ½, so M = 2."""
    size = settings_network(settings).num_parameters
    angles = torch.arange(4) * math.pi / 3
    plane = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([4.0, 3.0, 2.0, 1.0])[:, None]
    moves = torch.zeros(2, 4, size)
    moves[:, :, :2] = plane
    written(monkeypatch, moves)
    monkeypatch.setattr(tuning._Students, "step_size", lambda self: 0.01)
    monkeypatch.setattr(tuning._Students, "gradients", lambda self, eta: [0.5, 0.5])
    monkeypatch.setattr("limbeck.runs.workspace.Workspace.initial", lambda self: Start())
    found = tune(settings)
    assert found.displacement == pytest.approx((4, 3, 2, 1), rel=1e-5)
    assert found.coherence == pytest.approx(0.5, abs=1e-4)
    assert (found.keys["match.expert_epochs"], found.keys["match.syn_steps"]) == (2, 20)
    assert found.keys["outer.lr_img"] == pytest.approx(0.35 * float(Start.images.std()) / 0.5, rel=0.05)
    assert "schedule.first_max_start_epoch" not in found.keys and found.keys["schedule.max_start_epoch"] == 2  # it is uniform
    with_a_first = tune(replace(settings, schedule=replace(settings.schedule, kind="sequential"), laid=settings.method))
    assert with_a_first.keys == {**found.keys, "schedule.first_max_start_epoch": 1}


class Start:
    images = torch.linspace(-2, 2, 10 * 3 * 16 * 16).reshape(10, 3, 16, 16)
    stored = images
    labels = torch.eye(10)


def settings_network(settings: Any) -> Any:
    from limbeck.runs.workspace import Workspace
    from limbeck.runtime.progress import NoProgress

    return Workspace(settings, NoProgress()).network


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, tuning._Students]:
    """Of tiny experts, and the students that it looked at."""
    made, kept = settings_of("scenes:easy", "mtt", {**TINY, **FIT}), []
    real = tuning._Students.step_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(tuning._Students, "step_size", lambda self: kept.append(self) or real(self))  # type: ignore[func-returns-value]
        return tune(made), kept[0]


def test_students_walk_half_of_the_way(found: tuple[Tuned, tuning._Students]) -> None:
    """η was interpolated between two that were looked at and has two digits."""
    tuned, students = found
    assert students._way(tuned.keys["outer.syn_lr_init"]) == pytest.approx(0.5, rel=0.1)


def test_a_gradient_twice_as_large_has_half_the_step_size(
    found: tuple[Tuned, tuning._Students], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the slow way: L differentiated through all steps."""
    tuned, students = found
    eta, sizes = tuned.keys["outer.syn_lr_init"], dict[int, list[float]]()
    network, loss = students.workspace.network, students._step.loss
    for epoch, start, target, draws in students._drawn():
        x = students.images.clone().requires_grad_()
        theta = start
        for draw in draws:
            theta = theta.detach().requires_grad_() if theta is start else theta
            value = loss(network(theta, draw.augmentation(x[draw.index])), students.labels[draw.index])
            theta = theta - eta * torch.autograd.grad(value, theta, create_graph=True)[0]
        end = (theta - target).square().sum() / (start - target).square().sum()
        sizes.setdefault(epoch, []).append(float(torch.autograd.grad(end, x)[0].square().mean().sqrt()))
    assert tuned.gradients == pytest.approx([statistics.median(of_epoch) for of_epoch in sizes.values()], rel=1e-3)
    middle = statistics.median(tuned.gradients)
    assert tuned.keys["outer.lr_img"] == pytest.approx(0.35 * float(students.images.std()) / middle, rel=0.05)


def test_what_is_found_is_taken_by_a_distillation(found: tuple[Tuned, tuning._Students]) -> None:
    quick = {"epochs": 1, "full_epochs": 1, "random_lr": 0.01, "iterations": 1, "seeds": 2, "features": "none"}
    run = limbeck.distill("scenes:easy", "mtt", **TINY, **quick, **{**found[0].keys, "match.syn_steps": 2})
    assert len(run.distilled) == 10
    assert Tuned.from_dict(found[0].to_dict()) == found[0]


def test_the_command_shows_reasons_and_writes_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: tuple[Tuned, tuning._Students]
) -> None:
    monkeypatch.setattr(tuning, "tune", lambda settings, progress: found[0])
    assert main(["tune", "scenes", "ipc=2", "outer.lr_img=3", "--data", "my photos/photos.npz", "--trust"]) == 0
    shown = capsys.readouterr().out
    (command,) = (line for line in shown.splitlines() if line.startswith("distil with: "))  # one line, which a shell takes
    words = shlex.split(command.removeprefix("distil with: "))
    assert words[:3] == ["limbeck", "distill", "scenes"] and words[-1] == "--trust"
    assert set(words[3:-1]) == {"ipc=2", "data.source=my photos/photos.npz", *found[0].words.split()}
    assert all(" ".join(one.reason.split()[:3]) in shown for one in found[0].choices)
    path = tmp_path / "mine.yaml"
    assert main(["tune", "scenes", "ipc=2", "--output", str(path)]) == 0
    made = load_recipe(str(path))
    assert made.ipc == 2 and made.outer.lr_img == pytest.approx(found[0].keys["outer.lr_img"], rel=1e-5)
    assert main(["tune", "scenes", "--output", str(path)]) == 2
    assert "is not a new file that ends in .yaml" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [(), ("network=mynets:make",), ("track=mysinks:Sink,tensorboard", "--trust")])
def test_the_command_trusts_the_code_that_the_recipe_it_wrote_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: tuple[Tuned, tuning._Students],
    typed: tuple[str, ...],
) -> None:
    monkeypatch.setattr(tuning, "tune", lambda settings, progress: found[0])
    path = tmp_path / "mine.yaml"
    assert main(["tune", "scenes", *typed, "--output", str(path)]) == 0
    (command,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("distil with: "))
    words = shlex.split(command.removeprefix("distil with: "))
    assert words == ["limbeck", "distill", str(path), *["--trust"] * bool(typed)]
    assert load_recipe(words[2], trust="--trust" in words).outer.lr_img == pytest.approx(found[0].keys["outer.lr_img"], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scenes", "method=dm"], "method: 'dm' is not one that matches trajectories, such as edf, datm, mtt or tesla"),
        (["scenes", "method=random"], "method: 'random' is not one that matches trajectories, such as edf, datm, mtt or tesla"),
        (
            ["scenes", "experts.train_epochs=2", "schedule.max_start_epoch=1", "match.expert_epochs=1"],
            "experts.train_epochs: 2 is not at least 3 for tuning",
        ),
        (["scenes", "--output", "no/such/mine.yaml"], "a new file that ends in .yaml, in a folder that is there"),
    ],
)
def test_what_cannot_be_tuned_is_said(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["tune", *words]) == 2
    assert said in capsys.readouterr().err


def test_start_epochs_that_no_step_size_fits_are_left_out() -> None:
    assert [tuning.first_to_start_from(one) for one in ([1.0], [9.9, 1.0, 1.0], [10.0, 1.0, 1.0], [50.0, 1.0, 30.0, 1.0, 1.0])] == [
        0,
        0,
        1,
        3,
    ]
    assert tuning.first_to_start_from([math.inf, 1.0, 1.0]) == 1


def test_step_sizes_that_make_students_chaotic_are_halved(
    found: tuple[Tuned, tuning._Students], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient that grows by (1 + 100 η)² from one step to the next: from T / 2 to T by (1 + 100 η)^T."""
    students = found[1]
    monkeypatch.setattr(tuning._Students, "step_size", lambda self: 0.0312)
    monkeypatch.setattr(tuning._Students, "gradients", lambda self, eta: [1e-6 * (1 + 100 * eta) ** (2 * self.steps)] * 2)
    eta, _, said = students.stable()
    assert (1 + 100 * eta) ** students.steps <= 8 < (1 + 200 * eta) ** students.steps
    assert "with 0.031 gradients grow without bounds" in said


def test_experts_that_stand_still_are_a_failure(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written(monkeypatch, torch.zeros(2, 4, settings_network(settings).num_parameters))
    with pytest.raises(Failure, match="experts.expert_lr is too small"):
        tune(settings)


def test_a_method_is_refused_in_python_too() -> None:
    with pytest.raises(UsageError, match="method: 'dc' is not one that matches trajectories"):
        limbeck.tune("scenes:easy", "dc", **TINY)


def test_students_whose_gradients_overflow_take_smaller_steps(
    found: tuple[Tuned, tuning._Students], monkeypatch: pytest.MonkeyPatch
) -> None:
    students = found[1]
    monkeypatch.setattr(tuning._Students, "step_size", lambda self: 0.1)
    monkeypatch.setattr(tuning._Students, "gradients", lambda self, eta: [math.inf if eta > 0.06 else 1e-4] * 2)
    assert students.stable()[0] == 0.05
    monkeypatch.setattr(tuning._Students, "gradients", lambda self, eta: [math.inf, math.inf])
    with pytest.raises(Failure, match="grows without bounds with every step size"):
        students.stable()


def test_adamw_is_refused() -> None:
    made = load_recipe("scenes", {"outer.img_optimiser": "adamw"})
    with pytest.raises(UsageError, match="outer.img_optimiser: 'adamw' is not sgd for tuning"):
        tune(made)


def test_what_was_found_may_be_given_again() -> None:
    found = limbeck.tune("scenes:easy", "mtt", **TINY)
    again = limbeck.tune("scenes:easy", "mtt", **TINY, **found.keys)
    assert again.keys.keys() == found.keys.keys()


def test_experts_of_other_images_or_networks_are_refused() -> None:
    other = limbeck.train_experts("scenes:medium", **TINY)
    with pytest.raises(UsageError, match="^experts: .* is not a store of data"):
        limbeck.tune("scenes:easy", "mtt", **TINY, experts=other)
    with pytest.raises(UsageError, match="^experts: .* is not a store of network"):
        limbeck.tune("scenes:easy", "mtt", **{**TINY, "network": "ConvNetD2-w8"}, experts=other)
