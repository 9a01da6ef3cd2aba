"""Start epochs against the plain definition."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.matching import start_epochs

from limbeck.matching.schedules import Schedule, Sequential, Uniform
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator


@given(st.integers(0, 5), st.integers(1, 9), st.integers(0, 20), st.integers(1, 300), st.integers(0, 700))
def test_the_range_equals_the_definition(low: int, more: int, widen: int, iterations: int, iteration: int) -> None:
    first, last = low + more, low + more + widen
    schedule = Sequential(low, first, last, iterations)
    assert list(schedule.starts(iteration)) == start_epochs(first, last, low, iterations, iteration)
    assert set(schedule.starts(iteration)) <= set(schedule.reachable()) == set(schedule.starts(iterations))


def test_draws_are_uniform() -> None:
    schedule = Uniform(2, 6)
    counts = Counter(schedule.draw(0, generator(0, "start", n)) for n in range(4000))
    assert sorted(counts) == [2, 3, 4, 5]
    assert all(abs(count - 1000) < 5 * 27.4 for count in counts.values())  # five standard deviations


def test_reachable_epochs_are_starts_and_targets() -> None:
    assert Sequential(1, 2, 3).epochs(5) == Uniform(1, 3).epochs(5) == [1, 2, 6, 7]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequential(4, 4, 9), "first_max_start_epoch: 4 is not above min_start_epoch (4) and at most max_start_epoch (9)"),
        (lambda: Sequential(0, 6, 5), "first_max_start_epoch: 6 is not above min_start_epoch (0) and at most max_start_epoch (5)"),
        (lambda: Sequential(iterations=0), "iterations: 0 is not at least 1"),
        (lambda: Uniform(3, 3), "max_start_epoch: 3 is not above min_start_epoch (3)"),
        (lambda: Uniform(-1, 3), "min_start_epoch: -1 is not at least 0"),
    ],
)
def test_a_range_that_is_empty_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        make()
    assert str(error.value) == message


class Given(Schedule):
    """Whatever is given."""

    def __init__(self, reachable: Any) -> None:
        self.given = reachable

    def starts(self, iteration: int) -> Any:
        return self.given

    def reachable(self) -> Any:
        return self.given


@pytest.mark.parametrize("reachable", [[], {0, 1}, [0, 1.5], [2, -1], None])
def test_a_schedule_of_ones_own_that_reaches_nothing_sensible_is_refused_by_name(reachable: Any) -> None:
    with pytest.raises(UsageError, match=r"^schedule\.kind: 'Given' is not one that can start from one epoch or more, 0 and up: "):
        Given(reachable).epochs(2)
    assert Given((3, 0)).epochs(2) == [0, 2, 3, 5]
