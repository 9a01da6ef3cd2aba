"""What is claimed of an item, and the test that judges it, stated before anything is run.

    v_s   a value (`values.py`) of one row of an item's grid, at one number of images per class, on one source, of seed s
    part  e_s = Σ_i w_i v_{i,s} over its terms, such as that of EDF − that of DATM; claimed is E e > 0: the paired t-test,
          or the sign flips where all e_s are equal
    claim all of its parts, which must hold together: p = max over the parts (R. L. Berger, "Multiparameter hypothesis testing
          and acceptance sampling", 1982) where every mean is above 0; where one is not, p = min(1, k · min over the parts that
          point the other way) of k parts, the chance that any of them would do so (Bonferroni)
    item  the claims' p, adjusted by Holm for their number; one that has no p yet counts with p = 1

At p ≤ 0.05 a claim is `confirmed` where all means are above 0, and else `contradicted`; otherwise, and where a part has fewer than
three seeds, it is `undecided`. A claim on EDF is judged a second time with the norm of its gradient matched to the plain one: these
controls are adjusted among themselves, and change no verdict.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from limbeck.accuracy import Comparison
from limbeck.evaluation.coresets import LEVEL
from limbeck.evaluation.statistics import MOST_SEEDS, compare, deciding_p, holm, seeds_needed
from limbeck.runtime.records import Record
from limbeck.studies.entrants import MATCHED

LEAST = 3  # seeds; fewer decide nothing
UNMEASURED = "not measured yet"
Size = Literal["small", "middle", "large", "huge"]  # numbers of images per class, as a scale calls them
Verdict = Literal["confirmed", "contradicted", "undecided"]


@dataclass(frozen=True)
class At:
    """A cell of an item's grid, and what is read of it.

    Args:
        row: its label.
        value: of `values.py`; those of a measurement are called `MEASUREMENT.NAME`.
        size: `each` number of images per class of the item by itself, the `first` or `last` of them, the `mean` of all, or one
            that is called so by the scale.
        place: `each` source by itself, the `easy` or the `hard` one of a category, or the `mean` of all sources.
    """

    row: str
    value: str = "accuracy"
    size: Literal["each", "first", "last", "mean"] | Size = "each"
    place: Literal["each", "easy", "hard", "mean"] = "each"


@dataclass(frozen=True)
class Part:
    """A weighted sum of values that is claimed to be above zero.

    Args:
        said: what it is, such as `edf − datm`.
        terms: weights, and of what.
    """

    said: str
    terms: tuple[tuple[float, At], ...]


@dataclass(frozen=True)
class Claim:
    """What the paper says, and what must hold for it.

    Args:
        name: of letters, digits and hyphens, another for each of an item.
        section: the letter of the list of claims that it stands under, or the table or figure that it is of.
        text: a sentence.
        parts: which must all be above zero.
        unit: what an effect of 1 is called: effects of fractions are told in points.
        controlled: whether it is judged again with the norm matched, where it speaks of rows that have such a control.
    """

    name: str
    section: str
    text: str
    parts: tuple[Part, ...]
    unit: Literal["points", "distance"] = "points"
    controlled: bool = True


def above(a: At, b: At, said: str = "") -> Part:
    """That `a` is above `b`."""
    return Part(said or f"{_named(a, b)} − {_named(b, a)}", ((1.0, a), (-1.0, b)))


def above_all(best: Sequence[At], others: Iterable[At], said: str) -> tuple[Part, ...]:
    """That the mean of the best is above each of the others; `said` names the best."""
    first = tuple((1 / len(best), one) for one in best)
    return tuple(Part(f"{said} − {other.row}", (*first, (-1.0, other))) for other in others)


def gains_more(a: At, b: At, where: Callable[[At], At], other: Callable[[At], At], said: str) -> Part:
    """That a − b is larger at one place of the grid than at another."""
    return Part(said, ((1.0, where(a)), (-1.0, where(b)), (-1.0, other(a)), (1.0, other(b))))


def first(one: At) -> At:
    """At the lowest number of images per class."""
    return replace(one, size="first")


def last(one: At) -> At:
    """At the highest number of images per class."""
    return replace(one, size="last")


def middle(one: At) -> At:
    """At what the scale has for the paper's 10 images per class, whichever numbers the item runs over."""
    return replace(one, size="middle")


def many(one: At) -> At:
    """At what the scale has for the paper's 50 images per class, whichever numbers the item runs over."""
    return replace(one, size="large")


