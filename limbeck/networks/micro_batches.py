"""Micro-batches: how many images a network takes at a time.

Gradients of a mean over a batch are means over its parts, so that the size of the parts is free; only batch norm, whose
statistics are those of the whole batch, allows none.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.networks.blocks import run_watched
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.devices import on_gpu

# On a CPU passes over memory are several times faster while an activation, its derivative and its gradients fit the cache.
CACHED = 8 * 2**20


def automatic_micro_batch(
    network: FlatNetwork, shape: tuple[int, int, int], device: torch.device, bytes_per_number: int = 4
) -> int | None:
    """Images (C, H, W) to differentiate at a time: on a CPU as many as fit its cache; None takes a batch whole."""
    if on_gpu(device) or network.has_batch_norm:
        return None
    return max(1, 4 * CACHED // (bytes_per_number * largest_activation(network, shape)))


def sizes(batch: int, micro_batch: int | None) -> list[int]:
    """The sizes of the micro-batches of a batch; equal where some number near the smallest allows it."""
    least = -(-batch // min(micro_batch or batch, batch))
    number = next((count for count in range(least, 2 * least) if batch % count == 0), least)
    return [len(part) for part in torch.arange(batch).tensor_split(number)]


def split(tensors: Sequence[Tensor], micro_batch: int | None) -> list[tuple[Tensor, ...]]:
    """The micro-batches of tensors with the same first dimension."""
    parts = sizes(len(tensors[0]), micro_batch)
    return list(zip(*(tensor.contiguous().split(parts) for tensor in tensors), strict=True))


def largest_activation(network: FlatNetwork, shape: tuple[int, ...]) -> int:
    """Bytes of the largest output of any module for one image (C, H, W), or of the image, in single precision."""
    return 4 * max(torch.Size(shape).numel(), *output_sizes(network, shape))


def output_sizes(network: FlatNetwork, shape: tuple[int, ...]) -> list[int]:
    """Numbers in the output of every module, in the order in which they are called, for one image (C, H, W)."""
    found: list[int] = []

    def record(module: nn.Module, inputs: object, output: Tensor) -> None:
        found.append(output[0].numel())

    x = torch.zeros(2, *shape, device=next(network.module.parameters()).device)
    run_watched(network.module, x, dict.fromkeys(network.module.modules(), record))
    return found
