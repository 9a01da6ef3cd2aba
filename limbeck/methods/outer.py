"""The one outer loop: from gradients of L to changes of X, Y and η.

    v_P ← μ_P v_P + J_Dᵀ (∇X ∘ F)      P ← P − lr_img v_P        X = D(P)
    v_Y ← μ_Y v_Y + ∇Y                 Y ← Y − lr_label v_Y
    v_η ← μ_η v_η + ∂L/∂η              η ← max(η − lr_lr v_η, 10⁻⁶)

P is what a set stores of its images X (`parametrisations/`), as a rule X itself.

An iteration whose loss exceeds `max_match_loss`, or is not finite, changes nothing; where too many do, the loop returns to an
earlier state with smaller steps, and at last fails (`health.py`). Every `eval.every` iterations the set is evaluated on the
validation split and a snapshot written; the best one is the result.

On several ranks all go through the loop, with the same X, Y and η or each with its images (`holding.py`), and share the networks
of an evaluation; rank 0 alone reads and writes, and says what has come of it. An iteration ends on all of them with the question
whether anybody is to stop.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.accuracy import Accuracy, percent
from limbeck.distilled.initial import LEAST_SYN_LR
from limbeck.distilled.small_set import SmallSet
from limbeck.matching.adjoint import Gradients
from limbeck.matching.spread import Spread
from limbeck.methods.descent import adamw, sgd
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
from limbeck.methods.holding import collected, comparison, handed_out, infinite, norm, of_rank_0, rescaled, sizes_of, spread_out
from limbeck.methods.loop_files import LoopFiles
from limbeck.methods.objective import Objective, Update
from limbeck.methods.settings import OuterSettings
from limbeck.methods.snapshots import STORED, Callback, Snapshot
from limbeck.methods.state import Best, OuterState
from limbeck.parametrisations.parametrisation import Decoder
from limbeck.runtime.errors import Failure, RankLost, UsageError
from limbeck.runtime.interruption import asked, finishing, stop, stoppable
from limbeck.runtime.progress import NoProgress, NoStage, Progress, Stage
from limbeck.runtime.ranks import together
from limbeck.training.train import RETURNS

# A second walk back costs about 0.7 of an iteration: once in fifty is 1.4 % of the time.
COMPARE_EVERY = 50

Evaluate = Callable[[Tensor, Tensor, float], Accuracy | None]


@dataclass(frozen=True)
class OuterLoop:
    """Runs an objective.

    Args:
        objective: gives the gradients.
        enhancement: gives the weights F.
        settings: the keys `outer.*`.
        evaluate: accuracy on the validation split of (X, Y, η), asked of all ranks together; None, or what returns it, where
            nothing is to be chosen: the last iterate is the result.
        every: iterations between two evaluations.
        match_norm: rescale ∇X to the norm it has without criterion and weights.
        folder: where checkpoints, snapshots and metrics are written.
        progress: where to report.
        callbacks: called at every evaluation, once its snapshot is written.
        run_id: what the files say that they belong to.
        heard: called with each row of `metrics.jsonl`, once it is written.
        spread: how batches, and X with its labels, lie on the ranks of the run.
        decoder: D.
    """

    objective: Objective
    enhancement: Enhancement
    settings: OuterSettings
    evaluate: Evaluate | None
    every: int
    match_norm: bool
    folder: Path
    progress: Progress = NoProgress()  # noqa: RUF009 (it has no state)
    callbacks: Sequence[Callback] = ()
    run_id: str = ""
    heard: Callable[[dict[str, Any]], None] | None = None
    spread: Spread = Spread()
    decoder: Decoder = Decoder()

    @cached_property
    def files(self) -> LoopFiles:
        """What is written."""
        return LoopFiles(self.folder, self.run_id, self.progress.say, self.spread, self.heard, self.decoder)

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.spread.ranks.first

    def run(self, images: Tensor, labels: Tensor, syn_lr: float) -> OuterState:
        """Go on from the checkpoint, or start from P, Y and η; return the final state, its `best` naming the snapshot to take.

        Args:
            images: P, on the device; of ranks other than 0 only the device counts.
            labels: Y.
            syn_lr: η.

        Raises:
            UsageError: when what it starts from is not finite.
            Failure: when the loop does not get on.
        """
        state = handed_out(self._begun(images, labels, syn_lr) if self.first else None, self.spread, images.device)
        if not state.health.sizes:
            state.health = replace(state.health, sizes=sizes_of(state, self.spread))
        self._look_for_best(state)
        in_common = nullcontext() if self.spread.ranks.alone else finishing()  # who ends by itself leaves the others waiting
        with stoppable(), in_common, self.progress.stage("distil", self.settings.iterations, state.iteration) as stage:
            while state.iteration < self.settings.iterations:
                if state.iteration % self.settings.checkpoint_every == 0:
                    self.files.save(state)
                with self._saved_when_stopped(state):
                    if state.iteration % self.every == 0:
                        self._evaluate(state, stage)
                    with finishing():
                        self._iterate(state, stage)
                        stops = self.spread.ranks.any(asked())
                    if stops:
                        stop()
            self._check_enough(state)
            self.files.save(state)
            with self._saved_when_stopped(state):
                self._evaluate(state, stage)
            self.files.thin(state.decoded, {state.best.iteration} if state.best else set())  # there is nothing more to return for
        return state

    def _begun(self, images: Tensor, labels: Tensor, syn_lr: float) -> OuterState:
        """The state of the checkpoint, or that before the first iteration."""
        if (state := self.files.begun(images.device)) is not None:
            return state
        check_start(images, labels)
        return OuterState.start(images, labels, syn_lr, self.objective.init(), self.decoder, adamw=self.settings.adamw)

    def best(self, state: OuterState, start: SmallSet) -> SmallSet:
        """What has become of `start`: X, Y and η of the best evaluation.

        Raises:
            UsageError: when the files that have them are damaged.
        """
        return self.files.best(state, start)

    @contextmanager
    def _saved_when_stopped(self, state: OuterState) -> Iterator[None]:
        """Write the checkpoint when the block is left because the run is to end: as it was before it, or after its iteration."""
        iteration, best, weights, health = state.iteration, state.best, state.weights, state.health
        try:
            yield
        except (KeyboardInterrupt, SystemExit, RankLost) as error:
            if state.iteration == iteration:
                state.best, state.weights, state.health = best, weights, health  # what went before the iteration is made again
            if self._can_save(state, lost=isinstance(error, RankLost)):
                self.files.save(state)
                self.progress.say(f"stopped after {state.iteration} of {self.settings.iterations} iterations, which are kept")
            raise

    def _can_save(self, state: OuterState, lost: bool) -> bool:
        """Whether what there is can be gone on from; of a sharded X only where all shards are of one iteration."""
        if not self.spread.sharded:
            return state.whole
        if lost:
            return False
        with suppress(Failure):
            self.spread.ranks.forget()  # what they wait for here and there, which may be different things
            all_there = self.spread.ranks.gathered(lambda: (state.iteration, state.whole))
            return len(set(all_there)) == 1 and state.whole
        return False

    def _look_for_best(self, state: OuterState) -> None:
        """Where somebody has removed the best snapshot, to make room perhaps, the best of what follows takes its place."""
        if state.best is None or not self.spread.ranks.told(lambda: self.files.best_is_lost(state)):
            return
        state.best = None
        if state.iteration % self.every and state.iteration < self.settings.iterations:  # else it is evaluated anyway
            self._evaluate(state)

    def _iterate(self, state: OuterState, stage: Stage) -> None:
        began, iteration = time.perf_counter(), state.iteration
        update, weighted, d_images = self.gradients(state)
        if self._compares(iteration) and iteration % COMPARE_EVERY == 0:
            self.files.note(kind="comparison", iteration=iteration, **comparison(self.spread, weighted, update.plain))
        cause = self._cause(state, update, d_images)
        state.whole = False  # who stops now has nothing that could be gone on from
        if not cause:
            self.apply(state, update, d_images)
        now = sizes_of(state, self.spread)
        cause = cause or GREW.get(absurd(state.health.sizes, now), "")
        state.health, skipped = self._judged(state, update, cause), bool(cause)
        if cause in GREW.values() or state.health.too_many:
            self._return(state, cause if cause in GREW.values() else state.health.cause, now)
        state.iteration += 1
        state.skipped += skipped
        state.kept_share, state.last_loss = _read(update.kept_share), _finite(update.gradients.loss)
        self.files.note(
            kind="iteration",
            iteration=iteration,
            loss=update.gradients.loss.item(),
            grad_norm_images=norm(self.spread, d_images),
            grad_norm_labels=norm(self.spread, update.gradients.labels),
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
        """What the objective says, J_Dᵀ (∇X ∘ F), and the latter as P is moved by it; only shapes are looked at, no values.

        What a criterion and weights change is compared where it counts, in what is moved: `plain` comes back as J_Dᵀ of it.
        """
        x = state.decoded
        if state.iteration % self.enhancement.every == 0:
            state.weights = self._weights(x, state.iteration)
        compare, at = self._compares(state.iteration), (x, state.labels, state.syn_lr, state.iteration)
        update = self.objective.gradients(state.objective, *at, plain=compare)
        _check_shapes(update.gradients, x, state)
        if not self.objective.shared:
            update = of_rank_0(update, self.spread)
        weighted = self.decoder.carried(state.images, update.gradients.images * state.weights)
        if update.plain is not None:
            update = replace(update, plain=self.decoder.carried(state.images, update.plain))
        return update, weighted, rescaled(self.spread, weighted, update.plain) if self.match_norm and compare else weighted

    def _weights(self, x: Tensor, iteration: int) -> Tensor:
        """F: computed once, or by each rank of the images that it holds."""
        ranks, enhancement = self.spread.ranks, self.enhancement
        if self.spread.sharded:
            enhancement = replace(enhancement, classes=enhancement.classes[self.spread.rows])
        elif enhancement.active and not ranks.alone:
            weights = enhancement.weights(x, iteration) if ranks.first else x[:, :1].clone()
            ranks.broadcast_(weights := weights.contiguous())
            return weights
        return enhancement.weights(x, iteration)

    def _compares(self, iteration: int) -> bool:
        """Whether the plain gradient is asked for too."""
        differs = self.objective.has_criterion or self.enhancement.active
        return differs and (self.match_norm or iteration % COMPARE_EVERY == 0)

    def _cause(self, state: OuterState, update: Update, d_images: Tensor) -> str:
        """Why an iteration changes nothing, in words; empty where it may."""
        gradients = update.gradients
        moved = d_images.square() if self.settings.adamw else d_images  # which AdamW keeps the mean of
        looked_at = (gradients.loss, moved, *(getattr(gradients, name) for name in BY))
        if any(broken := infinite(self.spread, *looked_at)):
            causes = [cause for cause, found in zip(BY.values(), broken[2:], strict=True) if found]
            cause = [LOSS] if broken[0] else causes or [WEIGHTED]
            return self.objective.broken(state.objective, state.decoded, state.iteration) or cause[0]
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

    def _return(self, state: OuterState, cause: str, now: tuple[float, ...]) -> None:
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
        held = spread_out(self.files.held(to, state) if self.first else None, self.spread, state.images.device)
        state.back_to(held, self.objective.init(), averaged=self.settings.ema_decay is not None)
        state.weights = self._weights(state.decoded, state.iteration + 1)  # what was held may be from before the first maps
        state.health = health.returned(state.iteration, to, why)
        self.files.note(kind="return", iteration=state.iteration, to=to, step=state.health.step, why=why)
        then = f"takes what it had after {to} iterations and goes on with {state.health.step:g} of its step sizes"
        self.progress.say(f"warning: {why}: the loop {then}")

    def _check_enough(self, state: OuterState) -> None:
        """Raise `Failure` for a loop most of whose iterations have changed nothing; of a few, that says little."""
        if 2 * state.skipped > state.iteration >= IN_A_ROW and state.health.causes:
            why = f"{state.skipped} of {state.iteration} iterations changed nothing"
            raise self._failure(state, state.health.cause, why, sizes_of(state, self.spread), state.skipped == state.iteration)

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
        """Change P by that gradient, Y, η and the objective's state by what the objective says."""
        s, step = self.settings, state.health.step
        if s.adamw:
            adamw(state.images, state.images_moments, d_images, step * s.lr_img, s.img_betas, s.img_weight_decay)
        else:
            sgd(state.images, state.images_velocity, d_images, step * s.lr_img, s.img_momentum)
        if update.labels is not None:
            state.labels = update.labels
        sgd(state.labels, state.labels_velocity, update.gradients.labels, step * s.lr_label, s.label_momentum)
        sgd(state.syn_lr, state.syn_lr_velocity, update.gradients.syn_lr, step * s.lr_lr, s.lr_momentum)
        state.syn_lr.clamp_min_(LEAST_SYN_LR)
        state.objective = update.state
        if s.ema_decay is None:
            state.average = state.images
        else:
            state.average = s.ema_decay * state.average + (1 - s.ema_decay) * state.images

    def _evaluate(self, state: OuterState, stage: Stage = NoStage()) -> None:
        held, device = collected(state, self.spread), state.images.device
        decoded = self.decoder(held.average)
        found = None if self.evaluate is None else self._accuracy(self.evaluate, decoded, held, device)
        accuracy, before = None if found is None else found.mean, None if state.best is None else state.best.accuracy
        best = accuracy is None or before is None or accuracy > before
        if best:
            if self.first:
                self.files.checkpoints.save_best(held, state.best)
            state.best = Best(state.iteration, accuracy)
        state.health = state.health.looked(state.iteration)
        if not self.first:
            return
        tensors = {"X": decoded, "Y": held.labels, "syn_lr": held.syn_lr, "weights": held.weights}
        tensors["maps"] = self.enhancement.maps(decoded.to(device), state.iteration)
        if not self.decoder.trivial:
            tensors[STORED] = held.average
        header = {"iteration": state.iteration, "accuracy": found, "kept_share": state.kept_share, "loss": state.last_loss}
        self.files.snapshots.write(state.iteration, tensors, header, whole=best or state.iteration in (0, state.health.good))
        self.files.note(kind="evaluation", iteration=state.iteration, accuracy=found, best=best)
        if accuracy is not None:
            stage.advance(0, accuracy=percent(accuracy))
        if self.callbacks:
            # Copies, because the loop goes on in place.
            x, y, f = decoded.clone(), held.labels.clone(), held.weights.clone()
            rest = (tensors["maps"], f, accuracy, best, state.last_loss, state.skipped)
            for callback in self.callbacks:
                callback(Snapshot(state.iteration, x, y, state.syn_lr.item(), *rest))

    def _accuracy(self, evaluate: Evaluate, decoded: Tensor, held: OuterState, device: torch.device) -> Accuracy | None:
        """What all ranks find of the set that rank 0 has as a whole."""
        own = {"X": decoded, "Y": held.labels, "syn_lr": held.syn_lr}
        found = spread_out(own if self.first else None, Spread(self.spread.ranks), device)
        with together():
            return evaluate(found["X"].to(device), found["Y"].to(device), found["syn_lr"].item())


def _check_shapes(gradients: Gradients, x: Tensor, state: OuterState) -> None:
    """Raise `UsageError` for a gradient of another shape, which would be spread over all that it is subtracted from."""
    for name, value in (("images", x), ("labels", state.labels), ("syn_lr", state.syn_lr)):
        found, wanted = tuple(getattr(gradients, name).shape), tuple(value.shape)
        if found != wanted:
            raise UsageError(f"method: the gradient by {name} has shape {found}, not {wanted}")


def _read(values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """The same with numbers in the place of tensors."""
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in values.items()}


def _finite(value: Tensor) -> float | None:
    number = value.item()
    return number if math.isfinite(number) else None
