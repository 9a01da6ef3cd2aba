"""The folder of `limbeck reproduce` as a page: verdicts, the table and the figure of every item, and its cells."""

from collections.abc import Iterator
from pathlib import Path

from limbeck.evaluation.scores import told
from limbeck.figures.exhibit import Exhibit
from limbeck.figures.style import inline_svg
from limbeck.report.collection import Collection, Drawing, Verdict, brief
from limbeck.report.of_grids import cell_table, read_cells
from limbeck.report.sortable import Column, Row, SortableTable, Value, of_accuracy, of_number, of_share, of_words
from limbeck.reproduction.claims import Finding, seeds_text
from limbeck.reproduction.results import ItemResult, Line, Reproduction
from limbeck.reproduction.values import PLAIN, title_of
from limbeck.reproduction.write import figure_of, sheet_of
from limbeck.runtime.notices import by_kind

IPC = "Images per class"
BOXES = "Images under the maps of a network of the full data; a frame is the true box of the object that the image began with."
CONTROL = "The norm of EDF's gradient is that of the plain one: "


def reproduction(folder: Path) -> Collection:
    """The page of a reproduction.

    Raises:
        UsageError: when its file is not what was written.
    """
    found = Reproduction.read(folder)
    cells, warnings = read_cells(folder)
    return Collection(
        title=found.title,
        facts=(
            f"{len(found.items)} item{'s' * (len(found.items) != 1)}",
            f"{len(cells)} finished distillation{'s' * (len(cells) != 1)}",
            *(f"{len(rows)} {verdict}" for verdict, rows in _by_verdict(found).items()),
        ),
        warnings=(*warnings, *told(found.doubts), *_unfinished(found)),
        verdicts=tuple(_verdicts(found)),
        tables=(claims(found), *map(rows_of, found.items), *([cell_table(cells)] if cells else [])),
        drawings=tuple(_drawings(found, folder)),
        notes=tuple(dict.fromkeys((*found.notes, *(note for one in found.items for note in one.notes)))),
    )


def exhibits(folder: Path) -> list[Exhibit]:
    """The figures of a reproduction, one of every item that has something to draw."""
    caption = "Mean with its 95 % interval over distillation seeds, a pale dot below for every seed; what is published beside it."
    made = []
    for one in Reproduction.read(folder).items:
        if (figure := figure_of(one)) is not None:
            made.append(Exhibit(one.item, one.title, caption, figure, wide=True))
        if (sheet := sheet_of(one, folder)) is not None:
            made.append(Exhibit(f"{one.item}-images", f"{one.title}, images", BOXES, sheet, wide=True))
    return made


def claims(found: Reproduction) -> SortableTable:
    """A row for every claim and every control."""
    columns = (
        *(Column("Claim", words=True), Column("Item", words=True), Column("Section", words=True), Column("Verdict", words=True)),
        *(Column("p (Holm)"), Column("Seeds that would decide"), Column("Effects", words=True)),
    )
    rows = []
    for item in found.items:
        for one in item.findings:
            text = (CONTROL if one.control else "") + one.text
            judged = (of_words(one.verdict), of_number(one.p_adjusted, ".3g"), of_number(one.seeds_needed, _seeds))
            rows.append(
                Row((of_words(text), of_words(item.item), of_words(one.section), *judged, of_words("; ".join(one.effects))))
            )
    caption = (
        "Each test was stated before anything was run; p is adjusted by Holm for the claims of an item, controls among themselves."
    )
    return brief(SortableTable("claims", "Claims", columns, tuple(rows), caption))


def _seeds(needed: int) -> str:
    return seeds_text(needed).removesuffix(" seeds")


def rows_of(item: ItemResult) -> SortableTable:
    """A row for every row of an item's table."""
    columns = (
        *(Column("Row", words=True), Column("Images", words=True), Column(IPC)),
        *(Column(title_of(name)[:1].upper() + title_of(name)[1:], drawn=True, zero="growth" in name) for name in item.shown),
        *(Column("Seeds"), Column("Cosine to plain gradient"), Column("Its norm, ×"), Column("Iterations skipped, %")),
    )
    rows = tuple(Row(_cells(item, line), {"method": line.row, "ipc": str(line.ipc), "subset": line.place}) for line in item.lines)
    return brief(SortableTable(item.item, f"{item.item}: {item.title}", columns, rows, _beside(item)), IPC)


def _cells(item: ItemResult, line: Line) -> tuple[Value, ...]:
    gradient = (of_number(line.cosine, ".3f"), of_number(line.norm_ratio, ".2f"), of_share(line.skipped_share))
    figures = (_value(name, line) for name in item.shown)
    return (
        of_words(line.row),
        of_words(line.place),
        of_number(line.ipc, "d"),
        *figures,
        of_number(len(line.seeds), "d"),
        *gradient,
    )


def _value(name: str, line: Line) -> Value:
    """A value with its interval, which of growths lies on either side of zero."""
    found = line.values[name]
    if not found.known:
        return Value()
    if name not in PLAIN and "growth" not in name:
        return of_accuracy(found)
    factor, form = (1.0, "+.3f") if name in PLAIN else (100.0, "+.1f")
    ends = None if found.ci95 is None else (factor * found.ci95[0], factor * found.ci95[1])
    return Value(format(factor * found.mean, form), factor * found.mean, ends)


def _beside(item: ItemResult) -> str:
    """What stands below a table."""
    full = ", ".join(f"{place} {100 * mean:.1f} %" for place, mean in item.full.items())
    return f"Run by: {item.command}." + (f" Networks of the full data: {full}." if full else "")


def _verdicts(found: Reproduction) -> Iterator[Verdict]:
    for item in found.items:
        heading = f"{item.item}: {item.title}"
        yield from (Verdict(str(one), heading) for one in item.findings)


def _by_verdict(found: Reproduction) -> dict[str, list[Finding]]:
    of: dict[str, list[Finding]] = {"confirmed": [], "contradicted": [], "undecided": []}
    for one in found.findings:
        of[one.verdict].append(one)
    return of


def _unfinished(found: Reproduction) -> Iterator[str]:
    for item in found.items:
        yield from (f"{item.item}: {line}" for line in item.failures)
        yield from (f"{item.item}: failed: {line}" for line in by_kind(item.failed))
        if item.left:
            yield f"{item.item}: {item.left} cells are to be run yet; the same command goes on"


def _drawings(found: Reproduction, folder: Path) -> Iterator[Drawing]:
    for item in found.items:
        title = f"{item.item}: {item.title}"
        if (figure := figure_of(item)) is not None:
            yield Drawing(f"figure-{item.item}", title, inline_svg(figure, f"figure-{item.item}", title))
        if (sheet := sheet_of(item, folder)) is not None:
            yield Drawing(f"images-{item.item}", f"{title}, images", inline_svg(sheet, f"images-{item.item}", title), BOXES)
