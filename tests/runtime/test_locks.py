"""Locks between processes, by the operating system and, where a file system has none, by claims."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.runtime import locks
from limbeck.runtime.locks import Busy, Lock, holder, lock
from limbeck.runtime.owner import Owner


def without(*_: object) -> None:
    raise OSError(errno.ENOTSUP, "locks are not supported")


@pytest.fixture(params=["flock", "claims"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "claims":
        monkeypatch.setattr(fcntl, "flock", without)
    return str(request.param)


def child(work: object, *given: object) -> int:
    """A process that does it, and what it has come to."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work(*given)  # type: ignore[operator]
            status = 0
        finally:
            os._exit(status)
    return pid


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count(path: Path, times: int, soft: bool | None = None) -> None:
    if soft:
        fcntl.flock = without  # type: ignore[assignment]
    for _ in range(times):
        with lock(path):
            number = int(path.read_text())
            time.sleep(0.0005)
            path.write_text(str(number + 1))


def test_one_process_at_a_time(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    assert [status(pid) for pid in [child(count, path, 20) for _ in range(4)]] == [0] * 4
    assert path.read_text() == "80"
    left = sorted(str(found.relative_to(tmp_path)) for found in tmp_path.rglob("*") if found.is_file())
    assert left == ["count", "count.lock", *(["count.lock.d/00000080/free"] if kind == "claims" else [])]


def test_processes_with_locks_and_without_see_each_other(tmp_path: Path) -> None:
    """A lock service that is away for a while makes one fall back while another holds the lock."""
    path = tmp_path / "count"
    path.write_text("0")
    assert [status(pid) for pid in [child(count, path, 10, soft) for soft in (True, False, True)]] == [0] * 3
    assert path.read_text() == "30"


def test_who_holds_it_is_said_and_waiting_ends(tmp_path: Path, kind: str) -> None:
    with lock(tmp_path / "a") as held:
        assert held.held
        for patience in (0.0, 0.05):
            with pytest.raises(Busy, match=f"^process {os.getpid()} on "):
                lock(tmp_path / "a").acquire(timeout=patience)
    with lock(tmp_path / "a").acquire(timeout=0):
        pass


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path, kind: str) -> None:
    def hold() -> None:
        with lock(tmp_path / "a"):
            (tmp_path / "held").touch()
            time.sleep(60)

    pid = child(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(Busy):
        lock(tmp_path / "a").acquire(timeout=0)
    os.kill(pid, signal.SIGKILL)
    # Before its parent asks for its status it is still among the processes, as a zombie.
    with lock(tmp_path / "a").acquire(timeout=5):
        pass
    assert status(pid) == -signal.SIGKILL


def test_a_child_gives_nothing_back(tmp_path: Path, kind: str) -> None:
    def let_go(held: Lock) -> None:
        held.release()

    with lock(tmp_path / "a") as held:
        assert status(child(let_go, held)) == 0
        with pytest.raises(Busy):
            lock(tmp_path / "a").acquire(timeout=0)


def test_an_interrupt_while_waiting_leaves_nothing_held(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Lock._taken

    def interrupted(self: Lock) -> bool:
        assert taken(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Lock, "_taken", interrupted)
        lock(tmp_path / "a").acquire()
    with lock(tmp_path / "a").acquire(timeout=0):
        pass


def test_a_lock_file_that_was_removed_is_no_lock(tmp_path: Path) -> None:
    """Who waits for a file that somebody has tidied away does not share the lock with who makes it anew."""
    first = lock(tmp_path / "a").acquire()
    first.path.unlink()
    with lock(tmp_path / "a").acquire(timeout=0) as second:
        assert second.held
        with pytest.raises(Busy):
            lock(tmp_path / "a").acquire(timeout=0)
    first.release()


def claim(folder: Path, number: int, owner: Owner) -> Path:
    """A claim of somebody else's."""
    made = folder / f"{number:08d}"
    made.mkdir(parents=True)
    (made / "owner").write_text(json.dumps(owner.to_dict()))
    return made / "owner"


def test_whose_claim_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", without)
    here, folder = Owner.here(), tmp_path / "a.lock.d"
    elsewhere = replace(here, host="other", place="0" * 16, pid=1)
    cases = (
        (replace(here, pid=os.getppid(), born=1), 0.0, True),  # its number is another process's by now
        (here, 1000.0, False),  # it runs, however long ago it has renewed its claim
        (elsewhere, 0.0, False),
        (elsewhere, locks.DEAD_AFTER - 30, False),
        (elsewhere, locks.DEAD_AFTER + 30, True),
    )
    for number, (owner, ago, stale) in enumerate(cases, start=1):
        path = claim(folder, 10 * number, owner)
        os.utime(path, (time.time() - ago,) * 2)
        try:
            with lock(tmp_path / "a").acquire(timeout=0):
                found = True
        except Busy as error:
            found = False
            assert str(error) == str(owner)
            (path.parent / "owner").rename(path.parent / "free")
        assert found is stale, number
        assert sorted(int(one.name) for one in folder.iterdir())[-1] == 10 * number + stale


def test_a_claim_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", without)
    monkeypatch.setattr(locks, "RENEWED", 0.02)
    with lock(tmp_path / "a"):
        (owner,) = (tmp_path / "a.lock.d").glob("*/owner")
        os.utime(owner, (0, 0))
        until = time.monotonic() + 10
        while owner.stat().st_mtime < 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert owner.stat().st_mtime > 1


def test_who_looked_long_ago_gets_no_number_below_the_highest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It found claim 1 given back and was stopped; meanwhile others had claims 2 and 3, and removed the lower ones."""
    monkeypatch.setattr(fcntl, "flock", without)
    claims, folder = locks._Claims(tmp_path / "a.lock"), tmp_path / "a.lock.d"
    owner = claim(folder, 3, Owner.here())
    answers = iter([1, 3])
    monkeypatch.setattr(claims, "_highest", lambda: next(answers))
    monkeypatch.setattr(claims, "_is_free", lambda number, own: True)
    assert claims.claim() is None
    assert [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()] == ["00000003/owner"]
    assert owner.exists()


def test_a_claim_that_was_taken_meanwhile_is_another_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims, folder = locks._Claims(tmp_path / "a.lock"), tmp_path / "a.lock.d"
    claim(folder, 2, Owner.here())
    monkeypatch.setattr(claims, "_highest", lambda: 1)
    monkeypatch.setattr(claims, "_is_free", lambda number, own: True)
    assert claims.claim() is None
    assert [path.name for path in folder.iterdir()] == ["00000002"]


def test_other_errors_are_not_taken_for_a_lack_of_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="input/output error"):
        lock(tmp_path / "a").acquire()
    assert not (tmp_path / "a.lock.d").exists()


def test_processes_of_other_places_cannot_be_asked() -> None:
    here = Owner.here()
    assert here.runs is True
    assert replace(here, place="f" * 16).runs is None
    assert replace(here, born=here.born + 1).runs is False
    gone = multiprocessing.get_context("fork").Process(target=lambda: None)
    gone.start()
    gone.join()
    assert replace(here, pid=gone.pid or 0).runs is False


def test_a_note_of_before_a_restart_is_nobodys(tmp_path: Path) -> None:
    """Of a process whose number counted in another boot or container, and which has the lock no more."""
    place = Path(f"{tmp_path / 'run'}.lock")
    elsewhere = replace(Owner.here(), place="0" * 16)
    place.write_text(json.dumps(elsewhere.to_dict()))
    assert holder(tmp_path / "run") is None
    with place.open("r+b") as file:  # it has: on another machine that shares the folder
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(tmp_path / "run") == str(elsewhere)
    assert holder(tmp_path / "run") is None
    with lock(tmp_path / "run"):
        assert holder(tmp_path / "run") == str(Owner.here())
