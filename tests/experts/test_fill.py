"""Filling a store: extension, recipes that share one, kills at random moments, several processes at once."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from experts.walks import IDENTITY, Walker, walk

from limbeck.experts import files as expert_files
from limbeck.experts.blocks import BLOCK, Point, write_point
from limbeck.experts.maintain import verify
from limbeck.experts.notes import Want
from limbeck.experts.store import TrajectoryStore, missing_jobs, say_lacking
from limbeck.experts.train import fill
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.executor import Shard

WANT = Want(3, tuple(range(22)), 60, 2, "fp32")


def filled(path: Path, want: Want = WANT) -> tuple[TrajectoryStore, list[tuple[int, int, int]]]:
    store = TrajectoryStore(path, IDENTITY)
    walker = Walker(store, want.coding)
    store.note(want)
    fill(store, want, walker.train)
    return store, walker.trained


def assert_exact(store: TrajectoryStore, want: Want) -> None:
    for expert in range(want.num_experts):
        thetas = walk(expert, max(want.of(expert)))
        for epoch in want.of(expert):
            assert torch.equal(store.read(expert, epoch), thetas[epoch]), (expert, epoch)


def files(store: TrajectoryStore, expert: int) -> list[str]:
    return sorted(path.name for path in (store.path / f"expert-{expert:04d}").iterdir())


def test_only_what_is_wanted_is_kept(tmp_path: Path) -> None:
    store, trained = filled(tmp_path)
    assert trained == [(0, 0, 60), (1, 0, 60), (2, 0, 21)]  # the third gives no labels
    assert_exact(store, WANT)
    assert store.held(0) == [*range(22), 60]
    assert store.held(2) == list(range(22))
    # The optimiser's tensors stay where further epochs could be asked for, and nowhere else.
    blocks = ["epochs-0000-0007-0000.safetensors", "epochs-0008-0015-0000.safetensors", "epochs-0016-0021-0000.safetensors"]
    assert files(store, 2) == [*blocks, "state-0021.safetensors"]
    assert files(store, 0) == [*blocks, "epochs-0060-0060-0000.safetensors", "state-0021.safetensors", "state-0060.safetensors"]
    assert store.accuracies(0) == [epoch / 1000 for epoch in range(1, 61)]
    assert filled(tmp_path)[1] == []


@pytest.mark.parametrize("coding", ["fp32", "half"])
def test_extension_trains_only_what_is_new(tmp_path: Path, coding: str) -> None:
    def want(experts: int, reach: int, last: int) -> Want:
        return Want(experts, tuple(range(reach)), last, experts, coding)

    filled(tmp_path, want(2, 22, 60))
    for wider, expected in (
        (want(2, 42, 60), [(0, 21, 41), (1, 21, 41)]),  # more epochs to start from
        (want(2, 42, 75), [(0, 60, 75), (1, 60, 75)]),  # a later last epoch
        (want(3, 42, 75), [(2, 0, 75)]),  # more experts
        (want(1, 12, 60), []),  # a recipe that needs less
    ):
        store, trained = filled(tmp_path, wider)
        assert trained == expected
    thetas = walk(1, 75)
    for epoch in (*range(42), 60, 75):
        theta = store.read(1, epoch)
        assert torch.equal(theta, thetas[epoch]) if coding == "fp32" else float((theta - thetas[epoch]).abs().max()) < 1e-3
    whole, _ = filled(tmp_path / "whole", want(3, 42, 75))
    for expert in range(3):  # in one go: the exact checkpoints are other ones, the log is the same
        assert store.accuracies(expert) == whole.accuracies(expert)
        assert torch.equal(store.read(expert, 75), whole.read(expert, 75))
    assert verify(store) == verify(whole) == []


def test_what_is_exact_serves_whoever_asked_for_less(tmp_path: Path) -> None:
    filled(tmp_path)
    assert filled(tmp_path, Want(3, tuple(range(22)), 60, 2, "half"))[1] == []
    half = filled(tmp_path / "half", Want(1, tuple(range(22)), None, 1, "half"))[0]
    assert filled(tmp_path / "half", Want(1, tuple(range(22)), None, 1, "fp16"))[1] == []
    before = half.read(0, 3)
    assert filled(tmp_path / "half", Want(1, tuple(range(22)), None, 1, "fp32"))[1] != []
    exact = TrajectoryStore(tmp_path / "half")
    assert torch.equal(exact.read(0, 3), walk(0, 3)[3])
    assert not torch.equal(before, exact.read(0, 3))
    assert torch.equal(half.read(0, 3), before)  # whoever has it open goes on reading what was there


def test_epochs_of_another_training_are_trained_again(tmp_path: Path) -> None:
    """A block that does not start where the one before ends, because that was trained elsewhere since, is not mixed with it."""
    store, _ = filled(tmp_path, Want(1, tuple(range(22)), None, 1, "fp32"))
    elsewhere = {epoch: theta + 1e-6 for epoch, theta in enumerate(walk(0, 7))}
    store.write(0, elsewhere)
    assert store.shelf(0).missing(range(22)) == list(range(8, 16))
    problems = verify(store)
    assert problems[0] == "expert-0000/epochs-0008-0015-0000.safetensors: it does not go on where epoch 7 ends"
    fill(store, Want(1, tuple(range(22)), None, 1, "fp32"), Walker(store).train)
    assert verify(store) == []
    assert_exact(store, Want(1, tuple(range(22)), None, 1, "fp32"))  # nothing told where that training stood: from the start


def test_a_long_way_to_the_labels_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, saves = TrajectoryStore(tmp_path, IDENTITY), []
    real = expert_files.write_point

    def stops(folder: Path, epoch: int, *rest: Any, **options: Any) -> Point:
        saves.append(epoch)
        if epoch == 45:
            raise KeyboardInterrupt
        return real(folder, epoch, *rest, **options)

    monkeypatch.setattr(expert_files, "write_point", stops)
    with pytest.raises(KeyboardInterrupt):
        fill(store, WANT, Walker(store).train)
    monkeypatch.setattr(expert_files, "write_point", real)
    assert saves == [7, 15, 21, 29, 37, 45]
    store, trained = filled(tmp_path)
    assert trained[0] == (0, 37, 60)
    assert_exact(store, WANT)
    assert store.accuracies(0) == [epoch / 1000 for epoch in range(1, 61)]
    assert files(store, 0)[-2:] == ["state-0021.safetensors", "state-0060.safetensors"]


@pytest.mark.parametrize("name", ["epochs-0016-0021-0000", "epochs-0060-0060-0000", "state-0021", "state-0060", "state-0016"])
@pytest.mark.parametrize("part", ["header", "tensors"])
def test_what_training_goes_on_from_is_trained_again_when_it_is_broken(
    tmp_path: Path, name: str, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    wide = dataclasses.replace(WANT, last=75, epochs=tuple(range(24)))
    store = filled(tmp_path)[0]
    if name == "state-0016":  # as where a run was stopped on its way to an epoch far ahead
        for file in (tmp_path / "expert-0001").glob("*"):
            if file.stem in ("epochs-0016-0021-0000", "epochs-0060-0060-0000", "state-0021", "state-0060"):
                file.unlink()
        theta, velocity = walk(1, 16)[16], torch.zeros(700)
        write_point(tmp_path / "expert-0001", 16, theta, [velocity], {}, with_theta=True, of=store.shelf(1).of)
    path = tmp_path / "expert-0001" / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[12 if part == "header" else -2] ^= 1
    path.write_bytes(content)
    fresh = TrajectoryStore(tmp_path, IDENTITY)
    predicted = missing_jobs(wide, fresh)
    assert caplog.text.count("is broken") == 1 and path.name in caplog.text
    assert [job.stop for job in predicted[1]][-1] == 75
    store = filled(tmp_path, wide)[0]
    assert_exact(store, wide)
    assert_exact(TrajectoryStore(tmp_path, IDENTITY), wide)


def test_training_that_leaves_nothing_behind_is_no_endless_loop(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="expert 0 was trained to epoch 60, but not all of it is in"):
        fill(TrajectoryStore(tmp_path, IDENTITY), WANT, lambda jobs: None)


def test_experts_are_handed_out_in_groups_of_equal_length(tmp_path: Path) -> None:
    store, calls = TrajectoryStore(tmp_path, IDENTITY), []
    walker = Walker(store)

    def train(jobs):  # type: ignore[no-untyped-def]
        calls.append([(job.expert, job.stop) for job in jobs])
        walker.train(jobs)

    fill(store, Want(5, (0, 1, 2), 4, 3, "fp32"), train, group=4)
    assert calls == [[(3, 2)], [(0, 4), (1, 4), (2, 4)], [(4, 2)]]


def test_shards_are_all_experts_once() -> None:
    shards = [Shard.parse(f"{number}/3") for number in (1, 2, 3)]
    assert [[expert for expert in range(8) if shard.takes(expert)] for shard in shards] == [[0, 3, 6], [1, 4, 7], [2, 5]]
    for bad in ("0/3", "4/3", "1", "a/b", "1/0", "-1/2", "1/2/3", ""):
        with pytest.raises(UsageError, match="^--shard: .* is not of the form i/n"):
            Shard.parse(bad)


def test_what_is_lacking_is_said() -> None:
    assert say_lacking({3: [0, 1, 2, 60]}) == "lacks epochs 0-2,60 of expert 3"
    assert say_lacking({3: [5], 4: [5], 7: [1]}) == "lacks epochs 5 of expert 3 and something of 2 others"


FILLER = """
import json, os, sys, time, traceback
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from experts.walks import IDENTITY, Walker
from limbeck.experts import train as filling
from limbeck.runtime.executor import Shard
from limbeck.experts.notes import Want
from limbeck.experts.store import TrajectoryStore
filling.PATIENCE = 0.02

