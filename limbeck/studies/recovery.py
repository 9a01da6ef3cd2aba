"""Accuracies and recovery ratios over levels of difficulty, and whether the ratio falls from level to level.

    a_s   accuracy of one method on one subset at distillation seed s        f   that of the full data of the subset
    r_s   = a_s / f, the recovery ratio
    cell  ā ± t_{0.975, n−1} · std(a) / √n over the n distillation seeds; the same of r
    step  r of a level − r of the next harder one of the same category: the paired t-test where at least two seeds are shared,
          else Welch's test
    order p = max over its steps, all of which must hold (R. L. Berger, "Multiparameter hypothesis testing and acceptance
          sampling", 1982), 1 where they point both ways; adjusted by Holm for the number of orders in a table

At p ≤ 0.05 an order `holds` or, downwards, is `reversed`; else it is `undecided`. f is measured once for each subset, by several
networks: its error is common to all seeds and in no interval.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

from limbeck.accuracy import MINUS, Accuracy, points
from limbeck.evaluation.coresets import LEVEL
from limbeck.evaluation.scores import Doubt
from limbeck.evaluation.statistics import compare, compare_unpaired, holm, over_seeds, seeds_needed, summarise
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import FileKind
from limbeck.runtime.tables import Grid, Page
from limbeck.studies.cells import CellRecord
from limbeck.studies.table import REFERENCES, ending, images_text, remarks

RECOVERY = FileKind("recovery ratios")

WHAT = {"accuracy": "accuracy, %", "recovery_ratio": "recovery ratio, %"}
WIDTH = 80  # columns of a terminal


@dataclass(frozen=True, kw_only=True)
class FullAccuracy(Accuracy):
    """That of the full data, of which the values, being networks and not seeds, are not said."""

    LEFT_OUT: ClassVar[tuple[str, ...]] = (*Accuracy.LEFT_OUT, "ci95", "values")


@dataclass(frozen=True, kw_only=True)
class Column(Record):
    """A subset with what stands beside the methods; `full` and `random` are unknown where they were not measured."""

    subset: str
    category: str
    level: str
    full: FullAccuracy = FullAccuracy()
    random: Accuracy = Accuracy()


@dataclass(frozen=True, kw_only=True)
class SubsetCell(Record):
    """A method on a subset over its seeds; the ratio is unknown where the full data's accuracy is not known for every one."""

    seeds: tuple[int, ...]
    accuracy: Accuracy
    recovery_ratio: Accuracy = Accuracy()

    @classmethod
    def of(cls, records: Mapping[int, CellRecord]) -> "SubsetCell":
        """From the records by seed."""
        seeds = tuple(sorted(records))
        distilled = [records[seed].accuracy.distilled for seed in seeds]
        own = [one.mean for one in distilled]
        full = [records[seed].accuracy.full for seed in seeds]
        ratios = [a / f.mean for a, f in zip(own, full, strict=True) if f.known and f.mean]
        whole = summarise(ratios) if len(ratios) == len(own) else Accuracy()
        return cls(seeds=seeds, accuracy=over_seeds(distilled), recovery_ratio=whole)

    @property
    def ratios(self) -> dict[int, float]:
        """r by seed."""
        return dict(zip(self.seeds, self.recovery_ratio.values, strict=True))


@dataclass(frozen=True, kw_only=True)
class Step(Record):
    """The ratio of one level − that of the next harder one.

    Args:
        a: the easier level.
        b: the harder.
        paired: whether by shared seeds.
        n: how many; of both levels where they are not paired.
        mean: of the differences, or the difference of the means.
        std: of paired differences, as `p_exact`, p of the sign flips.
        ci95: of the mean; None with a single seed.
        p: of the t-test or of Welch's; None where neither is possible.
        seeds_needed: how many pairs would decide, at the level that each order of the table has by itself in the worst case.
    """

    a: str
    b: str
    paired: bool = True
    n: int | tuple[int, ...]
    mean: float
    std: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None
    p_exact: float | None = None
    seeds_needed: int | None = None

    def __str__(self) -> str:
        """The levels, the difference and the seeds."""
        n = self.n if isinstance(self.n, int) else "/".join(map(str, self.n))
        seeds = f"{n} seed{'' if n == 1 else 's'}{'' if self.paired else ' unpaired'}"
        ends = "" if self.ci95 is None else f" [{points(self.ci95[0])}, {points(self.ci95[1])}]"
        return f"{self.a} {MINUS} {self.b} {points(self.mean)}{ends} points, {seeds}"


