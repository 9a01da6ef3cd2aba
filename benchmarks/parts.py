"""EDF beside the same run without its parts, or in another precision, over several distillation seeds, paired.

    python benchmarks/parts.py scenes/hard-edf-ipc3 --seeds 0 1 2 3 4 --variants edf neither --jobs 2

A finished cell is one JSON file under `benchmarks/results/<recipe>/<variant>-seed<n>.json`; cells that are there are not run
again, so that the benchmark goes on where it was stopped. At the end it prints the mean accuracies with 95 % intervals over the
distillation seeds, and the interval of the paired differences to the first variant.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from limbeck.evaluation.statistics import summarise
from limbeck.runtime.files import write_json
from limbeck.runtime.metrics import read_metrics

VARIANTS = {
    "edf": [],
    "dropout": ["enhance.weighting=none"],
    "enhancement": ["match.criterion=none"],
    "neither": ["enhance.weighting=none", "match.criterion=none"],
    "matched": ["match.match_norm=true"],
    "constant": ["enhance.weighting=constant"],
    "shuffled": ["enhance.weighting=shuffled"],
    "bf16": ["engine.precision=bf16"],
}
RESULTS = Path(__file__).parent / "results"


def cell_path(recipe: str, variant: str, seed: int) -> Path:
    return RESULTS / recipe.replace("/", "-") / f"{variant}-seed{seed}.json"


def run_cell(recipe: str, variant: str, seed: int, overrides: list[str]) -> None:
    """Run one cell in a process of its own and keep what it measured."""
    path = cell_path(recipe, variant, seed)
    if path.exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        words = [*VARIANTS[variant], f"seed={seed}", *overrides]
        command = [sys.executable, "-m", "limbeck", "distill", recipe, "--output", str(run), "--json", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed: {done.stderr.splitlines()[-1]}")
        results = json.loads(done.stdout)
        compared = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "comparison"]
        kept = {
            name: results[name]
            for name in ("accuracy", "recovery_ratio", "best_iteration", "skipped_share", "seconds", "environment")
        }
        means = {name: sum(row[name] for row in compared) / len(compared) for name in ("cosine", "norm_ratio")} if compared else {}
        write_json(path, {"recipe": recipe, "variant": variant, "seed": seed, "overrides": words, **kept, "comparison": means})
    print(f"{variant} seed {seed}: {100 * results['accuracy']['distilled']['mean']:.1f} %", flush=True)


def show(recipe: str, variants: list[str], seeds: list[int]) -> None:
    """Print the table."""
    cells = {variant: [json.loads(cell_path(recipe, variant, seed).read_text()) for seed in seeds] for variant in variants}
    print(f"\n{recipe}, distillation seeds {seeds}, test accuracy in %")
    for kind in ("random", "initial", "full"):
        print(f"  {kind:12}", _interval([cell["accuracy"][kind]["mean"] for cell in cells[variants[0]]]))
    first = [cell["accuracy"]["distilled"]["mean"] for cell in cells[variants[0]]]
    for variant, held in cells.items():
        accuracies = [cell["accuracy"]["distilled"]["mean"] for cell in held]
        differences = [own - other for own, other in zip(first, accuracies, strict=True)]
        against = f"   {variants[0]} − {variant}: {_interval(differences)}" if variant != variants[0] else ""
        facts = [f"{name} {sum(c['comparison'][name] for c in held) / len(held):.3f}" for name in held[0]["comparison"]]
        skipped = sum(cell["skipped_share"] for cell in held) / len(held)
        print(f"  {variant:12} {_interval(accuracies)}{against}   {', '.join([*facts, f'skipped {100 * skipped:.0f} %'])}")


def _interval(values: list[float]) -> str:
    summary = summarise(values)
    if summary["ci95"] is None:
        return f"{100 * summary['mean']:.1f}"
    low, high = summary["ci95"]
    return f"{100 * summary['mean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="EDF beside the same run without its parts")
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["edf", "neither"])
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (give each OMP_NUM_THREADS=cores/jobs)")
    parser.add_argument("--show", action="store_true", help="only print the table of finished cells")
    parser.add_argument("overrides", nargs="*", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    if not arguments.show:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            cells = [
                (arguments.recipe, variant, seed, arguments.overrides) for seed in arguments.seeds for variant in arguments.variants
            ]
            for finished in [pool.submit(run_cell, *cell) for cell in cells]:
                finished.result()
    show(arguments.recipe, arguments.variants, arguments.seeds)
