"""Looking after a store: what it holds, whether it is intact, and removing what nobody needs.

It is intact where every file is as it was written, every number finite, and every epoch there that was asked for. Of what is pruned
accuracies stay. In `half` and `fp16` the last checkpoint of a block stays while one of the others does, because they cannot be read
without it.
"""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.experts.blocks import BLOCK_NAME, POINT_NAME, Block, BrokenFile, problems_of, text_of, write_rows
from limbeck.experts.coding import CODINGS
from limbeck.experts.files import ACCURACIES, ACCURACY, Shelf
from limbeck.experts.notes import Difficulty, Want
from limbeck.experts.store import Curve, TrajectoryStore
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import digest, write_json
from limbeck.runtime.locks import Busy
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.records import Record


@dataclass(frozen=True)
class Asked:
    """What somebody asked for who filled a store, and how many experts lack something of it."""

    num_experts: int
    epochs: str
    last: int | None
    label_experts: int
    dtype: str
    lacking: int


@dataclass(frozen=True, kw_only=True)
class Description(Record):
    """What a store holds.

    Args:
        path: the folder.
        identity: what determines the trajectories.
        about: what else was noted.
        num_experts: of which something is held.
        epochs: {the epochs as text: how many experts hold just these}.
        codings: {name: how many checkpoints}.
        step_error: the largest part of an epoch's step that a coding has lost.
        bytes: of all files.
        list_share: those as a share of what lists of all epochs up to the last one take.
        accuracy: by expert, after epochs 1, 2, …; None where none was noted.
        wanted: what was asked for.
        difficulty: the scores of the experts' curriculum, if they have one.
    """

    path: str
    identity: dict[str, Any]
    about: dict[str, Any]
    num_experts: int
    epochs: dict[str, int]
    codings: dict[str, int]
    step_error: float
    bytes: int
    list_share: float | None
    accuracy: dict[str, Curve]
    wanted: list[Asked]
    difficulty: list[Difficulty]


def describe(store: TrajectoryStore) -> Description:
    """What a store holds."""
    size, held = store.summary().bytes, {expert: store.held(expert) for expert in store.experts}
    headers = [block.header for expert in held for block in store.shelf(expert).blocks]
    codings: Counter[str] = Counter()
    for header in headers:
        codings[header.coding] += len(header.epochs)
    last = max((epochs[-1] for epochs in held.values()), default=0)
    lists = 4 * store.num_parameters * (last + 1) * len(held)
    return Description(
        path=store.place,
        identity={name: value for name, value in store.metadata.items() if name not in ("format", "about")},
        about=store.metadata.get("about") or {},
        num_experts=len(held),
        epochs=dict(Counter(text_of(epochs) for epochs in held.values())),
        codings=dict(codings),
        step_error=max((header.step_error for header in headers), default=0.0),
        bytes=size,
        list_share=size / lists if lists else None,
        accuracy={str(expert): store.accuracies(expert) for expert in held},
        wanted=[
            Asked(want.num_experts, text_of(want.epochs), want.last, want.label_experts, want.coding, len(store.lacking(want)))
            for want in store.wanted()
        ],
        difficulty=store.difficulties(),
    )


def over_experts(curves: Sequence[Curve]) -> list[tuple[int, float, float, float]]:
    """For every epoch with a known accuracy: the epoch, the mean over the experts, the lowest and the highest."""
    rows = []
    for epoch in range(1, max(map(len, curves), default=0) + 1):
        known = [value for curve in curves if len(curve) >= epoch and (value := curve[epoch - 1]) is not None]
        if known:
            rows.append((epoch, statistics.fmean(known), min(known), max(known)))
    return rows


