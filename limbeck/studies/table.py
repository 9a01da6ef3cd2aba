"""Methods side by side: one section for every number of images per class and every network.

    a_s   accuracy at distillation seed s, itself the mean over the evaluation's seeds
    row   ā ± t_{0.975, n−1} · std(a) / √n over the n distillation seeds
    c_s   likewise of the best coreset, where coresets were asked for: that of highest mean accuracy on validation images beside the
          method; a_s − c_s is adjusted for the number of methods
    d_s   a_s − b_s to the first method, from the seeds that both have: interval, p of the paired t-test, adjusted by Holm for the
          number of differences in the section; where it does not decide, how many seeds would, at the level divided by that

Networks evaluated for one distilled set share that set, so that their spread says nothing about another run of the method: only
distillation seeds count as repetitions.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from limbeck.accuracy import BEST_ON_TEST, Accuracy, Comparison
from limbeck.evaluation.coresets import SAID
from limbeck.evaluation.scores import Doubt, told
from limbeck.evaluation.statistics import over_seeds, summarise
from limbeck.runtime.errors import UsageError, reason, require
from limbeck.runtime.files import read_json
from limbeck.runtime.notices import by_kind
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import FileKind
from limbeck.runtime.tables import Grid, Page
from limbeck.studies.cells import COMPARED, CellRecord
from limbeck.studies.cost import Cost, mean
from limbeck.studies.judging import Held, Pair, coresets, differences, to_coresets

REFERENCES = {"random": "random real images", "full": "full data"}
COMPARISON = FileKind("comparison")
HEAD = ("method", "accuracy, %", "seeds", "to the first, points", "p (Holm)", "", "cosine, norm", "skipped", "distil", "memory")
SHORT = (0, 1, 2, 6, 7, 8, 9)  # which of these a terminal shows; differences follow in lines of their own


@dataclass(frozen=True, kw_only=True)
class Row(Record):
    """A method.

    Args:
        method: what it is called.
        recipe: of its first cell.
        accuracy: over distillation seeds.
        seeds: those, in order.
        recovery_ratio: mean ratio to the full data's accuracy.
        cost: what its cells took.
        comparison: means of `cosine` and `norm_ratio` beside the plain gradient; empty where nothing was compared.
        skipped_share: of the iterations that changed nothing.
        step_sizes: how its cells came by theirs, in words.
    """

    method: str
    recipe: str | None = None
    accuracy: Accuracy
    seeds: tuple[int, ...] = ()
    recovery_ratio: float | None = None
    cost: Cost = Cost()
    comparison: Mapping[str, float] = field(default_factory=dict)
    skipped_share: float | None = None
    step_sizes: tuple[str, ...] = ()

    LEFT_OUT: ClassVar = ("step_sizes",)
    AMONG: ClassVar = ("cost",)

    @property
    def gradient_text(self) -> str:
        """Cosine and norm beside the plain gradient."""
        found = self.comparison
        return f"{found['cosine']:.3f}, × {found['norm_ratio']:.2f}" if {*COMPARED} <= found.keys() else "–"

    def words(self, difference: Comparison | None) -> tuple[str, ...]:
        """Under `HEAD`, with the difference to the first method."""
        p = "–" if difference is None or difference.p_adjusted is None else f"{difference.p_adjusted:.3g}"
        against = ("–", "–", "") if difference is None else (difference.points, p, difference.judgement)
        skipped = "–" if self.skipped_share is None else f"{100 * self.skipped_share:.0f} %"
        cost = (self.cost.time_text, self.cost.memory_text)
        return (self.method, self.accuracy.with_margin, str(self.accuracy.n), *against, self.gradient_text, skipped, *cost)


@dataclass(frozen=True, kw_only=True)
class Section(Record):
    """Methods with as many images per class, under one network.

    Args:
        ipc: images per class.
        network: empty where each was evaluated with its own.
        rows: in the order of the methods.
        reference: accuracies of `random` real images and of the `full` data, from the first method's cells.
        differences: of every other method to the first.
        pairs: those asked for by name, adjusted for their own number only.
        coresets: accuracies by name, from the first method's cells.
        beside: of every method to the coreset that is best beside it, chosen on validation images.
    """

    ipc: int
    network: str
    rows: tuple[Row, ...]
    reference: Mapping[str, Accuracy] = field(default_factory=dict)
    differences: tuple[Comparison, ...] = ()
    pairs: tuple[Comparison, ...] = ()
    coresets: Mapping[str, Accuracy] = field(default_factory=dict)
    beside: tuple[Comparison, ...] = ()

    LEFT_OUT: ClassVar = ("coresets", "beside")

    @property
    def against_coresets(self) -> tuple[str, ...]:
        """Whether every method beats the best coreset, a sentence each."""
        return tuple(f"beats the best coreset? {SAID[one.verdict or 'undecided']}: {one}" for one in self.beside)

    @property
    def standing(self) -> dict[str, Accuracy]:
        """What stands beside the methods, in words."""
        coresets = {f"coreset: {name}": found for name, found in self.coresets.items()}
        return {**{REFERENCES[kind]: found for kind, found in self.reference.items()}, **coresets}

    @property
    def title(self) -> str:
        """Such as `1 image per class, ConvNetD3`."""
        return images_text(self.ipc) + (f", {self.network}" if self.network else "")

    @property
    def _shown(self) -> dict[str, Accuracy]:
        return {**{row.method: row.accuracy for row in self.rows}, **self.standing}

    @property
    def failures(self) -> tuple[str, ...]:
        """Whose networks diverged while they were trained, and how many, a sentence each."""
        return tuple(f"{name}: {one.failure}" for name, one in self._shown.items() if one.failure)

    @property
    def below(self) -> tuple[str, ...]:
        """What stands below the table when it is shown: `failures` as warnings, and what is `said`."""
        return (*(f"warning: {one}" for one in self.failures), *self.said)

    @property
    def said(self) -> tuple[str, ...]:
        """What must be said of the accuracies: those that are best on the test images themselves, and step sizes."""
        of = [(name, one.best_on_test) for name, one in self._shown.items()]
        best = ", ".join(f"{name} {one.with_margin}" for name, one in of if one is not None)
        return (*([f"{BEST_ON_TEST}, %: {best}"] if best else []), *self.step_sizes)

    @property
    def step_sizes(self) -> tuple[str, ...]:
        """How networks came by their step sizes, in a line, where that is said."""
        of: dict[str, list[str]] = {}
        for row in self.rows:
            for origin in row.step_sizes:
                of.setdefault(origin, []).append(row.method)
        for kind, found in self.reference.items():
            if found.lr_from:
                of.setdefault(found.origin, []).append(REFERENCES[kind])
        said = "; ".join(f"{', '.join(names)}: {origin}" for origin, names in of.items())
        return (f"step sizes: {said}",) if said else ()

    def words(self) -> list[tuple[str, ...]]:
        """A head, a row for every method, and those that stand beside."""
        to_first = {one.a: one for one in self.differences}
        rows = [row.words(to_first.get(row.method)) for row in self.rows]
        beside = [(kind, found.with_margin, str(found.n), *[""] * (len(HEAD) - 3)) for kind, found in self.standing.items()]
        return [HEAD, *rows, *beside]


@dataclass(frozen=True, kw_only=True)
class Table(Record):
    """A comparison: its sections, and what must be known of them.

    Args:
        title: what is compared, and on which data.
        data: their source.
        seeds: of the distillations.
        sections: by number of images per class, then by network, the one most cells distilled for first.
        notes: of how the methods' settings differ.
        doubts: what speaks against the full data's accuracies as measures.
        failed: the last words of cells that failed, by name.
        left: the names of those that are to be run yet.
        paths: of the files written.

    Example:
        >>> empty = Table(title="edf on photos/", data="photos/", seeds=(0, 1), sections=())
        >>> Table.from_dict(empty.to_dict()) == empty
        True
    """

    title: str
    data: str
    seeds: tuple[int, ...] = ()
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)

    LEFT_OUT: ClassVar = ("doubts",)
    CALLED: ClassVar = {"sections": "tables"}

    @property
    def ipc(self) -> int:
        """Images per class of the first section, as the rest below."""
        return self.sections[0].ipc

    @property
    def network(self) -> str:
        """The network that the sets were distilled for."""
        return self.sections[0].network

    @property
    def rows(self) -> tuple[Row, ...]:
        """A row for every method."""
        return self.sections[0].rows

    @property
    def reference(self) -> Mapping[str, Accuracy]:
        """Random real images and the full data."""
        return self.sections[0].reference

    @property
    def differences(self) -> tuple[Comparison, ...]:
        """Of every other method to the first."""
        return self.sections[0].differences

    @property
    def pairs(self) -> tuple[Comparison, ...]:
        """Those that were asked for by name."""
        return self.sections[0].pairs

    def __getitem__(self, method: str) -> Row:
        """The row of that method.

        Raises:
            KeyError: where there is none.
        """
        return {row.method: row for section in self.sections[:1] for row in section.rows}[method]

    @classmethod
    def read(cls, path: str | Path) -> "Table":
        """The comparison of a `comparison.json`, or of the folder that holds one.

        Raises:
            UsageError: when the file is not what was written.
        """
        place = Path(path)
        file = place / "comparison.json" if os.path.isdir(place) else place
        try:
            return cls.from_dict(read_json(file, COMPARISON))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            advice = "`limbeck compare` with the same words writes it anew from its cells"
            raise UsageError(f"path: {str(file)!r} is no comparison ({reason(error)}); {advice}") from error

    def table(self) -> "Table":
        """Itself, which shows itself wherever it is printed."""
        return self

    @property
    def markdown(self) -> str:
        """All of it as Markdown."""
        lines = [f"# {self.title}", ""]
        for section in self.sections:
            lines += [f"## {section.title}", "", *Grid.of(section.words()).markdown, ""]
            said = [*map(str, section.pairs), *section.against_coresets, *section.below]
            lines += [f"- {one}" for one in said] + ([""] if said else [])
        return "\n".join([*lines, *ending(self.notes, self.failed, self.left, self.doubts)]).rstrip() + "\n"

    def lines(self) -> Iterator[str | Grid]:
        """What a terminal shows: tables and sentences."""
        for section in self.sections:
            rows = [[words[at].partition(" (")[0] if at == 8 else words[at] for at in SHORT] for words in section.words()]
            yield Grid.of(rows, section.title)
            yield from (str(one) for one in section.differences)
            yield from (f"asked for: {one}" for one in section.pairs)
            yield from section.against_coresets
            yield from section.below
        yield from remarks(self.notes, self.failed, self.left, self.doubts)

    def __str__(self) -> str:
        """What a terminal of a hundred columns shows."""
        return str(Page(tuple(self.lines()), width=100))

    def _repr_html_(self) -> str:
        """For a notebook."""
        parts: list[str | Grid] = []
        for one in self.sections:
            parts += [Grid.of(one.words(), one.title), *map(str, one.pairs), *one.against_coresets, *one.below]
        return Page((*parts, *remarks(self.notes, self.failed, self.left, self.doubts)))._repr_html_()


def tabulate(records: Sequence[CellRecord], pairs: Sequence[Pair] = ()) -> tuple[Section, ...]:
    """A section for every number of images per class and every network that all cells of it were evaluated with.

    Args:
        records: of finished cells, with the facts `method`, `ipc` and `seed`; methods in the order of their first cells.
        pairs: methods (a, b) of whose difference a − b a verdict is asked for by itself, named before anything was seen. Those of
            methods without a finished cell wait.

    Raises:
        UsageError: when a pair is one method with itself.
    """
    for a, b in pairs:
        require(a != b, "pairs", (a, b), "a pair of two different methods")
    sections = []
    for ipc in sorted({record.facts["ipc"] for record in records}):
        held: dict[str, dict[int, CellRecord]] = {}
        for record in records:
            if record.facts["ipc"] == ipc:
                held.setdefault(record.facts["method"], {})[record.facts["seed"]] = record
        for network in _networks([record for cells in held.values() for record in cells.values()]):
            sections.append(_section(ipc, network, held, pairs))
    return tuple(sections)


def images_text(ipc: int) -> str:
    """Such as `1 image per class`."""
    return f"{ipc} image{'' if ipc == 1 else 's'} per class"


def ending(notes: Sequence[str], failed: Mapping[str, str], left: Sequence[str], doubts: Sequence[Doubt] = ()) -> list[str]:
    """The last lines of Markdown of a grid's results."""
    notes = [*notes, *(f"warning: {one}" for one in told(doubts))]
    lines = [*(f"- {note}" for note in notes), *([""] if notes else [])]
    lines += [f"- failed: {line}" for line in by_kind(failed)]
    return lines + ([f"cells to be run yet ({len(left)}): {', '.join(left)}"] if left else [])


