"""Start epochs against the plain definition."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.matching import start_epochs

from limbeck.matching.schedules import draw_start_epoch, reachable_epochs, upper_end
from limbeck.matching.settings import ScheduleSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator


@given(st.integers(0, 5), st.integers(1, 9), st.integers(0, 20), st.integers(1, 300), st.integers(0, 700))
def test_the_range_equals_the_definition(low: int, more: int, widen: int, iterations: int, iteration: int) -> None:
    first, last = low + more, low + more + widen
    settings = ScheduleSettings(min_start_epoch=low, first_max_start_epoch=first, max_start_epoch=last, iterations=iterations)
    assert list(range(low, upper_end(settings, iteration))) == start_epochs(first, last, low, iterations, iteration)


def test_draws_are_uniform() -> None:
    settings = ScheduleSettings(kind="uniform", min_start_epoch=2, max_start_epoch=6)
    counts = Counter(draw_start_epoch(settings, 0, generator(0, "start", n)) for n in range(4000))
    assert sorted(counts) == [2, 3, 4, 5]
    assert all(abs(count - 1000) < 5 * 27.4 for count in counts.values())  # five standard deviations


def test_reachable_epochs_are_starts_and_targets() -> None:
    settings = ScheduleSettings(min_start_epoch=1, first_max_start_epoch=2, max_start_epoch=3)
    assert reachable_epochs(settings, 5) == [1, 2, 6, 7]


def test_a_range_that_is_empty_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^schedule.first_max_start_epoch: 4 is not above"):
        ScheduleSettings(min_start_epoch=4, first_max_start_epoch=4, max_start_epoch=9)
