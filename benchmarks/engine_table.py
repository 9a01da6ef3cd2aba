"""Print the tables of `docs/performance.md` from the raw results of `limbeck bench engine`: `python benchmarks/engine_table.py`."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "engine"


def row(cell: dict[str, Any]) -> list[str]:
    """One variant at one T."""
    name = f"`{cell['variant']}`"
    if not cell["fits"]:
        return [str(cell["steps"]), name, f"does not fit ({cell['predicted_bytes'] / 1e9:.0f} GB)", *[""] * 6]
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
        held = json.loads(path.read_text(encoding="utf-8"))
        print(f"\n{path.name}\n")
        print("| T | variant | time | of unroll | of the convolutions alone | memory | of unroll | rel. error | cosine |")
        print("|" + "---|" * 9)
        for cell in held["cells"]:
            print(f"| {' | '.join(row(cell))} |")
