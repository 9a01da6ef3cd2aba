"""Whether memory and handles stay flat over many iterations of the smallest distillation.

    python benchmarks/leaks.py --iterations 10000 --name "ten thousand iterations, tensors read as arrays"

EDF with all of its parts (criterion, maps, weights, evaluations, snapshots, checkpoints, metrics) on images of 16x16. At every
evaluation the process is looked at: resident memory, open files, threads, child processes, live tensors. A line is fitted to the
samples after the first quarter, in which caches fill: its slope is flat when it lies within three of its standard errors of zero,
or makes less than sixteen pages of the whole, which come one by one. With `--name` what was found is kept under it in
`results/leaks.json`, beside what has other names.
"""

import argparse
import gc
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

import limbeck
from limbeck.runtime.devices import environment

SMALLEST: dict[str, Any] = {
    "network": "ConvNetD2-w4",
    "size": 16,
    "per_class": 12,
    "num_experts": 2,
    "train_epochs": 2,
    "experts.batch_size": 64,
    "first_max_start_epoch": 1,
    "max_start_epoch": 1,
    "expert_epochs": 1,
    "syn_steps": 2,
    "drop_ratio": 0.25,
    "compile": "no",
    "epochs": 1,
    "full_epochs": 1,
    "random_lr": 0.01,
    "seeds": 2,
    "lr_img": 1.0,
}
KEPT = Path(__file__).parent / "results" / "leaks.json"
SAMPLES = 40
FEW_PAGES = 16 * 4096  # bytes


@dataclass(frozen=True)
class Sample:
    """The process at an evaluation."""

    iteration: int
    resident: int
    files: int
    threads: int
    children: int
    tensors: int


@dataclass(frozen=True)
class Line:
    """The slope of resident memory, bytes an iteration, with its standard error, over so many iterations."""

    slope: float
    error: float
    iterations: int

    @property
    def flat(self) -> bool:
        return abs(self.slope) <= 3 * self.error or abs(self.slope) * self.iterations <= FEW_PAGES


def look(iteration: int) -> Sample:
    """The process now."""
    gc.collect()
    process = psutil.Process()
    tensors = sum(isinstance(found, torch.Tensor) for found in gc.get_objects())
    files = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    return Sample(iteration, process.memory_info().rss, files, process.num_threads(), len(process.children()), tensors)


def line(samples: list[Sample]) -> Line:
    """Least squares over the samples after the first quarter."""
    rest = samples[len(samples) // 4 :]
    x, y = (np.array([getattr(sample, name) for sample in rest], dtype=float) for name in ("iteration", "resident"))
    x -= x.mean()
    slope = float((x * y).sum() / (x**2).sum())
    residuals = y - y.mean() - slope * x
    error = float(np.sqrt((residuals**2).sum() / (len(rest) - 2) / (x**2).sum()))
    return Line(slope, error, rest[-1].iteration - rest[0].iteration)


def samples(iterations: int, every: int) -> list[Sample]:
    """The process at every evaluation of a run."""
    found: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder:
        limbeck.distill(
            "scenes:easy",
            "edf",
            iterations=iterations,
            every=every,
            output=Path(folder) / "run",
            callbacks=[lambda snapshot: found.append(look(snapshot.iteration))],
            **SMALLEST,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--name", help="in the file of results; without one nothing is kept there")
    given = parser.parse_args()
    began = time.perf_counter()
    found = samples(given.iterations, max(1, given.iterations // SAMPLES))
    fitted, rest = line(found), found[len(found) // 4 :]
    result = {
        "iterations": given.iterations,
        "seconds": round(time.perf_counter() - began, 1),
        "slope_bytes_per_iteration": fitted.slope,
        "standard_error": fitted.error,
        "flat": fitted.flat,
        **{name: sorted({getattr(sample, name) for sample in rest}) for name in ("files", "threads", "children", "tensors")},
        "environment": environment(torch.device("cpu")),
        "samples": [asdict(sample) for sample in found],
    }
    if given.name:
        held = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        KEPT.write_text(json.dumps(held | {given.name: result}, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name not in ("samples", "environment")}))


if __name__ == "__main__":
    main()
