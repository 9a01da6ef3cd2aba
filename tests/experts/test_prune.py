"""Pruning removes what nobody needs, and nothing else."""

from pathlib import Path

import pytest
import torch
from experts.walks import IDENTITY, Walker, filled, snapshot, walk

from limbeck.experts.files import Recorder
from limbeck.experts.maintain import prune, verify
from limbeck.experts.notes import Want
from limbeck.experts.store import TrajectoryStore
from limbeck.experts.train import fill
from limbeck.runtime.errors import UsageError


@pytest.mark.parametrize("coding", ["fp32", "half"])
def test_pruning_removes_what_no_recipe_needs_and_nothing_else(tmp_path: Path, coding: str) -> None:
    store = filled(tmp_path, Want(3, tuple(range(31)), 60, 3, coding))
    (tmp_path / "expert-0001" / ".epochs-0000.safetensors.abc.part").write_text("half a file")
    less = [Want(2, tuple(range(12)), 60, 1, coding), Want(1, (20, 21), None, 0, coding)]
    before, read = snapshot(tmp_path), {epoch: store.read(0, epoch) for epoch in (*range(12), 20, 21, 60)}
    logs = [store.accuracies(expert) for expert in range(2)]
    dry = prune(store, less, dry_run=True)
    assert snapshot(tmp_path) == before
    removed = prune(store, less)
    assert [(action.path, action.what) for action in removed] == [(action.path, action.what) for action in dry]
    freed = sum(map(len, before.values())) - sum(map(len, snapshot(tmp_path).values()))
    assert freed == pytest.approx(sum(action.bytes for action in removed), abs=6000)  # the accuracies that stay, in a file
    for opened in (store, TrajectoryStore(tmp_path)):
        assert opened.experts == [0, 1]
        # In half the last checkpoints of the cut blocks, 15 and 23, stay with those that are read through them.
        ends = [] if coding == "fp32" else [15]
        assert opened.held(1) == [*range(12), *ends]
        assert opened.held(0) == [*range(12), *ends, 20, 21, *([] if coding == "fp32" else [23]), 60]
        for epoch, theta in read.items():
            assert torch.equal(opened.read(0, epoch), theta)
        assert [opened.accuracies(expert) for expert in range(2)] == logs
        assert verify(opened) == []
        assert set(opened.wanted()) == set(less)
    assert prune(store, less) == []
    fill(store, Want(2, tuple(range(14)), 60, 1, "fp16"), Walker(store, coding).train)  # and it can be filled again
    assert float((store.read(1, 13) - walk(1, 13)[13]).abs().max()) < 1e-3
    assert verify(store) == []


def test_a_store_that_others_read_may_be_pruned(tmp_path: Path) -> None:
    filled(tmp_path, Want(1, tuple(range(20)), None, 0, "fp32"))
    reader = TrajectoryStore(tmp_path)
    assert reader.held(0) == list(range(20))
    prune(TrajectoryStore(tmp_path), [Want(1, tuple(range(10)), None, 0, "fp32")])
    assert torch.equal(reader.read(0, 9), walk(0, 9)[9])  # its file has another name now
    with pytest.raises(KeyError):
        reader.read(0, 12)


def test_superseded_files_go(tmp_path: Path) -> None:
    store = filled(tmp_path, Want(1, (0, 1, 2), None, 0, "half"))
    fill(store, Want(1, (0, 1, 2), None, 0, "fp32"), Walker(store, "fp32").train)
    assert len(list(tmp_path.glob("expert-0000/epochs-*"))) == 2
    removed = prune(store, [Want(1, (0, 1, 2), None, 0, "fp32")])
    assert [(action.path, action.what) for action in removed] == [("expert-0000/epochs-0000-0002-0000.safetensors", "superseded")]
    assert torch.equal(store.read(0, 1), walk(0, 1)[1])


def test_a_point_on_the_way_stays_until_the_way_is_done(tmp_path: Path) -> None:
    store, want = TrajectoryStore(tmp_path, IDENTITY), Want(1, (0, 1), 40, 1, "fp32")
    job = store.shelf(0).job(want.of(0), "fp32")
    assert job is not None
    recorder = Recorder(store.shelf(0), job, "fp32")
    for epoch, theta in enumerate(walk(0, 20)):
        recorder.record(epoch, theta, None, [theta])
    store.shelf(0).look()
    assert prune(store, [want]) == []
    assert [point.epoch for point in store.shelf(0).points] == [1, 17]
    removed = prune(store, [Want(1, (0, 1), None, 1, "fp32")])
    assert [action.what for action in removed] == ["state after epoch 17"]


def test_an_expert_that_is_being_written_is_not_pruned(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with store.shelf(1).lock(), pytest.raises(UsageError, match="^PATH: expert-0001 of .* is being written by another process$"):
        prune(TrajectoryStore(tmp_path), [Want(1, (0,), None, 0, "half")])
