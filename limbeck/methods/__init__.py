"""The methods, the outer loop and its state; `limbeck.methods.edf(…)` and its like give a method."""

from limbeck.methods.presets import (
    datm,
    dc,
    dm,
    dsa,
    edf,
    ftd,
    herding,
    k_center,
    mtt,
    ncfm,
    pad,
    random,
    rded,
    sre2l,
    tesla,
)

__all__ = ["datm", "dc", "dm", "dsa", "edf", "ftd", "herding", "k_center", "mtt", "ncfm", "pad", "random", "rded", "sre2l", "tesla"]
