"""One expert's files: what they hold, what remains to be trained for what is wanted, and how that is written meanwhile.

A checkpoint is there when a file holds it precisely enough and comes from the same training as the one before it. Where it is
missing, training goes on from the last exact θ before it, with what the optimiser held then.

A block of checkpoints is written as soon as it is full or the epoch after is not wanted; on the way to an epoch far ahead, θ and
what the optimiser holds are written every few epochs. A training that is killed therefore goes on from at most a block's epochs
back, and ends with the same bits.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from limbeck.experts.blocks import BLOCK, BLOCK_NAME, POINT_NAME, UNREADABLE, Block, Point, broken, write_block, write_point
from limbeck.experts.coding import CODINGS
from limbeck.experts.elsewhere import Elsewhere
from limbeck.runtime.claims import Claim
from limbeck.runtime.errors import DiskFailure, Failure
from limbeck.runtime.files import digest, read_json
from limbeck.runtime.locks import Lock, lock
from limbeck.runtime.sealed import FileKind

ACCURACIES = FileKind("accuracies of an expert")
COPIES = 4  # of a block while it is written: its checkpoints one by one, stacked, encoded, and as bytes
ACCURACY = "accuracy.json"  # of epochs whose files were removed


class NotHeld(DiskFailure, KeyError):
    """A checkpoint that is not there: it was never trained, or removed since."""

    __str__ = Exception.__str__  # a key error shows the representation of what it is given


@dataclass(frozen=True)
class Restart:
    """Where training goes on.

    Args:
        epoch: epochs trained so far.
        theta: θ after them, float32 with shape (P,), on the CPU.
        state: the optimiser's tensors.
        accuracy: by epoch, of those that no block has noted.
        point: where the optimiser's tensors were read from; None where it has none.
    """

    epoch: int
    theta: Tensor
    state: tuple[Tensor, ...] = ()
    accuracy: Mapping[int, float] = field(default_factory=dict)
    point: Point | None = None


@dataclass(frozen=True)
class Job:
    """Training of one expert without a stop.

    Args:
        expert: its number.
        start: epochs trained so far; 0 begins with the initial parameters, unless there is a `restart`.
        keep: the epochs to write, in order; the last one ends the job.
        restart: where to go on; None begins with the initial parameters.
    """

    expert: int
    start: int
    keep: tuple[int, ...]
    restart: Restart | None

    @property
    def stop(self) -> int:
        """The last epoch to train."""
        return self.keep[-1]


class Shelf:
    """The folder of one expert, as it was when it was last looked at.

    Args:
        folder: such as `expert-0003`, of a store.
        num_parameters: P.
        store: what its files say of the store that they belong to.
        elsewhere: where the store is, when the folder is a copy.
    """

    def __init__(self, folder: Path, num_parameters: int, store: str = "", elsewhere: Elsewhere | None = None) -> None:
        self.folder, self.num_parameters, self.elsewhere = folder, num_parameters, elsewhere
        self.of = f"{store} {folder.name}" if store else ""
        self.expert = int(folder.name.removeprefix("expert-"))
        self.blocks: list[Block] = []
        self.points: list[Point] = []
        self.left: dict[Path, int] = {}  # files that are broken, with their time of change
        self.look()

    def look(self) -> None:
        """See what is there now."""
        if self.elsewhere is not None and self.elsewhere.look(self.folder):
            self.blocks = []
        fetch = {} if self.elsewhere is None else {"fetch": self.elsewhere.whole}
        paths = [path for path in sorted(self.folder.glob("[es]*.safetensors")) if self.left.get(path) != _changed(path)]
        known = {block.path: block for block in self.blocks}
        found = [known.get(path) or Block.at(path, self.of, **fetch) for path in paths if BLOCK_NAME.fullmatch(path.name)]
        self.blocks = sorted(found, key=lambda block: (-block.generation, block.first))
        self.points = [Point.at(path, self.of) for path in paths if POINT_NAME.fullmatch(path.name)]

    def leave(self, path: Path) -> None:
        """Take no notice any more of a file that is broken, until another one is in its place."""
        if self.elsewhere is not None and path not in self.left:
            path.unlink(missing_ok=True)  # the copy may be what is broken: it is fetched again
        self.left[path] = _changed(path)
        self.blocks = [block for block in self.blocks if block.path != path]
        self.look()

    def lock(self) -> Lock | Claim:
        """Held by whoever writes here; reading needs none."""
        return lock(self.folder) if self.elsewhere is None else self.elsewhere.claim(self.folder)

    def publish(self) -> None:
        """Have what was trained where the store is, when the folder is a copy; the caller holds the lock."""
        if self.elsewhere is not None and not self.elsewhere.publish(self.folder):
            self.blocks = []
            self.look()

    def tidy(self) -> None:
        """Have all here that training goes on from, without what a crash has left half written; the caller holds the lock."""
        if self.elsewhere is not None:
            self.elsewhere.complete(self.folder)
            self.look()
        for path in self.folder.glob(".*.part"):
            path.unlink(missing_ok=True)

    def find(self, epoch: int) -> Block | None:
        """The block that supplies `epoch`: of those that hold it, the one written last."""
        return next((block for block in self.blocks if block.first <= epoch <= block.last and epoch in block.epochs), None)

    def held(self) -> list[int]:
        """The epochs that can be read, in order."""
        return sorted({epoch for block in self.blocks for epoch in block.epochs})

    def read(self, epoch: int) -> Tensor:
        """θ*_epoch, float32 with shape (P,), on the CPU.

        Raises:
            NotHeld: when it is not there.
            UsageError: when its file is broken.
        """
        for _ in range(2):  # a file that was there may have been pruned since, and another one have taken its place
            block = self.find(epoch)
            try:
                if block is not None:
                    return self._checked(block, block.read(epoch))
            except FileNotFoundError:
                pass
            self.blocks = []
            self.look()
        raise NotHeld(f"expert {self.expert}, epoch {epoch}: {str(self.folder)!r} does not hold it (any more); train it again")

    def accuracy(self) -> dict[int, float]:
        """Accuracies by epoch."""
        try:
            noted = {int(epoch): float(value) for epoch, value in read_json(self.folder / ACCURACY, ACCURACIES, self.of).items()}
        except FileNotFoundError:
            noted = {}
        except (OSError, *UNREADABLE) as error:
            lost = "delete it, and only the accuracies of epochs that were removed are lost"
            raise broken(self.folder / ACCURACY, error, lost) from error
        for block in reversed(self.blocks):
            noted |= block.header.accuracy
        return dict(sorted(noted.items()))

    def missing(self, wanted: Iterable[int], coding: str = "fp16") -> list[int]:
        """Those of the epochs `wanted` that are not held at least as exactly as by `coding`, or not from one training."""
        rank, found = CODINGS[coding].rank, {epoch: self.find(epoch) for epoch in wanted}
        held = [
            epoch for epoch, block in found.items() if block and CODINGS[block.header.coding].rank >= rank and self.continues(block)
        ]
        return sorted(found.keys() - held)

    def job(self, wanted: Iterable[int], coding: str) -> Job | None:
        """What to train first; None when nothing is missing."""
        missing = self.missing(wanted, coding)
        if not missing:
            return None
        point = self._restart_before(missing[0])
        start, stop = (0 if point is None else point[0]), missing[0]
        for epoch in missing[1:]:
            nearer = self._restart_before(epoch)
            if nearer is not None and nearer[0] > stop:
                break
            stop = epoch
        first = start if point is None else start + 1
        # Whatever lies between is written again, so that all of it comes from one training.
        keep = tuple(epoch for epoch in sorted({*wanted, *self.held()}) if first <= epoch <= stop)
        return Job(self.expert, start, keep, None if point is None else self._restart(*point))

    def next_generation(self, epochs: Iterable[int]) -> int:
        """A generation above that of every file that may hold one of `epochs`."""
        first, last = min(epochs), max(epochs)
        return max((block.generation + 1 for block in self.blocks if block.first <= last and first <= block.last), default=0)

    def continues(self, block: Block) -> bool:
        """Whether a block starts where the one before it ends, as far as is known."""
        before = self.find(block.first - 1)
        known = before is not None and block.header.after is not None and before.last == block.first - 1
        return not known or before.header.end == block.header.after  # type: ignore[union-attr]

    def _restart_before(self, epoch: int) -> tuple[int, Point | None] | None:
        """The last exact θ before `epoch` that training can go on from: its epoch, and its point where there is one."""
        points = {point.epoch: point for point in self.points if point.epoch < epoch}
        candidates: list[tuple[int, Point | None]] = [(at, point) for at, point in points.items() if point.theta is not None]
        for block in self.blocks:
            if block.last < epoch and self.find(block.last) is block:
                point = points.get(block.last)
                whole = point is not None and len(point.state) == block.header.state and point.header.end == block.header.end
                if whole or block.header.state == 0:
                    candidates.append((block.last, point if whole else None))
        return max(candidates, key=lambda candidate: candidate[0], default=None)

    def _restart(self, epoch: int, point: Point | None) -> Restart:
        if point is not None and point.theta is not None:
            end, theta, source = point.header.end, point.theta, point.path
        else:
            block = self.find(epoch)
            assert block is not None, "training goes on from what is held"
            end, theta, source = block.header.end, self.read(epoch), block.path
        if digest(theta) != end:
            raise broken(source, ValueError("θ has changed"))
        if point is None:
            return Restart(epoch, theta)
        return Restart(epoch, theta, point.state, point.header.accuracy, point)

    def _checked(self, block: Block, theta: Tensor) -> Tensor:
        if theta.shape != (self.num_parameters,):
            raise broken(block.path, ValueError(f"it has {len(theta)} parameters, not {self.num_parameters}"))
        return theta


def _changed(path: Path) -> int:
    """When a file was last changed; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def held_bytes(num_parameters: int, epochs: int) -> int:
    """Memory that the training of an expert takes beside its images: θ, a gradient, what the optimiser holds, and a block.

    Args:
        num_parameters: P.
        epochs: that are trained.
    """
    return 4 * num_parameters * (3 + COPIES * min(BLOCK, epochs + 1))


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
            about = (self.after, noted, len(state), self.shelf.of)
            write_block(self.shelf.folder, thetas, self.coding, self.generation, *about)
        except ValueError as error:
            raise self._diverged(epoch) from error
        # At the end of a run the point stays: further epochs may be asked for one day.
        self._advance(epoch, point if epoch + 1 in self.keep else None)

    def _point(self, epoch: int, theta: Tensor, state: Sequence[Tensor], *, with_theta: bool) -> Point:
        theta = theta.detach().to("cpu", torch.float32)
        held = [tensor.detach().cpu() for tensor in state]
        if not all(bool(tensor.isfinite().all()) for tensor in (theta, *held)):
            raise self._diverged(epoch)
        return write_point(self.shelf.folder, epoch, theta, held, self.accuracy, with_theta=with_theta, of=self.shelf.of)

    def _advance(self, epoch: int, point: Point | None) -> None:
        if self.passed is not None:
            self.passed.path.unlink(missing_ok=True)
        self.durable, self.passed = epoch, point

    def _diverged(self, epoch: int) -> Failure:
        return Failure(f"expert {self.shelf.expert} diverged by epoch {epoch}: its parameters are not finite")