def remarks(notes: Sequence[str], failed: Mapping[str, str], left: Sequence[str], doubts: Sequence[Doubt] = ()) -> Iterator[str]:
    """The same for a terminal."""
    yield from (f"note: {note}" for note in notes)
    yield from (f"warning: {one}" for one in told(doubts))
    yield from (f"failed: {line}" for line in by_kind(failed))
    if left:
        yield f"cells to be run yet: {len(left)}; the same command goes on"


def _section(ipc: int, network: str, held: Held, pairs: Sequence[Pair]) -> Section:
    first = next(iter(held))
    beside = [record.under(network) for record in held[first].values()]
    reference = {}
    for kind in REFERENCES:
        known = [accuracies[kind] for accuracies in beside if accuracies[kind].known]
        if known:
            # The networks of the full data are the same for all seeds: one measurement, however often it is read.
            measured = over_seeds(known if kind == "random" else list({one.mean: one for one in known}.values()))
            measured = replace(measured, lr_from=known[0].lr_from, lr_tried=known[0].lr_tried)
            reference[kind] = replace(measured, best_on_test=_best_of(known))
    return Section(
        ipc=ipc,
        network=network,
        rows=tuple(_row(method, network, cells) for method, cells in held.items()),
        reference=reference,
        differences=differences([(method, first) for method in held if method != first], network, held),
        pairs=differences([pair for pair in pairs if held.keys() >= set(pair)], network, held),
        coresets=coresets(network, held[first]),
        beside=to_coresets(network, held),
    )


