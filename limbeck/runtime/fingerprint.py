"""Fingerprints: a short hash of everything that determines a result, so that it can be found again instead of recomputed."""

import dataclasses
import functools
import hashlib
import inspect
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import islice
from reprlib import recursive_repr
from types import CodeType
from typing import Any

import numpy as np

from limbeck.runtime.checked import Checked, is_data, kinds_of, named_by

AT_ONCE = 4096  # items of an iterator
PIECE = 2**24  # bytes of an array that are looked at together
AS_THEY_ARE = frozenset((str, int, float, bool, type(None)))
ADDRESS = re.compile(" at 0x[0-9a-fA-F]+")


def plain(value: Any) -> Any:
    """`value` as JSON types: data classes become objects (records as they say), tuples lists, NumPy scalars numbers.

    What else a setting holds becomes a description.
    """
    if type(value) in AS_THEY_ARE:  # by far the most
        return value
    if isinstance(value, Checked):
        owner: Any = type(value)
        named, held = _named(owner), dict(value.items())
        groups = {name for name, item in held.items() if isinstance(item, Checked)} - named
        return {name: plain(item) if name in groups or is_data(item) else described(item) for name, item in held.items()}
    if hasattr(type(value), "__json__"):
        return value.__json__()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if callable(value):
        return described(value)
    return float(value) if isinstance(value, float) else value


@functools.cache
def _named(owner: type) -> frozenset[str]:
    """The settings of a class that name objects: of these an object is described, settings too."""
    return frozenset(name for name, kind in kinds_of(owner).items() if named_by(kind))


@recursive_repr("…")
def described(value: Any) -> str:
    """What an object is, the same in every process: `package.module:Class(field=value, …)`, or `package.module:function`.

    What cannot be imported by that name, such as a lambda, is told from others by its code, an instance of a class that is no data
    class by its attributes, a method by those of its object. What says nothing of itself but where it lies (a generator, a lock)
    is its class, and so is what gives items: images have fingerprints of their own.
    """
    if inspect.ismodule(value):
        return value.__name__
    if inspect.isroutine(value) or isinstance(value, type):
        name = f"{value.__module__ or 'builtins'}:{value.__qualname__}"
        content = ", ".join([*_unnamed(value, name), *_bound(value)])
    else:
        name, content = _name(value), _content(value)
    return f"{name}({content})" if content else name


def _name(value: Any) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _unnamed(value: Any, name: str) -> list[str]:
    """What a function does that cannot be imported by its name."""
    code, closure = getattr(value, "__code__", None), getattr(value, "__closure__", None) or ()
    if code is None or "<" not in name:
        return []
    cells = [_part(cell.cell_contents) for cell in closure]
    more = [_part(item) for name in ("__defaults__", "__kwdefaults__") if (item := getattr(value, name, None))]
    return [_code(code, cells, *more)]


def _bound(value: Any) -> list[str]:
    """The object of a method, where it holds anything."""
    owner = getattr(value, "__self__", None)
    if owner is None or isinstance(owner, type) or inspect.ismodule(owner):
        return []
    return [] if (said := described(owner)) == _name(owner) else [said]


def _code(code: CodeType, *more: Any) -> str:
    """What code does, whatever it is called; functions inside of it are part of it."""
    simple = [item for item in code.co_consts if isinstance(item, (str, int, float, type(None)))]
    others = [item for item in code.co_consts if not isinstance(item, (str, int, float, type(None)))]
    inner = [_code(item) if isinstance(item, CodeType) else _constant(item) for item in others]
    return fingerprint(code.co_code.hex(), code.co_names, simple, *more, *([inner] if inner else []))


def _constant(item: Any) -> str:
    """A constant in words that are the same in every process, which those of a set are not."""
    return f"{{{', '.join(sorted(map(repr, item)))}}}" if isinstance(item, frozenset) else repr(item)


