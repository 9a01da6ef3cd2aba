"""Running a benchmark, and its submission: what somebody hands in who has run one, whole or not at all.

    <folder>/submission.json    methods, settings, fingerprints, versions, hardware, every cell with its accuracies, the tables
    <folder>/README.md          the same for people

Reading it makes the tables again from the cells, and the cells' summaries from their values. That finds slips, missing cells and
edited numbers; it cannot tell whether anybody measured them, which only another run with the same settings and seeds does.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from limbeck.accuracy import Accuracies
from limbeck.evaluation.statistics import summarise
from limbeck.methods.registry import method_of
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import new_folder, read_json, write_json, write_text
from limbeck.runtime.fingerprint import encodable, fingerprint
from limbeck.runtime.tables import Grid
from limbeck.studies.cells import PLACES, Cell, CellRecord
from limbeck.studies.comp_dd import Benchmark, Part
from limbeck.studies.compare import FREE, SAME, Running, run_cells
from limbeck.studies.recovery import Levels, Recovery, table_lines, tabulate

FORMAT = 1
FILE, CARD = "submission.json", "README.md"
KEPT = ("accuracy", "network", "best_iteration", "skipped_share", "seconds", "cpu_seconds", "peak_memory", "data", "environment")
SUMMARIES = ("distilled", "initial", "random", "full")
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
    matrix = run_cells(cells, output, running)
    paths = {"cells": str(output / "cells")}
    if matrix.results:
        paths |= {name: str(output / f"comp-dd.{name}") for name in ("json", "md")}
    if matrix.results and not (matrix.failed or matrix.left):
        write_submission(output / "submission", benchmark, parts, cells, matrix.results, notes)
        paths["submission"] = str(output / "submission")
    found = Recovery(
        title=f"{benchmark.name}: {', '.join(dict.fromkeys(cell.facts['method'] for cell in cells))}",
        benchmark=benchmark.name,
        levels=benchmark.levels,
        seeds=tuple(sorted({cell.facts["seed"] for cell in cells})),
        tables=tabulate(benchmark.levels, list(matrix.results.values())),
        notes=tuple(notes),
        failed=matrix.failed,
        left=tuple(matrix.left),
        paths=paths,
    )
    if matrix.results:
        write_text(output / "comp-dd.md", found.markdown)
        write_json(output / "comp-dd.json", encodable(found.to_dict()))
    return found


@dataclass(frozen=True)
class Submission:
    """What `submission.json` holds, whole and in agreement with itself."""

    held: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The layout of the file."""
        return dict(self.held)

    @property
    def title(self) -> str:
        """The benchmark and the methods."""
        return f"{self.held['benchmark']}: {', '.join(self.held['methods'])}"

    def __str__(self) -> str:
        """How large it is, and its checksum."""
        return f"{len(self.held['cells'])} cells, checksum {self.held['checksum'][:16]}…"

    @property
    def card(self) -> str:
        """`README.md`, Markdown."""
        held, tables = self.held, [Levels.from_dict(table) for table in self.held["tables"]]
        lines = [
            f"# {self.title}",
            "",
            "Accuracies are means over distillation seeds, ± half of the 95 % t-interval; the recovery ratio is that of an "
            "accuracy to the full data's. `limbeck comp-dd --check .` reads this folder and makes the tables again from its cells.",
            "",
            *Grid.of([("", ""), *_facts(held)]).markdown,
            "",
            *table_lines(tables),
            *(f"- {note}" for note in held["notes"]),
            *([""] if held["notes"] else []),
            "## Images and experts",
            "",
            *Grid.of([("subset", "images", "experts by seed"), *_fingerprints(held)]).markdown,
            "",
            "## Cells",
            "",
            "`submission.json` has the settings of each that are not Limbeck's defaults, and the accuracy of every network.",
            "",
            *Grid.of([("cell", "recipe", "accuracy, %", "full data, %", "seconds"), *map(_row, held["cells"])]).markdown,
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
    facts = [cell.facts for cell in cells]
    found = [_cell(cell, records[cell.name]) for cell in cells]
    held: dict[str, Any] = {
        "format": FORMAT,
        "benchmark": benchmark.name,
        "levels": benchmark.levels,
        "subsets": parts,
        **{f"{key}s": list(dict.fromkeys(one[key] for one in facts)) for key in ("method", "ipc", "seed")},
        "environments": _distinct([cell["environment"] for cell in found]),
        "notes": notes,
        "cells": found,
        "tables": [table.to_dict() for table in tabulate(benchmark.levels, list(map(CellRecord.from_dict, found)))],
    }
    held = encodable(held)
    held["checksum"] = checksum(held)
    with new_folder(folder) as made:
        write_json(made / FILE, held)
        write_text(made / CARD, Submission(held).card)


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
        _check(held, benchmarks)
        made = Submission(held).card  # reads what is shown to people, so that none of it is broken
        if (folder / CARD).is_file() and (folder / CARD).read_text(encoding="utf-8") != made:
            raise ValueError(f"{CARD} says something else than {FILE}")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or "nothing"
        what = reason if isinstance(error, ValueError) else f"it is broken ({type(error).__name__}: {reason})"
        raise UsageError(f"--check: {str(path)!r} cannot be accepted: {what[:400]}") from error
    return Submission(held)


def checksum(held: Mapping[str, Any]) -> str:
    """SHA-256 of everything but the checksum itself, as JSON with sorted keys."""
    rest = {key: value for key, value in held.items() if key != "checksum"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _cell(cell: Cell, record: CellRecord) -> dict[str, Any]:
    """What is handed in of a cell: no path of the machine it was run on."""
    held, experts = record.to_dict(), {}
    if _reads_experts(cell.settings):
        made_from = {key: value for key, value in cell.changed.items() if key.startswith(EXPERTS)}
        experts = {"experts": fingerprint(record.data.get("fingerprint"), made_from)}
    return {
        "name": cell.name,
        "facts": dict(cell.facts),
        "recipe": cell.recipe,
        "overrides": {key: value for key, value in cell.overrides.items() if key not in PLACES},
        "settings": cell.changed,
        "fingerprints": {"settings": fingerprint(cell.changed), "data": record.data.get("fingerprint"), **experts},
        **{key: held.get(key) for key in KEPT},
    }


def _reads_experts(settings: DistillSettings) -> bool:
    method = method_of(settings.method)
    return method.experts or (method.kind == "objective" and settings.init == "correct")


def _check(held: Mapping[str, Any], benchmarks: Sequence[Benchmark]) -> None:
    """Raise `ValueError` where something does not agree, or whatever reading it raises where it is broken."""
    if held["format"] != FORMAT:
        raise ValueError(f"it is of format {held['format']!r}, not {FORMAT}")
    benchmark = next((one for one in benchmarks if one.name == held["benchmark"]), None)
    if benchmark is None:
        raise ValueError(f"its benchmark {held['benchmark']!r} is none of {', '.join(one.name for one in benchmarks)}")
    _agree(held["levels"], encodable(benchmark.levels), "levels", "the benchmark has")
    known = {part.name: encodable(part) for part in benchmark.parts}
    for part in held["subsets"]:
        _agree(part, known.get(part["name"]), f"subsets: {part['name']}", "the benchmark has")
    _check_whole(held)
    for cell in held["cells"]:
        _check_cell(cell, known)
    _check_alike(held["cells"])
    _agree(held["environments"], _distinct([cell["environment"] for cell in held["cells"]]), "environments", "the cells have")
    if not isinstance(held["notes"], list) or not all(isinstance(note, str) for note in held["notes"]):
        raise ValueError("notes are no list of sentences")
    made = tabulate(benchmark.levels, list(map(CellRecord.from_dict, held["cells"])))
    _agree(held["tables"], encodable([table.to_dict() for table in made]), "tables", "the cells make")
    if checksum(held) != held["checksum"]:
        raise ValueError("its checksum is another: it was changed after it had been written")


def _check_whole(held: Mapping[str, Any]) -> None:
    """Every cell of the grid once, and no other."""
    wanted = list(product((part["name"] for part in held["subsets"]), held["methods"], held["ipcs"], held["seeds"]))
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError("its subsets, methods, ipcs and seeds are no grid of different cells")
    there = [tuple(cell["facts"][key] for key in ("subset", "method", "ipc", "seed")) for cell in held["cells"]]
    grid, found = set(wanted), set(there)
    if missing := [one for one in wanted if one not in found]:
        raise ValueError(f"{len(missing)} of its {len(wanted)} cells are missing: {_named(missing)}")
    if more := [one for one, times in Counter(there).items() if times > 1 or one not in grid]:
        raise ValueError(f"it has cells twice or beyond its grid: {_named(more)}")


def _check_cell(cell: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> None:
    """The facts are those of the settings, and the summaries those of the values."""
    facts, settings, name = cell["facts"], cell["settings"], cell["name"]
    part, defaults = parts[facts["subset"]], DistillSettings()
    _agree([facts["category"], facts["level"]], [part["category"], part["level"]], f"{name}: facts", "the benchmark has")
    said = [settings.get("data.source"), *(settings.get(key, getattr(defaults, key)) for key in ("method", "ipc", "seed"))]
    _agree([part["source"], facts["method"], facts["ipc"], facts["seed"]], said, f"{name}: facts", "its settings have")
    _agree(cell["fingerprints"]["settings"], fingerprint(settings), f"{name}: fingerprints.settings", "its settings make")
    for kind in ("distilled", "full"):
        if kind not in cell["accuracy"]:
            raise ValueError(f"{name} has no accuracy of {'the full data' if kind == 'full' else 'its images'}")
    for kind, summary in cell["accuracy"].items():
        if kind in SUMMARIES:
            values = summary["values"]
            if not values or not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
                raise ValueError(f"{name}: accuracy.{kind}.values are not all in [0, 1]")
            made = summarise(values).to_dict()
            _agree({key: summary[key] for key in made}, made, f"{name}: accuracy.{kind}", "its values make")


def _check_alike(cells: Sequence[Mapping[str, Any]]) -> None:
    """One set of images for all cells of a subset, and one evaluation for all of them with as many images per class."""
    images: dict[str, Any] = {}
    settings: dict[tuple[str, int], Mapping[str, Any]] = {}
    for cell in cells:
        subset, ipc = cell["facts"]["subset"], cell["facts"]["ipc"]
        own = cell["fingerprints"]["data"]
        _agree(own, images.setdefault(subset, own), f"{cell['name']}: fingerprints.data", "others of its subset have")
        first = settings.setdefault((subset, ipc), cell["settings"])
        for key in sorted(first.keys() | cell["settings"].keys()):
            if key.startswith(SAME) and key not in FREE:
                said, other = cell["settings"].get(key), first.get(key)
                _agree(said, other, f"{cell['name']}: settings.{key}", "others of its subset have")


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


def _facts(held: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Subsets", ", ".join(part["name"] for part in held["subsets"])
    yield "Images per class", ", ".join(map(str, held["ipcs"]))
    yield "Distillation seeds", ", ".join(map(str, held["seeds"]))
    environments = [one or {} for one in held["environments"]]
    for title, keys in (("Versions", ("limbeck", "python", "torch")), ("Hardware", ("device", "cores"))):
        said = (", ".join(f"{key} {one[key]}" for key in keys if key in one) for one in environments)
        yield title, "; ".join(dict.fromkeys(text for text in said if text)) or "unknown"
    yield "Checksum", str(held["checksum"])


def _fingerprints(held: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for part in held["subsets"]:
        cells = [cell for cell in held["cells"] if cell["facts"]["subset"] == part["name"]]
        experts: dict[int, dict[str, None]] = {}
        for cell in cells:
            if "experts" in cell["fingerprints"]:
                experts.setdefault(cell["facts"]["seed"], {})[cell["fingerprints"]["experts"]] = None
        said = "; ".join(f"{seed}: {' '.join(names)}" for seed, names in experts.items())
        yield part["name"], str(cells[0]["fingerprints"]["data"] or "unknown"), said or "none"


def _row(cell: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy, spent = Accuracies.from_dict(cell["accuracy"]), cell["seconds"] or {}
    return (
        cell["name"],
        cell["recipe"],
        accuracy.distilled.with_margin,
        f"{100 * accuracy.full.mean:.1f}" if accuracy.full.known else "–",
        f"{sum(spent.values()):.0f}",
    )
