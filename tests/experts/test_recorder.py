"""What is written while a training goes on, and from where it goes on."""

from pathlib import Path

import pytest
import torch
from experts.walks import IDENTITY, filled, walk

from limbeck.experts.files import Recorder, Shelf
from limbeck.experts.notes import Want
from limbeck.experts.store import TrajectoryStore
from limbeck.runtime.errors import Failure, UsageError


def recorder(store: TrajectoryStore, wanted: range) -> tuple[Shelf, Recorder]:
    job = store.shelf(0).job(wanted, "fp32")
    assert job is not None
    return store.shelf(0), Recorder(store.shelf(0), job, "fp32")


def test_a_checkpoint_is_what_it_was_when_it_was_taken(tmp_path: Path) -> None:
    shelf, made = recorder(TrajectoryStore(tmp_path, IDENTITY), range(3))
    theta = torch.zeros(700)
    for epoch in range(3):
        theta.fill_(epoch)
        made.record(epoch, theta)
    theta.fill_(9)
    shelf.look()
    assert [shelf.read(epoch).unique().tolist() for epoch in range(3)] == [[0], [1], [2]]


def test_a_block_is_written_when_it_is_full(tmp_path: Path) -> None:
    shelf, made = recorder(TrajectoryStore(tmp_path, IDENTITY), range(20))
    seen = []
    for epoch, theta in enumerate(walk(0, 19)):
        made.record(epoch, theta)
        shelf.look()
        seen.append(len(shelf.held()))
    assert seen == [0] * 7 + [8] * 8 + [16] * 4 + [20]


def test_the_optimisers_tensors_come_back_as_they_are(tmp_path: Path) -> None:
    shelf, made = recorder(TrajectoryStore(tmp_path, IDENTITY), range(2))
    state = (torch.randn(700), torch.tensor([3.0], dtype=torch.float64), torch.rand(700) < 0.5, torch.tensor(7))
    for epoch, theta in enumerate(walk(0, 1)):
        made.record(epoch, theta, None, state)
    shelf.look()
    job = shelf.job(range(5), "fp32")
    assert job is not None and job.restart is not None
    assert (job.start, job.keep) == (1, (2, 3, 4))
    assert torch.equal(job.restart.theta, walk(0, 1)[1])
    for read, written in zip(job.restart.state, state, strict=True):
        assert read.dtype == written.dtype
        assert torch.equal(read, written)


def test_without_the_optimisers_tensors_training_does_not_go_on(tmp_path: Path) -> None:
    store = filled(tmp_path, Want(1, tuple(range(12)), None, 0, "fp32"))
    (tmp_path / "expert-0000" / "state-0011.safetensors").unlink()
    store.shelf(0).look()
    job = store.shelf(0).job(range(14), "fp32")
    assert job is not None
    assert (job.start, job.restart, job.keep) == (0, None, tuple(range(14)))  # all from one training again


def test_a_checkpoint_that_has_changed_is_not_gone_on_from(tmp_path: Path) -> None:
    store = filled(tmp_path, Want(1, (0, 1), None, 0, "fp32"))
    (file,) = tmp_path.glob("expert-0000/epochs-*")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UsageError, match=r"epochs-0000-0001-0000.safetensors' is broken \(theta has changed since .*\); delete it"):
        store.shelf(0).job((0, 1, 2), "fp32")


@pytest.mark.parametrize("ahead", [3, 40])
def test_what_is_not_finite_is_a_failure_and_is_not_written(tmp_path: Path, ahead: int) -> None:
    """Whether it would be a checkpoint or a point on the way to one."""
    store = TrajectoryStore(tmp_path, IDENTITY)
    job = store.shelf(0).job((0, ahead), "fp32")
    assert job is not None
    made = Recorder(store.shelf(0), job, "fp32")
    made.record(0, torch.zeros(700))
    with pytest.raises(Failure, match="^expert 0 diverged by epoch [38]: its parameters are not finite$"):
        for epoch in range(1, 10):
            made.record(epoch, torch.full((700,), torch.nan))
    assert [path.name for path in (tmp_path / "expert-0000").iterdir()] == ["epochs-0000-0000-0000.safetensors"]
