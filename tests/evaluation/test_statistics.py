"""Comparisons of accuracies, worked by hand, against SciPy, by brute force and by simulation."""

import itertools
import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from limbeck.evaluation import statistics
from limbeck.evaluation.statistics import (
    Looks,
    compare,
    compare_unpaired,
    decide,
    deciding_p,
    differences,
    holm,
    seeds_needed,
)
from limbeck.runtime.errors import UsageError

# Accuracies on 200 images, so that ties occur.
accuracies = st.integers(0, 200).map(lambda hits: hits / 200)
pairs = st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=9)


def columns(rows: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [a for a, _ in rows], [b for _, b in rows]


def brute_force_p(found: Sequence[float]) -> float:
    """The share of sign patterns whose sum is at least as far from 0."""
    observed = abs(sum(found)) - 1e-9
    sums = [sum(s * d for s, d in zip(signs, found, strict=True)) for signs in itertools.product((1, -1), repeat=len(found))]
    return float(np.mean([abs(value) >= observed for value in sums]))


def test_a_comparison_worked_by_hand() -> None:
    # d = .1, .1, .2, .3; d̄ = .175; s² = (.075² + .075² + .025² + .125²) / 3 = .0275 / 3, s = .0957427; d_z = 1.827816;
    # t = 2 · d_z = 3.655631; half the interval is t(.975; 3) · s / 2 = 3.182446 · .0478714 = .1523480.
    # No other sign pattern but all minus reaches a sum of .7: 2 of 16.
    found = compare([0.6, 0.7, 0.8, 0.9], [0.5, 0.6, 0.6, 0.6])
    assert (found.n, found.wins, found.ties, found.p_exact) == (4, 1.0, 0.0, 0.125)
    assert found.mean == pytest.approx(0.175)
    assert found.std == pytest.approx(0.0957427, abs=1e-7)
    assert found.effect == pytest.approx(1.827816, abs=1e-6)
    assert found.effect_note.startswith("d_z")
    assert found.ci95 == pytest.approx([0.175 - 0.152348, 0.175 + 0.152348], abs=1e-6)
    assert found.p == pytest.approx(2 * stats.t.sf(3.655631, 3), rel=1e-5)


@given(pairs)
def test_compare_equals_scipy_and_brute_force(rows: list[tuple[float, float]]) -> None:
    a, b = columns(rows)
    found = compare(a, b)
    assert found.p_exact == brute_force_p(np.subtract(a, b).tolist())
    assert found.wins == np.mean(np.greater(a, b))
    assert found.wins + found.ties == pytest.approx(np.mean(np.greater_equal(a, b)))
    assume(found.std)
    oracle = stats.ttest_rel(a, b)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6)
    interval = oracle.confidence_interval(0.95)
    assert found.ci95 == pytest.approx([interval.low, interval.high], abs=1e-9)


@given(pairs)
def test_compare_is_antisymmetric(rows: list[tuple[float, float]]) -> None:
    a, b = columns(rows)
    one, other = compare(a, b), compare(b, a)
    for key in ("n", "std", "p", "p_exact", "p_exact_note", "effect_note", "ties"):
        assert getattr(one, key) == getattr(other, key)
    assert one.mean == -other.mean
    assert one.effect == (None if other.effect is None else -other.effect)
    assert other.ci95 is not None and one.ci95 == tuple(-end for end in reversed(other.ci95))
    assert one.wins + one.ties + other.wins == pytest.approx(1)


@given(pairs, st.sampled_from([100.0, 1e-3, 7.0]))
def test_p_does_not_depend_on_the_scale(rows: list[tuple[float, float]], scale: float) -> None:
    a, b = columns(rows)
    one, other = compare(a, b), compare([scale * x for x in a], [scale * x for x in b])
    assert other.p == pytest.approx(one.p, rel=1e-6)
    assert [getattr(other, key) for key in ("p_exact", "wins", "ties")] == [
        getattr(one, key) for key in ("p_exact", "wins", "ties")
    ]
    assert other.mean == pytest.approx(scale * one.mean)


