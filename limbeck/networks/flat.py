"""A network as a function of one flat vector: f(θ, x) with θ of shape (P,).

The vector holds the parameters in the order of `named_parameters()`; a checkpoint, a difference of two checkpoints and a
gradient all have this shape, and SGD on it is one line.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property, partial
from inspect import ismethod

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.dropout import _DropoutNd

from limbeck.networks.batch_norm import BatchNorm, convert_batch_norms, is_statistic, measure_statistics
from limbeck.networks.factory import (
    Factory,
    build_foreign,
    check_logits,
    copied,
    factory_of,
    gives_one,
    incomplete,
    is_foreign,
    made_by,
    structure,
)
from limbeck.networks.initial import draw_seed, global_draws, initial_values
from limbeck.networks.libraries import is_own
from limbeck.networks.names import build_network
from limbeck.networks.stages import NetworkStage
from limbeck.runtime.errors import require
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.plugins import blamed


class FlatNetwork:
    """f(θ, x): `module` called with the parameters that the flat vector θ holds.

    f is a pure function: neither parameters nor buffers change. θ holds each parameter once, however many modules share it;
    those that do not require gradients are constants, as buffers are. Only what draws makes f random, see `has_dropout`.

    Args:
        module: any module; it is copied, and used in training mode, with a `BatchNorm` in the place of each of torch's.
        name: its name, for messages and files.
        fresh: makes the module anew from a seed, which then gives the initial parameters; None takes `initial_values`.

    Raises:
        UsageError: when the module cannot be copied, has no parameters to train or some that have no shape yet.

    Example:
        >>> import torch
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> network = FlatNetwork(module, "linear")
        >>> theta = network.initial(torch.Generator().manual_seed(0))
        >>> theta.shape, network(theta, torch.rand(5, 3, 2, 2)).shape
        (torch.Size([26]), torch.Size([5, 2]))
    """

    def __init__(self, module: nn.Module, name: str, fresh: Callable[[int], nn.Module] | None = None) -> None:
        self.module, self.name, self.fresh = convert_batch_norms(copied(module, name), name).train(), name, fresh
        whole = not incomplete(self.module)
        require(whole, "network", name, "complete: some of its parameters get their shape at its first call")
        self.shapes = {key: value.shape for key, value in self.module.named_parameters() if value.requires_grad}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        require(bool(self.sizes), "network", name, "one with parameters that require gradients")
        self.frozen = [key for key, value in self.module.named_parameters() if not value.requires_grad]
        self.buffers = [key for key, _ in self.module.named_buffers() if not is_statistic(self.module, key)]
        # What is pickled, because while f is computed the parameters of `module` are θ's, and another thread may be pickling.
        self._still = copy.deepcopy(self.module)
        self._draws = False

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "module": self._still}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._still = copy.deepcopy(self.module)

    @cached_property
    def structure(self) -> str | None:
        """What tells the network from others of its name; None for those that Limbeck has."""
        own = structure(self.module)
        if own is None or self.fresh is None:
            return own
        return fingerprint(own, array_fingerprint(self.initial(torch.Generator().manual_seed(0)).numpy()))

    @property
    def num_parameters(self) -> int:
        """P."""
        return sum(self.sizes)

    @property
    def has_batch_norm(self) -> bool:
        """Whether what the network makes of an image depends on the others of its batch."""
        return any(isinstance(part, BatchNorm) for part in self.module.modules())

    @property
    def has_dropout(self) -> bool:
        """Whether f is random, as dropout makes it: drawn from torch's global generator, and never twice the same.

        Found are torch's dropouts and modules with a positive number `dropout`, as torch's attention and recurrent ones have; of
        what `flat_network` makes, whatever draws when it is called, such as stochastic depth.
        """
        return self._draws or any(_drops(part) for part in self.module.modules())

    @property
    def slices(self) -> dict[str, slice]:
        """Where each named parameter lies in θ."""
        ends = torch.tensor(self.sizes).cumsum(0).tolist()
        return {name: slice(end - size, end) for name, end, size in zip(self.shapes, ends, self.sizes, strict=True)}

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        """The named parameters, as views of θ."""
        parts = theta.split(self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """Logits with shape (N, K) of images x with shape (N, C, H, W) under θ with shape (P,)."""
        # Torch's fused attention has no second derivatives. Networks found by name do not attend.
        with nullcontext() if is_own(self.module) else sdpa_kernel(SDPBackend.MATH):
            logits: Tensor = functional_call(self.module, {**self._constants(theta), **self.parameters(theta)}, (x,))
        return logits

    def stages(self, dtype: torch.dtype | None = None) -> list[NetworkStage] | None:
        """The network as stages that convolve in `dtype` (None: in that of θ); None where it has no such form."""
        found = getattr(self.module, "stages", None)
        # Other networks call a part of theirs so.
        form: list[NetworkStage] | None = found(dtype) if ismethod(found) else None
        return form

    def initial(self, generator: torch.Generator) -> Tensor:
        """Fresh parameters with shape (P,), on the CPU, of torch's default type: torch's own values, or what `fresh` makes.

        Raises:
            UsageError: when `fresh` makes another network, or parts of the module cannot draw their values.
        """
        if self.fresh is None:
            with blamed("network", self.name, "has a part that cannot be reset, which raised"):
                return initial_values(self.module, self.shapes, generator)
        made = dict(self.fresh(draw_seed(generator)).named_parameters())
        same = all(name in made and made[name].shape == shape for name, shape in self.shapes.items())
        require(same, "network", self.name, "a factory that makes the same network at every call")
        return torch.cat([made[name].detach().cpu().flatten() for name in self.shapes]).to(torch.get_default_dtype())

    def with_parameters(self, theta: Tensor, statistics_from: Callable[[], Tensor] | None = None) -> nn.Module:
        """A copy of the module that holds θ, in evaluation mode.

        Args:
            theta: with shape (P,).
            statistics_from: gives images with shape (N, C, H, W), as the network takes them, on which the mean and variance
                of batch norms are measured; asked only where there are any. Without it they keep their fresh statistics.
        """
        module = copy.deepcopy(self.module).to(theta.device, theta.dtype)
        with torch.no_grad():
            for name, value in self.parameters(theta).items():
                module.get_parameter(name).copy_(value)
        if statistics_from is not None and self.has_batch_norm:
            measure_statistics(module, statistics_from())
        return module.eval()

    def to(self, device: torch.device) -> "FlatNetwork":
        """The same on another device (its buffers move)."""
        self.module.to(device)
        self._still.to(device)
        return self

    def _constants(self, theta: Tensor) -> dict[str, Tensor]:
        """Parameters that are not trained and buffers, in θ's precision; copies of buffers, because modules write into them."""
        frozen = {name: self.module.get_parameter(name).detach().to(theta) for name in self.frozen}
        buffers = {name: self.module.get_buffer(name) for name in self.buffers}
        copies = {
            name: value.to(theta.device, theta.dtype if value.is_floating_point() else value.dtype, copy=True)
            for name, value in buffers.items()
        }
        return {**frozen, **copies}


