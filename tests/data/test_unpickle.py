"""Nothing that a pickle asks for is ever run."""

import codecs
import os
import pickle
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data.unpickle import Forbidden, read_pickle


def read(content: bytes) -> Any:
    return read_pickle(BytesIO(content))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["u1", "<i4", ">i8", "f4", "?"])
def test_arrays_come_back(protocol: int, kind: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    for value in (array, array.T, array[:0]):
        found = read(pickle.dumps({"data": value}, protocol))["data"]
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)


def test_plain_values_come_back() -> None:
    value = {b"labels": [1, 2, -3, 2**70], "names": [b"cat", "猫"], "flag": True, b"nested": {"a": [[], {}]}}
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert read(pickle.dumps(value, protocol)) == value


def test_what_python_2_wrote_comes_back() -> None:
    """The opcodes of its protocol 2: names of modules as they were then, text as bytes."""
    pixels = bytes(range(6))
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    array = empty + b"(K\x01K\x02K\x03\x86" + dtype + b"\x89U\x06" + pixels + b"tb"
    found = read(b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x04K\x07eu.")
    np.testing.assert_array_equal(found[b"data"], np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert found[b"labels"] == [4, 7]


class Runs:
    """Would create a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class Calls:
    """Calls anything."""

    def __init__(self, *what: Any) -> None:
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        return self.what[0], self.what[1:]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_not_run(tmp_path: Path, protocol: int) -> None:
    for value in ({"data": Runs(tmp_path / "made")}, [np.array([Runs(tmp_path / "made")], dtype=object)]):
        with pytest.raises(Forbidden, match=r"^it asks for .*; arrays, bytes, str, int, list and dict are accepted$"):
            read(pickle.dumps(value, protocol))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (Calls(getattr, "", "join"), "getattr"),
        (Calls(codecs.encode, "x", "rot13"), "rot13"),
        (np.float64(1.5), "numpy"),
        (np.array(["a"]), "'U1'"),
        (np.array([1 + 2j]), "'c16'"),
        (np.zeros(2, dtype=[("a", "u1")]), "'V1'"),
        (1.5, "a value of type float"),
        (None, "a value of type NoneType"),
        ({1, 2}, "a value of type set"),
    ],
)
def test_everything_else_is_refused(value: Any, asked: str) -> None:
    with pytest.raises(Forbidden) as caught:
        read(pickle.dumps({"data": value}, 2 if not isinstance(value, set) else 4))
    assert asked in str(caught.value)


def test_what_makes_arrays_cannot_be_changed() -> None:
    """BUILD on a function sets whatever attributes the state names."""
    for name in (b"numpy.core.multiarray\n_reconstruct", b"numpy\ndtype"):
        with pytest.raises(Forbidden, match="a change of what makes arrays"):
            read(b"\x80\x02c" + name + b"\nN}U\x04makeK\x01s\x86b.")
    array = np.arange(3, dtype=np.uint8)
    np.testing.assert_array_equal(read(pickle.dumps(array, 2)), array)


def test_a_list_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(Forbidden, match=r"it is broken \(RecursionError\)"):
        read(pickle.dumps(endless))


@pytest.mark.parametrize("kind", [list, tuple])
def test_what_is_shared_is_counted_wherever_it_stands(kind: type) -> None:
    """Forty pairs of the same are 132 bytes and 10¹² values, whether they are values, keys, or what an array is described with."""
    shared = kind()
    for _ in range(40):
        shared = kind([shared, shared])
    with pytest.raises(Forbidden, match="^it asks for more than 1048576 values; arrays"):
        read(pickle.dumps(shared))
    described = (Calls(np.dtype, shared), Calls(codecs.encode, "x", shared))
    for value in described:
        with pytest.raises(Forbidden, match="'list'"):
            read(pickle.dumps(value, 2))
    inner: list[Any] = [1, [2, 3]]
    found = read(pickle.dumps([inner, {"a": inner}, inner]))
    assert found == [inner, {"a": inner}, inner]
    assert found[0] is found[2]


def test_keys_are_text_and_numbers() -> None:
    """To hash, or to compare, what is shared takes as long as to copy it."""
    pair: Any = ()
    for _ in range(40):
        pair = (pair, pair)
    keyed = pickle.dumps({"x": pair}, 2)
    unkeyed = keyed.replace(b"X\x01\x00\x00\x00xq\x01", b"").replace(b"s.", b"K\x01s.")
    with pytest.raises(Forbidden, match=r"it is broken \(TypeError\)"):
        read(unkeyed)
    with pytest.raises(Forbidden, match="a value of type frozenset"):
        read(pickle.dumps({frozenset((1, 2)): 1}))


def test_a_size_that_is_not_there_is_refused() -> None:
    content = pickle.dumps(np.zeros((4, 5), np.uint8), 2)
    for changed in (content.replace(b"K\x04K\x05", b"K\x04K\x06"), b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x."):
        with pytest.raises(Forbidden, match="it is broken"):
            read(changed)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_pickle_is_refused_or_read(data: st.DataObject) -> None:
    content = bytearray(
        pickle.dumps({b"data": np.zeros((2, 3), np.uint8), b"labels": [1, 2]}, data.draw(st.sampled_from([0, 2, 4, 5])))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(content))
    except Forbidden as error:
        assert "\n" not in str(error)
