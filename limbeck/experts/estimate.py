"""What a store will take, before anything is trained: disk, epochs, and the time of the experts' stage.

    bytes = S · Σ over the blocks of the kept epochs of the coding's bytes (`coding.py`) + headers,
    as a share of the list format: 4 P (E + 1) bytes an expert

    seconds = preparation of images + difficulties, unless they are known + compilation + start of workers
            + Σ over the groups that `fill` trains at once, of their experts side by side or one after another:
                  steps · t_step + epochs · t_look + checkpoints · t_keep

For the published ten images per class (epochs 0 … 21 and the last of 100) that is 23 / 101 = 22.8 % in fp32. In half width four
of the 23 checkpoints end a block and are exact, the other 19 take 12⅛ bits a parameter: (4 · 32 + 19 · 12⅛) / (101 · 32) = 11.1 %.

t_look is the accuracy after an epoch, t_keep what a checkpoint takes to be written. All are timed for a moment on few images and
multiplied, uncompiled; nothing is trained to the end, no worker started. Compiled steps are taken to need `COMPILED` of the time.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise

import torch
from torch import Tensor

from limbeck.experts.blocks import BLOCK, blocks_of
from limbeck.experts.coding import CODINGS
from limbeck.experts.curriculum import EPOCHS, NETWORKS, Scoring, difficulty, window
from limbeck.experts.files import Job, Recorder, Shelf
from limbeck.experts.notes import Want
from limbeck.experts.store import TrajectoryStore, missing_jobs
from limbeck.experts.train import ExpertTask, material_of, scoring_of
from limbeck.experts.trainer import ExpertSetup, Trainer
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.devices import on_gpu, one_thread
from limbeck.runtime.executor import Shard
from limbeck.runtime.leftovers import passing_folder
from limbeck.runtime.memory import freed_memory_reused
from limbeck.runtime.random import generator
from limbeck.training.compute import TIMED_STEPS, WORKERS_FROM_SECONDS
from limbeck.training.images import Images, TensorImages
from limbeck.training.targets import Targets
from limbeck.training.train import Training, train

HEADER = 900  # bytes a file
A_MOMENT = 0.5  # seconds that a measurement is to take
COMPILING, COMPILED = 15.0, 0.5  # seconds, and the share of its time that a step then needs, as measured on two CPUs
STARTING = 5.0  # seconds of a worker
REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Disk and epochs of training.

    Args:
        disk: bytes of the store once it is full.
        list_format: bytes that lists of all epochs would take.
        share: the ratio of the two.
        checkpoints: an expert, at most.
        missing_experts: how many lack something.
        epochs: to train in all experts, from scratch or from where the store lets them go on.
        to_write: bytes of what that adds to the store.
    """

    disk: int
    list_format: int
    share: float
    checkpoints: int
    missing_experts: int
    epochs: int
    to_write: int


def estimate(
    want: Want, num_parameters: int, *, state: int = 0, store: TrajectoryStore | None = None, shard: Shard = Shard()
) -> Estimate:
    """What a store takes.

    Args:
        want: what is to be kept, such as `want_of` makes it.
        num_parameters: P.
        state: tensors of P numbers that the optimiser needs to go on; SGD without momentum: 0.
        store: holds some of it already; None: nothing.
        shard: the share of the experts to train.
    """
    experts = range(want.num_experts)
    disk = sum(_bytes(want.of(expert), want.coding, num_parameters, state) for expert in experts)
    last = max(max(want.of(expert), default=0) for expert in experts)
    lists = 4 * num_parameters * (last + 1) * want.num_experts
    left = missing_jobs(want, store, shard)
    jobs = [job for own in left.values() for job in own]
    return Estimate(
        disk=disk,
        list_format=lists,
        share=disk / lists,
        checkpoints=max(len(want.of(expert)) for expert in experts),
        missing_experts=len(left),
        epochs=sum(job.stop - job.start for job in jobs),
        to_write=sum(_bytes(job.keep, want.coding, num_parameters, state) for job in jobs),
    )


