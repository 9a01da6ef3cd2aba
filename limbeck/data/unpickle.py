"""Reading pickled arrays without ever running what a pickle says, which is a program that may call anything.

This reader gives it six names, all of them ours, which make arrays from their bytes, beside the plain values that pickles hold
without calling anything: bytes, str, int, list, dict. Every other name is refused.
"""

import pickle
import re
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, ClassVar, NoReturn

import numpy as np

KINDS = re.compile(r"b1|[iu][1248]|f[248]")
ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
MOST = 2**20  # values, what is shared counted wherever it stands: a file of CIFAR has 150 000


class Forbidden(ValueError):
    """A pickle that asks for something else than arrays and plain values, or is broken."""


def _word(value: Any) -> str:
    """Text, Python 2's too; what else stands in its place by its type alone, for it may be endless."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    return value if isinstance(value, str) else type(value).__name__


class _Kind:
    """What a pickle says about an array's dtype."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = _word(name)
        self.order = "|"
        if not KINDS.fullmatch(self.name):
            raise Forbidden(f"an array of {self.name!r}")

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = _word(state[1])
        if self.order not in ("|", "<", ">", "="):
            raise Forbidden(f"the byte order {self.order!r}")

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.name)


class _Array:
    """What a pickle says about an array."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, kind, fortran, raw = state
        self.array = _from_bytes(raw, kind, shape, "F" if fortran else "C")


def _from_bytes(raw: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(kind, _Kind) or not isinstance(raw, (bytes, bytearray)) or order not in ("C", "F"):
        raise Forbidden("an array whose description is broken")
    return np.frombuffer(raw, kind.dtype()).reshape(tuple(int(side) for side in shape), order=order)


def _latin(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise Forbidden(f"an encoding called {_word(encoding)!r}")
    return text.encode("latin1")


class _Maker:
    """A function that a pickle may call; it cannot change it."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise Forbidden("a change of what makes arrays")


def _no_bytes(*arguments: Any) -> bytes:
    """How Python 3 writes no bytes for Python 2: as a call without arguments."""
    if arguments:
        raise Forbidden("bytes made from something else")
    return b""


# By name: the modules in which it may be called so, and what it stands for here.
NAMES: dict[str, tuple[tuple[str, ...], Any]] = {
    "ndarray": (("numpy",), "the type of arrays, which is only ever handed on"),
    "dtype": (("numpy",), _Maker(_Kind)),
    "_reconstruct": (ARRAYS, _Maker(lambda *_: _Array())),
    "_frombuffer": (ARRAYS, _Maker(_from_bytes)),
    "encode": (("_codecs",), _Maker(_latin)),
    "bytes": (("__builtin__", "builtins"), _Maker(_no_bytes)),
}


def _number(kind: Any, raw: Any = b"") -> bool | int | float:
    """A scalar of NumPy's as a number."""
    number: bool | int | float = _from_bytes(raw, kind, (), "C").item()
    return number


# The names that NumPy's scalars have in files, of versions 1 and 2, for `torch.serialization.safe_globals`: what they stand for
# makes numbers from their bytes and nothing else.
SCALARS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Kind, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
]


def _as_list(count: int) -> Callable[[Any], None]:
    """Makes a list of the last values on the stack."""

    def load(reader: Any) -> None:
        reader.stack.append([reader.stack.pop() for _ in range(count)][::-1])

    return load


def _refused(reader: Any) -> NoReturn:
    raise Forbidden("a value of type frozenset")


class _Reader(pickle._Unpickler):
    """Written in Python: the one in C makes room for as many remembered values as a pickle says, whether they come or not.

    Tuples become lists, which cannot be keys: Python would hash one whose parts are shared again and again, without an end.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.EMPTY_TUPLE[0]: pickle._Unpickler.dispatch[pickle.EMPTY_LIST[0]],
        pickle.TUPLE1[0]: _as_list(1),
        pickle.TUPLE2[0]: _as_list(2),
        pickle.TUPLE3[0]: _as_list(3),
        pickle.TUPLE[0]: pickle._Unpickler.dispatch[pickle.LIST[0]],
        pickle.FROZENSET[0]: _refused,
    }

    def find_class(self, module: str, name: str) -> Any:
        modules, meant = NAMES.get(name, ((), None))
        if module not in modules:
            raise Forbidden(f"{module}.{name}")
        return meant

    def persistent_load(self, pid: Any) -> NoReturn:
        raise Forbidden("an object that lies elsewhere")


def read_pickle(file: BinaryIO) -> Any:
    """The value in a pickle of arrays, bytes, str, int, list and dict; text of Python 2 as bytes.

    Raises:
        Forbidden: when it holds, or asks for, anything else, or more than `MOST` values, or is broken.
    """
    try:
        return _plain(_Reader(file, encoding="bytes").load(), {})[0]
    except Forbidden as error:
        raise Forbidden(f"it asks for {error}; arrays, bytes, str, int, list and dict are accepted") from None
    except Exception as error:  # a broken pickle fails in many ways
        raise Forbidden(f"it is broken ({type(error).__name__})") from error


def _plain(value: Any, made: dict[int, tuple[Any, int]]) -> tuple[Any, int]:
    """The value with arrays in it, and how many values it is.

    Args:
        value: as it was read.
        made: the same of lists and dictionaries, by their `id`: what stands in several places is made once.
    """
    if isinstance(value, _Array):
        if value.array is None:
            raise Forbidden("an array without its description")
        return value.array, 1
    if isinstance(value, np.ndarray | bytes | str | int):
        return value, 1
    if not isinstance(value, list | dict):
        raise Forbidden(f"a value of type {type(value).__name__}")
    if id(value) not in made:
        parts = [_plain(item, made) for item in (value.values() if isinstance(value, dict) else value)]
        items, count = [item for item, _ in parts], 1 + sum(count for _, count in parts)
        if count > MOST:
            raise Forbidden(f"more than {MOST} values")
        made[id(value)] = dict(zip(value, items, strict=True)) if isinstance(value, dict) else items, count
    return made[id(value)]
