"""What a reproduction has found: the table of every item, the verdicts on its claims, and what is left to run.

A figure of a table is the mean over distillation seeds with its 95 % t-interval, as in every comparison. `to_dict` is the layout of
`ITEM.json` and `reproduction.json`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from limbeck.accuracy import Accuracy
from limbeck.evaluation.scores import Doubt, joined, told
from limbeck.reproduction.claims import Finding
from limbeck.reproduction.published import Published
from limbeck.reproduction.values import PLAIN, shown, title_of
from limbeck.runtime.errors import UsageError, reason
from limbeck.runtime.files import read_json
from limbeck.runtime.notices import by_kind
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import FileKind
from limbeck.runtime.tables import Grid, Page
from limbeck.studies.table import remarks

REPRODUCTION, ITEM = FileKind("reproduction"), FileKind("item of a reproduction")
FILE = "reproduction.json"


@dataclass(frozen=True, kw_only=True)
class Line(Record):
    """A row of an item's table.

    Args:
        row: its label; controls are marked.
        place: the source, by its name.
        ipc: images per class.
        seeds: that are finished.
        values: by name, over those seeds.
        cells: the names of its cells, seed by seed.
        cosine: of the gradient and the plain one, a mean over iterations and seeds; None where nothing was compared.
        norm_ratio: how many times as long it is.
        skipped_share: of the iterations that changed nothing.
    """

    row: str
    place: str
    ipc: int
    seeds: tuple[int, ...]
    values: Mapping[str, Accuracy]
    cells: tuple[str, ...] = ()
    cosine: float | None = None
    norm_ratio: float | None = None
    skipped_share: float | None = None

    def words(self, shown_values: tuple[str, ...]) -> tuple[str, ...]:
        """Under the head of `ItemResult.grid`."""
        figures = (_figure(name, self.values.get(name)) for name in shown_values)
        gradient = "–" if self.cosine is None else f"{self.cosine:.3f}, × {self.norm_ratio or 0:.2f}"
        skipped = "–" if self.skipped_share is None else f"{100 * self.skipped_share:.0f} %"
        return (self.row, self.place, str(self.ipc), *figures, str(len(self.seeds)), gradient, skipped)


@dataclass(frozen=True, kw_only=True)
class ItemResult(Record):
    """An item.

    Args:
        item: its name.
        title: in a few words.
        scale: at which it was run.
        shown: the values that stand in its table.
        lines: of the table.
        findings: the verdicts, controls after the others.
        full: accuracies of networks of the full data, by source.
        series: figures for its drawing: of a row by name, the mean over its cells.
        published: what the paper prints.
        notes: on how settings differ, a sentence each.
        doubts: what speaks against the full data's accuracies as denominators.
        failures: of which rows and full data networks diverged, a sentence each.
        left: how many cells are to be run yet, or again for what was not measured of them.
        failed: the last words of cells that failed.
        command: which runs it.
    """

    item: str
    title: str
    scale: str
    shown: tuple[str, ...]
    lines: tuple[Line, ...] = ()
    findings: tuple[Finding, ...] = ()
    full: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    failures: tuple[str, ...] = ()
    left: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    LEFT_OUT: ClassVar = ("series", "full", "notes", "doubts", "failures", "failed")

    @property
    def verdicts(self) -> tuple[Finding, ...]:
        """Without the controls."""
        return tuple(one for one in self.findings if not one.control)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader of the table must know: where training failed, and why the full data's accuracy is no measure."""
        return (*self.failures, *told(self.doubts))

    @property
    def grid(self) -> Grid:
        """The table."""
        head = ("row", "images", "ipc", *map(title_of, self.shown), "seeds", "cosine, norm", "skipped")
        return Grid.of([head, *(line.words(self.shown) for line in self.lines)], f"{self.item}: {self.title}")

    @property
    def judged(self) -> Grid:
        """The claims with their verdicts."""
        head = ("claim", "verdict", "p (Holm)", "effects")
        rows = [
            (
                one.text.rstrip(".") + (" (norm matched)" if one.control else ""),
                one.judgement,
                "–" if one.p_adjusted is None else f"{one.p_adjusted:.3g}",
                "; ".join(one.effects),
            )
            for one in self.findings
        ]
        return Grid.of([head, *rows])

    @property
    def printed(self) -> Grid | None:
        """What is published; None where the paper prints no figures."""
        if not self.published:
            return None
        places = list(dict.fromkeys(one.dataset for one in self.published))
        of: dict[tuple[str, int | None], dict[str, str]] = {}
        for one in self.published:
            of.setdefault((one.row, one.ipc), {})[one.dataset] = one.figure
        rows = [
            (row, "–" if ipc is None else str(ipc), *(found.get(place, "–") for place in places))
            for (row, ipc), found in of.items()
        ]
        return Grid.of([("row", "ipc", *places), *rows])

    @property
    def markdown(self) -> str:
        """All of it as Markdown."""
        lines = [f"## {self.item}: {self.title}", "", f"`{self.command}`", "", *self.judged.markdown, "", *self.grid.markdown, ""]
        if self.full:
            lines += ["full data: " + ", ".join(f"{place} {100 * mean:.1f} %" for place, mean in self.full.items()), ""]
        if self.printed is not None:
            what = f"{title_of(self.shown[0])}; ImageNet subsets at 128×128"
            lines += [f"Published ({what}):", "", *self.printed.markdown, ""]
        lines += [f"- {note}" for note in (*self.notes, *(f"warning: {one}" for one in self.warnings))]
        lines += [f"- failed: {line}" for line in by_kind(self.failed)]
        lines += [f"- {self.left} cells are to be run yet"] if self.left else []
        return "\n".join(lines).rstrip() + "\n"


