"""Files of one expert: blocks of successive checkpoints, and points from which a training goes on.

    epochs-FIRST-LAST-GENERATION.safetensors   up to eight successive checkpoints; the last one exact
    state-EPOCH.safetensors                    what the optimiser holds after EPOCH, and θ where no block ends there

A file appears whole or not at all and is never changed; one of a higher generation takes the place of what others hold of the
same epochs. Its header has a digest of every tensor, which is compared before a checkpoint is first read from it, of θ at its end
and of the θ that its first checkpoint was trained from, so that two blocks are known to come from one training: the one starts
where the other ends.

People write sets of epochs as `0-21,100`.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from limbeck.experts.coding import CODINGS, encode
from limbeck.runtime.bounded import check_ordinary
from limbeck.runtime.devices import one_thread
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import TensorHeader, digest, read_tensor_header, read_tensors, write_tensors
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import Damaged, FileKind

BLOCKS, POINTS = FileKind("block of checkpoints"), FileKind("point of a training")
BLOCK = 8  # the fewer, the more exact checkpoints; the more, the more is trained again after a crash
LAST = 99_999  # epoch that can be named

BLOCK_NAME = re.compile(r"epochs-\d{4,}-\d{4,}-\d{4,}\.safetensors")
POINT_NAME = re.compile(r"state-\d{4,}\.safetensors")
R = TypeVar("R")
UNREADABLE = (SafetensorError, json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError)


def runs_of(epochs: Iterable[int]) -> list[list[int]]:
    """The epochs in order, cut where one is left out."""
    runs: list[list[int]] = []
    for epoch in sorted(set(epochs)):
        if not runs or runs[-1][-1] != epoch - 1:
            runs.append([])
        runs[-1].append(epoch)
    return runs


def text_of(epochs: Iterable[int]) -> str:
    """Such as `0-21,100`; `none` of none."""
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs_of(epochs)) or "none"


def parse_epochs(key: str, text: str) -> list[int]:
    """The epochs that `text` names, in order.

    Raises:
        UsageError: when it names none.
    """
    parts = [re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part) for part in text.split(",")]
    ends = [(int(part[1]), int(part[2] or part[1])) for part in parts if part is not None]
    good = len(ends) == len(parts) and all(first <= last <= LAST for first, last in ends)
    require(good, key, text, f"numbers and ranges up to {LAST}, such as 0-21,100")
    return sorted({epoch for first, last in ends for epoch in range(first, last + 1)})


def blocks_of(epochs: Iterable[int]) -> list[list[int]]:
    """Runs of successive epochs, cut into blocks."""
    return [run[start : start + BLOCK] for run in runs_of(epochs) for start in range(0, len(run), BLOCK)]


def header_of(path: Path, kind: FileKind, of: str) -> TensorHeader:
    """What a file says before its tensors, the digests of all of them with it.

    Raises:
        OSError: when it cannot be read.
        Damaged: when the header is not what was written.
    """
    found = read_tensor_header(path, kind, of, say=False)
    if found.sealed:
        return found
    metadata = dict(found.metadata)  # of an earlier version, whose headers have digests and a checksum of their own
    said, digests = metadata.pop("header", None), metadata.get("digests")
    if said != fingerprint(metadata) or not isinstance(digests, dict) or digests.keys() != found.kinds.keys():
        raise Damaged("its header has changed")
    return found._replace(metadata=metadata, digests=digests)


def problems_of(path: Path, of: str = "") -> list[str]:
    """What is wrong with a file of checkpoints: unreadable, another header or other tensors than were written, no numbers."""
    try:
        header = header_of(path, BLOCKS if BLOCK_NAME.fullmatch(path.name) else POINTS, of)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in header.kinds}
    except (OSError, *UNREADABLE) as error:
        return [f"cannot be read ({_first_line(error)})"]
    found = [f"{name} has changed" for name, tensor in tensors.items() if header.digests[name] != digest(tensor)]
    infinite = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    return found + [f"{name} has numbers that are not finite" for name in infinite]


@dataclass(frozen=True, kw_only=True)
class Header(Record):
    """What a block says of its checkpoints.

    Args:
        epochs: that it holds, in order.
        coding: name of their coding.
        step_error: `coding.displacement_error`.
        after: digest of θ an epoch before the first one; None where it is not known.
        end: digest of the last θ.
        accuracy: by epoch, of those since the block before.
        state: how many tensors the optimiser holds, which lie in the file of a `Point`; None where it is not known, so that no
            training goes on from here.
    """

    epochs: list[int]
    coding: str
    step_error: float = 0.0
    after: str | None = None
    end: str
    accuracy: Mapping[int, float] = field(default_factory=dict)
    state: int | None = None


@dataclass(frozen=True)
class Block:
    """A file of checkpoints; its header is read when it is first asked for, its tensors are verified before they are read.

    Args:
        path: of the file.
        first, last, generation: as its name says them.
        of: the expert.
        fetch: has the file whole where there is its header alone.
    """

    path: Path
    first: int
    last: int
    generation: int
    of: str = ""
    fetch: Callable[[Path], None] = field(default=lambda path: None, compare=False, repr=False)
    verified: list[tuple[int, ...]] = field(default_factory=list, compare=False, repr=False)  # the file, as it was then

    @staticmethod
    def at(path: Path, of: str = "", fetch: Callable[[Path], None] = lambda path: None) -> "Block":
        """The block of that file name."""
        first, last, generation = map(int, path.stem.removeprefix("epochs-").split("-"))
        return Block(path, first, last, generation, of, fetch)

    @cached_property
    def header(self) -> Header:
        """What the file says of its checkpoints."""
        return self._guarded(lambda: self._checked(Header.from_dict(self._said.metadata)))

    @cached_property
    def _said(self) -> TensorHeader:
        return header_of(self.path, BLOCKS, self.of)

    @property
    def epochs(self) -> list[int]:
        """The epochs held, in order."""
        return self.header.epochs

    def read(self, epoch: int) -> Tensor:
        """θ*_epoch, float32 with shape (P,)."""
        row, rows, coding = self.epochs.index(epoch), len(self.epochs), CODINGS[self.header.coding]

        def decoded() -> Tensor:
            self.fetch(self.path)
            # As arrays: of torch's tensors each would leave an object behind (safetensors 0.8.0).
            with safe_open(self.path, framework="np") as file:
                self._verify(file)
                theta = coding.decode(lambda name, i: torch.from_numpy(file.get_slice(name)[i : i + 1])[0], row, rows)
            if not bool(theta.isfinite().all()):
                raise Damaged(f"epoch {epoch} has numbers that are not finite")
            return theta

        with one_thread():  # a millisecond's work, for which threads on a busy machine wait a hundred for each other
            return self._guarded(decoded)

    def tensors(self) -> dict[str, Tensor]:
        """All that the file holds, as it is encoded."""

        def read() -> dict[str, Tensor]:
            self.fetch(self.path)
            with safe_open(self.path, framework="np") as file:
                self._verify(file)
                return {name: torch.from_numpy(file.get_tensor(name)) for name in self._said.kinds}

        return self._guarded(read)

    def _verify(self, file: Any) -> None:
        """Compare the tensors' digests, unless that was done since the file was last changed."""
        state = self.path.stat()
        now = (state.st_ino, state.st_size, state.st_mtime_ns)
        if now not in self.verified:
            for name, expected in self._said.digests.items():
                if digest(torch.from_numpy(file.get_tensor(name))) != expected:
                    raise Damaged(f"{name} has changed since it was written")
            self.verified[:] = [now]

    def _checked(self, header: Header) -> Header:
        coding, epochs, numbers = CODINGS.get(header.coding), header.epochs, (header.step_error, *header.accuracy.values())
        if coding is None or not epochs or (epochs[0], epochs[-1]) != (self.first, self.last):
            raise Damaged("its header is of another file")
        if not all(type(epoch) is int for epoch in epochs) or not all(isinstance(one, (int, float)) for one in numbers):
            raise Damaged("its header holds other things than epochs and numbers")
        if self._said.kinds != coding.kinds or sum(self._said.shapes[name][0] for name in coding.rows) != len(epochs):
            raise Damaged("its header does not say what its tensors are")
        return header

    def _guarded(self, read: Callable[[], R]) -> R:
        try:
            check_ordinary(self.path)
            return read()
        except FileNotFoundError:  # pruned since: who asked looks again
            raise
        except (OSError, *UNREADABLE) as error:
            raise broken(self.path, error) from error


