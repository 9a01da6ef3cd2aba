"""Print the tables of `docs/performance.md` from the raw results of `engine.py`: `python benchmarks/engine_table.py`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "engine"


def table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cells as Markdown, a row for every variant at every T."""
    columns = "| T | variant | time | of unroll | of the convolutions alone | memory | of unroll | rel. error | cosine |"
    lines = []
    for ipc in dict.fromkeys(cell["ipc"] for cell in cells):
        lines += ["", f"{ipc} image{'' if ipc == 1 else 's'} per class", "", columns, "|" + "---|" * 9]
        lines += [f"| {' | '.join(row(cell))} |" for cell in cells if cell["ipc"] == ipc]
    return [*lines, ""]


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
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def size(value: float) -> str:
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    for path in sorted(RESULTS.glob("*.json"), key=lambda path: int(path.stem.removeprefix("ipc"))):
        print(path.name, *table(json.loads(path.read_text(encoding="utf-8"))["cells"]), sep="\n")
