"""Schedules of the step size against their formulas, torch's schedulers and what holds for all of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.runtime.errors import UsageError
from limbeck.training.rates import Constant, Cosine, DropAtHalf, Rate, Steps

shares = st.floats(0, 1)
rates = st.one_of(
    st.just(Constant()),
    st.just(DropAtHalf()),
    st.builds(Steps, st.lists(shares, max_size=4).map(tuple), shares),
    st.builds(Cosine, shares, st.floats(0.1, 3)),
)


def factors(rate: Rate, epochs: int) -> list[float]:
    return [rate.factor(epoch, epochs) for epoch in range(epochs)]


@given(rate=rates, epochs=st.integers(1, 60))
def test_factors_begin_at_most_at_1_and_never_rise(rate: Rate, epochs: int) -> None:
    values = factors(rate, epochs)
    assert all(0 <= value <= 1 for value in values)
    assert all(later <= earlier for earlier, later in zip(values, values[1:], strict=False))
    assert values[0] == 1 or isinstance(rate, (Steps, DropAtHalf))
    assert min(values) >= rate.least - 1e-12
    assert rate.factor(epochs, epochs) == rate.factor(3 * epochs, epochs) == pytest.approx(rate.least)


def test_constant_and_drop() -> None:
    assert factors(Constant(), 3) == [1, 1, 1]
    assert factors(DropAtHalf(), 6) == [1, 1, 1, 0.1, 0.1, 0.1]
    assert factors(DropAtHalf(), 5) == [1, 1, 1, 0.1, 0.1]


def test_momentum_restarts_only_at_the_drop() -> None:
    assert [rate.restarts for rate in (Constant(), DropAtHalf(), Steps((0.5,)), Cosine())] == [False, True, False, False]


def test_the_cosine_is_torchs() -> None:
    for ends_at in (0.0, 0.2):
        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 30, ends_at)
        expected = []
        for _ in range(30):
            expected.append(schedule.get_last_lr()[0])
            optimiser.step()
            schedule.step()
        assert factors(Cosine(ends_at), 30) == pytest.approx(expected, abs=1e-12)


def test_the_cosine_over_twice_the_epochs_ends_at_half_the_rate() -> None:
    values = factors(Cosine(over=2), 300)
    assert values == pytest.approx([0.5 * (1 + math.cos(math.pi * epoch / 600)) for epoch in range(300)], rel=1e-14)
    assert Cosine(over=2).factor(300, 300) == pytest.approx(0.5)
    assert Cosine(ends_at=0.2, over=2).factor(300, 300) == pytest.approx(0.6)


def test_a_short_cosine_stays_where_it_ended() -> None:
    assert factors(Cosine(ends_at=0.1, over=0.5), 8)[4:] == pytest.approx([0.1] * 4)


@given(epochs=st.integers(1, 400), data=st.data())
def test_steps_fall_at_the_epochs_that_the_shares_mean(epochs: int, data: st.DataObject) -> None:
    """Where a milestone is k / E, rounded or not, epoch k is the first with the smaller factor."""
    starts = data.draw(st.lists(st.integers(0, epochs), max_size=4))
    values = factors(Steps(tuple(start / epochs for start in starts), 0.5), epochs)
    assert values == [0.5 ** sum(start <= epoch for start in starts) for epoch in range(epochs)]


def test_steps_are_torchs() -> None:
    assert factors(Steps((0.07,)), 100) == [1.0] * 7 + [0.1] * 93  # 0.07 · 100 > 7 in floating point
    assert factors(Steps(()), 4) == [1.0] * 4
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [10, 15], 0.2)
    for value in factors(Steps((0.5, 0.75), 0.2), 20):
        assert value == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(ends_at=1.5), r"rate.ends_at: 1.5 is not in \[0, 1\]"),
        (lambda: Cosine(over=0.0), "rate.over: 0.0 is not above 0 and finite"),
        (lambda: Cosine(over=math.nan), "rate.over: nan is not above 0 and finite"),
        (lambda: Steps((0.5, 2.0)), r"rate.milestones: \(0.5, 2.0\) is not shares in \[0, 1\]"),
        (lambda: Steps((0.5,), -1.0), r"rate.by: -1.0 is not in \[0, 1\]"),
    ],
)
def test_what_is_not_accepted(make, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
