"""SRe2L, its successors and RDED beside random images, all labelled by the same teacher: small, on `scenes:easy`.

    python benchmarks/decoupled.py --output benchmarks/results/decoupled.json

One image per class, ConvNetD3-w32 as student and teacher (with batch norm where images are recovered), 300 iterations of each
recovery, `kd` with its 300 epochs of the teacher's logits on views, two networks a seed. What is compared are means of the seeds,
paired. A finished cell is kept in the output file and not run again; a file of other settings is refused. Prints a table.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from isa import add_isa, take_isa

from limbeck.evaluation.statistics import compare, summarise
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill
from limbeck.runtime.devices import environment
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import plain

METHODS = ("random", "rded", "sre2l", "cda", "sre2l++", "fadrm", "fadrm, enhanced")
SETTINGS = {
    "network": "ConvNetD3-w32",
    "sre2l.iterations": "300",
    "sre2l.teacher": "ConvNetD3-w32-batchnorm",
    "eval.protocol": "kd",
    "eval.teacher": "ConvNetD3-w32",
    "eval.epochs": "300",
    "eval.seeds": "2",
    "eval.full_seeds": "2",
    "eval.full_epochs": "20",
    "eval.full_lr": "0.1",
    "features": "none",
    "engine.compile": "no",
}


def measured(name: str, seed: int) -> dict[str, Any]:
    """A set of a method and seed: the accuracies of its networks, of random images and of the full data."""
    method, _, enhanced = name.partition(", ")
    own = {"enhance.weighting": "activation", "enhance.cam_every": "25"} if enhanced else {}
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = distill(load_recipe("scenes", {**SETTINGS, **own, "method": method, "seed": str(seed)}), Path(folder) / "run")
    return {"accuracy": plain(found.accuracy), "cpu_seconds": time.process_time() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    add_isa(parser)
    arguments = parser.parse_args()
    take_isa(arguments.isa)
    asked = {"settings": SETTINGS, "environment": plain(environment(torch.device("cpu")))}
    kept: dict[str, Any] = read_json(arguments.output) if arguments.output.exists() else {**asked, "cells": {}}
    if kept["settings"] != SETTINGS:
        sys.exit(f"--output: {arguments.output} was measured with other settings; name another file")
    for seed in range(arguments.seeds):
        for name in METHODS:
            key = f"{name}, seed {seed}"
            if key not in kept["cells"]:
                kept["cells"][key] = measured(name, seed)
                write_json(arguments.output, kept)
    means = {
        name: [kept["cells"][f"{name}, seed {seed}"]["accuracy"]["distilled"]["mean"] for seed in range(arguments.seeds)]
        for name in METHODS
    }
    print("| method | accuracy | against random, 95 % interval | against `sre2l` |")
    print("|---|---|---|---|")
    for name, values in means.items():
        print(f"| {name} | {summarise(values)} | {against(values, means['random'])} | {against(values, means['sre2l'])} |")


def against(values: list[float], others: list[float]) -> str:
    """The mean of the differences with its interval, in points."""
    if values == others or len(values) < 2:
        return "–"
    found = compare(values, others)
    low, high = found.ci95 or (float("nan"), float("nan"))
    return f"{100 * found.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


if __name__ == "__main__":
    main()