def work(path, want, shard):
    store = TrajectoryStore(path, IDENTITY)
    train = Walker(store, want.coding, path / "trained").train
    filling.fill(store, want, train, shard=Shard(*shard))

for line in sys.stdin:
    path, (number, epochs, *rest), shards, seconds = json.loads(line)
    children = []
    for shard in shards:
        children.append(os.fork())
        if children[-1] == 0:
            try:
                work(Path(path), Want(number, tuple(epochs), *rest), shard)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(children[0], 9)
    print(json.dumps([os.waitpid(child, 0)[1] for child in children]), flush=True)
"""


class Fillers:
    """A process that imports once and then forks others, each of which fills a store, and kills the first if told to."""

    def __init__(self) -> None:
        script = FILLER.format(tests=str(Path(__file__).parents[1]))
        self.process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, path: Path, want: Want, shards: Sequence[tuple[int, int]] = ((1, 1),), kill: float | None = None) -> list[int]:
        path.mkdir(exist_ok=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(path), dataclasses.astuple(want), shards, kill]) + "\n")
        self.process.stdin.flush()
        statuses: list[int] = json.loads(self.process.stdout.readline())
        return statuses


@pytest.fixture(scope="module")
def fillers() -> Iterator[Fillers]:
    made = Fillers()
    yield made
    made.process.communicate()


def test_killed_at_random_moments_a_store_is_intact_every_time(tmp_path: Path, fillers: Fillers) -> None:
    """After every kill all files are as they were written; the end is the same as without one, to the bit."""
    want = Want(2, tuple(range(20)), 40, 2, "half")
    assert fillers.run(tmp_path / "first", want) == [0]
    began = time.monotonic()
    assert fillers.run(tmp_path / "whole", want) == [0]
    whole, reference = time.monotonic() - began, TrajectoryStore(tmp_path / "whole")
    moments, kills, rounds = torch.Generator().manual_seed(0), 0, 0
    while kills < 24:
        path, rounds = tmp_path / f"killed-{rounds}", rounds + 1
        for _ in range(6):
            (status,) = fillers.run(path, want, kill=0.7 * whole * float(torch.rand((), generator=moments)))
            if status == 0:
                break
            assert status == signal.SIGKILL
            kills += 1
            if (path / "metadata.json").exists():
                assert verify(TrajectoryStore(path), []) in ([], ["it holds no expert"])
        assert fillers.run(path, want) == [0]
        store = TrajectoryStore(path)
        assert verify(store, [want]) == []
        assert not list(path.glob("expert-*/.*"))  # nor is anything half written left
        for expert in range(2):
            assert store.accuracies(expert) == reference.accuracies(expert)
            assert store.held(expert) == reference.held(expert)
            for epoch in (19, 40):  # which end a block however the training was cut
                assert torch.equal(store.read(expert, epoch), reference.read(expert, epoch))
    assert rounds > 1


@pytest.mark.parametrize("shards", [[(1, 2), (2, 2)], [(1, 1), (1, 1), (2, 3)]])
def test_processes_fill_one_store_and_train_no_expert_twice(
    tmp_path: Path, fillers: Fillers, shards: list[tuple[int, int]]
) -> None:
    want = Want(9, tuple(range(12)), 30, 4, "fp32")
    assert fillers.run(tmp_path, want, shards) == [0] * len(shards)
    trained = [tuple(map(int, line.split())) for line in (tmp_path / "trained").read_text().splitlines()]
    assert sorted(trained) == [(expert, 0, 30 if expert < 4 else 11) for expert in range(9)]
    store = TrajectoryStore(tmp_path)
    assert_exact(store, want)
    assert verify(store, [want]) == []


def test_a_process_that_is_killed_leaves_its_experts_to_another(tmp_path: Path, fillers: Fillers) -> None:
    want = Want(6, tuple(range(12)), 30, 6, "fp32")
    killed, other = fillers.run(tmp_path, want, [(1, 1), (1, 1)], kill=0.05)
    assert other == 0
    assert killed in (0, signal.SIGKILL)
    store = TrajectoryStore(tmp_path)
    assert verify(store, [want]) == []
    assert_exact(store, want)


def test_an_expert_that_another_process_trains_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.experts.train.PATIENCE", 0.01)
    store = TrajectoryStore(tmp_path, IDENTITY)
    walker, want = Walker(store), Want(2, (0, 1), None, 2, "fp32")
    holder = store.shelf(1).lock()
    holder.acquire()
    other = TrajectoryStore(tmp_path)

    def train(jobs):  # type: ignore[no-untyped-def]
        walker.train(jobs)
        if jobs[0].expert == 0:  # meanwhile the other process trains expert 1 and lets go of it
            job = other.shelf(1).job((0, 1), "fp32")
            assert job is not None
            Walker(other).train([job])
            holder.release()

    fill(store, want, train)
    assert walker.trained == [(0, 0, 1)]
    assert_exact(store, want)


def test_a_store_is_shared_read_only(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever may only read opens, reads, verifies; what is missing is one line. Root is nobody meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        filled(path)
        everything = [Path(folder), path, *path.rglob("*")]
        for item in everything:
            item.chmod(0o555 if item.is_dir() else 0o444)
        before = {item: item.stat().st_mtime_ns for item in everything}
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                (path / "written").touch()
            store = TrajectoryStore(path, IDENTITY)
            assert store.lacking(WANT) == {}
            fill(store, WANT, lambda jobs: pytest.fail("trained"))
            assert_exact(store, WANT)
            assert verify(store) == []
            assert store.summary().num_experts == 3
            with pytest.raises(UsageError, match=r"lacks experts and cannot be written \(Permission denied\)$"):
                fill(store, Want(4, (0, 1), None, 4, "fp32"), lambda jobs: pytest.fail("trained"))
        finally:
            if root:
                os.seteuid(0)
            assert {item: item.stat().st_mtime_ns for item in everything} == before
            assert sorted(path.rglob("*")) == sorted(set(everything) - {Path(folder), path})
            for item in everything:
                item.chmod(0o755 if item.is_dir() else 0o644)


def test_blocks_are_a_few_epochs() -> None:
    assert 4 <= BLOCK <= 16  # what a kill loses at most, and what docs and estimate say of the sizes
