"""Kept work: found, made once, checked, grown, and kept elsewhere for a while."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from limbeck.runtime.executor import side_by_side
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.kept import Kept, cache_root, elsewhere, place


def kept(path: Path) -> Kept[dict[str, Tensor]]:
    return Kept.tensors(path, lambda held: held["x"].ndim == 1)


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    made = kept(tmp_path / "a.safetensors")
    assert made.held() is None
    assert torch.equal(made.get(lambda: {"x": torch.arange(3)})["x"], torch.arange(3))
    assert torch.equal(made.get(lambda: pytest.fail("made again"))["x"], torch.arange(3))


def test_every_byte_is_checked_and_what_is_damaged_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = kept(tmp_path / "a.safetensors")
    made.get(lambda: {"x": torch.arange(3.0)})
    content = made.path.read_bytes()
    made.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="^x has changed since it was written$"):
        read_tensors(made.path)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(made.get(lambda: {"x": torch.ones(2)})["x"], torch.ones(2))
    assert [record.message for record in caplog.records] == [f"{made.path} is damaged; what it held is made anew"]
    other = Kept.json(tmp_path / "a.json")
    assert other.get(lambda: {"a": 1, "b": [0.1]}) == {"a": 1, "b": [0.1]}
    other.path.write_text(other.path.read_text().replace("0.1", "0.2"))
    assert other.held() is None


def test_files_without_digests_are_read(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / "old.safetensors", metadata={"json": '{"a": 1}'})
    assert read_tensors(tmp_path / "old.safetensors")[1] == {"a": 1}
    assert kept(tmp_path / "old.safetensors").held() is not None
    (tmp_path / "old.json").write_text('{"a": 1}')
    assert Kept.json(tmp_path / "old.json").held() == {"a": 1}


def test_what_grows_goes_on(tmp_path: Path) -> None:
    made, begun = kept(tmp_path / "a.safetensors"), list[int]()

    def more(held: dict[str, Tensor] | None) -> Iterator[dict[str, Tensor]]:
        begun.append(0 if held is None else len(held["x"]))
        for size in range(begun[-1] + 1, 4):
            yield {"x": torch.arange(size)}
            if len(begun) == 1 and size == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.grown(lambda held: len(held["x"]) >= 3, more)
    assert len(made.grown(lambda held: len(held["x"]) >= 3, more)["x"]) == 3
    assert begun == [0, 2]


def where(_: int) -> tuple[int, str]:
    return os.getpid(), str(cache_root())


def test_elsewhere_is_where_workers_keep_things_too(tmp_path: Path) -> None:
    before = cache_root()
    list(side_by_side(where, range(4), 2))  # whose process stays
    with elsewhere(tmp_path):
        assert place("kind", 1).parent == tmp_path / "kind"
        assert {root for _, root in side_by_side(where, range(4), 2)} == {str(tmp_path)}
    assert cache_root() == before
    assert {root for _, root in side_by_side(where, range(4), 2)} == {str(before)}


def test_tensors_of_all_kinds_have_digests(tmp_path: Path) -> None:
    held = {"a": torch.tensor(1.5), "b": torch.ones(2, 2, dtype=torch.bool), "c": torch.empty(0), "d": torch.ones(3).bfloat16()}
    write_tensors(tmp_path / "a.safetensors", held)
    read, _ = read_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(read[name], value) for name, value in held.items())


def test_tensors_of_nothing_have_digests_whatever_their_strides(tmp_path: Path) -> None:
    empty = torch.from_numpy(np.arange(4)[np.arange(0)])
    held = {
        "long": empty,
        "strided": torch.empty(0).as_strided((0,), (0,)),
        "rows": torch.zeros(0, 3),
        "narrow": torch.zeros(3)[:0],
    }
    write_tensors(tmp_path / "file", held)
    found = read_tensors(tmp_path / "file").tensors
    assert {name: (one.shape, one.dtype) for name, one in found.items()} == {
        name: (one.shape, one.dtype) for name, one in held.items()
    }
