"""Networks by name.

    ConvNetD<depth 1–8>[-w<width>][-<norm>][-<pooling>][-<activation>]      ConvNetD3, ConvNetD5-w32-batchnorm-maxpool
    ResNet18[-w<width>][-<norm>]                                            ResNet18, ResNet18-batchnorm
    VGG11[-w<width>][-<norm>]                                               VGG11, VGG11-w16
    AlexNet[-w<width>][-<norm>]                                             AlexNet, AlexNet-instancenorm
    MLP[-w<width>]
    LeNet
    package.module:factory                                                  a network of the user's, see `factory`
    timm:NAME, torchvision:NAME, transformers:FOLDER                        one of another library, see `libraries`

with norm `instancenorm` (the default, but `nonorm` for AlexNet), `groupnorm`, `batchnorm`, `nonorm`; pooling `avgpool` (the
default), `maxpool`, `nopool`; activation `relu` (the default), `leaky`, `sigmoid`; width, that of the first layer, 128 unless
named, and 64 for ResNet18 and VGG11. `BN` behind the first part says `batchnorm`, as the field writes it: `ResNet18BN`.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from limbeck.networks import resnet
from limbeck.networks.blocks import GROUPS, grey_padding
from limbeck.networks.classic import MLP, VGG11, AlexNet, LeNet
from limbeck.networks.convnet import ConvNet, first_padding
from limbeck.networks.factory import build_foreign
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.plugins import check_form, is_foreign, library_of
from limbeck.runtime.random import derived_seed

_PARTS: dict[str, dict[str, str]] = {
    "norm": {"instancenorm": "instance", "groupnorm": "group", "batchnorm": "batch", "nonorm": "none"},
    "pooling": {"avgpool": "avg", "maxpool": "max", "nopool": "none"},
    "activation": {"relu": "relu", "leaky": "leaky", "sigmoid": "sigmoid"},
}


@dataclass(frozen=True)
class _Known:
    """A network that has a name.

    Args:
        build: makes it, from C, H, W, K and the options.
        parts: the options that names may state.
        least: pixels of the smallest image's side.
        pads_grey: whether grey images are padded, and may be so much smaller.
        step: what widths are multiples of.
        halvings: how often a ConvNet halves the image.
    """

    build: Callable[..., nn.Module]
    parts: tuple[str, ...] = ()
    least: int = 1
    pads_grey: bool = False
    step: int = 1
    halvings: int = 0


_CONVNET = ("width", "norm", "pooling", "activation")
_NETWORKS = {
    **{f"ConvNetD{depth}": _Known(partial(ConvNet, depth=depth), _CONVNET, halvings=depth) for depth in range(1, 9)},
    "ResNet18": _Known(resnet.ResNet18, ("width", "norm"), resnet.LEAST),
    "VGG11": _Known(VGG11, ("width", "norm"), VGG11.LEAST, pads_grey=True),
    "AlexNet": _Known(AlexNet, ("width", "norm"), AlexNet.LEAST, pads_grey=True, step=2),
    "MLP": _Known(MLP, ("width",)),
    "LeNet": _Known(LeNet, (), LeNet.LEAST, pads_grey=True),
}
_ACCEPTED = (
    "a name such as ConvNetD3, ConvNetD3-w32 or ConvNetD5-batchnorm-maxpool-leaky (depth 1–8), "
    "ResNet18, ResNet18-batchnorm, VGG11, AlexNet, MLP, LeNet, package.module:factory, "
    "timm:NAME, torchvision:NAME or transformers:FOLDER"
)


def build_network(name: str, channels: int, height: int, width: int, num_classes: int) -> nn.Module:
    """The network of that name for images with shape (channels, height, width) and K = `num_classes`.

    Raises:
        UsageError: when the name is unknown, the images are too small for the network, or a factory does not do what it should.
    """
    if is_foreign(name):
        return build_foreign(name, (channels, height, width), num_classes, derived_seed(0, "network", name))
    known, options = _parse(name)
    halvings = 0 if options.get("pooling") == "none" else known.halvings
    if min(height, width) + 2 * (first_padding(height, width) - 1) < 2**halvings:
        size = f"{2**halvings}×{2**halvings}"
        raise UsageError(f"network: {name!r} halves the image {halvings} times: {height}×{width} pixels are not at least {size}")
    least = known.least - (2 * grey_padding(channels) if known.pads_grey else 0)
    if min(height, width) < least:
        raise UsageError(f"network: {name!r} takes images of {least}×{least} pixels at least, not of {height}×{width}")
    return known.build(channels, height, width, num_classes, **options)


def check_network_name(name: str) -> None:
    """Raise `UsageError` unless `name` is the name of a network; of those that are not Limbeck's only the form is checked."""
    if library_of(name) is not None:
        return
    if is_foreign(name):
        check_form("network", name, "factory")
    else:
        _parse(name)


def usual_name(name: str) -> str:
    """The shortest name of the same network, `ConvNetD3` of `ConvNetD3-w128`; of what is no such name itself."""
    try:
        known, options = _parse(name) if not is_foreign(name) else (None, {})
    except UsageError:  # a module's own name
        return name
    if known is None:
        return name
    usual = inspect.signature(known.build).parameters
    told = {part: options[part] for part in known.parts if part in options and options[part] != usual[part].default}
    words = {part: {value: word for word, value in held.items()} for part, held in _PARTS.items()}
    parts = [f"w{value}" if part == "width" else words[part][str(value)] for part, value in told.items()]
    return "-".join([name.split("-")[0].removesuffix("BN"), *parts])


def same_network(one: str, other: str) -> bool:
    """Whether two names, or what else networks are called, mean one network."""
    return usual_name(one) == usual_name(other)


def _parse(name: str) -> tuple[_Known, dict[str, int | str]]:
    head, *words = name.split("-")
    known = _NETWORKS.get(head.removesuffix("BN"))
    if known is None:
        raise UsageError(f"network: {name!r} is not {_ACCEPTED}")
    options: dict[str, int | str] = {}
    for word in [*(["batchnorm"] if head.endswith("BN") else []), *words]:
        key, value = _option(name, word, known.parts)
        require(key not in options, "network", name, f"a name that states its {key} once")
        options[key] = value
    grouped = options.get("norm") == "group"
    step = known.step * (GROUPS if grouped else 1)
    fits = int(options.get("width", step)) % step == 0
    require(fits, "network", name, f"of a width divisible by {step}" + (", as groupnorm needs" if grouped else ""))
    return known, options


def _option(name: str, word: str, parts: tuple[str, ...]) -> tuple[str, int | str]:
    if "width" in parts and re.fullmatch(r"w[1-9][0-9]{0,3}", word):
        return "width", int(word[1:])
    for key in parts:
        if word in _PARTS.get(key, {}):
            return key, _PARTS[key][word]
    words = ["w<width>"] * ("width" in parts) + [word for key in parts for word in _PARTS.get(key, {})]
    raise UsageError(f"network: {name!r} has the unknown part {word!r}; known are {', '.join(words) or 'none'}")