def write_block(
    folder: Path,
    thetas: Mapping[int, Tensor],
    coding: str,
    generation: int,
    after: str | None = None,
    accuracy: Mapping[int, float] | None = None,
    state: int | None = None,
    of: str = "",
) -> Block:
    """Write successive checkpoints.

    Args:
        folder: of the expert.
        thetas: by epoch, float32 with shape (P,); successive, unless others between them were removed.
        coding: name of a coding.
        generation: higher than that of files that hold the same epochs.
        after, accuracy, state: as in `Header`.
        of: the expert, as `Shelf` names it.

    Raises:
        ValueError: when a number is not finite.
    """
    epochs = sorted(thetas)
    rows = torch.stack([thetas[epoch].detach().cpu().float() for epoch in epochs])
    taken, tensors, error = encode(rows, coding)
    end, noted = digest(rows[-1]), dict(accuracy or {})
    header = Header(epochs=epochs, coding=taken, step_error=error, after=after, end=end, accuracy=noted, state=state)
    return write_rows(folder, tensors, header, generation, of)


def write_rows(folder: Path, tensors: Mapping[str, Tensor], header: Header, generation: int, of: str = "") -> Block:
    """Write a block that is encoded already."""
    path = folder / f"epochs-{header.epochs[0]:04d}-{header.epochs[-1]:04d}-{generation:04d}.safetensors"
    write_tensors(path, tensors, header.to_dict(), BLOCKS, of)
    return Block.at(path, of)


