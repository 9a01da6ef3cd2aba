"""Fingerprints of values, and of what is read as it comes."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.runtime import fingerprint as module
from limbeck.runtime.fingerprint import fingerprint

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
