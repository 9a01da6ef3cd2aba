"""Fingerprints of values, and of what is read as it comes."""

import hashlib
import json
from typing import Any

import pytest
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
