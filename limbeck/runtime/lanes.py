"""Threads that work side by side, each on one core.

A parallel operation wakes the other threads and waits for them, thousands of times in a student's way on ten images, and sleeping
threads are slow to wake: two were slower than one. Whole micro-batches side by side need it once a step, and threads that never
spin lose little beside other busy processes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

from limbeck.runtime.devices import one_thread

T = TypeVar("T")
R = TypeVar("R")


class Lanes:
    """So many pieces of work at once: the caller takes the first, a thread each of the others.

    All run on one thread of torch's and without gradients being recorded. They gain what the work spends outside Python's lock:
    compiled graphs, convolutions and products.
    """

    def __init__(self, number: int) -> None:
        self.number, before = number, torch.get_num_threads()
        if number > 1:
            met = Barrier(number - 1)
            self._pool = ThreadPoolExecutor(number - 1, "lane", initializer=_take_one_thread)
            list(self._pool.map(lambda _: met.wait(), range(number - 1)))
            torch.set_num_threads(before)  # of threads to come, for whom the lanes have set it too

    def map(self, function: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
        """`function` of every piece, in order."""
        function = torch.no_grad()(function)
        own = range(0, len(pieces), self.number)
        others = {place: self._pool.submit(function, pieces[place]) for place in range(len(pieces)) if place not in own}
        try:
            with one_thread():
                results = {place: function(pieces[place]) for place in own}
        except BaseException:
            for one in others.values():
                one.cancel()
            wait(others.values())  # none goes on behind the caller's back
            raise
        return [results[place] if place in results else others[place].result() for place in range(len(pieces))]


def _take_one_thread() -> None:
    torch.get_num_threads()  # a thread that has not asked takes at its first operation the number that others set last
    torch.set_num_threads(1)


@cache
def lanes(number: int) -> Lanes:
    """The process's lanes of that number."""
    return Lanes(number)
