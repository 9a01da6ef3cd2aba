"""Writes what is to be kept of a training while it goes on.

A block of checkpoints is written as soon as it is full or the epoch after is not wanted; on the way to an epoch far ahead, θ and
what the optimiser holds are written every few epochs. A training that is killed therefore goes on from at most a block's epochs
back, and ends with the same bits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.experts.blocks import BLOCK, Point, digest, write_block, write_point
from limbeck.experts.files import Job, Shelf
from limbeck.runtime.errors import Failure


class Recorder:
    """Takes θ after every epoch of a job and writes what the job is to keep.

    Args:
        shelf: the expert's, whose lock the caller holds.
        job: what is trained.
        coding: of the checkpoints.
    """

    def __init__(self, shelf: Shelf, job: Job, coding: str) -> None:
        self.shelf, self.keep, self.coding = shelf, frozenset(job.keep), coding
        self.stop, self.durable = job.stop, job.start
        self.generation = shelf.next_generation(job.keep)
        self.kept: dict[int, Tensor] = {}
        self.accuracy: dict[int, float] = {}
        self.after: str | None = None
        self.passed: Point | None = None  # what is of no use once training has come further
        if job.restart is not None:
            self.accuracy, self.after = dict(job.restart.accuracy), digest(job.restart.theta)
            point = job.restart.point
            if point is not None and (point.theta is not None or job.start + 1 in self.keep):
                self.passed = point

    def record(self, epoch: int, theta: Tensor, accuracy: float | None = None, state: Sequence[Tensor] = ()) -> None:
        """Take θ after `epoch` (0: before the first), to be called for every epoch after the one the job starts from.

        Args:
            epoch: epochs trained so far.
            theta: float32 with shape (P,), on any device; copied where it is kept.
            accuracy: on the validation split, if it was measured.
            state: the optimiser's tensors without which training cannot go on; copied where they are kept.

        Raises:
            Failure: when θ is not finite and would be kept.
        """
        if accuracy is not None:
            self.accuracy[epoch] = accuracy
        ahead = epoch + 1 in self.keep
        if epoch in self.keep:
            self.kept[epoch] = theta.detach().to("cpu", torch.float32, copy=True)
            if len(self.kept) == BLOCK or not ahead:
                self._write(epoch, state)
        elif epoch < self.stop and epoch - self.durable >= BLOCK:
            self._advance(epoch, self._point(epoch, theta, state, with_theta=True))
        if ahead and not self.kept:
            self.after = digest(theta)

    def _write(self, epoch: int, state: Sequence[Tensor]) -> None:
        thetas, noted, self.kept, self.accuracy = self.kept, self.accuracy, {}, {}
        # The optimiser's tensors first: without its block a point is ignored, without its point a block is where nothing goes on.
        point = self._point(epoch, thetas[epoch], state, with_theta=False) if state else None
        try:
            write_block(self.shelf.folder, thetas, self.coding, self.generation, after=self.after, accuracy=noted, state=len(state))
        except ValueError as error:
            raise self._diverged(epoch) from error
        # At the end of a run the point stays: further epochs may be asked for one day.
        self._advance(epoch, point if epoch + 1 in self.keep else None)

    def _point(self, epoch: int, theta: Tensor, state: Sequence[Tensor], *, with_theta: bool) -> Point:
        theta = theta.detach().to("cpu", torch.float32)
        held = [tensor.detach().cpu() for tensor in state]
        if not all(bool(tensor.isfinite().all()) for tensor in (theta, *held)):
            raise self._diverged(epoch)
        return write_point(self.shelf.folder, epoch, theta, held, self.accuracy, with_theta=with_theta)

    def _advance(self, epoch: int, point: Point | None) -> None:
        if self.passed is not None:
            self.passed.path.unlink(missing_ok=True)
        self.durable, self.passed = epoch, point

    def _diverged(self, epoch: int) -> Failure:
        return Failure(f"expert {self.shelf.expert} diverged by epoch {epoch}: its parameters are not finite")
