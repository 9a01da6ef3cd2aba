"""Jobs in several processes, and a count that many add to."""

import os
import signal
import sys
import time
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import torch

from limbeck.runtime.errors import Failure
from limbeck.runtime.executor import Local, Ticks, cores, local, side_by_side, ticks, workers_wait
from limbeck.runtime.executor.on_ray import Ray


def who(number: int) -> tuple[int, int, int]:
    return number, os.getpid(), torch.get_num_threads()


def who_waits(job: tuple[int, int, Path]) -> tuple[int, int, int]:
    """As `who`, but the process of that number does nothing before another one has begun, however late that starts."""
    number, process, begun = job
    if os.getpid() != process:
        begun.touch()
    until = time.monotonic() + 60
    while not begun.exists() and time.monotonic() < until:
        time.sleep(0.01)
    return who(number)


def total(array: np.ndarray) -> float:
    return float(array.sum())


def refuse(number: int) -> int:
    if number == 1:
        raise ValueError("one is refused")
    return number


def test_results_are_in_order_and_this_process_takes_part() -> None:
    found = list(side_by_side(who, range(5), 2))
    assert [number for number, _, _ in found] == [0, 1, 2, 3, 4]
    assert found[-1][1] == os.getpid()


def test_other_processes_compute_on_one_thread(tmp_path: Path) -> None:
    found = list(side_by_side(who_waits, [(number, os.getpid(), tmp_path / "begun") for number in range(6)], 2))
    others = [threads for _, process, threads in found if process != os.getpid()]
    assert others
    assert set(others) == {1}


def test_alone_everything_is_done_here() -> None:
    assert {process for _, process, _ in side_by_side(who, [0, 1], 1)} == {os.getpid()}


def test_large_arrays_arrive_whole() -> None:
    arrays = [np.full(400_000, float(number)) for number in range(4)]
    assert list(side_by_side(total, arrays, 2)) == [0.0, 4e5, 8e5, 12e5]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failure_is_raised_here(processes: int) -> None:
    with pytest.raises(ValueError, match="one is refused"):
        list(side_by_side(refuse, [0, 1, 2], processes))


def test_after_a_failure_others_are_begun_at_once() -> None:
    """The workers that were ended with it are not asked again before it is known that they are gone."""
    for _ in range(5):
        assert list(side_by_side(abs, [-1, -2, -3, -4], 2)) == [1, 2, 3, 4]
        with pytest.raises(ValueError, match="one is refused"):
            list(side_by_side(refuse, [0, 2, 3, 1], 2))  # by this process, which takes the last one
        assert list(side_by_side(abs, [-1, -2, -3], 2)) == [1, 2, 3]


def test_ticks_are_told_and_none_is_lost() -> None:
    told: list[int] = []
    with ticks(told.append, every=0.05) as counter:
        for _ in range(7):
            Ticks(Path(counter.path)).add()
        time.sleep(0.2)
        assert sum(told) == 7
        counter.add()
    assert sum(told) == 8


def test_workers_stay_and_it_is_known_whether_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_seen", {})
    list(side_by_side(abs, [-1], 1))  # by this process alone
    assert not workers_wait()
    list(side_by_side(abs, [-1, -2, -3], 2))
    assert workers_wait()
    now = time.monotonic()
    monkeypatch.setattr("limbeck.runtime.executor.local.time.monotonic", lambda: now + 1000)
    assert not workers_wait()


def test_fewer_cores_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    most = cores()
    for named, expected in (("1", 1), ("0", 1), ("1000", most), ("many", most), ("", most)):
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", named)
        assert cores() == expected


def die(parent: int) -> int:
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    return 1


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals")
def test_a_worker_that_is_killed_is_a_line() -> None:
    said = "^a process was killed, perhaps for its memory; with LOKY_MAX_CPU_COUNT=1 this one computes alone$"
    with pytest.raises(Failure, match=said):
        list(side_by_side(die, [os.getpid()] * 6, 2))
    assert [found[0] for found in side_by_side(who, [0, 1, 2], 2)] == [0, 1, 2], "those that are begun next work"


def test_a_count_that_cannot_be_kept_costs_nothing(tmp_path: Path) -> None:
    lost = Ticks(tmp_path / "gone" / "ticks")
    lost.add()
    assert lost.count() == 0
    told: list[int] = []
    with ticks(told.append, every=0.01) as counter:
        rmtree(counter.path.parent)
        counter.add()
    assert told == []


def test_the_folder_of_a_log_is_made_where_the_log_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ray, "_apart", lambda *_: None)
    nothing = [sys.executable, "-c", ""]
    assert Local().start(nothing, tmp_path / "local" / "a.log", 1).wait(60.0)
    Ray().start(nothing, tmp_path / "ray" / "a.log", 1)
    Ray().apart(lambda *_: 0, None, tmp_path / "apart" / "a.log")
    assert [path.read_bytes() for path in sorted(tmp_path.glob("*/a.log"))] == [b""] * 3
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Local().start(nothing, tmp_path / "file" / "a.log", 1)
