"""Common Pattern Dropout against plain loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.matching import matching_gradient, matching_loss

from limbeck.matching.criteria import KeepAll, LowLossDropout, MatchingLoss, criterion_of
from limbeck.matching.settings import MatchSettings

# A coarse grid, so that equal losses occur.
numbers = st.integers(-4, 4).map(lambda value: value / 4)
triples = st.lists(st.tuples(numbers, numbers, numbers), min_size=2, max_size=40)


@given(triples, st.sampled_from([0.0, 0.125, 0.25, 0.375, 0.5, 0.9]))
def test_loss_and_gradient_equal_the_loops(rows: list[tuple[float, float, float]], drop_ratio: float) -> None:
    # The last parameter has the largest loss and a distance, so that the fraction is never 0/0.
    theta, start, target = (list(column) for column in zip(*rows, (9.0, 1.0, 0.0), strict=True))
    leaf = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    loss = MatchingLoss(
        torch.tensor(start, dtype=torch.float64), torch.tensor(target, dtype=torch.float64), LowLossDropout(drop_ratio)
    )
    value = loss(leaf)
    expected, kept = matching_loss(theta, start, target, drop_ratio)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert loss.kept is not None
    assert loss.kept.tolist() == kept
    (gradient,) = torch.autograd.grad(value, leaf)
    assert gradient.tolist() == pytest.approx(matching_gradient(theta, start, target, drop_ratio), rel=1e-12, abs=1e-15)


def test_nothing_dropped_is_the_plain_loss() -> None:
    theta, start, target = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = ((theta - target) ** 2).sum() / ((start - target) ** 2).sum()
    for criterion in (KeepAll(), LowLossDropout(0.0)):
        assert MatchingLoss(start, target, criterion)(theta).item() == pytest.approx(plain.item(), rel=1e-14)


def test_the_kept_set_is_chosen_once() -> None:
    loss = MatchingLoss(torch.zeros(4), torch.ones(4), LowLossDropout(0.5))
    loss(torch.tensor([1.0, 1.0, 3.0, 4.0]))
    assert loss(torch.tensor([3.0, 4.0, 1.0, 1.0])).item() == 0.0  # only the last two count, and they are met now


def test_settings_choose_the_criterion() -> None:
    assert criterion_of(MatchSettings(drop_ratio=0.25)) == LowLossDropout(0.25)
    assert isinstance(criterion_of(MatchSettings(drop_ratio=0.25, criterion="none")), KeepAll)
    assert isinstance(criterion_of(MatchSettings(drop_ratio=0.0)), KeepAll)
