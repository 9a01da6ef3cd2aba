"""Signals: raised where they are, kept waiting where something is changed, asked for again where they were swallowed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from limbeck.runtime import interruption
from limbeck.runtime.interruption import Interrupted, finishing, handled, stoppable


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = [signal.getsignal(kind) for kind in interruption.KINDS]
    monkeypatch.setattr(interruption, "_let_go_of_terminal", lambda: None)
    yield
    assert [signal.getsignal(kind) for kind in interruption.KINDS] == before


def send(kind: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), kind)
    time.sleep(0.001)  # it is handled before this has ended


@pytest.mark.parametrize(("kind", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_raised_where_the_program_is(kind: signal.Signals, status: int) -> None:
    with pytest.raises(KeyboardInterrupt) as found, handled():
        send(kind)
        pytest.fail("it went on")
    assert isinstance(found.value, Interrupted)
    assert (found.value.status, str(found.value)) == (status, kind.name)


def test_what_is_being_changed_is_finished_first() -> None:
    done = []
    with pytest.raises(Interrupted), handled():
        for number in range(3):
            with finishing():
                if number == 1:
                    send()
                done.append(number)
    assert done == [0, 1]


def test_finishing_alone_changes_nothing() -> None:
    with finishing():
        pass
    with pytest.raises(ValueError, match="a"), finishing():
        raise ValueError("a")


def test_what_fails_because_of_the_signal_counts_as_that() -> None:
    """A compiler that the group's signal has killed, for one."""
    with pytest.raises(Interrupted), handled(), finishing():
        send()
        raise ValueError("the compiler was killed")


def test_an_iteration_that_does_not_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "PATIENCE", 0.1)
    with pytest.raises(Interrupted), handled(), finishing():
        send()
        time.sleep(20)
        pytest.fail("it went on")


def test_a_signal_that_was_swallowed_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "PATIENCE", 0.1)

    class Swallows:
        def __del__(self) -> None:
            send()

    with pytest.raises(Interrupted), handled():
        Swallows()
        time.sleep(20)
        pytest.fail("it went on")


def test_while_a_signal_unwinds_it_is_not_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "PATIENCE", 0.05)
    ended = False
    with pytest.raises(Interrupted), handled():
        try:
            send()
        finally:
            time.sleep(1.2)  # a checkpoint is written
            ended = True
    assert ended


def test_the_same_request_said_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "abandon", lambda number, goes_on: pytest.fail("ended at once"))
    with pytest.raises(Interrupted), handled(), finishing():
        send(signal.SIGHUP)
        send(signal.SIGHUP)
        send(signal.SIGTERM)


def test_a_second_one_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "AGAIN", 0.05)
    ended = []
    monkeypatch.setattr(interruption, "abandon", lambda number, goes_on: ended.append((number, goes_on)))
    with pytest.raises(Interrupted), handled(lambda: "; go on"), finishing():
        send()
        time.sleep(0.1)
        send(signal.SIGINT)
        assert ended == [(signal.SIGTERM, "; go on")]


def test_in_python_control_c_waits_and_the_callers_handler_is_back() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    term = signal.getsignal(signal.SIGTERM)
    done = False
    with pytest.raises(KeyboardInterrupt), stoppable():
        assert signal.getsignal(signal.SIGTERM) is term
        with finishing():
            send(signal.SIGINT)
            done = True
        pytest.fail("it went on")
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_python_a_second_control_c_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "AGAIN", 0.05)
    with pytest.raises(KeyboardInterrupt), stoppable(), finishing():
        send(signal.SIGINT)
        time.sleep(0.1)
        send(signal.SIGINT)
        pytest.fail("it went on")


def test_a_handler_of_the_callers_own_stays() -> None:
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with stoppable(), finishing():
            send(signal.SIGINT)
        assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_other_threads_nothing_is_handled() -> None:
    found: list[object] = []

    def work() -> None:
        with handled(), stoppable(), finishing():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_what_nohup_has_ignored_stays_so_but_not_what_a_shell_has() -> None:
    before = [signal.signal(kind, signal.SIG_IGN) for kind in (signal.SIGHUP, signal.SIGINT)]
    try:
        with handled():
            send(signal.SIGHUP)
        with pytest.raises(Interrupted), handled():
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        for kind, handler in zip((signal.SIGHUP, signal.SIGINT), before, strict=True):
            signal.signal(kind, handler)


STUCK = """
import ctypes, os, signal, sys, time
from limbeck.runtime import interruption, leftovers
from pathlib import Path
interruption.LAST = 0.2
with interruption.handled(lambda: "; go on"), leftovers.part(Path(sys.argv[1]) / "a") as half:
    half.touch()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except interruption.Interrupted:
        while True:
            ctypes.CDLL(None).sleep(60)  # a library that does not come back to Python
"""


def test_a_process_that_cannot_end_is_ended(tmp_path: object) -> None:
    """With its children and what it was writing, and it says how to go on."""
    began = time.monotonic()
    found = subprocess.run([sys.executable, "-c", STUCK, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (143, "limbeck: ended at once by SIGTERM; go on\n")
    assert time.monotonic() - began < 30
    assert os.listdir(str(tmp_path)) == []
