"""Verdicts on made-up numbers, whose tests are known in closed form."""

import math
from collections.abc import Mapping, Sequence

import pytest
from scipy.stats import ttest_1samp

from limbeck.evaluation.statistics import seeds_needed
from limbeck.reproduction.claims import (
    At,
    Claim,
    Finding,
    Part,
    above,
    above_all,
    control_of,
    gains_more,
    judge,
    least_effect,
    with_control,
)
from limbeck.reproduction.claims import first as at_first
from limbeck.reproduction.claims import last as at_last

A, B = At("a"), At("b")


def claim(name: str = "better", parts: int = 1) -> Claim:
    return Claim(name, "a", "A is better than B.", (above(A, B),) * parts)


def judged(*parts: Sequence[float]) -> Finding:
    """The verdict on one claim of these sums."""
    (found,) = judge([(claim(), [(f"part {k}", dict(enumerate(sums))) for k, sums in enumerate(parts)])])
    return found


def test_a_clear_effect_confirms_and_the_same_turned_round_contradicts() -> None:
    sums = [0.03, 0.04, 0.05]
    p = float(ttest_1samp(sums, 0).pvalue)
    assert p == pytest.approx(2 / (2 + 48 * 1 + math.sqrt(48 * 50)), rel=0.01)  # of t = √48 with two degrees of freedom
    found = judged(sums)
    assert (found.verdict, found.p, found.p_adjusted) == ("confirmed", pytest.approx(p), pytest.approx(p))
    assert judged([-one for one in sums]).verdict == "contradicted"
    assert judged([0.03, -0.02, 0.01]).verdict == "undecided"


def test_one_run_or_two_decide_nothing() -> None:
    for sums in ([], [0.5], [0.5, 0.51]):
        found = judged(sums)
        assert (found.verdict, found.p) == ("undecided", None)
        assert found.judgement == "undecided: " + ("fewer than 3 seeds of a part are there" if sums else "not measured yet")
    assert judged([0.5, 0.51, 0.52]).verdict == "confirmed"


def test_equal_differences_are_judged_by_sign_flips() -> None:
    """The t-test has no doubt of them; of n sign flips two are as extreme."""
    three, six = judged([0.01] * 3), judged([0.01] * 6)
    assert (three.verdict, three.p) == ("undecided", 2 / 2**3)
    assert (six.verdict, six.p) == ("confirmed", 2 / 2**6)
    assert judged([0.0] * 6).verdict == "undecided"


def test_all_parts_must_hold_and_one_that_is_turned_round_contradicts() -> None:
    clear, weak, against = [0.03, 0.04, 0.05], [0.01, -0.01, 0.02], [-0.03, -0.031, -0.032]
    assert judged(clear, clear).verdict == "confirmed"
    both = judged(clear, weak)
    assert (both.verdict, both.p) == ("undecided", pytest.approx(ttest_1samp(weak, 0).pvalue))
    turned = judged(clear, against)
    assert (turned.verdict, turned.p) == ("contradicted", pytest.approx(2 * ttest_1samp(against, 0).pvalue))
    assert judged(clear, [-one for one in weak]).verdict == "undecided"
    assert judged(clear, [0.5]).verdict == "undecided"


def test_claims_of_an_item_are_adjusted_together_and_controls_apart() -> None:
    sums = {seed: 0.03 + 0.005 * seed for seed in range(3)}
    alone = judge([(claim(), [("part", sums)])])[0]
    assert alone.p is not None
    two = judge([(claim("one"), [("part", sums)]), (claim("two"), [("part", sums)])])
    assert [one.p_adjusted for one in two] == [pytest.approx(2 * alone.p)] * 2
    with_unknown = judge([(claim("one"), [("part", sums)]), (claim("two"), [("part", {})])])
    assert with_unknown[0].p_adjusted == pytest.approx(2 * alone.p)  # it will be two
    assert (with_unknown[1].p, with_unknown[1].p_adjusted) == (None, None)
    wider = {0: 0.02, 1: 0.03, 2: 0.04}
    assert 0.025 < float(ttest_1samp(list(wider.values()), 0).pvalue) < 0.05
    beside = [judge([(claim("one"), [("part", wider)]), *more])[0].verdict for more in ([], [(claim("two"), [("part", {})])])]
    assert beside == ["confirmed", "undecided"]
    assert judge([(claim(), [("part", sums)])], control=True)[0].control


def test_seeds_that_would_decide_are_those_of_the_weakest_part() -> None:
    strong, weak = [0.03, 0.05, 0.02], [0.01, -0.005, 0.02]
    alone, both = judged(weak).seeds_needed, judged(strong, weak).seeds_needed
    assert alone is not None and alone > 3
    assert both == alone
    assert f"{alone} seeds would decide" in judged(weak).judgement
    assert judged([0.03, 0.04, 0.05]).seeds_needed is None


