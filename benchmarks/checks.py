"""What it costs that every byte is checked when it is read back: the share of a run, and of reading a store of experts.

    python benchmarks/checks.py run                   # the demonstration, `limbeck distill scenes`, in a folder of its own
    python benchmarks/checks.py run outer.iterations=20
    python benchmarks/checks.py store --megabytes 100

The functions that compute checksums, when something is written or read, are timed while everything else runs as it does. All that
is printed is for `docs/reliability.md`.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from limbeck.cli.main import main
from limbeck.data import image_cache
from limbeck.experts import blocks
from limbeck.experts.store import TrajectoryStore
from limbeck.runtime import files, metrics, sealed
from limbeck.runtime.kept import elsewhere

# Where checksums are computed: the digests of tensors and arrays, those of JSON and of headers, and the sums of lines.
PLACES = (
    (files, "digest"),
    (blocks, "digest"),
    (image_cache, "array_fingerprint"),
    (sealed, "fingerprint"),
    (sealed, "_sum"),
    (metrics, "crc32"),
)


class Clock:
    """Seconds inside the functions that it has wrapped, none counted twice."""

    def __init__(self) -> None:
        self.seconds, self.calls, self.inside = 0.0, 0, False

    def wrapped(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            if self.inside:
                return work(*given, **named)
            self.inside, began = True, time.perf_counter()
            try:
                return work(*given, **named)
            finally:
                self.inside = False
                self.seconds += time.perf_counter() - began
                self.calls += 1

        return timed


def run(words: list[str]) -> None:
    """A distillation from nothing to its report."""
    clock = Clock()
    for module, name in PLACES:
        setattr(module, name, clock.wrapped(getattr(module, name)))
    with tempfile.TemporaryDirectory() as folder, elsewhere(Path(folder, "cache")):
        began = time.perf_counter()
        status = main(["distill", "scenes", "--output", str(Path(folder, "run")), *words])
        took = time.perf_counter() - began
    assert status == 0, "the run has failed"
    said = " ".join(["limbeck distill scenes", *words])
    print(f"| `{said}` | {took:.1f} s | {clock.calls} checks | {clock.seconds:.3f} s | {clock.seconds / took:.3%} |")


def store(megabytes: int) -> None:
    """Reading every checkpoint of a store, twice, in an order of chance: from the first time on its blocks are known."""
    parameters, epochs = 320_000, 8
    experts = max(1, round(megabytes * 1e6 / (4 * parameters * epochs)))
    draws = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        made = TrajectoryStore(Path(folder), {"network": "walk", "num_parameters": parameters})
        for expert in range(experts):
            made.write(expert, {epoch: torch.randn(parameters, generator=draws) for epoch in range(epochs)})
        size = made.summary().bytes / 1e6
        pairs = torch.cartesian_prod(torch.arange(experts), torch.arange(epochs))
        held = TrajectoryStore(Path(folder))
        for which in ("first", "second"):
            clock = Clock()
            plain, blocks.digest = blocks.digest, clock.wrapped(blocks.digest)
            began = time.perf_counter()
            for expert, epoch in pairs[torch.randperm(len(pairs), generator=draws)].tolist():
                held.read(expert, epoch)
            took, blocks.digest = time.perf_counter() - began, plain
            print(f"| {size:.0f} MB, {len(pairs)} checkpoints, read for the {which} time | {took:.3f} s | {clock.seconds:.3f} s |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "store"))
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--megabytes", type=int, default=100)
    arguments = parser.parse_args()
    run(arguments.overrides) if arguments.what == "run" else store(arguments.megabytes)
