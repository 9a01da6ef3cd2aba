"""One student step, its draws and its vector–Jacobian product, compiled and in micro-batches.

θ_{n+1} = θ_n − η g(θ_n, A_n(X[b_n]), Y[b_n]),   g(θ, x, y) = ∇_θ ℓ(f(θ, x), y)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, TypeVar

import torch
from torch import Tensor

from limbeck.augmentation import Applied, Augmentation
from limbeck.matching.closed_form import Staged
from limbeck.matching.derivatives import Derivatives, Pulled, Reverse
from limbeck.matching.settings import Precision, SmallChunk
from limbeck.networks import micro_batches
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.ahead import Ahead
from limbeck.runtime.compiling import compiled
from limbeck.runtime.devices import has_values, new_step, on_gpu
from limbeck.runtime.errors import require
from limbeck.runtime.lanes import lanes
from limbeck.runtime.random import generator
from limbeck.training.gradient import Loss

P = TypeVar("P", bound=tuple[Any, ...])
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class StepDraw:
    """What step n draws: b_n, int64 with shape (B,), and the augmentation A_n."""

    index: Tensor
    augmentation: Applied


def draw_steps(
    shape: tuple[int, int, int, int],
    batch_syn: int | None,
    steps: int,
    augmentation: Augmentation,
    seed: int,
    iteration: int,
    small_chunk: SmallChunk = "last",
) -> list[StepDraw]:
    """The draws of all T steps of an iteration.

    Args:
        shape: of X, (N, C, H, W).
        batch_syn: B, at least 1; None, or more than N, takes all.
        steps: T, at least 1.
        augmentation: of the mini-batches.
        seed: of the draws.
        iteration: of the outer loop.
        small_chunk: which chunk of a permutation is smaller where B does not divide N.

    Raises:
        UsageError: for a number below 1.

    Example:
        >>> from limbeck.augmentation import Dsa
        >>> [len(draw.index) for draw in draw_steps((7, 3, 8, 8), batch_syn=4, steps=4, augmentation=Dsa(), seed=0, iteration=0)]
        [4, 3, 4, 3]
    """
    for name, number in (("batch_syn", batch_syn), ("steps", steps)):
        require(number is None or number >= 1, name, number, "at least 1")
    count, size = shape[0], min(batch_syn or shape[0], shape[0])
    whole, small = [size] * (count // size), [count % size] if count % size else []
    sizes = [*small, *whole] if small_chunk == "first" else [*whole, *small]
    chunks: list[Tensor] = []
    for number in range(-(-steps // len(sizes))):
        chunks += torch.randperm(count, generator=generator(seed, "student batches", iteration, number)).split(sizes)
    return [
        StepDraw(index, augmentation.draw(generator(seed, "student augmentation", iteration, n), (len(index), *shape[1:])))
        for n, index in enumerate(chunks[:steps])
    ]


@dataclass(frozen=True)
class StudentStep:
    """One student step: its gradient and the gradient's products, in micro-batches, compiled or not.

    ℓ is a mean over the batch, so that g and its products are means over micro-batches of theirs; only batch norm, whose
    statistics are those of the whole batch, allows none.

    Args:
        network: f.
        loss: ℓ(logits, y), twice differentiable, a mean over the batch.
        compiled: whether the functions are compiled, for each size of a micro-batch: ahead of time (`runtime/ahead.py`) on a CPU
            where the network is in stages, else through `torch.compile`.
        precision: of convolutions and matrix products: `fp32`, `tf32` (on CUDA), `bf16`; θ, λ and sums stay as they come.
        micro_batch: images at a time; None takes a batch whole.
        lanes: how many micro-batches are computed side by side, each on one core of the CPU (compiled only).

    Raises:
        ValueError: for micro-batches of a network with batch norm, and for lanes of steps that are not compiled.

    `torch.compile` takes a limited number of graphs of one function in a process (`runtime/compiling.py`), of all networks and
    sizes together; `torch.compiler.reset()` starts anew.

    Example:
        >>> import torch
        >>> from limbeck.losses import soft_cross_entropy
        >>> from limbeck.networks.flat import flat_network
        >>> network = flat_network("ConvNetD1-w8", (3, 8, 8), 10)
        >>> theta, x, y = network.initial(torch.Generator().manual_seed(0)), torch.randn(10, 3, 8, 8), torch.eye(10)
        >>> step = StudentStep(network, soft_cross_entropy)
        >>> theta = theta - 0.01 * step.gradient(theta, x, y)
        >>> step.pullback(theta, x, y, cotangent=torch.ones_like(theta)).x.shape
        torch.Size([10, 3, 8, 8])
    """

    network: FlatNetwork
    loss: Loss
    compiled: bool = False
    precision: Precision = "fp32"
    micro_batch: int | None = None
    lanes: int = 1
    functions: Derivatives = field(init=False)
    _plain: Reverse = field(init=False, repr=False)
    _known: set[Any] = field(init=False, repr=False, compare=False, default_factory=set)

    def __post_init__(self) -> None:
        if self.micro_batch is not None and self.network.has_batch_norm:
            raise ValueError(f"{self.network.name} has batch norm, whose statistics are those of a whole batch")
        if self.lanes > 1 and not self.compiled:
            raise ValueError(
                f"{self.lanes} lanes would take turns with the parameters of one module: only compiled steps go side by side"
            )
        dtype = torch.bfloat16 if self.precision == "bf16" else None
        stages = self.network.stages(dtype) if self.compiled else None
        # Uncompiled, the closed form gains nothing: torch's own norms are faster than ours pass by pass.
        plain = Reverse(self.network, self.loss, dtype)
        functions = plain if stages is None else Staged(self.network, stages, self.loss)
        object.__setattr__(self, "_plain", plain)
        device = next(self.network.module.parameters()).device
        compiles, ahead = self.compiled and has_values(device), stages is not None and not on_gpu(device)
        object.__setattr__(self, "functions", _Compiled(functions, self.lanes, ahead) if compiles else functions)

    def value(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """ℓ, a scalar that autograd can differentiate as often as asked, uncompiled and of the whole batch."""
        return self._plain.value(theta, x, y)

    @torch.no_grad()
    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """g with shape (P,) at θ (P,), x (B, C, H, W), y (B, K)."""
        parts = self._parts(x, y)
        found = self._each("gradient", lambda part: self.functions.gradient(theta, *part), parts)
        if len(parts) == 1:
            return next(found)
        total = torch.zeros_like(theta)
        for part, gradient in zip(parts, found, strict=True):
            total.add_(gradient, alpha=len(part[0]) / len(x))
        return total

    @torch.no_grad()
    def keep(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, list[Any]]:
        """g, and for each micro-batch what its product can use of the work done."""
        parts, total, everything = self._parts(x, y), torch.zeros_like(theta), []
        for part, (gradient, kept) in zip(
            parts, self._each("keep", lambda part: self.functions.keep(theta, *part), parts), strict=True
        ):
            total.add_(gradient, alpha=len(part[0]) / len(x))
            everything.append(kept)
        return total, everything

    @torch.no_grad()
    def pullback(
        self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor, kept: list[Any] | None = None, *, by_theta: bool = True
    ) -> Pulled:
        """⟨g, λ⟩ and the product of g with λ = `cotangent` (P,).

        Args:
            theta: θ.
            x: A_n(X[b_n]).
            y: Y[b_n].
            cotangent: λ.
            kept: what `keep` returned at the same place.
            by_theta: whether h_θ is wanted.
        """
        parts = [(*part, each) for part, each in zip(self._parts(x, y), kept or cycle((None,)), strict=False)]
        what = f"pullback, kept {kept is not None}, by θ {by_theta}"
        found = self._each(what, lambda part: self._pull(theta, *part[:2], cotangent, part[2], by_theta), parts)
        if len(parts) == 1:
            return next(found)
        slope, total, h_x, h_y = theta.new_zeros(()), torch.zeros_like(theta if by_theta else theta[:0]), [], []
        for part, pulled in zip(parts, found, strict=True):
            share = len(part[0]) / len(x)
            slope.add_(pulled.slope, alpha=share)
            total.add_(pulled.theta, alpha=share)
            h_x.append(share * pulled.x)
            h_y.append(share * pulled.y)
        return Pulled(slope, total, torch.cat(h_x), torch.cat(h_y))

    def pullback_data(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> Pulled:
        """The same without h_θ."""
        return self.pullback(theta, x, y, cotangent, by_theta=False)

    def sizes(self, batch: int) -> list[int]:
        """The sizes of the micro-batches of a batch."""
        return micro_batches.sizes(batch, self.micro_batch, self.lanes)

    def _each(self, what: str, function: Callable[[P], R], parts: Sequence[P]) -> Iterator[R]:
        if self.lanes == 1:  # one by one: a CUDA graph writes its results where the last call's lie
            return map(function, parts)
        side_by_side, call = lanes(self.lanes), (what, *(len(part[0]) for part in parts))
        if call not in self._known:  # the first calls compile, which two lanes would do twice
            self._known.add(call)
            return (side_by_side.map(function, [part])[0] for part in parts)
        return iter(side_by_side.map(function, parts))

    def _parts(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(part[0], part[1]) for part in micro_batches.split((x, y), self.micro_batch, self.lanes)]

    def _pull(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor, kept: Any, by_theta: bool) -> Pulled:
        if not by_theta:
            return self.functions.pullback_data(theta, x, y, cotangent)
        if kept is None:
            return self.functions.pullback(theta, x, y, cotangent)
        return self.functions.pullback_kept(theta, x, y, cotangent, kept)


class _Compiled(Derivatives):
    """The same functions, each compiled at its first call: ahead of time, or through `torch.compile`."""

    def __init__(self, functions: Derivatives, lanes: int, ahead: bool) -> None:
        self.keeps_tensors = functions.keeps_tensors

        def call(function: Callable[..., Any], cuda_graphs: bool = True) -> Callable[..., Any]:
            later = compiled(function, cuda_graphs, side_by_side=lanes > 1)
            return Ahead(function, lanes, otherwise=later) if ahead else later

        self._gradient, self._pullback, self._pullback_data = (
            call(one) for one in (functions.gradient, functions.pullback, functions.pullback_data)
        )
        self._keep, self._pullback_kept = functions.keep, functions.pullback_kept
        if functions.keeps_tensors:  # a CUDA graph writes its results where the last call's lie, and these must outlive many calls
            self._keep, self._pullback_kept = (call(one, cuda_graphs=False) for one in (self._keep, self._pullback_kept))

    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        gradient: Tensor = self._call(self._gradient, theta, x, y)
        return gradient

    def keep(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Any]:
        gradient, kept = self._call(self._keep, theta, x, y)
        return gradient, kept

    def pullback(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> Pulled:
        return Pulled(*self._call(self._pullback, theta, x, y, cotangent))

    def pullback_kept(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor, kept: Any) -> Pulled:
        return Pulled(*self._call(self._pullback_kept, theta, x, y, cotangent, kept))

    def pullback_data(self, theta: Tensor, x: Tensor, y: Tensor, cotangent: Tensor) -> Pulled:
        return Pulled(*self._call(self._pullback_data, theta, x, y, cotangent))

    def _call(self, function: Callable[..., Any], theta: Tensor, *arguments: Any) -> Any:
        new_step(theta.device)
        return function(theta, *arguments)