def test_equal_differences() -> None:
    # .3 − .2, .2 − .1 and .9 − .8 differ in their last digits; 0.1 + 0.2 is not 0.3.
    one = compare([0.3, 0.2, 0.9], [0.2, 0.1, 0.8])
    assert (one.std, one.p, one.effect, one.p_exact, one.wins) == (0.0, 0.0, None, 0.25, 1.0)
    assert one.ci95 == (one.mean, one.mean)
    assert one.effect_note.endswith("all differences are equal")
    none = compare([0.3, 0.5], [0.1 + 0.2, 0.5])
    assert (none.mean, none.p, none.effect, none.p_exact, none.wins, none.ties) == (0.0, 1.0, None, 1.0, 0.0, 1.0)


def test_one_seed_decides_nothing() -> None:
    found = compare([0.5], [0.25])
    assert (found.n, found.mean, found.wins, found.p_exact) == (1, 0.25, 1.0, 1.0)
    assert [getattr(found, key) for key in ("std", "ci95", "p", "effect")] == [None] * 4
    assert found.effect_note.endswith("one seed has no spread")
    assert seeds_needed([0.5], [0.25]) is None


def test_results_are_json() -> None:
    for a, b in (([0.5], [0.2]), ([0.5, 0.5], [0.2, 0.2]), ([0.5, 0.4], [0.2, 0.3])):
        json.dumps(compare(np.array(a, dtype=np.float32), np.array(b, dtype=np.float32)).to_dict(), allow_nan=False)
    json.dumps(compare_unpaired([0.5, 0.5], [0.2, 0.2]).to_dict(), allow_nan=False)


@pytest.mark.parametrize("a, b", [([0.1, 0.2], [0.1]), ([], []), ([math.nan, 0.1], [0.1, 0.2]), ([0.1], [math.inf])])
def test_what_cannot_be_compared(a: list[float], b: list[float]) -> None:
    for call in (compare, differences, seeds_needed, compare_unpaired):
        with pytest.raises(ValueError):
            if call is compare_unpaired and a and math.isfinite(sum(a + b)):
                call(a, b[:1])
            call(a, b)


def test_sign_flips_of_many_seeds() -> None:
    # Of n equal differences two patterns reach the sum; of n − 1 equal ones and an opposite one, those with at most one sign
    # unlike the rest: 2 (1 + n).
    assert compare([0.5] * 16, [0.4] * 16).p_exact == 2**-15
    assert compare([0.5] * 16, [0.4] * 15 + [0.6]).p_exact == 2 * 17 / 2**16
    rng = np.random.default_rng(0)
    a = rng.normal(0.08, 0.3, 40)
    drawn, again, exact = compare(a, np.zeros(40)), compare(a, np.zeros(40)), stats.ttest_rel(a, np.zeros(40)).pvalue
    assert drawn.p_exact_note == "65535 drawn sign flips"
    assert drawn.p_exact == again.p_exact == pytest.approx(exact, abs=0.01)
    assert compare(np.ones(40), np.zeros(40)).p_exact == 2**-15  # never 0


@given(st.lists(accuracies, min_size=2, max_size=9), st.lists(accuracies, min_size=2, max_size=9))
@pytest.mark.filterwarnings("ignore:Precision loss")  # where one list has no spread
def test_welch_equals_scipy(a: list[float], b: list[float]) -> None:
    found = compare_unpaired(a, b)
    assume(np.std(a) > 1e-9 or np.std(b) > 1e-9)
    oracle = stats.ttest_ind(a, b, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6)
    assert found.degrees_of_freedom == pytest.approx(oracle.df, rel=1e-9)
    assert found.ci95 == pytest.approx([interval.low, interval.high], abs=1e-9)
    assert found.agree == (interval.low <= 0 <= interval.high)


