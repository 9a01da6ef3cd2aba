"""Removing from a store what is not needed, and what a crash or a later training has left behind.

Accuracies stay, also of epochs that go. In `half` and `fp16` the last checkpoint of a block stays while one of the others does,
because they cannot be read without it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import Timeout
from safetensors import safe_open

from limbeck.experts.blocks import Block, digest, write_rows
from limbeck.experts.epochs import text_of
from limbeck.experts.files import ACCURACY, Shelf
from limbeck.experts.fill import Want
from limbeck.experts.store import TrajectoryStore
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import write_json


class Pruning:
    """Removes, or only says what would be removed.

    Args:
        store: to remove from.
        wants: what must stay.
        dry_run: remove nothing.
    """

    def __init__(self, store: TrajectoryStore, wants: Sequence[Want], dry_run: bool) -> None:
        self.store, self.wants, self.dry_run = store, wants, dry_run
        self.actions: list[dict[str, Any]] = []

    def run(self) -> list[dict[str, Any]]:
        """Do it.

        Returns:
            What was removed: `path` in the store, `what`, and `bytes` that were freed.

        Raises:
            UsageError: when an expert is being written, or the store cannot be written.
        """
        try:
            # What is wanted changes first, so that no moment finds the store lacking something that was asked for.
            if not self.dry_run:
                for number, want in enumerate(self.wants):
                    self.store.note(want, instead=number == 0)
            for folder in sorted(path for path in self.store.path.glob("expert-*") if path.is_dir()):
                self._expert(folder)
        except OSError as error:
            raise UsageError(f"PATH: {str(self.store.path)!r} cannot be written ({error.strerror})") from error
        return self.actions

    def _expert(self, folder: Path) -> None:
        if not folder.name.removeprefix("expert-").isdigit():
            return
        if self.dry_run:
            self._clear(Shelf(folder, self.store.num_parameters))
            return
        shelf = self.store.shelf(int(folder.name.removeprefix("expert-")))
        try:
            with shelf.lock().acquire(timeout=0):
                shelf.look()
                self._clear(shelf)
                shelf.look()
        except Timeout as error:
            raise UsageError(f"PATH: {folder.name} of {str(self.store.path)!r} is being written by another process") from error

    def _clear(self, shelf: Shelf) -> None:
        needed = {epoch for want in self.wants for epoch in want.of(shelf.expert)}
        noted = shelf.accuracy()
        if noted and needed and not self.dry_run:
            write_json(shelf.folder / ACCURACY, {str(epoch): value for epoch, value in noted.items()})
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
        header, fp32 = dict(block.header), block.header["coding"] == "fp32"
        epochs = list(kept) if fp32 or block.last in kept else [*kept, block.last]
        if len(epochs) == len(block.epochs):
            return block.last
        rows = [block.epochs.index(epoch) for epoch in epochs]
        with safe_open(block.path, framework="pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
        if fp32 or len(epochs) > 1:
            tensors = {name: value if name == "end" else value[rows if fp32 else rows[:-1]] for name, value in held.items()}
        else:
            tensors, header["coding"], header["step_error"] = {"theta": held["end"]}, "fp32", 0.0
        if epochs[0] != block.first:
            header["after"] = None
        header |= {"epochs": epochs, "end": digest(tensors["theta"][-1]) if fp32 else header["end"]}
        before = block.path.stat().st_size
        gone = text_of(set(block.epochs) - set(epochs))
        if self.dry_run:
            self._note(block.path, f"epochs {gone}", before - before * len(epochs) // len(block.epochs))
            return epochs[-1]
        written = write_rows(
            shelf.folder,
            tensors,
            {key: header[key] for key in header if key not in ("digests", "header")},
            shelf.next_generation(epochs),
        )
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
        self.actions.append({"path": str(path.relative_to(self.store.path)), "what": what, "bytes": size})


def prune(store: TrajectoryStore, wants: Sequence[Want], *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Remove what no one of `wants` needs; see `Pruning.run`."""
    return Pruning(store, wants, dry_run).run()
