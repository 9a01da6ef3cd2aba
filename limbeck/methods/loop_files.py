"""The files of an outer loop: checkpoints, snapshots and metrics, which rank 0 reads and writes."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.distilled.small_set import SmallSet
from limbeck.matching.spread import Spread
from limbeck.methods.checkpoints import Checkpoints
from limbeck.methods.holding import collected
from limbeck.methods.snapshots import STORED, Snapshots
from limbeck.methods.state import OuterState
from limbeck.parametrisations.parametrisation import Code, Decoder
from limbeck.runtime.errors import UsageError
from limbeck.runtime.metrics import MetricsLog
from limbeck.runtime.room import vanished
from limbeck.runtime.sealed import Damaged


@dataclass(frozen=True)
class LoopFiles:
    """Those in the folder of a run.

    Args:
        folder: of the run.
        of: the run, as its files name it.
        say: takes a note for people.
        spread: how X lies on the ranks of the run.
        decoder: what leads from what is stored to X.
        heard: called with each row of `metrics.jsonl`, once it is written.
    """

    folder: Path
    of: str
    say: Callable[[str], None]
    spread: Spread = Spread()
    heard: Callable[[dict[str, Any]], None] | None = None
    decoder: Decoder = Decoder()

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """From which a stopped run goes on."""
        return Checkpoints(self.folder, self.of, self.say, self.decoder)

    @cached_property
    def snapshots(self) -> Snapshots:
        """One for every evaluation."""
        return Snapshots(self.folder, self.of)

    @cached_property
    def metrics(self) -> MetricsLog:
        """A row for every iteration and evaluation."""
        return MetricsLog(self.folder / "metrics.jsonl", self.of, self.heard)

    def begun(self, device: torch.device) -> OuterState | None:
        """The state of the checkpoint, and the metrics as they were then; None where there is none, and no metrics."""
        state = self.checkpoints.load(device)
        iteration = 0 if state is None else state.iteration
        if 0 < (noted := self.metrics.keep_until(iteration)) < iteration:
            self.say(f"note: metrics.jsonl has lost what was noted of iterations {noted} to {iteration - 1}")
        return state

    def save(self, state: OuterState) -> None:
        """Write the checkpoint, and leave of snapshots what is needed: the first, and what the checkpoints go back to."""
        held = collected(state, self.spread)
        if not self.spread.ranks.first:
            return
        if state.iteration > 0 and not (self.folder / "metrics.jsonl").exists():
            raise vanished(self.folder)  # to make it anew would hide that all else is lost
        self.metrics.sync()
        self.checkpoints.save(held)
        self.thin(held.decoded, self.checkpoints.needed())

    def thin(self, images: Tensor, needed: set[int]) -> None:
        """Leave of snapshots of sets as large as that a few images, but for the first and those after that many iterations."""
        if self.spread.ranks.first:
            self.snapshots.thin(images, needed)

    def note(self, **row: Any) -> None:
        """Note something in the metrics."""
        if self.spread.ranks.first:
            self.metrics.append(**row)

    def held(self, iteration: int, state: OuterState) -> Mapping[str, Tensor]:
        """The tensors of a snapshot to return to.

        Raises:
            DiskFailure: when it is gone.
            UsageError: when it is not what was written.
        """
        try:
            found = self._read(iteration, state.images.device)
        except FileNotFoundError as error:
            raise vanished(self.snapshots.path(iteration)) from error
        except Damaged as error:
            raise self._broken(self.snapshots.path(iteration), error) from error
        return {name: found[name] for name in ("X", "Y", "syn_lr", "weights", STORED) if name in found}

    def _read(self, iteration: int, device: torch.device) -> Mapping[str, Tensor]:
        """The tensors of a snapshot, among them what X is decoded from."""
        found = self.snapshots.read(iteration, device)
        if self.decoder.trivial:
            return found
        if STORED not in found:
            raise Damaged(f"it lacks {STORED}")
        if (wrong := self.decoder.problem(found[STORED])) is not None:
            raise Damaged(wrong)
        return found

    def best(self, state: OuterState, start: SmallSet) -> SmallSet:
        """What has become of `start`: X, Y and η of the best evaluation, from its snapshot or, where that is lost, its checkpoint.

        Raises:
            UsageError: when both are damaged.
        """
        assert state.best is not None, "a loop that has ended has been evaluated"
        iteration, path = state.best.iteration, self.snapshots.path(state.best.iteration)
        try:
            held = self._read(iteration, state.images.device)
            x, y, eta, stored = held["X"], held["Y"], held["syn_lr"], held.get(STORED)
        except (OSError, Damaged) as error:
            try:
                best = self.checkpoints.load_best(iteration, state.images.device)
            except (OSError, Damaged):
                raise self._broken(path, error) from error
            what = "is gone" if isinstance(error, FileNotFoundError) else f"is broken ({error})"
            self.say(f"warning: {str(path)!r} {what}; its images are taken from {self.checkpoints.best.name}")
            stored, y, eta = best.average, best.labels, best.syn_lr
            x = self.decoder(stored)
        code = None if self.decoder.trivial or stored is None else Code(self.decoder, stored)
        return replace(start, images=x, labels=y, syn_lr=eta.item(), code=code)

    def best_is_lost(self, state: OuterState) -> bool:
        """Whether neither the best snapshot nor its checkpoint is there."""
        if state.best is None or self.snapshots.path(state.best.iteration).exists():
            return False
        with suppress(OSError, Damaged):
            self.checkpoints.load_best(state.best.iteration, state.images.device)
            return False  # from where it is taken
        if state.best.accuracy is not None:
            best = f"{str(self.snapshots.path(state.best.iteration))!r}, the best set so far ({100 * state.best.accuracy:.1f} %)"
            self.say(f"warning: {best}, is gone; the best of what follows is taken")
        return True

    def _broken(self, path: Path, error: Exception) -> UsageError:
        advice = f"delete {self.checkpoints.last.name} and those beside it, and the distillation starts anew"
        return UsageError(f"output: {str(path)!r} is broken ({error}); {advice}")
