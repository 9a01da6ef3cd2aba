"""Scores worked by hand, their limits, and the trap of percentages."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.accuracy import Accuracies, Accuracy
from limbeck.evaluation.scores import Doubt, Seeds, compression, doubts, joined, lossless, ranking, recovery_ratio, robustness, told
from limbeck.evaluation.statistics import summarise
from limbeck.runtime.errors import UsageError

unit = st.floats(0, 1)


def test_recovery_ratio() -> None:
    assert recovery_ratio(0.3, 0.6) == 0.5
    assert recovery_ratio(0.3, 0.0) is None
    assert recovery_ratio(0.0, 0.5) == 0.0


@pytest.mark.parametrize(
    ("distilled", "random", "full", "trained", "kinds"),
    [
        (0.5, 0.3, 0.8, 0.99, []),
        (0.88, 0.3, 0.8, 0.99, []),  # exactly 110 %
        (0.881, 0.3, 0.8, 0.99, ["recovery"]),
        (0.5, 0.8, 0.8, 0.99, []),
        (0.5, 0.81, 0.8, 0.99, ["below random"]),
        (0.1, 0.1, 0.1, 0.1, ["chance"]),
        (0.3, 0.05, 0.1, None, ["chance", "recovery"]),
        (0.3, 0.2, 0.55, 1.0, []),  # chance is a tenth: (0.55 − 0.1) is exactly half of (1 − 0.1)
        (0.3, 0.2, 0.54, 1.0, ["learnt by heart"]),
        (0.3, 0.2, 0.54, None, []),
        (0.11, 0.1, 0.11, 0.2, []),  # nothing to speak of was promised
        (0.5, 0.4, 0.2, 0.9, ["below random", "recovery", "learnt by heart"]),
    ],
)
def test_a_denominator_that_is_no_measure_is_said(
    distilled: float, random: float, full: float, trained: float | None, kinds: list[str]
) -> None:
    parts = {"distilled": Accuracy(mean=distilled), "random": Accuracy(mean=random), "full": Accuracy(mean=full, trained=trained)}
    found = doubts(Accuracies(**parts), 10)
    assert [one.kind for one in found] == kinds
    assert all(one.text.startswith("no measure: networks of the full data ") and "\n" not in one.text for one in found)
    assert doubts(Accuracies(distilled=Accuracy(mean=0.5)), 10) == ()


def test_all_that_speaks_against_the_full_data_is_one_sentence() -> None:
    parts = {"distilled": Accuracy(mean=0.5), "random": Accuracy(mean=0.4), "full": Accuracy(mean=0.2, trained=0.9)}
    unchecked = Doubt(kind="labels unchecked", text="not checked: x")
    assert told([*doubts(Accuracies(**parts), 10), unchecked]) == [
        "no measure: networks of the full data lose to a random subset of it (20.0 % against 40.0 %), lose to the set "
        "(20.0 % against 50.0 %), know 90.0 % of their training images, but 20.0 % of the test images; eval.full_epochs, "
        "eval.full_lr and eval.full_batch_size say how they are trained",
        "not checked: x",
    ]
    assert told([unchecked, unchecked]) == ["not checked: x"] * 2


def test_doubts_of_a_kind_are_one_with_all_names() -> None:
    one, other, third = Doubt(kind="recovery", text="a"), Doubt(kind="recovery", text="b"), Doubt(kind="chance", text="c")
    found = joined([("x", [one]), ("y", [other, third]), ("z", [one])])
    assert found == (Doubt(kind="recovery", text="a", where=("x", "y", "z")), Doubt(kind="chance", text="c", where=("y",)))
    assert list(map(str, found)) == ["a (x, y and 1 more)", "c (y)"]


def test_lossless_within_one_standard_deviation() -> None:
    # Full: mean .8, s = √((.01 + .01) / 1 · 1) = .141421 with n − 1 (with n it would be .1); the floor is .658579.
    full = summarise([0.7, 0.9])
    result = lossless(summarise([0.66, 0.66, 0.66]), full)
    assert result.lossless is True
    assert result.floor == pytest.approx(0.658579, abs=1e-6)
    assert result.std == pytest.approx(0.141421, abs=1e-6)
    assert (result.distilled, result.full) == (pytest.approx(0.66), pytest.approx(0.8))
    assert result.n == Seeds(distilled=3, full=2)
    assert lossless(summarise([0.65]), full).lossless is False
    assert lossless(summarise([0.1, 1.0]), full).lossless is False  # the distilled set's own spread is no excuse
    json.dumps(result.to_dict(), allow_nan=False)


def test_lossless_at_the_edge() -> None:
    # .25 ± .125: s = .125, and exactly one of it below is not more than one below.
    full = Accuracy(mean=0.25, std=0.125, n=3)
    assert lossless(Accuracy(mean=0.125, std=0.0, n=2), full).lossless is True
    assert lossless(Accuracy(mean=0.12, std=0.0, n=2), full).lossless is False
    # .6, .7, .8: s = .1, as .7 − .6 is but for rounding.
    for low in (0.1, 0.2, 0.3, 0.5, 0.6, 0.7):
        assert lossless(summarise([low, low]), summarise([low, low + 0.1, low + 0.2])).lossless is True


def test_lossless_with_one_full_seed() -> None:
    assert lossless(summarise([0.5]), summarise([0.5])).lossless is True
    result = lossless(summarise([0.49]), summarise([0.5]))
    assert (result.lossless, result.std, result.floor) == (None, None, None)


def test_compression() -> None:
    # 100 images of 3 · 32 · 32 = 3072 numbers, 4 bytes each, and 100 · 10 labels of 4; 50 000 images of 3072 bytes.
    result = compression((100, 3, 32, 32), 10, 50_000, (3, 32, 32))
    assert result.images.to_dict() == {"distilled": 100, "real": 50_000, "ratio": 0.002}
    assert result.bytes.to_dict() == {"distilled": 1_232_800, "labels": 4000, "real": 153_600_000, "ratio": 1_232_800 / 153_600_000}
    assert compression((4, 1, 2, 2), 0, 4, (1, 2, 2)).bytes.ratio == 4.0
    assert compression((1, 3, 8, 8), 2, 1, (3, 16, 16)).bytes.ratio == (4 * 192 + 8) / 768
    for wrong in [((0, 3, 8, 8), 2, 1, (3, 8, 8)), ((1, 3, 8, 8), -1, 1, (3, 8, 8)), ((1, 3, 8, 8), 2, 0, (3, 8, 8))]:
        with pytest.raises(ValueError, match="at least 1"):
            compression(*wrong)


def test_ranking_worked_by_hand() -> None:
    # HLR = .9 − .5 = .4; IOR = .6 − .4 = .2; α = .1 − .2 = −.1; (e^−.1 − e^−1) / (e − e^−1) = (.904837 − .367879) / 2.350402.
    result = ranking(0.9, 0.5, 0.6, 0.4)
    assert result.hlr == pytest.approx(0.4)
    assert result.ior == pytest.approx(0.2)
    assert result.alpha == pytest.approx(-0.1)
    assert result.lrs == pytest.approx(0.228454, abs=1e-6)
    # w = .75: α = .15 − .1 = .05; (1.051271 − .367879) / 2.350402.
    assert ranking(0.9, 0.5, 0.6, 0.4, 0.75).lrs == pytest.approx(0.290755, abs=1e-6)


def test_robustness_worked_by_hand() -> None:
    # .7 − .5 = .2 and .4 − .5 = −.1; β = .05; with γ = .25: .05 − .075 = −.025, (.975310 − .367879) / 2.350402.
    result = robustness(0.7, 0.5, 0.4, 0.5)
    assert (result.gain_aug, result.gain_plain) == (pytest.approx(0.2), pytest.approx(-0.1))
    assert result.beta == pytest.approx(0.05)
    assert result.ars == pytest.approx(0.290755, abs=1e-6)
    assert robustness(0.7, 0.5, 0.4, 0.5, 0.25).ars == pytest.approx(0.258437, abs=1e-6)


def test_scores_at_their_limits() -> None:
    assert ranking(0, 1, 1, 0).alpha == 1
    assert ranking(0, 1, 1, 0).lrs == 1
    assert ranking(1, 0, 0, 1).alpha == -1
    assert ranking(1, 0, 0, 1).lrs == 0
    assert ranking(0.7, 0.7, 0.3, 0.3).lrs == pytest.approx((1 - math.exp(-1)) / (math.e - math.exp(-1)))  # .2689
    assert robustness(1, 0, 1, 0).ars == 1
    assert robustness(0, 1, 0, 1).ars == 0


@given(unit, unit, unit, unit, unit)
def test_scores_stay_in_the_unit_interval(p: float, q: float, r: float, s: float, weight: float) -> None:
    for score in (ranking(p, q, r, s, weight).lrs, robustness(p, q, r, s, weight).ars):
        assert -1e-12 <= score <= 1 + 1e-12
    assert ranking(p, q, max(r, s), s, weight).lrs >= ranking(p, q, s, s, weight).lrs


@pytest.mark.parametrize("wrong", [45.2, -0.1, math.nan, math.inf])
def test_percentages_are_refused(wrong: float) -> None:
    calls: list[tuple[Any, int]] = [(recovery_ratio, 2), (ranking, 4), (robustness, 4)]
    for call, count in calls:
        for place in range(count):
            values = [0.5] * count
            values[place] = wrong
            with pytest.raises(UsageError, match=r"in \[0, 1\] \(a fraction, not a percentage\)"):
                call(*values)
    for distilled, full in ((wrong, 0.5), (0.5, wrong)):
        with pytest.raises(UsageError, match="a fraction"):
            lossless(Accuracy(mean=distilled, std=0.1, n=2), Accuracy(mean=full, std=0.1, n=2))


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_weights_are_refused(weight: float) -> None:
    with pytest.raises(UsageError, match="^w: "):
        ranking(0.5, 0.5, 0.5, 0.5, weight)
    with pytest.raises(UsageError, match="^gamma: "):
        robustness(0.5, 0.5, 0.5, 0.5, weight)
