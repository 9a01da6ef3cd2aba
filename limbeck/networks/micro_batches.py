"""Micro-batches: how many images a network takes at a time.

Gradients of a mean over a batch are means over its parts, so that the size of the parts is free; only batch norm, whose
statistics are those of the whole batch, allows none.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from limbeck.networks.blocks import black_images, call_purely, run_watched
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.initial import global_draws
from limbeck.runtime.determinism import deterministic
from limbeck.runtime.devices import on_gpu

# On a CPU passes over memory are several times faster while an activation, its derivative and its gradients fit the cache.
CACHED = 8 * 2**20
# Below so much of its largest activation a micro-batch costs nearly the same whatever its size: calls, guards, weights.
LEAST = 2**19
UNEQUAL = 1.2  # what equal sizes may take longer
ANYWHERE = 4  # lanes where their number must not depend on the cores; on fewer cores they take turns


def automatic_micro_batch(
    network: FlatNetwork, shape: tuple[int, int, int], device: torch.device, bytes_per_number: int = 4
) -> int | None:
    """Images (C, H, W) to differentiate at a time: on a CPU as many as fit its cache; None takes a batch whole."""
    if on_gpu(device) or network.has_batch_norm:
        return None
    return max(1, 4 * CACHED // (bytes_per_number * largest_activation(network, shape)))


def automatic_lanes(network: FlatNetwork, shape: tuple[int, int, int], device: torch.device, batch: int) -> int:
    """How many micro-batches of images (C, H, W) to compute side by side: one a core, each of some work.

    Where bits are to be the same on any number of cores, as many wherever they run.
    """
    if on_gpu(device) or network.has_batch_norm:
        return 1
    least = -(-LEAST // largest_activation(network, shape))
    return max(1, min(ANYWHERE if deterministic() else torch.get_num_threads(), batch // least))


def sizes(batch: int, micro_batch: int | None, lanes: int = 1) -> list[int]:
    """The sizes of the micro-batches of a batch; equal where some number near the smallest allows it.

    Args:
        batch: B.
        micro_batch: the greatest size; None stands for B.
        lanes: how many are computed at once: equal sizes that would leave lanes idle for long are given up.
    """
    least = -(-batch // min(micro_batch or batch, batch))
    equal = [count for count in range(least, 2 * least) if batch % count == 0]
    number = equal[0] if equal else least
    if lanes > 1:  # a second size is a second compilation
        images = {count: -(-count // lanes) * -(-batch // count) * (1 if count in equal else UNEQUAL) for count in {least, *equal}}
        number = min(sorted(images), key=lambda count: images[count])
    return [batch // number + (place < batch % number) for place in range(number)]


def split(tensors: Sequence[Tensor], micro_batch: int | None, lanes: int = 1) -> list[tuple[Tensor, ...]]:
    """The micro-batches of tensors with the same first dimension."""
    parts = sizes(len(tensors[0]), micro_batch, lanes)
    return list(zip(*(tensor.contiguous().split(parts) for tensor in tensors), strict=True))


def largest_activation(network: FlatNetwork, shape: tuple[int, ...]) -> int:
    """Bytes of the largest output of any module for one image (C, H, W), or of the image, in single precision."""
    return 4 * max(torch.Size(shape).numel(), *output_sizes(network, shape))


def output_sizes(network: FlatNetwork, shape: tuple[int, ...]) -> list[int]:
    """Numbers in the output of every module, in the order in which they are called, for one image (C, H, W)."""
    found: list[int] = []

    def record(module: nn.Module, inputs: object, output: object) -> None:
        found.append(sum(one[0].numel() for one in _tensors(output)))

    module = network.module
    x = black_images(module, shape)
    with global_draws(0, x.device) if network.has_dropout else nullcontext():
        run_watched(partial(call_purely, module), x, dict.fromkeys(module.modules(), record))
    return found


def _tensors(output: object) -> Iterator[Tensor]:
    """What a module gives by images: a tensor, or what tuples and dictionaries of them hold."""
    if isinstance(output, Tensor):
        yield from [output] if output.ndim else []
    elif isinstance(output, (tuple, list, Mapping)):
        for one in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(one)
