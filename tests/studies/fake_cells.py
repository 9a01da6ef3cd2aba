"""Cells whose processes do what they are told in a few milliseconds, and leave what a distillation would."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from limbeck.runs.settings import DistillSettings
from limbeck.studies import matrix
from limbeck.studies.cells import Cell

# What every process does: note that it was started and how, do its own part, then leave results and end well.
WORKER = """
import json, os, signal, sys, time
from pathlib import Path
run, started, body, result = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
run.mkdir(parents=True, exist_ok=True)
with started.open("a") as file:
    file.write(json.dumps({"cell": run.name, "pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}) + chr(10))
def until(path, seconds=20):
    end = time.monotonic() + seconds
    while not Path(path).exists():
        if time.monotonic() > end:
            sys.exit("limbeck: failed: nobody came")
        time.sleep(0.01)
exec(body)
(run / "results.json").write_text(result)
"""


def accuracy(mean: float) -> dict[str, Any]:
    return {"mean": mean, "std": 0.0, "ci95": None, "n": 1, "values": [mean]}


def results(mean: float = 0.5, **more: Any) -> dict[str, Any]:
    """What a run folder's `results.json` holds."""
    return {
        "accuracy": {"distilled": accuracy(mean), "random": accuracy(0.2), "full": accuracy(0.8)},
        "network": "ConvNetD3-w16",
        "skipped_share": 0.25,
        "seconds": {"experts": 10.0, "initial": 1.0, "distil": 4.0, "evaluate": 2.0},
        "peak_memory": {"experts": 100, "initial": 100, "distil": 300, "evaluate": 900},
        "predictions": "large",
        **more,
    }


def cell(name: str, *, seed: int = 0, settings: DistillSettings | None = None, **facts: Any) -> Cell:
    made = replace(settings or DistillSettings(), seed=seed)
    return Cell(name, "scenes", {"seed": str(seed)}, made, {"method": name, "ipc": 1, "seed": seed, **facts})


def command(
    started: Path, bodies: Mapping[str, str] | None = None, result: Callable[[Cell], Mapping[str, Any]] = lambda cell: results()
) -> Callable[[Cell, Path], list[str]]:
    """A command whose processes run `bodies[name]` first and note themselves in the file `started`."""
    import json

    def words(cell: Cell, run: Path) -> list[str]:
        body = (bodies or {}).get(cell.name, "")
        return [sys.executable, "-S", "-c", WORKER, str(run), str(started), body, json.dumps(result(cell))]

    return words


def starts(started: Path) -> list[dict[str, Any]]:
    """The processes that were started, in order."""
    import json

    return [json.loads(line) for line in started.read_text().splitlines()] if started.exists() else []


def run_matrix(
    cells: list[Cell], folder: Path, *, command: Callable[[Cell, Path], list[str]] = matrix.distill_command, **how: Any
) -> matrix.Matrix:
    """The runner, with these words for the process of a cell."""
    with mock.patch.object(matrix, "distill_command", command):
        return matrix.run_matrix(cells, folder, matrix.Running(**how))
