"""Settings of trajectory matching for new data, from what its experts and start images say, without trying.

    of the experts:         d_t = |θ*_{t+1} − θ*_t|,  c = mean cos(θ*_{t+1} − θ*_t, θ*_{t+2} − θ*_{t+1}) over their first half
                            M = 1 + ln ½ / ln c,  T = max(20, 10 M),  t ≤ last of d_t ≥ ½ second largest, t < half of the epochs
    of the start images:    η_0 with |θ_T − θ*_t| / |θ*_{t+M} − θ*_t| = ½,  lr_img = 0.35 σ(X) / rms ∇X  (medians over t)

A target that lies as far ahead as experts keep their direction: c^k has halved after k epochs. A student that walks half the
way to it: of start images the gradients point elsewhere than the target lies, and by the whole way it would be as far off as it
was. The numbers ½, 0.35 and 10 lie in the middle of those of settings that were found by trying: the way is 0.45 on the simple
scenes and 0.6 on 500 images per class of CIFAR-10, lr_img · rms ∇X / σ(X) 0.14 and 0.8, and 0.3 on 300 of Imagenette, and a
student took ten steps for each of the experts' epochs. Where steps of that size make the second half of T multiply the
gradient, as they do in VGG11 and ResNet18, students are chaotic and no step on the images is right: η_0 is halved until they
are not. Start epochs whose gradient is ten times the median and more, as the first of networks that bend sharply there
(VGG11's), are left out: a step size that fits them fits no other. Nothing is measured on validation or test images.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from limbeck.experts.store import TrajectoryStore
from limbeck.experts.train import train_experts
from limbeck.matching.adjoint import Exact, InnerLoop
from limbeck.matching.criteria import KeepAll, layers_of
from limbeck.matching.distances import MatchingLoss, SquaredError
from limbeck.matching.steps import StepDraw, StudentStep, draw_steps
from limbeck.methods.registry import name_of
from limbeck.runs import build
from limbeck.runs.checks import check
from limbeck.runs.settings import DistillSettings, value_of
from limbeck.runs.unread import idle_keys
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import Failure, require
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.records import Record

WAY = 0.5  # of the target's displacement, which a student walks
UPDATE = 0.35  # of the images' standard deviation, which the step size times the gradient's size is
STEPS_AN_EPOCH, FEWEST_STEPS = 10, 20
MOST_EPOCHS_AHEAD = 5
MOST_GROWTH = 8.0  # of the gradient from T / 2 to T steps; where steps add up it is 2, where they build on each other 4
FAR_LARGER = 10.0  # than the median, a gradient that no step size fits beside it
DRAWS = 8  # start epochs and experts that are looked at
SMALLEST, LARGEST = 1e-5, 10.0  # step sizes that are thought of
DIGITS = 2


@dataclass(frozen=True)
class Choice(Record):
    """A setting, and why.

    Args:
        key: dotted.
        before: what it was.
        value: what it is to be.
        reason: in words.
    """

    key: str
    before: float
    value: float
    reason: str


@dataclass(frozen=True)
class Tuned(Record):
    """What `tune` has found.

    Args:
        choices: in the order of the settings.
        displacement: d_t by start epoch, the mean over the experts.
        coherence: c.
        gradients: root mean squares of ∇X at the start, by start epoch.
    """

    choices: tuple[Choice, ...]
    displacement: tuple[float, ...]
    coherence: float
    gradients: tuple[float, ...]

    @property
    def keys(self) -> dict[str, float]:
        """The settings by dotted key, as `distill` takes them."""
        return {choice.key: choice.value for choice in self.choices}

    @property
    def words(self) -> str:
        """The same as a command line has them."""
        return " ".join(f"{key}={value:g}" for key, value in self.keys.items())


def tune(settings: DistillSettings, *, progress: Progress | None = None, store: TrajectoryStore | None = None) -> Tuned:
    """Read T, M, the start epochs, η_0 and the images' step size from experts and start images.

    The experts are those that `distill` then finds; all of their epochs are looked at.

    Args:
        settings: whose data, network, experts, images per class and method count.
        progress: where to report.
        store: the experts, instead of those of the cache.

    Raises:
        UsageError: for a method that walks through no student steps, and for experts of fewer than three epochs.
        Failure: when experts or students do not move.
    """
    workspace = Workspace(settings, progress or NoProgress(), store)
    optimiser = settings.outer.img_optimiser
    require(
        optimiser == "sgd",
        "outer.img_optimiser",
        optimiser,
        "sgd for tuning: a step of AdamW does not depend on the gradient's size",
    )
    accepted = "one that matches trajectories, such as edf, datm, mtt or tesla"
    require(workspace.method.steps and workspace.needs_experts, "method", name_of(settings.method), accepted)
    require(settings.experts.train_epochs >= 3, "experts.train_epochs", settings.experts.train_epochs, "at least 3 for tuning")
    check(workspace)
    epochs = range(settings.experts.train_epochs + 1)
    if store is None:
        store = train_experts(workspace.expert_task, epochs, workspace.progress)
    else:
        workspace.expert_task.check_store(store, list(epochs))
    return _Tuning(workspace, store).found()


@dataclass(frozen=True)
class _Tuning:
    workspace: Workspace
    store: TrajectoryStore

    def found(self) -> Tuned:
        """Everything, one after the other."""
        settings, paths = self.workspace.settings, list(self._paths())
        displacement = tuple(torch.stack([path.norm(dim=1) for path in paths]).mean(0).tolist())
        if not min(displacement) > 0:
            raise Failure("experts do not move from epoch to epoch: experts.expert_lr is too small")
        turns = torch.stack([cosine_similarity(path[:-1], path[1:], dim=1) for path in paths]).mean(0)
        coherence = float(turns[: -(-len(displacement) // 2)].mean())
        ahead = epochs_ahead(coherence, len(displacement))
        first, last = start_epochs(displacement, ahead)
        steps = max(FEWEST_STEPS, STEPS_AN_EPOCH * ahead)
        small = self.workspace.initial()
        student = _Students(self.workspace, self.store, small.images, small.stored, small.labels, ahead, last, steps)
        eta, gradients, walked = student.stable()
        earliest = first_to_start_from(gradients)
        first, gradient = max(first, earliest + 1), statistics.median(gradients[earliest:])
        lr_img = rounded(UPDATE * float(small.stored.std()) / gradient)
        said = f"successive epochs of the experts have a cosine of {coherence:.2f}, in the mean over the first half"
        shown = ", ".join(f"{one:.3g}" for one in displacement)
        values = {
            "match.syn_steps": (steps, f"{STEPS_AN_EPOCH} steps for every epoch of the experts, and {FEWEST_STEPS} at least"),
            "match.expert_epochs": (ahead, said),
            "schedule.min_start_epoch": (earliest, _said_of_start(gradients, earliest)),
            "schedule.first_max_start_epoch": (first, "a third of the start epochs first"),
            "schedule.max_start_epoch": (last, f"experts move by {shown}"),
            "outer.lr_img": (lr_img, f"the plain gradient of the start images is {gradient:.2g} (root mean square, median)"),
            "outer.syn_lr_init": (eta, walked),
        }
        read = [key for key in values if key not in idle_keys(settings, values)]  # a uniform schedule has no first upper end
        choices = (Choice(key, value_of(settings, key), *values[key]) for key in read)
        return Tuned(tuple(choices), displacement, coherence, tuple(gradients))

    def _paths(self) -> Iterator[Tensor]:
        """What each of some experts moves by in its epochs, (L, P)."""
        settings = self.workspace.settings.experts
        for expert in range(min(DRAWS // 2, settings.num_experts)):
            held = [self.store.read(expert, epoch) for epoch in range(settings.train_epochs + 1)]
            yield torch.stack([after - before for before, after in zip(held, held[1:], strict=False)])


@dataclass(frozen=True)
class _Students:
    """Students of the start images."""

    workspace: Workspace
    store: TrajectoryStore
    images: Tensor
    stored: Tensor
    labels: Tensor
    ahead: int
    last: int
    steps: int

    def step_size(self) -> float:
        """η at which students walk `WAY` of the way, between steps of the factor 2."""
        eta, before = 1e-2, (0.0, 0.0)
        way = self._way(eta)
        down = way > WAY
        while (way > WAY) == down:
            before = (eta, way)
            eta *= 0.5 if down else 2.0
            if not SMALLEST < eta < LARGEST:
                moved = "farther than" if down else "less than"
                raise Failure(f"students of the start images walk {moved} {WAY:.0%} of the experts' way with every step size")
            way = self._way(eta)
        (low, lower), (high, higher) = sorted([before, (eta, way)])
        if not (math.isfinite(higher) and higher > lower > 0):
            return low
        share = math.log(WAY / lower) / math.log(higher / lower)
        return math.exp(math.log(low) + share * math.log(high / low))

    def stable(self) -> tuple[float, list[float], str]:
        """η, the gradients with it, and how it was chosen in words."""
        eta = rounded(self.step_size())
        wanted, way = eta, WAY
        while True:
            gradients, halfway = self.gradients(eta), replace(self, steps=self.steps // 2).gradients(eta)
            if _growth(gradients, halfway) <= MOST_GROWTH:
                break
            if eta / 2 < SMALLEST:
                raise Failure("the gradient of the start images grows without bounds with every step size")
            eta = rounded(eta / 2)
            way = self._way(eta)
        said = f"students then walk {way:.0%} of the way that the experts do"
        why = f"{said}; with {wanted:g} gradients grow without bounds from step to step"
        return eta, gradients, said if eta == wanted else why

    @torch.no_grad()
    def _way(self, eta: float) -> float:
        """The share of the way, the median."""
        step, shares = self._step, []
        for _, start, target, draws in self._drawn():
            theta = start
            for draw in draws:
                theta = theta - eta * step.gradient(theta, draw.augmentation(self.images[draw.index]), self.labels[draw.index])
            shares.append(float((theta - start).norm() / (target - start).norm()))
        return statistics.median(one if math.isfinite(one) else math.inf for one in shares)

    def gradients(self, eta: float) -> list[float]:
        """The root mean square of the plain ∇X, or of what it is for what X is decoded from, for each start epoch."""
        step, layers, sizes = self._step, layers_of(self.workspace.network.slices), [list[float]() for _ in range(self.last)]
        for epoch, start, target, draws in self._drawn():
            loss = MatchingLoss(start, target, KeepAll(), SquaredError(), layers)
            inner = InnerLoop(step, start, list(draws))
            found = Exact()(inner, self.images, self.labels, torch.tensor(eta, device=start.device), loss)[0]
            moved = self.workspace.decoder.carried(self.stored, found.images)
            sizes[epoch].append(float(moved.square().mean().sqrt()))
        middle = [statistics.median(one if math.isfinite(one) else math.inf for one in of_epoch) for of_epoch in sizes]
        if not any(middle):
            raise Failure("the gradient of the start images is 0: the images, or the experts, are no use")
        return middle

    @property
    def _step(self) -> StudentStep:
        return StudentStep(self.workspace.network, build.loss_of(self.workspace.settings))

    def _drawn(self) -> Iterator[tuple[int, Tensor, Tensor, Sequence[StepDraw]]]:
        """Start epoch, start, target and draws of some iterations, spread over experts and start epochs."""
        settings, device = self.workspace.settings, self.images.device
        shape = tuple(self.images.shape)
        number_of_draws = max(DRAWS, self.last)
        for number in range(number_of_draws):
            expert, epoch = number % settings.experts.num_experts, number * self.last // number_of_draws
            draws = draw_steps(
                shape,  # type: ignore[arg-type]
                build.batch_of(settings.match, self.workspace.slots),
                self.steps,
                self.workspace.augmentation,
                settings.seed,
                number,
                settings.match.small_chunk,
            )
            yield epoch, self.store.read(expert, epoch, device), self.store.read(expert, epoch + self.ahead, device), draws


def epochs_ahead(coherence: float, epochs: int) -> int:
    """M: one epoch, and as many as it takes the powers of c to halve.

    Example:
        >>> [epochs_ahead(coherence, 10) for coherence in (-0.1, 0.2, 0.5, 0.7, 0.99)]
        [1, 1, 2, 3, 5]
    """
    further = 0.0 if coherence <= 0 else math.inf if coherence >= 1 else math.log(0.5) / math.log(coherence)
    return max(1, min(MOST_EPOCHS_AHEAD, epochs - 1, round(1 + min(further, MOST_EPOCHS_AHEAD))))


def start_epochs(displacement: Sequence[float], ahead: int) -> tuple[int, int]:
    """The first and the last upper end (exclusive) of the start epochs.

    The largest displacement, which is the first epoch's where networks have to leave their initial values, tells nothing of others.

    Example:
        >>> start_epochs([0.8, 0.6, 0.6, 0.5, 0.5, 0.4, 0.3, 0.2], 2), start_epochs([5.0, 1.0, 0.6, 0.4, 0.4, 0.4, 0.4], 1)
        ((1, 4), (1, 3))
    """
    moving = 1 + max(epoch for epoch, size in enumerate(displacement) if size >= sorted(displacement)[-2] / 2)
    last = max(1, min(moving, -(-len(displacement) // 2), len(displacement) - ahead + 1))
    return max(1, round(last / 3)), last


def _growth(whole: Sequence[float], half: Sequence[float]) -> float:
    """By how much gradients are larger than those of half of the steps, the median; infinite where one of them is."""
    if not math.isfinite(statistics.median(whole)):
        return math.inf
    return statistics.median(after / before if before > 0 else math.inf for after, before in zip(whole, half, strict=True))


def first_to_start_from(gradients: Sequence[float]) -> int:
    """The first start epoch from which on no gradient is far larger than the median.

    Example:
        >>> first_to_start_from([2.0, 1e-3, 2e-3, 1e-3]), first_to_start_from([2e-3, 1e-3, 1e-3]), first_to_start_from([1.0])
        (1, 0, 0)
    """
    typical = statistics.median(gradients)
    return max((epoch + 1 for epoch, size in enumerate(gradients[:-1]) if size >= FAR_LARGER * typical), default=0)


def _said_of_start(gradients: Sequence[float], earliest: int) -> str:
    shown = ", ".join(f"{one:.2g}" for one in gradients)
    why = "far larger than the rest" if earliest else "of one order"
    return f"gradients from the first start epochs on are {why} ({shown})"


def rounded(value: float) -> float:
    """To so many digits as such a rule has."""
    return float(f"{value:.{DIGITS}g}")
