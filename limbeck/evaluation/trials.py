"""Trials: a fresh network is trained on some images and asked about others.

Where many take long they run in workers, two at a time on two cores; on a GPU those with equal numbers of images are trained
together, vectorised over their parameters. Of a run that has several ranks each trains a share of them, to the same bits; one
network of the full data that takes long is trained by all of them together (`Trials.together`), equal up to rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import torch
from torch import Tensor

from limbeck.evaluation.predictions import accuracy
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.micro_batches import output_sizes
from limbeck.runtime.determinism import deterministic
from limbeck.runtime.devices import on_gpu, one_thread
from limbeck.runtime.executor import Cluster, Tick, cores, current
from limbeck.runtime.memory import freed_memory_reused
from limbeck.runtime.random import Key, generator
from limbeck.runtime.ranks import Ranks
from limbeck.training.compute import Compile, Compute
from limbeck.training.gradient import Descent, Gradient, SharedGradient
from limbeck.training.images import Images, sample
from limbeck.training.targets import AnyTargets
from limbeck.training.train import AfterEpoch, Member, Training, logits_of, train, train_together

LONG = 10_000_000  # numbers that a step computes, in the outputs of the modules, from which on ranks share its batch


@dataclass(frozen=True)
class Trial:
    """One network to train.

    Args:
        images: to train on.
        targets: of these images.
        how: the training.
        key: names the trial among others of the same seed; the network's start and all draws follow from it.
        draws: names the draws instead, where several trials share them.
    """

    images: Images
    targets: AnyTargets
    how: Training
    key: tuple[Key, ...]
    draws: tuple[Key, ...] | None = None

    @property
    def steps(self) -> int:
        """How many steps the training has."""
        return self.how.steps(len(self.images))


@dataclass(frozen=True, eq=False)
class Outcome:
    """θ with shape (P,) and the logits (n, K) for each collection of images asked about, on the CPU.

    `best` is the best accuracy at any look, of networks that are looked at while they are trained.
    """

    theta: Tensor
    logits: list[Tensor]
    best: float | None = None


@dataclass(frozen=True, eq=False)
class Answers(Sequence[Tensor]):
    """The logits (n, K) of several networks, in order.

    Args:
        each: those.
        best: of each network the best accuracy at any look, where they were looked at while they were trained.
    """

    each: tuple[Tensor, ...]
    best: tuple[float, ...] = ()

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], number: int = 0) -> "Answers":
        """What they say of the images that they were asked about under that number; looks are at the first."""
        best = tuple(outcome.best for outcome in outcomes if outcome.best is not None)
        return cls(tuple(outcome.logits[number] for outcome in outcomes), () if number else best)

    @overload
    def __getitem__(self, at: int) -> Tensor: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Tensor, ...]: ...
    def __getitem__(self, at: int | slice) -> Tensor | tuple[Tensor, ...]:
        return self.each[at]

    def __len__(self) -> int:
        return len(self.each)

    def __add__(self, other: "Answers") -> "Answers":
        return Answers(self.each + other.each, self.best + other.best)


@dataclass(frozen=True, eq=False)
class Watch:
    """How networks are looked at while they are trained.

    The look with the best accuracy on the images to choose on, of equal ones the first, is the one that counts; without such
    images the last. The best accuracy on the images asked about, at any look, is noted beside it and chooses nothing.

    Args:
        epochs: after which there is a look, the last epoch among them.
        labels: of the images asked about, int64 with shape (n,).
        choose: images to choose on with their labels; None where there are none.
    """

    epochs: tuple[int, ...]
    labels: Tensor
    choose: tuple[Images, Tensor] | None = None


@dataclass(frozen=True)
class Trials:
    """Runs trials of one network.

    Args:
        network: the architecture, on the device that computes.
        seed: of the draws.
        device: to compute on.
        compile: `yes`, `no`, or `auto` for those that are long enough.
        repeats: how many of a kind are counted upon, however few are asked for: compiling is for all of them, and what is compiled
            rounds otherwise, so that a figure may not depend on how many there are.
    """

    network: FlatNetwork
    seed: int
    device: torch.device
    compile: Compile = "auto"
    repeats: int = 1

    def run(
        self,
        trials: Sequence[Trial],
        asked: Sequence[Images],
        epoch_done: Callable[[int], None] = lambda count: None,
        watch: Watch | None = None,
    ) -> Iterator[Outcome]:
        """The outcome of every trial, in order; all ranks of a run ask for the same ones, and all get all of them.

        Args:
            trials: what to train.
            asked: what to ask every trained network about.
            epoch_done: told how many epochs more have been trained, from time to time and perhaps in another thread.
            watch: how they are looked at on the way; None asks at the end alone.
        """
        here = Ranks.sharing()
        if here.alone or not trials:
            yield from self._run(trials, asked, epoch_done, watch)
            return
        # What one of them decides: their machines may have other numbers of cores, or less memory free.
        at_once = here.told(lambda: here.count * (self._in_step(trials) if on_gpu(self.device) else cores()))
        for begin in range(0, len(trials), at_once):
            some = trials[begin : begin + at_once]
            mine = some[here.share(len(some))]
            found = here.gathered(lambda mine=mine: list(self._run(mine, asked, epoch_done, watch)))  # type: ignore[misc]
            epoch_done(sum(trial.how.epochs for trial in some) - sum(trial.how.epochs for trial in mine))
            yield from (outcome for part in found for outcome in part)

    def together(
        self, trials: Sequence[Trial], asked: Sequence[Images], epoch_done: Callable[[int], None] = lambda count: None
    ) -> Iterator[Outcome]:
        """The same, each of them trained by all ranks together, which share every batch."""
        here = Ranks.sharing()
        for trial in trials:
            gradient = SharedGradient(self.gradient(trial, ranks=here), here)
            with one_thread():
                yield self.outcome(trial, self.trained(trial, lambda *_: epoch_done(1), gradient), asked)

    def shares(self, trials: Sequence[Trial]) -> bool:
        """Whether `together` is what these are for: at least twice as many ranks as networks, and steps that are long.

        Long is what computes at least `LONG` numbers, ten for every parameter, whose gradients the ranks send each other. Where
        bits are to be the same on any number of ranks, none is.
        """
        here = Ranks.sharing()
        if here.alone or deterministic() or not trials or here.count < 2 * len(trials):
            return False
        first, network = trials[0], self.network
        numbers = min(len(first.images), first.how.batch_size) * sum(output_sizes(network, first.images.shape))
        return numbers >= max(LONG, 10 * network.num_parameters) and not network.has_dropout

    def _in_step(self, trials: Sequence[Trial]) -> int:
        """How many of them are trained in step."""
        first = trials[0]
        alike = all(trial.how == first.how and len(trial.images) == len(first.images) for trial in trials)
        return self.compute.together(first.images.shape, min(len(first.images), first.how.batch_size)) if alike else 1

    def _run(
        self, trials: Sequence[Trial], asked: Sequence[Images], epoch_done: Callable[[int], None], watch: Watch | None
    ) -> Iterator[Outcome]:
        """The outcomes, all of this process's making."""
        if not trials:
            return
        executor, first = current(), trials[0]
        group = self._in_step(trials)
        in_step = group > 1 and len(trials) > 1
        size = executor.in_step(group) if in_step else 1
        spread = len(trials) > 1 and not in_step and not isinstance(executor, Cluster) and self._long(trials)
        common = first.images if all(trial.images is first.images for trial in trials) else None
        parts = [_Job(None if common is not None else one.images, one.targets, one.how, one.key, one.draws) for one in trials]
        jobs = [parts[begin : begin + size] for begin in range(0, len(parts), size)]
        shared, at_once = _Shared(self, tuple(asked), common, in_step, watch), min(cores(), len(jobs)) if spread else 1
        for outcomes in executor.run(_run, shared, jobs, at_once=at_once, told=epoch_done):
            yield from outcomes

    @property
    def compute(self) -> Compute:
        """Where and how."""
        return Compute(self.network, self.device, self.compile)

    def compiles(self, how: Training, count: int, shape: tuple[int, int, int]) -> bool:
        """Whether the gradient of such a training on so many images (C, H, W) is compiled."""
        return self.compute.compiles(self._weighed(how, count, shape))

    def _weighed(self, how: Training, count: int, shape: tuple[int, int, int]) -> int:
        return self.repeats * self.compute.weighed(how.steps(count), shape, min(count, how.batch_size))

    def gradient(self, trial: Trial, count: int | None = None, ranks: Ranks = Ranks()) -> Gradient:
        """The gradient that a trial descends along, `count` of them in step; of this rank's share of the batches."""
        batches = {
            len(range(len(part))[ranks.share(len(part))]) for part in torch.arange(len(trial.images)).split(trial.how.batch_size)
        }
        if not ranks.alone and self.network.has_batch_norm:  # whose statistics are those of all ranks
            return Gradient(self.network, trial.how.loss)
        steps = self._weighed(trial.how, len(trial.images), trial.images.shape)
        return self.compute.gradient(trial.how.loss, trial.images.shape, steps, batches, count)

    def start(self, trial: Trial) -> Tensor:
        """The fresh parameters of a trial."""
        return self.network.initial(generator(self.seed, *trial.key, "initial")).to(self.device)

    def outcome(self, trial: Trial, theta: Tensor, asked: Sequence[Images]) -> Outcome:
        """What the trained network says."""
        return Outcome(theta.cpu(), [logits.cpu() for logits in self.answers(trial, theta, asked)])

    def answers(self, trial: Trial, theta: Tensor, asked: Sequence[Images]) -> Iterator[Tensor]:
        """The logits of the trained network for each collection of images, on their device."""
        module = self.network.with_parameters(theta, lambda: sample(trial.images))
        return (logits_of(module, images) for images in asked)

    def trained(self, trial: Trial, after_epoch: AfterEpoch = lambda epoch, theta: None, gradient: Descent | None = None) -> Tensor:
        """The trained network of a trial, with shape (P,)."""
        return train(
            self.network,
            self.start(trial),
            trial.images,
            trial.targets,
            trial.how,
            seed=self.seed,
            key=trial.draws or trial.key,
            gradient=gradient or self.gradient(trial),
            after_epoch=after_epoch,
        )

    def in_step(self, trials: Sequence[Trial], after: Sequence[AfterEpoch] = ()) -> Tensor:
        """The trained networks of trials with equal numbers of images, vectorised over their parameters, with shape (S, P).

        Args:
            trials: what to train.
            after: for each of them what `train` would call after every epoch; none calls nothing.
        """
        first = trials[0]

        def after_epoch(epoch: int, theta: Tensor) -> None:
            for called, own in zip(after, theta, strict=False):
                called(epoch, own)

        return train_together(
            self.network,
            torch.stack([self.start(trial) for trial in trials]),
            [Member(trial.images, trial.targets, trial.draws or trial.key) for trial in trials],
            first.how,
            seed=self.seed,
            gradient=self.gradient(first, len(trials)),
            after_epoch=after_epoch,
        )

    def _long(self, trials: Sequence[Trial]) -> bool:
        """Whether all trials together would take long enough for workers to pay."""
        trial, steps = trials[0], sum(trial.steps for trial in trials)
        with one_thread():
            gradient = self.gradient(trial)
        return self.compute.pays_workers(gradient, trial.images, trial.targets, trial.how.batch_size, steps)


