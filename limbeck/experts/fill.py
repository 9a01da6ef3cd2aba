"""Filling a store: which experts and epochs are wanted, who trains which expert, and that nobody trains one twice.

Any number of processes, on any number of machines that share a file system, may fill one store. Each takes the lock of an expert,
looks again at what is there, trains what is missing and gives the lock back; the lock of a process that dies is free. `--shard
i/n` only decides which experts a process takes.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from filelock import Timeout

from limbeck.experts.epochs import text_of
from limbeck.experts.files import Job
from limbeck.experts.settings import ExpertSettings
from limbeck.runtime.errors import Failure, UsageError, require

if TYPE_CHECKING:
    from limbeck.experts.store import TrajectoryStore

PATIENCE = 1.0  # seconds between two looks at experts that others train


@dataclass(frozen=True, slots=True)
class Shard:
    """The experts number, number + count, … of all: one of `count` shares, `number` from 1."""

    number: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> "Shard":
        """`2/4`, the second of four.

        Raises:
            UsageError: for anything else.
        """
        matched = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        require(matched is not None and 1 <= int(matched[1]) <= int(matched[2]), "--shard", text, "of the form i/n with 1 ≤ i ≤ n")
        assert matched is not None
        return Shard(int(matched[1]), int(matched[2]))

    def takes(self, expert: int) -> bool:
        """Whether `expert` (from 0) is among them."""
        return expert % self.count == self.number - 1


@dataclass(frozen=True, slots=True)
class Want:
    """What a recipe reads.

    Args:
        num_experts: S.
        epochs: of every expert.
        last: an epoch more of the experts that give labels; None: no more.
        label_experts: how many those are; the first ones.
        coding: the least exact coding that will do.
    """

    num_experts: int
    epochs: tuple[int, ...]
    last: int | None
    label_experts: int
    coding: str

    def of(self, expert: int) -> tuple[int, ...]:
        """The epochs of `expert`, in order."""
        if expert >= self.num_experts:
            return ()
        if self.last is None or expert >= self.label_experts:
            return self.epochs
        return tuple(sorted({*self.epochs, self.last}))

    def lacking(self, store: "TrajectoryStore") -> dict[int, list[int]]:
        """By expert, the epochs that a store lacks."""
        found = {expert: store.shelf(expert).missing(self.of(expert), self.coding) for expert in range(self.num_experts)}
        return {expert: epochs for expert, epochs in found.items() if epochs}


def want_of(settings: ExpertSettings, epochs: Sequence[int]) -> Want:
    """`epochs`, which the schedule can reach, of every expert, and the last epoch of those that give labels."""
    labels = settings.label_experts or settings.num_experts
    return Want(settings.num_experts, tuple(sorted(set(epochs))), settings.train_epochs, labels, settings.dtype)


def say_lacking(lacking: Mapping[int, Sequence[int]]) -> str:
    """A phrase for what `Want.lacking` has found, which is not empty."""
    expert, epochs = next(iter(lacking.items()))
    others = f" and something of {len(lacking) - 1} others" if len(lacking) > 1 else ""
    return f"lacks epochs {text_of(epochs)} of expert {expert}{others}"


def fill(
    store: "TrajectoryStore",
    want: Want,
    train: Callable[[Sequence[Job]], None],
    *,
    shard: Shard = Shard(),
    group: int = 1,
) -> None:
    """Have trained what the store lacks, and wait for what others train meanwhile.

    Args:
        store: to fill.
        want: what is needed.
        train: trains the experts of some jobs of equal start and stop, and records them.
        shard: the share of the experts to train; others are neither trained nor waited for.
        group: how many experts to take at once.

    Raises:
        Failure: when training leaves missing what it was to write.
    """
    left = [expert for expert in range(want.num_experts) if shard.takes(expert)]
    while left := [expert for expert in left if store.shelf(expert).missing(want.of(expert), want.coding)]:
        with _claimed(store, left, group) as experts:
            jobs = [job for expert in experts if (job := store.shelf(expert).job(want.of(expert), want.coding))]
            for _, same in groupby(sorted(jobs, key=_span), key=_span):
                train(list(same))
        for job in jobs:
            store.shelf(job.expert).look()
            if set(job.keep) & set(store.shelf(job.expert).missing(want.of(job.expert), want.coding)):
                raise Failure(f"expert {job.expert} was trained to epoch {job.stop}, but not all of it is in {str(store.path)!r}")


def _span(job: Job) -> tuple[int, int]:
    return job.start, job.stop


@contextmanager
def _claimed(store: "TrajectoryStore", experts: Sequence[int], most: int) -> Iterator[list[int]]:
    """The first `most` of the experts that nobody holds, held and looked at anew; none, after a while, when all are taken."""
    with ExitStack() as held:
        taken: list[int] = []
        for expert in experts:
            if len(taken) == most:
                break
            try:
                held.enter_context(store.shelf(expert).lock().acquire(timeout=0))
            except Timeout:
                continue
            except OSError as error:
                raise UsageError(f"experts: {str(store.path)!r} lacks experts and cannot be written ({error.strerror})") from error
            taken.append(expert)
        if not taken:
            _wait(store, experts[0])
        for expert in experts:
            store.shelf(expert).look()
        for expert in taken:
            store.shelf(expert).tidy()
        yield taken


def _wait(store: "TrajectoryStore", expert: int) -> None:
    """Until `expert` is free, or for a moment."""
    try:
        with store.shelf(expert).lock().acquire(timeout=PATIENCE):
            return
    except Timeout:
        return
