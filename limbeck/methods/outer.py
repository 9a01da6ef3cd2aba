"""The one outer loop: from gradients of L to changes of X, Y and η (PAPER § 6).

    v_X ← μ_X v_X + ∇X ∘ F      X ← X − lr_img v_X
    v_Y ← μ_Y v_Y + ∇Y          Y ← Y − lr_label v_Y
    v_η ← μ_η v_η + ∂L/∂η       η ← max(η − lr_lr v_η, 10⁻⁶)

An iteration whose loss exceeds `max_match_loss`, or is not finite, changes nothing; where too many do, the loop returns to an
earlier state with smaller steps, and at last fails (`health.py`). Every `eval.every` iterations the set is evaluated on the
validation split and a snapshot written; the best one is the result.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from limbeck.accuracy import Accuracy, percent
from limbeck.distilled.small_set import SmallSet
from limbeck.matching.adjoint import Gradients
from limbeck.methods.checkpoints import Checkpoints
from limbeck.methods.enhance import Enhancement
from limbeck.methods.health import (
    BY,
    FILTERED,
    FLOOR,
    GREW,
    IN_A_ROW,
    LOSS,
    OWN,
    WEIGHTED,
    Health,
    absurd,
    blamed,
    check_start,
    growth,
    told,
)
from limbeck.methods.objective import Objective, Update
from limbeck.methods.settings import OuterSettings
from limbeck.methods.snapshot import Callback, Snapshot
from limbeck.methods.state import Best, OuterState
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.interruption import finishing, stoppable
from limbeck.runtime.metrics import MetricsLog
from limbeck.runtime.progress import NoProgress, NoStage, Progress, Stage
from limbeck.runtime.room import vanished
from limbeck.runtime.sealed import Damaged, FileKind
from limbeck.training.train import RETURNS

SNAPSHOT = FileKind("snapshot")
LEAST_SYN_LR = 1e-6
# A second walk back costs about 0.7 of an iteration: once in fifty is 1.4 % of the time.
COMPARE_EVERY = 50
# A snapshot that is neither the first nor the best is there to be looked at, and holds at most so many bytes of X.
LOOKED_AT = 8 * 2**20

Evaluate = Callable[[Tensor, Tensor, float], Accuracy | None]


@dataclass(frozen=True)
class OuterLoop:
    """Runs an objective.

    Args:
        objective: gives the gradients.
        enhancement: gives the weights F.
        settings: the keys `outer.*`.
        evaluate: accuracy on the validation split of (X, Y, η); None where nothing is to be chosen: the last iterate is the result.
        every: iterations between two evaluations.
        match_norm: rescale ∇X to the norm it has without criterion and weights.
        folder: where checkpoints, snapshots and metrics are written.
        progress: where to report.
        callbacks: called at every evaluation, once its snapshot is written.
        run_id: what the files say that they belong to.
        heard: called with each row of `metrics.jsonl`, once it is written.
    """

    objective: Objective
    enhancement: Enhancement
    settings: OuterSettings
    evaluate: Evaluate
    every: int
    match_norm: bool
    folder: Path
    progress: Progress = NoProgress()  # noqa: RUF009 (it has no state)
    callbacks: Sequence[Callback] = ()
    run_id: str = ""
    heard: Callable[[dict[str, Any]], None] | None = None

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Those that are written."""
        return Checkpoints(self.folder, self.run_id, self.progress.say)

    @property
    def checkpoint(self) -> Path:
        """The last one's place."""
        return self.checkpoints.last

    def run(self, images: Tensor, labels: Tensor, syn_lr: float) -> OuterState:
        """Go on from the checkpoint, or start from X, Y and η; return the final state, its `best` naming the snapshot to take.

        Raises:
            UsageError: when what it starts from is not finite.
            Failure: when the loop does not get on.
        """
        state = self.checkpoints.load(images.device)
        if state is None:
            check_start(images, labels)
            state = OuterState.start(images, labels, syn_lr, self.objective.init())
        if not state.health.sizes:
            state.health = replace(state.health, sizes=state.sizes)
        metrics = MetricsLog(self.folder / "metrics.jsonl", self.run_id, self.heard)
        if 0 < (noted := metrics.keep_until(state.iteration)) < state.iteration:
            self.progress.say(f"note: metrics.jsonl has lost what was noted of iterations {noted} to {state.iteration - 1}")
        self._look_for_best(state, metrics)
        with stoppable(), self.progress.stage("distil", self.settings.iterations, state.iteration) as stage:
            while state.iteration < self.settings.iterations:
                if state.iteration % self.settings.checkpoint_every == 0:
                    self._save(state, metrics)
                with self._saved_when_stopped(state, metrics):
                    if state.iteration % self.every == 0:
                        self._evaluate(state, metrics, stage)
                    with finishing():
                        self._iterate(state, metrics, stage)
            self._check_enough(state)
            self._save(state, metrics)
            with self._saved_when_stopped(state, metrics):
                self._evaluate(state, metrics, stage)
            self._thin(state, {state.best.iteration} if state.best else set())  # there is nothing more to return for
        return state

    @contextmanager
    def _saved_when_stopped(self, state: OuterState, metrics: MetricsLog) -> Iterator[None]:
        """Write the checkpoint when the block is left because the run is to end: as it was before it, or after its iteration."""
        iteration, best, weights, health = state.iteration, state.best, state.weights, state.health
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            if state.iteration == iteration:
                state.best, state.weights, state.health = best, weights, health  # what went before the iteration is made again
            if state.whole:
                self._save(state, metrics)
                self.progress.say(f"stopped after {state.iteration} of {self.settings.iterations} iterations, which are kept")
            raise

    def _look_for_best(self, state: OuterState, metrics: MetricsLog) -> None:
        """Where somebody has removed the best snapshot, to make room perhaps, the best of what follows takes its place."""
        if state.best is None or self.snapshot(state.best.iteration).exists():
            return
        with suppress(OSError, Damaged):
            self.checkpoints.load_best(state.best.iteration, state.images.device)
            return  # from where it is taken
        if state.best.accuracy is not None:
            lost = f"{str(self.snapshot(state.best.iteration))!r}, the best set so far ({100 * state.best.accuracy:.1f} %), is gone"
            self.progress.say(f"warning: {lost}; the best of what follows is taken")
        state.best = None
        if state.iteration % self.every and state.iteration < self.settings.iterations:  # else it is evaluated anyway
            self._evaluate(state, metrics)

    def snapshot(self, iteration: int) -> Path:
        """The place of the snapshot of that iteration."""
        return self.folder / "snapshots" / f"iteration-{iteration:06d}.safetensors"

    def _held(self, iteration: int, state: OuterState) -> Mapping[str, Tensor]:
        """The tensors of a whole snapshot, on the device of the state.

        Raises:
            OSError: when there is none.
            Damaged: when it is not what was written.
        """
        tensors, header = read_tensors(self.snapshot(iteration), str(state.images.device), SNAPSHOT, self.run_id)
        if header.get("iteration") != iteration or "positions" in header or not {"X", "Y", "syn_lr", "weights"} <= tensors.keys():
            raise Damaged("it is another one's")
        return tensors

    def _broken(self, path: Path, error: Exception) -> UsageError:
        advice = f"delete {self.checkpoint.name} and those beside it, and the distillation starts anew"
        return UsageError(f"output: {str(path)!r} is broken ({error}); {advice}")

    def _save(self, state: OuterState, metrics: MetricsLog) -> None:
        """Write the checkpoint, and leave of snapshots what is needed: the first, and what the checkpoints go back to."""
        if state.iteration > 0 and not (self.folder / "metrics.jsonl").exists():
            raise vanished(self.folder)  # to make it anew would hide that all else is lost
        metrics.sync()
        self.checkpoints.save(state)
        self._thin(state, self.checkpoints.needed())

    def _thin(self, state: OuterState, needed: AbstractSet[int]) -> None:
        """Leave of snapshots of large sets a few images, but for the first and those after that many iterations."""
        if 4 * state.images.numel() > LOOKED_AT:
            whole = {self.snapshot(iteration) for iteration in {0, *needed}}
            for path in set((self.folder / "snapshots").glob("iteration-*.safetensors")) - whole:
                with suppress(Damaged):  # nothing goes on from those, and the report says which it cannot read
                    tensors, header = read_tensors(path, kind=SNAPSHOT, of=self.run_id)
                    if "positions" not in header:
                        write_tensors(path, *thinned(tensors, header), SNAPSHOT, self.run_id)

    def best(self, state: OuterState, start: SmallSet) -> SmallSet:
        """What has become of `start`: X, Y and η of the best evaluation, from its snapshot or, where that is lost, its checkpoint.

        Raises:
            UsageError: when both are damaged.
        """
        assert state.best is not None, "a loop that has ended has been evaluated"
        iteration, path = state.best.iteration, self.snapshot(state.best.iteration)
        try:
            held = self._held(iteration, state)
            x, y, eta = (held[name] for name in ("X", "Y", "syn_lr"))
        except (OSError, Damaged) as error:
            try:
                best = self.checkpoints.load_best(iteration, state.images.device)
            except (OSError, Damaged):
                raise self._broken(path, error) from error
            what = "is gone" if isinstance(error, FileNotFoundError) else f"is broken ({error})"
            self.progress.say(f"warning: {str(path)!r} {what}; its images are taken from {self.checkpoints.best.name}")
            x, y, eta = best.average, best.labels, best.syn_lr
        return replace(start, images=x, labels=y, syn_lr=eta.item())

    def _iterate(self, state: OuterState, metrics: MetricsLog, stage: Stage) -> None:
        began, iteration = time.perf_counter(), state.iteration
        update, weighted, d_images = self.gradients(state)
        if self._compares(iteration) and iteration % COMPARE_EVERY == 0:
            metrics.append(kind="comparison", iteration=iteration, **_comparison(weighted, update.plain))
        cause = self._cause(state, update, d_images)
        state.whole = False  # who stops now has nothing that could be gone on from
        if not cause:
            self.apply(state, update, d_images)
        now = state.sizes
        cause = cause or GREW.get(absurd(state.health.sizes, now), "")
        state.health, skipped = self._judged(state, update, cause), bool(cause)
        if cause in GREW.values() or state.health.too_many:
            self._return(state, cause if cause in GREW.values() else state.health.cause, now, metrics)
        state.iteration += 1
        state.skipped += skipped
        state.kept_share, state.last_loss = _read(update.kept_share), _finite(update.gradients.loss)
        metrics.append(
            kind="iteration",
            iteration=iteration,
            loss=update.gradients.loss.item(),
            grad_norm_images=d_images.norm().item(),
            grad_norm_labels=update.gradients.labels.norm().item(),
            grad_lr=update.gradients.syn_lr.item(),
            syn_lr=state.syn_lr.item(),
            skipped=skipped,
            skipped_share=state.skipped / state.iteration,
            seconds=time.perf_counter() - began,
            **_read(update.facts),
        )
        state.whole = True
        stage.advance(loss=update.gradients.loss.item(), skipped=state.skipped)

    def gradients(self, state: OuterState) -> tuple[Update, Tensor, Tensor]:
        """What the objective says, ∇X ∘ F, and the latter as X is moved by it; only shapes are looked at, no values."""
        if state.iteration % self.enhancement.every == 0:
            state.weights = self.enhancement.weights(state.images, state.iteration)
        compare, at = self._compares(state.iteration), (state.images, state.labels, state.syn_lr, state.iteration)
        update = self.objective.gradients(state.objective, *at, plain=compare)
        _check_shapes(update.gradients, state)
        weighted = update.gradients.images * state.weights
        return update, weighted, _rescaled(weighted, update.plain) if self.match_norm and compare else weighted

    def _compares(self, iteration: int) -> bool:
        """Whether the plain gradient is asked for too."""
        differs = self.objective.has_criterion or self.enhancement.active
        return differs and (self.match_norm or iteration % COMPARE_EVERY == 0)

    def _cause(self, state: OuterState, update: Update, d_images: Tensor) -> str:
        """Why an iteration changes nothing, in words; empty where it may."""
        gradients = update.gradients
        if not all(bool(value.isfinite().all()) for value in (gradients.loss, d_images, gradients.labels, gradients.syn_lr)):
            infinite = [cause for name, cause in BY.items() if not bool(getattr(gradients, name).isfinite().all())]
            cause = [LOSS] if not bool(gradients.loss.isfinite()) else infinite or [WEIGHTED]
            return self.objective.broken(state.objective, state.images, state.iteration) or cause[0]
        return FILTERED if gradients.loss.item() > self.settings.max_match_loss else ""

    def _judged(self, state: OuterState, update: Update, cause: str) -> Health:
        """How the loop gets on after an iteration that changed nothing for that cause, or for none changed something."""
        health, loss = state.health, update.gradients.loss.item()
        if state.iteration == 0:
            health = replace(health, first=_finite(update.gradients.loss))
        if cause and cause != FILTERED and cause not in health.causes:
            self.progress.say(f"warning: iteration {state.iteration} changed nothing: {cause}")
        learned = self.settings.lr_lr > 0 and health.sizes[2] > 2 * LEAST_SYN_LR
        at_floor = not cause and learned and state.syn_lr.item() <= 1.001 * LEAST_SYN_LR
        return health.lost(FLOOR if at_floor else cause, loss) if cause or at_floor else health.kept()

    def _return(self, state: OuterState, cause: str, now: tuple[float, ...], metrics: MetricsLog) -> None:
        """Take X, Y and η of the last evaluation at which the loop got on, and smaller steps.

        Raises:
            Failure: where that cannot help, or has not.
        """
        health, grew = state.health, cause in GREW.values()
        why = f"{cause} ({growth(health.sizes, now)[cause[0]]:.2g} times its size)" if grew else health.too_many
        why = f"{why} by iteration {state.iteration}"
        overstepped = grew or cause == FLOOR  # from wherever it came, smaller steps help
        stuck = not (overstepped or health.moved or health.good)
        if stuck or cause not in OWN or len(health.returns) == RETURNS:
            raise self._failure(state, cause, why, now, stuck)
        to = health.good if overstepped or health.moved else 0
        try:
            held = self._held(to, state)
        except FileNotFoundError as error:
            raise vanished(self.snapshot(to)) from error
        except Damaged as error:
            raise self._broken(self.snapshot(to), error) from error
        state.back_to(held, self.objective.init(), averaged=self.settings.ema_decay is not None)
        state.health = health.returned(state.iteration, to, why)
        metrics.append(kind="return", iteration=state.iteration, to=to, step=state.health.step, why=why)
        then = f"takes what it had after {to} iterations and goes on with {state.health.step:g} of its step sizes"
        self.progress.say(f"warning: {why}: the loop {then}")

    def _check_enough(self, state: OuterState) -> None:
        """Raise `Failure` for a loop most of whose iterations have changed nothing; of a few, that says little."""
        if 2 * state.skipped > state.iteration >= IN_A_ROW and state.health.causes:
            why = f"{state.skipped} of {state.iteration} iterations changed nothing"
            raise self._failure(state, state.health.cause, why, state.sizes, state.skipped == state.iteration)

    def _failure(self, state: OuterState, cause: str, why: str, now: tuple[float, ...], stuck: bool) -> Failure:
        """What to say of a loop that does not get on."""
        health = state.health
        hint = self.objective.hint(health.first, health.sizes[2])
        returns = [f"{len(health.returns)} returns with smaller steps did not help"] if health.returns else []
        tried = [told(health.causes), *returns]
        return Failure(
            f"the distillation does not get on: {why} ({'; '.join(tried)}); "
            f"{blamed(cause, health, self.settings, now, hint=hint, stuck=stuck)}; start anew in another folder"
        )

    def apply(self, state: OuterState, update: Update, d_images: Tensor) -> None:
        """Change X by that gradient, Y, η and the objective's state by what the objective says."""
        s, step = self.settings, state.health.step
        _sgd(state.images, state.images_velocity, d_images, step * s.lr_img, s.img_momentum)
        if update.labels is not None:
            state.labels = update.labels
        _sgd(state.labels, state.labels_velocity, update.gradients.labels, step * s.lr_label, s.label_momentum)
        _sgd(state.syn_lr, state.syn_lr_velocity, update.gradients.syn_lr, step * s.lr_lr, s.lr_momentum)
        state.syn_lr.clamp_min_(LEAST_SYN_LR)
        state.objective = update.state
        if s.ema_decay is None:
            state.average = state.images
        else:
            state.average = s.ema_decay * state.average + (1 - s.ema_decay) * state.images

    def _evaluate(self, state: OuterState, metrics: MetricsLog, stage: Stage = NoStage()) -> None:
        found = self.evaluate(state.average, state.labels, state.syn_lr.item())
        accuracy, before = None if found is None else found.mean, None if state.best is None else state.best.accuracy
        best = accuracy is None or before is None or accuracy > before
        if best:
            self.checkpoints.save_best(state, state.best)
            state.best = Best(state.iteration, accuracy)
        tensors = {"X": state.average, "Y": state.labels, "syn_lr": state.syn_lr, "weights": state.weights}
        tensors["maps"] = self.enhancement.maps(state.average, state.iteration)
        header = {"iteration": state.iteration, "accuracy": found, "kept_share": state.kept_share, "loss": state.last_loss}
        state.health = state.health.looked(state.iteration)
        path, written = self.snapshot(state.iteration), (tensors, header)
        whole = best or state.iteration in (0, state.health.good)
        kept, about = written if whole else thinned(*written)
        write_tensors(path, kept, about, SNAPSHOT, self.run_id)
        metrics.append(kind="evaluation", iteration=state.iteration, accuracy=found, best=best)
        if accuracy is not None:
            stage.advance(0, accuracy=percent(accuracy))
        if self.callbacks:
            # Copies, because the loop goes on in place.
            x, y, f = state.average.clone(), state.labels.clone(), state.weights.clone()
            rest = (tensors["maps"], f, accuracy, best, state.last_loss, state.skipped)
            for callback in self.callbacks:
                callback(Snapshot(state.iteration, x, y, state.syn_lr.item(), *rest))


