"""Training several experts at a time: in one-thread processes on a CPU, vectorised over their parameters on a GPU.

An expert is the same whichever way it is trained: its own start, its own order of batches and its own augmentation follow from its
number.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from limbeck.experts.files import Job, Recorder, held_bytes
from limbeck.experts.settings import ExpertSettings
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.devices import on_gpu, one_thread
from limbeck.runtime.errors import Failure
from limbeck.runtime.executor import Cluster, Tick, cores, current
from limbeck.runtime.memory import free_memory, freed_memory_reused
from limbeck.runtime.random import generator
from limbeck.training.compute import Compute
from limbeck.training.gradient import Gradient
from limbeck.training.images import Images, sample
from limbeck.training.optimisers import Gsam, Optimiser, Sgd
from limbeck.training.rates import Constant, Cosine, DropAtHalf, Rate, Steps
from limbeck.training.targets import Hard
from limbeck.training.train import RETURNS, SMALLER, Member, Pool, Training, accuracy, train, train_together


@dataclass(frozen=True)
class ExpertSetup:
    """What experts are trained with.

    Args:
        compute: where and how.
        images: the training images.
        labels: of those.
        held_out: what accuracies are measured on; None: nothing.
        held_out_labels: their classes.
        settings: the keys `experts.*`.
        how: the training, whose epochs are those that the step sizes are laid out over; a job says how many are trained.
        seed: of the draws.
        pool: which images an epoch takes; None: all.
    """

    compute: Compute
    images: Images
    labels: Hard
    held_out: Images | None
    held_out_labels: Tensor
    settings: ExpertSettings
    how: Training
    seed: int
    pool: Pool | None = None

    @property
    def network(self) -> FlatNetwork:
        """The architecture."""
        return self.compute.network

    @property
    def steps(self) -> int:
        """Of one expert, weighed: what compiling is decided by, for one at a time and for several in step alike."""
        # Of all epochs that the settings name, so that an expert that goes on is computed as it began; and not of all experts,
        # so that their number changes none of them.
        steps = self.settings.train_epochs * math.ceil(len(self.images) / self.settings.batch_size)
        return self.compute.weighed(steps, self.images.shape, min(self.settings.batch_size, len(self.images)))

    @property
    def batches(self) -> set[int]:
        """Sizes of batches that occur in every epoch."""
        size = self.settings.batch_size
        rest = len(self.images) % size
        return {min(size, len(self.images)), *([rest] if rest and self.pool is None else [])}

    def gradient(self, count: int | None = None) -> Gradient:
        """The gradient that experts descend along, `count` of them in step."""
        return self.compute.gradient(self.how.loss, self.images.shape, self.steps, self.batches, count)

    def start(self, job: Job) -> tuple[Tensor, tuple[Tensor, ...]]:
        """θ and the optimiser's state where the job begins."""
        optimiser, device = self.how.optimiser, self.compute.device
        if job.restart is None:
            theta = self.network.initial(generator(self.seed, "expert", job.expert, "initial")).to(device)
            return theta, optimiser.state(theta)
        theta = job.restart.theta.to(device)
        return theta, tuple(tensor.to(device) for tensor in job.restart.state) or optimiser.state(theta)

    def in_step(self, jobs: Sequence[Job], after_epoch: Callable[[int, Tensor, tuple[Tensor, ...]], None]) -> Tensor:
        """The experts of jobs with equal start and stop, vectorised over their parameters, with shape (number of jobs, P).

        Args:
            jobs: what to train.
            after_epoch: called with the number of finished epochs (0 first, of those that start anew), all θ and the optimiser's
                state, all stacked.
        """
        thetas, states = zip(*(self.start(job) for job in jobs), strict=True)
        theta, state = torch.stack(thetas), tuple(torch.stack(parts) for parts in zip(*states, strict=True))
        if any(job.restart is None for job in jobs):  # those that go on from epoch 0 have it already, and pass it over
            after_epoch(0, theta, state)
        return train_together(
            self.network,
            theta,
            [Member(self.images, self.labels, ("expert", job.expert), self.pool) for job in jobs],
            self.how,
            seed=self.seed,
            gradient=self.gradient(len(jobs)),
            first_epoch=jobs[0].start,
            last_epoch=jobs[0].stop,
            state=state,
            after_epoch=lambda epoch, theta: after_epoch(epoch, theta, state),
        )

    def record(self, recorder: Recorder, job: Job, epoch: int, theta: Tensor, state: Sequence[Tensor]) -> None:
        """Keep what is to be kept of an epoch.

        Raises:
            Failure: when the expert has diverged.
        """
        if not math.isfinite(theta.sum().item()):
            tried, rate = f"with a {round(1 / SMALLER**RETURNS)}th of the step size too", self.settings.expert_lr
            raise Failure(f"expert {job.expert} diverged in epoch {epoch}, {tried}; experts.expert_lr ({rate}) is too large")
        reached = None
        if self.held_out is not None:
            module = self.network.with_parameters(theta, lambda: sample(self.images))
            reached = accuracy(module, self.held_out, self.held_out_labels)
        # Without momentum the next step needs nothing of this one.
        recorder.record(epoch, theta, reached, state if self.settings.momentum else ())


