"""Bytes and time of large problems by stage: computed, not measured.

    python benchmarks/large_problems.py [--output benchmarks/results/large-problems.json] [--devices 8]

Settings are those published for Tiny-ImageNet with fifty images per class (DATM; N = 10 000 images, T = 20 steps of 1000, experts
of 70 epochs of which 40 to 61 are read), scaled to N images: T = 20 steps of a tenth of them, so that students pass it twice,
as there. Networks are the published ones for images of that side. Bytes follow the files' and tensors' shapes. Times are counted
operations over a rate that is assumed: a share of a card's peak.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from limbeck.experts.estimate import Estimate, estimate
from limbeck.experts.notes import Want
from limbeck.methods.snapshots import LOOKED_AT
from limbeck.networks.flat import flat_network
from limbeck.runs.scaling import LINKS, Planner, Work, World
from limbeck.runtime.files import write_json
from limbeck.runtime.records import Record
from limbeck.runtime.tables import Grid, duration

CARD, PEAK, SHARE = "H100 SXM, fp32", 67e12, 0.4  # FLOP/s as printed for the card, and the part of it that is assumed
DECODED = 2000.0  # photos a second that the cores of a node decode and shrink, assumed
PASSES, TRAINING = 11, 3  # forward passes that a student step with its product costs, and a step of a training
NUMBER = 4
STEPS, TENTH, ITERATIONS, LOOKS = 20, 10, 10_000, 21
EXPERTS, EPOCHS, KEPT = 100, 70, tuple(range(40, 62))
EVALUATED, SEEDS, FULL_EPOCHS, FULL_SEEDS = 1000, 5, 100, 2
WHOLE = 6  # snapshots and checkpoints that hold all of X, at most


@dataclass(frozen=True)
class Problem(Record):
    """A data set, images of side `size`, and `ipc` of them per class."""

    name: str
    classes: int
    images: int
    tested: int
    size: int
    ipc: int

    @property
    def title(self) -> str:
        return f"{self.name}, {self.size}×{self.size}, IPC {self.ipc}"

    @property
    def total(self) -> int:
        """N."""
        return self.classes * self.ipc

    @property
    def pixels(self) -> int:
        """C·H·W."""
        return 3 * self.size**2


IMAGENET = {"name": "ImageNet-1K", "classes": 1000, "images": 1_281_167, "tested": 50_000}
LARGER = {"name": "ImageNet-21K", "classes": 21_841, "images": 14_197_122, "tested": 50_000}
PROBLEMS = (
    *(Problem(**IMAGENET, size=size, ipc=ipc) for size in (64, 128) for ipc in (10, 50)),  # type: ignore[arg-type]
    *(Problem(**LARGER, size=size, ipc=10) for size in (64, 128)),  # type: ignore[arg-type]
)


@dataclass(frozen=True)
class Network(Record):
    """P, and the operations of one image forward."""

    name: str
    parameters: int
    flop: int


@dataclass(frozen=True)
class Computed(Record):
    """What a problem takes.

    Args:
        problem, network: which.
        disk: bytes by what lies there.
        device: bytes on each of `devices`, by what lies there, X in shards.
        never: bytes of what never exists as a whole.
        flop: operations by stage.
        seconds: of every stage on so many devices.
        iteration: seconds of one.
        sent: bytes that a device sends in it.
    """

    problem: Problem
    network: Network
    devices: int
    disk: dict[str, int]
    device: dict[str, int]
    never: dict[str, int]
    flop: dict[str, int]
    seconds: dict[str, float]
    iteration: float
    sent: int


def network_of(problem: Problem) -> Network:
    """The published ConvNet for images of that side, and its count."""
    name = f"ConvNetD{problem.size.bit_length() - 3}"
    network = flat_network(name, (3, problem.size, problem.size), problem.classes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.module.to("meta")(torch.zeros(1, 3, problem.size, problem.size, device="meta"))
    return Network(name, network.num_parameters, counter.get_total_flops())


def experts_of(network: Network, coding: str) -> Estimate:
    """Their store."""
    return estimate(Want(EXPERTS, KEPT, EPOCHS, EXPERTS, coding), network.parameters)


def computed(problem: Problem, devices: int) -> Computed:
    """Bytes and time of one problem."""
    network, n, k, p = network_of(problem), problem.total, problem.classes, problem.pixels
    read, f = problem.images + problem.tested, network.flop
    set_, weights = NUMBER * n * (p + k), NUMBER * n * p // 3
    disk = {
        "decoded images": read * p,
        "experts": experts_of(network, "fp32").disk,
        "experts, half": experts_of(network, "half").disk,
        "one expert": experts_of(network, "fp32").disk // EXPERTS,
        "checkpoints": 3 * (2 * set_ + weights),
        "snapshots": WHOLE * (set_ + weights) + (LOOKS - WHOLE) * LOOKED_AT,
        "distilled set": set_,
    }
    shard = -(-n // devices)
    device = {
        "X with gradient, velocity, average": 4 * NUMBER * shard * p,
        "Y with gradient, velocity": 3 * NUMBER * shard * k,
        "X and Y on one device": 4 * NUMBER * n * p + 3 * NUMBER * n * k,
        "θ_0 … θ_T": (STEPS + 3) * NUMBER * network.parameters,
        "logits of an evaluation": NUMBER * problem.tested * k,
    }
    never = {
        "prepared training images": NUMBER * problem.images * p,
        "labels of all training images, one-hot": NUMBER * problem.images * k,
        "experts' answers to all training images": NUMBER * EXPERTS * problem.images * k,
        "distances between all training images": NUMBER * problem.images**2,
        "lists of all epochs of experts": experts_of(network, "fp32").list_format,
    }
    flop = {
        "experts": EXPERTS * EPOCHS * problem.images * TRAINING * f,
        "start": (problem.images + EXPERTS * n) * f,
        "distillation": ITERATIONS * STEPS * (n // TENTH) * PASSES * f,
        "evaluations on the way": LOOKS * EVALUATED * n * TRAINING * f,
        "final evaluation": (2 * SEEDS * EVALUATED * n + FULL_SEEDS * FULL_EPOCHS * problem.images) * TRAINING * f,
    }
    work = Work(
        parameters=network.parameters,
        sums=2 * STEPS - 1,
        ends=1,
        set_numbers=n * (p + k),
        images=n,
        batch=n // TENTH,
        whole=0.0,
        spread=flop["distillation"] / ITERATIONS / (PEAK * SHARE),
    )
    row = _planner(work, devices)
    iteration = row.iteration(devices) or 0.0
    # What is spread over the devices as whole networks needs no talk; evaluations on the way are rank 0's.
    seconds = {name: count / (PEAK * SHARE) / devices for name, count in flop.items()}
    seconds["evaluations on the way"] *= devices
    seconds |= {"reading": read / DECODED, "distillation": ITERATIONS * iteration}
    return Computed(problem, network, devices, disk, device, never, flop, seconds, iteration, work.sent(devices, True))


def _planner(work: Work, devices: int) -> Planner:
    from limbeck.runs.scaling import Memory

    memory = Memory(base=0, set=0, trajectory=0, kept=0, image=0, at_once=1)
    world = World(devices=devices)
    return Planner(work=work, memory=memory, parts={}, world=world, gpu=True, threads=1, cores=1, sharded=True)


def size(nbytes: float) -> str:
    """For people: three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if nbytes < 999.5 or unit == "TB":
            return f"{nbytes:.3g} {unit}" if nbytes < 999.5 else f"{nbytes:.0f} {unit}"
        nbytes /= 1000
    raise AssertionError


