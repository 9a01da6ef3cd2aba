"""Memory and work of an iteration of NCFM beside DM and EDF with the exact engine, by count: no GPU and no data are needed.

    python benchmarks/ncfm_cost.py

Tensors are counted on the stand-in for a GPU, as `limbeck plan` does, and multiplications of convolutions and products by torch's
counter. Images are black ones of the recipe's size, as many of a class as an iteration takes.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from limbeck.data.imageset import ImageSet
from limbeck.methods.trajectory import TrajectoryMatching
from limbeck.recipes import load_recipe
from limbeck.runs.computed import computed
from limbeck.runs.plan import Rehearsal
from limbeck.runtime.progress import NoProgress

# What is counted: the recipe, (channels and sides, classes), and what is said over it.
CASES: tuple[tuple[str, str, tuple[int, ...], dict[str, str]], ...] = (
    ("scenes:medium", "scenes/ncfm-ipc1", (3, 32, 10), {}),
    ("scenes:medium", "scenes/dm-ipc1", (3, 32, 10), {}),
    ("scenes:medium", "scenes/edf-ipc1", (3, 32, 10), {}),
    ("Imagenette, published", "ncfm/imagenette-ipc10", (3, 128, 10), {}),
    ("Imagenette, published", "ncfm/imagenette-ipc10", (3, 128, 10), {"ncfm.sampling": "learned"}),
    ("Imagenette, DM's settings", "imagenette/ConvNetD5/edf-ipc10", (3, 128, 10), {"method": "dm"}),
    ("Imagenette, published", "imagenette/ConvNetD5/edf-ipc10", (3, 128, 10), {}),
)


def workspace(recipe: str, shape: tuple[int, ...], given: dict[str, str]) -> Rehearsal:
    """A workspace on the stand-in, with black images and fresh experts."""
    settings, (channels, side, classes) = load_recipe(recipe, given), shape
    labels = np.arange(classes).repeat(max(settings.ipc, settings.real.batch))
    images = np.zeros((len(labels), channels, side, side), np.uint8)
    data = ImageSet.from_arrays(images, labels, images[:classes], np.arange(classes), val_fraction=0.0)
    found = Rehearsal(settings, NoProgress(), device=torch.device("meta"))
    found.__dict__["data"] = data
    return found


def work(one: Rehearsal) -> float:
    """Floating-point operations of the gradient of an iteration."""
    classes = torch.arange(one.data.num_classes).repeat_interleave(one.settings.ipc)
    engine = one.engine()[:2] if one.method.steps else None
    objective: Any = one.method(one, classes, engine)
    x, y = (torch.empty(len(classes), *shape, device="meta") for shape in (one.data.shape, (one.data.num_classes,)))

    def of(steps: int | None) -> float:
        short = objective
        if steps is not None:
            short = dataclasses.replace(objective, matching=dataclasses.replace(objective.matching, syn_steps=steps))
        with FlopCounterMode(display=False) as counter:
            short.gradients(short.init(), x, y, torch.empty((), device="meta"), 1, plain=False)
        return counter.get_total_flops()

    if isinstance(objective, TrajectoryMatching):
        return of(2) + (one.settings.match.syn_steps - 2) * (of(4) - of(2)) / 2
    return of(None)


def main() -> None:
    print("| data | recipe | peak of an iteration | 10⁹ operations an iteration |\n|---|---|---|---|")
    for data, recipe, shape, given in CASES:
        one = workspace(recipe, shape, given)
        found, words = computed(one), " ".join([recipe, *(f"{key}={value}" for key, value in given.items())])
        peak = (found.held + found.stages["iterations"]) / 2**20
        print(f"| {data} | `{words}` | {peak:.0f} MiB | {work(one) / 1e9:.1f} |", flush=True)


if __name__ == "__main__":
    main()
