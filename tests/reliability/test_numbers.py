"""A loop that does not get on: what it skips, where it returns to, what it says, and that it goes on exactly."""

import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.accuracy import Accuracy
from limbeck.matching.adjoint import Gradients
from limbeck.methods.health import FILTERED, IN_A_ROW, LOSS, MOST_LOST, WINDOW, Health
from limbeck.methods.objective import Objective, State, Update
from limbeck.methods.outer import OuterLoop
from limbeck.methods.settings import OuterSettings
from limbeck.methods.state import OuterState
from limbeck.runtime.errors import Failure
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.progress import NoProgress

X, Y = torch.randn(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind(0)
LABELS = Y[:, 0, 0, :3].clone()
Spoil = Callable[[int, Gradients], Gradients]


@dataclass
class Bowl(Objective):
    """L = ½‖X‖² + ½‖Y‖² + ½(η − 1)², whose gradients `spoil` changes; η falls at a rate of `falls` instead."""

    spoil: Spoil = lambda iteration, gradients: gradients
    says: str = ""
    falls: float = 0.0
    seen: list[int] = field(default_factory=list)

    def init(self) -> State:
        return {"calls": torch.zeros(())}

    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        self.seen.append(iteration)
        loss = 0.5 * (images.square().sum() + labels.square().sum() + (syn_lr - 1).square())
        by_eta = torch.full_like(syn_lr, self.falls) if self.falls else syn_lr - 1
        gradients = self.spoil(iteration, Gradients(loss, images.clone(), labels.clone(), by_eta))
        return Update(gradients, images if plain else None, {"calls": state["calls"] + 1})

    def broken(self, state: State, images: Tensor, iteration: int) -> str:
        return self.says


class Plain:
    """No weights."""

    every, active = 1, False

    def weights(self, images: Tensor, iteration: int) -> Tensor:
        return torch.ones_like(images[:, :1])

    def maps(self, images: Tensor, iteration: int) -> Tensor:
        return images.new_zeros(len(images), 5, 6)


class Heard(NoProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def loop(folder: Path, objective: Objective, progress: NoProgress | None = None, **changes: Any) -> OuterLoop:
    settings = {"iterations": 200, "lr_img": 0.05, "lr_label": 0.1, "lr_lr": 0.2, "checkpoint_every": 7, **changes}
    every = settings.pop("every", 10)
    return OuterLoop(
        objective=objective,
        enhancement=Plain(),  # type: ignore[arg-type]
        settings=OuterSettings(**settings),
        evaluate=lambda x, y, eta: Accuracy(mean=1 / (1 + x.abs().max().item())),
        every=every,
        match_norm=False,
        folder=folder,
        progress=progress or NoProgress(),
    )


def infinite(name: str, when: Callable[[int], bool]) -> Spoil:
    """NaN in one of the four at some iterations."""

    def spoil(iteration: int, gradients: Gradients) -> Gradients:
        value = getattr(gradients, name) * (math.nan if when(iteration) else 1.0)
        return replace(gradients, **{name: value})

    return spoil


def rows(folder: Path, kind: str) -> list[Mapping[str, Any]]:
    return [row for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == kind]


def failure(run: Callable[[], object]) -> str:
    with pytest.raises(Failure) as caught:
        run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what wild settings come to ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "blamed"),
    [
        ({"lr_img": 1e9}, "X grew beyond measure .* outer.lr_img \\(1e\\+09\\) is too large"),
        ({"lr_img": 1e38}, "outer.lr_img \\(1e\\+38\\) is too large"),
        ({"lr_label": 1e30}, "Y grew beyond measure .* outer.lr_label \\(1e\\+30\\) is too large"),
        ({"lr_lr": 1e9}, "η grew beyond measure .* outer.lr_lr \\(1e\\+09\\) is too large"),
    ],
)
def test_a_step_size_that_is_too_large_by_far_fails_at_once(tmp_path: Path, changes: dict[str, float], blamed: str) -> None:
    objective, heard = Bowl(), Heard()
    message = failure(lambda: loop(tmp_path, objective, heard, **changes).run(X, LABELS, 0.01))
    assert objective.seen == [0, 1, 2, 3]
    assert pytest.approx(1) == len([line for line in heard.said if "with 0.25 of" in line])
    assert re.search(blamed, message), message
    assert "3 returns with smaller steps did not help" in message


