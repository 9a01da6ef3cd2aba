"""Files of one expert: blocks of successive checkpoints, and points from which a training goes on.

    epochs-FIRST-LAST-GENERATION.safetensors   up to eight successive checkpoints; the last one exact
    state-EPOCH.safetensors                    what the optimiser holds after EPOCH, and θ where no block ends there

A file appears whole or not at all and is never changed; one of a higher generation takes the place of what others hold of the
same epochs. Its header has a digest of every tensor, of θ at its end and of the θ that its first checkpoint was trained from, so
that two blocks are known to come from one training: the one starts where the other ends.

People write sets of epochs as `0-21,100`.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from limbeck.experts.coding import CODINGS, encode
from limbeck.runtime.bounded import check_ordinary
from limbeck.runtime.devices import one_thread
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import digest, read_header, read_tensors, write_tensors
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.records import Record

BLOCK = 8  # the fewer, the more exact checkpoints; the more, the more is trained again after a crash
LAST = 99_999  # epoch that can be named

BLOCK_NAME = re.compile(r"epochs-\d{4,}-\d{4,}-\d{4,}\.safetensors")
POINT_NAME = re.compile(r"state-\d{4,}\.safetensors")
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


def write_checked(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors under a header that has their digests and its own."""
    full = {**header, "digests": {name: digest(tensor) for name, tensor in tensors.items()}}
    write_tensors(path, tensors, {**full, "header": fingerprint(full)})


def problems_of(path: Path) -> list[str]:
    """What is wrong with a file of `write_checked`: unreadable, another header or other tensors than were written, no numbers."""
    try:
        tensors, header = read_tensors(path)
        said = header.pop("header")
        digests = dict(header["digests"])
    except (OSError, *UNREADABLE) as error:
        return [f"cannot be read ({_first_line(error)})"]
    found = [] if said == fingerprint(header) else ["its header has changed"]
    found += [f"{name} has changed" for name, tensor in tensors.items() if digests.pop(name, None) != digest(tensor)]
    found += [f"{name} is missing" for name in digests]
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
    """A file of checkpoints; its header is read when it is first asked for."""

    path: Path
    first: int
    last: int
    generation: int

    @staticmethod
    def at(path: Path) -> "Block":
        """The block of that file name."""
        first, last, generation = map(int, path.stem.removeprefix("epochs-").split("-"))
        return Block(path, first, last, generation)

    @cached_property
    def header(self) -> Header:
        """What the file says of its checkpoints."""
        header: Header = self._opened(lambda file: self._checked(Header.from_dict(read_header(file.metadata()))))
        return header

    @property
    def epochs(self) -> list[int]:
        """The epochs held, in order."""
        return self.header.epochs

    def read(self, epoch: int) -> Tensor:
        """θ*_epoch, float32 with shape (P,)."""
        row, rows, coding = self.epochs.index(epoch), len(self.epochs), CODINGS[self.header.coding]

        def decoded(file: Any) -> Tensor:
            return coding.decode(lambda name, i: torch.from_numpy(file.get_slice(name)[i : i + 1])[0], row, rows)

        with one_thread():  # a millisecond's work, for which threads on a busy machine wait a hundred for each other
            theta: Tensor = self._opened(decoded)
        return theta

    def _checked(self, header: Header) -> Header:
        if header.coding not in CODINGS or (header.epochs[0], header.epochs[-1]) != (self.first, self.last):
            raise ValueError("its header is of another file")
        numbers = (header.step_error, *header.accuracy.values())
        if not all(type(epoch) is int for epoch in header.epochs) or not all(isinstance(one, (int, float)) for one in numbers):
            raise ValueError("its header holds other things than epochs and numbers")
        return header

    def _opened(self, use: Callable[[Any], Any]) -> Any:
        try:
            check_ordinary(self.path)
            with safe_open(self.path, framework="np") as file:  # as torch's tensors each would leave an object behind (0.8.0)
                return use(file)
        except FileNotFoundError:  # pruned since: who asked looks again
            raise
        except (OSError, *UNREADABLE) as error:
            raise broken(self.path, error) from error


def write_block(
    folder: Path,
    thetas: Mapping[int, Tensor],
    coding: str,
    generation: int,
    *,
    after: str | None = None,
    accuracy: Mapping[int, float] | None = None,
    state: int | None = None,
) -> Block:
    """Write successive checkpoints.

    Args:
        folder: of the expert.
        thetas: by epoch, float32 with shape (P,); successive, unless others between them were removed.
        coding: name of a coding.
        generation: higher than that of files that hold the same epochs.
        after, accuracy, state: as in `Header`.

    Raises:
        ValueError: when a number is not finite.
    """
    epochs = sorted(thetas)
    rows = torch.stack([thetas[epoch].detach().cpu().float() for epoch in epochs])
    taken, tensors, error = encode(rows, coding)
    end, noted = digest(rows[-1]), dict(accuracy or {})
    header = Header(epochs=epochs, coding=taken, step_error=error, after=after, end=end, accuracy=noted, state=state)
    return write_rows(folder, tensors, header, generation)


def write_rows(folder: Path, tensors: Mapping[str, Tensor], header: Header, generation: int) -> Block:
    """Write a block that is encoded already."""
    path = folder / f"epochs-{header.epochs[0]:04d}-{header.epochs[-1]:04d}-{generation:04d}.safetensors"
    write_checked(path, tensors, header.to_dict())
    return Block.at(path)


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

    @staticmethod
    def at(path: Path) -> "Point":
        """The point of that file name."""
        return Point(path, int(path.stem.removeprefix("state-")))

    @cached_property
    def _content(self) -> tuple[dict[str, Tensor], PointHeader]:
        try:
            tensors, header = read_tensors(self.path)
            return tensors, PointHeader.from_dict(header)
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
    folder: Path, epoch: int, theta: Tensor, state: Sequence[Tensor], accuracy: Mapping[int, float], *, with_theta: bool
) -> Point:
    """Write what is needed to go on after `epoch`; θ itself only on demand."""
    tensors = {f"state.{number:02d}": tensor for number, tensor in enumerate(state)} | ({"theta": theta} if with_theta else {})
    path = folder / f"state-{epoch:04d}.safetensors"
    write_checked(path, tensors, PointHeader(end=digest(theta), accuracy=accuracy).to_dict())
    return Point.at(path)


def broken(path: Path, error: Exception) -> UsageError:
    """What to say of a file that cannot be read."""
    return UsageError(f"experts: {str(path)!r} is broken ({_first_line(error)}); delete it, and it is trained again")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
