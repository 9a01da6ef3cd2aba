"""A map of features: N points in D dimensions as points of a plane.

PCA      the projection of the points less their mean on the two directions of the greatest variance, in float64; a coordinate's
         sign is such that its greatest value by size is positive
t-SNE    from the first 50 coordinates of PCA and, for its start, the first two: near points stay near, and nothing else is
         promised, neither distances between groups nor their sizes

L. van der Maaten and G. Hinton, "Visualizing Data using t-SNE", 2008. Computed by scikit-learn, by one thread, from a seed.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from limbeck.runtime.errors import require

FEWEST = 300  # points of t-SNE: fewer are no crowd to sort
KEPT, STEPS, PERPLEXITY = 50, 500, 30.0
START = 1e-4  # the deviation of t-SNE's first coordinates
BLOCK = 4096

Way = Literal["t-SNE", "PCA"]


@dataclass(frozen=True, eq=False)
class Embedding:
    """Coordinates float32 with shape (N, 2), how they were come by, and for PCA the share of the variance that they show."""

    points: Tensor
    way: Way
    share: float | None


def embed(features: Tensor, seed: int, *, most: Way = "t-SNE") -> Embedding:
    """The points in a plane: by t-SNE, or by PCA where there are fewer than `FEWEST` of them or that is asked for.

    Args:
        features: with shape (N, D), N ≥ 1.
        seed: of t-SNE, at most 32 bits of which count.
        most: what is asked for.

    Raises:
        UsageError: for other features.
    """
    wide, share = principal(features, KEPT)
    if most == "PCA" or len(features) < FEWEST:
        return Embedding(wide[:, :2].float(), "PCA", share)
    return Embedding(_tsne(wide, seed), "t-SNE", None)


def principal(features: Tensor, count: int) -> tuple[Tensor, float]:
    """The first `count` ≥ 2 coordinates of PCA, float64 with shape (N, count), and the share of the variance in the first two.

    Beyond the points' own dimensions coordinates are 0; points that are all equal have no variance, of which a share is 0.

    Raises:
        UsageError: for other features.
    """
    good = features.ndim == 2 and features.numel() > 0 and bool(features.isfinite().all())
    require(good, "features", tuple(features.shape), "finite, of shape (N, D), N ≥ 1 and D ≥ 1")
    features = features.detach().cpu()
    # By the products of points, of which there are few, not of dimensions, of which there may be many.
    products = torch.zeros(len(features), len(features), dtype=torch.float64)
    for part in features.split(BLOCK, dim=1):
        centred = part.double() - part.double().mean(0)
        products += centred @ centred.T
    values, vectors = torch.linalg.eigh(products)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    values[values <= 1e-12 * values[0]] = 0  # rounding
    found = torch.zeros(len(features), count, dtype=torch.float64)
    taken = min(count, len(values))
    found[:, :taken] = vectors[:, :taken] * values[:taken].sqrt()
    largest = found.gather(0, found.abs().argmax(0, keepdim=True))
    total = float(values.sum())
    return found * torch.where(largest < 0, -1.0, 1.0), float(values[:2].sum()) / total if total else 0.0


def _tsne(wide: Tensor, seed: int) -> Tensor:
    """The coordinates of t-SNE, float32 with shape (N, 2)."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    start = wide[:, :2] / wide[:, 0].std().clamp_min(1e-300) * START
    steps = "max_iter" if "max_iter" in TSNE().get_params() else "n_iter"  # before scikit-learn 1.5
    perplexity = min(PERPLEXITY, (len(wide) - 1) / 3)
    how = {"init": start.float().numpy(), "learning_rate": "auto", "random_state": seed % 2**32, "n_jobs": 1, steps: STEPS}
    with threadpool_limits(1):  # sums over threads round as they please
        found: np.ndarray = TSNE(perplexity=perplexity, **how).fit_transform(wide.float().numpy())
    return torch.from_numpy(found)
