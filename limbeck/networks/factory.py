"""A network of the user's, named `package.module:factory`.

The factory is called as factory(channels, height, width, num_classes) or, where it takes fewer arguments, as
factory(num_classes). What it draws from torch's global generator follows from a seed, so that buffers that are drawn are the same
in every process. Whoever names such a network has its code run (`runtime.plugins`).
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from limbeck.networks.batch_norm import convert_batch_norms, is_statistic
from limbeck.networks.blocks import black_images, call_purely
from limbeck.networks.initial import global_draws
from limbeck.networks.libraries import is_own, maker
from limbeck.runtime import plugins
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.fingerprint import array_fingerprint, described, fingerprint, source_of
from limbeck.runtime.plugins import blamed, library_of
from limbeck.runtime.plugins import is_foreign as is_foreign

Factory = Callable[..., nn.Module]


def build_foreign(name: str, shape: tuple[int, int, int], num_classes: int, seed: int) -> nn.Module:
    """The module that the factory makes, in training mode on the CPU, with pure batch norms.

    Args:
        name: of the form `package.module:factory`, or of a network of another library (`libraries.py`).
        shape: (C, H, W) of the images.
        num_classes: K.
        seed: of what the factory draws from torch's global CPU generator, which is afterwards what it was.

    Raises:
        UsageError: when there is no such factory, when it or its module raise, or when logits have not the shape (N, K).
    """
    return made_by(factory_of(name), shape, num_classes, seed, name)


def factory_of(name: str) -> Factory:
    """The factory of that name; arguments and errors as for `build_foreign`."""
    if library_of(name) is not None:
        return maker(name)
    found = plugins.imported("network", name, "factory")
    callable_ = callable(found) and not isinstance(found, nn.Module)
    require(callable_, "network", name, f"a factory, it is a {type(found).__name__}")
    factory: Factory = found
    return factory


def made_by(factory: Factory, shape: tuple[int, int, int], num_classes: int, seed: int, name: str = "") -> nn.Module:
    """The same of the factory itself."""
    name = name or getattr(factory, "__qualname__", type(factory).__name__)
    with global_draws(seed):
        given = _given(factory, shape, num_classes, name)
        # It may be a module that somebody has. An incomplete one was just made, and none can be copied.
        module = given if incomplete(given) else copied(given, name)
        module = convert_batch_norms(module.cpu().train(), name)
        check_logits(module, shape, num_classes, name)
    return module


def gives_one(factory: Factory, shape: tuple[int, int, int], num_classes: int, name: str) -> bool:
    """Whether the factory gives one module again and again, and so no fresh parameters."""
    with global_draws(0):
        return _given(factory, shape, num_classes, name) is _given(factory, shape, num_classes, name)


def incomplete(module: nn.Module) -> bool:
    """Whether some of its parameters or buffers get their shape at its first call."""
    return any(is_lazy(value) for value in (*module.parameters(), *module.buffers()))


def copied(module: nn.Module, name: str) -> nn.Module:
    """A copy of the module; raises `UsageError` where there can be none."""
    with blamed("network", name, "cannot be copied, which raised"):
        return copy.deepcopy(module)


def check_logits(module: nn.Module, shape: tuple[int, int, int], num_classes: int, name: str) -> bool:
    """Whether the module draws when it is called; torch's global CPU generator moves then, and nothing else changes.

    Raises:
        UsageError: unless it makes logits with shape (N, `num_classes`) of images of `shape`.
    """
    size, chance = "×".join(str(side) for side in shape), torch.get_rng_state()
    with blamed("network", name, f"cannot take images of {size}:"), torch.enable_grad():
        logits = call_purely(module, black_images(module, shape))
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, num_classes):
        raise UsageError(f"network: {name!r} makes {found} of 2 images of {size}, not logits of shape (2, {num_classes})")
    trained = any(value.requires_grad for value in module.parameters())
    require(logits.requires_grad or not trained, "network", name, "one whose logits have a gradient by its parameters")
    return not torch.equal(torch.get_rng_state(), chance)


def structure(module: nn.Module) -> str | None:
    """What tells a network of the user's from others with its class's name; None for those that Limbeck has.

    That is its parts, the source of their classes, what these hold beside modules, which parameters are trained, and the values of
    those that are not and of buffers.
    """
    if is_own(module):
        return None
    own = {name: part for name, part in module.named_modules() if _is_own(type(part))}
    kinds = {base for part in own.values() for base in type(part).__mro__ if _is_own(base)}
    held = {name: _held(part) for name, part in own.items()}
    fixed: list[tuple[str, Tensor]] = [(name, value) for name, value in module.named_parameters() if not value.requires_grad]
    fixed += [(name, value) for name, value in module.named_buffers() if not is_statistic(module, name)]
    values = array_fingerprint(*(value.detach().cpu().double().reshape(-1).numpy() for _, value in fixed))
    sources = [source_of(kind) for kind in sorted(kinds, key=lambda kind: kind.__qualname__)]
    return fingerprint(str(module), sources, held, [name for name, _ in fixed], values)


def _is_own(kind: type) -> bool:
    return not kind.__module__.startswith(("torch.", "limbeck.", "builtins"))


def _held(part: nn.Module) -> list[str]:
    """What a module holds beside parameters, buffers and modules, such as sizes and functions."""
    return [f"{name}={described([value])}" for name, value in sorted(vars(part).items()) if name[0] != "_" and name != "training"]


def _given(factory: Factory, shape: tuple[int, int, int], num_classes: int, name: str) -> nn.Module:
    with blamed("network", name, "raised"):
        module = _called(factory, *shape, num_classes)
    require(isinstance(module, nn.Module), "network", name, f"a factory of a torch Module, it makes a {type(module).__name__}")
    given: nn.Module = module
    return given


def _called(factory: Callable[..., Any], channels: int, height: int, width: int, num_classes: int) -> Any:
    parameters = inspect.signature(factory).parameters
    places = [key for key, one in parameters.items() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if any(one.kind == one.VAR_POSITIONAL for one in parameters.values()):
        places += ["", "", "", ""]
    named = "num_classes" in parameters
    # make(num_classes, width, depth, norm) takes four arguments too, but not these.
    if len(places) >= 4 and (not named or places[3] == "num_classes"):
        return factory(channels, height, width, num_classes)
    return factory(num_classes) if places and not named else factory(num_classes=num_classes)