def over_places(one: At) -> At:
    """The mean of all sources, for what the paper says of most of them."""
    return replace(one, place="mean")


def over_all(one: At) -> At:
    """The mean of all sources and numbers of images per class."""
    return replace(one, size="mean", place="mean")


def _named(one: At, beside: At) -> str:
    """What a term is called beside another: the row, or what differs where the row does not."""
    if one.row != beside.row:
        return one.row
    told = [own for own, other in zip(_facets(one), _facets(beside), strict=True) if own != other]
    return f"{one.row} ({', '.join(told)})" if told else one.row


def _facets(one: At) -> tuple[str, str, str]:
    return one.value, one.size, one.place


@dataclass(frozen=True, kw_only=True)
class Tested(Record):
    """A part at one number of images per class and on one source, as it was found.

    Args:
        said: what it is of, with size and source.
        effect: the comparison of the sums with zero; None where no seed has all of its values.
    """

    said: str
    effect: Comparison | None = None

    @property
    def enough(self) -> bool:
        """Whether seeds enough have been run for a verdict."""
        return self.effect is not None and self.effect.n >= LEAST

    @property
    def p(self) -> float:
        """Of the test that decides; 1 without one."""
        return 1.0 if self.effect is None or self.effect.p is None else deciding_p(self.effect)

    @property
    def holds(self) -> bool:
        """Whether the mean is above zero."""
        return self.effect is not None and self.effect.mean > 0


@dataclass(frozen=True, kw_only=True)
class Finding(Record):
    """What became of a claim.

    Args:
        claim: its name.
        section: see `Claim`.
        text: the claim.
        verdict: `confirmed`, `contradicted` or `undecided`.
        control: whether EDF's gradient had the plain one's norm.
        unit: of effects.
        p: of all parts together; None as long as one has too few seeds.
        p_adjusted: for the number of the item's claims.
        seeds_needed: how many would decide, as far as they are counted; None where they do, or no number is known to.
        parts: which it rests on.
        doubt: why nothing that it rests on is a measure; empty where nothing speaks against it.
    """

    claim: str
    section: str
    text: str
    verdict: Verdict = "undecided"
    control: bool = False
    unit: Literal["points", "distance"] = "points"
    p: float | None = None
    p_adjusted: float | None = None
    seeds_needed: int | None = None
    parts: tuple[Tested, ...] = field(default_factory=tuple)
    doubt: str = ""

    LEFT_OUT: ClassVar = ("parts", "doubt")

    @property
    def judgement(self) -> str:
        """The verdict, and what would decide where it is open."""
        if self.verdict != "undecided":
            return self.verdict
        if self.doubt:
            return f"undecided: {self.doubt}"
        if any(one.effect is None for one in self.parts):
            return f"undecided: {UNMEASURED}"
        if any(not one.enough for one in self.parts):
            return f"undecided: fewer than {LEAST} seeds of a part are there"
        return "undecided" + (f"; {seeds_text(self.seeds_needed)} would decide" if self.seeds_needed else "")

    @property
    def effects(self) -> tuple[str, ...]:
        """Every part with its mean, interval and number of seeds."""
        return tuple(f"{one.said}: {effect_text(one.effect, self.unit)}" for one in self.parts)

    def __str__(self) -> str:
        """The claim, the verdict and what it rests on, in a line."""
        named = self.text.rstrip(".") + (" (norm matched)" if self.control else "")
        p = "" if self.p_adjusted is None else f", p {self.p_adjusted:.3g} (Holm)"
        effects = [f"{one.said}: {effect_text(one.effect, self.unit)}" for one in self.parts if one.effect is not None]
        return f"{named}: {self.judgement}{p}" + (f" ({'; '.join(effects)})" if effects else "")


def effect_text(effect: Comparison | None, unit: str) -> str:
    """An effect with its interval and its seeds."""
    if effect is None:
        return UNMEASURED
    seeds = f"{effect.n} seed{'' if effect.n == 1 else 's'}"
    if unit == "points":
        return f"{effect.points} points, {seeds}"
    ends = "" if effect.ci95 is None else " [{:+.3g}, {:+.3g}]".format(*effect.ci95)
    return f"{effect.mean:+.3g}{ends}, {seeds}"


def seeds_text(needed: int) -> str:
    """So many seeds, or more than are counted."""
    return f"more than {needed} seeds" if needed >= MOST_SEEDS else f"{needed} seeds"


