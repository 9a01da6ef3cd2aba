"""Running a benchmark, and its submission: `submission.json` and a card. Reading it makes the tables again from the cells, and
their summaries from the values: that finds slips and edits, not whether anybody measured them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from limbeck.accuracy import Accuracies
from limbeck.evaluation.scores import told
from limbeck.evaluation.statistics import summarise
from limbeck.methods.registry import method_of
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError, one_line, reason
from limbeck.runtime.files import new_folder, read_json, write_json, write_text
from limbeck.runtime.fingerprint import encodable, fingerprint, plain
from limbeck.runtime.records import Record
from limbeck.runtime.tables import Grid
from limbeck.studies.cells import PLACES, Cell, CellRecord, doubts_of
from limbeck.studies.comp_dd import Benchmark, Part
from limbeck.studies.compare import FREE, SAME
from limbeck.studies.matrix import Running, run_matrix
from limbeck.studies.recovery import RECOVERY, Levels, Recovery, table_lines, tabulate

FORMAT = 1
FILE, CARD = "submission.json", "README.md"
EXPERTS = ("data.", "network", "augment.", "experts.", "seed")  # what experts are made from, beside the images themselves
CLOSE = 1e-9  # relative: another processor rounds otherwise
LOOSE = ("seeds_needed",)  # found by a search that rounding may move


def run_benchmark(
    benchmark: Benchmark, parts: Sequence[Part], cells: Sequence[Cell], notes: Sequence[str], output: Path, running: Running
) -> Recovery:
    """Run the cells of `plan`, and write what they have found so far, and, when all are there, a submission.

    Args:
        benchmark: which.
        parts: its subsets.
        cells: of those.
        notes: what a reader must know.
        output: the folder.
        running: how.

    Raises:
        UsageError: when the folder cannot be used; nothing is run then.
    """
    matrix = run_matrix(cells, output, running)
    paths, doubts = {"cells": str(output / "cells")}, doubts_of(matrix.results)
    if matrix.results:
        paths |= {name: str(output / f"comp-dd.{name}") for name in ("json", "md")}
    if matrix.results and not (matrix.failed or matrix.left):
        said = [*notes, *told(doubts)]
        write_submission(output / "submission", benchmark, parts, cells, matrix.results, said)
        paths["submission"] = str(output / "submission")
    found = Recovery(
        title=f"{benchmark.name}: {', '.join(dict.fromkeys(cell.facts['method'] for cell in cells))}",
        benchmark=benchmark.name,
        levels=benchmark.levels,
        seeds=tuple(sorted({cell.facts["seed"] for cell in cells})),
        tables=tabulate(benchmark.levels, list(matrix.results.values())),
        notes=tuple(notes),
        doubts=doubts,
        failed=matrix.failed,
        left=tuple(matrix.left),
        paths=paths,
    )
    if matrix.results:
        write_text(output / "comp-dd.md", found.markdown)
        write_json(output / "comp-dd.json", found, RECOVERY)
    return found


@dataclass(frozen=True, kw_only=True)
class Fingerprints(Record):
    """Of the settings that are not the defaults, of the images, and of what experts are made from, where there are any."""

    settings: str
    data: str | None = None
    experts: str | None = None

    LEFT_OUT: ClassVar = ("experts",)


@dataclass(frozen=True, kw_only=True)
class CellEntry(Record):
    """What is handed in of a cell, as `CellRecord` has it: no path of the machine it was run on."""

    name: str
    facts: Mapping[str, Any]
    recipe: str | None
    overrides: Mapping[str, str]
    settings: FlatSettings
    fingerprints: Fingerprints
    accuracy: Accuracies
    network: str = ""
    best_iteration: int | None = None
    skipped_share: float | None = None
    seconds: Mapping[str, float] | None = None
    cpu_seconds: Mapping[str, float] | None = None
    peak_memory: Mapping[str, float] | None = None
    data: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, cell: Cell, record: CellRecord) -> "CellEntry":
        """Of a cell and what it measured."""
        data, made_from = record.data.get("fingerprint"), cell.changed.keys
        experts = fingerprint(data, {key: value for key, value in made_from.items() if key.startswith(EXPERTS)})
        method = method_of(cell.settings.method)
        reads = method.experts or (method.kind == "objective" and cell.settings.init == "correct")
        return cls(
            name=cell.name,
            facts=cell.facts,
            recipe=cell.recipe,
            overrides={key: value for key, value in cell.overrides.items() if key not in PLACES},
            settings=cell.changed,
            fingerprints=Fingerprints(settings=fingerprint(cell.changed), data=data, experts=experts if reads else None),
            accuracy=record.accuracy,
            network=record.network,
            best_iteration=record.best_iteration,
            skipped_share=record.skipped_share,
            seconds=record.seconds or None,
            cpu_seconds=record.cpu_seconds or None,
            peak_memory=record.peak_memory or None,
            data=record.data or None,
            environment=record.environment or None,
        )

    @property
    def record(self) -> CellRecord:
        """What tables are made from."""
        return CellRecord(facts=self.facts, accuracy=self.accuracy)

    @property
    def row(self) -> tuple[str, ...]:
        """Its line in the card."""
        full = f"{100 * self.accuracy.full.mean:.1f}" if self.accuracy.full.known else "–"
        spent = sum((self.seconds or {}).values())
        return self.name, str(self.recipe), self.accuracy.distilled.with_margin, full, f"{spent:.0f}"


@dataclass(frozen=True, kw_only=True)
class Submission(Record):
    """What `submission.json` holds, whole and in agreement with itself.

    Args:
        format: of the file.
        benchmark: its name.
        levels: from the easiest.
        subsets: those that were run.
        methods: by name.
        ipcs: numbers of images per class.
        seeds: of the distillations.
        environments: in which cells were measured.
        notes: what a reader must know.
        cells: the whole grid.
        tables: made from them.
        checksum: of all the rest.
    """

    format: int = FORMAT
    benchmark: str
    levels: tuple[str, ...]
    subsets: tuple[Part, ...]
    methods: tuple[str, ...]
    ipcs: tuple[int, ...]
    seeds: tuple[int, ...]
    environments: tuple[Mapping[str, Any] | None, ...]
    notes: tuple[str, ...]
    cells: tuple[CellEntry, ...]
    tables: tuple[Levels, ...]
    checksum: str = ""

    @property
    def title(self) -> str:
        """The benchmark and the methods."""
        return f"{self.benchmark}: {', '.join(self.methods)}"

    def __str__(self) -> str:
        """How large it is, and its checksum."""
        return f"{len(self.cells)} cells, checksum {self.checksum[:16]}…"

    @property
    def card(self) -> str:
        """`README.md`, Markdown."""
        lines = [
            f"# {self.title}",
            "",
            "Accuracies are means over distillation seeds, ± half of the 95 % t-interval; the recovery ratio is that of an "
            "accuracy to the full data's. `limbeck comp-dd --check .` reads this folder and makes the tables again from its cells.",
            "",
            *Grid.of([("", ""), *_facts(self)]).markdown,
            "",
            *table_lines(self.tables),
            *(f"- {note}" for note in self.notes),
            *([""] if self.notes else []),
            "## Images and experts",
            "",
            *Grid.of([("subset", "images", "experts by seed"), *_fingerprints(self)]).markdown,
            "",
            "## Cells",
            "",
            "`submission.json` has the settings of each that are not Limbeck's defaults, and the accuracy of every network.",
            "",
            *Grid.of([("cell", "recipe", "accuracy, %", "full data, %", "seconds"), *(cell.row for cell in self.cells)]).markdown,
        ]
        return "\n".join(lines).rstrip() + "\n"


def write_submission(
    folder: Path,
    benchmark: Benchmark,
    parts: Sequence[Part],
    cells: Sequence[Cell],
    records: Mapping[str, CellRecord],
    notes: Sequence[str],
) -> None:
    """Write the folder, replacing an earlier submission in it.

    Args:
        folder: where to.
        benchmark: which was run.
        parts: its subsets that were.
        cells: the whole grid, with the facts `subset`, `category`, `level`, `method`, `ipc` and `seed`.
        records: what every one of them measured, by name.
        notes: what a reader must know.
    """
    facts, found = [cell.facts for cell in cells], tuple(CellEntry.of(cell, records[cell.name]) for cell in cells)
    methods, ipcs, seeds = (tuple(dict.fromkeys(one[key] for one in facts)) for key in ("method", "ipc", "seed"))
    made_of = Submission(
        benchmark=benchmark.name,
        levels=benchmark.levels,
        subsets=tuple(parts),
        methods=methods,
        ipcs=ipcs,
        seeds=seeds,
        environments=tuple(_distinct([cell.environment for cell in found])),
        notes=tuple(notes),
        cells=found,
        tables=tabulate(benchmark.levels, [cell.record for cell in found]),
    )
    held = replace(made_of, checksum=checksum(encodable(made_of)))
    with new_folder(folder) as made:
        write_json(made / FILE, held)
        write_text(made / CARD, held.card)


def read_submission(folder: Path, benchmarks: Sequence[Benchmark]) -> Submission:
    """A submission that is whole and agrees with itself.

    Args:
        folder: that holds it.
        benchmarks: those that there are.

    Raises:
        UsageError: when it cannot be read, misses a cell, or says something that its cells do not; the message is one line.
    """
    path = folder / FILE
    if not path.is_file():
        raise UsageError(f"--check: {str(folder)!r} holds no {FILE}")
    try:
        held = dict(read_json(path))
        found = _checked(held, benchmarks)
        made = found.card  # reads what is shown to people, so that none of it is broken
        if (folder / CARD).is_file() and (folder / CARD).read_text(encoding="utf-8") != made:
            raise ValueError(f"{CARD} says something else than {FILE}")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        what = one_line(error) if isinstance(error, ValueError) else f"it is broken ({reason(error)})"
        raise UsageError(f"--check: {str(path)!r} cannot be accepted: {what[:400]}") from error
    return found


def checksum(held: Mapping[str, Any]) -> str:
    """SHA-256 of everything but the checksum itself, as JSON with sorted keys."""
    rest = {key: value for key, value in held.items() if key != "checksum"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _checked(held: Mapping[str, Any], benchmarks: Sequence[Benchmark]) -> Submission:
    """Raise `ValueError` where something does not agree, or whatever reading it raises where it is broken."""
    if held["format"] != FORMAT:
        raise ValueError(f"it is of format {held['format']!r}, not {FORMAT}")
    found = Submission.from_dict(held)
    benchmark = next((one for one in benchmarks if one.name == found.benchmark), None)
    if benchmark is None:
        raise ValueError(f"its benchmark {found.benchmark!r} is none of {', '.join(one.name for one in benchmarks)}")
    _agree(held["levels"], list(benchmark.levels), "levels", "the benchmark has")
    known = {part.name: part for part in benchmark.parts}
    for part in found.subsets:
        _agree(plain(part), plain(known.get(part.name)), f"subsets: {part.name}", "the benchmark has")
    _check_whole(found)
    for cell in found.cells:
        _check_cell(cell, known[cell.facts["subset"]])
    _check_alike(found.cells)
    _agree(held["environments"], _distinct([cell.environment for cell in found.cells]), "environments", "the cells have")
    made = tabulate(benchmark.levels, [cell.record for cell in found.cells])
    _agree(held["tables"], encodable(made), "tables", "the cells make")
    if checksum(held) != found.checksum:
        raise ValueError("its checksum is another: it was changed after it had been written")
    return found


def _check_whole(found: Submission) -> None:
    """Every cell of the grid once, and no other."""
    wanted = list(product((part.name for part in found.subsets), found.methods, found.ipcs, found.seeds))
    grid = set(wanted)
    if not wanted or len(grid) < len(wanted):
        raise ValueError("its subsets, methods, ipcs and seeds are no grid of different cells")
    there = Counter(tuple(cell.facts[key] for key in ("subset", "method", "ipc", "seed")) for cell in found.cells)
    if missing := [one for one in wanted if one not in there]:
        raise ValueError(f"{len(missing)} of its {len(wanted)} cells are missing: {_named(missing)}")
    if more := [one for one, times in there.items() if times > 1 or one not in grid]:
        raise ValueError(f"it has cells twice or beyond its grid: {_named(more)}")


def _check_cell(cell: CellEntry, part: Part) -> None:
    """The facts are those of the settings, and the summaries those of the values."""
    facts, settings, name = cell.facts, cell.settings.keys, cell.name
    _agree([facts["category"], facts["level"]], [part.category, part.level], f"{name}: facts", "the benchmark has")
    defaults = DistillSettings()
    said = [settings.get("data.source"), *(settings.get(key, getattr(defaults, key)) for key in ("method", "ipc", "seed"))]
    _agree([part.source, facts["method"], facts["ipc"], facts["seed"]], said, f"{name}: facts", "its settings have")
    _agree(cell.fingerprints.settings, fingerprint(settings), f"{name}: fingerprints.settings", "its settings make")
    for kind, what in (("distilled", "its images"), ("full", "the full data")):
        if not cell.accuracy[kind].known:
            raise ValueError(f"{name} has no accuracy of {what}")
    for kind, summary in cell.accuracy.items():
        values = summary.values
        if not values or not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
            raise ValueError(f"{name}: accuracy.{kind}.values are not all in [0, 1]")
        found = summarise(values)  # how networks were trained is no figure made of these
        made = replace(summary, mean=found.mean, std=found.std, ci95=found.ci95, n=found.n)
        _agree(plain(summary), plain(made), f"{name}: accuracy.{kind}", "its values make")


def _check_alike(cells: Sequence[CellEntry]) -> None:
    """One set of images for all cells of a subset, and one evaluation for all of them with as many images per class."""
    images: dict[str, str | None] = {}
    settings: dict[tuple[str, int], FlatSettings] = {}
    for cell in cells:
        subset, own = cell.facts["subset"], cell.fingerprints.data
        _agree(own, images.setdefault(subset, own), f"{cell.name}: fingerprints.data", "others of its subset have")
        first = settings.setdefault((subset, cell.facts["ipc"]), cell.settings)
        for key, said, other in cell.settings.differences(first):
            if key.startswith(SAME) and key not in FREE:
                _agree(said, other, f"{cell.name}: settings.{key}", "others of its subset have")


def _agree(said: Any, made: Any, where: str, who: str) -> None:
    """Raise `ValueError` at the first place where two values of JSON's types are not the same but for rounding."""
    if isinstance(said, Mapping) and isinstance(made, Mapping) and said.keys() == made.keys():
        for key in made:
            if key not in LOOSE:
                _agree(said[key], made[key], f"{where}.{key}", who)
    elif isinstance(said, list) and isinstance(made, list) and len(said) == len(made):
        for number, (one, other) in enumerate(zip(said, made, strict=True)):
            _agree(one, other, f"{where}[{number}]", who)
    elif not _close(said, made):
        raise ValueError(f"{where} is {_short(said)}, {who} {_short(made)}")