@dataclass(frozen=True)
class _Shared:
    """What the trials of a run have in common: `images`, where all train on the same."""

    trials: Trials
    asked: tuple[Images, ...]
    images: Images | None
    in_step: bool
    watch: Watch | None


@dataclass(frozen=True, eq=False)
class _Job:
    """A trial as a process gets it, without the images that it has in common with the others."""

    images: Images | None
    targets: AnyTargets
    how: Training
    key: tuple[Key, ...]
    draws: tuple[Key, ...] | None

    def trial(self, common: Images | None) -> Trial:
        """The trial."""
        images = self.images if common is None else common
        assert images is not None, "its own, or those of all"
        return Trial(images, self.targets, self.how, self.key, self.draws)


class _Looks:
    """What is seen of one network while it is trained; called after every epoch, as `train` does."""

    def __init__(self, shared: _Shared, trial: Trial, tick: Tick) -> None:
        self.shared, self.trial, self.tick = shared, trial, tick
        self.chosen: tuple[float, Outcome] | None = None
        self.best = 0.0

    def __call__(self, epoch: int, theta: Tensor) -> None:
        self.tick()
        watch = self.shared.watch
        if watch is not None and epoch in watch.epochs:
            self._look(watch, theta)

    def outcome(self, theta: Tensor) -> Outcome:
        """Of the look that counts; of the trained network where there is none, or where it has diverged and the last one counts."""
        watch = self.shared.watch
        if watch is None:
            return self.shared.trials.outcome(self.trial, theta, self.shared.asked)
        if self.chosen is None or (watch.choose is None and not bool(theta.isfinite().all())):
            self._look(watch, theta)
        assert self.chosen is not None, "looked at just now"
        return replace(self.chosen[1], best=self.best)

    def _look(self, watch: Watch, theta: Tensor) -> None:
        trials, trial = self.shared.trials, self.trial
        found, score = trials.outcome(trial, theta.clone(), self.shared.asked), 0.0  # θ itself goes on being changed
        self.best = max(self.best, accuracy(found.logits[0], watch.labels))
        if watch.choose is not None:
            images, labels = watch.choose
            (logits,) = trials.answers(trial, theta, [images])
            score = accuracy(logits.cpu(), labels)
        if self.chosen is None or watch.choose is None or score > self.chosen[0]:
            self.chosen = (score, found)


def _run(shared: _Shared, jobs: Sequence[_Job], tick: Tick) -> list[Outcome]:
    """One trial on one thread, or on the GPU; several of them there in step."""
    trials, some = shared.trials, [job.trial(shared.images) for job in jobs]
    looks = [_Looks(shared, trial, tick) for trial in some]
    if shared.in_step:
        thetas = trials.in_step(some, looks)
        return [one.outcome(theta) for one, theta in zip(looks, thetas, strict=True)]
    with freed_memory_reused(), one_thread():
        return [one.outcome(trials.trained(trial, one)) for one, trial in zip(looks, some, strict=True)]