def optimiser_of(settings: ExpertSettings) -> Optimiser:
    """The optimiser that the settings name."""
    sgd = (settings.expert_lr, settings.momentum, settings.weight_decay)
    if settings.optimiser == "sgd":
        return Sgd(*sgd)
    least = rate_of(settings).least
    lr_min = settings.expert_lr * least if least < 1 else 0.0  # a constant step size is the greatest one
    return Gsam(*sgd, rho_min=settings.rho_min, rho_max=settings.rho_max, alpha=settings.alpha, lr_min=lr_min)


def rate_of(settings: ExpertSettings) -> Rate:
    """How the step size changes, by what the settings name."""
    rates: dict[str, Rate] = {
        "constant": Constant(),
        "drop_at_half": DropAtHalf(),
        "steps": Steps(settings.rate_milestones, settings.rate_factor),
        "cosine": Cosine(ends_at=settings.lr_min / settings.expert_lr),
    }
    return rates[settings.rate]


@dataclass(frozen=True)
class Trainer:
    """Trains and records.

    Args:
        material: what with.
        recorder: of a job, whose lock is held.
        epoch_done: told how many epochs more have been trained, perhaps in another thread.
        folder: that is recorded in.
    """

    material: ExpertSetup
    recorder: Callable[[Job], Recorder]
    epoch_done: Callable[[int], None]
    folder: Path | None = None

    @property
    def group(self) -> int:
        """How many experts to take at once."""
        material, together = self.material, self._together
        if isinstance(current(), Cluster):  # whoever computes takes as many of them as there is room for
            return material.settings.num_experts
        return together if together > 1 else 1 if on_gpu(material.compute.device) else max(1, cores())

    def train(self, jobs: Sequence[Job]) -> None:
        """Train the experts of jobs with equal start and stop."""
        executor, work, size = current(), [_Work(job, self.recorder(job)) for job in jobs], 1
        if on_gpu(self.material.compute.device):
            size = executor.in_step(self._together) if isinstance(executor, Cluster) else len(work)
        groups = [work[begin : begin + size] for begin in range(0, len(work), size)]
        spread = len(groups) > 1 and not isinstance(executor, Cluster) and self._pays(jobs)
        at_once = min(cores(), len(groups), self._fitting) if spread else 1
        done = executor.run(_train, self.material, groups, at_once=at_once, told=self.epoch_done, writes=self.folder)
        deque(done, maxlen=0)  # what they say is in the store

    @property
    def _together(self) -> int:
        """How many experts a device holds in step."""
        material = self.material
        return material.compute.together(material.images.shape, min(len(material.images), material.settings.batch_size))

    @property
    def _fitting(self) -> int:
        """How many experts the memory holds side by side."""
        compute, epochs = self.material.compute, self.material.settings.train_epochs
        return max(1, free_memory(compute.device) // held_bytes(compute.network.num_parameters, epochs))

    def _pays(self, jobs: Sequence[Job]) -> bool:
        """Whether the jobs take long enough for several processes."""
        material, size = self.material, self.material.settings.batch_size
        steps = math.ceil(len(material.images) / size) * sum(job.stop - job.start for job in jobs)
        with one_thread():
            gradient = material.gradient()
        return material.compute.pays_workers(gradient, material.images, material.labels, size, steps)


@dataclass(frozen=True)
class _Work:
    job: Job
    recorder: Recorder


def _train(material: ExpertSetup, work: Sequence[_Work], tick: Tick) -> None:
    """One expert on one thread of a CPU, or on the GPU; several of them there in step."""
    if len(work) > 1:
        train_in_step(material, [one.job for one in work], [one.recorder for one in work], tick)
        return
    job, recorder = work[0].job, work[0].recorder
    with freed_memory_reused(), one_thread():
        theta, state = material.start(job)
        if job.restart is None:
            recorder.record(0, theta)

        def after_epoch(epoch: int, theta: Tensor) -> None:
            material.record(recorder, job, epoch, theta, state)
            tick()

        train(
            material.network,
            theta,
            material.images,
            material.labels,
            material.how,
            seed=material.seed,
            key=("expert", job.expert),
            gradient=material.gradient(),
            first_epoch=job.start,
            last_epoch=job.stop,
            state=state,
            pool=material.pool,
            after_epoch=after_epoch,
        )


def train_in_step(material: ExpertSetup, jobs: Sequence[Job], recorders: Sequence[Recorder], tick: Tick) -> None:
    """Experts of jobs with equal start and stop, vectorised over their parameters; a tick for each and every epoch."""

    def after_epoch(epoch: int, theta: Tensor, state: tuple[Tensor, ...]) -> None:
        for number, (job, recorder) in enumerate(zip(jobs, recorders, strict=True)):
            if epoch == 0:
                recorder.record(0, theta[number])
            else:
                material.record(recorder, job, epoch, theta[number], [part[number] for part in state])
                tick()

    material.in_step(jobs, after_epoch)
