"""A ConvNet, its student steps (arXiv:2203.11932) and their derivatives, plainly: functions of one vector θ and back-propagation.

It shares no code with the package but the augmentation, which has its own oracle.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn import functional

from limbeck.matching.steps import StepDraw

POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": partial(functional.avg_pool2d, kernel_size=2),
    "max": partial(functional.max_pool2d, kernel_size=2),
    "none": lambda x: x,
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky": functional.leaky_relu,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True)
class PlainConvNet:
    """f(θ, x), with the parameters in θ block by block: weight, bias, weight and bias of the norm; last those of the head."""

    depth: int
    width: int
    classes: int
    norm: str = "instance"
    pooling: str = "avg"
    activation: str = "relu"

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        for block in range(self.depth):
            vectors = [(self.width,)] * (1 if self.norm == "none" else 3)
            (kernel, shift, *affine), theta = _taken(theta, [(self.width, x.shape[1], 3, 3), *vectors])
            # MNIST's 28×28 become 32×32.
            x = functional.conv2d(x, kernel, shift, padding=3 if block == 0 and x.shape[2:] == (28, 28) else 1)
            if affine:
                x = self._normed(x) * affine[0][:, None, None] + affine[1][:, None, None]
            x = POOLINGS[self.pooling](ACTIVATIONS[self.activation](x))
        flat = x.flatten(1)
        (matrix, offset), rest = _taken(theta, [(self.classes, flat.shape[1]), (self.classes,)])
        assert len(rest) == 0
        return flat @ matrix.t() + offset

    def _normed(self, x: Tensor) -> Tensor:
        if self.norm == "batch":
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
            return (x - mean) / (variance + 1e-5).sqrt()
        groups = {"instance": self.width, "group": 4}[self.norm]
        grouped = x.reshape(len(x), groups, -1)
        mean, variance = grouped.mean(2, keepdim=True), grouped.var(2, correction=0, keepdim=True)
        return ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)


def _taken(theta: Tensor, shapes: list[tuple[int, ...]]) -> tuple[list[Tensor], Tensor]:
    """Parameters of those shapes from the front of θ, and the rest of θ."""
    taken = []
    for shape in shapes:
        size = math.prod(shape)
        taken.append(theta[:size].reshape(shape))
        theta = theta[size:]
    return taken, theta


def plain_convnet(name: str, classes: int) -> PlainConvNet:
    """The network of a name such as `ConvNetD2-w8-batchnorm-maxpool-leaky`."""
    head, width, *words = name.split("-")
    parts: dict[str, str] = {}
    for word in words:
        key = "norm" if word.endswith("norm") else "pooling" if word.endswith("pool") else "activation"
        parts[key] = {"nonorm": "none", "nopool": "none"}.get(word, word.removesuffix("norm").removesuffix("pool"))
    return PlainConvNet(int(head.removeprefix("ConvNetD")), int(width.removeprefix("w")), classes, **parts)


def loss(network: PlainConvNet, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """ℓ: the cross-entropy with softmax(y), a mean over the batch."""
    return functional.cross_entropy(network(theta, x), y.softmax(1))


@dataclass(frozen=True)
class Products:
    """g, ⟨g, λ⟩, h_θ, h_x and h_y."""

    gradient: Tensor
    slope: Tensor
    theta: Tensor
    x: Tensor
    y: Tensor


def products(network: PlainConvNet, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> Products:
    """By back-propagation through ⟨g, λ⟩."""
    inputs = tuple(tensor.detach().requires_grad_() for tensor in (theta, x, y))
    (gradient,) = grad(loss(network, *inputs), inputs[0], create_graph=True)
    slope = gradient @ cotangent
    return Products(gradient.detach(), slope.detach(), *grad(slope, inputs))


Terminal = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """Where an inner loop starts, what it steps on, and what it is judged by."""

    network: PlainConvNet
    theta: Tensor
    draws: Sequence[StepDraw]
    images: Tensor
    labels: Tensor
    syn_lr: Tensor
    terminal: Terminal

    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """X, Y and η, to be differentiated by."""
        return tuple(tensor.detach().requires_grad_() for tensor in (self.images, self.labels, self.syn_lr))


def truncated(plan: Plan, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient by X, Y and η through all steps, with X, Y and η detached in all but the last `steps`."""
    leaves = plan.leaves()
    theta = plan.theta.detach().requires_grad_()
    for n, draw in enumerate(plan.draws):
        in_range = n >= len(plan.draws) - steps
        images, labels, eta = (leaf if in_range else leaf.detach() for leaf in leaves)
        x, y = draw.augmentation(images[draw.index]), labels[draw.index]
        (gradient,) = grad(loss(plan.network, theta, x, y), theta, create_graph=True)
        theta = theta - eta * gradient
    return grad(plan.terminal(theta), leaves)


def tesla(plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """The sum over all steps of the gradient of −η⟨∇_θ ℓ(θ_n, A_n(X[b_n]), Y[b_n]), λ_T⟩ with θ_n and λ_T constant."""
    thetas = [plan.theta]
    for draw in plan.draws:
        theta = thetas[-1].detach().requires_grad_()
        x, y = draw.augmentation(plan.images[draw.index]), plan.labels[draw.index]
        (gradient,) = grad(loss(plan.network, theta, x, y), theta)
        thetas.append(theta.detach() - plan.syn_lr * gradient)
    last = thetas[-1].requires_grad_()
    (cotangent,) = grad(plan.terminal(last), last)
    totals = tuple(torch.zeros_like(leaf) for leaf in plan.leaves())
    for theta, draw in zip(thetas[:-1], plan.draws, strict=True):
        theta = theta.detach().requires_grad_()
        leaves = images, labels, eta = plan.leaves()
        x, y = draw.augmentation(images[draw.index]), labels[draw.index]
        (gradient,) = grad(loss(plan.network, theta, x, y), theta, create_graph=True)
        for total, part in zip(totals, grad(-eta * (gradient @ cotangent), leaves), strict=True):
            total += part
    return totals
