"""Trials: a fresh network is trained on some images and asked about others.

One trial computes on one thread of the CPU wherever it runs, so that its result is the same to the bit in this process, in a worker
and on a machine with more cores. Where many take long they run in workers, two at a time on two cores; on a GPU those with
equal numbers of images are trained together, vectorised over their parameters.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from limbeck.networks.flat import FlatNetwork
from limbeck.networks.micro_batches import automatic_micro_batch, output_sizes, sizes
from limbeck.runtime.compiling import keep_compiled_code
from limbeck.runtime.devices import one_thread
from limbeck.runtime.memory import free_memory, reuse_freed_memory
from limbeck.runtime.random import Key, generator
from limbeck.runtime.workers import Ticks, cores, in_workers, ticks
from limbeck.training.gradient import Gradient, Loss
from limbeck.training.images import Images, sample
from limbeck.training.targets import Targets
from limbeck.training.train import Member, Training, logits_of, train, train_together

# Compiling costs ten to twenty seconds and halves a step: below so many steps it does not pay. A count and no timing,
# because compiled code rounds differently, and two equal evaluations must decide alike.
COMPILE_FROM_STEPS = 4000
# Starting a worker costs some five seconds. That may be timed: where a trial runs changes no bit of it.
WORKERS_FROM_SECONDS = 20.0
TIMED_STEPS = 3


@dataclass(frozen=True)
class Trial:
    """One network to train.

    Args:
        images: to train on.
        targets: of these images.
        how: the training.
        key: names the trial among others of the same seed; the network's start and all draws follow from it.
    """

    images: Images
    targets: Targets
    how: Training
    key: tuple[Key, ...]

    @property
    def steps(self) -> int:
        """How many steps the training has."""
        return self.how.epochs * -(-len(self.images) // self.how.batch_size)


@dataclass(frozen=True, eq=False)
class Outcome:
    """θ with shape (P,) and the logits (n, K) for each collection of images asked about, on the CPU."""

    theta: Tensor
    logits: list[Tensor]


@dataclass(frozen=True)
class Trials:
    """Runs trials of one network.

    Args:
        network: the architecture, on the device that computes.
        seed: of the draws.
        device: to compute on.
        compile: `yes`, `no`, or `auto` for those that are long enough.
    """

    network: FlatNetwork
    seed: int
    device: torch.device
    compile: Literal["auto", "yes", "no"] = "auto"

    def run(
        self, trials: Sequence[Trial], asked: Sequence[Images], epoch_done: Callable[[int], None] = lambda count: None
    ) -> Iterator[Outcome]:
        """The outcome of every trial, in order, each as soon as it is there.

        Args:
            trials: what to train.
            asked: what to ask every trained network about.
            epoch_done: told how many epochs more have been trained, from time to time and perhaps in another thread.
        """
        if not trials:
            return
        if self.device.type == "cuda" and len(trials) > 1 and _alike(trials) and not self.network.has_dropout:
            yield from self._together(trials, asked, epoch_done)
            return
        with ticks(epoch_done) as counter:
            jobs = [_Job(self, trial, tuple(asked), counter) for trial in trials]
            if self.device.type == "cpu" and len(trials) > 1 and cores() > 1 and self._long(trials):
                yield from in_workers(_run, jobs, cores())
            else:
                yield from map(_run, jobs)

    def compiles(self, trial: Trial) -> bool:
        """Whether the gradient of that trial is compiled."""
        return {"yes": True, "no": False, "auto": trial.steps >= COMPILE_FROM_STEPS}[self.compile]

    def gradient(self, trial: Trial) -> Gradient:
        """The gradient that a trial descends along: compiled where that pays and works."""
        network, how = self.network, trial.how
        if not self.compiles(trial):
            return _gradient(network, how.loss, False, None)
        micro_batch = automatic_micro_batch(network, trial.images.shape, self.device)
        # Kept for the next trials of the process: a function compiled anew is traced anew.
        return _gradient_of(_Same(network, trial.images.shape), how.loss, micro_batch, _batches(trial))

    def start(self, trial: Trial) -> Tensor:
        """The fresh parameters of a trial."""
        return self.network.initial(generator(self.seed, *trial.key, "initial")).to(self.device)

    def outcome(self, trial: Trial, theta: Tensor, asked: Sequence[Images]) -> Outcome:
        """What the trained network says."""
        module = self.network.with_parameters(theta, lambda: sample(trial.images))
        return Outcome(theta.cpu(), [logits_of(module, images).cpu() for images in asked])

    def _long(self, trials: Sequence[Trial]) -> bool:
        """Whether all trials together would take long enough for workers to pay."""
        trial = trials[0]
        with one_thread():
            gradient, theta = self.gradient(trial), self.start(trial)
            index = torch.arange(min(len(trial.images), trial.how.batch_size))
            x = trial.images.fetch(index)
            y = trial.targets.of(index, x, lambda y: y)
            gradient(theta, x, y)
            began = time.perf_counter()
            for _ in range(TIMED_STEPS):
                gradient(theta, x, y)
            step = (time.perf_counter() - began) / TIMED_STEPS
        return step * sum(trial.steps for trial in trials) >= WORKERS_FROM_SECONDS

    def _together(self, trials: Sequence[Trial], asked: Sequence[Images], epoch_done: Callable[[int], None]) -> Iterator[Outcome]:
        """Groups of trials as large as the memory allows."""
        first = trials[0]
        batch = min(len(first.images), first.how.batch_size)
        activation = 4 * 4 * batch * sum(output_sizes(self.network, first.images.shape))
        group = max(1, min(len(trials), free_memory(self.device) // 2 // max(activation + 16 * self.network.num_parameters, 1)))
        gradient = Gradient(self.network, first.how.loss, self.compiles(first))
        for begin in range(0, len(trials), group):
            part = trials[begin : begin + group]
            theta = torch.stack([self.start(trial) for trial in part])
            members = [Member(trial.images, trial.targets, trial.key) for trial in part]
            theta = train_together(
                self.network,
                theta,
                members,
                first.how,
                seed=self.seed,
                gradient=gradient,
                after_epoch=lambda epoch, theta, count=len(part): epoch_done(count),  # type: ignore[misc]
            )
            yield from (self.outcome(trial, row, asked) for trial, row in zip(part, theta, strict=True))


@dataclass(frozen=True)
class _Job:
    trials: Trials
    trial: Trial
    asked: tuple[Images, ...]
    counter: Ticks


def _run(job: _Job) -> Outcome:
    """One trial on one thread, or on the GPU."""
    trials, trial = job.trials, job.trial
    reuse_freed_memory()
    with one_thread():
        theta = train(
            trials.network,
            trials.start(trial),
            trial.images,
            trial.targets,
            trial.how,
            seed=trials.seed,
            key=trial.key,
            gradient=trials.gradient(trial),
            after_epoch=lambda *_: job.counter.add(),
        )
        return trials.outcome(trial, theta, job.asked)


@dataclass(frozen=True)
class _Same:
    """A network that equals every other of the same name, image shape and structure."""

    network: FlatNetwork
    shape: tuple[int, int, int]

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._key() == other._key()

    def _key(self) -> tuple[str, tuple[int, int, int], str]:
        return self.network.name, self.shape, str(self.network.module)


@cache
def _gradient_of(same: _Same, loss: Loss, micro_batch: int | None, batches: tuple[int, ...]) -> Gradient:
    """The compiled gradient, called once for every size that occurs; uncompiled where there is no compiler."""
    network = same.network
    device = next(network.module.parameters()).device
    keep_compiled_code()
    gradient = _gradient(network, loss, True, micro_batch)
    draws = torch.Generator().manual_seed(0)
    try:
        for size in sorted({size for batch in batches for size in sizes(batch, micro_batch)}):
            theta, x = network.initial(draws).to(device), torch.randn(size, *same.shape, generator=draws).to(device)
            with torch.no_grad():
                y = torch.zeros_like(network(theta, x))
            gradient(theta, x, y)
    except Exception as error:  # noqa: BLE001 (a compiler fails in many ways, and none may stop an evaluation)
        warnings.warn(f"training could not be compiled and runs uncompiled: {type(error).__name__}", stacklevel=2)
        return _gradient(network, loss, False, None)
    return gradient


def _gradient(network: FlatNetwork, loss: Loss, compile: bool, micro_batch: int | None) -> Gradient:
    return Gradient(network, loss, compile, micro_batch)


def _batches(trial: Trial) -> tuple[int, ...]:
    """The sizes of batches that occur."""
    return tuple(sorted({len(part) for part in torch.arange(len(trial.images)).split(trial.how.batch_size)}))


def _alike(trials: Sequence[Trial]) -> bool:
    """Whether the trials can be trained in step."""
    first = trials[0]
    return all(trial.how is first.how and len(trial.images) == len(first.images) for trial in trials)
