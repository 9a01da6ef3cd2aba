"""Experts an hour: a straightforward PyTorch loop and Limbeck, side by side.

    python benchmarks/experts.py --experts 4 --epochs 10 --output benchmarks/results/experts.json
    python benchmarks/experts.py --source cifar10.npz --network ConvNetD3-w128 --experts 16 --device cuda          # on a GPU
    python benchmarks/experts.py --source imagenette/ --size 128 --network ConvNetD5-w128 --experts 8 --device cuda
    python benchmarks/experts.py --in-step 4                                       # one step of four experts, alone and vectorised

The loop is what scripts do: a DataLoader, DSA on every batch, one expert after another, all epochs of all experts in one list for
`torch.save`. Limbeck keeps the same epochs, and decides by itself whether it compiles and how many processes it takes. Each is a
process of its own. Limbeck runs twice: with an empty cache of compiled code (`first`), which the second finds (`again`), as every
later data set of the same shape does. Built-in scenes of 32×32, or any other source.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from isa import add_isa, take_isa
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck.augmentation import Dsa
from limbeck.data.load import load_data
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.settings import DataSettings
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.train import ExpertTask, train_experts
from limbeck.losses import cross_entropy
from limbeck.networks.flat import flat_network
from limbeck.networks.names import build_network
from limbeck.runtime.devices import environment, one_thread, resolve_device
from limbeck.runtime.files import write_json
from limbeck.runtime.random import generator
from limbeck.training.gradient import Gradient
from limbeck.training.images import prepare_split
from limbeck.training.train import accuracy

VARIANTS = ("plain", "first", "again")


def plain(arguments: argparse.Namespace, task: ExpertTask) -> float:
    """Seconds of the loop."""
    device, data = task.device, task.data
    images = task.preprocessing.prepare(data.train.images())
    labels = torch.from_numpy(data.train.labels)
    held_out, held_labels = prepare_split(data.val, task.preprocessing, device), torch.from_numpy(data.val.labels)
    loader = DataLoader(TensorDataset(images, labels), batch_size=task.settings.batch_size, shuffle=True)
    began, everything = time.perf_counter(), []
    for expert in range(arguments.experts):
        draws = generator(0, "plain", expert)
        network = build_network(task.network.name, *data.shape, data.num_classes).to(device)
        optimiser = torch.optim.SGD(network.parameters(), task.settings.expert_lr)
        checkpoints = [[value.detach().cpu().clone() for value in network.parameters()]]
        for _ in range(arguments.epochs):
            for x, y in loader:
                x, y = x.to(device), y.to(device)
                x = task.augmentation.draw(draws, x.shape)(x)
                optimiser.zero_grad()
                nn.functional.cross_entropy(network(x), y).backward()
                optimiser.step()
            accuracy(network.eval(), held_out, held_labels)
            network.train()
            checkpoints.append([value.detach().cpu().clone() for value in network.parameters()])
        everything.append(checkpoints)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(everything, Path(folder) / "replay_buffer_0.pt")
    return time.perf_counter() - began


def ours(arguments: argparse.Namespace, task: ExpertTask) -> float:
    """Seconds of Limbeck."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ExpertSettings(num_experts=arguments.experts, train_epochs=arguments.epochs, store=str(Path(folder) / "store"))
        began = time.perf_counter()
        train_experts(dataclasses.replace(task, settings=settings), range(arguments.epochs + 1))
        return time.perf_counter() - began


def in_step(arguments: argparse.Namespace, task: ExpertTask) -> None:
    """Print seconds of a step of several experts on one thread: one after another, and vectorised over their parameters."""
    count, batch = arguments.in_step, min(task.settings.batch_size, len(task.data.train))
    draws = generator(0, "in step")
    thetas = torch.stack([task.network.initial(draws) for _ in range(count)])
    x = task.preprocessing.prepare(task.data.train.images()[:batch]).expand(count, -1, -1, -1, -1)
    y = nn.functional.one_hot(torch.from_numpy(task.data.train.labels[:batch]), task.data.num_classes).float().expand(count, -1, -1)
    with one_thread():
        for compiled in (False, True):
            gradient = Gradient(task.network, cross_entropy, compiled)
            ways = {
                "one after another": lambda gradient=gradient: [gradient(*each) for each in zip(thetas, x, y, strict=True)],
                "in step": lambda gradient=gradient: gradient(thetas, x, y),
            }
            for name, step in ways.items():
                step()
                began = time.perf_counter()
                for _ in range(5):
                    step()
                print(f"{name}{', compiled' if compiled else ''}: {(time.perf_counter() - began) / 5:.3f} s a step of {count}")


def in_process(variant: str, words: list[str], compiled: str) -> float:
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": compiled}
    done = subprocess.run([sys.executable, __file__, *words, "--variant", variant], capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{variant} failed: {done.stderr}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="scenes")
    parser.add_argument("--size", type=int, help="of the images; the source's own where it is left out")
    parser.add_argument("--network", default="ConvNetD3-w32")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--in-step", type=int, metavar="S", help="only time a step of S experts, alone and vectorised")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    add_isa(parser)
    arguments = parser.parse_args()
    take_isa(arguments.isa)
    if arguments.variant or arguments.in_step:
        settings = DataSettings(source=arguments.source, size=arguments.size)
        data = load_data(settings)
        device = resolve_device(arguments.device)
        network = flat_network(arguments.network, data.shape, data.num_classes).to(device)
        parts = (data, fit_preprocessing(settings, data.train), network, ExpertSettings(), Dsa(), 0, device)
        if arguments.in_step:
            in_step(arguments, ExpertTask(*parts))
            return
        print((plain if arguments.variant == "plain" else ours)(arguments, ExpertTask(*parts)))
        return
    names = ("source", "size", "network", "experts", "epochs", "device")
    given = [name for name in names if getattr(arguments, name) is not None]
    words = [word for name in given for word in (f"--{name}", str(getattr(arguments, name)))]
    with tempfile.TemporaryDirectory() as compiled:
        seconds = {variant: in_process(variant, words, compiled) for variant in VARIANTS}
    for variant, taken in seconds.items():
        hourly = 3600 * arguments.experts / taken * arguments.epochs / 100
        print(f"{variant:8} {taken:.1f} s, {hourly:.1f} experts of a hundred epochs an hour")
    for variant in VARIANTS[1:]:
        print(f"{seconds['plain'] / seconds[variant]:.2f} times the experts an hour, {variant}")
    if arguments.output:
        known: list[dict[str, Any]] = json.loads(arguments.output.read_text()) if arguments.output.exists() else []
        made = {"settings": {name: getattr(arguments, name) for name in names}, "seconds": seconds}
        write_json(arguments.output, [*known, made | {"environment": environment(resolve_device(arguments.device))}])


if __name__ == "__main__":
    main()