def verify(store: TrajectoryStore, wants: Sequence[Want] | None = None, progress: Progress | None = None) -> list[str]:
    """Read all of a store.

    Args:
        store: to check.
        wants: what it must hold; None takes what those asked for who filled it.
        progress: where to report.

    Returns:
        A line for each thing that is broken or missing; nothing where all is well.
    """
    found: list[str] = []
    if store.elsewhere is not None:
        for expert in store.experts:
            store.elsewhere.complete(store.shelf(expert).folder)
    named = [path for path in sorted(store.path.glob("expert-*/*.safetensors")) if path.parent.name[len("expert-") :].isdigit()]
    files = [path for path in named if BLOCK_NAME.fullmatch(path.name) or POINT_NAME.fullmatch(path.name)]
    broken: set[int] = set()
    with (progress or NoProgress()).stage("verify", len(files)) as stage:
        for path in files:
            problems = _problems(store, path)
            found += [f"{path.relative_to(store.path)}: {problem}" for problem in problems]
            broken |= {int(path.parent.name.removeprefix("expert-"))} if problems else set()
            stage.advance()
    for expert in sorted({*store.experts} - broken):
        found += _gaps(store.shelf(expert))
    for note in (*(store.shelf(expert).accuracy for expert in store.experts), store.difficulties):
        try:
            note()
        except BrokenFile as error:
            found.append(f"{error.path.relative_to(store.path)}: {error.reason}")
        except UsageError as error:
            found.append(str(error))
    wants = store.wanted() if wants is None else wants
    for expert in range(max((want.num_experts for want in wants), default=0)):
        if expert not in broken:
            lacking = sorted({epoch for want in wants for epoch in store.shelf(expert).missing(want.of(expert), want.coding)})
            found += [f"expert-{expert:04d}: epochs {text_of(lacking)} are missing"] if lacking else []
    return found if found or store.experts else ["it holds no expert"]


def _problems(store: TrajectoryStore, path: Path) -> list[str]:
    problems = problems_of(path, store.shelf(int(path.parent.name.removeprefix("expert-"))).of)
    if not path.exists():
        return []  # whoever fills the store has removed it
    if problems or POINT_NAME.fullmatch(path.name):
        return problems
    shelf = store.shelf(int(path.parent.name.removeprefix("expert-")))
    block = next((block for block in shelf.blocks if block.path == path), None)
    if block is None:
        return []  # it came since
    try:
        thetas = [block.read(epoch) for epoch in (block.epochs if block.header.coding in CODINGS else [])]
    except (UsageError, OSError) as error:
        return [str(error)]
    sizes = {len(theta) for theta in thetas} - {store.num_parameters}
    infinite = [epoch for epoch, theta in zip(block.epochs, thetas, strict=True) if not bool(theta.isfinite().all())]
    said = [f"it has {size} parameters, not {store.num_parameters}" for size in sizes]
    return said + ([f"epochs {text_of(infinite)} are not finite"] if infinite else [])


def _gaps(shelf: Shelf) -> list[str]:
    """Blocks that come from another training than the epochs before them."""
    serving = [block for block in shelf.blocks if any(shelf.find(epoch) is block for epoch in block.epochs)]
    return [
        f"{block.path.parent.name}/{block.path.name}: it does not go on where epoch {block.first - 1} ends"
        for block in serving
        if not shelf.continues(block)
    ]


@dataclass(frozen=True)
class Removal:
    """What was removed: its path in the store, what it was, and the bytes that were freed."""

    path: str
    what: str
    bytes: int


def prune(store: TrajectoryStore, wants: Sequence[Want], *, dry_run: bool = False) -> list[Removal]:
    """Remove what no one of `wants` needs, or with `dry_run` only say what that would be.

    Raises:
        UsageError: when an expert is being written, or the store cannot be written.
    """
    if store.elsewhere is not None:
        advice = "fill another one with what is needed, and remove this one with the tools of its server"
        raise UsageError(f"PATH: {store.place!r} is no folder; of a store elsewhere nothing is removed: {advice}")
    pruning = _Pruning(store, wants, dry_run)
    try:
        # What is wanted changes first, so that no moment finds the store lacking something that was asked for.
        for number, want in enumerate(() if dry_run else wants):
            store.note(want, instead=number == 0)
        for folder in sorted(path for path in store.path.glob("expert-*") if path.is_dir()):
            pruning.expert(folder)
    except OSError as error:
        raise UsageError(f"PATH: {str(store.path)!r} cannot be written ({error.strerror})") from error
    return pruning.actions


