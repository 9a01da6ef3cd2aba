"""Whether a small set ranks architectures as the full data do.

With a_i the mean accuracy of architecture i trained on the small set (the proxy), b_i on the full data (the truth) and R ranks,
where ties share their mean rank,

    Spearman   ρ = Σ_i (R(a_i) − R̄)(R(b_i) − R̄) / √(Σ_i (R(a_i) − R̄)² Σ_i (R(b_i) − R̄)²)
    Kendall    τ_b = Σ_{i<j} sgn(a_i − a_j) sgn(b_i − b_j) / √(pairs untied in a · pairs untied in b)
    regret     max_i b_i − b_{argmax a}

over all architectures and over the best of the truth. Intervals are percentiles of a bootstrap over architectures, p that of
|r| among random assignments of the a_i, two-sided: (1 + #{|r*| ≥ |r|}) / (1 + draws).

B. Zhao, K. R. Mopuri and H. Bilen, "Dataset Condensation with Gradient Matching", 2020, arXiv:2006.05929, whose space has 720
ConvNets. M. G. Kendall, "The treatment of ties in ranking problems", 1945.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.fitting import Cell, Cells, Fit, Trained, check_measured, check_seeds, percentiles, right_share
from limbeck.networks.factory import is_foreign
from limbeck.networks.names import build_network, check_network_name
from limbeck.runtime.errors import require
from limbeck.runtime.random import generator
from limbeck.runtime.records import Record
from limbeck.training.images import Images

# The published axes without layer norm, which ConvNets here do not have: 576 of the 720. `search_space(**PUBLISHED)`.
PUBLISHED: dict[str, Any] = {
    "depths": (1, 2, 3, 4),
    "widths": (32, 64, 128, 256),
    "norms": ("nonorm", "batchnorm", "instancenorm", "groupnorm"),
    "poolings": ("nopool", "maxpool", "avgpool"),
    "activations": ("sigmoid", "relu", "leaky"),
}
LEAST_TOP = 5
PAIRS = 2**21  # of architectures, of all draws that are looked at together


@dataclass(frozen=True, kw_only=True)
class Correlation(Record):
    """A rank correlation, its 95 % interval and the p of its permutations."""

    value: float
    ci95: tuple[float, ...] | None
    p: float


@dataclass(frozen=True, kw_only=True)
class Correlations(Record):
    """Of n architectures; where there are none, `reason` says why. `share`: of the truth's best, if these alone are looked at."""

    n: int
    spearman: Correlation | None = None
    kendall: Correlation | None = None
    reason: str | None = None
    share: float | None = None

    LEFT_OUT: ClassVar = ("share",)


@dataclass(frozen=True, kw_only=True)
class Pick(Record):
    """The truth's accuracy of what the proxy picks (the mean of several), of the best, and of a pick by chance."""

    picked: float
    best: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class RankCorrelation(Record):
    """How well accuracies on a small set rank architectures.

    Args:
        all: over all of them.
        top: over shares of the best.
        picked: the architectures that the proxy ranks first; several where they tie.
        accuracy: of the truth.
        regret: best − picked; the best of noisy means is flattered, and the regret with it.
    """

    all: Correlations
    top: tuple[Correlations, ...]
    picked: tuple[str, ...]
    accuracy: Pick
    regret: float


Accuracies = Mapping[str, Mapping[str, Sequence[float]]]  # by set and architecture, of each seed


@dataclass(frozen=True, kw_only=True)
class Search(Record):
    """Rankings side by side.

    Args:
        accuracy: on the test images.
        choice: on the images that proxies choose by; None without.
        seconds: of training, by set.
        images: by set.
        proxies: of every set but the truth.
        training: how networks were trained, where that is known.
    """

    accuracy: Accuracies
    choice: Accuracies | None
    seconds: Mapping[str, float]
    images: Mapping[str, int]
    proxies: Mapping[str, RankCorrelation]
    training: Trained | None = None

    LEFT_OUT: ClassVar = ("training",)


