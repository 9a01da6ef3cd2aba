"""The functional trainer: one network, or several in step, each a flat vector θ.

    θ ← θ − lr · v,   v from ∇_θ ℓ(f(θ, A(x)), y),   (x, y) the batches of a fresh permutation in every epoch

Every draw (order, augmentation, dropout) is keyed by (seed, key, epoch, step), so that training stops and goes on exactly, and a
network that is trained among others draws what it would draw alone.

A network whose parameters are no longer finite at the end of an epoch stays so. Where `returns` allows it, the epoch is begun again
from its start, with a quarter of the step size, and the next one has all of it again: what an epoch makes depends on its start
alone, so that training that stops and goes on is still exact. Else training ends there; of networks in step, once all have
diverged.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from limbeck.augmentation import Augmentation
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.initial import global_draws
from limbeck.runtime.devices import all_true, has_values
from limbeck.runtime.random import Key, derived_seed, generator
from limbeck.training.gradient import Descent, Gradient, Loss
from limbeck.training.images import Images
from limbeck.training.layers import Layers, drawn
from limbeck.training.optimisers import Optimiser
from limbeck.training.rates import Constant, Rate
from limbeck.training.targets import AnyTargets, Labels, TargetsWithViews
from limbeck.views import Views

RETURNS, SMALLER = 3, 0.25  # as of the outer loop

AfterEpoch = Callable[[int, Tensor], None]
Pool = Callable[[int], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How to train.

    Args:
        optimiser: what turns gradients into steps.
        loss: ℓ(logits, targets), a mean over the batch.
        epochs: passes over the images.
        batch_size: images per step; the last batch of an epoch may be smaller.
        augment: what is drawn anew at every step: an augmentation, views, or both.
        rate: how the step size changes; momentum starts anew where the rate says so.
        returns: how often an epoch that diverges is begun again; never where the step size is part of what is measured.
    """

    optimiser: Optimiser
    loss: Loss
    epochs: int
    batch_size: int
    augment: Augmentation | Views | Layers
    rate: Rate = field(default_factory=Constant)
    returns: int = 0

    def steps(self, count: int) -> int:
        """How many it takes on so many images."""
        return self.epochs * -(-count // self.batch_size)


@dataclass(frozen=True, slots=True)
class Member:
    """What one network is trained on: N images, their targets, the key of its draws, and which images an epoch takes (all)."""

    images: Images
    targets: AnyTargets
    key: tuple[Key, ...]
    pool: Pool | None = None


def train(
    network: FlatNetwork,
    theta: Tensor,
    images: Images,
    targets: AnyTargets | Tensor,
    how: Training,
    *,
    seed: int,
    key: tuple[Key, ...],
    gradient: Descent | None = None,
    first_epoch: int = 0,
    last_epoch: int | None = None,
    state: tuple[Tensor, ...] | None = None,
    pool: Pool | None = None,
    after_epoch: AfterEpoch = lambda epoch, theta: None,
) -> Tensor:
    """Train and return the parameters.

    Args:
        network: f.
        theta: the start, with shape (P,); left as it is.
        images: N images.
        targets: of those images, such as `how.loss` takes; a tensor with first dimension N holds a row for each.
        how: optimiser, loss, epochs, batches, augmentation.
        seed: of the draws.
        key: names this training among others of the same seed.
        gradient: how the gradient is computed; None: uncompiled.
        first_epoch: how many epochs θ has been trained already.
        last_epoch: how many it has been trained at the end, by the step sizes of a training of `how.epochs`; None: those.
        state: the optimiser's, which is changed in place; None starts anew.
        pool: the positions of the images that an epoch (from 0) takes, int64; None: all.
        after_epoch: called with the number of finished epochs and θ, which it must not change.

    Returns:
        The parameters after the last epoch, with shape (P,).
    """
    member = Member(images, Labels(targets) if isinstance(targets, Tensor) else targets, key, pool)
    gradient = gradient or Gradient(network, how.loss)
    span = range(first_epoch, how.epochs if last_epoch is None else last_epoch)
    return _train(theta.clone(), [member], how, seed, gradient, network.has_dropout, span, state, after_epoch)


def train_together(
    network: FlatNetwork,
    theta: Tensor,
    members: Sequence[Member],
    how: Training,
    *,
    seed: int,
    gradient: Gradient | None = None,
    first_epoch: int = 0,
    last_epoch: int | None = None,
    state: tuple[Tensor, ...] | None = None,
    after_epoch: AfterEpoch = lambda epoch, theta: None,
) -> Tensor:
    """Train S networks in step, vectorised over their parameters; each as `train` would train it alone, up to rounding.

    Args:
        network: f.
        theta: the starts, with shape (S, P); left as they are.
        members: what each of them is trained on; equal numbers of images in every epoch.
        how, seed, gradient, first_epoch, last_epoch, state, after_epoch: as for `train`, with θ and the state stacked.

    Returns:
        The parameters after the last epoch, with shape (S, P).
    """
    assert len({len(member.images) for member in members}) == 1, "networks that are trained together take equal numbers of images"
    span = range(first_epoch, how.epochs if last_epoch is None else last_epoch)
    gradient = gradient or Gradient(network, how.loss)
    return _train(theta.clone(), members, how, seed, gradient, network.has_dropout, span, state, after_epoch)


def _train(
    theta: Tensor,
    members: Sequence[Member],
    how: Training,
    seed: int,
    gradient: Descent,
    drops: bool,
    span: range,
    state: tuple[Tensor, ...] | None,
    after_epoch: AfterEpoch,
) -> Tensor:
    state = state or how.optimiser.state(theta)
    before = how.rate.factor(max(span.start - 1, 0), how.epochs)
    for epoch in span:
        factor = how.rate.factor(epoch, how.epochs)
        if factor != before and how.rate.restarts:
            for old, new in zip(state, how.optimiser.state(theta), strict=True):
                old.copy_(new)
        before = factor
        held = tuple(part.clone() for part in (theta, *state)) if how.returns else ()
        _epoch(theta, state, members, how, seed, gradient, drops, epoch, factor)
        for number in range(1, how.returns + 1):
            if all_true(sound := theta.isfinite().all(-1) | ~held[0].isfinite().all(-1)):  # what began broken stays so
                break
            wrong = [" ".join(map(str, member.key)) for member, good in zip(members, sound.view(-1), strict=True) if not good]
            again = f"which is begun again with {SMALLER**number:g} of the step size"
            warnings.warn(f"{', '.join(wrong)} diverged in epoch {epoch + 1}, {again}", stacklevel=2)
            done = tuple(part.clone() for part in (theta, *state))
            for part, start in zip((theta, *state), held, strict=True):
                part.copy_(start)
            slowed = replace(how, optimiser=how.optimiser.slowed(SMALLER**number))
            _epoch(theta, state, members, slowed, seed, gradient, drops, epoch, factor)
            for part, kept in zip((theta, *state), done, strict=True):  # of networks in step, those that had not diverged
                part.copy_(torch.where(sound[..., None], kept, part))
        after_epoch(epoch + 1, theta)
        if all_true(~theta.isfinite().all(-1)) and has_values(theta.device):
            break
    return theta


def _epoch(
    theta: Tensor,
    state: tuple[Tensor, ...],
    members: Sequence[Member],
    how: Training,
    seed: int,
    gradient: Descent,
    drops: bool,
    epoch: int,
    factor: float,
) -> None:
    """One epoch; θ and the optimiser's state are changed in place."""
    # One key will do: of networks in step none drops (`Gradient`).
    with global_draws(derived_seed(seed, *members[0].key, "dropout", epoch), theta.device) if drops else nullcontext():
        for batches in zip(*(_batches(member, how, seed, epoch) for member in members), strict=True):
            x, y = (torch.stack(parts) if theta.ndim == 2 else parts[0] for parts in zip(*batches, strict=True))
            how.optimiser.step(theta, state, lambda at, x=x, y=y: gradient(at, x, y), factor)  # type: ignore[misc]


def _batches(member: Member, how: Training, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The views and targets of an epoch, batch by batch."""
    images = member.images
    if isinstance(member.targets, TargetsWithViews):
        yield from member.targets.batches(images, epoch)
        return
    draws_order = generator(seed, *member.key, "order", epoch)
    if member.pool is None:
        order = torch.randperm(len(images), generator=draws_order)
    else:
        pool = member.pool(epoch)
        order = pool[torch.randperm(len(pool), generator=draws_order)]
    draws = generator(seed, *member.key, "augment", epoch)
    for index in order.split(how.batch_size):
        change, mix = drawn(how.augment, draws, (len(index), *images.shape))
        x = change(images.fetch(index))
        yield x, member.targets.of(index, x, mix)


@torch.no_grad()
def logits_in_blocks(module: nn.Module, images: Images, batch_size: int | None = None) -> Iterator[Tensor]:
    """f(x) of all images, so many at a time: by default 512 of 32×32, fewer of larger ones; each (n, K), on the images' device."""
    _, height, width = images.shape
    for index in torch.arange(len(images)).split(batch_size or max(16, min(512, 512 * 32 * 32 // (height * width)))):
        yield module(images.fetch(index))


def logits_of(module: nn.Module, images: Images, batch_size: int | None = None) -> Tensor:
    """f(x) of all images, with shape (N, K), on the images' device."""
    return torch.cat(list(logits_in_blocks(module, images, batch_size)))


def accuracy(module: nn.Module, images: Images, labels: Tensor, batch_size: int | None = None) -> float:
    """The share of images that `module` gives the label they have; labels int64 with shape (N,)."""
    guesses = torch.cat([logits.argmax(1) for logits in logits_in_blocks(module, images, batch_size)])
    return (guesses == labels.to(guesses.device)).double().mean().item()
