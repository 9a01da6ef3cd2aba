"""How training computes: compiled or not, and where several trainings run.

One training takes one thread of the CPU wherever it runs, so that its result is the same to the bit in this process, in a worker
and on a machine with more cores.
"""

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch

from limbeck.networks.flat import FlatNetwork
from limbeck.networks.micro_batches import automatic_micro_batch, output_sizes, sizes
from limbeck.runtime.determinism import deterministic
from limbeck.runtime.devices import has_values, on_gpu, one_thread
from limbeck.runtime.executor import cores, workers_wait
from limbeck.runtime.memory import free_memory
from limbeck.training.gradient import Gradient, Loss
from limbeck.training.images import Images
from limbeck.training.targets import AnyTargets, TargetsWithViews

Compile = Literal["auto", "yes", "no"]

# Compiling costs ten to twenty seconds and halves a step: below so many steps it does not pay. A count and no timing,
# because compiled code rounds differently, and two equal trainings must decide alike.
COMPILE_FROM_STEPS = 4000
# What these steps are thought to save each, and what is saved of a number in some module's output: 0.7 to 2.4 ns for ConvNets on
# one core (0.3 for a ResNet with batch norm); a GPU was not measured and is taken to be thirty times as fast.
SAVED_A_STEP = 2.5e-3
SAVED_A_NUMBER = 1e-9
SAVED_ON_A_GPU = SAVED_A_NUMBER / 30
# Starting a worker costs some five seconds; one that is there makes its functions ready. That may be timed: where a training runs
# changes no bit of it.
WORKERS_FROM_SECONDS = 20.0
WAITING_WORKERS_FROM_SECONDS = 5.0
TIMED_STEPS = 3


@dataclass(frozen=True)
class Compute:
    """Where and how networks of one architecture are trained.

    Args:
        network: the architecture, on the device that computes.
        device: to compute on.
        compile: `yes`, `no`, or `auto` for what is long enough.
    """

    network: FlatNetwork
    device: torch.device
    compile: Compile = "auto"

    def weighed(self, steps: int, shape: tuple[int, int, int], batch: int) -> int:
        """So many steps on batches of images (C, H, W), as a number of the small steps that `COMPILE_FROM_STEPS` is about."""
        numbers = batch * sum(output_sizes(self.network, shape))
        saved = numbers * (SAVED_ON_A_GPU if on_gpu(self.device) else SAVED_A_NUMBER)
        return round(steps * max(1.0, saved / SAVED_A_STEP))

    def compiles(self, steps: int) -> bool:
        """Whether a training of so many small steps is compiled; see `weighed`."""
        return has_values(self.device) and {"yes": True, "no": False, "auto": steps >= COMPILE_FROM_STEPS}[self.compile]

    def gradient(
        self, loss: Loss, shape: tuple[int, int, int], steps: int, batches: Iterable[int], count: int | None = None
    ) -> Gradient:
        """The gradient that a training descends along: compiled where that pays and works.

        Args:
            loss: ℓ(logits, targets) with targets of the logits' shape.
            shape: of an image.
            steps: of the training, small ones (`weighed`).
            batches: sizes of batches that occur often; others are computed uncompiled.
            count: of networks that are stacked, each with a batch of its own; None: one network.
        """
        if not self.compiles(steps):
            return Gradient(self.network, loss)
        micro_batch = automatic_micro_batch(self.network, shape, self.device) if count is None else None
        # Kept for the next trainings of the process: a function compiled anew is traced anew.
        return _compiled(_Same.of(self.network, shape), loss, micro_batch, tuple(sorted(set(batches))), count)

    def pays_workers(self, gradient: Gradient, images: Images, targets: AnyTargets, batch: int, steps: int) -> bool:
        """Whether trainings of so many steps in all take long enough for workers, by the time of a few of them."""
        if on_gpu(self.device) or cores() == 1:
            return False
        with one_thread():
            theta = self.network.initial(torch.Generator().manual_seed(0))
            index = torch.arange(min(len(images), batch))
            if isinstance(targets, TargetsWithViews):
                x, y = next(targets.batches(images, 0))
            else:
                x = images.fetch(index)
                y = targets.of(index, x, lambda y: y)
            gradient(theta, x, y)
            began = time.perf_counter()
            for _ in range(TIMED_STEPS):
                gradient(theta, x, y)
            step = (time.perf_counter() - began) / TIMED_STEPS
        return step * steps >= (WAITING_WORKERS_FROM_SECONDS if workers_wait() else WORKERS_FROM_SECONDS)

    def together(self, shape: tuple[int, int, int], batch: int) -> int:
        """How many networks to train in step, vectorised over their parameters: on a GPU as many as its memory holds."""
        # On a CPU that is slower than one after another; dropout would draw one mask for all. How many are in step follows from
        # the memory that is free, and they round as many as they are.
        if not on_gpu(self.device) or self.network.has_dropout or deterministic():
            return 1
        # A forward pass and its gradients, with room for what the library needs in between.
        each = 4 * 4 * batch * sum(output_sizes(self.network, shape)) + 16 * self.network.num_parameters
        return max(1, free_memory(self.device) // 2 // max(each, 1))


@dataclass(frozen=True)
class _Same:
    """A network that equals every other of the same name, image shape, structure and device."""

    network: FlatNetwork = field(compare=False)
    name: str
    shape: tuple[int, int, int]
    structure: str
    device: torch.device

    @staticmethod
    def of(network: FlatNetwork, shape: tuple[int, int, int]) -> "_Same":
        structure = network.structure or str(network.module)
        return _Same(network, network.name, shape, structure, next(network.module.parameters()).device)


@cache
def _compiled(same: _Same, loss: Loss, micro_batch: int | None, batches: tuple[int, ...], count: int | None) -> Gradient:
    """The compiled gradient, of `count` stacked networks or of one, called once for every size; uncompiled where that fails."""
    network, draws = same.network, torch.Generator().manual_seed(0)
    known = frozenset(size for batch in batches for size in sizes(batch, micro_batch))
    gradient = Gradient(network, loss, True, micro_batch, known)
    try:
        for size in sorted(known):
            theta, x = network.initial(draws).to(same.device), torch.randn(size, *same.shape, generator=draws).to(same.device)
            with torch.no_grad():
                y = torch.zeros_like(network(theta, x))
            if count is not None:
                theta, x, y = (tensor.repeat(count, *[1] * tensor.ndim) for tensor in (theta, x, y))
            gradient(theta, x, y)
    except Exception as error:  # noqa: BLE001 (a compiler fails in many ways, and none may stop a training)
        warnings.warn(f"training could not be compiled and runs uncompiled: {type(error).__name__}", stacklevel=2)
        return Gradient(network, loss)
    return gradient