def test_seeds_that_would_contradict_are_those_of_the_clearest_part_against() -> None:
    """p is then the least among those against, times the number of parts."""
    strong, against = [0.03, 0.05, 0.02], [-0.01, 0.005, -0.02]
    alone = judged(against)
    assert alone.seeds_needed == judged([-one for one in against]).seeds_needed is not None
    assert alone.judgement == f"undecided; {alone.seeds_needed} seeds would decide"
    both = judged(strong, against)
    assert both.seeds_needed == seeds_needed(against, [0.0] * 3, level=0.05 / 2)
    assert judged(strong, against, [-0.001, 0.02, -0.02]).seeds_needed == seeds_needed(against, [0.0] * 3, level=0.05 / 3)
    assert judged(strong, [0.01, -0.01, 0.0]).seeds_needed is None  # what is nothing on average points nowhere


def test_without_spread_as_many_seeds_would_decide_as_the_sign_flips_take() -> None:
    """Of n flips the least p is 2^{1−n}: 1/16 with five seeds, 1/32 with six; of two claims 1/64 is the first below 0.025."""
    assert judged([0.01] * 5).judgement == judged([-0.01] * 5).judgement == "undecided; 6 seeds would decide"
    assert judged([0.0] * 5).seeds_needed is None
    sums = dict(enumerate([0.01] * 5))
    two = judge([(claim("one"), [("part", sums)]), (claim("two"), [("part", sums)])])
    assert [one.seeds_needed for one in two] == [7, 7]


def test_more_seeds_than_are_counted_are_said_to_be_more() -> None:
    found = judged([1.0, -1.0, 1e-4])
    assert found.seeds_needed == 10**6
    assert found.judgement == "undecided; more than 1000000 seeds would decide"


def test_the_least_effect_is_the_one_whose_p_is_the_level() -> None:
    effects = {(n, m): least_effect(n, m) for n, m in [(3, 1), (3, 2), (3, 3), (3, 8), (5, 8)]}
    assert {key: round(value, 2) for key, value in effects.items() if value} == {
        (3, 1): 2.48,
        (3, 2): 3.58,
        (3, 3): 4.42,
        (3, 8): 7.27,
        (5, 8): 2.35,
    }
    for (n, m), effect in effects.items():
        assert effect is not None
        spread = [k - (n - 1) / 2 for k in range(n)]
        std = math.sqrt(sum(one**2 for one in spread) / (n - 1))
        assert m * ttest_1samp([one + effect * std for one in spread], 0).pvalue == pytest.approx(0.05)
    assert least_effect(2, 1) is None


def test_a_claim_in_doubt_is_not_decided_and_counts_among_the_others() -> None:
    sums = {seed: 0.03 + 0.005 * seed for seed in range(3)}
    alone = judge([(claim(), [("part", sums)])])[0]
    claims = [(claim(name), [("part", sums)]) for name in ("one", "two")]
    one, two = judge(claims, doubts={"one": "no measure: so it is"})
    assert (one.verdict, one.p, one.judgement) == ("undecided", None, "undecided: no measure: so it is")
    assert alone.p is not None and two.p_adjusted == pytest.approx(2 * alone.p)


def test_a_claim_goes_to_its_control() -> None:
    made = Claim("x", "a", "EDF is better than DATM.", (above(At("edf"), At("datm")),))
    found = with_control(made, {"edf": control_of("edf")})
    assert found is not None
    assert [at.row for _, at in found.parts[0].terms] == ["edf (norm matched)", "datm"]
    assert with_control(made, {"other": "x"}) is None
    assert with_control(Claim("x", "a", "", made.parts, controlled=False), {"edf": "m"}) is None


def value(part: Part, values: Mapping[tuple[str, str], float]) -> float:
    return sum(weight * values[at.row, at.size] for weight, at in part.terms)


def test_parts_are_the_sums_that_they_say() -> None:
    values = {
        ("a", "first"): 1.0,
        ("b", "first"): 0.5,
        ("a", "last"): 4.0,
        ("b", "last"): 2.0,
        ("a", "each"): 3.0,
        ("b", "each"): 1.0,
    }
    assert value(above(A, B), values) == 2.0
    assert value(gains_more(A, B, at_last, at_first, "gain"), values) == (4.0 - 2.0) - (1.0 - 0.5)
    (part,) = above_all([at_first(A), at_last(A)], [B], "both")
    assert value(part, values) == 2.5 - 1.0
    assert above(A, B).said == "a − b"
    assert above(at_first(A), at_last(A)).said == "a (first) − a (last)"


def test_a_finding_goes_to_json_and_back() -> None:
    found = judged([0.03, 0.04, 0.05], [0.01, 0.02, -0.01])
    assert Finding.from_dict(found.to_dict()) == found
    assert "A is better than B: undecided" in str(found)