def search_space(
    depths: Sequence[int] = (1, 2, 3),
    widths: Sequence[int] = (32, 64),
    norms: Sequence[str] = ("instancenorm", "batchnorm"),
    poolings: Sequence[str] = ("avgpool", "maxpool"),
    activations: Sequence[str] = ("relu",),
) -> list[str]:
    """The names of all ConvNets on a grid, in the order of the arguments; 24 by default.

    Args:
        depths, widths, norms, poolings, activations: the axes, see `limbeck.networks.names`.

    Raises:
        UsageError: for an empty axis, or a value that no ConvNet has.
    """
    axes = {"depths": depths, "widths": widths, "norms": norms, "poolings": poolings, "activations": activations}
    for key, axis in axes.items():
        require(len(axis) > 0, key, list(axis), "one value or more")
    grid = product(depths, widths, norms, poolings, activations)
    names = [f"ConvNetD{depth}-w{width}-{norm}-{pooling}-{activation}" for depth, width, norm, pooling, activation in grid]
    for name in names:
        check_network_name(name)
    return list(dict.fromkeys(names))


def search(
    fit: Fit,
    sets: Mapping[str, SmallSet],
    names: Sequence[str],
    seeds: Sequence[int],
    test: Images,
    labels: Tensor,
    *,
    choose: tuple[Images, Tensor] | None = None,
    truth: str = "full",
    draws: int = 1000,
    cells: Cells = Cells(),
) -> Search:
    """Train every architecture on every set with every seed, and compare the rankings.

    Args:
        fit: the training; it may differ in nothing but the set, or the proxy is not to blame.
        sets: what to train on by name, such as `distilled`, `random`, `full`.
        names: architectures.
        seeds: one network each for every set and architecture.
        test: the images on which accuracies are measured.
        labels: their classes, int64 with shape (n,).
        choose: the images, and their classes, on which proxies choose; None: the test images, by which the choice has seen the
            test set.
        truth: the set that the others are a proxy for.
        draws: of the bootstrap and of the permutations.
        cells: results that are done, and where new ones go; keys are `set/architecture/seed`.

    Raises:
        UsageError: for sets, names, seeds or images that do not fit together; before anything is trained.
    """
    require(truth in sets, "truth", truth, f"one of the sets {', '.join(sets)}")
    num_classes = sets[truth].num_classes
    for key, small in sets.items():
        require(small.num_classes == num_classes, key, small.num_classes, f"a set of {num_classes} classes")
    check_measured("test", test, labels, num_classes)
    if choose:
        check_measured("choose", *choose, num_classes)
    _check_names(names, test.shape, num_classes)
    check_seeds(seeds)

    def cell(key: str, name: str, seed: int) -> Cell:
        began = time.perf_counter()
        asked = [test, choose[0]] if choose else [test]
        found = fit(name, sets[key], seed=seed, measure=asked)
        found = [logits.cpu() for logits in found]  # waits for the GPU
        seconds = time.perf_counter() - began
        chosen = right_share(found[1], choose[1]) if choose else None
        return {"accuracy": right_share(found[0], labels), "choice": chosen, "seconds": seconds}

    found = cells.all({"/".join(map(str, one)): partial(cell, *one) for one in product(sets, names, seeds)})
    rows = {key: {name: [found[f"{key}/{name}/{seed}"] for seed in seeds] for name in names} for key in sets}
    accuracy = _column(rows, "accuracy")
    choice = _column(rows, "choice") if choose else None
    return Search(
        accuracy=accuracy,
        choice=choice,
        seconds={key: math.fsum(cell["seconds"] for row in found.values() for cell in row) for key, found in rows.items()},
        images={key: len(small) for key, small in sets.items()},
        proxies={key: rank_correlation((choice or accuracy)[key], accuracy[truth], draws=draws) for key in sets if key != truth},
    )


def rank_correlation(
    proxy: Mapping[str, Sequence[float]],
    truth: Mapping[str, Sequence[float]],
    *,
    shares: Sequence[float] = (0.05, 0.1),
    draws: int = 1000,
    seed: int = 0,
) -> RankCorrelation:
    """How well accuracies on a small set rank architectures.

    Args:
        proxy: accuracies of every architecture, one or more, trained on the small set.
        truth: the same of the same architectures, trained on the full data.
        shares: in (0, 1]; of each, the truth's best ⌈share · n⌉, at least five, and those that tie with the last of them, are
            looked at alone.
        draws: of the bootstrap and of the permutations.
        seed: of the draws.

    Raises:
        UsageError: for accuracies that are not of the same architectures, missing or not finite.
    """
    require(
        set(proxy) == set(truth) and len(truth) > 0, "proxy", sorted(proxy), f"of the architectures of the truth {sorted(truth)}"
    )
    for key, table in (("proxy", proxy), ("truth", truth)):
        for name, values in table.items():
            sound = len(values) > 0 and all(map(math.isfinite, values))
            require(sound, f"{key}.{name}", list(values), "one finite accuracy or more")
    require(all(0 < share <= 1 for share in shares), "shares", list(shares), "in (0, 1]")
    require(draws >= 1, "draws", draws, "at least 1")
    names = list(truth)
    a, b = _means(proxy, names), _means(truth, names)
    top = []
    for share in shares:
        count = min(len(b), max(LEAST_TOP, math.ceil(Fraction(str(share)) * len(b))))
        chosen = b >= np.sort(b)[-count]
        found = _correlations(a[chosen], b[chosen], draws, generator(seed, "rank correlation", int(chosen.sum())))
        top.append(replace(found, share=share))
    picked = a == a.max()
    pick = Pick(picked=float(b[picked].mean()), best=float(b.max()), mean=float(b.mean()))
    return RankCorrelation(
        all=_correlations(a, b, draws, generator(seed, "rank correlation", len(b))),
        top=tuple(top),
        picked=tuple(name for name, first in zip(names, picked, strict=True) if first),
        accuracy=pick,
        regret=max(0.0, pick.best - pick.picked),  # a mean of equal values may round up
    )