def test_two_machines() -> None:
    # Means .51 and .53, s² = .0001 each, n = 3: t = −.02 / √(.0002 / 3) = −2.449 with 4 degrees of freedom, below 2.776.
    found = compare_unpaired([0.50, 0.51, 0.52], [0.52, 0.53, 0.54])
    assert (found.n, found.agree) == ((3, 3), True)
    assert found.degrees_of_freedom == pytest.approx(4)
    assert found.p == pytest.approx(0.0705, abs=1e-4)
    assert not compare_unpaired([0.50, 0.51, 0.52], [0.54, 0.55, 0.56]).agree


def test_machines_without_spread() -> None:
    apart = compare_unpaired([0.5, 0.5], [0.4, 0.4])
    assert (apart.agree, apart.p, apart.degrees_of_freedom) == (False, 0.0, None)
    together = compare_unpaired([0.3, 0.3], [0.1 + 0.2, 0.3])
    assert (together.agree, together.p, together.mean) == (True, 1.0, 0.0)


# G*Power's tables of the two-sided paired t-test at level 0.05.
@pytest.mark.parametrize(
    "effect, power, expected", [(0.2, 0.8, 199), (0.5, 0.8, 34), (0.8, 0.8, 15), (0.5, 0.95, 54), (1e-5, 0.8, 10**6)]
)
def test_seeds_needed(effect: float, power: float, expected: int) -> None:
    a = [effect * math.sqrt(2) + 1, effect * math.sqrt(2) - 1]  # s = √2
    assert seeds_needed(a, [0.0, 0.0], power) == expected
    assert seeds_needed([0.0, 0.0], a, power) == expected


def test_seeds_needed_at_the_ends() -> None:
    assert seeds_needed([0.5, 0.3], [0.3, 0.5]) is None
    assert seeds_needed([0.3, 0.1], [0.1 + 0.2 - 0.2, 0.3]) is None  # a mean of 0 but for rounding
    assert seeds_needed([0.5, 0.5], [0.4, 0.4]) == 2
    for effect in (1e2, 1e4, 1e6):
        assert seeds_needed([effect * math.sqrt(2) + 1, effect * math.sqrt(2) - 1], [0.0, 0.0]) == 2


def test_seeds_needed_with_a_strict_level() -> None:
    # d̄ = .15, s = .1 / √2, d_z = 2.1213. P(T > t) is the mean of Φ(d_z √n − t s) over s² = χ²(n − 1) / (n − 1).
    def power(n: int) -> float:
        spread = np.sqrt(stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, n - 1) / (n - 1))
        return float(stats.norm.cdf(math.sqrt(4.5 * n) - stats.t.isf(5e-7, n - 1) * spread).mean())

    assert power(17) < 0.78
    assert power(18) > 0.84
    assert seeds_needed([0.5, 0.4], [0.3, 0.3], level=1e-6) == 18


def test_power_and_level_are_checked() -> None:
    for wrong in ({"power": 1.0}, {"level": 0.0}):
        with pytest.raises(ValueError, match="power and level"):
            seeds_needed([0.5, 0.4], [0.3, 0.3], **wrong)


def test_holm() -> None:
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1: .04, .06, .06, .04, each raised to what is before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="p-values"):
            holm([0.1, wrong])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_step_by_step(ps: list[float], level: float) -> None:
    rejected = set()
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if (len(ps) - rank) * ps[index] > level:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(ps)) if p <= level} == rejected


def test_planned_looks() -> None:
    assert Looks().at == (5, 10, 15, 20, 25, 30)
    assert Looks().threshold(5) == pytest.approx(0.05 / 6)
    assert Looks(least=5, most=12).at == (5, 7, 9, 11, 12)
    assert Looks(least=4, most=4).at == (4,)
    assert Looks(least=4, most=4).threshold(4) == 0.05
    with pytest.raises(ValueError, match="no look is planned at 6"):
        Looks().threshold(6)