@dataclass(frozen=True)
class _Pruning:
    """Removes what no one of `wants` needs of one expert after another, and notes it in `actions`."""

    store: TrajectoryStore
    wants: Sequence[Want]
    dry_run: bool
    actions: list[Removal] = field(default_factory=list)

    def expert(self, folder: Path) -> None:
        if not folder.name.removeprefix("expert-").isdigit():
            return
        if folder.is_symlink():
            raise UsageError(f"PATH: {folder.name} of {str(self.store.path)!r} is a link: what it leads to is not the store's")
        if self.dry_run:
            self._clear(Shelf(folder, self.store.num_parameters, self.store.known))
            return
        shelf = self.store.shelf(int(folder.name.removeprefix("expert-")))
        try:
            with shelf.lock().acquire(timeout=0):
                shelf.look()
                self._clear(shelf)
                shelf.look()
        except Busy as error:
            raise UsageError(f"PATH: {folder.name} of {str(self.store.path)!r} is being written by another process") from error

    def _clear(self, shelf: Shelf) -> None:
        needed = {epoch for want in self.wants for epoch in want.of(shelf.expert)}
        noted = shelf.accuracy()
        if noted and needed and not self.dry_run:
            write_json(shelf.folder / ACCURACY, {str(epoch): value for epoch, value in noted.items()}, ACCURACIES, shelf.of)
        ends = set()
        for block in shelf.blocks:
            served = [epoch for epoch in block.epochs if shelf.find(epoch) is block]
            kept = [epoch for epoch in served if epoch in needed]
            if kept:
                ends.add(self._cut(shelf, block, kept))
            else:
                self._remove(block.path, f"epochs {text_of(block.epochs)}" if served else "superseded")
        whole = not any(shelf.missing(want.of(shelf.expert), want.coding) for want in self.wants)
        for point in shelf.points:
            if (point.theta is None and point.epoch not in ends) or (point.theta is not None and (whole or not needed)):
                self._remove(point.path, f"state after epoch {point.epoch}")
        for path in sorted(shelf.folder.glob(".*.part")):
            self._remove(path, "left behind by a crash")
        if not needed:
            self._forget(shelf)

    def _cut(self, shelf: Shelf, block: Block, kept: Sequence[int]) -> int | None:
        """Leave of a block what is to be kept; the epoch from which training can go on."""
        header, fp32 = block.header, block.header.coding == "fp32"
        epochs = list(kept) if fp32 or block.last in kept else [*kept, block.last]
        if len(epochs) == len(block.epochs):
            return block.last
        rows = [block.epochs.index(epoch) for epoch in epochs]
        held = block.tensors()
        if fp32 or len(epochs) > 1:
            tensors = {name: value if name == "end" else value[rows if fp32 else rows[:-1]] for name, value in held.items()}
        else:
            tensors, header = {"theta": held["end"]}, dataclasses.replace(header, coding="fp32", step_error=0.0)
        end, after = digest(tensors["theta"][-1]) if fp32 else header.end, header.after if epochs[0] == block.first else None
        header = dataclasses.replace(header, epochs=epochs, end=end, after=after)
        before = block.path.stat().st_size
        gone = text_of(set(block.epochs) - set(epochs))
        if self.dry_run:
            self._note(block.path, f"epochs {gone}", before - before * len(epochs) // len(block.epochs))
            return epochs[-1]
        written = write_rows(shelf.folder, tensors, header, shelf.next_generation(epochs), shelf.of)
        block.path.unlink()
        self._note(block.path, f"epochs {gone}", before - written.path.stat().st_size)
        return epochs[-1]

    def _forget(self, shelf: Shelf) -> None:
        if not self.dry_run:
            (shelf.folder / ACCURACY).unlink(missing_ok=True)
            if not any(shelf.folder.iterdir()):
                shelf.folder.rmdir()

    def _remove(self, path: Path, what: str) -> None:
        self._note(path, what, path.stat().st_size)
        if not self.dry_run:
            path.unlink()

    def _note(self, path: Path, what: str, size: int) -> None:
        self.actions.append(Removal(str(path.relative_to(self.store.path)), what, size))
