"""Selection: real images that stand for their class, by the features φ(x) of a network. Nothing is optimised.

    random     a random permutation of the class's images
    herding    the next image brings the mean of the chosen nearest to the mean μ of the class:
                   x_{t+1} = argmin_x ‖φ(x) − ((t + 1) μ − Σ_{s ≤ t} φ(x_s))‖
    k-center   first the image nearest μ, then always the one farthest from those chosen:
                   x_{t+1} = argmax_x min_{s ≤ t} ‖φ(x) − φ(x_s)‖
    centres    for each of `ipc` centres of k-means, the largest cluster's first, the nearest image that is not taken
    moderate   with d = ‖φ(x) − μ‖, the images whose d is nearest to the median of d in the class, of an even number of images the
               lower of the two in the middle: neither typical nor far off

All but k-means are sequences: a larger `ipc` holds a smaller one's images. Equal distances are decided for the image that comes
first. Distances are summed in float64, to one point at a time and in pieces, so that beside the features only those of one class
are held, and a few pieces; k-means holds them in float64.

Welling, "Herding Dynamical Weights to Learn", 2009; Rebuffi, Kolesnikov, Sperl and Lampert, "iCaRL", 2017, arXiv:1611.07725.
Gonzalez, "Clustering to Minimize the Maximum Intercluster Distance", 1985; Sener and Savarese, "Active Learning for Convolutional
Neural Networks: A Core-Set Approach", 2018, arXiv:1708.00489. Xia et al., "Moderate Coreset: A Universal
Method of Data Selection for Real-world Data-efficient Deep Learning", 2023 (ICLR).
"""

import math
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from limbeck.runtime.errors import require
from limbeck.runtime.random import derived_seed, generator

PIECE = 2**20  # values in float64 at a time: 8 MiB, near what a cache holds
STARTS = 4  # of k-means, of which the best counts


def random_subset(labels: Tensor, ipc: int, seed: int) -> Tensor:
    """Random images.

    Args:
        labels: integers in 0 … K−1 with shape (N,), each class at least once.
        ipc: images per class.
        seed: of the draw.

    Returns:
        Positions in 0 … N−1, int64 with shape (K · ipc,), on the CPU, class by class.

    Raises:
        UsageError: when a class has fewer than `ipc` images.
    """
    chosen = []
    for k, members in enumerate(classes_of(labels, ipc)):
        chosen.append(members[torch.randperm(len(members), generator=generator(seed, "random selection", k))[:ipc]])
    return torch.cat(chosen)


def herding(features: Tensor, labels: Tensor, ipc: int) -> Tensor:
    """Images whose mean follows that of their class, in the order in which they are chosen.

    Args:
        features: φ, finite, with shape (N, D), on any device.
        labels, ipc: as for `random_subset`, which also has what is returned.

    Raises:
        UsageError: for features that are not finite or of another shape, and when a class has fewer than `ipc` images.
    """
    return _class_by_class(features, labels, ipc, lambda cloud, k: _herded(cloud, ipc))


def k_center(features: Tensor, labels: Tensor, ipc: int) -> Tensor:
    """Images that cover their class, the one nearest its mean first; arguments, result and errors as for `herding`."""
    return _class_by_class(features, labels, ipc, lambda cloud, k: _covering(cloud, ipc))


def centres(features: Tensor, labels: Tensor, ipc: int, seed: int) -> Tensor:
    """The images nearest to the centres of k-means in each class; arguments, result and errors as for `herding`.

    Args:
        seed: of the centres that k-means starts from.
    """
    return _class_by_class(features, labels, ipc, lambda cloud, k: _central(cloud, ipc, derived_seed(seed, "k-means", k)))


def moderate(features: Tensor, labels: Tensor, ipc: int) -> Tensor:
    """The images at a moderate distance from the mean of their class; arguments, result and errors as for `herding`."""
    return _class_by_class(features, labels, ipc, lambda cloud, k: _moderate(cloud, ipc))


