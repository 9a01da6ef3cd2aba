"""How the checkpoints of a block of epochs are written: `fp32`, `fp16`, or `half`, which is more exact than fp16 and smaller.

    fp32    θ_e as it is
    fp16    θ_e rounded to half precision; the last checkpoint of the block as it is
    half    κ, the block's last checkpoint, as it is; of every other one its distance from κ in 12 bits a parameter:
            s_g = max |θ_e − κ| / 2047 over each group g of 256 successive parameters,   q = round((θ_e − κ) / s_g),
            θ̂_e = κ + s_g q,  so that |θ̂_e − θ_e| ≤ s_g / 2

A distance from a checkpoint a few epochs away is small, and so is what rounding it loses, whereas rounding θ itself loses a part
of θ. Every checkpoint is one step from κ: none is read through others. κ is exact because training goes on from it.

With blocks of eight epochs a checkpoint takes 14.6 bits a parameter. A block is written in fp32 instead where a number is too large
or, ε the checkpoints' errors, where for any two of the block

    2 max(‖ε_a‖, ‖ε_b‖) > `MOST_ERROR` ‖θ_b − θ_a‖

Within a block `half` therefore changes no displacement by more than `MOST_ERROR` of its length. One from block to block changes by
‖ε_a‖ + ‖ε_b‖ at most, and so by half of `MOST_ERROR` of the way from θ_a, and from θ_b, to the nearest checkpoint of its own block:
`MOST_ERROR` of its length unless it is shorter than these two are in the mean, because the trajectory comes back to where it was.
No block knows the other, so that this alone is not checked.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad, pdist

GROUP = 256
LEVELS = 2047
MOST_ERROR = 0.01

Part = Callable[[str, int], Tensor]


class Coding(ABC):
    """Writes n checkpoints with shape (n, P) as tensors, and reads one of them."""

    name: ClassVar[str]
    rank: ClassVar[int]  # one of higher rank serves whoever asked for a lower one
    kinds: ClassVar[dict[str, str]]  # of its tensors, as safetensors calls them
    rows: ClassVar[tuple[str, ...]]  # those that have a row for each checkpoint, together

    @abstractmethod
    def size(self, rows: int, parameters: int) -> int:
        """Bytes of `rows` checkpoints."""

    @abstractmethod
    def encode(self, thetas: Tensor) -> dict[str, Tensor]:
        """Tensors that hold `thetas`, float32 with shape (n, P), finite: a row a checkpoint, and `end`, where there is one."""

    @abstractmethod
    def decode(self, part: Part, row: int, rows: int) -> Tensor:
        """Checkpoint `row` of `rows`, float32 with shape (P,), in memory of its own.

        `part(name, i)` is row i of the tensor `name`; it may lie in a mapped file, which others remove one day.
        """


class Fp32(Coding):
    """As it is."""

    name, rank, kinds, rows = "fp32", 2, {"theta": "F32"}, ("theta",)

    def size(self, rows: int, parameters: int) -> int:
        return 4 * rows * parameters

    def encode(self, thetas: Tensor) -> dict[str, Tensor]:
        return {"theta": thetas}

    def decode(self, part: Part, row: int, rows: int) -> Tensor:
        return part("theta", row).clone()


class Fp16(Coding):
    """Half precision, the last checkpoint as it is."""

    name, rank, kinds, rows = "fp16", 0, {"theta": "F16", "end": "F32"}, ("theta", "end")

    def size(self, rows: int, parameters: int) -> int:
        return (2 * (rows - 1) + 4) * parameters

    def encode(self, thetas: Tensor) -> dict[str, Tensor]:
        return {"theta": thetas[:-1].half(), "end": thetas[-1:]}

    def decode(self, part: Part, row: int, rows: int) -> Tensor:
        return part("end", 0).clone() if row == rows - 1 else part("theta", row).float()


class Half(Coding):
    """Distances from the last checkpoint in 12 bits a parameter.

    q + 2048 lies in two planes: `low` has its eight lower bits; of `high`, each byte has the four upper bits of a parameter in the
    first half of θ and, above them, those of its counterpart in the second half.
    """

    name, rank, rows = "half", 1, ("low", "end")
    kinds = {"low": "U8", "high": "U8", "scale": "F32", "end": "F32"}

    def size(self, rows: int, parameters: int) -> int:
        pairs = -(-parameters // (2 * GROUP))  # of groups
        return (rows - 1) * pairs * (3 * GROUP + 2 * 4) + 4 * parameters

    def encode(self, thetas: Tensor) -> dict[str, Tensor]:
        end = thetas[-1]
        distance = thetas[:-1].double() - end.double()
        groups = pad(distance, (0, -len(end) % (2 * GROUP))).unflatten(1, (-1, GROUP))
        scale = (groups.abs().amax(2) / LEVELS).float()
        # Where single precision has no scale so small the distances are lost, which `encode` notices.
        steps = groups / torch.where(scale > 0, scale, 1.0).double().unsqueeze(2)
        codes = steps.round_().clamp_(-LEVELS, LEVELS).flatten(1).to(torch.int16) + LEVELS + 1
        first, second = (codes >> 8).chunk(2, 1)
        return {
            "low": (codes & 255).to(torch.uint8),
            "high": (first | second << 4).to(torch.uint8),
            "scale": scale,
            "end": end.unsqueeze(0),
        }

    def decode(self, part: Part, row: int, rows: int) -> Tensor:
        end = part("end", 0)
        if row == rows - 1:
            return end.clone()
        low, high, scale = part("low", row), part("high", row), part("scale", row)
        theta = torch.empty(len(low))
        theta[: len(high)] = high & 15
        theta[len(high) :] = high >> 4
        theta.mul_(256).add_(low).sub_(LEVELS + 1)
        theta.view(-1, GROUP).mul_(scale.unsqueeze(1))
        return theta[: len(end)].add_(end)


CODINGS: dict[str, Coding] = {coding.name: coding for coding in (Fp32(), Fp16(), Half())}


def encode(thetas: Tensor, name: str) -> tuple[str, dict[str, Tensor], float]:
    """The checkpoints of one block in the coding `name`, or in `fp32` where that would not do, or would not be smaller.

    Args:
        thetas: successive checkpoints, float32 with shape (n, P).
        name: of a coding.

    Returns:
        The name of the coding taken, its tensors, and `displacement_error` of what it reads back.

    Raises:
        ValueError: when a number is not finite.
    """
    if not bool(thetas.isfinite().all()):
        raise ValueError("a checkpoint holds numbers that are not finite")
    if name == "fp32" or len(thetas) == 1:
        return "fp32", CODINGS["fp32"].encode(thetas), 0.0
    tensors = CODINGS[name].encode(thetas)
    read = torch.stack([CODINGS[name].decode(lambda key, i: tensors[key][i], row, len(thetas)) for row in range(len(thetas))])
    error = displacement_error(read, thetas)
    refused = not error <= MOST_ERROR if name == "half" else not bool(read.isfinite().all())
    return encode(thetas, "fp32") if refused else (name, tensors, error)


def displacement_error(read: Tensor, thetas: Tensor) -> float:
    """max_{a<b} 2 max(‖ε_a‖, ‖ε_b‖) / ‖θ_b − θ_a‖, ε the error of `read`, of `thetas` with shape (n, P).

    It bounds the part of every displacement that is lost, an epoch's step or a longer one; half of it, times the distance from θ_a
    to the nearest of the others, bounds ‖ε_a‖.
    """
    errors = (read.double() - thetas.double()).norm(dim=1)
    first, second = torch.triu_indices(len(thetas), len(thetas), 1)
    lost = 2 * torch.maximum(errors[first], errors[second])
    shares = torch.where(lost == 0, 0.0, lost / pdist(thetas.double()))
    return float(shares.max()) if len(shares) else 0.0
