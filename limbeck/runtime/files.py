"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save as serialise

from limbeck.runtime import bounded
from limbeck.runtime.bounded import check_ordinary, json_of
from limbeck.runtime.fingerprint import array_fingerprint, encodable, plain
from limbeck.runtime.leftovers import part


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: after a crash the file is the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part(path) as temporary:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:  # such as a full disk, which names no file
        error.filename = error.filename or str(path)
        raise


def write_text(path: Path, content: str) -> None:
    """Write `content` as UTF-8, atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` (data classes allowed) as indented JSON, atomically; ±∞ and NaN become strings (`encodable`)."""
    write_text(path, json.dumps(encodable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in the JSON file at `path`, within the bounds of `runtime.bounded`."""
    return bounded.read_json(path)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write tensors, a JSON-able `metadata` object and the tensors' digests to one safetensors file, atomically."""
    header = {"json": json.dumps(plain(dict(metadata or {})))}
    if "digests" not in (metadata or {}):  # else whoever says so checks them
        header["digests"] = json.dumps({name: digest(tensor) for name, tensor in tensors.items()})
    # Clones, because safetensors refuses two names for one memory.
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, _in_order(serialise(held, metadata=header)))


def _in_order(content: bytes) -> bytes:
    """The same file with what its header says in order: safetensors writes it in any, and equal content is to be equal bytes."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


class TensorFile(NamedTuple):
    """What `write_tensors` has written: tensors by name, and the metadata object."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any]


def read_tensors(path: Path, device: str = "cpu") -> TensorFile:
    """The tensors and the metadata object of a file written by `write_tensors`.

    Raises:
        ValueError: when a tensor is not the one that was written; files of earlier versions do not say which that was.
    """
    check_ordinary(path)
    with safe_open(path, framework="pt", device=device) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
        header = file.metadata() or {}
    for name, expected in _object(header.get("digests", "{}")).items():
        if name not in tensors or digest(tensors[name]) != expected:
            raise ValueError(f"{name} has changed since it was written")
    return TensorFile(tensors, read_header(header))


def digest(tensor: torch.Tensor) -> str:
    """Sixteen hexadecimal digits that identify the numbers of a tensor."""
    return array_fingerprint(tensor.detach().cpu().flatten().view(torch.uint8).numpy())


def read_header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """The metadata object in the header of a file written by `write_tensors`."""
    return _object((metadata or {}).get("json", "{}"))


def _object(text: str) -> dict[str, Any]:
    if not isinstance(value := json_of(text), dict):
        raise ValueError("its header does not hold an object")
    return value


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name, replacing what is there, when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with part(path) as temporary:
        temporary.mkdir()
        yield temporary
        if path.exists():
            # A folder cannot be renamed onto a full one: step the old one aside first, delete it last.
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
            os.replace(path, aside / "old")
            os.replace(temporary, path)
            shutil.rmtree(aside)
        else:
            os.replace(temporary, path)
