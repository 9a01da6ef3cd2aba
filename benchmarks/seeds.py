"""Several seeds of one evaluation side by side: a plain loop, Limbeck's processes or groups, and vectorised over parameters.

    python benchmarks/seeds.py --network ConvNetD3-w32 --ipc 10 --epochs 1000 --output benchmarks/results/seeds.json

Every variant is a process of its own, which trains two epochs that are not timed and then all of them, the start of workers
included; compiled code is in the cache by then. The plain loop trains as a script does: uncompiled, on all threads, one seed after
another.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from isa import add_isa, take_isa

from limbeck.augmentation import Dsa
from limbeck.evaluation.protocols import PROTOCOLS
from limbeck.evaluation.trials import Trial, Trials
from limbeck.networks.flat import flat_network
from limbeck.runtime.devices import environment, resolve_device, synchronize
from limbeck.runtime.files import write_json
from limbeck.runtime.random import generator
from limbeck.training.gradient import Gradient
from limbeck.training.images import TensorImages
from limbeck.training.targets import Labels
from limbeck.training.train import Member, logits_of, train, train_together


def material(arguments: argparse.Namespace) -> tuple[Trials, list[Trial], TensorImages]:
    """A random set of the size asked for: how long training takes does not depend on what is in the images."""
    device = resolve_device(arguments.device)
    shape, classes = (3, arguments.size, arguments.size), 10
    network = flat_network(arguments.network, shape, classes).to(device)
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(classes * arguments.ipc, *shape, generator=draws).to(device)
    labels = torch.randn(len(images), classes, generator=draws).to(device)
    protocol = replace(PROTOCOLS["dd"], epochs=arguments.epochs)
    how = protocol.training(network, Dsa(), 0.01, arguments.ipc, "logits")
    made = [Trial(TensorImages(images), Labels(labels), how, ("evaluation", seed)) for seed in range(arguments.seeds)]
    return Trials(network, 0, device, "yes"), made, TensorImages(torch.randn(1000, *shape, generator=draws).to(device))


def plain(trials: Trials, made: Sequence[Trial], test: TensorImages) -> None:
    """Uncompiled, one seed after another."""
    for trial in made:
        theta = trials.network.initial(generator(0, *trial.key, "initial")).to(trials.device)
        theta = train(trials.network, theta, trial.images, trial.targets, trial.how, seed=0, key=trial.key)
        logits_of(trials.network.with_parameters(theta), test)


def limbeck(trials: Trials, made: Sequence[Trial], test: TensorImages) -> None:
    """As an evaluation does it."""
    list(trials.run(made, [test]))


def vmap(trials: Trials, made: Sequence[Trial], test: TensorImages) -> None:
    """Vectorised over the parameters of all seeds."""
    theta = torch.stack([trials.start(trial) for trial in made])
    members = [Member(trial.images, trial.targets, trial.key) for trial in made]
    gradient = Gradient(trials.network, made[0].how.loss, trials.device.type == "cuda")
    for row in train_together(trials.network, theta, members, made[0].how, seed=0, gradient=gradient):
        logits_of(trials.network.with_parameters(row), test)


VARIANTS = {"plain": plain, "limbeck": limbeck, "vmap": vmap}


def run(variant: str, arguments: argparse.Namespace) -> float:
    """Seconds of the variant, in this process."""
    (trials, made, test), work = material(arguments), VARIANTS[variant]
    first = made if variant == "vmap" else made[:1]
    work(trials, [replace(trial, how=replace(trial.how, epochs=2)) for trial in first], test)
    synchronize(trials.device)
    began = time.perf_counter()
    work(trials, made, test)
    synchronize(trials.device)
    return time.perf_counter() - began


def ratios(rows: Sequence[dict[str, Any]], seeds: int) -> list[str]:
    """How Limbeck's seeds compare with one seed, and with the plain loop, as far as they were measured."""
    held = {(row["variant"], row["seeds"]): row["seconds"] for row in rows}
    if ("limbeck", seeds) not in held:
        return []
    many = held["limbeck", seeds]
    ones = [variant for variant in ("plain", "limbeck") if (variant, 1) in held]
    said = [f"{seeds} seeds by Limbeck take {many / held[variant, 1]:.2f} times one seed ({variant})" for variant in ones]
    if "plain" in ones:
        said.append(f"and {many / held['plain', seeds]:.2f} times {seeds} seeds of the plain loop")
    return said


def in_process(variant: str, seeds: int, words: list[str]) -> float:
    command = [sys.executable, __file__, *words, "--seeds", str(seeds), "--variant", variant]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="ConvNetD3-w32")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    add_isa(parser)
    arguments = parser.parse_args()
    take_isa(arguments.isa)
    if arguments.variant:
        print(run(arguments.variant, arguments))
        return
    words = [
        word for name in ("network", "size", "ipc", "epochs", "device") for word in (f"--{name}", str(getattr(arguments, name)))
    ]
    settings = {name: value for name, value in vars(arguments).items() if name not in ("variant", "variants", "output")}
    known = json.loads(arguments.output.read_text()) if arguments.output and arguments.output.exists() else []
    rows: list[dict[str, Any]] = []
    entry = {"settings": settings, "environment": environment(resolve_device(arguments.device)), "rows": rows}
    for variant in arguments.variants:
        for seeds in (1, arguments.seeds):
            rows.append({"variant": variant, "seeds": seeds, "seconds": in_process(variant, seeds, words)})
            print(f"{variant:8} {seeds} seeds: {rows[-1]['seconds']:.1f} s", flush=True)
            if arguments.output:
                write_json(arguments.output, [*known, entry])
    for line in ratios(rows, arguments.seeds):
        print(line)


if __name__ == "__main__":
    main()
