"""How far apart classes lie in a network's feature space.

With f a network's features of image i of class a and j of class b, n_a images in class a and d a distance,

    between class means  D_ab = d(mean_i f_i, mean_j f_j)                     zero on the diagonal
    between points       D_ab = Σ_ij d(f_i, f_j) / (n_a n_b)                  a ≠ b
                         D_aa = Σ_{i≠j} d(f_i, f_j) / (n_a (n_a − 1))

d is Euclidean or 1 − cosine. For the latter the sums over pairs need no pairs: Σ_ij u_i·u_j = (Σ_i u_i)·(Σ_j u_j) for unit vectors.
The former are summed block by block. All sums are in float64. What is undefined (a class without images, or the diagonal of
a class with one) is NaN, and None in JSON.

K. Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios", 2024, arXiv:2410.17193.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from limbeck.distilled.view_labels import evaluating
from limbeck.networks.blocks import before_head
from limbeck.runtime.errors import require
from limbeck.runtime.memory import check_memory
from limbeck.runtime.records import Record
from limbeck.training.images import Images

Metric = Literal["euclidean", "cosine"]
BLOCK, FETCHED = 2048, 512
MOST_CLASSES, MOST_ROWS = 4096, 256  # that are compared, each with each, and whose distances are all kept
TINY = 1e-300


def features_of(module: nn.Module, x: Tensor, batch_size: int = 256) -> Tensor:
    """The features (N, D) of images: what the method `features` of the module gives, else the input of its last linear layer.

    The module is used in evaluation mode and left as it was.

    Args:
        module: a classifier. The last linear layer is the one that is run last.
        x: images as it takes them, with shape (N, C, H, W), N ≥ 1.
        batch_size: images at a time.

    Raises:
        UsageError: when the module has neither.
    """
    require(len(x) > 0, "x", tuple(x.shape), "one image or more")
    with evaluating(module), torch.no_grad():
        found = torch.cat([before_head(module, batch) for batch in x.detach().split(batch_size)])
    accepted = f"of a network whose features have shape ({len(x)}, D)"
    require(found.ndim == 2 and len(found) == len(x), "features", tuple(found.shape), accepted)
    return found


def features_in_parts(module: nn.Module, images: Images, setting: str) -> Tensor:
    """The features (N, D) of all images, on the CPU, which are fetched some at a time.

    Args:
        module: as for `features_of`.
        images: N of them.
        setting: the key that asks for them, and its value.

    Raises:
        UsageError: when they would not fit in the memory that is free.
    """
    first, *rest = torch.arange(len(images)).split(FETCHED)
    found = [features_of(module, images.fetch(first)).cpu()]
    size, what = 2 * 4 * len(images) * found[0].shape[1], f"holding {found[0].shape[1]} features of each of {len(images)} images"
    check_memory(size, found[0].device, setting, what, "a smaller data.size or a lower data.per_class takes less")
    return torch.cat(found + [features_of(module, images.fetch(index)).cpu() for index in rest])


def class_mean_distances(features: Tensor, classes: Tensor, num_classes: int, metric: Metric = "euclidean") -> Tensor:
    """Distances between the classes' mean features; float64 with shape (K, K), zero on the diagonal.

    A mean of zeros has cosine 0 with every other. Few images scatter their mean, which pushes means apart: by
    E‖m_a − m_b‖² = ‖μ_a − μ_b‖² + tr Σ_a / n_a + tr Σ_b / n_b. Compare sets of as many images per class.

    Args:
        features: finite, with shape (N, D).
        classes: integers in [0, K) with shape (N,).
        num_classes: K.
        metric: `euclidean` or `cosine`.

    Raises:
        UsageError: for other features, classes or metrics.
    """
    features, classes = _checked(features, classes, num_classes, metric)
    count, scale = torch.bincount(classes, minlength=num_classes).double(), _scale(features)
    sums = features.new_zeros(num_classes, features.shape[1], dtype=torch.float64)
    for part, ids in zip(features.split(BLOCK), classes.split(BLOCK), strict=True):
        sums.index_add_(0, ids, part.double() / scale)
    means = sums / count[:, None]
    if metric == "cosine":
        unit = _unit(means)
        distances = (1 - unit @ unit.T).clamp(0, 2)
    else:
        distances = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist") * scale
    defined = count > 0
    return distances.fill_diagonal_(0).where(defined[:, None] & defined, torch.nan)


def pointwise_distances(
    features: Tensor, classes: Tensor, num_classes: int, metric: Metric = "euclidean", block: int = BLOCK
) -> Tensor:
    """Mean distances between the images of every two classes, and within each; float64 with shape (K, K), symmetric.

    Euclidean distances come from |a|² + |b|² − 2 a·b around the common mean: those of equal images are 0 only to about 1e-7 of
    the features' spread. A feature of zeros has cosine 0 with every other.

    Args:
        features, classes, num_classes, metric: as for `class_mean_distances`.
        block: images whose distances to as many others are held at a time.

    Raises:
        UsageError: for other features, classes or metrics.
    """
    features, classes = _checked(features, classes, num_classes, metric)
    require(block >= 1, "block", block, "at least 1")
    sums = _cosine_sums if metric == "cosine" else _euclidean_sums
    count = torch.bincount(classes, minlength=num_classes).double()
    pairs = count[:, None] * count - count.diag()
    return torch.where(pairs > 0, sums(features, classes, num_classes, block) / pairs, torch.nan)


@dataclass(frozen=True, kw_only=True)
class Distances(Record):
    """The means off and on the diagonal of what is defined, and their quotient; None without any; the matrix, where it is said
    (`MOST_ROWS` classes)."""

    between: float | None
    within: float | None
    ratio: float | None
    matrix: tuple[tuple[float | None, ...], ...] = ()

    LEFT_OUT: ClassVar = ("matrix",)


@dataclass(frozen=True, kw_only=True)
class Kinds(Record):
    """Distances between class means, and between points."""

    class_means: Distances
    pointwise: Distances


@dataclass(frozen=True, kw_only=True)
class OfSet(Record):
    """The number of images of a set, and its distances by metric; of a change, which has no number, `images` is left out."""

    images: int | None = None
    euclidean: Kinds
    cosine: Kinds

    LEFT_OUT: ClassVar = ("images",)


@dataclass(frozen=True, kw_only=True)
class Separation(Record):
    """The distances of several sets side by side.

    Args:
        network: the features are of.
        num_classes: K.
        dimensions: D.
        sets: by name.
        change_percent: of every set but the first, by how much the figures exceed the first set's.
    """

    network: str
    num_classes: int
    dimensions: int
    sets: Mapping[str, OfSet]
    change_percent: Mapping[str, OfSet]


def summary(matrix: Tensor) -> Distances:
    """Of distances with shape (K, K), NaN where undefined."""
    require(matrix.ndim == 2 and len(matrix) == matrix.shape[1] > 0, "matrix", tuple(matrix.shape), "of shape (K, K)")
    same = torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)
    between, within = (_mean(matrix[where]) for where in (~same, same))
    ratio = between / within if between is not None and within else None
    return Distances(between=between, within=within, ratio=ratio)


def separation(sets: Mapping[str, tuple[Tensor, Tensor]], num_classes: int, *, network: str) -> Separation:
    """The distances of several sets side by side, such as the initial, the distilled and real test images.

    Distances between points are the ones to compare when sets differ in size; see `class_mean_distances`.

    Args:
        sets: name → features with shape (N, D), of the same network, and classes with shape (N,).
        num_classes: K.
        network: the network the features come from, in words: distances mean nothing without it.

    Raises:
        UsageError: when no network is named, there is no set, their D differ, or one is not as `pointwise_distances` takes it.
    """
    require(bool(network.strip()), "network", network, "the name of the network that the features come from")
    widths = {name: tuple(features.shape[1:]) for name, (features, _) in sets.items()}
    require(len(set(widths.values())) == 1, "sets", widths, "one set or more of features of the same network")
    found = {name: _distances(features, classes, num_classes) for name, (features, classes) in sets.items()}
    first, *others = found
    change = {
        name: OfSet(
            euclidean=_change(found[name].euclidean, found[first].euclidean),
            cosine=_change(found[name].cosine, found[first].cosine),
        )
        for name in others
    }
    (dimensions,) = widths[first]
    return Separation(network=network, num_classes=num_classes, dimensions=dimensions, sets=found, change_percent=change)


def to_json(matrix: Tensor) -> list[list[float | None]]:
    """The rows of a matrix, None where it is not defined."""
    return [[value if value == value else None for value in row] for row in matrix.tolist()]


def _distances(features: Tensor, classes: Tensor, num_classes: int) -> OfSet:
    def of(matrix: Tensor) -> Distances:
        return replace(summary(matrix), matrix=tuple(map(tuple, to_json(matrix))) if num_classes <= MOST_ROWS else ())

    def kinds(metric: Metric) -> Kinds:
        means = class_mean_distances(features, classes, num_classes, metric)
        return Kinds(class_means=of(means), pointwise=of(pointwise_distances(features, classes, num_classes, metric)))

    return OfSet(images=len(features), euclidean=kinds("euclidean"), cosine=kinds("cosine"))


def _change(new: Kinds, old: Kinds) -> Kinds:
    def percent(a: float | None, b: float | None) -> float | None:
        return 100 * (a / b - 1) if a is not None and b else None

    def of(a: Distances, b: Distances) -> Distances:
        between, within = percent(a.between, b.between), percent(a.within, b.within)
        return Distances(between=between, within=within, ratio=percent(a.ratio, b.ratio))

    return Kinds(class_means=of(new.class_means, old.class_means), pointwise=of(new.pointwise, old.pointwise))


def _euclidean_sums(features: Tensor, classes: Tensor, num_classes: int, block: int) -> Tensor:
    """Σ_ij ‖f_i − f_j‖ over the images of every two classes, with shape (K, K)."""
    scale = _scale(features)
    parts, ids = features.split(block), classes.split(block)
    centre = torch.stack([(part.double() / scale).sum(0) for part in parts]).sum(0) / len(features)
    total = centre.new_zeros(num_classes, num_classes)
    for i, rows in enumerate(parts):
        a = rows.double() / scale - centre
        for j in range(i, len(parts)):
            b = parts[j].double() / scale - centre
            distances = torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist")
            if i == j:
                distances.fill_diagonal_(0)  # an image and itself, otherwise 0 to rounding only
            by_row = total.new_zeros(num_classes, len(b)).index_add_(0, ids[i], distances)
            part_sums = torch.zeros_like(total).index_add_(1, ids[j], by_row)
            total += part_sums if i == j else 2 * part_sums
    return (total + total.T) * (scale / 2)  # blocks below the diagonal mirror those above


def _cosine_sums(features: Tensor, classes: Tensor, num_classes: int, block: int) -> Tensor:
    """Σ_ij (1 − cos(f_i, f_j)) over the images of every two classes, i ≠ j, with shape (K, K)."""
    sums = features.new_zeros(num_classes, features.shape[1], dtype=torch.float64)
    squares = sums.new_zeros(num_classes)
    for part, ids in zip(features.split(block), classes.split(block), strict=True):
        unit = _unit(part.double())
        sums.index_add_(0, ids, unit)
        squares.index_add_(0, ids, unit.square().sum(1))
    count = torch.bincount(classes, minlength=num_classes).double()
    cosines, pairs = sums @ sums.T - squares.diag(), count[:, None] * count - count.diag()
    return torch.minimum((pairs - cosines).clamp_min(0), 2 * pairs)


def _unit(vectors: Tensor) -> Tensor:
    """Every row over its length; a row of zeros stays."""
    # First over its greatest value: squares of huge or tiny numbers leave the range of floats.
    scaled = vectors / vectors.abs().amax(1, keepdim=True).clamp_min(TINY)
    lengths: Tensor = scaled.norm(dim=1, keepdim=True)
    return scaled / lengths.clamp_min(TINY)


def _scale(features: Tensor) -> Tensor:
    return features.abs().amax().double().clamp_min(TINY)


def _mean(values: Tensor) -> float | None:
    defined = values[~values.isnan()]
    return float(defined.mean()) if len(defined) else None


def _checked(features: Tensor, classes: Tensor, num_classes: int, metric: str) -> tuple[Tensor, Tensor]:
    """Features and classes, side by side on one device."""
    require(metric in get_args(Metric), "metric", metric, "euclidean or cosine")
    require(num_classes >= 1, "num_classes", num_classes, "at least 1")
    require(num_classes <= MOST_CLASSES, "num_classes", num_classes, f"at most {MOST_CLASSES}, as each is compared with each")
    good = features.ndim == 2 and features.numel() > 0 and features.is_floating_point()
    require(good, "features", tuple(features.shape), "of floats, of shape (N, D), N ≥ 1 and D ≥ 1")
    require(bool(features.isfinite().all()), "features", "a value that is NaN or infinite", "finite")
    shape = f"of shape ({len(features)},), one integer for every feature"
    good = classes.shape == features.shape[:1] and not (classes.is_floating_point() or classes.is_complex())
    require(good, "classes", f"{classes.dtype} {tuple(classes.shape)}", shape)
    low, high = int(classes.min()), int(classes.max())
    require(low >= 0 and high < num_classes, "classes", [low, high], f"within [0, {num_classes})")
    return features.detach(), classes.detach().long().to(features.device)
