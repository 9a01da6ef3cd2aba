"""Means and standard deviations of the channels of pixels in [0, 1] by which published experiments normalise, by name.

    cifar10          CIFAR-10, and CIFAR-100 in the trajectory-matching family; these deviations are a fifth below those of the
                     pixels (0.247 0.243 0.262)
    cifar100         CIFAR-100 in the code of DC, DSA and DM
    imagenet         ImageNet, its subsets and Tiny-ImageNet
    mnist, fashion-mnist, svhn

Some are what a fit to these images gives, to rounding, and some are not: whoever goes on from published settings or sets needs the
published ones.
"""

from collections.abc import Mapping
from math import inf
from typing import Annotated, Any, Literal, get_args

from limbeck.runtime.checked import Rule

Numbers = tuple[float, ...]
Channels = tuple[Numbers, Numbers]  # means and deviations
Name = Literal["imagenet", "cifar10", "cifar100", "mnist", "fashion-mnist", "svhn"]
CONSTANTS: Mapping[str, Channels] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}
assert CONSTANTS.keys() == set(get_args(Name))


def _sound(value: Any) -> bool:
    """Whether numbers are means and as many deviations; names and words are anyway."""
    if not isinstance(value, tuple):
        return True
    mean, std = value
    return len(mean) == len(std) > 0 and all(-inf < m < inf for m in mean) and all(0 < s < inf for s in std)


# Numbers of one's own: [[means], [deviations]], a number for each channel.
OWN = Rule("[[means], [deviations above 0]] with a number of each for every channel", _sound)
Normalisation = Annotated[Literal["fitted", "none", Name] | Channels | bool, OWN]


def spelled(value: Any) -> Any:
    """The value as it is written today: files of before say true for `fitted`, and false for `none`."""
    return {True: "fitted", False: "none"}[value] if isinstance(value, bool) else value
