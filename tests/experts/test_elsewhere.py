"""A store of experts in a bucket: several machines fill it, nothing is trained twice, and readers fetch what they read."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from buckets import files
from experts import walks
from experts.walks import IDENTITY, Walker, step, walk

from limbeck.experts.blocks import BrokenFile
from limbeck.experts.elsewhere import Elsewhere
from limbeck.experts.maintain import describe, prune, verify
from limbeck.experts.notes import Want
from limbeck.experts.store import TrajectoryStore
from limbeck.experts.train import fill
from limbeck.runtime.errors import UsageError
from limbeck.runtime.owner import Owner
from limbeck.runtime.remote import Remote

WANT = Want(3, tuple(range(22)), 30, 3, "fp32")


class Machine:
    """A machine: its own cache, from which it works with a store in a bucket."""

    def __init__(self, url: str, cache: Path) -> None:
        self.elsewhere = _At(Remote("experts.store", url), cache)
        self.elsewhere.open()
        self.store = TrajectoryStore(self.elsewhere.folder, IDENTITY, elsewhere=self.elsewhere)
        self.walker = Walker(self.store, WANT.coding)

    def fill(self, want: Want = WANT) -> list[tuple[int, int, int]]:
        """What it has trained."""
        self.store.note(want)
        fill(self.store, want, self.walker.train)
        return self.walker.trained


class _At(Elsewhere):
    def __init__(self, remote: Remote, cache: Path) -> None:
        super().__init__(remote)
        self.cache = cache

    @property
    def folder(self) -> Path:
        return self.cache / "store"


@pytest.fixture
def url(bucket: str) -> str:
    return f"{bucket}/experts/a"


def assert_exact(store: TrajectoryStore, want: Want = WANT) -> None:
    for expert in range(want.num_experts):
        thetas = walk(expert, max(want.of(expert)))
        for epoch in want.of(expert):
            assert torch.equal(store.read(expert, epoch), thetas[epoch]), (expert, epoch)


def test_one_machine_trains_and_another_reads(url: str, tmp_path: Path) -> None:
    assert Machine(url, tmp_path / "a").fill() == [(0, 0, 30), (1, 0, 30), (2, 0, 30)]
    other = Machine(url, tmp_path / "b")
    assert other.fill() == []
    assert_exact(other.store)
    assert other.store.experts == [0, 1, 2] and other.store.held(1) == [*range(22), 30]
    assert other.store.accuracies(2) == [epoch / 1000 for epoch in range(1, 31)]
    assert other.store.wanted() == [WANT] and describe(other.store).num_experts == 3


def test_readers_fetch_the_blocks_that_they_read(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(url, tmp_path / "a").fill()
    reader = Machine(url, tmp_path / "b").store
    assert reader.lacking(WANT) == {}  # headers do for that
    whole, real = [], Remote.fetch
    monkeypatch.setattr(Remote, "fetch", lambda self, *rest: (whole.append(self.name), real(self, *rest))[1])
    for _ in range(2):
        assert torch.equal(reader.read(1, 9), walk(1, 9)[9])
    assert whole == ["epochs-0008-0015-0000.safetensors"]
    size = sum(path.stat().st_size for path in tmp_path.glob("b/store/*/*.safetensors"))
    assert size < 0.5 * reader.summary().bytes


def test_more_is_trained_from_what_another_machine_has_left(url: str, tmp_path: Path) -> None:
    Machine(url, tmp_path / "a").fill()
    wider = dataclasses.replace(WANT, epochs=tuple(range(26)), last=40)
    other = Machine(url, tmp_path / "b")
    trained = other.fill(wider)
    assert [(start, stop) for _, start, stop in trained] == [(21, 25), (30, 40)] * 3
    assert_exact(other.store, wider)
    assert_exact(Machine(url, tmp_path / "c").store, wider)
    assert verify(Machine(url, tmp_path / "d").store) == []


def test_two_machines_at_once_train_nothing_twice(url: str, tmp_path: Path) -> None:
    want = dataclasses.replace(WANT, num_experts=6, label_experts=6)
    machines = [Machine(url, tmp_path / str(number)) for number in range(2)]
    threads = [threading.Thread(target=machine.fill, args=(want,)) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trained = sorted(job for machine in machines for job in machine.walker.trained)
    assert trained == [(expert, 0, 30) for expert in range(6)]
    for machine in machines:
        assert_exact(machine.store, want)


def test_whoever_is_slower_takes_what_is_there(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a claim was lost meanwhile: both train an expert, and the one who publishes first has trained it."""
    slow, fast = Machine(url, tmp_path / "slow"), Machine(url, tmp_path / "fast")
    real = slow.walker.train

    def train(jobs: Any) -> None:
        real(jobs)
        if not fast.walker.trained:
            monkeypatch.setattr(_At, "claim", lambda self, folder: _Free())
            fast.fill()

    slow.walker.train = train  # type: ignore[method-assign]
    slow.fill()
    assert len(fast.walker.trained) == 3 and len(slow.walker.trained) == 1
    for machine in (slow, fast):
        assert_exact(machine.store)
    assert verify(slow.store) == []