def source_of(kind: type) -> str:
    """The source of a class; where that is lost, its methods' code."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed in at a prompt
        codes = [value.__code__ for value in vars(kind).values() if inspect.isfunction(value)]
        consts = [[str(const) for const in code.co_consts if not inspect.iscode(const)] for code in codes]
        return fingerprint(kind.__qualname__, [[code.co_code.hex(), code.co_names] for code in codes], consts)


def _content(value: Any) -> str:
    if isinstance(content := getattr(value, "fingerprint", None), str):
        return content
    if dataclasses.is_dataclass(value):
        return ", ".join(f"{field.name}={_part(getattr(value, field.name))}" for field in dataclasses.fields(value))
    if isinstance(value, functools.partial):
        named = [f"{key}={_part(item)}" for key, item in sorted(value.keywords.items())]
        return ", ".join([described(value.func), *map(_part, value.args), *named])
    if callable(getattr(value, "state_dict", None)):  # a torch module
        state = [_array(item) for item in value.state_dict().values() if hasattr(item, "detach")]
        return fingerprint(ADDRESS.sub("", str(value)), array_fingerprint(*state))
    if hasattr(value, "__array__"):
        array = _array(value)
        return _part(array.tolist()) if array.dtype.hasobject else array_fingerprint(array)
    return _part(value)[1:-1] if isinstance(value, (list, tuple, dict, set, frozenset)) else _held(value)


def _held(value: Any) -> str:
    """What an object holds; of one of Python's own or of C what it says of itself."""
    kind = type(value)
    if kind.__module__.partition(".")[0] in sys.stdlib_module_names or not hasattr(value, "__dict__"):
        said = repr(value)
        return "" if said.startswith("<") or ADDRESS.search(said) else said
    if isinstance(value, Enum):
        return value.name
    if hasattr(kind, "__getitem__") or hasattr(kind, "__iter__"):
        return ""
    named = {name for base in kind.__mro__ for name, item in vars(base).items() if inspect.ismemberdescriptor(item)}
    slots = [name for name in sorted(named) if name[:2] != "__" and hasattr(value, name)]
    held = {name: getattr(value, name) for name in slots} | vars(value)
    asked = [name for name in held if isinstance(getattr(kind, name, None), functools.cached_property)]
    return ", ".join(f"{name}={_attribute(item)}" for name, item in held.items() if name not in asked)


def _attribute(value: Any) -> str:
    try:
        return _part(value)
    except Exception:  # a tensor without values, or whatever does not let itself be looked at
        return _name(value)


def _array(value: Any) -> np.ndarray:
    """An array, or a tensor of whatever type and wherever it lies, as an array of one dimension or more."""
    return np.atleast_1d(np.asarray(value.detach().cpu().double() if hasattr(value, "detach") else value))


def _part(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_part, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_part(item)}' for key, item in value.items())}}}"
    if isinstance(value, (set, frozenset)):  # whose order is another one in every process
        return f"{{{', '.join(sorted(map(_part, value), key=lambda part: (len(part), part)))}}}"
    return repr(value.item() if isinstance(value, np.generic) else value) if is_data(value) else described(value)


def encodable(value: Any) -> Any:
    """`plain(value)` with the numbers that JSON has no word for as the strings `Infinity`, `-Infinity` and `NaN`."""
    return _spelt(plain(value))


def _spelt(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_spelt(item) for item in value]
    return {key: _spelt(item) for key, item in value.items()} if isinstance(value, dict) else value


def fingerprint(*values: Any) -> str:
    """Sixteen hexadecimal digits that identify `values` (data classes, dictionaries, lists, numbers, strings).

    An iterator is what a list of all that it gives would be, and of a million items few are ever held.
    """
    digest = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        digest.update(b", " if number else b"")
        for text in _texts(value):
            digest.update(text.encode())
    digest.update(b"]")
    return digest.hexdigest()[:16]


def _texts(value: Any) -> Iterator[str]:
    if not isinstance(value, Iterator):
        yield json.dumps(plain(value), sort_keys=True, allow_nan=True)
        return
    yield "["
    between = ""
    while some := list(islice(value, AT_ONCE)):
        yield between + json.dumps(plain(some), sort_keys=True, allow_nan=True)[1:-1]
        between = ", "
    yield "]"


def array_fingerprint(*arrays: np.ndarray) -> str:
    """The same for the shapes, types and bytes of arrays; a memory-mapped one is read in pieces."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        rows = max(1, PIECE // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            digest.update(np.ascontiguousarray(array[start : start + rows]).tobytes())
    return digest.hexdigest()[:16]
