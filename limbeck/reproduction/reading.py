"""What is read of an item's finished cells: the rows of its table, and the sums that its claims are about.

A claim is tested where all of its rows have cells: a part at `each` number of images per class only at those that they all run at,
and one at a number that the scale does not have, or at which a row is not run, nowhere.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from limbeck.accuracy import Accuracy
from limbeck.evaluation.scores import FULL_DATA, Doubt, joined
from limbeck.evaluation.statistics import summarise
from limbeck.reproduction.claims import At, Claim, Sums
from limbeck.reproduction.claims import Part as Sum
from limbeck.reproduction.item import Item
from limbeck.reproduction.measures import Measured
from limbeck.reproduction.results import Line
from limbeck.reproduction.scales import Scale, Spot
from limbeck.reproduction.values import OF_FULL, title_of, value_of
from limbeck.studies.cells import COMPARED, CellRecord, doubts_of
from limbeck.studies.comp_dd import Part
from limbeck.studies.cost import mean

NO_MEASURE = ("chance", "below random")  # kinds of doubt with which a ratio to the full data says nothing


@dataclass(frozen=True)
class Term:
    """A term of a part at one place of the grid: its weight, what is read, on which sources and at which numbers of images."""

    weight: float
    at: At
    places: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def lines(self) -> list[tuple[str, str, int]]:
        """The rows of the table that it is a mean of."""
        return [(self.at.row, place, ipc) for place in self.places for ipc in self.sizes]


@dataclass(frozen=True)
class Case:
    """A part at one place of the grid.

    Args:
        said: what it is of, with source and number of images per class.
        terms: whose weighted sum it is.
    """

    said: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Grid:
    """The grid of an item at a scale.

    Args:
        scale: how large.
        item: which.
        spots: where its cells stand.
    """

    scale: Scale
    item: Item
    spots: Sequence[Spot]

    @cached_property
    def lines(self) -> dict[tuple[str, str, int], list[Spot]]:
        """The cells of every row of the table, by row, source and number of images per class."""
        found: dict[tuple[str, str, int], list[Spot]] = {}
        for spot in self.spots:
            found.setdefault((spot.row, spot.place.name, spot.ipc), []).append(spot)
        return found

    @property
    def claims(self) -> list[Claim]:
        """Those of the item that can be tested on this grid."""
        return [claim for claim in self.item.claims if any(self.cases(claim))]

    def cases(self, claim: Claim) -> Iterator[Case]:
        """The parts of a claim at every size and place that it is claimed for."""
        for part in claim.parts:
            for case in self._everywhere(part):
                if all(line in self.lines for term in case.terms for line in term.lines):
                    yield case

    def _everywhere(self, part: Sum) -> Iterator[Case]:
        """A part at every size and place, whether all rows have cells there or not."""
        sizes, groups = self.scale.sizes_of(self.item), self.scale.places[self.item.places]
        wide = any(at.place == "each" for _, at in part.terms)
        tall = any(at.size == "each" for _, at in part.terms)
        pooled = any("mean" in (at.size, at.place) for _, at in part.terms)
        for group in groups[:1] if pooled and not wide else groups:
            for place in group if wide else group[:1]:
                for ipc in self.scale.all_sizes_of(self.item) if tall else sizes[:1]:
                    terms = tuple(
                        Term(weight, at, tuple(_places(at, place.name, group, groups)), tuple(self._sizes(at, ipc, sizes)))
                        for weight, at in part.terms
                    )
                    at_all = ["mean"] if pooled else [place.category] if len(groups) > 1 else []
                    where = [place.name] if wide else at_all
                    named = [f"ipc {terms[0].sizes[0]}"] if all(at.size in self.scale.sizes for _, at in part.terms) else []
                    yield Case(", ".join([part.said, *where, *([f"ipc {ipc}"] if tall else named)]), terms)

    def _sizes(self, at: At, each: int, sizes: Sequence[int]) -> list[int]:
        """The numbers of images per class that a term is read at; one that the scale does not have has no cells."""
        named: dict[str, list[int]] = {size: [ipc] for size, ipc in self.scale.sizes.items()}
        named |= {"each": [each], "first": [sizes[0]], "last": [sizes[-1]], "mean": [*sizes]}
        return named.get(at.size, [0])


@dataclass(frozen=True)
class Read:
    """The finished cells of an item, and what is read of them.

    Args:
        grid: of the item.
        results: of its finished cells by name.
        measured: what was measured of these besides, likewise.
    """

    grid: Grid
    results: Mapping[str, CellRecord]
    measured: Mapping[str, Mapping[str, Measured]]

    def value(self, spot: Spot, name: str) -> float | None:
        """A value of a cell; None where it is not known."""
        record = self.results.get(spot.cell.name)
        return None if record is None else value_of(name, record, self.measured[spot.cell.name])

    def values(self, term: Term) -> dict[int, float]:
        """What a term is, by seed: the mean of its rows, of the seeds that have all of them."""
        held = [
            {spot.seed: value for spot in self.grid.lines[line] if (value := self.value(spot, term.at.value)) is not None}
            for line in term.lines
        ]
        return {seed: math.fsum(one[seed] for one in held) / len(held) for seed in held[0] if all(seed in one for one in held)}

    def sums(self, claim: Claim) -> list[tuple[str, Sums]]:
        """The sums of a claim's parts, at every size and place that it is claimed for."""
        found: list[tuple[str, Sums]] = []
        for case in self.grid.cases(claim):
            terms = [(term.weight, self.values(term)) for term in case.terms]
            seeds = sorted(set.intersection(*(set(values) for _, values in terms)))
            found.append((case.said, {seed: total([weight * values[seed] for weight, values in terms]) for seed in seeds}))
        return found

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What speaks against the accuracies of the full data: one of each kind."""
        return doubts_of(self.results)

    def doubt(self, claim: Claim) -> str:
        """Why the accuracy of the full data is no measure in a cell whose ratio to it a claim rests on; empty where it is one."""
        lines = [line for case in self.grid.cases(claim) for term in case.terms if term.at.value in OF_FULL for line in term.lines]
        cells = dict.fromkeys(spot.cell.name for line in lines for spot in self.grid.lines[line])
        found = joined((name, self.results[name].doubts) for name in cells if name in self.results)
        said = [one.text.removeprefix(FULL_DATA) for one in found if one.kind in NO_MEASURE]
        return f"{FULL_DATA}{', '.join(said)}" if said else ""

    def failures(self) -> Iterator[str]:
        """A sentence for every row, and for the full data of every source, of which networks diverged."""
        full: dict[str, Accuracy] = {}
        for (row, place, ipc), spots in self.grid.lines.items():
            records = [self.results[spot.cell.name].accuracy for spot in spots if spot.cell.name in self.results]
            for one in records:
                full[place] = max(full.get(place, one.full), one.full, key=lambda own: own.failed or 0)  # which all seeds share
            lost = {"": [(one.distilled.failed or 0, one.distilled.n or 0) for one in records]}
            for name in self.grid.item.shown:
                measure, _, value = name.partition(".")
                held = [found[measure] for spot in spots if measure in (found := self.measured.get(spot.cell.name, {}))]
                lost[f", {title_of(name).removesuffix(', %')}"] = [one.failed[value] for one in held if value in one.failed]
            yield from (f"{row}, {place}, ipc {ipc}{what}: {said}" for what, found in lost.items() if (said := _lost(found)))
        for place, known in full.items():
            if said := _lost([(known.failed or 0, known.n or 0)]):
                yield f"full data, {place}: {said}"

    def lines(self) -> Iterator[Line]:
        """The rows of the table."""
        for (row, place, ipc), spots in self.grid.lines.items():
            own = [spot for spot in spots if spot.cell.name in self.results]
            records = [self.results[spot.cell.name] for spot in own]
            compared = {name: mean([one.comparison[name] for one in records if name in one.comparison]) for name in COMPARED}
            yield Line(
                row=row,
                place=place,
                ipc=ipc,
                seeds=tuple(spot.seed for spot in own),
                cells=tuple(spot.cell.name for spot in own),
                values={name: self._summary(own, name) for name in dict.fromkeys(("accuracy", *self.grid.item.shown))},
                cosine=compared["cosine"],
                norm_ratio=compared["norm_ratio"],
                skipped_share=mean([one.skipped_share for one in records if one.skipped_share is not None]),
            )

    def series(self) -> dict[str, dict[str, tuple[float, ...]]]:
        """Rows of figures, a mean over the seeds, by row and place at the last size."""
        found: dict[str, dict[str, tuple[float, ...]]] = {}
        last = self.grid.scale.sizes_of(self.grid.item)[-1]
        for (row, place, ipc), own in self.grid.lines.items():
            held = [
                one.series
                for spot in own
                for measure, one in self.measured.get(spot.cell.name, {}).items()
                if ipc == last and measure in self.grid.item.measures
            ]
            for name in held[0] if held else ():
                rows = [one[name] for one in held if name in one and len(one[name]) == len(held[0][name])]
                means = tuple(sum(values) / len(values) for values in zip(*rows, strict=True))
                found.setdefault(f"{row}, {place}", {})[name] = means
        return found

    def _summary(self, own: Sequence[Spot], name: str) -> Accuracy:
        values = [value for spot in own if (value := self.value(spot, name)) is not None]
        return summarise(values) if values else Accuracy()


def _lost(found: Sequence[tuple[int, int]]) -> str:
    """How many networks diverged, and of how many, in words; empty where none did."""
    failed, of = (sum(column) for column in zip(*found, strict=True)) if found else (0, 0)
    return Accuracy(failed=failed, failed_of=of).failure


def total(terms: Sequence[float]) -> float:
    """Of a part; what rounding leaves of values that are equal is nothing, and would have a sign."""
    found = sum(terms)
    return 0.0 if abs(found) < 1e-12 * sum(map(abs, terms)) else found


def _places(at: At, each: str, group: Sequence[Part], groups: Sequence[Sequence[Part]]) -> list[str]:
    """The sources that a term is read on."""
    if at.place == "mean":
        return [one.name for members in groups for one in members]
    return [each] if at.place == "each" else [{one.level: one.name for one in group}[at.place]]
