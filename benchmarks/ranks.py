"""Two ranks with a thread each beside one process with two threads: the time of an iteration, and the bytes that it sends.

    python benchmarks/ranks.py                        # CIFAR-10's shape, 10 images per class; a few minutes, compiling included
    python benchmarks/ranks.py --network ConvNetD2-w8 --size 16 --ipc 2 --batch 20 --steps 4 --compile no --pairs 3

The work is one gradient by X, Y and η through T student steps (`limbeck.Exact`), set up as `limbeck distill` sets it up, and the
same in both: one process computes whole batches with two threads, two ranks (gloo) halves of them with one thread each. Both are
started first and then asked in turn, one pair after the other and every other pair in the other order, so that what else the
machine does meets both. The ratio is the median over pairs of the seconds of one process over those of the ranks: 1 is as fast,
more is faster. `--output` keeps the figures.

Every rank sends 2 b (R − 1) / R of the b bytes of a sum around a ring. These are g of each of T steps forth and h_θ of each step
back but the last, P numbers each, and at the end the gradients by X, Y and η; rank 0 sends L and λ_T to the others besides.
"""

import argparse
import os
import platform
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from isa import add_isa, take_isa  # noqa: E402
from together import Team  # noqa: E402

from limbeck.augmentation import Dsa  # noqa: E402
from limbeck.matching.adjoint import Exact, InnerLoop  # noqa: E402
from limbeck.matching.criteria import KeepAll  # noqa: E402
from limbeck.matching.distances import MatchingLoss  # noqa: E402
from limbeck.matching.engine import Problem, prepare  # noqa: E402
from limbeck.matching.settings import EngineSettings  # noqa: E402
from limbeck.matching.spread import Spread  # noqa: E402
from limbeck.matching.steps import draw_steps  # noqa: E402
from limbeck.networks.flat import flat_network  # noqa: E402
from limbeck.runtime.devices import environment  # noqa: E402
from limbeck.runtime.files import write_json  # noqa: E402
from limbeck.runtime.memory import reuse_freed_memory  # noqa: E402
from limbeck.runtime.progress import NoProgress  # noqa: E402
from limbeck.runtime.random import generator  # noqa: E402
from limbeck.runtime.ranks import Ranks  # noqa: E402

CLASSES = 10


@dataclass(frozen=True)
class Work:
    """What an iteration is.

    Args:
        network: by name.
        size: of a side of an image.
        ipc: images per class.
        batch: images a step.
        steps: T.
        compile: as `engine.compile`.
    """

    network: str
    size: int
    ipc: int
    batch: int
    steps: int
    compile: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of X."""
        return CLASSES * self.ipc, 3, self.size, self.size


class World:
    """What a process holds between two iterations."""

    def __init__(self, work: Work) -> None:
        here, self.work, n = Ranks.here(), work, work.shape[0]
        self.network = flat_network(work.network, work.shape[1:], CLASSES)
        self.draws = draw_steps(work.shape, work.batch, work.steps, Dsa(), 0, 0)
        shares = sorted({len(range(len(draw.index))[here.share(len(draw.index))]) for draw in self.draws})
        problem = Problem(self.network, work.shape, CLASSES, shares, work.steps, 10_000)
        settings = EngineSettings(compile=work.compile)  # type: ignore[arg-type]
        self.step, self.adjoint, self.arrangement = prepare(problem, Exact(), settings, NoProgress())
        self.theta = self.network.initial(generator(0, "theta"))
        target = self.theta + 0.01 * torch.randn(self.theta.shape, generator=generator(0, "target"))
        self.x = torch.randn(work.shape, generator=generator(0, "x"))
        self.y = torch.eye(CLASSES).repeat(n // CLASSES, 1) * 5
        self.loss = MatchingLoss(self.theta, target, KeepAll())

    def iteration(self) -> Tensor:
        """The gradient by X."""
        inner = InnerLoop(self.step, self.theta, self.draws, Spread(Ranks.here()))
        return self.adjoint(inner, self.x, self.y, torch.tensor(0.01), self.loss)[0].images


_world: World | None = None


def begin(work: Work, threads: int) -> dict[str, Any]:
    """Set up, and compute what is not timed."""
    global _world
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(threads)
    reuse_freed_memory()
    _world = World(work)
    _world.iteration()
    return {"parameters": _world.network.num_parameters, "arrangement": asdict(_world.arrangement)}


def once() -> tuple[float, int, Tensor]:
    """Seconds, bytes sent, and the gradient."""
    assert _world is not None, "begun"
    here, began = Ranks.here(), time.perf_counter()
    before, gradient = here.sent, _world.iteration()
    return time.perf_counter() - began, here.sent - before, gradient


def computed_bytes(work: Work, parameters: int, ranks: int) -> list[int]:
    """What every rank is to send an iteration."""
    n = work.shape[0]
    sums = [4 * parameters] * (2 * work.steps - 1) + [4 * (n * 3 * work.size**2 + n * CLASSES + 1)]
    around = sum(2 * each * (ranks - 1) // ranks for each in sums)
    return [around + (4 + 4 * parameters if number == 0 else 0) for number in range(ranks)]


def measure(work: Work, pairs: int, ranks: int) -> dict[str, Any]:
    """Both, side by side."""
    with Team(1) as alone, Team(ranks) as together:
        about = [team(begin, work, threads)[0] for team, threads in ((alone, ranks), (together, 1))]
        rows, sent, error = list[dict[str, float]](), list[int](), 0.0
        for number in range(pairs):
            found = {}
            for team in (alone, together) if number % 2 else (together, alone):
                found[team.count] = team(once)
            rows.append({"one": max(one[0] for one in found[1]), "ranks": max(one[0] for one in found[ranks])})
            sent = [one[1] for one in found[ranks]]
            expected = found[1][0][2]
            error = max(error, float((found[ranks][0][2] - expected).norm() / expected.norm()))
    expected_bytes = computed_bytes(work, about[0]["parameters"], ranks)
    return {
        "work": asdict(work),
        "parameters": about[0]["parameters"],
        "ranks": ranks,
        "arrangements": {"one": about[0]["arrangement"], "ranks": about[1]["arrangement"]},
        "pairs": rows,
        "seconds": {name: median(row[name] for row in rows) for name in ("one", "ranks")},
        "ratio": median(row["one"] / row["ranks"] for row in rows),
        "bytes": {"sent": sent, "computed": expected_bytes, "equal": sent == expected_bytes},
        "error": error,
        "processor": processor(),
        "environment": environment(torch.device("cpu")),
    }


def processor() -> str:
    """The model, where the system names it."""
    found = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", found.read_text(), re.MULTILINE) if found.exists() else []
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="ConvNetD3")
    for name, value in {"size": 32, "ipc": 10, "batch": 100, "steps": 20, "pairs": 9, "ranks": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--compile", choices=("yes", "no", "auto"), default="yes")
    parser.add_argument("--output", type=Path, help="where the figures go as JSON")
    add_isa(parser)
    given = parser.parse_args()
    take_isa(given.isa)
    work = Work(given.network, given.size, given.ipc, given.batch, given.steps, given.compile)
    found = measure(work, given.pairs, given.ranks)
    if given.output:
        write_json(given.output, found)
    seconds, held = found["seconds"], found["bytes"]
    print(f"one process with {given.ranks} threads: {seconds['one']:.3f} s; {given.ranks} ranks with one: {seconds['ranks']:.3f} s")
    print(f"ratio {found['ratio']:.3f}; sent {held['sent']} bytes, computed {held['computed']}; error {found['error']:.1e}")


if __name__ == "__main__":
    main()
