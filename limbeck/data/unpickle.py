"""Reading pickled arrays without ever running what a pickle says, which is a program that may call anything.

This reader gives it six names, all of them ours, which make arrays from their bytes, beside the plain values that pickles hold
without calling anything: bytes, str, int, list, dict. Every other name is refused.
"""

import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

import numpy as np

KINDS = re.compile(r"b1|[iu][1248]|f[248]")
ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")


class Forbidden(ValueError):
    """A pickle that asks for something else than arrays and plain values, or is broken."""


class _Kind:
    """What a pickle says about an array's dtype."""

    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.name = name.decode("ascii") if isinstance(name, bytes) else str(name)
        self.order = "|"
        if not KINDS.fullmatch(self.name):
            raise Forbidden(f"an array of {self.name!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else str(order)
        if self.order not in ("|", "<", ">", "="):
            raise Forbidden(f"the byte order {self.order!r}")

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.name)


class _Array:
    """What a pickle says about an array."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        self.array = _from_bytes(raw, kind, shape, "F" if fortran else "C")


def _from_bytes(raw: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(kind, _Kind) or not isinstance(raw, (bytes, bytearray)) or order not in ("C", "F"):
        raise Forbidden("an array whose description is broken")
    return np.frombuffer(raw, kind.dtype()).reshape(tuple(int(side) for side in shape), order=order)


def _latin(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise Forbidden(f"an encoding called {encoding!r}")
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


class _Reader(pickle._Unpickler):
    """Written in Python: the one in C makes room for as many remembered values as a pickle says, whether they come or not."""

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
        Forbidden: when it holds, or asks for, anything else, or is broken.
    """
    try:
        return _plain(_Reader(file, encoding="bytes").load())
    except Forbidden as error:
        raise Forbidden(f"it asks for {error}; arrays, bytes, str, int, list and dict are accepted") from None
    except Exception as error:  # a broken pickle fails in many ways
        raise Forbidden(f"it is broken ({type(error).__name__})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.array is None:
            raise Forbidden("an array without its description")
        return value.array
    if isinstance(value, np.ndarray | bytes | str | int):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    raise Forbidden(f"a value of type {type(value).__name__}")