@dataclass(frozen=True, kw_only=True)
class Reproduction(Record):
    """Items at a scale.

    Args:
        scale: its name.
        seeds: of the distillations.
        items: in the paper's order.
        cells: how many distillations they share.
        failed: the last words of cells that failed, by name.
        left: the names of those that are to be run yet.
        paths: of the files written.
        notes: on what was left out, a sentence each.
        data: what replaced the scale's images; None where they were kept.
        base: the recipe that all methods started from; None where that was the scale's matter.
        overrides: settings for all cells, as typed.

    Example:
        >>> empty = Reproduction(scale="cpu", seeds=(0, 1, 2), items=())
        >>> Reproduction.from_dict(empty.to_dict()) == empty
        True
    """

    scale: str
    seeds: tuple[int, ...]
    items: tuple[ItemResult, ...]
    cells: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    data: str | None = None
    base: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)

    LEFT_OUT: ClassVar = ("notes", "base")

    def __getitem__(self, item: str) -> ItemResult:
        """The item of that name; `KeyError` where there is none."""
        return {one.item: one for one in self.items}[item]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The verdicts of all items, without controls."""
        return tuple(found for one in self.items for found in one.verdicts)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What speaks against the full data's accuracies of all items: one of each kind, with each of its cells once."""
        found = joined((place, [one]) for item in self.items for one in item.doubts for place in one.where)
        return tuple(replace(one, where=tuple(dict.fromkeys(one.where))) for one in found)

    @classmethod
    def read(cls, folder: Path) -> "Reproduction":
        """Of the folder of a reproduction.

        Raises:
            UsageError: when its file is not what was written.
        """
        file = folder / FILE
        try:
            return cls.from_dict(read_json(file, REPRODUCTION))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            advice = "`limbeck reproduce` with the same words writes it anew from its cells"
            raise UsageError(f"path: {str(file)!r} is no reproduction ({reason(error)}); {advice}") from error

    @property
    def title(self) -> str:
        """Such as `Reproduction at cpu scale`."""
        return f"Reproduction at {self.scale} scale"

    @property
    def markdown(self) -> str:
        """All of it as Markdown."""
        notes = [f"- {note}\n" for note in self.notes]
        return "\n".join([f"# {self.title}\n", *notes, *(one.markdown for one in self.items)]).rstrip() + "\n"

    def lines(self) -> Iterator[str | Grid]:
        """What a terminal shows: tables and verdicts."""
        for one in self.items:
            alone = len({line.place for line in one.lines}) == 1
            rows = [[words[k] for k in _short(words, alone)] for words in (one.grid.columns, *one.grid.rows)]
            yield Grid.of(rows, one.grid.title)
            yield from (f"warning: {said}" for said in one.failures)
            yield from map(str, one.verdicts)
            yield from (f"control: {found}" for found in one.findings if found.control)
        yield from remarks(self.notes, self.failed, self.left, self.doubts)

    def __str__(self) -> str:
        """What a terminal of a hundred columns shows."""
        return str(Page(tuple(self.lines()), width=100))

    def _repr_html_(self) -> str:
        """For a notebook."""
        parts: list[str | Grid] = []
        for one in self.items:
            parts += [one.grid, *(f"warning: {said}" for said in one.failures), one.judged]
        return Page((*parts, *remarks(self.notes, self.failed, self.left, self.doubts)))._repr_html_()


def _short(words: tuple[str, ...], alone: bool) -> list[int]:
    """What a terminal has room for: the first value and what stands at either end, without the source where it is the only one."""
    return [0, *([] if alone else [1]), 2, 3, len(words) - 3, len(words) - 2, len(words) - 1]


def _figure(name: str, found: Accuracy | None) -> str:
    """A value with its interval."""
    if found is None or not found.known:
        return "–"
    half = None if found.ci95 is None else (found.ci95[1] - found.ci95[0]) / 2
    margin = "" if half is None else f" ± {half:.3f}" if name in PLAIN else f" ± {100 * half:.1f}"
    return shown(name, found.mean) + margin
