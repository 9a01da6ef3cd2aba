"""Which of many features are nearest to each of some, by Euclidean distance."""

from typing import NamedTuple

import torch
from torch import Tensor

from limbeck.runtime.errors import require

BLOCK = 1024


class Nearest(NamedTuple):
    """The nearest ones of each query, the nearest first: `positions` int64 and `distances` float64, both with shape (Q, k)."""

    positions: Tensor
    distances: Tensor


def nearest(queries: Tensor, others: Tensor, count: int, *, apart: Tensor | None = None) -> Nearest:
    """The `count` nearest of `others` to each query, or all where there are fewer.

    Candidates come from |a|² + |b|² − 2 a·b around the common mean, in float64; their distances are those of the differences, so
    that equal features are at distance 0.

    Args:
        queries: with shape (Q, D).
        others: with shape (M, D), M ≥ 1, on the same device.
        count: at least 1.
        apart: for each query the position of one that does not count, such as itself; int64 with shape (Q,).

    Raises:
        UsageError: for other features, or where nothing is left to be near.
    """
    good = queries.ndim == others.ndim == 2 and queries.shape[1] == others.shape[1] > 0 and len(others) > (apart is not None)
    require(good, "features", [tuple(queries.shape), tuple(others.shape)], "of shapes (Q, D) and (M, D), with some to be near")
    require(count >= 1, "count", count, "at least 1")
    finite = bool(queries.isfinite().all()) and bool(others.isfinite().all())
    require(finite, "features", "a value that is NaN or infinite", "finite")
    count = min(count, len(others) - (apart is not None))
    centre = torch.stack([part.double().sum(0) for part in others.split(BLOCK)]).sum(0) / len(others)
    # One more than is asked for: rounding may exchange the last of them with the next.
    found = [_candidates(part.double() - centre, others, centre, count + 1, skip) for part, skip in _parts(queries, apart)]
    index = torch.cat(found) if found else torch.empty(0, count + 1, dtype=torch.int64)
    return _exact(queries, others, index, count)


def _parts(queries: Tensor, apart: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    """The queries, some at a time, each with what does not count."""
    skips = [None] * len(queries.split(BLOCK)) if apart is None else list(apart.to(queries.device).split(BLOCK))
    return list(zip(queries.split(BLOCK), skips, strict=True)) if len(queries) else []


def _candidates(a: Tensor, others: Tensor, centre: Tensor, count: int, skip: Tensor | None) -> Tensor:
    """The positions of the nearest `count`, with shape (Q, count), padded by the last where there are fewer."""
    squares, index = a.new_empty(len(a), 0), torch.empty(len(a), 0, dtype=torch.int64, device=a.device)
    for start, part in zip(range(0, len(others), BLOCK), others.split(BLOCK), strict=True):
        b = part.double() - centre
        here = torch.arange(start, start + len(b), device=a.device).expand(len(a), -1)
        near = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
        if skip is not None:
            near = near.masked_fill(here == skip[:, None], torch.inf)
        squares, index = torch.cat([squares, near], 1), torch.cat([index, here], 1)
        order = squares.sort(dim=1, stable=True).indices[:, :count]
        squares, index = squares.gather(1, order), index.gather(1, order)
    kept = squares.isfinite().sum(1, keepdim=True) - 1
    return index.gather(1, torch.arange(count, device=a.device).expand(len(a), -1).minimum(kept))


def _exact(queries: Tensor, others: Tensor, index: Tensor, count: int) -> Nearest:
    """The first `count` of the candidates by the distances of their differences."""
    index = index.sort(1).values  # of equally near candidates the first
    rows = zip(queries, index, strict=True)
    apart = [(others[near].double() - query.double()).norm(dim=1) for query, near in rows]
    distances = torch.stack(apart) if apart else index.double()
    distances[:, 1:][index[:, 1:] == index[:, :-1]] = torch.inf  # padding
    order = distances.sort(dim=1, stable=True).indices[:, :count]
    return Nearest(index.gather(1, order), distances.gather(1, order))
