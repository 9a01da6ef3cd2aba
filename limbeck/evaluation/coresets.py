"""A small set beside coresets, real images chosen as well as is known: which of them is best, and whether the set beats that one.

    best      of the coresets that of highest mean accuracy on validation images, over the networks that are compared then
    verdict   paired by seed on the test images, d_s = a_s − b_s to the best: better or worse where p ≤ 0.05 (t-test; sign flips
              where all differences are equal), else undecided. The test images had no say in the choice: it is one test

Without validation images nothing can be chosen that is not tested: then a set is better where it is better than every coreset, each
at that level, which is a test at that level, too (R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", 1982),
and never worse; the one named is that of highest p.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from limbeck.accuracy import Accuracy, Comparison
from limbeck.evaluation.statistics import compare, deciding_p, seeds_needed
from limbeck.runtime.records import Record

LEVEL = 0.05  # of p, at which verdicts are given here and in studies
SAID = {"better": "yes", "worse": "no", "undecided": "undecided"}


@dataclass(frozen=True, kw_only=True)
class Coreset(Record):
    """Accuracies of networks that were trained on one coreset: on the test images, and where there are any on validation images."""

    accuracy: Accuracy
    validation: Accuracy = Accuracy()

    LEFT_OUT: ClassVar = ("validation",)


@dataclass(frozen=True, kw_only=True)
class Coresets(Record):
    """Coresets beside a set.

    Args:
        rows: by name.
        best: the name of the one that the set is compared with.
        chosen_on: `validation` images, or `none` where there are none.
        gain: the set against that one, paired by seed, with a verdict.
        random: the set against random images, likewise.
    """

    rows: Mapping[str, Coreset]
    best: str
    chosen_on: Literal["validation", "none"]
    gain: Comparison
    random: Comparison

    @property
    def verdicts(self) -> Iterator[tuple[str, str]]:
        """Question and answer: whether the set beats random images, and whether it beats the best coreset."""
        yield "beats random images?", _answer(self.random)
        how = "the best on validation images" if self.chosen_on == "validation" else "of all of them the hardest to tell from"
        yield f"beats the best coreset? ({self.best}, {how})", _answer(self.gain)


def beside(distilled: Accuracy, random: Accuracy, rows: Mapping[str, Coreset]) -> Coresets:
    """A set beside coresets whose networks have the same seeds.

    Raises:
        ValueError: when they have not as many.
    """
    against = {name: judged(distilled.values, row.accuracy.values, name) for name, row in rows.items()}
    if all(row.validation.known for row in rows.values()):
        best = max(rows, key=lambda name: rows[name].validation.mean)
        found, chosen_on = against[best], "validation"
    else:
        # Of coresets that the set does not beat, one that it does not beat; else the one where that is least certain.
        best = min(against, key=lambda name: (against[name].verdict == "better", -deciding_p(against[name]), against[name].mean))
        found, chosen_on = against[best], "none"
        if found.verdict != "better":
            found = replace(found, verdict="undecided")
    return Coresets(
        rows=rows,
        best=best,
        chosen_on="validation" if chosen_on == "validation" else "none",
        gain=found,
        random=judged(distilled.values, random.values, "random"),
    )


def judged(a: Sequence[float], b: Sequence[float], name: str) -> Comparison:
    """A set's a − b, that of `name`, paired, with a verdict: better, worse or undecided."""
    found = replace(compare(a, b), a="distilled", b=name)
    decided = found.n > 1 and deciding_p(found) <= LEVEL
    verdict = ("better" if found.mean > 0 else "worse") if decided else "undecided"
    return replace(found, verdict=verdict, seeds_needed=None if decided or not found.std else seeds_needed(a, b))


def _answer(found: Comparison) -> str:
    return (
        f"{SAID[found.verdict or 'undecided']}: {found.points} points, 95 % interval, p = {deciding_p(found):.2g}, {found.n} seeds"
    )
