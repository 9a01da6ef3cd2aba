"""The functional trainer: SGD on the flat vector θ of one network.

    θ ← θ − lr · v,   v from ∇_θ ℓ(f(θ, A(x)), y),   (x, y) the batches of a fresh permutation in every epoch

Every draw (order, augmentation) is keyed by (seed, key, epoch, step), so that training stops and goes on exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from limbeck import augmentation
from limbeck.augmentation_settings import AugmentSettings
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.random import Key, generator
from limbeck.training.images import Images
from limbeck.training.sgd import Constant, Rate, Sgd

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How to train.

    Args:
        optimiser: step size, momentum, weight decay.
        loss: ℓ(logits, targets), a mean over the batch.
        epochs: passes over the images.
        batch_size: images per step; the last batch of an epoch may be smaller.
        augment: the augmentation, drawn anew at every step.
        rate: how the step size changes; momentum starts anew where it does.
    """

    optimiser: Sgd
    loss: Loss
    epochs: int
    batch_size: int
    augment: AugmentSettings
    rate: Rate = field(default_factory=Constant)


def train(
    network: FlatNetwork,
    theta: Tensor,
    images: Images,
    targets: Tensor,
    how: Training,
    *,
    seed: int,
    key: tuple[Key, ...],
    after_epoch: Callable[[int, Tensor], None] = lambda epoch, theta: None,
) -> Tensor:
    """Train and return the parameters.

    Args:
        network: f.
        theta: the start, with shape (P,); left as it is.
        images: N images.
        targets: whatever `how.loss` takes, with first dimension N, on the images' device.
        how: optimiser, loss, epochs, batches, augmentation.
        seed: of the draws.
        key: names this training among others of the same seed.
        after_epoch: called with the number of finished epochs and θ, which it must not change.

    Returns:
        The parameters after the last epoch, with shape (P,).
    """
    theta, velocity, before = theta.clone(), torch.zeros_like(theta), 1.0
    for epoch in range(how.epochs):
        factor = how.rate.factor(epoch, how.epochs)
        if factor != before:
            velocity.zero_()
            before = factor
        order = torch.randperm(len(images), generator=generator(seed, *key, "order", epoch))
        draws = generator(seed, *key, "augment", epoch)
        for index in order.split(how.batch_size):
            draw = augmentation.draw(how.augment, draws, (len(index), *images.shape))
            x = augmentation.apply(draw, images.fetch(index))
            gradient = loss_gradient(network, theta, x, targets[index.to(targets.device)], how.loss)
            how.optimiser.step(theta, velocity, gradient, factor)
        after_epoch(epoch + 1, theta)
    return theta


def loss_gradient(network: FlatNetwork, theta: Tensor, x: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """∇_θ ℓ(f(θ, x), targets), with shape (P,)."""
    leaf = theta.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(network(leaf, x), targets), leaf)
    return gradient


@torch.no_grad()
def logits_of(module: nn.Module, images: Images, batch_size: int | None = None) -> Tensor:
    """f(x) of all images, with shape (N, K), on the images' device; by default 512 at a time of 32×32, fewer of larger ones."""
    _, height, width = images.shape
    batches = torch.arange(len(images)).split(batch_size or max(16, min(512, 512 * 32 * 32 // (height * width))))
    return torch.cat([module(images.fetch(index)) for index in batches])


def accuracy(module: nn.Module, images: Images, labels: Tensor, batch_size: int | None = None) -> float:
    """The share of images that `module` gives the label they have; labels int64 with shape (N,)."""
    guesses = logits_of(module, images, batch_size).argmax(1)
    return (guesses == labels.to(guesses.device)).double().mean().item()