def test_a_step_size_that_is_a_little_too_large_becomes_small_enough(tmp_path: Path) -> None:
    # Without momentum X ← (1 − 3) X doubles X in every iteration; a quarter of the step leaves (1 − 0.75) X.
    heard = Heard()
    state = loop(tmp_path, Bowl(), heard, lr_img=3.0, img_momentum=0.0, every=4, iterations=20).run(X, LABELS, 0.01)
    (back,) = rows(tmp_path, "return")
    # 2⁷ is the first power above 100: the seventh iteration is undone, and the last evaluation was after four.
    assert (back["iteration"], back["to"], back["step"]) == (6, 4, 0.25)
    expected = X * (1.0 - 3.0) ** 4 * 0.25 ** (20 - 7)
    assert torch.allclose(state.images, expected, rtol=1e-12)
    assert [line for line in heard.said if "takes what it had after 4 iterations and goes on with 0.25" in line]
    assert state.skipped == 1 and [row["iteration"] for row in rows(tmp_path, "iteration") if row["skipped"]] == [6]


def test_a_learnt_step_size_at_its_floor_is_no_progress(tmp_path: Path) -> None:
    objective = Bowl(falls=1.0)
    message = failure(lambda: loop(tmp_path, objective).run(X, LABELS, 0.01))
    assert 4 * IN_A_ROW <= len(objective.seen) <= 4 * IN_A_ROW + 4 and "η was at its floor" in message
    assert "outer.lr_lr (0.2) is too large" in message


# --- what is not finite ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loss", "the loss was not finite"),
        ("images", "the gradient by X was not finite"),
        ("labels", "the gradient by Y was not finite"),
        ("syn_lr", "the gradient by η was not finite"),
    ],
)
def test_what_is_not_finite_from_the_start_fails_after_twenty(tmp_path: Path, name: str, said: str) -> None:
    objective = Bowl(infinite(name, lambda _: True))
    message = failure(lambda: loop(tmp_path, objective).run(X, LABELS, 0.01))
    assert len(objective.seen) == IN_A_ROW and said in message
    assert "step sizes have no part in it" in message


@pytest.mark.parametrize("name", ["loss", "images", "labels", "syn_lr"])
def test_a_stretch_that_is_not_finite_ends_in_a_return(tmp_path: Path, name: str) -> None:
    objective = Bowl(infinite(name, lambda iteration: 33 <= iteration < 53))
    state = loop(tmp_path, objective).run(X, LABELS, 0.01)
    (back,) = rows(tmp_path, "return")
    # Lost from iteration 33 to 52; the evaluation after 30 iterations is the last before them.
    assert (back["iteration"], back["to"], back["step"]) == (52, 30, 0.25)
    assert state.skipped == 20 and state.iteration == 200 and objective.seen == list(range(200))
    calm = loop(tmp_path / "calm", Bowl(), iterations=30).run(X, LABELS, 0.01)
    small = loop(tmp_path / "small", Bowl(), iterations=147, lr_img=0.0125, lr_label=0.025, lr_lr=0.05)
    expected = small.run(calm.images, calm.labels, calm.syn_lr.item())
    for one in ("images", "labels", "syn_lr"):
        assert torch.allclose(getattr(state, one), getattr(expected, one), rtol=1e-12), one
    assert state.objective["calls"] == 147


