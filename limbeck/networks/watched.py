"""Looking at the parts of a module while it runs once."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def run_watched(module: nn.Module, x: Tensor, hooks: Mapping[nn.Module, Callable[..., Any]]) -> None:
    """Run `module` on `x` without gradients and call each part's hook, (part, inputs, output), as the part ends."""
    held = [part.register_forward_hook(hook) for part, hook in hooks.items()]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for one in held:
            one.remove()
