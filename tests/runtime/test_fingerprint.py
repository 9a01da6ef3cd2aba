"""Fingerprints of values, and of what is read as it comes."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.runtime import fingerprint as module
from limbeck.runtime.fingerprint import described, fingerprint

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=5))
def test_it_is_that_of_the_json_of_a_list(values: list[Any]) -> None:
    text = json.dumps(values, sort_keys=True)
    assert fingerprint(*values) == hashlib.sha256(text.encode()).hexdigest()[:16]


@given(VALUES, st.lists(VALUES, max_size=7), VALUES)
def test_an_iterator_is_the_list_of_what_it_gives(before: Any, rows: list[Any], after: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", 3)
        assert fingerprint(before, iter(rows), after) == fingerprint(before, rows, after)


def made(text: str) -> Any:
    """A function that nobody can import."""
    return eval(text, {})  # noqa: S307


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lambda x: x + 1", "lambda x: x + 2"),
        ("lambda x, s=0.1: x + s", "lambda x, s=0.5: x + s"),
        ("lambda x, *, s=0.1: x + s", "lambda x, *, s=0.5: x + s"),
        ("lambda x: x in (1, 2)", "lambda x: x in (1, 3)"),
        ("lambda x: x in {1, 2}", "lambda x: x in {1, 3}"),
        ("lambda x: (lambda y: y + 1)(x)", "lambda x: (lambda y: y + 2)(x)"),
        ("lambda x: x + 1j", "lambda x: x + 2j"),
        ("lambda x: x + b'a'", "lambda x: x + b'b'"),
    ],
)
def test_functions_without_a_name_are_told_apart_by_all_that_they_do(one: str, other: str) -> None:
    assert described(made(one)) == described(made(one))
    assert described(made(one)) != described(made(other))


def test_simple_ones_are_described_as_they_always_were() -> None:
    """Or no run with one could be resumed."""
    function = made("lambda x: x + 1")
    code = function.__code__
    known = fingerprint(code.co_code.hex(), code.co_names, [None, 1], [])
    assert described(function) == f"builtins:<lambda>({known})"


class Holder:
    """Of a class that is no data class."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def maps(self) -> None:
        pass

    @cached_property
    def found(self) -> float:
        return 0.5


class Slotted(Holder):
    __slots__ = ("more",)

    def __init__(self, more: Any) -> None:
        super().__init__(0)
        self.more = more


@dataclass
class Fields:
    held: Any


class Kind(Enum):
    ONE, OTHER = 1, 2


class Items(Holder):
    def __getitem__(self, number: int) -> Any:
        return self.held[number]


MADE: list[Callable[[Any], Any]] = [Holder, Slotted, lambda held: Holder(held).maps, lambda held: Fields(Holder([held]))]


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.1, 0.9),
        ("a", "b"),
        (np.zeros(2), np.ones(2)),
        (np.array(["a", None], dtype=object), np.array(["b", None], dtype=object)),
        (torch.zeros(2), torch.ones(2)),
        (torch.float32, torch.float64),
        (Path("a"), Path("b")),
        (Kind.ONE, Kind.OTHER),
        (frozenset("a"), frozenset("b")),
        (1j, 2j),
        (Holder(1), Holder(2)),
        (lambda: Holder(1), lambda: Holder(2)),
    ],
)
def test_objects_are_told_apart_by_what_they_hold(made: Callable[[Any], Any], one: Any, other: Any) -> None:
    assert described(made(one)) == described(made(one)) != described(made(other))


def test_how_an_object_is_described() -> None:
    name = f"{__name__}:Holder"
    assert described(Holder(0.1)) == f"{name}(held=0.1)"
    assert described(Holder(0.1).maps) == f"{name}.maps({name}(held=0.1))"
    held = Holder(0.1)
    assert held.found == 0.5 and described(held) == f"{name}(held=0.1)"  # what was asked for is nothing that it holds
    held.held = [held]
    assert described(held) == f"{name}(held=[…])"


def test_what_says_nothing_of_itself_is_its_class() -> None:
    name = f"{__name__}:Holder"
    assert described(Holder(Lock())) == f"{name}(held=_thread:lock)"
    assert described(Holder(torch.Generator())) == f"{name}(held=torch._C:Generator)"
    assert described(Holder(torch.zeros(1, device="meta"))) == f"{name}(held=torch:Tensor)"
    assert described(Items([1])) == described(Items([2])) == f"{__name__}:Items"  # as a data set


def test_names_alone_stay_names() -> None:
    """Or no run with one could be resumed."""

    class Nothing:
        def maps(self) -> None:
            pass

    assert described(Nothing()) == f"{__name__}:{Nothing.__qualname__}"
    assert described(len) == "builtins:len" and described(torch.relu).endswith("relu") and described(Holder) == f"{__name__}:Holder"
    assert described(dict.fromkeys) == "builtins:dict.fromkeys"


def test_no_description_depends_on_a_process() -> None:
    code = (
        "import pathlib, threading, torch\nfrom limbeck.runtime.fingerprint import described\n"
        "class Net(torch.nn.Module):\n    def extra_repr(self): return f'lock={threading.Lock()}'\n"
        "class Holder:\n    def __init__(self):\n"
        "        self.held = [{'a', 'bc', 'd'}, frozenset('xyz'), pathlib.Path('a'), Net(), object()]\n"
        "print(described(Holder()), described(Holder().__init__))"
    )
    run = [sys.executable, "-c", code]
    found = {subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(found) == 1 and " at 0x" not in found.pop()