def test_a_state_from_which_nothing_goes_on_is_not_returned_to(tmp_path: Path) -> None:
    # Iterations are lost from the very evaluation on after which the loop stood still: it takes the start.
    state = loop(tmp_path, Bowl(infinite("loss", lambda iteration: 30 <= iteration < 50))).run(X, LABELS, 0.01)
    (back,) = rows(tmp_path, "return")
    assert (back["iteration"], back["to"]) == (49, 0) and state.iteration == 200


def test_what_is_lost_here_and_there_is_too_much_from_half_on(tmp_path: Path) -> None:
    # Every second and some more: never two dozen in a row.
    objective = Bowl(infinite("loss", lambda iteration: iteration % 20 < 11 and iteration % 2 == 0 or iteration % 20 > 14))
    message = failure(lambda: loop(tmp_path, objective, iterations=10_000).run(X, LABELS, 0.01))
    assert len(objective.seen) <= 4 * WINDOW and "of the last" in message


def test_what_was_read_broken_is_named_and_not_tried_again(tmp_path: Path) -> None:
    says = "expert 0 in 'store' holds numbers that are not finite, and is to be trained anew"
    objective, heard = Bowl(infinite("loss", lambda iteration: iteration % 9 < 5), says=says), Heard()
    message = failure(lambda: loop(tmp_path, objective, heard, iterations=10_000).run(X, LABELS, 0.01))
    assert len(objective.seen) <= WINDOW and message.count(says) == 2 and "returns" not in message
    assert [line for line in heard.said if says in line] == [f"warning: iteration 0 changed nothing: {says}"]


def test_a_filter_that_lets_nothing_through_is_named_with_what_it_would_take(tmp_path: Path) -> None:
    objective = Bowl()
    message = failure(lambda: loop(tmp_path, objective, max_match_loss=5.0).run(X, LABELS, 0.01))
    least = 0.5 * float(X.square().sum() + LABELS.square().sum() + 0.99**2)
    assert len(objective.seen) == IN_A_ROW
    assert f"outer.max_match_loss (5) is too small: the least loss was {least:.3g}" in message


def test_a_short_loop_most_of_which_is_lost_fails_at_its_end(tmp_path: Path) -> None:
    objective = Bowl(infinite("loss", lambda iteration: iteration % 3 > 0))
    message = failure(lambda: loop(tmp_path, objective, iterations=40).run(X, LABELS, 0.01))
    assert len(objective.seen) == 40 and "26 of 40 iterations changed nothing" in message
    half = loop(tmp_path / "half", Bowl(infinite("loss", lambda iteration: iteration % 2 == 0)), iterations=40)
    assert half.run(X, LABELS, 0.01).skipped == 20
    few = loop(tmp_path / "few", Bowl(infinite("loss", lambda iteration: True)), iterations=IN_A_ROW - 1)
    assert few.run(X, LABELS, 0.01).skipped == IN_A_ROW - 1  # of so few it is only said


@pytest.mark.parametrize("name", ["images", "labels"])
def test_a_start_that_is_not_finite_is_refused_with_its_image(tmp_path: Path, name: str) -> None:
    images, labels = X.clone(), LABELS.clone()
    {"images": images, "labels": labels}[name][2] = math.inf
    with pytest.raises(ValueError, match="init: '.*image 2' is not finite"):
        loop(tmp_path, Bowl()).run(images, labels, 0.01)


# --- what is no fault --------------------------------------------------------------------------------------------------------


def test_a_quarter_lost_by_chance_is_no_fault() -> None:
    """Over 50 000 iterations, in which the bounds would stop a loop that loses more than half."""
    draws, health = random.Random(0), Health(sizes=(1.0, 1.0, 0.01))
    for iteration in range(50_000):
        health = health.lost(FILTERED, 2.0) if draws.random() < 0.25 else health.kept()
        assert not health.too_many, iteration
    assert health.causes == {FILTERED: pytest.approx(12_500, rel=0.02)}