def thinned(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """Tensors and header of a snapshot with X, Y, maps and weights of so many images, evenly, that X has `LOOKED_AT` bytes.

    `positions` in the header says which; a snapshot that has no more stays as it is.
    """
    images = tensors["X"]
    count = max(1, LOOKED_AT // (4 * images[0].numel()))
    if count >= len(images):
        return tensors, header
    index = torch.arange(count) * len(images) // count
    few = {name: tensors[name][index.to(images.device)] for name in ("X", "Y", "maps", "weights")}
    return few | {"syn_lr": tensors["syn_lr"]}, {**header, "positions": index.tolist()}


def _check_shapes(gradients: Gradients, state: OuterState) -> None:
    """Raise `UsageError` for a gradient of another shape, which would be spread over all that it is subtracted from."""
    for name in ("images", "labels", "syn_lr"):
        found, wanted = (tuple(getattr(owner, name).shape) for owner in (gradients, state))
        if found != wanted:
            raise UsageError(f"method: the gradient by {name} has shape {found}, not {wanted}")


def _sgd(value: Tensor, velocity: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
    velocity.mul_(momentum).add_(gradient)
    value.sub_(velocity, alpha=lr)


def _comparison(gradient: Tensor, plain: Tensor | None) -> dict[str, float]:
    assert plain is not None, "a comparison was made without the plain gradient"
    cosine = cosine_similarity(gradient.flatten(), plain.flatten(), dim=0).item()
    return {"cosine": cosine, "norm_ratio": (gradient.norm() / plain.norm()).item()}


def _rescaled(gradient: Tensor, plain: Tensor | None) -> Tensor:
    """`gradient` with the norm of `plain`."""
    assert plain is not None, "the norm was to be matched without the plain gradient"
    norm = gradient.norm()
    return gradient * torch.where(norm > 0, plain.norm() / norm, 1.0)


def _read(values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """The same with numbers in the place of tensors."""
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in values.items()}


def _finite(value: Tensor) -> float | None:
    number = value.item()
    return number if math.isfinite(number) else None
