"""The folder of `limbeck compare` or `limbeck comp-dd` as a page: its tables and verdicts, every cell, and what cells have left."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.accuracy import Accuracy
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.scores import Doubt, told
from limbeck.figures.comparisons import recovery_figure
from limbeck.figures.style import inline_svg
from limbeck.report.collection import Collection, Drawing, Verdict, brief, common
from limbeck.report.differences import differences
from limbeck.report.of_runs import BEST, IPC, Entry, curves, differences_told, entry
from limbeck.report.side_by_side import shelves
from limbeck.report.sortable import (
    Column,
    Facts,
    Row,
    SortableTable,
    Value,
    of_accuracy,
    of_difference,
    of_number,
    of_share,
    of_whole,
    of_words,
)
from limbeck.runtime.errors import UsageError, reason
from limbeck.runtime.files import read_json
from limbeck.runtime.notices import by_kind
from limbeck.studies.cells import CELL, CellRecord, doubts_of
from limbeck.studies.cost import Cost
from limbeck.studies.recovery import RECOVERY, Levels, Recovery
from limbeck.studies.table import REFERENCES, Section, Table, images_text, tabulate

SEEDS = "Means are over all distillation seeds, whichever are chosen above; ± and the line are the 95 % interval."
UNFINISHED = "{} is missing, so that which method the others are compared with is not known; the same command writes it anew"

RATIOS = "comp-dd.json"
OF_EVERY_CELL = {"method": str, "ipc": int, "seed": int}  # facts


def comparison(folder: Path) -> Collection:
    """The page of a comparison.

    Raises:
        UsageError: when its `comparison.json` is not what was written.
    """
    cells, warnings = read_cells(folder)
    if (folder / "comparison.json").exists():
        table = Table.read(folder)
    else:
        warnings.append(UNFINISHED.format("comparison.json"))
        sections = tuple(replace(section, differences=()) for section in tabulate(list(cells.values())))
        table = Table(title=folder.resolve().name, data="", sections=sections, doubts=doubts_of(cells))
    verdicts = []
    for section in table.sections:
        warnings += [f"{section.title}: {one}" for one in section.failures]
        verdicts += differences_told(section)
        verdicts += [Verdict(said, section.title, {"ipc": str(section.ipc)}) for said in section.against_coresets]
        verdicts += [Verdict(f"asked for by name: {one}", section.title, {"ipc": str(section.ipc)}) for one in section.pairs]
    return _page(
        folder,
        table.title,
        [*warnings, *_remarks(table.failed, table.left, table.doubts)],
        verdicts,
        [methods(table.sections)],
        cells,
        notes=[*table.notes, *(said for section in table.sections for said in section.said)],
    )


def comp_dd(folder: Path) -> Collection:
    """The page of a benchmark of subsets by difficulty.

    Raises:
        UsageError: when its `comp-dd.json` is not what was written.
    """
    cells, warnings = read_cells(folder)
    if not (folder / RATIOS).exists():
        warnings.append(f"{RATIOS} is missing, and with it what is known of whole subsets; the same command writes it anew")
        return _page(folder, folder.resolve().name, [*warnings, *_remarks({}, (), doubts_of(cells))], [], [], cells)
    found = read_recovery(folder)
    verdicts = [
        Verdict(str(one), images_text(table.ipc), {"method": one.method, "ipc": str(table.ipc)})
        for table in found.tables
        for one in table.verdicts
    ]
    page = _page(
        folder,
        found.title,
        [*warnings, *(one for table in found.tables for one in table.failures), *_remarks(found.failed, found.left, found.doubts)],
        verdicts,
        [subsets(found.tables)],
        cells,
        notes=list(found.notes),
    )
    try:
        figure = recovery_figure(found.tables, found.levels)
    except (ValueError, TypeError, LookupError) as error:  # levels that are none of the benchmark's
        return replace(page, warnings=(*page.warnings, f"the figure could not be drawn ({reason(error)})"))
    if figure is None:
        return page
    caption = "Mean and 95 % interval over distillation seeds, by method; every seed is a dot."
    return replace(
        page,
        drawings=(
            Drawing("recovery", "Recovery ratio by level", inline_svg(figure, "recovery", "Recovery ratio by level"), caption),
        ),
    )


def read_recovery(folder: Path) -> Recovery:
    """What a benchmark has found.

    Raises:
        UsageError: when the file is not what was written.
    """
    file = folder / RATIOS
    try:
        return Recovery.from_dict(read_json(file, RECOVERY))
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        advice = "`limbeck comp-dd` with the same words writes it anew from its cells"
        raise UsageError(f"PATH: {str(file)!r} is no result of comp-dd ({reason(error)}); {advice}") from error


def read_cells(folder: Path) -> tuple[dict[str, CellRecord], list[str]]:
    """The finished cells by name, and a sentence for those that cannot be read."""
    found: dict[str, CellRecord] = {}
    broken = []
    for path in sorted((folder / "cells").glob("*.json")):
        try:
            held = CellRecord.from_dict(read_json(path, CELL))
            if not all(type(held.facts[name]) is kind for name, kind in OF_EVERY_CELL.items()):
                raise TypeError("its facts are others")
            tabulate([held]), cell_table({path.stem: held}).rows  # what is shown of it, before it stands among others
            found[path.stem] = held
        except Exception:  # noqa: BLE001 (whatever such a file leads to)
            broken.append(path.name)
    return found, [f"cells/{name} could not be read" for name in broken]


def methods(sections: Sequence[Section]) -> SortableTable:
    """A row for every method, and for what stands beside, under every number of images per class and every network."""
    firsts = {section.rows[0].method for section in sections if section.rows}
    first = f"Difference to {firsts.pop() if len(firsts) == 1 else 'the first'}, points"
    columns = (
        *(Column("Method", words=True), Column(IPC), Column("Network", words=True)),
        *(Column("Accuracy, %", drawn=True), Column("Seeds"), Column(BEST), Column(first, drawn=True, zero=True)),
        *(Column("p (Holm)"), Column("Verdict", words=True), Column("Seeds that would decide"), Column("Recovered, %")),
        *(Column("Cosine to plain gradient"), Column("Its norm, ×"), Column("Iterations skipped, %")),
        *(Column("Distilling, s"), Column("of CPU, s"), Column("Memory, MiB")),
    )
    rows = []
    for section in sections:
        against = {one.a: one for one in section.differences}
        place = (of_number(section.ipc, "d"), of_words(section.network))
        facts = {"ipc": str(section.ipc), **({"network": section.network} if section.network else {})}
        for row in section.rows:
            found, spent = against.get(row.method), row.cost.seconds
            cells = (
                *(of_words(row.method), *place, of_accuracy(row.accuracy), of_number(row.accuracy.n, "d")),
                of_share(row.accuracy.test_mean),
                *(of_difference(found), of_number(found.p_adjusted if found else None, ".3g")),
                of_words(found.verdict if found else None),
                *(of_number(found.seeds_needed if found else None, "d"), of_share(row.recovery_ratio)),
                *(of_number(row.comparison.get(name), form) for name, form in (("cosine", ".3f"), ("norm_ratio", ".2f"))),
                *(of_share(row.skipped_share), of_number(spent.distil, ".0f"), of_number(spent.distil_cpu, ".0f")),
                _memory(row.cost),
            )
            rows.append(Row(cells, {"method": row.method, **facts}))
        for name, one in section.standing.items():
            known = (of_words(name), *place, *_beside("full" if name == REFERENCES["full"] else "", one), of_share(one.test_mean))
            rows.append(Row((*known, *[Value()] * (len(columns) - len(known))), facts))
    return brief(SortableTable("methods", "Methods", columns, tuple(rows), SEEDS), "Network", IPC)


def subsets(tables: Sequence[Levels]) -> SortableTable:
    """A row for every method on every subset, and for what stands beside."""
    columns = (
        *(Column("Method", words=True), Column("Category", words=True), Column("Level", words=True), Column(IPC)),
        *(Column("Accuracy, %", drawn=True), Column("Recovered, %", drawn=True), Column("Seeds")),
    )
    rows = []
    for table in tables:
        for column in table.columns:
            place = (of_words(column.category), of_words(column.level), of_number(table.ipc, "d"))
            facts = {"ipc": str(table.ipc), "subset": column.subset}
            for row in table.rows:
                if (cell := row.cells.get(column.subset)) is not None:
                    figures = (
                        of_accuracy(cell.accuracy),
                        of_accuracy(cell.recovery_ratio, math.inf),
                        of_number(len(cell.seeds), "d"),
                    )
                    rows.append(Row((of_words(row.method), *place, *figures), {"method": row.method, **facts}))
            beside: dict[str, Accuracy] = {"random": column.random, "full": column.full}
            for kind, one in beside.items():
                if one.known:
                    mean, seeds = _beside(kind, one)
                    figures = (mean, Value(), seeds)
                    rows.append(Row((of_words(REFERENCES[kind]), *place, *figures), facts))
    return brief(SortableTable("subsets", "Methods on subsets", columns, tuple(rows), SEEDS))


def cell_table(cells: Mapping[str, CellRecord]) -> SortableTable:
    """A row for every distillation."""
    columns = (
        *(Column("Cell", words=True), Column("Method", words=True), Column("Subset", words=True)),
        *(Column(IPC), Column("Seed"), Column("Network", words=True), Column("Accuracy, %", drawn=True), Column(BEST)),
        *(Column("Random real images, %"), Column("Initial images, %"), Column("Full data, %"), Column("Recovered, %")),
        *(Column("Best iteration"), Column("Iterations skipped, %"), Column("Distilling, s"), Column("Memory, MiB")),
    )
    rows = []
    for name, one in cells.items():
        facts, found, cost = facts_of(one), one.accuracy, Cost.of([one])
        cells_of = (
            *(of_words(name), of_words(facts.get("method")), of_words(facts.get("subset"))),
            *(of_whole(facts.get("ipc")), of_whole(facts.get("seed")), of_words(one.network), of_accuracy(found.distilled)),
            of_share(found.distilled.test_mean),
            *(of_share(kind.mean) for kind in (found.random, found.initial, found.full)),
            *(of_share(_recovered(one)), of_number(one.best_iteration, "d"), of_share(one.skipped_share)),
            *(of_number(cost.seconds.distil, ".0f"), _memory(cost)),
        )
        rows.append(Row(cells_of, facts))
    caption = "± and the line are the 95 % interval over the networks that were trained on one distilled set."
    return brief(SortableTable("cells", "Distillations", columns, tuple(rows), caption), "Network", IPC)


def facts_of(record: CellRecord) -> Facts:
    """What a cell is filtered by."""
    return {key: str(value) for key in ("method", "ipc", "seed", "subset") if (value := record.facts.get(key)) is not None}


def _page(
    folder: Path,
    title: str,
    warnings: Sequence[str],
    verdicts: Sequence[Verdict],
    tables: Sequence[SortableTable],
    cells: Mapping[str, CellRecord],
    notes: Sequence[str] = (),
) -> Collection:
    """What the pages of all grids have in common."""
    left, unread = kept(folder, cells)
    facts = [facts_of(one) for one in cells.values()]
    return Collection(
        title=title,
        facts=(
            f"{len(cells)} finished distillation{'s' * (len(cells) != 1)}",
            *common(("ipc", images_text(one.facts["ipc"])) for one in cells.values() if isinstance(one.facts.get("ipc"), int)),
            *common(("network", one.network) for one in cells.values()),
        ),
        warnings=(*warnings, *unread),
        verdicts=tuple(verdicts),
        tables=tuple(table for table in (*tables, cell_table(cells)) if table.rows),
        charts=tuple(curves(left)),
        sets=shelves([(one.name, one.facts, one.held) for one in left if one.held is not None]),
        settings=differences([one.settings for one in cells.values()], list(cells), facts),
        notes=tuple(notes),
    )


def kept(folder: Path, cells: Mapping[str, CellRecord]) -> tuple[list[Entry], list[str]]:
    """The run folders that were kept, as the cells call them, and a sentence for those that cannot be read."""
    found, unread = [], []
    for name, record in cells.items():
        path = folder / "runs" / name
        if not (path / "settings.json").exists() and not DistilledSet.is_at(path / "distilled"):
            continue
        try:
            one = entry(path, name)
        except UsageError as error:
            unread.append(f"runs/{name}: {error}")
            continue
        unread += [f"runs/{name}: {note}" for note in one.notes]
        found.append(replace(one, settings=_named_as(record, one.settings)))
    return found, unread


def _named_as(record: CellRecord, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings under the names that the grid has for what they are."""
    return {**settings, **{key: record.facts[key] for key in ("method", "ipc", "seed") if key in record.facts}}


def _remarks(failed: Mapping[str, str], left: Sequence[str], doubts: Sequence[Doubt]) -> list[str]:
    """What a reader must know first."""
    said = [f"failed: {line}" for line in by_kind(failed)]
    said += [f"{len(left)} cells are to be run yet; the same command goes on"] if left else []
    return [*said, *told(doubts)]


def _recovered(one: CellRecord) -> float | None:
    full = one.accuracy.full
    return one.accuracy.distilled.mean / full.mean if full.known and full.mean else None


def _beside(kind: str, one: Accuracy) -> tuple[Value, Value]:
    """What stands beside the methods, and the seeds it is a mean of: networks of the full data have none, and are far better."""
    return replace(of_accuracy(one), drawn=kind != "full"), Value() if kind == "full" else of_number(one.n, "d")


def _memory(cost: Cost) -> Value:
    """MiB, or a bound of it."""
    peak = cost.peak_memory
    return Value() if peak is None else Value(cost.memory_text.removesuffix(" MiB"), peak.bytes / 2**20)