def test_more_than_half_is_found_within_the_window() -> None:
    draws = random.Random(0)
    for _ in range(50):
        health, count = Health(sizes=(1.0, 1.0, 0.01)), 0
        while not health.too_many:
            health = health.lost(LOSS, math.nan) if draws.random() < 0.75 else health.kept()
            count += 1
        assert MOST_LOST < count <= WINDOW or health.in_a_row == IN_A_ROW


def test_a_loop_that_loses_nothing_is_not_touched(tmp_path: Path) -> None:
    state = loop(tmp_path, Bowl()).run(X, LABELS, 0.01)
    assert state.health.step == 1.0 and state.health.causes == {} and not rows(tmp_path, "return")


# --- exactness ---------------------------------------------------------------------------------------------------------------


@dataclass
class Late(Plain):
    """Weights that tell the iteration in which they were made."""

    every: int = 100
    active: bool = True

    def weights(self, images: Tensor, iteration: int) -> Tensor:
        return torch.full_like(images[:, :1], 2.0 + iteration)


def test_a_loop_that_returned_is_weighted_by_maps_of_what_it_returned_to(tmp_path: Path) -> None:
    """The start was held before there were any."""
    objective = Bowl(infinite("loss", lambda iteration: 2 <= iteration < 22))
    made = replace(loop(tmp_path, objective, every=50, iterations=40), enhancement=Late())
    state = made.run(X, LABELS, 0.01)
    assert [(back.iteration, back.to) for back in state.health.returns] == [(21, 0)]
    assert torch.equal(state.weights, torch.full_like(state.weights, 24.0))


@pytest.mark.parametrize(
    ("stop", "ema_decay"), [(31, None), (47, 0.9), (52, None), (53, None), (61, 0.9), (109, None), (150, None)]
)
def test_a_loop_that_returned_goes_on_with_the_same_bits(tmp_path: Path, stop: int, ema_decay: float | None) -> None:
    """Lost twice for long: the loop returns in iterations 52 and 109; it is stopped before, between, in and after."""
    spoil = infinite("labels", lambda iteration: 33 <= iteration < 53 or 90 <= iteration < 110)
    whole = loop(tmp_path / "whole", Bowl(spoil), ema_decay=ema_decay).run(X, LABELS, 0.01)
    assert [back.iteration for back in whole.health.returns] == [52, 109]

    def stops(iteration: int, gradients: Gradients) -> Gradients:
        if iteration == stop:
            raise KeyboardInterrupt
        return spoil(iteration, gradients)

    with pytest.raises(KeyboardInterrupt):
        loop(tmp_path / "stopped", Bowl(stops), ema_decay=ema_decay).run(X, LABELS, 0.01)
    resumed = loop(tmp_path / "stopped", Bowl(spoil), ema_decay=ema_decay).run(torch.zeros_like(X), LABELS, 99.0)
    for name in ("images", "labels", "syn_lr", "images_velocity", "labels_velocity", "syn_lr_velocity", "average"):
        assert torch.equal(getattr(whole, name), getattr(resumed, name)), name
    assert (resumed.health, resumed.best, resumed.skipped) == (whole.health, whole.best, whole.skipped)
    assert without_time(tmp_path / "stopped") == without_time(tmp_path / "whole")


def without_time(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read_metrics(folder / "metrics.jsonl")]


def test_a_checkpoint_of_before_is_gone_on_with(tmp_path: Path) -> None:
    """One without a word on how the loop gets on: sizes are then those of the present."""
    state = OuterState.start(X, LABELS, 0.01, {"calls": torch.zeros(())})
    state.iteration = 150
    tmp_path.mkdir(exist_ok=True)
    state.save(tmp_path / "checkpoint.safetensors")
    loaded = OuterState.load(tmp_path / "checkpoint.safetensors", torch.device("cpu"))
    assert loaded.health == Health()
    ended = loop(tmp_path, Bowl()).run(X, LABELS, 0.01)
    assert ended.iteration == 200 and ended.health.sizes == state.sizes