@dataclass(frozen=True, kw_only=True)
class Order(Record):
    """Whether a method's recovery ratio falls from level to level of a category.

    Args:
        levels: those that are known, from the easiest.
        means: of the ratio, by level.
        p: of all steps together; None where one cannot be tested.
        p_adjusted: for the number of orders in the table.
        verdict: `holds`, `reversed` or `undecided`.
        steps: between neighbouring levels.
    """

    category: str
    method: str
    levels: tuple[str, ...]
    means: Mapping[str, float]
    steps: tuple[Step, ...] = ()
    p: float | None = None
    p_adjusted: float | None = None
    verdict: str = "undecided"

    def __str__(self) -> str:
        """What was asked of a category and a method, the answer, and the differences it rests on."""
        p = "" if self.p_adjusted is None else f", p {self.p_adjusted:.3g} (Holm)"
        needed = [step.seeds_needed for step in self.steps]
        end = ""
        # Steps that point both ways are decided by no number of seeds, as long as they do.
        if self.verdict == "undecided" and None not in needed and self.p is not None and self.p < 1:
            end = f"; {max(seeds for seeds in needed if seeds is not None)} seeds would decide"
        said = "; ".join(map(str, self.steps))
        return f"{self.category}, {self.method}: recovery ratio {' > '.join(self.levels)}: {self.verdict}{p} ({said}){end}"


@dataclass(frozen=True, kw_only=True)
class MethodCells(Record):
    """A method on the subsets where it is finished."""

    method: str
    cells: Mapping[str, SubsetCell]


@dataclass(frozen=True, kw_only=True)
class Levels(Record):
    """All subsets and methods with as many images per class.

    Args:
        ipc: images per class.
        columns: subsets, by category in the order of the records, from the easiest level.
        rows: methods, in the order of the records.
        verdicts: on every category with at least two levels, for every method.
    """

    ipc: int
    columns: tuple[Column, ...]
    rows: tuple[MethodCells, ...]
    verdicts: tuple[Order, ...] = ()

    def titles(self) -> Iterator[tuple[str, str]]:
        """What there is to show, and what that is called."""
        return ((what, f"{images_text(self.ipc)}: {title}") for what, title in WHAT.items())

    def words(self, what: str, columns: Sequence[Column] | None = None) -> list[list[str]]:
        """A head, a row for every method and, of accuracies, one for random real images and one for the full data.

        Args:
            what: `accuracy` or `recovery_ratio`.
            columns: those of the table to show; None shows all.
        """
        columns = self.columns if columns is None else columns
        rows = [["method", *(f"{column.category} {column.level}" for column in columns)]]
        for row in self.rows:
            cells = [row.cells.get(one.subset) for one in columns]
            rows.append([row.method, *("–" if cell is None else getattr(cell, what).with_margin for cell in cells)])
        for kind, title in REFERENCES.items() if what == "accuracy" else ():
            beside: list[Accuracy] = [getattr(column, kind) for column in columns]
            if any(one.known for one in beside):
                rows.append([f"({title})", *(f"{100 * one.mean:.1f}" if one.known else "–" for one in beside)])
        return rows

    @property
    def failures(self) -> tuple[str, ...]:
        """Where networks diverged while they were trained, and how many, a sentence each."""
        own = ((f"{row.method}, {name}", cell.accuracy) for row in self.rows for name, cell in row.cells.items())
        beside = ((f"{title}, {one.subset}", getattr(one, kind)) for one in self.columns for kind, title in REFERENCES.items())
        return tuple(f"{images_text(self.ipc)}: {name}: {one.failure}" for name, one in (*own, *beside) if one.failure)

    def blocks(self, what: str, width: int = WIDTH) -> Iterator[list[list[str]]]:
        """The words in pieces of whole categories that are at most `width` wide as a table; a lone category stays whole."""
        chosen: list[Column] = []
        for category in dict.fromkeys(column.category for column in self.columns):
            more = [*chosen, *(column for column in self.columns if column.category == category)]
            if chosen and _width(self.words(what, more)) > width:
                yield self.words(what, chosen)
                more = more[len(chosen) :]
            chosen = more
        if chosen:
            yield self.words(what, chosen)


