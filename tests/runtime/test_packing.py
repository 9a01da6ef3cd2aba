"""What jobs have in common as bytes: arrays in files by their place, all else as it is."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="ray is not installed (extra: ray)")

from limbeck.runtime.executor.packing import NotThere, packed, unpacked  # noqa: E402


def parts(file: Path) -> list[tuple[Any, bool]]:
    """Parts of a file of 500 × 400 numbers, and whether each is in one piece there."""
    whole = np.load(file, mmap_mode="r")
    raw = np.memmap(file, np.uint8, "r", 9000)[100:]  # begins in the middle of a page
    pieces = whole, whole[3:], whole[3:7][1:], whole[5], whole.reshape(1000, 200)[7:], raw
    return [*((piece, True) for piece in pieces), (whole[::2], False), (whole[:, 1:], False)]


def test_parts_of_a_file_are_found_again(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.random.default_rng(0).random((500, 400)))
    for array, by_place in parts(tmp_path / "array.npy"):
        content = packed([array, lambda x: x])
        assert (len(content) < 2000) == by_place
        np.testing.assert_array_equal(unpacked(content)[0], array)
        assert len(packed(array, whole=True)) > array.nbytes


def test_what_is_written_to_it_stays_with_the_process(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(1000))
    found = unpacked(packed(np.load(tmp_path / "array.npy", mmap_mode="r")))
    found[:] = 1.0
    assert np.load(tmp_path / "array.npy").sum() == 0.0


@pytest.mark.parametrize("change", ["removed", "another"])
def test_another_file_is_not_taken_for_it(tmp_path: Path, change: str) -> None:
    file = tmp_path / "array.npy"
    np.save(file, np.zeros(1000))
    array = np.load(file, mmap_mode="r")
    content, whole = packed(array), packed(array, whole=True)
    if change == "removed":
        file.unlink()
    else:
        os.utime(file, ns=(1, 1))
    with pytest.raises(NotThere):
        unpacked(content)
    np.testing.assert_array_equal(unpacked(whole), np.zeros(1000))