def flat_network(network: str | nn.Module | Factory, shape: tuple[int, int, int], num_classes: int) -> FlatNetwork:
    """The network for images with shape (C, H, W) and `num_classes` classes.

    Args:
        network: a name; a module, on any device, whose own parameters count for nothing; or a function that makes one, of
            (channels, height, width, num_classes) or of (num_classes).
        shape: (C, H, W).
        num_classes: K.

    Raises:
        UsageError: for a name that is unknown, a network that does not take such images, that is no function of its parameters or
            that cannot draw fresh ones.

    Example:
        >>> flat_network("ConvNetD3-w32", (3, 32, 32), 10).num_parameters
        24714
    """
    good = isinstance(shape, tuple) and len(shape) == 3 and all(isinstance(side, int) and side > 0 for side in shape)
    require(good, "shape", shape, "(C, H, W)")
    require(isinstance(num_classes, int) and num_classes > 0, "num_classes", num_classes, "a whole number, at least 1")
    if isinstance(network, str) and not is_foreign(network):
        return FlatNetwork(build_network(network, *shape, num_classes), network)
    if isinstance(network, nn.Module):
        flat = FlatNetwork(network, type(network).__name__)
        with blamed("network", flat.name, "cannot be taken to the CPU, which raised"):
            flat.to(torch.device("cpu"))
    else:
        require(callable(network) or isinstance(network, str), "network", network, "a name, a module or a function that makes one")
        flat = _of_factory(network, shape, num_classes)
    with global_draws(0):
        flat._draws = check_logits(flat.module, shape, num_classes, flat.name)
    if flat.fresh is None:
        flat.initial(torch.Generator().manual_seed(0))  # what cannot be reset is to be known now
    return flat


def _of_factory(network: str | Factory, shape: tuple[int, int, int], num_classes: int) -> FlatNetwork:
    """The network that a factory makes, fresh at every call; one module that it gives again and again counts as that module."""
    fresh: Callable[[int], nn.Module]
    if isinstance(network, str):
        module, name, factory = build_network(network, *shape, num_classes), network, factory_of(network)
        fresh = partial(build_foreign, network, shape, num_classes)
    else:
        module, factory = made_by(network, shape, num_classes, 0), network
        name, fresh = type(module).__name__, partial(made_by, network, shape, num_classes)
    return FlatNetwork(module, name, None if gives_one(factory, shape, num_classes, name) else fresh)


def _drops(part: nn.Module) -> bool:
    if isinstance(part, _DropoutNd):
        return part.p > 0
    share = getattr(part, "dropout", 0)
    return isinstance(share, (int, float)) and share > 0
