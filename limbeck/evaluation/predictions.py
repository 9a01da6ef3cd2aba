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
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from limbeck.accuracy import Accuracy
from limbeck.evaluation.statistics import summarise
from limbeck.runtime.records import Record

BINS = 15
MOST_ROWS = 256  # classes whose confusion is kept, which has as many rows as columns
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
    right = torch.bincount(labels[(logits.argmax(1) == labels) & _finite(logits)], minlength=logits.shape[1]).tolist()
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


@dataclass(frozen=True, kw_only=True)
class Predictions(Record):
    """Everything above, of the networks of several seeds on the same images.

    Args:
        n: images.
        not_finite: images with a logit that is not finite, over all networks.
        confusion: its mean, K rows of K numbers; nothing of more than `MOST_ROWS` classes.
        accuracy: over the networks.
        top_5: likewise; None where K ≤ 5 (it would say nothing).
        calibration_error: over the networks that have finite logits; None without any, as the next two.
        negative_log_likelihood: likewise.
        brier_score: likewise.
        per_class: for each class an accuracy, or None for one without images.
    """

    n: int = 0
    not_finite: int = 0
    confusion: tuple[tuple[float, ...], ...] = ()
    accuracy: Accuracy | None = None
    top_5: Accuracy | None = None
    calibration_error: Accuracy | None = None
    negative_log_likelihood: Accuracy | None = None
    brier_score: Accuracy | None = None
    per_class: tuple[Accuracy | None, ...] = ()


def describe(networks: Sequence[Tensor], labels: Tensor) -> Predictions:
    """What the networks say.

    Args:
        networks: the logits of each, with shape (N, K).
        labels: with shape (N,).
    """
    if len({tuple(logits.shape) for logits in networks}) != 1:
        raise ValueError("predictions of at least one network, all on the same images and classes, are needed")
    for logits in networks:
        _checked(logits, labels)
    images, classes = networks[0].shape

    def over(measure: Callable[[Tensor, Tensor], float | None]) -> Accuracy | None:
        return _summary([measure(logits, labels) for logits in networks])

    return Predictions(
        n=images,
        not_finite=sum(images - int(_finite(logits).sum()) for logits in networks),
        confusion=_mean_confusion(networks, labels) if classes <= MOST_ROWS else (),
        accuracy=over(accuracy),
        top_5=over(partial(top_k, k=TOP)) if classes > TOP else None,
        calibration_error=over(calibration_error),
        negative_log_likelihood=over(negative_log_likelihood),
        brier_score=over(brier_score),
        per_class=tuple(map(_summary, zip(*(per_class_accuracy(one, labels) for one in networks), strict=True))),
    )


def _mean_confusion(networks: Sequence[Tensor], labels: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, torch.stack([confusion(one, labels) for one in networks]).double().mean(0).tolist()))


def _summary(values: Sequence[float | None]) -> Accuracy | None:
    measured = [value for value in values if value is not None]
    return summarise(measured) if measured else None


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
