"""How long the experts' stage of a recipe will take: the trainer itself, timed for a moment, and what the store lacks.

    seconds = preparation of images + difficulties, unless they are known + compilation + start of workers
            + Σ over the groups that `fill` trains at once, of their experts side by side or one after another:
                  steps · t_step + epochs · t_look + checkpoints · t_keep

t_look is the accuracy after an epoch, t_keep what a checkpoint takes to be written. Where the experts take long enough for
workers, these are started and timed while all of them are at work.
"""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.experts.blocks import BLOCK
from limbeck.experts.curriculum import EPOCHS, NETWORKS, Curriculum, Scoring, difficulty
from limbeck.experts.files import Job, Recorder, Shelf
from limbeck.experts.store import TrajectoryStore, Want, missing_jobs
from limbeck.experts.train import ExpertTask, material_of, scoring_of
from limbeck.experts.trainer import ExpertSetup, Trainer
from limbeck.runtime.devices import one_thread
from limbeck.runtime.executor import cores, side_by_side
from limbeck.runtime.memory import reuse_freed_memory
from limbeck.runtime.random import generator
from limbeck.training.compute import TIMED_STEPS, WORKERS_FROM_SECONDS
from limbeck.training.gradient import Gradient
from limbeck.training.images import TensorImages

LEAST_STEPS, MOST_STEPS = 3, 50
ABOUT, LONG = 2.0, 4.0  # seconds: of the steps timed together; of one that is not timed a second time
LOOKED_AT = 256 * 32 * 32  # pixels of held-out images
SCORED = 64  # images, as many as `difficulty` takes at a time


@dataclass(frozen=True)
class Pace:
    """Seconds of what experts that are trained at once do: all of them a step, the look after an epoch, a checkpoint each."""

    step: float
    look: float
    keep: float


def forecast(task: ExpertTask, want: Want, store: TrajectoryStore | None) -> dict[str, Any]:
    """What the experts' stage of a recipe takes, if it is started now; nothing is trained to the end, and no store is written.

    Args:
        task: what determines the experts.
        want: what is to be there.
        store: where some of it may be; None: nothing is.

    Returns:
        `seconds`; `parts`, seconds by what they are for; `at_once`, how many experts are trained at a time; 0 where nothing is
        missing, which is told without a calibration.

    Raises:
        UsageError: when the store lacks something and was imported.
    """
    if store is not None:
        store.to_train(want)  # refuses an imported one
    jobs = missing_jobs(want, store)
    if not jobs:
        return {"seconds": 0.0, "parts": {}, "at_once": 0}
    began = time.perf_counter()
    material = material_of(task)
    parts = {"images": time.perf_counter() - began}
    if task.settings.curriculum == "pad":
        scoring = scoring_of(task, material)
        parts["difficulty"] = 0.0 if scoring.held() else difficulty_seconds(scoring)
        curriculum = Curriculum(np.zeros(len(material.images)), material.labels.argmax(1).cpu().numpy())
        material = replace(material, pool=curriculum.positions)  # as many images as those of the true scores
    training, at_once = _training(material, want.coding, list(_sets(jobs, _group(material))))
    parts |= training
    return {"seconds": sum(parts.values()), "parts": parts, "at_once": at_once}


def difficulty_seconds(scoring: Scoring) -> float:
    """Seconds of the networks that the scores are a mean over, and of the scores."""
    images = scoring.images
    batch, few = min(len(images), scoring.batch_size), torch.arange(min(len(images), SCORED))
    clock = _Clock()
    how = replace(scoring.how, epochs=1 + LEAST_STEPS)
    theta = scoring.train(0, how, lambda *_: clock.tick(), _First(batch))
    asked, labels = TensorImages(images.fetch(few)), scoring.labels[: len(few)]
    score = _seconds(lambda: difficulty(scoring.network, [theta], asked, labels, how.loss, scoring.measure))
    epochs = EPOCHS * len(images) / batch
    return NETWORKS * (epochs * statistics.fmean(clock.intervals()) + len(images) / len(few) * score)