def least_effect(seeds: int, claims: int) -> float | None:
    """The least mean, in standard deviations of the differences, with which so many seeds decide one of so many claims for sure:

        t_{1 − 0.05 / 2m, n−1} / √n  of n seeds and m claims

    None where there are too few seeds for any verdict.
    """
    from scipy.stats import t

    return None if seeds < LEAST else float(t.isf(LEVEL / max(1, claims) / 2, seeds - 1)) / math.sqrt(seeds)


Sums = Mapping[int, float]  # of a part, by seed
Judged = tuple[Claim, Sequence[tuple[str, Sums]]]  # a claim with its parts where they were measured


def judge(claims: Sequence[Judged], *, control: bool = False, doubts: Mapping[str, str] = {}) -> tuple[Finding, ...]:
    """The verdicts on the claims of an item.

    Args:
        claims: each with its parts where they were measured: what each is of, and its sum for every seed.
        control: whether these are the controls.
        doubts: of claims by name, why nothing that they rest on is a measure; such a claim is not decided.
    """
    level = LEVEL / max(1, len(claims))
    found = [_finding(claim, sums, level, control, doubts.get(claim.name, "")) for claim, sums in claims]
    adjusted = holm([1.0 if one.p is None else one.p for one in found])  # no verdict may wait for others to be run
    return tuple(one if one.p is None else _judged(one, p) for one, p in zip(found, adjusted, strict=True))


def _finding(claim: Claim, sums: Sequence[tuple[str, Sums]], level: float, control: bool, doubt: str) -> Finding:
    """A claim with its p, not judged yet; one in doubt has none."""
    parts = tuple(_tested(said, by_seed) for said, by_seed in sums)
    found = Finding(
        claim=claim.name, section=claim.section, text=claim.text, unit=claim.unit, control=control, parts=parts, doubt=doubt
    )
    if doubt or not parts or not all(one.enough for one in parts):
        return found
    if all(one.holds for one in parts):
        needed = [_needed(by_seed, level) for _, by_seed in sums]
        known = None if None in needed else max(seeds for seeds in needed if seeds is not None)
        return replace(found, p=max(one.p for one in parts), seeds_needed=known)
    against = [
        (one.p, _needed(by_seed, level / len(parts))) for one, (_, by_seed) in zip(parts, sums, strict=True) if not one.holds
    ]
    fewest = min((seeds for _, seeds in against if seeds is not None), default=None)
    return replace(found, p=min(1.0, len(parts) * min(p for p, _ in against)), seeds_needed=fewest)


def _tested(said: str, by_seed: Sums) -> Tested:
    if not by_seed:
        return Tested(said=said)
    seeds = tuple(sorted(by_seed))
    sums = [by_seed[seed] for seed in seeds]
    return Tested(said=said, effect=replace(compare(sums, [0.0] * len(sums)), seeds=seeds))


def _needed(by_seed: Sums, level: float) -> int | None:
    """How many seeds would decide a part at that level, whichever way it points."""
    sums = list(by_seed.values())
    found = compare(sums, [0.0] * len(sums))
    if found.std == 0:  # the sign flips decide then, whose p is 2^{1−n} at the least
        return max(LEAST, 1 + math.ceil(-math.log2(level))) if found.mean else None
    needed = seeds_needed(sums, [0.0] * len(sums), level=level)
    return None if needed is None else max(LEAST, needed)


def _judged(found: Finding, p: float) -> Finding:
    """A finding under its adjusted p."""
    if p > LEVEL:
        return replace(found, p_adjusted=p)
    verdict: Verdict = "confirmed" if all(one.holds for one in found.parts) else "contradicted"
    return replace(found, p_adjusted=p, verdict=verdict, seeds_needed=None)


def with_control(claim: Claim, controlled: Mapping[str, str]) -> Claim | None:
    """The claim about the controls of its rows; None where it has none.

    Args:
        claim: of an item.
        controlled: the labels of controls by those of their rows.
    """
    rows = {at.row for part in claim.parts for _, at in part.terms}
    if not claim.controlled or not rows & controlled.keys():
        return None
    parts = tuple(
        Part(part.said, tuple((weight, replace(at, row=controlled.get(at.row, at.row))) for weight, at in part.terms))
        for part in claim.parts
    )
    return replace(claim, parts=parts)


def control_of(row: str) -> str:
    """What the control of a row is called."""
    return f"{row}{MATCHED}"
