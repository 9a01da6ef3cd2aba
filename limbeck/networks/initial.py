"""Fresh values of a module's parameters, drawn from a keyed generator.

    weights and biases of Conv2d and Linear: U(−1/√n, 1/√n) with n inputs      norms: w = 1, b = 0

These are torch's own defaults. Other modules draw their values themselves, by `reset_parameters()`; parameters of modules without
that keep the values which they were built with.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from limbeck.networks.batch_norm import BatchNorm
from limbeck.runtime.devices import has_values, on_gpu

CPU = torch.device("cpu")
UNIFORM = (nn.Conv2d, nn.Linear)
NORMS = (BatchNorm, nn.GroupNorm)


def initial_values(module: nn.Module, names: Iterable[str], generator: torch.Generator) -> Tensor:
    """Fresh values of the named parameters, one after the other, with shape (P,), on the CPU, of torch's default type.

    Args:
        module: whose parameters; it is left as it is.
        names: of parameters.
        generator: a CPU generator. The global one is left as it was.
    """
    names = list(names)
    drawn = [name for name in names if not _known(module, name)]
    fresh = _reset(module, draw_seed(generator)) if drawn else module
    parts = []
    for name in names:
        owner, value = _owner(module, name), fresh.get_parameter(name).detach()
        if name in drawn:
            parts.append(value.float().flatten())
        elif type(owner) in UNIFORM:
            bound = 1 / math.sqrt(owner.get_parameter("weight")[0].numel())
            parts.append(torch.rand(value.numel(), generator=generator, dtype=torch.float32) * 2 * bound - bound)
        else:
            parts.append(torch.full((value.numel(),), 0.0 if name.endswith("bias") else 1.0, dtype=torch.float32))
    return torch.cat(parts).to(torch.get_default_dtype())


def draw_seed(generator: torch.Generator) -> int:
    """A seed for `global_draws`."""
    return int(torch.randint(2**63 - 1, (), generator=generator))


@contextmanager
def global_draws(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Torch's global generators of the CPU and of `device` start from `seed` inside and are afterwards what they were.

    Modules draw from no others.
    """
    forked = [device] if on_gpu(device) and has_values(device) else []
    with torch.random.fork_rng(devices=forked):
        # Not torch.manual_seed, which would seed all accelerators, also those that are not forked.
        torch.default_generator.manual_seed(seed)
        for one in forked:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield


def _known(module: nn.Module, name: str) -> bool:
    """Whether the values follow from the kind of the owner, which no module around it resets in its own way."""
    path, _, leaf = name.rpartition(".")
    places = path.split(".") if path else []
    around = [module.get_submodule(".".join(places[:end])) for end in range(len(places))]
    kind = type(_owner(module, name)) in (*UNIFORM, *NORMS) and leaf in ("weight", "bias")
    return kind and all(_resetter(part) is None for part in around)


def _owner(module: nn.Module, name: str) -> nn.Module:
    return module.get_submodule(name.rpartition(".")[0])


def _reset(module: nn.Module, seed: int) -> nn.Module:
    """A copy on the CPU whose every part has been reset, parts before the whole, which has the last word."""
    fresh = copy.deepcopy(module).cpu()
    with global_draws(seed):
        for part in reversed(list(fresh.modules())):
            reset = _resetter(part)
            if reset is not None:
                reset()
    return fresh


def _resetter(part: nn.Module) -> Callable[[], None] | None:
    # Torch's attention and transformers have it under the second name.
    found = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
    return found if callable(found) else None