@dataclasses.dataclass
class _Free:
    """A claim that anybody gets."""

    def acquire(self, timeout: float | None = None) -> "_Free":
        return self

    def __enter__(self) -> "_Free":
        return self

    def __exit__(self, *_: object) -> None: ...


def test_a_stopped_training_goes_on_where_it_was(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(url, tmp_path / "a")

    def stop(theta: torch.Tensor, velocity: torch.Tensor, epoch: int) -> None:
        if epoch == 12:
            raise KeyboardInterrupt
        step(theta, velocity, epoch)

    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(walks, "step", stop)
        machine.fill()
    assert Machine(url, tmp_path / "b").store.experts == []  # half an expert is nobody's
    again = Machine(url, tmp_path / "a")
    assert again.fill()[0][1] > 0
    assert_exact(Machine(url, tmp_path / "c").store)


def test_a_store_that_somebody_copied_there(url: str, tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path / "plain", IDENTITY)
    fill(store, WANT, Walker(store, WANT.coding).train)
    for path in sorted(store.path.rglob("*")):
        if path.is_file():
            Remote("test", f"{url}/{path.relative_to(store.path).as_posix()}").put(path.read_bytes())
    other = Machine(url, tmp_path / "b")
    assert other.fill() == []
    assert_exact(other.store)
    wider = dataclasses.replace(WANT, last=35)
    assert {job[1:] for job in other.fill(wider)} == {(30, 35)}
    assert_exact(Machine(url, tmp_path / "c").store, wider)


def test_a_store_of_other_experts_is_refused(url: str, tmp_path: Path) -> None:
    Machine(url, tmp_path / "a").fill()
    elsewhere = Elsewhere.at("experts.store", url)
    with pytest.raises(UsageError, match="was made with"):
        TrajectoryStore(elsewhere.folder, {**IDENTITY, "seed": 99}, elsewhere=elsewhere)


def test_a_copy_of_another_store_goes(url: str, tmp_path: Path) -> None:
    Machine(url, tmp_path / "a").fill()
    store = files()
    store.rm(store._strip_protocol(url), recursive=True)
    again = Machine(url, tmp_path / "a")
    assert again.store.experts == [] and len(again.fill()) == 3


def test_a_block_that_has_changed_is_broken(url: str, tmp_path: Path) -> None:
    machine = Machine(url, tmp_path / "a")
    machine.fill()
    entry = machine.elsewhere.versions["expert-0001"].files["epochs-0008-0015-0000.safetensors"]
    place = Remote("test", f"{url}/expert-0001/{entry.at}")
    place.put(place.read()[:-1] + b"x")
    other = Machine(url, tmp_path / "b").store
    with pytest.raises(UsageError, match="is not what was written: its checksum is another one"):
        other.read(1, 9)
    assert torch.equal(other.read(1, 3), walk(1, 3)[3])


def test_nothing_is_pruned_there(url: str, tmp_path: Path) -> None:
    Machine(url, tmp_path / "a").fill()
    with pytest.raises(UsageError, match="is no folder; of a store elsewhere nothing is removed"):
        prune(Machine(url, tmp_path / "a").store, [WANT])


def test_a_machine_that_died_leaves_its_expert_to_others(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = dataclasses.replace(Owner.here(), pid=2**22 + 1)
    with monkeypatch.context() as there:
        there.setattr(Owner, "here", staticmethod(lambda: dead))
        Machine(url, tmp_path / "a").store.shelf(0).lock().acquire()
    assert len(Machine(url, tmp_path / "b").fill()) == 3


def test_a_copy_that_is_broken_is_fetched_again(url: str, tmp_path: Path) -> None:
    machine = Machine(url, tmp_path / "a")
    machine.fill()
    other = Machine(url, tmp_path / "b")
    assert torch.equal(other.store.read(1, 9), walk(1, 9)[9])
    (file,) = other.store.path.glob("expert-0001/epochs-0008-0015-*")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again = Machine(url, tmp_path / "b")
    with pytest.raises(BrokenFile) as raised:
        again.store.read(1, 9)
    again.store.leave(raised.value)
    assert torch.equal(again.store.read(1, 9), walk(1, 9)[9]) and file.read_bytes() == whole
    file.unlink()  # as messages advise
    assert torch.equal(Machine(url, tmp_path / "b").store.read(1, 9), walk(1, 9)[9])