@dataclass(frozen=True, kw_only=True)
class Recovery(Record):
    """What `limbeck comp-dd` has found: its tables, and what must be known of them.

    Args:
        title: the benchmark and the methods.
        benchmark: its name.
        levels: from the easiest.
        seeds: of the distillations.
        tables: one for every number of images per class.
        notes: of how settings differ.
        doubts: what speaks against the full data's accuracies as denominators.
        failed: the last words of cells that failed, by name.
        left: the names of those that are to be run yet.
        paths: of the files written.
    """

    title: str
    benchmark: str
    levels: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    tables: tuple[Levels, ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)

    LEFT_OUT: ClassVar = ("doubts",)

    @property
    def markdown(self) -> str:
        """All of it as Markdown."""
        lines = [f"# {self.title}", "", *table_lines(self.tables), *ending(self.notes, self.failed, self.left, self.doubts)]
        return "\n".join(lines).rstrip() + "\n"

    def lines(self) -> Iterator[str | Grid]:
        """What a terminal shows: tables of at most 80 columns, as long as a category fits, and sentences."""
        for table in self.tables:
            for what, title in table.titles():
                yield title  # a table's own title would be broken to its width
                yield from map(Grid.of, table.blocks(what))
            yield from map(str, table.verdicts)
            yield from (f"warning: {one}" for one in table.failures)
        yield from remarks(self.notes, self.failed, self.left, self.doubts)

    def __str__(self) -> str:
        """What a terminal shows."""
        return str(Page(tuple(self.lines()), width=100))

    def _repr_html_(self) -> str:
        """For a notebook."""
        grids = [Grid.of(table.words(what), title) for table in self.tables for what, title in table.titles()]
        verdicts = [str(one) for table in self.tables for one in table.verdicts]
        failures = [f"warning: {one}" for table in self.tables for one in table.failures]
        return Page((*grids, *verdicts, *failures, *remarks(self.notes, self.failed, self.left, self.doubts)))._repr_html_()


def table_lines(tables: Sequence[Levels]) -> Iterator[str]:
    """The tables and what they decide as lines of Markdown: mean ± half of the 95 % interval over distillation seeds."""
    for table in tables:
        for what, title in table.titles():
            yield from (f"## {title}", "", *Grid.of(table.words(what)).markdown, "")
        said = (*table.verdicts, *(f"warning: {one}" for one in table.failures))
        if said:
            yield from (*(f"- {one}" for one in said), "")


def tabulate(levels: Sequence[str], records: Sequence[CellRecord]) -> tuple[Levels, ...]:
    """A table for every number of images per class.

    Args:
        levels: from the easiest.
        records: of finished cells, with the facts `subset`, `category`, `level`, `method`, `ipc` and `seed`.
    """
    tables = []
    for ipc in sorted({record.facts["ipc"] for record in records}):
        held: dict[str, dict[str, dict[int, CellRecord]]] = {}
        places: dict[str, tuple[str, str]] = {}
        for record in records:
            facts = record.facts
            if facts["ipc"] == ipc:
                held.setdefault(facts["method"], {}).setdefault(facts["subset"], {})[facts["seed"]] = record
                places[facts["subset"]] = (facts["category"], facts["level"])
        categories = list(dict.fromkeys(category for category, _ in places.values()))
        order = sorted(places, key=lambda name: (categories.index(places[name][0]), levels.index(places[name][1])))
        columns = tuple(_column(name, *places[name], held) for name in order)
        rows = tuple(
            MethodCells(method=method, cells={name: SubsetCell.of(cells[name]) for name in order if name in cells})
            for method, cells in held.items()
        )
        tables.append(Levels(ipc=ipc, columns=columns, rows=rows, verdicts=_verdicts(columns, rows)))
    return tuple(tables)