def _training(material: ExpertSetup, coding: str, sets: Sequence[Sequence[Job]]) -> tuple[dict[str, float], int]:
    """Seconds by part of groups that are trained one after another, and how many experts are trained at a time."""
    trials, on_cpu = _Trials(material, coding), material.compute.device.type == "cpu"
    parts = dict.fromkeys(("compile", "workers", "steps", "accuracies", "checkpoints"), 0.0)
    at_once, steps_of = 1, cache(lambda epoch: _steps(material, epoch))
    for jobs in sets:
        first = jobs[0]
        steps = sum(map(steps_of, range(first.start, first.stop)))
        epochs, kept = first.stop - first.start, max(len(job.keep) for job in jobs)
        kept += (epochs - kept) // BLOCK if epochs > kept else 0  # on the way to an epoch that is far ahead
        together, repeats = len(jobs), 1
        if on_cpu and len(jobs) > 1:
            alone = trials.pace(1).step
            parts["workers"] += (1 + TIMED_STEPS) * alone  # after which the trainer decides
            if alone * len(jobs) * epochs * math.ceil(len(material.images) / material.settings.batch_size) < WORKERS_FROM_SECONDS:
                together, repeats = 1, len(jobs)
        pace, at_once = trials.pace(together), max(at_once, together)
        parts["steps"] += repeats * steps * pace.step
        parts["accuracies"] += repeats * epochs * pace.look
        parts["checkpoints"] += repeats * kept * pace.keep
    parts["compile"], parts["workers"] = trials.compiling, parts["workers"] + trials.starting
    return parts, at_once


def _steps(material: ExpertSetup, epoch: int) -> float:
    """Of an epoch (from 0); a last batch that is not full counts as its share."""
    count = len(material.images) if material.pool is None else len(material.pool(epoch))
    return count / min(len(material.images), material.settings.batch_size)


def _sets(jobs: Mapping[int, Sequence[Job]], group: int) -> Iterator[list[Job]]:
    """The jobs that are trained at once, one such set after another, as `fill` takes them."""
    left = {expert: list(own) for expert, own in jobs.items()}
    while left:
        first = sorted((left[expert].pop(0) for expert in list(left)[:group]), key=lambda job: (job.start, job.stop))
        left = {expert: own for expert, own in left.items() if own}
        for _, same in groupby(first, key=lambda job: (job.start, job.stop)):
            yield list(same)


def _group(material: ExpertSetup) -> int:
    return Trainer(material, lambda job: _Clock(), lambda count: None).group


class _Trials:
    """The paces of a trainer, each measured when it is first asked for.

    Args:
        material: what experts are trained with.
        coding: of their checkpoints.
    """

    def __init__(self, material: ExpertSetup, coding: str) -> None:
        held = {field.name: getattr(material, field.name) for field in fields(material)}
        batch = min(len(material.images), material.settings.batch_size)
        self.few = _Few(**(held | {"held_out": None, "pool": _First(batch), "whole": material, "coding": coding}))
        self.compiling = self.starting = 0.0
        self._known: dict[int, Pace] = {}

    def pace(self, together: int) -> Pace:
        """Of so many experts at once."""
        if together not in self._known:
            beside = together > 1 and self.few.compute.device.type == "cpu"
            self._known[together] = self._side_by_side(min(cores(), together)) if beside else self._here(together)
        return self._known[together]

    def _here(self, together: int) -> Pace:
        timing = _timed((self.few, together))
        self.compiling += timing.compiling
        return timing.pace

    def _side_by_side(self, processes: int) -> Pace:
        work, began = [(self.few, 1)] * processes, time.perf_counter()
        started = list(side_by_side(_timed, work, processes))
        taken = time.perf_counter() - began
        self.starting += max((taken - one.seconds + one.compiling for one in started if one.process != os.getpid()), default=0.0)
        paces = [one.pace for one in side_by_side(_timed, work, processes)]  # now all of them at the same time
        return Pace(*(statistics.fmean(getattr(pace, field.name) for pace in paces) for field in fields(Pace)))