def long(seconds: float) -> str:
    """For people: hours up to two days, then days."""
    return duration(seconds) if seconds < 3600 else f"{seconds / 3600:.3g} h" if seconds < 48 * 3600 else f"{seconds / 86400:.3g} d"


def table(rows: list[Computed]) -> Iterator[str]:
    """Lines of Markdown: a column a problem."""
    head = ("", *(one.problem.title for one in rows))

    def line(name: str, cells: Iterator[str]) -> tuple[str, ...]:
        return (name, *cells)

    lines = [
        line("network, P", (f"{one.network.name}, {one.network.parameters / 1e6:.3g} M" for one in rows)),
        line("GFLOP of an image forward", (f"{one.network.flop / 1e9:.3g}" for one in rows)),
        *(line(f"disk: {name}", (size(one.disk[name]) for one in rows)) for name in rows[0].disk),
        *(line(f"a device: {name}", (size(one.device[name]) for one in rows)) for name in rows[0].device),
        *(line(f"never whole: {name}", (size(one.never[name]) for one in rows)) for name in rows[0].never),
        line("sent by a device in an iteration", (size(one.sent) for one in rows)),
        *(line(f"time: {name}", (long(one.seconds[name]) for one in rows)) for name in ("reading", *rows[0].flop)),
        line("time: in all", (long(sum(one.seconds.values())) for one in rows)),
    ]
    yield from Grid(head, tuple(lines)).markdown


def main() -> None:
    """Print the table, and keep what it says."""
    parser = argparse.ArgumentParser(description="bytes and time of large problems, computed")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--devices", type=int, default=8)
    arguments = parser.parse_args()
    rows = [computed(problem, arguments.devices) for problem in PROBLEMS]
    sys.stdout.writelines(f"{line}\n" for line in table(rows))
    if arguments.output:
        assumed = {"card": CARD, "peak_flops": PEAK, "share": SHARE, "link": LINKS["nvlink"].to_dict(), "photos_a_second": DECODED}
        held = {"note": "computed, not measured", "assumed": assumed, "problems": [one.to_dict() for one in rows]}
        write_json(arguments.output, held)


if __name__ == "__main__":
    main()
