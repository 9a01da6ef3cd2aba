"""What the outer loop writes down and shows of every iteration, against the closed form of a bowl."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.accuracy import Accuracy, percent
from limbeck.distilled.initial import LEAST_SYN_LR
from limbeck.matching.adjoint import Gradients
from limbeck.methods.objective import Objective, State, Update
from limbeck.methods.outer import OuterLoop
from limbeck.methods.settings import OuterSettings
from limbeck.methods.snapshots import Snapshot, thinned
from limbeck.runtime.errors import Failure
from limbeck.runtime.files import read_tensors
from limbeck.runtime.progress import Progress, Stage

X, LABELS = (
    torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) for shape in ((4, 3, 5, 6), (4, 3))
)


class Bowl(Objective):
    """L = ½‖X‖² + ½‖Y‖² + ½(η − 1)², with a plain gradient that is turned by 90° in half of the pixels; infinite at `lost`."""

    has_criterion = True

    def __init__(self, lost: tuple[int, ...] = (), by_eta: float | None = None) -> None:
        self.lost, self.by_eta, self.seen = lost, by_eta, list[tuple[int, bool]]()

    def init(self) -> State:
        return {}

    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        self.seen.append((iteration, plain))
        loss = 0.5 * (images.square().sum() + labels.square().sum() + (syn_lr - 1).square())
        loss = loss * math.inf if iteration in self.lost else loss
        by_eta = syn_lr - 1 if self.by_eta is None else torch.full_like(syn_lr, self.by_eta)
        facts: dict[str, float | Tensor] = {"expert": 7, "length": images.norm()}
        return Update(
            Gradients(loss, images.clone(), labels.clone(), by_eta), 2 * images if plain else None, {}, facts, {"a": loss}
        )


class Steady:
    """Weights of two, every fourth iteration."""

    every, active = 4, True

    def weights(self, images: Tensor, iteration: int) -> Tensor:
        return torch.full_like(images[:, :1], 2.0)

    def maps(self, images: Tensor, iteration: int) -> Tensor:
        return images[:, 0] + iteration


class Told(Progress, Stage):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stages, self.facts, self.said = list[tuple[str, int, int]](), list[dict[str, Any]](), list[str]()

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        self.stages.append((name, total, done))
        yield self

    def advance(self, steps: int = 1, **facts: Any) -> None:
        self.facts.append({"steps": steps, **facts})

    def say(self, message: str) -> None:
        self.said.append(message)


def loop(folder: Path, objective: Objective, **changes: Any) -> OuterLoop:
    keys: dict[str, Any] = {
        "iterations": 3,
        "lr_img": 0.25,
        "lr_label": 0.5,
        "lr_lr": 0.125,
        "checkpoint_every": 2,
        "max_match_loss": 1e9,
    }
    keys |= {"img_momentum": 0.0, "label_momentum": 0.0, "lr_momentum": 0.0}
    others = {name: changes.pop(name) for name in ("progress", "callbacks", "evaluate") if name in changes}
    every = changes.pop("every", 2)
    others = {"evaluate": lambda x, y, eta: Accuracy(mean=0.5, std=0.1), **others}
    settings = OuterSettings(**{**keys, **changes})
    return OuterLoop(
        objective,
        Steady(),
        settings,
        every=every,
        match_norm=False,
        folder=folder,
        **others,  # type: ignore[arg-type]
    )


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] == kind]


def test_every_iteration_is_written_down_as_it_was(tmp_path: Path) -> None:
    """X halves, as F is two and the step a quarter; Y halves; η − 1 loses an eighth; the second iteration is lost."""
    told = Told()
    loop(tmp_path, Bowl(lost=(1,)), progress=told).run(X, LABELS, 0.5)
    evaluated, told.facts = [one for one in told.facts if not one["steps"]], [one for one in told.facts if one["steps"]]
    for iteration, (row, half, gap) in enumerate(
        zip(rows(tmp_path, "iteration"), (1, 0.5, 0.5), (0.5, 0.4375, 0.4375), strict=True)
    ):
        loss = 0.5 * (half**2 * (X.square().sum() + LABELS.square().sum()).item() + gap**2)
        changed = iteration != 1
        assert row["iteration"] == iteration and row["skipped"] == (not changed)
        assert row["loss"] == (pytest.approx(loss) if changed else None)
        assert row["grad_norm_images"] == pytest.approx(2 * half * X.norm().item())
        assert row["grad_norm_labels"] == pytest.approx(half * LABELS.norm().item())
        assert row["grad_lr"] == pytest.approx(-gap)
        assert row["syn_lr"] == pytest.approx(1 - gap * (0.875 if changed else 1))
        assert row["skipped_share"] == pytest.approx((0, 1 / 2, 1 / 3)[iteration])
        assert row["expert"] == 7 and row["length"] == pytest.approx(half * X.norm().item())
        assert 0 <= row["seconds"] < 60
        assert told.facts[iteration] == {"steps": 1, "loss": row["loss"] if changed else math.inf, "skipped": int(iteration > 0)}
    accuracies = [row["accuracy"] for row in rows(tmp_path, "evaluation")]
    assert [one["accuracy"] for one in evaluated] == [percent(found["mean"]) for found in accuracies if found]
    assert told.stages == [("distil", 3, 0)]
    assert told.said == ["warning: iteration 1 changed nothing: the loss was not finite"]


def test_a_cause_is_said_once(tmp_path: Path) -> None:
    told = Told()
    loop(tmp_path, Bowl(lost=(1, 3, 5)), progress=told, iterations=7, max_match_loss=1e-9).run(X * 1e-9, LABELS * 0, 1.0)
    assert told.said == ["warning: iteration 1 changed nothing: the loss was not finite"]


def test_an_evaluation_sees_what_is_written(tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    evaluated: list[tuple[Tensor, Tensor, float]] = []

    def evaluate(x: Tensor, y: Tensor, eta: float) -> Accuracy:
        evaluated.append((x.clone(), y.clone(), eta))
        return Accuracy(mean=(0.3, 0.2, 0.4)[len(evaluated) - 1], std=0.0)

    one = loop(tmp_path, Bowl(lost=(1,)), evaluate=evaluate, callbacks=[seen.append])
    one.run(X, LABELS, 0.5)
    assert [found.iteration for found in seen] == [0, 2, 3]
    assert [(found.accuracy, found.best, found.skipped) for found in seen] == [(0.3, True, 0), (0.2, False, 1), (0.4, True, 1)]
    assert seen[0].loss is None and seen[1].loss is None  # none before the first, and that of a lost one was infinite
    quarter, gap = 0.25 * (X.square().sum() + LABELS.square().sum()).item(), 0.4375
    assert seen[2].loss == pytest.approx(0.5 * (quarter + gap**2))
    for found, half, eta, (x, y, given) in zip(seen, (1, 0.5, 0.25), (0.5, 0.5625, 1 - 0.4375 * 0.875), evaluated, strict=True):
        for value, expected in ((found.images, half * X), (found.labels, half * LABELS), (x, half * X), (y, half * LABELS)):
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
        assert found.syn_lr == pytest.approx(eta) and given == found.syn_lr
        assert torch.equal(found.maps, found.images[:, 0] + found.iteration)
        weights = torch.full_like(X[:, :1], 1.0 if found.iteration == 0 else 2.0)
        assert torch.equal(found.weights, weights)
        tensors, header = read_tensors(one.files.snapshots.path(found.iteration))
        held = {"X": found.images, "Y": found.labels, "maps": found.maps, "weights": found.weights}
        assert all(torch.equal(tensors[name], value) for name, value in held.items())
        assert tensors["syn_lr"].item() == found.syn_lr
        assert (header["iteration"], header["accuracy"]["mean"], header["loss"]) == (found.iteration, found.accuracy, found.loss)
    written = rows(tmp_path, "evaluation")
    assert [(row["iteration"], row["accuracy"]["mean"], row["best"]) for row in written] == [
        (0, 0.3, True),
        (2, 0.2, False),
        (3, 0.4, True),
    ]


def test_comparisons_ask_for_the_plain_gradient_every_fifty_iterations(tmp_path: Path) -> None:
    objective = Bowl()
    loop(tmp_path, objective, iterations=52, every=100, lr_img=0.0, lr_label=0.0, lr_lr=0.0).run(X, LABELS, 0.5)
    assert [iteration for iteration, plain in objective.seen if plain] == [0, 50]
    assert [row["iteration"] for row in rows(tmp_path, "comparison")] == [0, 50]
    assert all(row["norm_ratio"] == pytest.approx(1.0) for row in rows(tmp_path, "comparison"))


@pytest.mark.parametrize(("lr_lr", "eta", "fails"), [(0.125, 0.5, True), (0.0, LEAST_SYN_LR, False), (0.125, LEAST_SYN_LR, False)])
def test_a_step_size_at_its_floor_is_no_progress_where_it_fell_there(tmp_path: Path, lr_lr: float, eta: float, fails: bool) -> None:
    """One that is not learned stays where it was put, and one that began there may stay."""
    one = loop(tmp_path, Bowl(by_eta=1e4), iterations=25, lr_lr=lr_lr, every=100, lr_img=1e-6, lr_label=1e-6)
    if fails:
        with pytest.raises(Failure, match="η was at its floor"):
            loop(tmp_path, Bowl(by_eta=1e4), iterations=200, lr_lr=lr_lr, every=1000, lr_img=1e-6, lr_label=1e-6).run(
                X, LABELS, eta
            )
    else:
        state = one.run(X, LABELS, eta)
        assert state.skipped == 0 and state.health.causes == {} and state.syn_lr.item() == pytest.approx(LEAST_SYN_LR)


@pytest.mark.parametrize(
    ("images", "pixels", "expected"), [(4, 6, None), (5, 6, [0, 1, 2, 3]), (10, 6, [0, 2, 5, 7]), (9, 30, [0]), (1, 30, None)]
)
def test_a_thinned_snapshot_has_images_evenly(
    monkeypatch: pytest.MonkeyPatch, images: int, pixels: int, expected: list[int] | None
) -> None:
    """Four images of six pixels, or one that is larger than all of what may be looked at."""
    monkeypatch.setattr("limbeck.methods.snapshots.LOOKED_AT", 4 * 4 * 6)
    x = torch.arange(images * 1.0)[:, None, None, None].expand(-1, 1, 2, pixels // 2)
    tensors = {"X": x, "Y": x[:, :, 0, 0] + 1, "maps": x[:, 0] + 2, "weights": x, "syn_lr": torch.tensor(0.5)}
    found, header = thinned(tensors, {"loss": 1.0})
    if expected is None:
        assert found is tensors and header == {"loss": 1.0}
        return
    assert header == {"loss": 1.0, "positions": expected}
    assert found.keys() == {"X", "Y", "maps", "weights", "syn_lr"}
    for name, more in (("X", 0), ("Y", 1), ("maps", 2), ("weights", 0)):
        assert found[name].flatten(1)[:, 0].tolist() == [position + more for position in expected]
    assert found["syn_lr"] == 0.5


@pytest.mark.parametrize(("iterations", "lost", "fails"), [(20, 11, True), (20, 10, False), (19, 11, False)])
def test_a_loop_that_lost_more_than_half_of_twenty_or_more_fails_at_its_end(
    tmp_path: Path, iterations: int, lost: int, fails: bool
) -> None:
    some = tuple(range(1, 2 * lost, 2))[: lost - max(0, 2 * lost - iterations)]
    some += tuple(range(0, 2 * (lost - len(some)), 2))
    one = loop(tmp_path, Bowl(lost=some), iterations=iterations, every=100, lr_img=1e-3)
    if fails:
        with pytest.raises(Failure, match=f"{lost} of {iterations} iterations changed nothing"):
            one.run(X, LABELS, 0.5)
    else:
        assert one.run(X, LABELS, 0.5).skipped == lost
