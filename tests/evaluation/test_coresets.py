"""Which coreset a set is compared with, and what is said of it, on figures that are written down."""

import pytest

from limbeck.accuracy import Accuracy
from limbeck.evaluation.coresets import Coreset, Coresets, beside, judged
from limbeck.evaluation.statistics import compare, summarise

OWN = (0.50, 0.52, 0.51, 0.53, 0.52)
CLOSE = (0.51, 0.50, 0.52, 0.52, 0.53)
FAR = (0.30, 0.31, 0.33, 0.32, 0.31)


def rows(**values: tuple[tuple[float, ...], float | None]) -> dict[str, Coreset]:
    """Coresets with these test accuracies and this accuracy on validation images."""
    return {
        name: Coreset(accuracy=summarise(test), validation=Accuracy() if val is None else summarise([val, val]))
        for name, (test, val) in values.items()
    }


def test_the_best_on_validation_images_counts_whatever_the_test_images_say() -> None:
    found = beside(summarise(OWN), summarise(FAR), rows(close=(CLOSE, 0.4), far=(FAR, 0.6)))
    assert (found.best, found.chosen_on, found.gain.verdict, found.random.verdict) == ("far", "validation", "better", "better")
    assert found.gain.mean == pytest.approx(compare(OWN, FAR).mean) and found.gain.p == compare(OWN, FAR).p
    assert [answer.partition(":")[0] for _, answer in found.verdicts] == ["yes", "yes"]
    other = beside(summarise(FAR), summarise(FAR), rows(close=(CLOSE, 0.7), far=(FAR, 0.6)))
    assert (other.best, other.gain.verdict, other.random.verdict) == ("close", "worse", "undecided")
    assert [answer.partition(":")[0] for _, answer in other.verdicts] == ["undecided", "no"]
    assert Coresets.from_dict(found.to_dict()) == found


def test_without_validation_images_all_must_be_beaten() -> None:
    assert beside(summarise(OWN), summarise(FAR), rows(far=(FAR, None), near=((0.40,) * 5, None))).gain.verdict == "better"
    found = beside(summarise(OWN), summarise(FAR), rows(far=(FAR, None), close=(CLOSE, None)))
    assert (found.best, found.chosen_on, found.gain.verdict) == ("close", "none", "undecided")
    worse = beside(summarise(FAR), summarise(FAR), rows(close=(CLOSE, None)))
    assert worse.gain.verdict == "undecided" and worse.gain.mean < 0


def test_differences_that_are_all_equal_are_left_to_the_sign_flips() -> None:
    few, many = judged((0.5,) * 3, (0.4,) * 3, "x"), judged((0.5,) * 6, (0.4,) * 6, "x")
    assert (few.p, few.verdict, few.p_exact) == (0.0, "undecided", 0.25) and (many.verdict, many.p_exact) == ("better", 2 / 64)
    assert judged((0.5,), (0.4,), "x").verdict == "undecided"  # one seed decides nothing
