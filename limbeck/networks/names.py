"""Names of networks: `ConvNetD3`, `ConvNetD3-w32`, `ConvNetD5-batchnorm-maxpool`.

    ConvNetD<depth 1–8>[-w<width>][-<norm>][-<pooling>][-<activation>]

with norm `instancenorm` (the default), `groupnorm`, `batchnorm`, `nonorm`; pooling `avgpool` (the default), `maxpool`,
`nopool`; activation `relu` (the default), `leaky`, `sigmoid`; width 128 unless named.
"""

import re
from typing import Any

from torch import nn

from limbeck.networks.convnet import ConvNet
from limbeck.runtime.errors import UsageError, require

_PARTS: dict[str, dict[str, str]] = {
    "norm": {"instancenorm": "instance", "groupnorm": "group", "batchnorm": "batch", "nonorm": "none"},
    "pooling": {"avgpool": "avg", "maxpool": "max", "nopool": "none"},
    "activation": {"relu": "relu", "leaky": "leaky", "sigmoid": "sigmoid"},
}
_ACCEPTED = "a name such as ConvNetD3, ConvNetD3-w32 or ConvNetD5-batchnorm-maxpool-leaky (depth 1–8)"


def build_network(name: str, channels: int, height: int, width: int, num_classes: int) -> nn.Module:
    """The network of that name for images with shape (channels, height, width) and K = `num_classes`.

    Raises:
        UsageError: when the name is unknown or the images are too small for the network's poolings.
    """
    options = _parse(name)
    least = 1 if options.get("pooling") == "none" else 2 ** options["depth"]
    if min(height, width) < least:
        raise UsageError(
            f"network: {name!r} halves the image {options['depth']} times: {height}×{width} pixels are not at least {least}×{least}"
        )
    return ConvNet(channels, height, width, num_classes, **options)


def check_network_name(name: str) -> None:
    """Raise `UsageError` unless `name` is the name of a network."""
    _parse(name)


def _parse(name: str) -> dict[str, Any]:
    matched = re.fullmatch(r"ConvNetD([1-8])((?:-[a-z0-9]+)*)", name)
    if matched is None:
        raise UsageError(f"network: {name!r} is not {_ACCEPTED}")
    options: dict[str, Any] = {"depth": int(matched[1])}
    for word in matched[2].split("-")[1:]:
        key, value = _option(name, word)
        require(key not in options, "network", name, f"a name that states its {key} once")
        options[key] = value
    group = options.get("norm") == "group"
    require(not group or options.get("width", 128) % 4 == 0, "network", name, "of a width divisible by 4, as groupnorm needs")
    return options


def _option(name: str, word: str) -> tuple[str, int | str]:
    if re.fullmatch(r"w[1-9][0-9]{0,3}", word):
        return "width", int(word[1:])
    for key, values in _PARTS.items():
        if word in values:
            return key, values[word]
    words = ", ".join(word for values in _PARTS.values() for word in values)
    raise UsageError(f"network: {name!r} has the unknown part {word!r}; known are w<width>, {words}")
