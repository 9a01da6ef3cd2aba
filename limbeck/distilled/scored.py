"""Selection by how difficult images are: a score s(x) for each of them, a class at a time. Nothing is optimised.

    ranked       the images of highest s, as EL2N and forgetting events are meant; or of lowest, the easiest
    stratified   CCS: without the share β of highest s, the rest is cut into bins of equal width between its least and greatest s,
                 and the budget m is dealt out to the b bins that are not empty, the one with fewest images first:
                     min(|bin|, ⌊m / b⌋) random images of it, and on with what is left of m for b − 1 bins

Of equal scores, which are common among counts, a draw of the seed decides. β leaves `ipc` images in any case.

Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples Early in Training", 2021, arXiv:2107.07075
(EL2N). Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning", 2019, arXiv:1812.05159.
Zheng, Liu, Lai and Prakash, "Coverage-centric Coreset Selection for High Pruning Rates", 2023, arXiv:2210.15809 (CCS), which
stratifies all images together; here every class has as many, as distilled sets have with which these are compared.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from limbeck.distilled.selection import classes_of
from limbeck.runtime.errors import require
from limbeck.runtime.random import generator

Keep = Literal["hardest", "easiest"]


def ranked(scores: Tensor, labels: Tensor, ipc: int, seed: int, keep: Keep = "hardest") -> Tensor:
    """The images of highest score, or of lowest, in that order.

    Args:
        scores: s, not NaN, with shape (N,).
        labels, ipc: as for `selection.random_subset`, which also has what is returned.
        seed: of the draw that decides between equal scores.
        keep: which end is taken.

    Raises:
        UsageError: for scores that are NaN or of another shape, and when a class has fewer than `ipc` images.
    """
    held = _checked(scores, labels)
    return torch.cat([_in_order(held, members, seed, k, keep)[:ipc] for k, members in enumerate(classes_of(labels, ipc))])


def stratified(scores: Tensor, labels: Tensor, ipc: int, seed: int, beta: float = 0.3, bins: int = 50) -> Tensor:
    """CCS's images; arguments, result and errors as for `ranked`.

    Args:
        scores: s, finite, with shape (N,).
        beta: the share of a class's hardest images that is never taken, in [0, 1), rounded down.
        bins: of equal width.
    """
    held, chosen = _checked(scores, labels), list[Tensor]()
    infinite = held[held.isinf()].tolist()
    require(not infinite, "scores", next(iter(infinite), None), "finite numbers, whose span can be cut into bins")
    for k, members in enumerate(classes_of(labels, ipc)):
        order = _in_order(held, members, seed, k, "easiest")
        order = order[: max(ipc, len(order) - math.floor(beta * len(order) + 1e-9))]
        chosen.append(_dealt(_binned(held[order], bins), order, ipc, seed, k))
    return torch.cat(chosen)


def _checked(scores: Tensor, labels: Tensor) -> Tensor:
    """The scores in float64, on the CPU."""
    require(scores.shape == labels.shape, "scores", tuple(scores.shape), f"of shape {tuple(labels.shape)}, one for each label")
    held = scores.double().cpu()
    require(not bool(held.isnan().any()), "scores", "NaN", "numbers")
    return held


def _in_order(scores: Tensor, members: Tensor, seed: int, k: int, keep: Keep) -> Tensor:
    """The positions of a class, that of the highest or the lowest score first."""
    shuffled = members[torch.randperm(len(members), generator=generator(seed, "equal scores", k))]
    return shuffled[scores[shuffled].sort(descending=keep == "hardest", stable=True).indices]


def _binned(scores: Tensor, bins: int) -> Tensor:
    """The bin of every score, int64; the greatest score is in the last one."""
    low, high = scores.min(), scores.max()
    if low == high:
        return torch.zeros(len(scores), dtype=torch.int64)
    return ((scores - low) / (high - low) * bins).floor().long().clamp_max(bins - 1)


def _dealt(bins: Tensor, positions: Tensor, budget: int, seed: int, k: int) -> Tensor:
    """`budget` of the positions, dealt out to their bins; of bins with equally many images the easier one comes first."""
    held = [positions[bins == number] for number in bins.unique()]
    held.sort(key=len)
    draws, chosen = generator(seed, "strata", k), list[Tensor]()
    for number, some in enumerate(held):
        count = min(len(some), budget // (len(held) - number))
        chosen.append(some[torch.randperm(len(some), generator=draws)[:count]])
        budget -= count
    return torch.cat(chosen)
