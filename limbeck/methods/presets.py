"""What a method is: the settings that make it, under those of the recipe.

A trajectory method is a composition of the same parts:

    mtt     uniform start epochs, hard labels, real images                   Cazenavette et al., 2022, arXiv:2203.11932
    ftd     mtt on experts trained by GSAM, X averaged over iterations       Du et al., 2023, arXiv:2211.11004
    tesla   mtt with λ taken as constant                                     Cui et al., 2023, arXiv:2211.10586
    datm    start epochs from early to late, learned soft labels,
            images that experts classify correctly                           Guo et al., 2024, arXiv:2310.05773
    pad     datm on experts trained from easy to difficult images,
            parameters of lowest loss dropped                                Li et al., 2024, arXiv:2408.03360
    edf     datm with Common Pattern Dropout and Discriminative Area
            Enhancement                                                      Wang et al., 2025, arXiv:2410.17193

The others match gradients (`dc`, `dsa`) or features (`dm`) of the real images, select some (`random`, `herding`, `k-center`), or
make images that a teacher labels: from its batch norms (`sre2l`), from crops (`rded`).
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

Name = Literal["edf", "pad", "datm", "tesla", "ftd", "mtt", "dsa", "dc", "dm", "sre2l", "rded", "k-center", "herding", "random"]
NAMES: tuple[str, ...] = get_args(Name)

TRAJECTORY = ("edf", "pad", "datm", "tesla", "ftd", "mtt")
MATCHING = ("dsa", "dc", "dm")
SELECTION = ("k-center", "herding", "random")
RELABELLED = ("sre2l", "rded")

_PLAIN: dict[str, Any] = {"match.criterion": "none", "enhance.weighting": "none"}
_HARD: dict[str, Any] = {"labels": "hard", "outer.lr_label": 0.0}
_MTT: dict[str, Any] = {**_PLAIN, **_HARD, "schedule.kind": "uniform", "init": "real"}
_REAL: dict[str, Any] = {**_PLAIN, **_HARD, "init": "real", "outer.lr_lr": 0.0, "outer.img_momentum": 0.5}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "edf": {},
    "pad": {"enhance.weighting": "none", "match.drop_ratio": 0.25, "experts.curriculum": "pad"},
    "datm": _PLAIN,
    "tesla": {**_MTT, "engine.kind": "tesla"},
    "ftd": {**_MTT, "experts.optimiser": "gsam", "experts.alpha": 0.4, "outer.ema_decay": 0.999},
    "mtt": _MTT,
    "dsa": {**_REAL, "outer.lr_img": 0.1},
    "dc": {**_REAL, "outer.lr_img": 0.1, "init": "noise", "eval.protocol": "none", "eval.epochs": 300},
    "dm": {**_REAL, "outer.lr_img": 1.0},
    "sre2l": {**_PLAIN, "eval.protocol": "kd-sre2l"},
    "rded": {**_PLAIN, "eval.protocol": "kd-rded"},
    "k-center": _REAL,
    "herding": _REAL,
    "random": _REAL,
}
