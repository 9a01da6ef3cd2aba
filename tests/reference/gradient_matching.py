"""The distance of DC (arXiv:2006.05929), row by row, with back-propagation through the synthetic gradient.

The network is the plain one of `student`; it shares no code with the package.
"""

from collections.abc import Sequence

import torch
from reference.student import PlainConvNet
from torch import Tensor
from torch.autograd import grad
from torch.nn.functional import log_softmax

EPS = 1e-6


def gradient(network: PlainConvNet, theta: Tensor, images: Tensor, label: int) -> Tensor:
    """∇_θ of the mean of −log p(label), image by image; it can be differentiated again."""
    total = sum(-log_softmax(network(theta, image[None]), 1)[0, label] for image in images) / len(images)
    (found,) = grad(total, theta, create_graph=True)
    return found


def class_distance(
    network: PlainConvNet,
    theta: Tensor,
    real: Tensor,
    synthetic: Tensor,
    label: int,
    shapes: Sequence[Sequence[int]],
    drop: int = 0,
) -> Tensor:
    """Σ over weight tensors and rows of 1 − cos; it can be differentiated by the synthetic images.

    Args:
        shapes: of all parameters in their order in θ; those of one dimension are left out.
        drop: so many weights of lowest squared difference are left out as well.
    """
    theta = theta.detach().requires_grad_()
    a, b = gradient(network, theta, real, label).detach(), gradient(network, theta, synthetic, label)
    places, rows, start = [], [], 0
    for shape in shapes:
        size = torch.Size(shape).numel()
        if len(shape) > 1:
            width = size // shape[0]
            rows += [range(start + row * width, start + (row + 1) * width) for row in range(shape[0])]
            places += range(start, start + size)
        start += size
    difference = ((a - b).detach() ** 2).tolist()
    dropped = set(sorted(places, key=lambda place: (difference[place], place))[:drop])
    total = torch.zeros((), dtype=theta.dtype)
    for row in rows:
        kept = [place for place in row if place not in dropped]
        if kept:
            p, q = a[kept], b[kept]
            total = total + 1 - (p @ q) / ((p @ p).sqrt() * (q @ q).sqrt() + EPS)
    return total
