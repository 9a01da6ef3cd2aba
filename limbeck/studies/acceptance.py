"""A submission is accepted that is whole and agrees with itself: its tables are made again from the cells, and their summaries
from the values. That finds slips and edits, not whether anybody measured them.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from limbeck.evaluation.statistics import summarise
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError, one_line, reason
from limbeck.runtime.files import read_json
from limbeck.runtime.fingerprint import encodable, fingerprint, plain
from limbeck.studies.comp_dd import Benchmark, Part
from limbeck.studies.compare import FREE, SAME
from limbeck.studies.recovery import tabulate
from limbeck.studies.submission import CARD, FILE, FORMAT, CellEntry, Submission, checksum, distinct

CLOSE = 1e-9  # relative: another processor rounds otherwise
LOOSE = ("seeds_needed",)  # found by a search that rounding may move


def read_submission(folder: Path, benchmarks: Sequence[Benchmark]) -> Submission:
    """A submission that is whole and agrees with itself.

    Args:
        folder: that holds it.
        benchmarks: those that there are.

    Raises:
        UsageError: when it cannot be read, misses a cell, or says something that its cells do not; the message is one line.
    """
    path = folder / FILE
    if not os.path.isfile(path):
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
    _agree(held["environments"], distinct([cell.environment for cell in found.cells]), "environments", "the cells have")
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
