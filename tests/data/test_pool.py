"""Work that is spread over processes: order, errors, death, and how much is under way."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.executor import spread


def double(number: int) -> int:
    return 2 * number


def pid(_: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def die(_: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def refuse(number: int) -> int:
    if number % 2:
        raise UsageError(f"data.source: {number}")
    return number


def test_spread_keeps_the_order_and_uses_the_processes() -> None:
    with spread(double, range(20), 3) as results:
        assert list(results) == list(range(0, 40, 2))
    with spread(pid, range(8), 2) as results:
        assert len(set(results) - {os.getpid()}) == 2
    for pieces, workers in ((range(8), 1), (range(1), 4)):
        with spread(pid, pieces, workers) as results:
            assert set(results) == {os.getpid()}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_comes_through(workers: int) -> None:
    with pytest.raises(UsageError, match=r"^data\.source: 1$"), spread(refuse, range(9), workers) as results:
        list(results)


def test_a_killed_process_is_a_failure() -> None:
    with (
        pytest.raises(Failure, match=r"^data\.workers: a process that decodes images was killed"),
        spread(die, range(4), 2) as results,
    ):
        list(results)


def interrupted(number: int) -> int:
    os.kill(os.getpid(), signal.SIGINT)
    return number


def test_ctrl_c_is_left_to_the_parent() -> None:
    with spread(interrupted, range(4), 2) as results:
        assert list(results) == [0, 1, 2, 3]


def test_pieces_on_demand_are_not_all_taken_at_once() -> None:
    taken = []

    def pieces() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with spread(double, pieces(), 2) as results:
        for n, result in enumerate(results):
            assert result == 2 * n
            assert len(taken) <= n + 1 + 2 * 3  # three for each process
    assert len(taken) == 100
