"""Threads side by side."""

import threading
import time

import pytest
import torch

from limbeck.runtime.lanes import Lanes

SIZE = 100_000  # elementwise operations of more than 32 768 numbers ask for torch's threads


def in_a_lane(number: int) -> tuple[int, str, int, bool]:
    result = (torch.ones(SIZE) * number).sum()
    return int(result) // SIZE, threading.current_thread().name, torch.get_num_threads(), torch.is_grad_enabled()


@pytest.mark.parametrize("number", (1, 2, 3))
def test_lanes_compute_on_one_thread_each_and_in_order(number):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = Lanes(number).map(in_a_lane, range(5))
        assert torch.get_num_threads() == 2  # of the caller
    finally:
        torch.set_num_threads(before)
    results, names, threads, recorded = zip(*found, strict=True)
    assert results == (0, 1, 2, 3, 4)
    assert len(set(names)) <= number
    assert names[0] == threading.current_thread().name
    assert set(threads) == {1}
    assert set(recorded) == {False}


def test_what_a_lane_raises_reaches_the_caller():
    def refuses(number: int) -> int:
        if number:
            raise ValueError(f"no {number}")
        return number

    with pytest.raises(ValueError, match="no 1"):
        Lanes(2).map(refuses, [0, 1])


def test_where_the_callers_piece_fails_the_others_have_ended() -> None:
    begun, ended = list[int](), list[int]()

    def works(number: int) -> None:
        if not number:
            until = time.monotonic() + 10
            while not begun and time.monotonic() < until:
                time.sleep(0.001)
            raise ValueError("the caller's")
        begun.append(number)
        time.sleep(1.0)
        ended.append(number)

    with pytest.raises(ValueError, match="the caller's"):
        Lanes(2).map(works, range(6))
    assert ended == begun == [1]  # what had not begun was given up
