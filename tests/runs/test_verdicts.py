"""Verdicts on sets in pairs, and on a single one beside random images, at a level that all of them share."""

from itertools import pairwise

import pytest

from limbeck.accuracy import Accuracies
from limbeck.evaluation.results import SetResult
from limbeck.evaluation.statistics import Looks, compare, summarise
from limbeck.runs.verdicts import all_decided, comparisons, shared

LOOKS = Looks(least=5, most=10)
BASE = [0.50, 0.52, 0.54, 0.51, 0.53, 0.55, 0.50, 0.52, 0.54, 0.53]
NOISE = [0.010, 0.020, 0.015, 0.012, 0.018, 0.011, 0.019, 0.016, 0.013, 0.017]


def accuracies(shift: float, noise: bool = True, seeds: int = 10) -> Accuracies:
    values = [base + shift * (1 + 10 * error * noise) for base, error in zip(BASE, NOISE, strict=True)][:seeds]
    return Accuracies(distilled=summarise(values), random=summarise(BASE[:seeds]))


def result(*found: Accuracies) -> SetResult:
    """Under networks 0, 1, …."""
    first, *others = (SetResult(accuracy=one, network=str(number)) for number, one in enumerate(found))
    return SetResult(accuracy=first.accuracy, network="0", networks={one.network: one for one in others})


@pytest.mark.parametrize(("sets", "networks", "tests"), [(1, 1, 1), (2, 1, 1), (1, 3, 3), (3, 2, 6), (4, 1, 6)])
def test_all_tests_share_the_level(sets: int, networks: int, tests: int) -> None:
    assert shared(LOOKS, sets, networks).level == pytest.approx(LOOKS.level / tests)


def test_a_single_set_is_judged_beside_random_images() -> None:
    (row,) = comparisons(["set 1"], [result(accuracies(0.1))], LOOKS)
    assert (row.a, row.b, row.network, row.verdict, row.n) == ("set 1", "random images", "0", "a better", 10)
    assert row.p is not None and row.p_adjusted == pytest.approx(min(1.0, len(LOOKS.at) * row.p))
    (worse,) = comparisons(["set 1"], [result(accuracies(-0.1))], LOOKS)
    assert (worse.verdict, worse.mean) == ("b better", pytest.approx(-row.mean))
    assert comparisons(["set 1"], [result(accuracies(0.1))], None) == ()  # nobody has asked


def test_a_p_without_spread_is_that_of_the_sign_flips() -> None:
    """Five equal differences leave the t-test no doubt; the sign flips keep 2^{1−5}, which six looks make too much."""
    few = [result(accuracies(0.1, noise=False, seeds=5)), result(accuracies(0.0, noise=False, seeds=5))]
    looks = Looks(least=4, most=5)
    (row,) = comparisons(["a", "b"], few, looks)
    assert (row.p, row.verdict, row.seeds_needed) == (0.0, "undecided", None)
    assert row.p_adjusted == pytest.approx(len(looks.at) * 2.0 ** (1 - 5))


def test_verdicts_know_how_many_networks_there_are() -> None:
    """A difference that is one alone at its look, and none among as many as there are networks."""
    rng, looks = [0.004, 0.02, -0.016, 0.03, 0.011, 0.008, -0.001, 0.025, 0.009, 0.006], Looks(least=10, most=10)
    close = Accuracies(distilled=summarise([base + one for base, one in zip(BASE, rng, strict=True)]), random=summarise(BASE))
    p = compare(close.distilled.values, BASE).p
    assert p is not None and 0.05 / 3 < p < 0.05
    (alone,) = comparisons(["a"], [result(close)], looks)
    several = comparisons(["a"], [result(*[close] * 3)], looks)
    assert alone.verdict == "a better" and alone.p_adjusted == pytest.approx(p)
    assert [row.verdict for row in several] == ["undecided"] * 3
    assert [row.p_adjusted for row in several] == pytest.approx([3 * p] * 3)
    assert all_decided([close], looks)


def test_sets_are_decided_when_every_pair_is() -> None:
    sets = [accuracies(shift) for shift in (0.3, 0.15, 0.0)]
    assert all_decided(sets, LOOKS)
    assert not all_decided([*sets, accuracies(0.0, seeds=10)], Looks(least=5, most=11))  # equal ones, and a look that is left
    rows = comparisons(["a", "b", "c"], [result(one) for one in sets], LOOKS)
    assert [(row.a, row.b, row.verdict) for row in rows] == [(a, b, "a better") for a, b in ("ab", "ac", "bc")]
    assert all(first.n == second.n for first, second in pairwise(rows))