def _means(table: Mapping[str, Sequence[float]], names: Sequence[str]) -> np.ndarray:
    # Rounded, because equal means of different accuracies may differ in the last digit, and would then be no tie.
    return np.array([round(math.fsum(table[name]) / len(table[name]), 12) for name in names])


def _correlations(a: np.ndarray, b: np.ndarray, draws: int, chance: torch.Generator) -> Correlations:
    """ρ and τ_b of a and b, with intervals and p."""
    n = len(a)
    if n < 3:
        return Correlations(n=n, reason=f"{n} architectures are fewer than 3")
    if _constant(a) or _constant(b):
        return Correlations(n=n, reason=f"all architectures are equal by the {'proxy' if _constant(a) else 'truth'}")
    again = torch.randint(n, (draws, n), generator=chance).numpy()
    orders = torch.rand(draws, n, generator=chance).argsort(1).numpy()
    return Correlations(n=n, spearman=_measure(_spearman, a, b, again, orders), kendall=_measure(_kendall, a, b, again, orders))


def _measure(
    of_rows: Callable[[np.ndarray, np.ndarray], np.ndarray], a: np.ndarray, b: np.ndarray, again: np.ndarray, orders: np.ndarray
) -> Correlation:
    # A resample in which all are equal has no correlation.
    again = again[~(_constant(a[again]) | _constant(b[again]))]
    value = float(of_rows(a[None], b[None])[0])
    interval = tuple(percentiles(torch.from_numpy(of_rows(a[again], b[again])))) if len(again) else None
    drawn = of_rows(a[orders], np.broadcast_to(b, orders.shape))
    extreme = int((np.abs(drawn) >= abs(value) - 1e-12).sum())
    return Correlation(value=value, ci95=interval, p=(1 + extreme) / (1 + len(orders)))


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """ρ of every row of x with that of y."""
    from scipy.stats import rankdata

    x, y = (ranks - ranks.mean(1, keepdims=True) for ranks in (rankdata(x, axis=1), rankdata(y, axis=1)))
    found: np.ndarray = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return found.clip(-1, 1)


def _kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """τ_b of every row of x with that of y."""
    i, j = np.triu_indices(x.shape[1], 1)
    rows = max(1, PAIRS // len(i))
    found = []
    for start in range(0, len(x), rows):
        s, t = (np.sign(one[start : start + rows, i] - one[start : start + rows, j]) for one in (x, y))
        found.append((s * t).sum(1) / np.sqrt(np.abs(s).sum(1)) / np.sqrt(np.abs(t).sum(1)))
    return np.concatenate(found).clip(-1, 1)


def _constant(rows: np.ndarray) -> np.ndarray:
    """Whether all values of a row are equal."""
    same: np.ndarray = (rows == rows[..., :1]).all(-1)
    return same


def _column(rows: Mapping[str, Mapping[str, Sequence[Cell]]], name: str) -> dict[str, dict[str, list[float]]]:
    return {key: {network: [cell[name] for cell in row] for network, row in found.items()} for key, found in rows.items()}


def _check_names(names: Sequence[str], shape: tuple[int, int, int], num_classes: int) -> None:
    """Raise `UsageError` unless there are networks of these names for such images; of a user's own only the name is checked."""
    require(len(names) == len(set(names)) > 0, "names", list(names), "one architecture or several different ones")
    for name in names:
        check_network_name(name)
        if not is_foreign(name):
            with torch.device("meta"):
                build_network(name, *shape, num_classes)
