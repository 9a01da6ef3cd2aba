"""A published cell at its published size, look by look: MTT's ten images of CIFAR-10 (ConvNetD3-w128, all of the training images).

    limbeck distill cifar10/ConvNetD3/mtt-ipc1 --data cifar10.npz --output runs/published --resume
    python benchmarks/published_cell.py runs/published --data cifar10.npz --output benchmarks/results/published-cell.json

The run goes on where it was stopped; this looks at the snapshots that it has by then. On each of them five networks are trained
under the run's protocol and asked about the validation images and about the test images. Papers print the best look on the test
images; what counts here is the look that the same networks' validation accuracy chooses, and random real images, which a run begins
with, stand beside both. A look that is in the output file is not taken again, and a file of other images or settings is refused.
Prints a table.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from limbeck.accuracy import Accuracy
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.evaluator import Evaluator
from limbeck.methods.snapshots import SNAPSHOT
from limbeck.recipes import load_recipe
from limbeck.runs.record import final_seeds
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import environment
from limbeck.runtime.files import read_json, read_tensors, write_json
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.progress import PlainProgress

RECIPE, PUBLISHED = "cifar10/ConvNetD3/mtt-ipc1", "46.3 ± 0.8 %, best on test of 5000 iterations with 100 experts"


def look(evaluator: Evaluator, path: Path, seeds: list[int]) -> dict[str, Any]:
    """What networks that were trained on a snapshot say of the validation and of the test images."""
    tensors, _ = read_tensors(path, kind=SNAPSHOT)
    labels = tensors["Y"]
    small = SmallSet(tensors["X"], labels, labels.argmax(1), float(tensors["syn_lr"]), "hard")
    found = evaluator.looked_at(small, seeds)
    assert found.best_on_test is not None
    return {"val": plain(replace(found, best_on_test=None)), "test": plain(found.best_on_test), "syn_lr": small.syn_lr}


def said(found: Accuracy) -> str:
    return f"{100 * found.mean:.1f} ± {100 * (found.std or 0):.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    settings = load_recipe(RECIPE, {"data.source": arguments.data})
    workspace = Workspace(settings, PlainProgress())
    evaluator, seeds = workspace.evaluator().decided(1), list(final_seeds(settings.eval.seeds))
    about = {"recipe": RECIPE, "images": workspace.data.fingerprint, "protocol": evaluator.protocol.name, "seeds": seeds}
    held = read_json(arguments.output) if arguments.output.exists() else {**about, "looks": {}}
    if different := [key for key, value in about.items() if held[key] != value]:
        raise SystemExit(f"{arguments.output}: was measured with {different[0]} {held[different[0]]}, not {about[different[0]]}")
    if "random" not in held:
        logits = evaluator.random_logits(1, settings.outer.syn_lr_init, seeds)
        held["random"] = plain(evaluator.accuracies(logits))
    for path in sorted((arguments.run / "snapshots").glob("iteration-*.safetensors")):
        name = str(int(path.stem.rpartition("-")[2]))
        if name not in held["looks"] and name != "0":
            held["looks"][name] = look(evaluator, path, seeds)
            write_json(arguments.output, {**held, "environment": environment(torch.device("cpu"))})
    table(held)


def table(held: dict[str, Any]) -> None:
    """Look by look, and what either protocol takes of them."""
    rows = {int(name): [Accuracy.from_dict(row[split]) for split in ("val", "test")] for name, row in held["looks"].items()}
    print("| iteration | validation | test |\n|---|---|---|")
    for iteration, (val, test) in sorted(rows.items()):
        print(f"| {iteration} | {said(val)} | {said(test)} |")
    best, chosen = max(rows, key=lambda at: rows[at][1].mean), max(rows, key=lambda at: rows[at][0].mean)
    ends = [100 * end for end in rows[chosen][1].ci95 or (float("nan"),) * 2]
    print(f"\nbest on test: {said(rows[best][1])} (iteration {best}); published: {PUBLISHED}")
    print(f"chosen on validation: {said(rows[chosen][1])}, 95 % interval [{ends[0]:.1f}, {ends[1]:.1f}] (iteration {chosen})")
    print(f"random real images: {said(Accuracy.from_dict(held['random']))}")


if __name__ == "__main__":
    main()