def _bytes(epochs: Sequence[int], coding: str, num_parameters: int, state: int) -> int:
    blocks = blocks_of(epochs)
    held = sum(CODINGS[coding if len(block) > 1 else "fp32"].size(len(block), num_parameters) + HEADER for block in blocks)
    ends = sum(block[-1] + 1 not in epochs for block in blocks)
    return held + ends * (4 * state * num_parameters + HEADER) * (state > 0)


@dataclass(frozen=True)
class Counts:
    """How many training and validation images there are, of which a task may have fewer at hand."""

    train: int
    val: int


@dataclass(frozen=True)
class Pace:
    """Seconds of one expert's step, look after an epoch, and checkpoint; `compiling`, once, of its gradient."""

    step: float
    look: float
    keep: float
    compiling: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """What a stage takes: `seconds`; `parts`, seconds by what they are for; `at_once`, how many experts are trained at a time."""

    seconds: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    at_once: int = 0


def forecast(task: ExpertTask, want: Want, store: TrajectoryStore | None, counts: Counts | None = None) -> Forecast:
    """What the experts' stage takes if it is started now; nothing of it where nothing is missing.

    Args:
        task: what determines the experts; a few of the images will do.
        want: what is to be there.
        store: where some of it may be; None: nothing is.
        counts: of the images; None: those of the task.

    Raises:
        UsageError: when the store lacks something and was imported.
    """
    if store is not None:
        store.to_train(want)  # refuses an imported one
    jobs, counts = missing_jobs(want, store), counts or Counts(len(task.data.train), len(task.data.val))
    if not jobs:
        return Forecast()
    began = time.perf_counter()
    material = material_of(task)
    parts = {"images": (time.perf_counter() - began) * counts.train / len(task.data.train)}
    if task.settings.curriculum == "pad":
        scoring = scoring_of(task, material)
        parts["difficulty"] = 0.0 if scoring.held() else difficulty_seconds(scoring, counts.train)
    pace, group = _pace(material, want.coding, counts), Trainer(material, lambda job: _Nothing(), lambda count: None).group
    batch, on_cpu = min(counts.train, task.settings.batch_size), not on_gpu(material.compute.device)
    parts |= {"compile": pace.compiling} | dict.fromkeys(("workers", "steps", "accuracies", "checkpoints"), 0.0)
    at_once = 1
    for same in _sets(jobs, group):
        first = same[0]
        epochs, kept, one_by_one = first.stop - first.start, max(len(job.keep) for job in same), len(same)
        kept += (epochs - kept) // BLOCK if epochs > kept else 0  # on the way to an epoch that is far ahead
        if on_cpu and len(same) > 1:
            parts["workers"] += (1 + TIMED_STEPS) * pace.step  # after which the trainer decides
            if pace.step * len(same) * epochs * math.ceil(counts.train / batch) >= WORKERS_FROM_SECONDS:
                one_by_one, at_once = 1, max(at_once, len(same))  # each on a core of its own
        shares = [high - low for low, high in map(window, range(first.start, first.stop))]
        if task.settings.curriculum != "pad":
            shares = [1.0] * epochs
        parts["steps"] += one_by_one * sum(shares) * counts.train / batch * pace.step
        parts["accuracies"] += one_by_one * epochs * pace.look
        parts["checkpoints"] += one_by_one * kept * pace.keep
    parts["workers"] += STARTING * (at_once > 1)
    return Forecast(sum(parts.values()), parts, at_once)


def difficulty_seconds(scoring: Scoring, count: int) -> float:
    """Seconds of the networks that the scores of so many images are a mean over, and of the scores."""
    network, how, few = scoring.network, scoring.how, TensorImages(scoring.images.fetch(torch.arange(min(2, len(scoring.images)))))
    theta, labels = network.initial(generator(0, "estimate")).to(few.device), scoring.labels
    score = seconds_of(lambda: difficulty(network, [theta], few, labels, how.loss, scoring.measure)) / len(few)
    batch = min(count, how.batch_size)
    step = step_seconds(network, scoring.images, scoring.labels, how, batch)
    return NETWORKS * count * (EPOCHS * step / batch + score)


