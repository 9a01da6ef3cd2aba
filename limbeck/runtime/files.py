"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed."""

import ctypes
import errno
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

from limbeck.runtime.bounded import MOST_JSON, json_of, opened, read_bytes
from limbeck.runtime.errors import one_line
from limbeck.runtime.fingerprint import array_fingerprint, encodable, plain
from limbeck.runtime.leftovers import part
from limbeck.runtime.sealed import (
    BLANK,
    CHECKSUM,
    KIND,
    OF,
    Damaged,
    FileKind,
    check_header,
    say_unchecked,
    sealed,
    sealed_header,
    unsealed,
)

if TYPE_CHECKING:  # names and JSON are read without torch
    import torch

TENSORS = FileKind("tensors")  # of no kind of its own
LONGEST_HEADER = 2**26
AT_FDCWD, EXCHANGE = -100, 2  # of renameat2(2); renamex_np(2) has the same flag


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


def write_json(path: Path, value: Any, kind: FileKind | None = None, of: str = "") -> None:
    """Write `value` (data classes allowed) as indented JSON, atomically; ±∞ and NaN become strings (`encodable`).

    Args:
        path: of the file.
        value: an object, where there is a `kind`.
        kind: which file of ours it is, with a checksum; None for one that others read, or nobody.
        of: what it belongs to.
    """
    held = encodable(value) if kind is None else sealed(value, kind, of)
    write_text(path, json.dumps(held, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, kind: FileKind | None = None, of: str = "") -> Any:
    """The value in the JSON file at `path`, within the bounds of `runtime.bounded`, without what a file of ours says of itself.

    Args:
        path: of the file.
        kind: which file of ours it is to be; None takes any, and those of others.
        of: what it is to belong to.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is no JSON; `Damaged` when it is another file of ours, or not what was written.
    """
    content = read_bytes(path, MOST_JSON)
    try:
        value = json_of(content)
    except ValueError as error:
        if kind is None:
            raise
        raise Damaged(f"it is no JSON: {one_line(error)}") from error
    return unsealed(value, kind, of, path)


def write_tensors(
    path: Path,
    tensors: "Mapping[str, torch.Tensor]",
    metadata: Mapping[str, Any] | None = None,
    kind: FileKind = TENSORS,
    of: str = "",
) -> None:
    """Write tensors, a JSON-able `metadata` object and the tensors' digests to one safetensors file, atomically."""
    from safetensors.torch import save as serialise

    # Clones, because safetensors refuses two names for one memory.
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    digests = {name: digest(tensor) for name, tensor in held.items()}
    header = {"json": json.dumps(plain(dict(metadata or {}))), "digests": json.dumps(digests), KIND: str(kind), CHECKSUM: BLANK}
    write_bytes(path, _finished(serialise(held, metadata=header | ({OF: of} if of else {}))))


def _finished(content: bytes) -> bytes:
    """The same file with what its header says in order, as safetensors leaves it to chance, and with the header's checksum."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = sealed_header(text + b" " * (-len(text) % 8))  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


class TensorHeader(NamedTuple):
    """What a file of `write_tensors` says before its tensors.

    Args:
        metadata: the object.
        digests: of the tensors by name; those of earlier versions may have none.
        sealed: whether the header has a checksum, which is right.
        shapes, kinds: of the tensors; kinds as safetensors calls them, such as F32.
    """

    metadata: dict[str, Any]
    digests: dict[str, str]
    sealed: bool
    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, str]


class TensorFile(NamedTuple):
    """What `write_tensors` has written: tensors by name, and the metadata object."""

    tensors: "dict[str, torch.Tensor]"
    metadata: dict[str, Any]


def read_tensor_header(path: Path, kind: FileKind | None = None, of: str = "", *, say: bool = True) -> TensorHeader:
    """The header alone; arguments and errors are those of `read_tensors`. Without `say` no note is made of an earlier version."""
    with opened(path) as file:
        length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        if not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise Damaged("it is no file of tensors")
        text = file.read(length)
    try:
        said = json_of(text)
        metadata = said.pop("__metadata__", {})
        found = check_header(text, metadata, kind, of)
        digests, held = _object(metadata.get("digests", "{}")), read_header(metadata)
        shapes, kinds = ({name: one[key] for name, one in said.items()} for key in ("shape", "dtype"))
        header = TensorHeader(held, digests, found, {name: tuple(shape) for name, shape in shapes.items()}, kinds)
    except Damaged:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged("its header cannot be read") from error
    if not found and kind is not None and say:
        say_unchecked(kind, path)
    return header


def read_tensors(path: Path, device: str = "cpu", kind: FileKind | None = None, of: str = "") -> TensorFile:
    """The tensors and the metadata object of a file written by `write_tensors`.

    Args:
        path: of the file.
        device: to put the tensors on.
        kind: which file it is to be; None takes any.
        of: what it is to belong to, where it says that.

    Raises:
        OSError: when it cannot be read.
        Damaged: when a byte is not the one that was written; files of earlier versions may not say which that was.
    """
    header = read_tensor_header(path, kind, of)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # Copies, so that what is used is what was looked at, whatever becomes of the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except SafetensorError as error:
        raise Damaged("it is no whole file of tensors") from error
    if header.sealed and header.digests.keys() != tensors.keys():
        raise Damaged("its header does not say what its tensors are")
    for name, expected in header.digests.items():
        if name not in tensors or digest(tensors[name]) != expected:
            raise Damaged(f"{name} has changed since it was written")
    return TensorFile({name: tensor.to(device) for name, tensor in tensors.items()}, header.metadata)


def digest(tensor: "torch.Tensor") -> str:
    """Sixteen hexadecimal digits that identify the numbers of a tensor."""
    import torch

    flat = tensor.detach().cpu().flatten()
    # No tensor of nothing can be seen as bytes if it came with strides of nothing.
    return array_fingerprint((flat.view(torch.uint8) if len(flat) else flat.new_empty(0, dtype=torch.uint8)).numpy())


def read_header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """The metadata object in the header of a file written by `write_tensors`."""
    return _object((metadata or {}).get("json", "{}"))


def _object(text: str) -> dict[str, Any]:
    if not isinstance(value := json_of(text), dict):
        raise ValueError("its header does not hold an object")
    return value


def put_copy(source: Path, target: Path) -> None:
    """Put the file `source` at `target` too, at once: a link to it, or a copy where the disk has none or is another one.

    For files that are replaced and never changed, as all are that are written here.
    """
    with part(target) as made:
        try:
            os.link(source.resolve(), made)
        except OSError:
            shutil.copyfile(source, made)
            with made.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(made, target)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name, replacing what is there, when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    restore(path)
    with part(path) as temporary:
        temporary.mkdir()
        yield temporary
        while not _takes_place(temporary, path):
            pass


def _takes_place(made: Path, path: Path) -> bool:
    """Rename a folder to `path`; False where another process has put one there meanwhile, the old one (`restore`) or its own."""
    if not path.exists():
        return _is_renamed(made, path)
    if exchanged(made, path):
        return True  # and `part` removes the old one
    # A folder cannot be renamed onto a full one: the old one steps aside first, from where `restore` brings it back.
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
    with suppress(FileNotFoundError):  # another process was faster
        os.replace(path, aside / "old")
    taken = _is_renamed(made, path)
    shutil.rmtree(aside, ignore_errors=True)  # a network file system keeps what somebody has open
    return taken


def _is_renamed(made: Path, path: Path) -> bool:
    """Rename a folder to `path`; False where one is that is not empty."""
    try:
        os.replace(made, path)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return False
    return True


def exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders at once, so that no moment finds one of them missing; False where the system or the disk cannot."""
    paths, here, how = [os.fsencode(path) for path in (one, other)], ctypes.c_int(AT_FDCWD), ctypes.c_uint(EXCHANGE)
    with suppress(OSError, TypeError, AttributeError):  # of a system without
        if sys.platform == "darwin":
            return bool(ctypes.CDLL(None).renamex_np(*paths, how) == 0)
        return bool(ctypes.CDLL(None).renameat2(here, paths[0], here, paths[1], how) == 0)
    return False


def restore(path: Path) -> None:
    """Bring the folder `path` back where a crash has left it aside, as `new_folder` does where folders cannot be exchanged."""
    if path.exists():
        return
    for aside in sorted(path.parent.glob(f".{glob.escape(path.name)}.*.old/old")):
        with suppress(OSError):  # another process is faster, or nothing can be written here
            os.replace(aside, path)
            aside.parent.rmdir()
            return


def checksum(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**22):
            digest.update(part)
    return digest.hexdigest()