def _close(a: Any, b: Any) -> bool:
    numbers = all(type(value) in (int, float) for value in (a, b))
    return abs(a - b) <= CLOSE * max(1.0, abs(a), abs(b)) if numbers else bool(type(a) is type(b) and a == b)


def _short(value: Any) -> str:
    text = " ".join(str(value).split()) if isinstance(value, (Mapping, list)) else repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _named(places: Sequence[Sequence[Any]]) -> str:
    shown = ", ".join(f"{subset} {method} ipc {ipc} seed {seed}" for subset, method, ipc, seed in places[:3])
    return f"{shown}{', …' if len(places) > 3 else ''}"


def _distinct(values: Sequence[Any]) -> list[Any]:
    return [value for number, value in enumerate(values) if value not in values[:number]]


def _facts(held: Submission) -> Iterator[tuple[str, str]]:
    yield "Subsets", ", ".join(part.name for part in held.subsets)
    yield "Images per class", ", ".join(map(str, held.ipcs))
    yield "Distillation seeds", ", ".join(map(str, held.seeds))
    environments = [one or {} for one in held.environments]
    for title, keys in (("Versions", ("limbeck", "python", "torch")), ("Hardware", ("device", "cores"))):
        said = (", ".join(f"{key} {one[key]}" for key in keys if key in one) for one in environments)
        yield title, "; ".join(dict.fromkeys(text for text in said if text)) or "unknown"
    yield "Checksum", held.checksum


def _fingerprints(held: Submission) -> Iterator[tuple[str, ...]]:
    for part in held.subsets:
        cells = [cell for cell in held.cells if cell.facts["subset"] == part.name]
        experts: dict[int, dict[str, None]] = {}
        for cell in cells:
            if cell.fingerprints.experts is not None:
                experts.setdefault(cell.facts["seed"], {})[cell.fingerprints.experts] = None
        said = "; ".join(f"{seed}: {' '.join(names)}" for seed, names in experts.items())
        yield part.name, str(cells[0].fingerprints.data or "unknown"), said or "none"