def _row(method: str, network: str, cells: Mapping[int, CellRecord]) -> Row:
    records = [cells[seed] for seed in sorted(cells)]
    shown = [record.under(network) for record in records]
    distilled = [one.distilled for one in shown]
    compared = {name: [one.comparison[name] for one in records if name in one.comparison] for name in COMPARED}
    return Row(
        method=method,
        recipe=records[0].recipe,
        accuracy=replace(over_seeds(distilled), best_on_test=_best_of(distilled)),
        seeds=tuple(sorted(cells)),
        recovery_ratio=mean([one.distilled.mean / one.full.mean for one in shown if one.full.known and one.full.mean]),
        cost=Cost.of(records),
        comparison={name: math.fsum(found) / len(found) for name, found in compared.items() if found},
        skipped_share=mean([record.skipped_share for record in records if record.skipped_share is not None]),
        step_sizes=tuple(dict.fromkeys(one.distilled.origin for one in shown if one.distilled.lr_from)),
    )


def _best_of(found: Sequence[Accuracy]) -> Accuracy | None:
    """Over distillation seeds, what was best on the test images; None unless all of them say it."""
    means = [one.test_mean for one in found if one.test_mean is not None]
    return summarise(means) if means and len(means) == len(found) else None


def _networks(records: Sequence[CellRecord]) -> list[str]:
    """The networks that every cell was evaluated with, the one most cells distilled for first."""
    own = [record.network for record in records]
    named = [{record.network, *record.networks} for record in records]
    order = sorted(dict.fromkeys(own), key=own.count, reverse=True)
    order += [name for record in records for name in record.networks if name not in order]
    shared = [name for name in dict.fromkeys(order) if all(name in names for names in named)]
    # Methods that were evaluated with no network in common stand side by side all the same: each with its own.
    return shared or [""]
