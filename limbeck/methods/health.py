"""Whether the outer loop gets on: which iterations are lost, when it returns to where it was sound, and when it gives up.

An iteration is lost that changes nothing, because its loss or a gradient is not finite or the loss is above `outer.max_match_loss`,
and one after which η lies at its floor, where students do not move. A filter is there to lose some. Too many are

    20 in a row           of a loop that loses every fourth by chance, one iteration in 10¹² ends such a row
    51 of the last 100    of the same loop, one stretch of a hundred in 5 · 10⁷; one that loses more than half is always found,
                          at the latest at its end, where it has 20 iterations or more

and one alone is too many that takes X, Y or η to what is not finite, or to a hundred times its size at the start: that undoes
everything before it. Images grow by about the cube root of the iterations, for networks with norms see every size alike: with the
recipes' steps to seven times their size in 1500 iterations, some thirteen in 10 000.

The loop then returns: X, Y and η become those of the last evaluation at which it got on, velocities zero, step sizes a quarter.
Iterations go on being counted, so that a return changes no later draw, takes no time of its own and is exact when a run resumes:
all of this is in the checkpoint. Where nothing has changed since that evaluation, the loop returns to the start. Where nothing has
changed since the start, where what it read is broken, and after three returns (to a sixty-fourth of the step sizes) it fails: a
step size that is wrong by more is wrong from the first iteration on. So it fails after at most four times a hundred iterations
that do not get on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from limbeck.distilled.small_set import first_infinite
from limbeck.methods.settings import OuterSettings
from limbeck.runtime.errors import require
from limbeck.runtime.records import Record
from limbeck.training.train import SMALLER

IN_A_ROW, WINDOW, MOST_LOST = 20, 100, 50
ABSURD = 100.0  # times the size at the start
GROWN = 30.0  # times which a result is said to have

# Causes, in words; what an objective says of what it read is one, too.
LOSS, FILTERED, FLOOR = "the loss was not finite", "the loss was above outer.max_match_loss", "η was at its floor"
WEIGHTED = "the weights on the gradient by X were too large"
BY = {name: f"the gradient by {of} was not finite" for name, of in (("images", "X"), ("labels", "Y"), ("syn_lr", "η"))}
STEPS = {"X": "outer.lr_img", "Y": "outer.lr_label", "η": "outer.lr_lr"}
GREW = {name: f"{name} grew beyond measure" for name in STEPS}
OWN = (LOSS, FILTERED, FLOOR, WEIGHTED, *BY.values(), *GREW.values())


@dataclass(frozen=True, kw_only=True)
class Return(Record):
    """A return.

    Args:
        iteration: that was the last before it.
        to: after how many iterations the state was that was taken.
        step: what the step sizes are multiplied by from then on.
        why: in words.
    """

    iteration: int
    to: int
    step: float
    why: str


@dataclass(frozen=True, kw_only=True)
class Health(Record):
    """How the loop gets on; of the checkpoint.

    Args:
        sizes: root mean square of X and of Y at the start, and η.
        good: after how many iterations it was last looked at while it got on.
        moved: whether anything has changed since then.
        in_a_row: iterations lost, the last ones.
        recent: of the last ones since the last return, `x` for a lost one, the oldest first.
        returns: the returns.
        causes: how many iterations were lost, by what in words.
        first: the loss of the first iteration; None before it, or where it was not finite.
        least: the least loss above `outer.max_match_loss`.
    """

    sizes: tuple[float, ...] = ()
    good: int = 0
    moved: bool = False
    in_a_row: int = 0
    recent: str = ""
    returns: tuple[Return, ...] = ()
    causes: Mapping[str, int] = field(default_factory=dict)
    first: float | None = None
    least: float | None = None

    LEFT_OUT: ClassVar = ("returns", "causes", "first", "least")

    @property
    def step(self) -> float:
        """What the step sizes are multiplied by."""
        return self.returns[-1].step if self.returns else 1.0

    @property
    def cause(self) -> str:
        """What most iterations were lost by."""
        return max(self.causes, key=lambda name: self.causes[name])

    @property
    def too_many(self) -> str:
        """How many are lost that are too many, in words; empty where it gets on."""
        if self.in_a_row >= IN_A_ROW:
            return f"the last {self.in_a_row} iterations were lost"
        lost = self.recent.count("x")
        return f"{lost} of the last {len(self.recent)} iterations were lost" if lost > MOST_LOST else ""

    @property
    def sound(self) -> bool:
        """Whether to return to this state is worth while."""
        return self.in_a_row == 0 and self.recent.count("x") <= MOST_LOST // 2

    def kept(self) -> "Health":
        """After an iteration that was none of the lost ones."""
        return replace(self, moved=True, in_a_row=0, recent=(self.recent + ".")[-WINDOW:])

    def lost(self, cause: str, loss: float) -> "Health":
        """After one that was lost, for a cause in words, with that loss."""
        causes = {**self.causes, cause: self.causes.get(cause, 0) + 1}
        least = min(math.inf if self.least is None else self.least, loss) if cause == FILTERED else self.least
        recent = (self.recent + "x")[-WINDOW:]
        return replace(self, in_a_row=self.in_a_row + 1, recent=recent, causes=causes, least=least)

    def looked(self, iteration: int) -> "Health":
        """After an evaluation, after so many iterations."""
        return replace(self, good=iteration, moved=False) if self.sound else self

    def returned(self, iteration: int, to: int, why: str) -> "Health":
        """After a return."""
        one = Return(iteration=iteration, to=to, step=self.step * SMALLER, why=why)
        return replace(self, good=to, moved=False, in_a_row=0, recent="", returns=(*self.returns, one))


def check_start(images: Tensor, labels: Tensor) -> None:
    """Raise `UsageError` for a start that holds what is not finite, naming the first image."""
    for name, values in (("the image", images), ("the label of image", labels)):
        odd = first_infinite(values)
        require(odd is None, "init", f"{name} {odd}", "finite")


def sizes(images: Tensor, labels: Tensor, syn_lr: Tensor) -> tuple[float, float, float]:
    """Root mean square of X and of Y, and η: finite only where they are."""
    x, y = (torch.linalg.vector_norm(value).item() / math.sqrt(value.numel()) for value in (images, labels))
    return x, y, abs(syn_lr.item())


def growth(start: tuple[float, ...], now: tuple[float, ...]) -> dict[str, float]:
    """How many times as large X, Y and η are as at the start, or as one, where the start was smaller (η: as 0.01)."""
    floors = (1.0, 1.0, 0.01)
    return {name: size / max(first, floor) for name, size, first, floor in zip(STEPS, now, start, floors, strict=True)}


def absurd(start: tuple[float, ...], now: tuple[float, ...]) -> str:
    """Which of X, Y and η has grown to what it cannot be; empty where none has."""
    # η may have to grow: it began at somebody's guess.
    most = {"X": ABSURD, "Y": ABSURD, "η": 10 * ABSURD}
    return next((name for name, times in growth(start, now).items() if not times <= most[name]), "")


def told(causes: Mapping[str, int]) -> str:
    """The causes with their numbers, the most frequent first."""
    ordered = sorted(causes.items(), key=lambda one: -one[1])
    return ", ".join(f"{count} times {cause}" for cause, count in ordered)


def blamed(cause: str, health: Health, settings: OuterSettings, now: tuple[float, ...], *, hint: str, stuck: bool) -> str:
    """What to change, in words.

    Args:
        cause: why iterations were lost.
        health: of the loop.
        settings: its keys.
        now: the sizes of X, Y and η, of which what has grown most is named first.
        hint: what the objective has to say about how it began; empty where that was sound.
        stuck: whether nothing has changed since the start.
    """
    s = settings
    values = {"outer.lr_img": s.lr_img, "outer.lr_label": s.lr_label, "outer.lr_lr": s.lr_lr}
    if cause not in OWN:
        return cause
    if hint:
        return hint
    if cause == FILTERED and stuck:
        return f"outer.max_match_loss ({s.max_match_loss:g}) is too small: the least loss was {health.least:.3g}"
    if cause == WEIGHTED:
        return "enhance.beta is too large"
    if stuck:
        return "step sizes have no part in it: the images, the experts or the network have"
    grown = growth(health.sizes, now)
    named = [name for name in STEPS if cause.startswith(f"{name} ")] or sorted(STEPS, key=lambda name: -grown[name])
    steps = [(STEPS[name], values[STEPS[name]]) for name in named]
    keys = " or ".join(f"{key} ({step:g})" for key, step in steps if step > 0) or "a step size"
    times = ", ".join(f"{name} {found:.2g}" for name, found in grown.items())
    filtered = f", or outer.max_match_loss ({s.max_match_loss:g}) too small" if cause == FILTERED else ""
    return f"{keys} is too large{filtered} (sizes, as parts of those at the start: {times})"
