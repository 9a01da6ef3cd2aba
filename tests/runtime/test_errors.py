"""Errors say themselves in one line."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.runtime.errors import DiskFailure, Failure, UsageError, require


@given(st.text() | st.text("a\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), st.sampled_from([UsageError, Failure, DiskFailure]))
def test_whatever_names_go_into_them(text: str, kind: type[Exception]) -> None:
    said = str(kind(text))
    assert len(said.splitlines()) <= 1
    assert said == text or len(text.splitlines()) > 1 or text[-1:] in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
    assert str(pickle.loads(pickle.dumps(kind(text)))) == said


def test_a_line_end_is_spelt() -> None:
    with pytest.raises(UsageError) as error:
        require(False, "data.classes", "x", "one of a\nb, c\u2028d")
    assert str(error.value) == "data.classes: 'x' is not one of a\\nb, c\\u2028d"
    assert isinstance(error.value, ValueError)
