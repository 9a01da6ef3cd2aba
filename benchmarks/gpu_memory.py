"""The memory of a GPU at published settings, computed without one.

    python benchmarks/gpu_memory.py [--output benchmarks/results/gpu-memory.json]

Tensors are counted on torch's `meta` device, as `limbeck plan RECIPE --device cuda` does; blank images stand for the data sets.
What libraries take within an operation, and the driver's context, come on top.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.data.imageset import ImageSet
from limbeck.matching.engine import Arrangement
from limbeck.recipes import load_recipe
from limbeck.runs.computed import computed
from limbeck.runs.plan import Rehearsal
from limbeck.runs.settings import DistillSettings, settle
from limbeck.runtime.devices import STAND_IN
from limbeck.runtime.files import write_json
from limbeck.runtime.progress import NoProgress

GIB = 2**30
# Guo et al., "Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching" (DATM), 2023: its configurations.
DATM: dict[str, Any] = {"method": "datm", "match.expert_epochs": 2, "match.batch_syn": 1000, "outer.iterations": 10_000}


@dataclass(frozen=True)
class Case:
    """A published setting: K classes of images of side `size`, and how many a look of an evaluation is at."""

    name: str
    settings: DistillSettings
    classes: int
    size: int
    looked_at: int


def cases() -> Iterator[Case]:
    """The settings of the table."""
    cifar = {"network": "ConvNetD3", "ipc": 10, "match.syn_steps": 80, "experts.train_epochs": 60, "schedule.max_start_epoch": 50}
    cifar |= {"schedule.first_max_start_epoch": 30}
    yield Case("CIFAR-100, IPC 10, DATM", settle({**DATM, **cifar}), 100, 32, 5000)
    for ipc in (1, 10, 50):
        yield Case(f"ImageNette, IPC {ipc}, EDF", load_recipe(f"imagenette/ConvNetD5/edf-ipc{ipc}"), 10, 128, 0)
    tiny = {"network": "ConvNetD4", "ipc": 50, "match.syn_steps": 20, "experts.train_epochs": 70, "schedule.min_start_epoch": 40}
    tiny |= {"schedule.first_max_start_epoch": 46, "schedule.max_start_epoch": 60}
    yield Case("Tiny-ImageNet, IPC 50, DATM", settle({**DATM, **tiny}), 200, 64, 10_000)


def blank(case: Case) -> DistillSettings:
    """The settings with images that show nothing."""
    labels = np.arange(case.classes).repeat(case.settings.ipc)
    draws = np.random.default_rng(0)
    x = np.broadcast_to(
        draws.integers(0, 256, (1, 3, case.size, case.size), dtype=np.uint8), (len(labels), 3, case.size, case.size)
    )
    every = slice(None, None, case.settings.ipc)
    source = ImageSet.from_arrays(x, labels, x[every], labels[every], x_val=x[every], y_val=labels[every])
    data = replace(case.settings.data, source=source, size=None, per_class=None)
    return replace(case.settings, data=data)


def row(case: Case, ways: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Bytes at the peak of every way, and what was decided."""
    settings, found = blank(case), {}
    for name, how in ways.items():
        engine = {key: value for key, value in how.items() if key != "arrangement"}
        workspace = Rehearsal(replace(settings, engine=replace(settings.engine, **engine)), NoProgress(), device=STAND_IN)
        one = computed(workspace, case.looked_at, how.get("arrangement"))
        found[name] = {"peak": one.peak, "held": one.held, "stages": dict(one.stages), "engine": one.engine and asdict(one.engine)}
    match, total = settings.match, case.classes * settings.ipc
    return {"name": case.name, "steps": match.syn_steps, "batch": min(total, match.batch_syn or total), "ways": found}


WAYS: dict[str, dict[str, Any]] = {
    "unroll": {"kind": "unroll"},
    "whole batches": {"arrangement": Arrangement(compiled=True)},
    "engine.memory=4GB": {"memory": "4GB"},
}


def line(found: dict[str, Any]) -> list[str]:
    """Of the table."""
    peaks = [f"{found['ways'][name]['peak'] / 1e9:.1f} GB" for name in WAYS]
    engine = found["ways"]["engine.memory=4GB"]["engine"]
    return [
        found["name"],
        str(found["steps"]),
        str(found["batch"]),
        *peaks,
        str(engine["micro_batch"] or "all"),
        str(engine["kept"]),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="memory of a GPU at published settings, computed")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = []
    for case in cases():
        rows.append(row(case, WAYS))
        print(f"{case.name}: {', '.join(line(rows[-1])[3:])}", file=sys.stderr, flush=True)
    heads = ["setting", "T", "batch", *WAYS, "micro-batch", "steps kept"]
    for words in (heads, ["---"] * len(heads), *map(line, rows)):
        print(f"| {' | '.join(words)} |")
    if arguments.output:
        write_json(arguments.output, {"computed": True, "rows": rows})
