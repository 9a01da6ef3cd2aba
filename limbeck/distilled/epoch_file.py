"""A safetensors file that is written epoch by epoch, so that whoever writes it can be killed and go on.

    <name>   (E, …)    the tensor of every epoch
    digests  (E, 8)    of the tensors of every epoch, together
    written  (E,)      1 for every epoch that is complete

The header, which says all names, types and shapes, and has a checksum, is written first and room for all epochs set aside, then the
epochs in any order, all of it beside the file's place; the file takes its place when every epoch is complete.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from limbeck.runtime.disk import allocate, naming
from limbeck.runtime.files import digest
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.ranks import Ranks
from limbeck.runtime.sealed import BLANK, CHECKSUM, KIND, FileKind, sealed_header

DIGEST = 8  # bytes
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def digest_of(held: Mapping[str, Tensor]) -> Tensor:
    """What an epoch's tensors are known by, uint8 with shape (8,)."""
    return torch.tensor(list(bytes.fromhex(fingerprint({name: digest(held[name]) for name in sorted(held)}))), dtype=torch.uint8)


class EpochFile:
    """One such file while it is written; a context manager. What an equal one had begun goes on.

    Args:
        path: its place.
        epoch: the tensors of an epoch, for their names, shapes and types.
        about: for the header.
        kind: what the header calls it.
    """

    def __init__(self, path: Path, epoch: Mapping[str, Tensor], about: Mapping[str, Any], kind: FileKind) -> None:
        self.path, self.part, self.epochs = path, path.with_name(f".{path.name}.part"), int(about["epochs"])
        # Large numbers first, so that each tensor begins at a multiple of its numbers' size.
        names = sorted(epoch, key=lambda name: (-epoch[name].element_size(), name))
        self.sizes = {name: epoch[name].element_size() * epoch[name].numel() for name in names} | {"digests": DIGEST}
        self.begins, end = dict[str, int](), 0
        header: dict[str, Any] = {"__metadata__": {"json": json.dumps(dict(about)), KIND: str(kind), CHECKSUM: BLANK}}
        for name, size in self.sizes.items():
            self.begins[name], begin, end = end, end, end + self.epochs * size
            shape, dtype = ([*epoch[name].shape], _NAMES[epoch[name].dtype]) if name in epoch else ([DIGEST], "U8")
            header[name] = {"dtype": dtype, "shape": [self.epochs, *shape], "data_offsets": [begin, end]}
        header["written"] = {"dtype": "U8", "shape": [self.epochs], "data_offsets": [end, end + self.epochs]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text = sealed_header(text + b" " * (-len(text) % 8))
        self.head, self.begins["written"], self.size = len(text).to_bytes(8, "little") + text, end, end + self.epochs

    def __enter__(self) -> "EpochFile":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        goes_on = self.part.exists() and self.part.stat().st_size == len(self.head) + self.size
        if goes_on:
            with open(self.part, "rb") as file:
                goes_on = file.read(len(self.head)) == self.head
        self.file: BinaryIO = open(self.part, "r+b" if goes_on else "w+b")  # noqa: SIM115 (closed by __exit__)
        try:
            with naming(self.part):
                if not goes_on:
                    self.file.write(self.head)
                    self.file.flush()
                allocate(self.file.fileno(), len(self.head) + self.size)
        except OSError:
            self.file.close()
            if not goes_on:
                self.part.unlink(missing_ok=True)  # so that its room is free again
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with naming(self.part):
            self.file.close()
        if kind is None:
            os.replace(self.part, self.path)

    def missing(self) -> list[int]:
        """The epochs that are not written yet, or not as they were."""
        self.file.seek(len(self.head) + self.begins["written"])
        return [epoch for epoch, done in enumerate(self.file.read(self.epochs)) if not done or not self._is_sound(epoch)]

    def _is_sound(self, epoch: int) -> bool:
        held = dict[str, Tensor]()
        for name, size in self.sizes.items():
            self.file.seek(len(self.head) + self.begins[name] + epoch * size)
            held[name] = torch.frombuffer(bytearray(self.file.read(size)), dtype=torch.uint8)
        return torch.equal(held.pop("digests"), digest_of(held))

    def write(self, epoch: int, held: Mapping[str, Tensor]) -> None:
        """Write the tensors of an epoch, and, once they are on the disk, that they are."""
        whole = {**held, "digests": digest_of(held)}
        sizes = {name: value.element_size() * value.numel() for name, value in whole.items()}
        assert sizes == self.sizes, "every epoch has tensors of the same sizes"
        with naming(self.part):
            for name, size in self.sizes.items():
                self.file.seek(len(self.head) + self.begins[name] + epoch * size)
                self.file.write(whole[name].contiguous().view(torch.uint8).numpy().tobytes())
            self._flush()
            self.file.seek(len(self.head) + self.begins["written"] + epoch)
            self.file.write(b"\x01")
            self._flush()

    def _flush(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


def write_epochs(
    path: Path,
    blank: Mapping[str, Tensor],
    about: dict[str, Any],
    kind: FileKind,
    made: Callable[[int], dict[str, Tensor]],
    after_epoch: Callable[[int], None],
    ranks: Ranks,
) -> None:
    """Have the epochs that are missing made by all ranks, and written by the first; what goes wrong there all raise.

    Args:
        path, blank, about, kind: as `EpochFile` takes them.
        made: the tensors of an epoch.
        after_epoch: told on the first rank how many epochs are complete.
        ranks: that all call this alike.
    """
    with ExitStack() as closed:
        files = list[EpochFile]()

        def begin() -> list[int]:
            files.append(closed.enter_context(EpochFile(path, blank, about, kind)))
            return files[0].missing()

        def write(held: Mapping[int, Mapping[str, Tensor]]) -> None:
            for epoch, tensors in held.items():
                files[0].write(epoch, tensors)
                after_epoch(epoch + 1)

        left = ranks.told(begin)
        while left:
            under_way, left = left[: ranks.count], left[ranks.count :]
            ranks.told(partial(write, _by_ranks(ranks, under_way, made, blank)))


def _by_ranks(
    ranks: Ranks, epochs: Sequence[int], made: Callable[[int], dict[str, Tensor]], blank: Mapping[str, Tensor]
) -> dict[int, dict[str, Tensor]]:
    """On the first rank the tensors of at most as many epochs as there are ranks, each made by one of them; elsewhere nothing."""
    own = {name: value.new_empty(0, *value.shape) for name, value in blank.items()}

    def work() -> None:
        for epoch in epochs[ranks.share(len(epochs))]:
            own.update({name: value.unsqueeze(0) for name, value in made(epoch).items()})

    ranks.gathered(work)  # what is wrong on one of them all raise
    whole = {name: ranks.collected(value, len(epochs)) for name, value in own.items()}
    return {epoch: {name: value[k] for name, value in whole.items()} for k, epoch in enumerate(epochs)} if ranks.first else {}
