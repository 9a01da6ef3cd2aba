"""A network of the user's, named `package.module:factory`.

The module is imported, from the environment or the current folder, and the factory called as
factory(channels, height, width, num_classes) or, where it takes fewer arguments, as factory(num_classes). What it draws from
torch's global generator follows from a seed, so that buffers that are drawn are the same in every process. Whoever names such a
network has its code run.
"""

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.networks.batch_norm import convert_batch_norms
from limbeck.networks.initial import global_draws
from limbeck.runtime.errors import UsageError, require

_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"


def is_foreign(name: str) -> bool:
    """Whether `name` is meant to name a factory."""
    return ":" in name


def check_form(name: str) -> None:
    """Raise `UsageError` unless `name` has the form `package.module:factory`."""
    require(re.fullmatch(f"{_NAME}:{_NAME}", name) is not None, "network", name, "of the form package.module:factory")


def build_foreign(name: str, shape: tuple[int, int, int], num_classes: int, seed: int) -> nn.Module:
    """The module that the factory makes, in training mode on the CPU, with pure batch norms.

    Args:
        name: of the form `package.module:factory`.
        shape: (C, H, W) of the images.
        num_classes: K.
        seed: of what the factory draws from torch's global CPU generator, which is afterwards what it was.

    Raises:
        UsageError: when there is no such factory, when it or its module raise, or when logits have not the shape (N, K).
    """
    factory = _factory(name)
    with global_draws(seed):
        with _blamed(name, "raised"):
            module = _called(factory, *shape, num_classes)
        require(isinstance(module, nn.Module), "network", name, f"a factory of a torch Module, it makes a {type(module).__name__}")
        module = convert_batch_norms(module.cpu().train(), name)
        size = "×".join(str(side) for side in shape)
        with _blamed(name, f"cannot take images of {size}:"), torch.no_grad():
            logits = module(torch.zeros(2, *shape))
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, num_classes):
        raise UsageError(f"network: {name!r} makes {found} of 2 images of {size}, not logits of shape (2, {num_classes})")
    return module


def _factory(name: str) -> Callable[..., Any]:
    check_form(name)
    path, _, attribute = name.partition(":")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # the last place, so that it hides nothing; an installed command does not have it
    try:
        with _blamed(name, f"cannot be imported, {path} raised"):
            found = import_module(path)
    except UsageError as error:
        missing = getattr(error.__cause__, "name", None) if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing and f"{path}.".startswith(f"{missing}."):
            reason = f"there is no module {missing!r} in the environment or the current folder"
            raise UsageError(f"network: {name!r} cannot be imported: {reason}") from error.__cause__
        raise
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"network: {name!r} cannot be imported: {path} has no {attribute!r}")
        found = getattr(found, part)
    callable_ = callable(found) and not isinstance(found, nn.Module)
    require(callable_, "network", name, f"a factory, it is a {type(found).__name__}")
    return found  # type: ignore[return-value]


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


@contextmanager
def _blamed(name: str, what: str) -> Iterator[None]:
    """Turns whatever is raised inside into a `UsageError` of one line."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        raise UsageError(f"network: {name!r} {what} {type(error).__name__}" + (f": {said}" if said else "")) from error
