"""The distance of DM (arXiv:2110.04181) between the features of two sets of images, feature by feature."""

import torch
from reference.student import PlainConvNet
from torch import Tensor


def features(network: PlainConvNet, theta: Tensor, image: Tensor) -> Tensor:
    """What the head is given, with shape (D,): the logits of heads that read one feature each are those features."""
    width = _features_of(network, image)
    head = network.classes * (width + 1)
    body = theta[: len(theta) - head]
    found = []
    for start in range(0, width, network.classes):
        chosen = range(start, min(start + network.classes, width))
        matrix = torch.zeros(network.classes, width, dtype=theta.dtype)
        for row, place in enumerate(chosen):
            matrix[row, place] = 1
        reading = torch.cat([body, matrix.flatten(), torch.zeros(network.classes, dtype=theta.dtype)])
        found.append(network(reading, image[None])[0, : len(chosen)])
    return torch.cat(found)


def class_distance(network: PlainConvNet, theta: Tensor, real: Tensor, synthetic: Tensor, drop: int = 0) -> Tensor:
    """‖difference of the mean features‖², without the `drop` lowest squares; it can be differentiated by the synthetic images."""
    a = sum(features(network, theta, image) for image in real) / len(real)
    b = sum(features(network, theta, image) for image in synthetic) / len(synthetic)
    squares = [(p - q) ** 2 for p, q in zip(a, b, strict=True)]
    order = sorted(range(len(squares)), key=lambda d: (squares[d].item(), d))
    return sum((squares[d] for d in order[drop:]), torch.zeros((), dtype=theta.dtype))


def _features_of(network: PlainConvNet, image: Tensor) -> int:
    shrink = 1 if network.pooling == "none" else 2**network.depth
    return network.width * (image.shape[1] // shrink) * (image.shape[2] // shrink)
