"""Print the tables of `docs/performance.md` from the raw results of `engine.py`: `python benchmarks/engine_table.py`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any

RESULTS = Path(__file__).parent / "results" / "engine"


def table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cells as Markdown, a row for every variant at every T."""
    columns = "T | variant | time | of unroll | of the convolutions alone | memory | of unroll | rel. error | cosine |"
    several = len({cell.get("isa") for cell in cells}) > 1
    lines = []
    for ipc in dict.fromkeys(cell["ipc"] for cell in cells):
        lines += ["", f"{ipc} image{'' if ipc == 1 else 's'} per class", ""]
        lines += ["| instructions | " * several + "| " * (not several) + columns, "|" + "---|" * (9 + several)]
        lines += [f"| {' | '.join([cell.get('isa', '')] * several + row(cell))} |" for cell in cells if cell["ipc"] == ipc]
    return [*lines, ""]


def growth(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """How time and memory of every variant grow with T, and its time with the images of a step: lines fitted by least squares.

    The residual is the largest distance of a measurement from its line, as a share of the measurement.
    """
    lines = []
    measured = [cell for cell in cells if "seconds" in cell]
    for what, unit, held, along in (
        ("median_seconds", seconds, ("isa", "variant", "batch"), "steps"),
        ("peak_bytes", size, ("isa", "variant", "batch"), "steps"),
        ("median_seconds", seconds, ("isa", "variant", "steps"), "batch"),
    ):
        groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for cell in measured:
            groups.setdefault(tuple(cell.get(key) for key in held), []).append(cell)
        for group, found in groups.items():
            if len(found) < 3:
                continue
            at, values = ([cell[key] for cell in found] for key in (along, what))
            slope, base = linear_regression(at, values)
            residual = max(abs(value - base - slope * x) / value for x, value in zip(at, values, strict=True))
            isa, variant, fixed = group
            name = f"`{variant}`" if isa in (None, "native") else f"`{variant}`, {isa}"
            given = f"{fixed} images | T" if along == "steps" else f"T = {fixed} | images"
            lines.append(f"| {name} | {given} | {unit(base)} | {unit(slope)} | {100 * residual:.0f} % |")
    columns = "| variant | at | grows with | at 0 | each | largest residual |"
    return ["", columns, "|" + "---|" * 6, *lines, ""] if lines else []


def row(cell: Mapping[str, Any]) -> list[str]:
    """One variant at one T."""
    name = f"`{cell['variant']}`"
    if not cell["fits"]:
        return [str(cell["steps"]), name, f"does not fit ({size(cell['predicted_bytes'])})", *[""] * 6]
    if "error" in cell:
        return [str(cell["steps"]), name, f"failed: {cell['error']}", *[""] * 6]
    errors = (cell.get("errors") or {}).get("images")
    return [
        str(cell["steps"]),
        name,
        seconds(cell["median_seconds"]),
        ratio(cell.get("times_unroll")),
        ratio(cell.get("times_convolutions")),
        size(cell["peak_bytes"]),
        ratio(cell.get("memory_of_unroll")),
        f"{errors['relative']:.0e}" if errors else "",
        f"{errors['cosine']:.4f}" if errors else "",
    ]


def seconds(value: float) -> str:
    return f"{value:.2f} s" if abs(value) >= 1 else f"{1000 * value:.0f} ms"


def size(value: float) -> str:
    return f"{value / 1e9:.1f} GB" if abs(value) >= 1e9 else f"{value / 1e6:.0f} MB"


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    for path in sorted(RESULTS.glob("*.json"), key=lambda path: int(path.stem.removeprefix("ipc"))):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        print(path.name, *table(cells), *growth(cells), sep="\n")