@given(st.integers(2, 60), st.integers(0, 100), st.floats(1e-4, 0.5))
def test_looks_never_spend_more_than_the_level(least: int, more: int, level: float) -> None:
    looks = Looks(least=least, most=least + more, level=level)
    assert looks.at[0] == least
    assert looks.at[-1] == least + more
    assert list(looks.at) == sorted(set(looks.at))
    assert len(looks.at) <= 6
    assert math.fsum(looks.threshold(n) for n in looks.at) <= level * (1 + 1e-12)


@pytest.mark.parametrize("wrong", [{"least": 1}, {"least": 6, "most": 5}, {"level": 0.0}, {"level": 1.0}, {"level": math.nan}])
def test_looks_that_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(reversed(wrong))):
        Looks(**wrong)  # type: ignore[arg-type]


def error_rates(draw: Callable[[np.random.Generator], np.ndarray], repetitions: int) -> tuple[float, float]:
    """How often some look decides where nothing is to be found, with our thresholds and with p ≤ level at every look."""
    rng, looks = np.random.default_rng(0), Looks()
    ours = naive = 0
    for found in (draw(rng) for _ in range(repetitions)):
        ours += decide(found.tolist(), looks) != "undecided"
        means = [found[:n].mean() / (found[:n].std(ddof=1) / math.sqrt(n) + 1e-12) for n in looks.at]
        naive += any(abs(t) > limit for t, limit in zip(means, stats.t.ppf(0.975, np.array(looks.at) - 1), strict=True))
    return ours / repetitions, naive / repetitions


def test_repeated_looks_keep_the_level() -> None:
    # The error of a rate of .05 in 3000 repetitions is .004.
    ours, naive = error_rates(lambda rng: rng.standard_normal(30), 3000)
    assert 0.015 < ours <= 0.05 + 3 * 0.004
    assert naive > 0.1  # looking without a price


def test_coarse_accuracies_keep_the_level() -> None:
    # On 20 images differences are often equal, five in a row too.
    ours, _ = error_rates(lambda rng: rng.choice([-0.05, 0.0, 0.05], 30, p=[0.45, 0.1, 0.45]), 1000)
    assert ours <= 0.05 + 3 * 0.007


def test_a_clear_difference_is_decided_early() -> None:
    rng = np.random.default_rng(1)
    verdicts = [decide(rng.normal(2, 1, 10).tolist(), Looks()) for _ in range(100)]
    assert verdicts.count("a better") >= 95
    assert "b better" not in verdicts


@given(st.lists(st.integers(-20, 40).map(lambda hits: hits / 200), min_size=12, max_size=12), st.integers(0, 12))
def test_the_verdict_does_not_depend_on_batches(found: list[float], done: int) -> None:
    looks = Looks(least=4, most=12, level=0.2)
    verdict = decide(found, looks)
    assert verdict is not None
    early = decide(found[:done], looks)
    assert early in (None, verdict)
    turned = decide([-difference for difference in found], looks)
    assert turned == {"a better": "b better", "b better": "a better", "undecided": "undecided"}[verdict]
    assert decide([*found, 1.0, 1.0], looks) == verdict


def test_differences_without_spread_need_more_seeds() -> None:
    # 2^{1−5} is above .05 / 6, 2^{1−10} is not.
    assert decide([0.1] * 5, Looks()) is None
    assert decide([0.1] * 10, Looks()) == "a better"
    with pytest.raises(ValueError, match="finite"):
        decide([math.nan] * 5, Looks())


def test_the_p_that_decides_is_that_of_the_sign_flips_where_there_is_no_spread() -> None:
    equal, spread = compare([0.5, 0.6, 0.7], [0.4, 0.5, 0.6]), compare([0.5, 0.6, 0.8], [0.4, 0.5, 0.6])
    assert (equal.p, deciding_p(equal)) == (0.0, 2.0 ** (1 - 3))
    assert deciding_p(spread) == spread.p != spread.p_exact
    assert deciding_p(compare([0.5], [0.4])) == 1.0
    for found, values in ((equal, [0.1] * 3), (spread, [0.1, 0.1, 0.2])):
        assert statistics._look(values) == pytest.approx(deciding_p(found))
