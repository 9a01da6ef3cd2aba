"""Whether verifying finds what is broken or missing."""

from pathlib import Path

import pytest
import torch
from experts.walks import IDENTITY, filled

from limbeck.experts.blocks import Header, write_rows
from limbeck.experts.maintain import verify
from limbeck.experts.notes import Want
from limbeck.experts.store import TrajectoryStore
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import digest


def test_every_byte_of_a_file_counts(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert verify(store) == []
    draws = torch.Generator().manual_seed(0)
    for file in sorted(tmp_path.glob("expert-0001/*.safetensors")):
        whole = file.read_bytes()
        for _ in range(12):
            place, bit = (int(torch.randint(most, (), generator=draws)) for most in (len(whole), 8))
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            problems = verify(TrajectoryStore(tmp_path))
            assert problems, (file.name, place)
            assert all(line.startswith(f"expert-0001/{file.name}: ") for line in problems)
        file.write_bytes(whole[:-1])
        assert "cannot be read" in verify(TrajectoryStore(tmp_path))[0]
        file.write_bytes(whole)
    assert verify(TrajectoryStore(tmp_path)) == []


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    store = filled(tmp_path)
    next(tmp_path.glob("expert-0001/epochs-0008-0015-*")).unlink()
    store = TrajectoryStore(tmp_path)
    assert verify(store) == ["expert-0001: epochs 8-15 are missing"]
    assert verify(store, [Want(2, (1, 2), 30, 2, "half")]) == []
    assert verify(store, [Want(3, (1, 2), 30, 1, "half")]) == ["expert-0002: epochs 1-2 are missing"]
    assert verify(store, [Want(1, (1, 7), None, 0, "fp32")]) == ["expert-0000: epochs 1,7 are missing"]  # are not so exact
    assert verify(TrajectoryStore(tmp_path / "empty", IDENTITY)) == ["it holds no expert"]


def test_numbers_that_are_not_finite_are_found(tmp_path: Path) -> None:
    TrajectoryStore(tmp_path, IDENTITY)
    theta = torch.full((1, 700), torch.inf)
    header = Header(epochs=[0], coding="fp32", end=digest(theta), state=0)
    file = write_rows(tmp_path / "expert-0000", {"theta": theta}, header, 0).path
    problem = f"expert-0000/{file.name}: theta has numbers that are not finite"
    assert verify(TrajectoryStore(tmp_path), []) == [problem]


def test_what_is_noted_beside_the_blocks_counts_too(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (tmp_path / "expert-0001" / "accuracy.json").write_text("{")
    (line,) = verify(store)
    assert line.startswith("expert-0001/accuracy.json: ")
    with pytest.raises(UsageError, match="delete it, and only the accuracies of epochs that were removed are lost"):
        store.accuracies(1)
    (tmp_path / "expert-0001" / "accuracy.json").unlink()
    (tmp_path / "difficulty-x.json").write_text("{")
    assert verify(store) == [f"experts: '{tmp_path / 'difficulty-x.json'}' is broken; delete it"]