@dataclass(frozen=True)
class _First:
    """Every epoch takes the first images."""

    count: int

    def __call__(self, epoch: int) -> Tensor:
        return torch.arange(self.count)


@dataclass(frozen=True)
class _Few(ExpertSetup):
    """`whole` with one step an epoch and nothing to look at, by the gradient that all of it would decide on."""

    whole: ExpertSetup | None = None
    coding: str = "fp32"

    def gradient(self) -> Gradient:
        assert self.whole is not None
        return self.whole.gradient()


class _Clock(Recorder):
    """Notes when epochs end, and keeps nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def record(self, epoch: int, theta: Tensor, accuracy: float | None = None, state: Sequence[Tensor] = ()) -> None:
        self.tick()

    def tick(self) -> None:
        """An epoch has ended."""
        self.times.append(time.perf_counter())

    def intervals(self) -> list[float]:
        """Seconds of every epoch."""
        return [later - earlier for earlier, later in pairwise(self.times)]


@dataclass(frozen=True)
class _Timing:
    """What one process found: its number, its seconds in all and those until it was warm."""

    process: int
    seconds: float
    compiling: float
    pace: Pace


def _timed(work: tuple[_Few, int]) -> _Timing:
    """The pace of so many experts at once in this process; a mean, because all of their steps add up, slow ones too."""
    few, together = work
    began = time.perf_counter()
    reuse_freed_memory()
    if together == 1:
        with one_thread():
            few.gradient()
    ready = time.perf_counter()
    first = step = _run(few, together, 1)[0]
    if first < LONG:
        step = statistics.fmean(_run(few, together, min(MOST_STEPS, max(LEAST_STEPS, math.ceil(ABOUT / first)))))
    compiling = ready - began + max(0.0, first - step)
    with one_thread():
        pace = Pace(step, together * _look(few), together * _keep(few))
    return _Timing(os.getpid(), time.perf_counter() - began, compiling, pace)


def _run(few: _Few, together: int, steps: int) -> list[float]:
    """Seconds of every one of some steps of the trainer."""
    clocks = [_Clock() for _ in range(together)]
    jobs = [Job(expert, 0, (steps,), None) for expert in range(together)]
    Trainer(few, lambda job: clocks[job.expert], lambda count: None).train(jobs)
    return clocks[0].intervals()


def _look(few: _Few) -> float:
    """Seconds of what is looked at after an epoch."""
    assert few.whole is not None
    whole, job = few.whole, Job(0, 0, (1,), None)
    theta, state = whole.start(job)
    if whole.held_out is None:
        return _seconds(lambda: whole.record(_Clock(), job, 1, theta, state))
    _, height, width = whole.images.shape
    index = torch.arange(min(len(whole.held_out), max(16, LOOKED_AT // (height * width))))
    part = replace(whole, held_out=TensorImages(whole.held_out.fetch(index)), held_out_labels=whole.held_out_labels[: len(index)])
    return len(whole.held_out) / len(index) * _seconds(lambda: part.record(_Clock(), job, 1, theta, state))


def _keep(few: _Few) -> float:
    """Seconds of writing a checkpoint, one of a block."""
    assert few.whole is not None
    theta, state = few.whole.start(Job(0, 0, (1,), None))
    draws = generator(0, "calibrate")
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder) / "expert-0000", len(theta))
        recorder = Recorder(shelf, Job(0, 0, tuple(range(BLOCK)), None), few.coding)
        taken = 0.0
        for epoch in range(BLOCK):
            theta = theta + 0.01 * torch.randn(theta.shape, generator=draws).to(theta.device)
            began = time.perf_counter()
            recorder.record(epoch, theta, 0.0, state if few.settings.momentum else ())
            taken += time.perf_counter() - began
    return taken / BLOCK


def _seconds(work: Callable[[], Any]) -> float:
    """Of a second time, because the first makes what is needed ready."""
    for _ in range(2):
        began = time.perf_counter()
        work()
        taken = time.perf_counter() - began
    return taken
