"""What `limbeck plan` predicts, beside what `limbeck distill` then takes: time of the stages compile and distil, peak memory.

    python benchmarks/plan.py --cifar10 cifar10.npz --imagenette imagenette/ --output benchmarks/results/plan.json

Five recipes, each with fewer iterations and experts than it names, so that all take some ten minutes; `--recipes` takes some of
them. A plan compiles nothing and counts a compilation in full, so that the distillation begins with an empty cache of compiled
code; experts are trained and images decoded before.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from isa import add_isa, take_isa

from limbeck.runtime.files import write_json

SHORT = [
    "engine.compile=yes",
    "experts.num_experts=2",
    "eval.full_epochs=1",
    "eval.seeds=2",
    "outer.iterations=240",
    "eval.every=80",
]
RECIPES: dict[str, tuple[str | None, list[str]]] = {
    "scenes": (None, []),
    "scenes/hard-edf-ipc3": (None, ["experts.train_epochs=6"]),
    "cifar10/edf-ipc1": ("cifar10", []),
    "cifar10/edf-ipc10": ("cifar10", ["outer.iterations=80", "eval.every=40"]),
    "imagenette/edf-ipc1": ("imagenette", []),
}


def limbeck(*words: str, **env: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "limbeck", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.splitlines()[-1]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def row(recipe: str, words: list[str]) -> dict[str, Any]:
    """Predicted and taken."""
    limbeck("experts", recipe, *words)
    predicted = limbeck("plan", recipe, *words)
    with tempfile.TemporaryDirectory() as scratch:
        empty = str(Path(scratch) / "compiled")
        taken = limbeck("distill", recipe, "--output", str(Path(scratch) / "run"), *words, TORCHINDUCTOR_CACHE_DIR=empty)
    seconds = taken["seconds"]["compile"] + taken["seconds"]["distil"]
    memory = taken["peak_memory"]["distil"]
    return {
        "recipe": recipe,
        "overrides": words,
        "seconds": {"predicted": predicted["seconds"], "taken": seconds, "ratio": predicted["seconds"] / seconds},
        "peak_memory": {"predicted": predicted["peak_memory"], "taken": memory, "ratio": predicted["peak_memory"] / memory},
        "parts": predicted["parts"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", help="the images of CIFAR-10")
    parser.add_argument("--imagenette", help="those of Imagenette")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    add_isa(parser)
    arguments = parser.parse_args()
    for recipe in arguments.recipes:
        source = RECIPES[recipe][0]
        if source and getattr(arguments, source) is None:
            parser.error(f"--{source} is missing, which {recipe} needs; --recipes leaves it out")
    take_isa(arguments.isa)
    rows = []
    print("| recipe | time predicted | taken | | memory predicted | taken | |\n|---|---|---|---|---|---|---|")
    for recipe in arguments.recipes:
        source, words = RECIPES[recipe]
        data = [f"data.source={getattr(arguments, source)}"] if source else []
        rows.append(row(recipe, [*SHORT, *words, *data]))
        time, memory = rows[-1]["seconds"], rows[-1]["peak_memory"]
        print(
            f"| `{recipe}` | {time['predicted']:.1f} s | {time['taken']:.1f} s | {time['ratio']:.2f} "
            f"| {memory['predicted'] / 2**20:.0f} MiB | {memory['taken'] / 2**20:.0f} MiB | {memory['ratio']:.2f} |",
            flush=True,
        )
        if arguments.output:
            hidden = [{**kept, "overrides": [word for word in kept["overrides"] if "data.source" not in word]} for kept in rows]
            write_json(arguments.output, {"rows": hidden})


if __name__ == "__main__":
    main()
