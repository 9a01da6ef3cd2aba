"""The complexity of images, classes and subsets (PAPER § 10).

    c_i = 100 (1 − |{p : M_ip ≥ τ}| / HW)      c_k = mean of c_i over the images of class k      c = mean of c_k over the classes

with M_i in [0, 1] the activation map of image i over H·W pixels p and τ = 0.5, all in percent: the smaller the area that speaks for
the class, the more complex the image.

K. Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios", 2024, arXiv:2410.17193.
"""

import numpy as np
from torch import Tensor

from limbeck.runtime.errors import UsageError, require


def complexity(maps: Tensor, threshold: float = 0.5) -> Tensor:
    """c_i of every map in percent; float64 with shape (N,).

    A map of zeros, of a network without a preference, has no active pixel and so the complexity 100, as published.

    Args:
        maps: in [0, 1] with shape (N, H, W).
        threshold: τ in (0, 1].

    Raises:
        UsageError: for other maps or thresholds.
    """
    require(0 < threshold <= 1, "threshold", threshold, "in (0, 1]")
    require(maps.ndim == 3 and maps.shape[1:].numel() > 0, "maps", tuple(maps.shape), "of shape (N, H, W) with H·W > 0")
    if not ((maps >= 0) & (maps <= 1)).all():
        raise UsageError("maps: hold values that are not in [0, 1]")
    # Compared in the maps' own precision, in which a value of 0.9 is not below 0.9.
    return 100 * (1 - (maps >= maps.new_tensor(threshold)).double().mean((1, 2)))


def class_means(values: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The mean over the images of each class, with shape (K, …); NaN for a class without any.

    Args:
        values: with shape (N, …); images whose value is NaN are left out.
        labels: int with shape (N,), in 0 … K−1.
        num_classes: K.
    """
    wide = values.astype(np.float64)
    known = np.isfinite(wide)
    sums, counts = (np.zeros((num_classes, *values.shape[1:])) for _ in range(2))
    np.add.at(sums, labels, np.where(known, wide, 0.0))
    np.add.at(counts, labels, known)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def subset_mean(classes: np.ndarray) -> float:
    """The mean over the classes that have a value, c; NaN where none has."""
    known = classes[np.isfinite(classes)]
    return float(known.mean()) if len(known) else float("nan")
