"""Threads that work side by side, each on one core.

A parallel operation wakes the other threads and waits for them, thousands of times in a student's way on ten images, and sleeping
threads are slow to wake: two were slower than one. Whole micro-batches side by side need it once a step, and threads that never
spin lose little beside other busy processes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from threading import Barrier
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Lanes:
    """So many threads; what they call runs on one thread of torch's and without gradients being recorded.

    They gain what the work spends outside Python's lock: compiled graphs, convolutions and products.
    """

    def __init__(self, number: int) -> None:
        before, met = torch.get_num_threads(), Barrier(number)
        self._pool = ThreadPoolExecutor(number, "lane", initializer=partial(torch.set_num_threads, 1))
        list(self._pool.map(lambda _: met.wait(), range(number)))
        torch.set_num_threads(before)  # of threads to come, for whom the lanes have set it too

    def map(self, function: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
        """`function` of every piece, in order."""
        return list(self._pool.map(torch.no_grad()(function), pieces))


@cache
def lanes(number: int) -> Lanes:
    """The process's lanes of that number."""
    return Lanes(number)
