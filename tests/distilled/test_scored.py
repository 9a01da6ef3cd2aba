"""Selection by scores against plain oracles, and what it does with equal scores, outliers and classes that are small."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import selection as oracle

from limbeck.distilled.scored import ranked, stratified
from limbeck.runtime.errors import UsageError


def test_an_outlier_is_the_hardest_first_and_the_easiest_last() -> None:
    scores, labels = torch.tensor([0.2, 0.1, 9.0, 0.3, 0.5, 0.4]), torch.tensor([0, 0, 0, 0, 1, 1])
    assert ranked(scores, labels, 2, seed=0).tolist() == [2, 3, 4, 5]
    assert ranked(scores, labels, 2, seed=0, keep="easiest").tolist() == [1, 0, 5, 4]
    # A quarter of class 0 is the outlier, which CCS never takes, and a quarter of two images is none.
    for seed in range(8):
        assert 2 not in stratified(scores, labels, 2, seed, beta=0.25).tolist()


@pytest.mark.parametrize("keep", ["hardest", "easiest"])
def test_equal_scores_are_decided_by_the_seed_and_infinite_ones_are_the_greatest(keep: str) -> None:
    scores, labels = torch.tensor([1.0, 1.0, 1.0, 1.0, float("inf"), 0.0]), torch.zeros(6, dtype=torch.int64)
    found = {tuple(ranked(scores, labels, 3, seed, keep).tolist()) for seed in range(12)}  # type: ignore[arg-type]
    assert {one[0] for one in found} == {4 if keep == "hardest" else 5}
    assert {place for one in found for place in one[1:]} == {0, 1, 2, 3} and len(found) > 3
    few, many = ranked(scores, labels, 2, 0).tolist(), ranked(scores, labels, 5, 0).tolist()
    assert many[:2] == few  # a larger set holds the smaller one


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.integers(0, 12), min_size=1, max_size=14),
    ipc=st.integers(1, 14),
    beta=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    bins=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
def test_ccs_takes_of_every_bin_what_the_plain_algorithm_takes(
    scores: list[int], ipc: int, beta: float, bins: int, seed: int
) -> None:
    ipc = min(ipc, len(scores))
    held = torch.tensor(scores, dtype=torch.float64)
    found = stratified(held, torch.zeros(len(scores), dtype=torch.int64), ipc, seed, beta, bins).tolist()
    assert len(set(found)) == ipc
    left = sorted(scores)[: max(ipc, len(scores) - int(beta * len(scores)))]
    low, high = left[0], left[-1]
    assert max(scores[i] for i in found) <= high
    bin_of = [min(bins - 1, int((score - low) / (high - low) * bins)) if high > low else 0 for score in scores]
    counts = {number: sum(bin_of[i] == number for i in found) for number in {*bin_of} if number >= 0}
    expected = oracle.strata(scores, ipc, beta, bins)
    assert {number: count for number, count in counts.items() if count} == {n: c for n, c in expected.items() if c}


def test_what_cannot_be_chosen_from_is_refused() -> None:
    labels = torch.tensor([0, 0, 1])
    infinite = torch.tensor([1.0, float("inf"), 1.0])
    assert ranked(infinite, labels, 1, 0).tolist() == [1, 2]
    for value, said in ((infinite, "inf"), (-infinite, "-inf")):
        with pytest.raises(UsageError, match=rf"^scores: {said} is not finite numbers, whose span can be cut into bins$"):
            stratified(value, labels, 1, 0)
    for take in (ranked, stratified):
        with pytest.raises(UsageError, match=r"^ipc: 2 is not at most the 1 images of class 1$"):
            take(torch.ones(3), labels, 2, 0)
        with pytest.raises(UsageError, match=r"^scores: 'NaN' is not numbers$"):
            take(torch.tensor([1.0, float("nan"), 1.0]), labels, 1, 0)
        with pytest.raises(UsageError, match=r"^scores: \(2,\) is not of shape \(3,\), one for each label$"):
            take(torch.ones(2), labels, 1, 0)
