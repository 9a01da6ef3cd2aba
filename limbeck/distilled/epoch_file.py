"""A safetensors file that is written epoch by epoch, so that whoever writes it can be killed and go on.

    <name>   (E, …)    the tensor of every epoch
    written  (E,)      1 for every epoch that is complete

The header, which says all names, types and shapes, is written first and room for all epochs set aside, then the epochs in any
order, all of it beside the file's place; the file takes its place when every epoch is complete.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from limbeck.runtime.disk import allocate, naming

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


class EpochFile:
    """One such file while it is written; a context manager. What an equal one had begun goes on.

    Args:
        path: its place.
        epoch: the tensors of an epoch, for their names, shapes and types.
        about: for the header.
    """

    def __init__(self, path: Path, epoch: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        self.path, self.part, self.epochs = path, path.with_name(f".{path.name}.part"), int(about["epochs"])
        # Large numbers first, so that each tensor begins at a multiple of its numbers' size.
        names = sorted(epoch, key=lambda name: (-epoch[name].element_size(), name))
        self.sizes = {name: epoch[name].element_size() * epoch[name].numel() for name in names}
        self.begins, end = dict[str, int](), 0
        header: dict[str, Any] = {"__metadata__": {"json": json.dumps(dict(about))}}
        for name in names:
            self.begins[name], begin, end = end, end, end + self.epochs * self.sizes[name]
            shape = [self.epochs, *epoch[name].shape]
            header[name] = {"dtype": _NAMES[epoch[name].dtype], "shape": shape, "data_offsets": [begin, end]}
        header["written"] = {"dtype": "U8", "shape": [self.epochs], "data_offsets": [end, end + self.epochs]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
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
        """The epochs that are not written yet."""
        self.file.seek(len(self.head) + self.begins["written"])
        return [epoch for epoch, done in enumerate(self.file.read(self.epochs)) if not done]

    def write(self, epoch: int, held: Mapping[str, Tensor]) -> None:
        """Write the tensors of an epoch, and, once they are on the disk, that they are."""
        with naming(self.part):
            for name, size in self.sizes.items():
                self.file.seek(len(self.head) + self.begins[name] + epoch * size)
                self.file.write(held[name].contiguous().view(torch.uint8).numpy().tobytes())
            self._flush()
            self.file.seek(len(self.head) + self.begins["written"] + epoch)
            self.file.write(b"\x01")
            self._flush()

    def _flush(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