@dataclass(frozen=True, kw_only=True)
class PointHeader(Record):
    """What a point says of its epoch: the digest of θ, and accuracies by epoch, of those since the last block."""

    end: str
    accuracy: Mapping[int, float]


@dataclass(frozen=True)
class Point:
    """What a training needs after an epoch to go on from there: θ, where no block ends with it, and the optimiser's tensors."""

    path: Path
    epoch: int
    of: str = ""

    @staticmethod
    def at(path: Path, of: str = "") -> "Point":
        """The point of that file name."""
        return Point(path, int(path.stem.removeprefix("state-")), of)

    @cached_property
    def _content(self) -> tuple[dict[str, Tensor], PointHeader]:
        try:
            header = header_of(self.path, POINTS, self.of)
            tensors = read_tensors(self.path).tensors
            if changed := [name for name, tensor in tensors.items() if digest(tensor) != header.digests[name]]:
                raise Damaged(f"{changed[0]} has changed since it was written")
            return tensors, PointHeader.from_dict(header.metadata)
        except (OSError, *UNREADABLE) as error:
            raise broken(self.path, error) from error

    @property
    def theta(self) -> Tensor | None:
        """θ with shape (P,), or None where a block has it."""
        return self._content[0].get("theta")

    @property
    def state(self) -> tuple[Tensor, ...]:
        """The optimiser's tensors."""
        tensors = self._content[0]
        return tuple(tensors[name] for name in sorted(tensors) if name != "theta")

    @property
    def header(self) -> PointHeader:
        """What the file says of θ."""
        return self._content[1]


def write_point(
    folder: Path,
    epoch: int,
    theta: Tensor,
    state: Sequence[Tensor],
    accuracy: Mapping[int, float],
    *,
    with_theta: bool,
    of: str = "",
) -> Point:
    """Write what is needed to go on after `epoch` of the expert `of`; θ itself only on demand."""
    tensors = {f"state.{number:02d}": tensor for number, tensor in enumerate(state)} | ({"theta": theta} if with_theta else {})
    path = folder / f"state-{epoch:04d}.safetensors"
    write_tensors(path, tensors, PointHeader(end=digest(theta), accuracy=accuracy).to_dict(), POINTS, of)
    return Point.at(path, of)


AGAIN = "delete it, and it is trained again"


class BrokenFile(UsageError):
    """A file of a store that cannot be read, or is not what was written.

    Args:
        path: of it.
        reason: why.
        advice: what helps.
    """

    def __init__(self, path: Path, reason: str, advice: str = AGAIN) -> None:
        super().__init__(f"experts: {str(path)!r} is broken ({reason}); {advice}")
        self.path, self.reason = path, reason


def broken(path: Path, error: Exception, advice: str = AGAIN) -> BrokenFile:
    """What to say of a file that cannot be read, or is not what was written."""
    return BrokenFile(path, _first_line(error), advice)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