def step_seconds(network: FlatNetwork, images: Images, targets: Targets, how: Training, batch: int) -> float:
    """Seconds of one step of a training on a batch of that size, uncompiled: as many times those of a few of its images."""

    def of(few: int) -> float:
        clock, part = list[float](), TensorImages(images.fetch(torch.arange(few)))
        start, short = network.initial(generator(0, "estimate")).to(images.device), replace(how, batch_size=few)
        ended = lambda *_: clock.append(time.perf_counter())  # noqa: E731
        with one_thread():
            train(network, start, part, targets, short, seed=0, key=("estimate",), last_epoch=REPEATS + 1, after_epoch=ended)
        return statistics.median(later - earlier for earlier, later in pairwise(clock))

    few = few_of(of, min(batch, len(images)))
    return of(few) * batch / few


def few_of(seconds: Callable[[int], float], most: int) -> int:
    """How many images take `A_MOMENT`, by the time of two of them."""
    least = min(2, most)
    return max(least, min(most, int(least * A_MOMENT / seconds(least))))


def seconds_of(work: Callable[[], object]) -> float:
    """Of a second time, because the first makes what is needed ready; of the first where that took more than a moment."""
    for _ in range(2):
        began = time.perf_counter()
        work()
        if (taken := time.perf_counter() - began) > A_MOMENT:
            break
    return taken


def _pace(material: ExpertSetup, coding: str, counts: Counts) -> Pace:
    settings, compute, shape = material.settings, material.compute, material.images.shape
    batch = min(counts.train, settings.batch_size)
    steps = settings.train_epochs * math.ceil(counts.train / settings.batch_size)
    compiled = compute.compiles(compute.weighed(steps, shape, batch))
    with freed_memory_reused():
        step = step_seconds(compute.network, material.images, material.labels, material.how, batch)
    with one_thread():
        look, keep = _look(material, counts.val), _keep(material, coding)
    return Pace(step * COMPILED if compiled else step, look, keep, COMPILING * compiled)


def _look(material: ExpertSetup, count: int) -> float:
    """Seconds of what is looked at after an epoch."""
    job = Job(0, 0, (1,), None)
    theta, state = material.start(job)
    if material.held_out is None:
        return seconds_of(lambda: material.record(_Nothing(), job, 1, theta, state))
    held_out, labels = material.held_out, material.held_out_labels

    def of(few: int) -> float:
        images = TensorImages(held_out.fetch(torch.arange(few)))
        part = replace(material, images=images, held_out=images, held_out_labels=labels[:few])
        return seconds_of(lambda: part.record(_Nothing(), job, 1, theta, state))

    few = few_of(of, len(held_out))
    return of(few) * count / few


def _keep(material: ExpertSetup, coding: str) -> float:
    """Seconds of writing a checkpoint, one of a block."""
    theta, state = material.start(Job(0, 0, (1,), None))
    draws = generator(0, "estimate")
    with passing_folder() as folder:
        recorder = Recorder(Shelf(folder / "expert-0000", len(theta)), Job(0, 0, tuple(range(BLOCK)), None), coding)
        taken = 0.0
        for epoch in range(BLOCK):
            theta = theta + 0.01 * torch.randn(theta.shape, generator=draws).to(theta.device)
            began = time.perf_counter()
            recorder.record(epoch, theta, 0.0, state if material.settings.momentum else ())
            taken += time.perf_counter() - began
    return taken / BLOCK


class _Nothing(Recorder):
    """Keeps nothing."""

    def __init__(self) -> None: ...

    def record(self, epoch: int, theta: Tensor, accuracy: float | None = None, state: Sequence[Tensor] = ()) -> None: ...


def _sets(jobs: Mapping[int, Sequence[Job]], group: int) -> Iterator[list[Job]]:
    """The jobs that are trained at once, one such set after another, as `fill` takes them."""
    left = {expert: list(own) for expert, own in jobs.items()}
    while left:
        first = sorted((left[expert].pop(0) for expert in list(left)[:group]), key=lambda job: (job.start, job.stop))
        left = {expert: own for expert, own in left.items() if own}
        for _, same in groupby(first, key=lambda job: (job.start, job.stop)):
            yield list(same)
