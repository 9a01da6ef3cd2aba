"""Class-incremental learning from a memory: distilled images against real ones.

K classes arrive in T tasks, in an order drawn from the seed. After each task a fresh network is trained on the memory of all
classes seen so far, S, and tested on the test images of these classes:

    accuracy_t = share of test images x of classes S_t with argmax_{k ∈ S_t} f_k(x) right        average = Σ_t accuracy_t / T

The network has |S| outputs, so that it knows of no class to come. Labels are restricted to S and renormalised:
p_k / Σ_{j∈S} p_j, for label logits the softmax over the logits of S.

A. Prabhu, P. Torr and P. Dokania, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning", 2020; as in
B. Zhao and H. Bilen, "Dataset Condensation with Distribution Matching" (DM), 2021, arXiv:2110.04181.

DM makes the images of each class alone. A set that was distilled from all classes at once knows, in its images, of classes to come,
which a memory filled task by task would not: of such a set this says how useful its parts are, not that it could be had this way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from limbeck.accuracy import Accuracy, Comparison
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.fitting import Cell, Cells, Fit, Network, Trained, check_measured, check_seeds, right_share
from limbeck.evaluation.statistics import compare, summarise
from limbeck.runtime.errors import require
from limbeck.runtime.random import derived_seed, generator
from limbeck.runtime.records import Record
from limbeck.training.images import Chosen, Images


@dataclass(frozen=True, kw_only=True)
class Course(Record):
    """Accuracies after each task, and of the mean over tasks."""

    steps: tuple[Accuracy, ...]
    average: Accuracy


@dataclass(frozen=True, kw_only=True)
class Lead(Record):
    """The same of one memory against another, seed by seed."""

    steps: tuple[Comparison, ...]
    average: Comparison


@dataclass(frozen=True, kw_only=True)
class Continual(Record):
    """Learning from each memory.

    Args:
        tasks: by seed, the classes of each task.
        images: how many each memory has; no comparison is fair where they differ.
        memories: by name.
        differences: of the first memory less this one, for all but the first.
        training: how networks were trained, where that is known.
    """

    tasks: Mapping[str, tuple[tuple[int, ...], ...]]
    images: Mapping[str, int]
    memories: Mapping[str, Course]
    differences: Mapping[str, Lead]
    training: Trained | None = None

    LEFT_OUT: ClassVar = ("training",)


def restricted(memory: SmallSet, seen: Sequence[int]) -> SmallSet:
    """The images of the classes `seen`, which are counted in the order of `seen`."""
    kept = torch.isin(memory.classes, torch.tensor(seen)).nonzero()[:, 0]
    labels = memory.labels[kept.to(memory.labels.device)][:, list(seen)]
    if memory.kind != "logits":
        labels = labels / labels.sum(1, keepdim=True)
    place = torch.empty(memory.num_classes, dtype=torch.int64)
    place[list(seen)] = torch.arange(len(seen))
    images = memory.images[kept.to(memory.images.device)]
    return SmallSet(images, labels, place[memory.classes[kept]], memory.syn_lr, memory.kind)


def class_tasks(num_classes: int, steps: int, seed: int) -> list[list[int]]:
    """The classes of each task, in a random order; where K is not divisible, the last tasks have one class less.

    Raises:
        UsageError: for fewer steps than one or more than classes.
    """
    require(1 <= steps <= num_classes, "steps", steps, f"in 1 … {num_classes}, the number of classes")
    order = torch.randperm(num_classes, generator=generator(seed, "class order"))
    return [part.tolist() for part in order.tensor_split(steps)]


def continual(
    fit: Fit,
    network: Network,
    memories: Mapping[str, Sequence[SmallSet]],
    test: Images,
    labels: Tensor,
    *,
    steps: int,
    seeds: Sequence[int],
    cells: Cells = Cells(),
) -> Continual:
    """Learn the classes task by task from each memory.

    A seed has an order of the classes, a start of the networks and, where a memory has several draws, a draw, all its own; so the
    values of different seeds are independent, and the intervals over them are what they say. Memories share all but the draw.

    Args:
        fit: the training.
        network: the architecture; as a function it makes one of as many classes as are seen.
        memories: by name, such as `distilled` and `random`; one for all seeds, or one for each.
        test: the test images.
        labels: their classes, int64 with shape (n,).
        steps: T.
        seeds: of the repetitions.
        cells: results that are done, and where new ones go; keys are `memory/seed/step`.

    Raises:
        UsageError: for memories, seeds, steps or images that do not fit together; before anything is trained.
    """
    num_classes = check(memories, test, labels, seeds)
    tasks = {seed: class_tasks(num_classes, steps, seed) for seed in seeds}

    def cell(memory: SmallSet, seed: int, step: int) -> Cell:
        seen = [k for task in tasks[seed][: step + 1] for k in task]
        asked = torch.isin(labels.cpu(), torch.tensor(seen)).nonzero()[:, 0]
        place = torch.empty(num_classes, dtype=torch.int64)
        place[seen] = torch.arange(len(seen))
        measure = [Chosen(test, asked)]
        (logits,) = fit(network, restricted(memory, seen), seed=derived_seed(seed, "continual", step), measure=measure)
        return {"accuracy": right_share(logits, place[labels.cpu()[asked]])}

    found = cells.all(
        {
            f"{name}/{seed}/{step}": partial(cell, drawn[number % len(drawn)], seed, step)
            for name, drawn in memories.items()
            for number, seed in enumerate(seeds)
            for step in range(steps)
        }
    )
    rows = {name: [[found[f"{name}/{seed}/{step}"]["accuracy"] for step in range(steps)] for seed in seeds] for name in memories}
    first, *others = memories
    return Continual(
        tasks={str(seed): tuple(map(tuple, found)) for seed, found in tasks.items()},
        images={name: len(drawn[0].images) for name, drawn in memories.items()},
        memories={
            name: Course(steps=tuple(map(summarise, zip(*found, strict=True))), average=summarise(_averages(found)))
            for name, found in rows.items()
        },
        differences={name: _paired(rows[first], rows[name]) for name in others},
    )


def check(memories: Mapping[str, Sequence[SmallSet]], test: Images, labels: Tensor, seeds: Sequence[int]) -> int:
    """K, when all fit together.

    Raises:
        UsageError: when they do not.
    """
    check_seeds(seeds)
    require(len(memories) > 0 and all(memories.values()), "memories", list(memories), "one memory or more, each with a draw")
    num_classes = next(iter(memories.values()))[0].num_classes
    every = list(range(num_classes))
    for name, drawn in memories.items():
        require(len(drawn) in (1, len(seeds)), name, len(drawn), f"one memory, or {len(seeds)}, one for each seed")
        for memory in drawn:
            found = sorted(set(memory.classes.tolist()))
            require(memory.num_classes == num_classes, name, memory.num_classes, f"a set of {num_classes} classes")
            require(found == every, f"{name}.classes", found, f"each of 0 … {num_classes - 1}")
            own = memory.labels.cpu().gather(1, memory.classes[:, None])
            sound = memory.kind == "logits" or bool((own > 0).all())
            require(sound, f"{name}.labels", own.min().item(), "above 0 for the class that an image is kept for")
        sizes = {len(memory) for memory in drawn}
        require(len(sizes) == 1, name, sorted(sizes), "of draws with equal numbers of images")
    check_measured("test", test, labels, num_classes)
    found = sorted(set(labels.tolist()))
    require(found == every, "test", found, f"of images of each class 0 … {num_classes - 1}")
    return num_classes


def _paired(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> Lead:
    """Comparisons over seeds of the accuracies a[seed][step] and b[seed][step]."""
    steps = map(compare, zip(*a, strict=True), zip(*b, strict=True))
    return Lead(steps=tuple(steps), average=compare(_averages(a), _averages(b)))


def _averages(rows: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(row) / len(row) for row in rows]
