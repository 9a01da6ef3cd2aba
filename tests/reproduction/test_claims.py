"""Verdicts on made-up numbers, whose tests are known in closed form."""

import math
from collections.abc import Mapping, Sequence

import pytest
from scipy.stats import ttest_1samp

from limbeck.reproduction.claims import At, Claim, Finding, Part, above, above_all, control_of, gains_more, judge, with_control
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
        assert "fewer than 3 seeds" in found.judgement
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
    assert judged(weak, [-one for one in strong]).seeds_needed is None  # no number of seeds is known to turn it round


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