class _Cloud:
    """The features of one class, divided by their greatest value, so that no square overflows."""

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.scale = float(features.abs().max()) or 1.0

    def pieces(self) -> Iterator[Tensor]:
        """All rows in order, float64, some at a time; the caller may change them."""
        for piece in self.features.split(max(1, PIECE // self.features.shape[1])):
            yield piece.double() / self.scale

    def mean(self) -> Tensor:
        """μ, float64 with shape (D,)."""
        total = sum((piece.sum(0) for piece in self.pieces()), start=torch.zeros((), dtype=torch.float64))
        return total / len(self.features)

    def row(self, number: int) -> Tensor:
        """φ of one image, float64 with shape (D,)."""
        return self.features[number].double() / self.scale

    def distances(self, point: Tensor) -> Tensor:
        """Squared distances of all images to a point (D,), float64 with shape (n,)."""
        return torch.cat([piece.sub_(point).square_().sum(1) for piece in self.pieces()])


def _class_by_class(features: Tensor, labels: Tensor, ipc: int, choose: Callable[[_Cloud, int], list[int]]) -> Tensor:
    """The positions that `choose` finds in every class."""
    accepted = f"of shape ({len(labels)}, D), a row for each of the labels"
    require(
        features.ndim == 2 and len(features) == len(labels) and features.numel() > 0, "features", tuple(features.shape), accepted
    )
    require(features.is_floating_point() and bool(features.isfinite().all()), "features", str(features.dtype), "finite numbers")
    chosen = []
    for k, members in enumerate(classes_of(labels, ipc)):
        cloud = _Cloud(features[members.to(features.device)])
        chosen.append(members[torch.tensor(choose(cloud, k))])
    return torch.cat(chosen)


def classes_of(labels: Tensor, ipc: int) -> list[Tensor]:
    """The positions of every class's images, ascending."""
    require(labels.ndim == 1 and len(labels) > 0, "labels", tuple(labels.shape), "of shape (N,), N ≥ 1")
    require(ipc >= 1, "ipc", ipc, "at least 1")
    labels = labels.cpu()
    found = [(labels == k).nonzero().flatten() for k in range(int(labels.max()) + 1)]
    for k, members in enumerate(found):
        require(ipc <= len(members), "ipc", ipc, f"at most the {len(members)} images of class {k}")
    return found


def _herded(cloud: _Cloud, ipc: int) -> list[int]:
    mean = cloud.mean()
    total, chosen = torch.zeros_like(mean), list[int]()
    for count in range(1, ipc + 1):
        chosen.append(_first(cloud.distances(count * mean - total), chosen))
        total += cloud.row(chosen[-1])
    return chosen


def _covering(cloud: _Cloud, ipc: int) -> list[int]:
    chosen = [int(cloud.distances(cloud.mean()).argmin())]
    nearest = cloud.distances(cloud.row(chosen[0]))
    while len(chosen) < ipc:
        chosen.append(_first(-nearest, chosen))
        nearest = torch.minimum(nearest, cloud.distances(cloud.row(chosen[-1])))
    return chosen


def _moderate(cloud: _Cloud, ipc: int) -> list[int]:
    distances = cloud.distances(cloud.mean()).sqrt()
    off = (distances - distances.median()).abs()
    found: list[int] = off.sort(stable=True).indices[:ipc].tolist()
    return found


def _central(cloud: _Cloud, ipc: int, seed: int) -> list[int]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    means = KMeans(ipc, n_init=STARTS, random_state=seed % 2**32)
    # Several threads add the images to a centre in whatever order they come.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of images that are equal: fewer clusters than centres
        clusters = torch.from_numpy(means.fit_predict(torch.cat(list(cloud.pieces())).cpu().numpy()))
    points = torch.from_numpy(means.cluster_centers_).to(cloud.features.device)
    by_size = torch.bincount(clusters.long(), minlength=ipc).sort(descending=True, stable=True).indices
    chosen = list[int]()
    for number in by_size.tolist():
        chosen.append(_first(cloud.distances(points[number]), chosen))
    return chosen


def _first(values: Tensor, taken: list[int]) -> int:
    """Where the least of the values is, the first of equal ones, without what is taken."""
    values[taken] = math.inf
    return int(values.argmin())
