"""Running a benchmark, and its submission: `submission.json` and a card."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from limbeck.accuracy import Accuracies
from limbeck.evaluation.scores import told
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runtime.files import new_folder, write_json, write_text
from limbeck.runtime.fingerprint import encodable, fingerprint
from limbeck.runtime.records import Record
from limbeck.runtime.tables import Grid
from limbeck.studies.cells import PLACES, Cell, CellRecord, doubts_of
from limbeck.studies.comp_dd import Benchmark, Part
from limbeck.studies.entrants import said_of
from limbeck.studies.matrix import Running, run_matrix
from limbeck.studies.recovery import RECOVERY, Levels, Recovery, table_lines, tabulate
from limbeck.studies.versions import versions_said

FORMAT = 1
FILE, CARD = "submission.json", "README.md"
EXPERTS = ("data.", "network", "augment.", "experts.", "seed")  # what experts are made from, beside the images themselves


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
    for remark in said_of(cells):
        running.progress.say(remark)
    matrix = run_matrix(cells, output, replace(running, checked=benchmark.published))  # ImageNet's folders were looked through
    paths, doubts, versions = {"cells": str(output / "cells")}, doubts_of(matrix.results), versions_said(matrix.results.values())
    if matrix.results:
        paths |= {name: str(output / f"comp-dd.{name}") for name in ("json", "md")}
    if matrix.results and not (matrix.failed or matrix.left):
        said = [*notes, *versions, *told(doubts)]
        write_submission(output / "submission", benchmark, parts, cells, matrix.results, said)
        paths["submission"] = str(output / "submission")
    found = Recovery(
        title=f"{benchmark.name}: {', '.join(dict.fromkeys(cell.facts['method'] for cell in cells))}",
        benchmark=benchmark.name,
        levels=benchmark.levels,
        seeds=tuple(sorted({cell.facts["seed"] for cell in cells})),
        tables=tabulate(benchmark.levels, list(matrix.results.values())),
        notes=(*notes, *versions),
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
        return cls(
            name=cell.name,
            facts=cell.facts,
            recipe=cell.recipe,
            overrides={key: value for key, value in cell.overrides.items() if key not in PLACES},
            settings=cell.changed,
            fingerprints=Fingerprints(
                settings=fingerprint(cell.changed), data=data, experts=experts if cell.needs_experts else None
            ),
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
        environments=tuple(distinct([cell.environment for cell in found])),
        notes=tuple(notes),
        cells=found,
        tables=tabulate(benchmark.levels, [cell.record for cell in found]),
    )
    held = replace(made_of, checksum=checksum(encodable(made_of)))
    with new_folder(folder) as made:
        write_json(made / FILE, held)
        write_text(made / CARD, held.card)


def checksum(held: Mapping[str, Any]) -> str:
    """SHA-256 of everything but the checksum itself, as JSON with sorted keys."""
    rest = {key: value for key, value in held.items() if key != "checksum"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def distinct(values: Sequence[Any]) -> list[Any]:
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
