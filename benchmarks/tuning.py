"""Settings that `limbeck tune` reads from experts and start images, beside those that were found by trying, cell by cell.

    python benchmarks/tuning.py --cifar10 cifar10.npz --imagenette imagenette/ --seeds 0 1 2

Every cell is a distillation of its own, whose figures are kept when it ends; a second call goes on where the first one was stopped.
Both distil from the same experts, with the same number of iterations, and are evaluated alike; checkpoints are chosen on validation
images. `--table` prints what there is. Seeds of settings found by trying are those reported here too, which favours them.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill
from limbeck.runs.tuning import tune
from limbeck.runtime.files import write_json

KEPT = Path(__file__).parent / "results" / "tuning"
SHORT = {"outer.iterations": "200", "schedule.iterations": "150", "eval.every": "50", "eval.seeds": "3", "features": "none"}
SETS = {
    "scenes:easy": ("scenes", {}),
    "scenes:hard": ("scenes/hard-edf-ipc3", {}),
    "cifar10": ("cifar10/edf-ipc1", {}),
    "imagenette": ("imagenette/edf-ipc1", {"data.per_class": "100"}),
}


def cells(given: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Data, kind of settings and seed, the seeds outermost."""
    for seed in given.seeds:
        for name in SETS:
            if name in ("cifar10", "imagenette") and getattr(given, name) is None:
                continue
            for kind in ("tried", "tuned"):
                yield name, kind, seed


def made(name: str, kind: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of a cell."""
    recipe, more = SETS[name]
    place = {"data.source": str(getattr(given, name))} if name in ("cifar10", "imagenette") else {}
    words = {**SHORT, **more, **place, "seed": str(seed)}
    settings = load_recipe(recipe, words)
    found = None
    if kind == "tuned":
        found = tune(settings)
        settings = load_recipe(recipe, {**words, **{key: f"{value:g}" for key, value in found.keys.items()}})
    with tempfile.TemporaryDirectory() as folder:
        run = distill(settings, Path(folder) / "run")
    kept = {"data": name, "kind": kind, "seed": seed, "settings": None if found is None else found.to_dict()}
    return kept | {"accuracy": run.accuracy.to_dict(), "best_iteration": run.best_iteration}


def table() -> str:
    """The mean of the test accuracies by data set and kind, and how far they are apart, as Markdown."""
    held: dict[tuple[str, str], dict[int, float]] = {}
    for path in sorted(KEPT.glob("*.json")):
        one = json.loads(path.read_text())
        held.setdefault((one["data"], one["kind"]), {})[one["seed"]] = 100 * one["accuracy"]["distilled"]["mean"]
    lines = ["| data | seeds | tried | tuned | tuned − tried |", "|---|---|---|---|---|"]
    for name in SETS:
        tried, tuned = held.get((name, "tried"), {}), held.get((name, "tuned"), {})
        both = sorted(tried.keys() & tuned.keys())
        if both:
            apart = [tuned[seed] - tried[seed] for seed in both]
            means = (statistics.mean(found[seed] for seed in both) for found in (tried, tuned))
            spread = f" ± {statistics.stdev(apart):.1f}" if len(both) > 1 else ""
            lines.append(
                f"| {name} | {len(both)} | {' | '.join(f'{one:.1f}' for one in means)} | {statistics.mean(apart):+.1f}{spread} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, help="the .npz; left out without")
    parser.add_argument("--imagenette", type=Path, help="the folder; left out without")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="only print what there is")
    given = parser.parse_args()
    for name, kind, seed in () if given.table else cells(given):
        place = KEPT / f"{name.replace(':', '-')}-{kind}-{seed}.json"
        if not place.exists():
            KEPT.mkdir(parents=True, exist_ok=True)
            write_json(place, made(name, kind, seed, given))
    print(table())


if __name__ == "__main__":
    main()