def _verdicts(columns: Sequence[Column], rows: Sequence[MethodCells]) -> tuple[Order, ...]:
    """Whether the recovery ratio falls from level to level: one for every category with at least two levels, and every method."""
    found: list[tuple[Order, dict[str, dict[int, float]]]] = []
    for category in dict.fromkeys(column.category for column in columns):
        for row in rows:
            names = {one.level: one.subset for one in columns if one.category == category}
            cells = {level: row.cells[name] for level, name in names.items() if name in row.cells}
            cells = {level: cell for level, cell in cells.items() if cell.recovery_ratio.known}
            if len(cells) >= 2:
                means = {level: cell.recovery_ratio.mean for level, cell in cells.items()}
                order = Order(category=category, method=row.method, levels=tuple(cells), means=means)
                found.append((order, {level: cell.ratios for level, cell in cells.items()}))
    tests = sum(all(_testable(a, b) for a, b in pairwise(ratios.values())) for _, ratios in found)
    orders = []
    for order, ratios in found:
        steps = tuple(_step(a, b, ratios[a], ratios[b], LEVEL / max(tests, 1)) for a, b in pairwise(ratios))
        orders.append(replace(order, steps=steps, p=_p_of(steps)))
    adjusted = iter(holm([one.p for one in orders if one.p is not None]))
    judged = []
    for order in orders:
        p = None if order.p is None else next(adjusted)
        verdict = "undecided" if p is None or p > LEVEL else "holds" if order.steps[0].mean > 0 else "reversed"
        judged.append(replace(order, p_adjusted=p, verdict=verdict))
    return tuple(judged)


def _p_of(steps: Sequence[Step]) -> float | None:
    """p of the claim that all steps point the way they do; None where one of them cannot be tested."""
    # Differences that are all equal, as coarse accuracies can be by chance, leave the t-test no doubt; the sign flips keep theirs.
    ps = [step.p_exact if step.std == 0 else step.p for step in steps]
    known = [p for p in ps if p is not None]
    if len(known) < len(ps):
        return None
    one_way = all(step.mean > 0 for step in steps) or all(step.mean < 0 for step in steps)
    return float(max(known)) if one_way else 1.0


def _column(name: str, category: str, level: str, held: Mapping[str, Mapping[str, Mapping[int, CellRecord]]]) -> Column:
    """A subset with what stands beside the methods, from the first record of every seed."""
    first: dict[int, CellRecord] = {}
    for cells in held.values():
        for seed, record in cells.get(name, {}).items():
            first.setdefault(seed, record)
    full = [record.accuracy.full for record in first.values() if record.accuracy.full.known]
    random = [record.accuracy.random for record in first.values() if record.accuracy.random.known]
    beside = over_seeds(random) if random else Accuracy()
    whole = FullAccuracy()
    if full:
        whole = replace(whole, **{name: getattr(full[0], name) for name in ("mean", "std", "n", "failed")})
    return Column(subset=name, category=category, level=level, full=whole, random=beside)


def _testable(easier: Mapping[int, float], harder: Mapping[int, float]) -> bool:
    return len(easier.keys() & harder.keys()) >= 2 or min(len(easier), len(harder)) >= 2


def _step(a: str, b: str, easier: Mapping[int, float], harder: Mapping[int, float], level: float) -> Step:
    """The difference of two levels, and how many seeds would decide at `level`."""
    shared = sorted(easier.keys() & harder.keys())
    if len(shared) < 2 and min(len(easier), len(harder)) >= 2:
        apart = compare_unpaired(list(easier.values()), list(harder.values()))
        # Without any spread it knows no doubt, which two accuracies are no reason for.
        p = None if apart.degrees_of_freedom is None else apart.p
        return Step(a=a, b=b, paired=False, n=apart.n, mean=apart.mean, ci95=apart.ci95, p=p)
    if not shared:
        mean, other_mean = (sum(one.values()) / len(one) for one in (easier, harder))
        return Step(a=a, b=b, paired=False, n=(len(easier), len(harder)), mean=mean - other_mean)
    one, other = ([values[seed] for seed in shared] for values in (easier, harder))
    found = compare(one, other)
    needed = seeds_needed(one, other, level=level) if found.std else None
    kept = {name: getattr(found, name) for name in ("n", "mean", "std", "ci95", "p", "p_exact")}
    return Step(a=a, b=b, **kept, seeds_needed=needed)


def _width(rows: Sequence[Sequence[str]]) -> int:
    """Of a table with a space on either side of every cell and a line between them."""
    return 1 + sum(max(map(len, column)) + 3 for column in zip(*rows, strict=True))
