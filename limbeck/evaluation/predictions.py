"""What a network's logits f with shape (N, K) say of N images with labels y in {0, …, K − 1}.

p = softmax(f),  ŷ = argmax_k f_k (of equal logits the first class),  c = max_k p_k the confidence

    accuracy                     mean_i [ŷ_i = y_i]
    top k                        mean_i [fewer than k classes come before y_i]
    negative log-likelihood      −mean_i log p_{i, y_i}
    Brier score                  mean_i Σ_k (p_ik − [k = y_i])², in [0, 2]
    expected calibration error   Σ_m |B_m| / N · |accuracy of B_m − mean confidence of B_m|, in [0, 1],
                                 B_m the images with c in ((m − 1) / M, m / M], M = 15

C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599; G. W. Brier,
"Verification of forecasts expressed in terms of probability", 1950. A network that always says the same has no
calibration to speak of: read the error beside the Brier score.

An image with a logit that is not finite is wrong in every accuracy and in no column of the confusion matrix. It has no
probabilities, so that the last three figures are of the other images; their number is said.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from limbeck.evaluation.statistics import summarise

BINS = 15
TOP = 5


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share of images that are classified correctly.

    Args:
        logits: with shape (N, K), N and K at least 1.
        labels: with shape (N,), whole numbers in [0, K).

    Raises:
        ValueError: when the shapes do not fit together, there are no images, or a label is out of range. So do all functions here.
    """
    return top_k(logits, labels, 1)


def top_k(logits: Tensor, labels: Tensor, k: int) -> float:
    """The share of images whose class is among the `k` of highest logit, 1 ≤ k ≤ K."""
    logits, labels = _checked(logits, labels)
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"k must be in [1, {logits.shape[1]}], the number of classes, not {k}")
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1]) < labels[:, None]
    before = ((logits > own) | (logits == own) & earlier).sum(1)
    return float(((before < k) & _finite(logits)).double().mean())


def per_class_accuracy(logits: Tensor, labels: Tensor) -> list[float | None]:
    """The share of each class's images that are classified correctly; None for a class without images."""
    logits, labels = _checked(logits, labels)
    images = torch.bincount(labels, minlength=logits.shape[1]).tolist()
    right = confusion(logits, labels).diagonal().tolist()
    return [hits / count if count else None for hits, count in zip(right, images, strict=True)]


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Numbers of images, int64 with shape (K, K): rows are the true classes, columns ŷ."""
    logits, labels = _checked(logits, labels)
    classes, finite = logits.shape[1], _finite(logits)
    cells = labels * classes + logits.argmax(1)
    return torch.bincount(cells[finite], minlength=classes**2).reshape(classes, classes)


def calibration_error(logits: Tensor, labels: Tensor) -> float | None:
    """The expected calibration error over 15 bins of equal width; None without finite logits."""
    logits, labels = _sound(logits, labels)
    if not len(labels):
        return None
    confidence = logits.softmax(1).amax(1)
    # Of one bin |B| · |accuracy − confidence| is |Σ ([ŷ = y] − c)|.
    excess = (logits.argmax(1) == labels).double() - confidence
    inner = torch.arange(1, BINS, dtype=torch.double) / BINS
    sums = torch.zeros(BINS, dtype=torch.double).index_add(0, torch.bucketize(confidence, inner), excess)
    return float(sums.abs().sum() / len(labels))


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float | None:
    """−mean log p of the true class, in nats; None without finite logits."""
    logits, labels = _sound(logits, labels)
    return float(-logits.log_softmax(1).gather(1, labels[:, None]).mean()) if len(labels) else None


def brier_score(logits: Tensor, labels: Tensor) -> float | None:
    """The mean squared distance of the probabilities from the truth, in [0, 2]; None without finite logits."""
    logits, labels = _sound(logits, labels)
    if not len(labels):
        return None
    missed = logits.softmax(1)
    missed[torch.arange(len(labels)), labels] -= 1
    return float(missed.square().sum(1).mean())


CALIBRATION: dict[str, Callable[[Tensor, Tensor], float | None]] = {
    "calibration_error": calibration_error,
    "negative_log_likelihood": negative_log_likelihood,
    "brier_score": brier_score,
}


def describe(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Everything above, of one network, in JSON types.

    Args:
        logits: with shape (N, K).
        labels: with shape (N,).

    Returns:
        n; `not_finite`, the number of images with a logit that is not finite; accuracy; `top_5`, None where K ≤ 5 (it would
        say nothing); `per_class`, K accuracies or None; `confusion`, K lists of K numbers; `calibration_error`,
        `negative_log_likelihood` and `brier_score`, None without finite logits.
    """
    logits, labels = _checked(logits, labels)
    return {
        "n": len(labels),
        "not_finite": len(labels) - int(_finite(logits).sum()),
        "accuracy": accuracy(logits, labels),
        f"top_{TOP}": top_k(logits, labels, TOP) if logits.shape[1] > TOP else None,
        "per_class": per_class_accuracy(logits, labels),
        "confusion": confusion(logits, labels).tolist(),
        **{name: measure(logits, labels) for name, measure in CALIBRATION.items()},
    }


def average(described: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The results of `describe` for networks of several seeds, on the same images, as one.

    Returns:
        n; `not_finite`, over all networks; `confusion`, its mean; of accuracy, `top_5`, the three calibration figures and
        each entry of `per_class` the `summarise` of those that are not None, or None if all are.

    Raises:
        ValueError: when there are none, or their images or classes differ.
    """
    if len({(one["n"], len(one["per_class"])) for one in described}) != 1:
        raise ValueError("predictions of at least one network, all on the same images and classes, are needed")
    return {
        "n": described[0]["n"],
        "not_finite": sum(one["not_finite"] for one in described),
        "confusion": (torch.tensor([one["confusion"] for one in described]).double().mean(0)).tolist(),
        **{name: _summary([one[name] for one in described]) for name in ("accuracy", f"top_{TOP}", *CALIBRATION)},
        "per_class": [_summary(values) for values in zip(*(one["per_class"] for one in described), strict=True)],
    }


def _summary(values: Sequence[float | None]) -> dict[str, Any] | None:
    measured = [value for value in values if value is not None]
    return summarise(measured).to_dict() if measured else None


def _checked(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """On the CPU, the logits in float64."""
    if logits.ndim != 2 or 0 in logits.shape or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits (N, K) and labels (N,) of at least one image, not {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be whole numbers, not {labels.dtype}")
    logits, labels = logits.detach().cpu().double(), labels.detach().cpu().long()
    if not bool(((labels >= 0) & (labels < logits.shape[1])).all()):
        raise ValueError(f"labels must be in [0, {logits.shape[1]}), not {int(labels.min())} to {int(labels.max())}")
    return logits, labels


def _sound(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The images with finite logits alone, checked."""
    logits, labels = _checked(logits, labels)
    finite = _finite(logits)
    return logits[finite], labels[finite]


def _finite(logits: Tensor) -> Tensor:
    return logits.isfinite().all(1)
