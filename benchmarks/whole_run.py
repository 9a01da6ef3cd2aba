"""Where the seconds of a whole run go, from the start of the process to its report, of every recipe that is named.

    python benchmarks/whole_run.py scenes "cifar10/edf-ipc1 data.source=cifar10.npz" --isa avx2

Each runs as `limbeck distill` would, in a process and a cache of its own, so that nothing is found again. Parts lie within others
(maps within the outer loop, networks of the full data within the evaluation): each has the seconds that no part inside it has.
`--warm` runs each twice and shows the second, which finds data, experts, compiled code and networks of the full data.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isa import add_isa, take_isa

PARTS = {  # where each part is: a function, or a method of a class
    "data": "limbeck.runs.workspace:load_data",
    "maps": "limbeck.methods.enhance:Enhancement.maps",
    "weights": "limbeck.methods.enhance:Enhancement.weights",
    "periodic evaluations": "limbeck.methods.outer:OuterLoop._evaluate",
    "full data": "limbeck.evaluation.full:FullData.found",
    "report": "limbeck.report.html:write_report",
    "stage": "limbeck.runs.folder:RunFolder.stage",
}
KEPT = Path(__file__).parent / "results" / "whole-run.json"


class Clock:
    """Seconds by part; what is inside a part stops its clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.open = ["start and rest"]
        self.since = time.perf_counter()

    def turn(self) -> None:
        now = time.perf_counter()
        self.seconds[self.open[-1]] += now - self.since
        self.since = now

    def enter(self, name: str) -> None:
        self.turn()
        self.open.append(name)

    def leave(self) -> None:
        self.turn()
        self.open.pop()


def watched(clock: Clock, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with its seconds under that name."""

    def timed(*given: Any, **more: Any) -> Any:
        clock.enter(name)
        try:
            return function(*given, **more)
        finally:
            clock.leave()

    return timed


def run(words: list[str]) -> dict[str, float]:
    """Seconds by part of `limbeck distill WORDS`, in this process."""
    clock = Clock()
    from contextlib import contextmanager

    from limbeck.cli.main import main

    for name, place in PARTS.items():
        module, _, path = place.partition(":")
        owner: Any = importlib.import_module(module)
        *outer, last = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        function = getattr(owner, last)
        if name != "stage":
            setattr(owner, last, watched(clock, name, function))
            continue

        @contextmanager
        def stage(self: Any, called: str, entered: Any = function) -> Any:
            clock.enter(called)
            try:
                with entered(self, called):
                    yield
            finally:
                clock.leave()

        owner.stage = stage
    if status := main(["distill", *words]):
        sys.exit(status)
    clock.turn()
    return dict(clock.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="+", help="a recipe, with settings after it in the same word")
    parser.add_argument("--warm", action="store_true", help="run each twice, and show the second")
    parser.add_argument("--output", type=Path, default=KEPT, help="where the seconds are added")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    add_isa(parser)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(run(given.recipe)))
        return
    take_isa(given.isa)
    found = json.loads(given.output.read_text()) if given.output.exists() else {}
    for words in given.recipe:
        with tempfile.TemporaryDirectory() as folder:
            for attempt in range(1 + given.warm):
                output = ["--output", str(Path(folder) / f"run-{attempt}")]
                inside = [sys.executable, __file__, "--inside", "--", *words.split(), *output]
                began = time.perf_counter()
                cache = {"LIMBECK_CACHE": str(Path(folder) / "cache"), "TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "compiled")}
                done = subprocess.run(inside, stdout=subprocess.PIPE, text=True, env={**os.environ, **cache})
                whole = time.perf_counter() - began
                if done.returncode:
                    sys.exit(done.returncode)  # it has said why
        parts = json.loads(done.stdout.splitlines()[-1])
        parts["start and rest"] += whole - sum(parts.values())
        name = f"{words.split()[0]}, {given.isa}{', warm' if given.warm else ''}"
        found[name] = {part: round(spent, 1) for part, spent in parts.items()}
        given.output.write_text(json.dumps(found, indent=1) + "\n")
        print(table({name: found[name]}))


def table(found: dict[str, dict[str, float]]) -> str:
    """Seconds and shares as Markdown, a column for every run."""
    parts = list(dict.fromkeys(part for run in found.values() for part in run))
    lines = [f"| | {' | '.join(found)} |", "|" + "---|" * (len(found) + 1)]
    for part in parts:
        cells = [f"{run[part]:.1f} s, {100 * run[part] / sum(run.values()):.0f} %" if part in run else "" for run in found.values()]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join([*lines, f"| all | {' | '.join(f'{sum(run.values()):.0f} s' for run in found.values())} |"])


if __name__ == "__main__":
    main()
