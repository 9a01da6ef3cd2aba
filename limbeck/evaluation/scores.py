"""Figures made of accuracies, all in [0, 1].

recovery ratio   accuracy of the distilled set / accuracy of the full data
lossless         mean of the distilled set ≥ mean of the full data − s,  s the standard deviation (n − 1) of the full data's
                 accuracies over their seeds
DD-Ranking       HLR = Acc(real, hard) − Acc(syn, hard)         IOR = Acc(syn, any) − Acc(random, any)
                 α = w · IOR − (1 − w) · HLR                    LRS = r(α)
                 β = γ · (Acc(syn) − Acc(random), augmented) + (1 − γ) · (the same, not augmented)
                 ARS = r(β),  r(x) = (eˣ − e⁻¹) / (e − e⁻¹)

Hard and any are the labels that networks are trained on: one-hot, or whatever the method's own protocol takes, which is then
the random real images' protocol too. r takes [−1, 1] to [0, 1], and 0 to 0.269: a set that is as good as random images and
no worse than real ones has that, not a half. Z. Li et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation",
2025, arXiv:2505.13300.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from limbeck.accuracy import Accuracies, Accuracy, percent
from limbeck.runtime.errors import require
from limbeck.runtime.records import Record

ROUNDING = 1e-12
FLOAT32, UINT8 = 4, 1  # bytes
MOST_RECOVERED = 1.1  # above which a recovery ratio speaks against its denominator
LEAST_GAP = 0.1  # from training to test images, below which nothing was promised that is not kept
FULL_DATA = "no measure: networks of the full data "
TRAINED_BY = "; eval.full_epochs, eval.full_lr and eval.full_batch_size say how they are trained"


def recovery_ratio(distilled_mean: float, full_mean: float) -> float | None:
    """Distilled accuracy / full-data accuracy, both in [0, 1]; None where the latter is 0.

    Raises:
        UsageError: when an accuracy is not in [0, 1]. So do all functions here.
    """
    _fractions(distilled_mean=distilled_mean, full_mean=full_mean)
    return distilled_mean / full_mean if full_mean else None


@dataclass(frozen=True, kw_only=True)
class Doubt(Record):
    """Why a figure beside the set's is no measure, or a check has checked nothing.

    Args:
        kind: `chance`, `below random`, `recovery`, `learnt by heart`: of the full data's networks; `few random`: there are not as
            many real images as the set would have beside it; `labels unchecked`: whether labels are permuted could not be told.
        text: a sentence.
        where: under which network or in which cells, where there are several.
    """

    kind: str
    text: str
    where: tuple[str, ...] = ()

    LEFT_OUT: ClassVar = ("where",)

    def __str__(self) -> str:
        """With how often it is so and two examples."""
        shown = ", ".join(self.where[:2]) + (f" and {len(self.where) - 2} more" if len(self.where) > 2 else "")
        return self.text + (f" ({shown})" if shown else "")


def joined(rows: Iterable[tuple[str, Iterable[Doubt]]]) -> tuple[Doubt, ...]:
    """One doubt of each kind, in the first one's words, with the names of all rows that have one."""
    of: dict[str, Doubt] = {}
    for name, held in rows:
        for one in held:
            before = of.setdefault(one.kind, replace(one, where=()))
            of[one.kind] = replace(before, where=(*before.where, name))
    return tuple(of.values())


def told(doubts: Iterable[Doubt]) -> list[str]:
    """Doubts as sentences: one of all that speaks against the full data in the same places."""
    of: dict[tuple[str, ...], list[Doubt]] = {}
    for number, one in enumerate(doubts):
        of.setdefault(one.where if one.text.startswith(FULL_DATA) else (str(number),), []).append(one)
    lines = []
    for held in of.values():
        first, rest = held[0], [one.text.removeprefix(FULL_DATA) for one in held]
        against = first.text.startswith(FULL_DATA)
        lines.append(str(replace(first, text=f"{FULL_DATA}{', '.join(rest)}{TRAINED_BY}") if against else first))
    return lines


def doubts(found: Accuracies, num_classes: int) -> tuple[Doubt, ...]:
    """What speaks against the full data's accuracy as the denominator of a recovery ratio: with f of the full data, a of the set,
    r of random images, t of the full data's networks on images that they were trained on, and c = 1/K

        f ≤ c           f < r           a > 1.1 f           f − c < (t − c) / 2  and  f < t − 0.1
    """
    full, chance = found.full, 1 / num_classes
    if not full.known:
        return ()
    said, trained = percent(full.mean), full.trained
    random, own = found.random, found.distilled
    far = trained is not None and full.mean - chance < (trained - chance) / 2 and full.mean < trained - LEAST_GAP
    cases = {
        "chance": (full.mean <= chance, f"are no better than chance ({said})"),
        "below random": (
            random.known and full.mean < random.mean,
            f"lose to a random subset of it ({said} against {percent(random.mean)})",
        ),
        "recovery": (
            own.known and full.mean > 0 and own.mean > MOST_RECOVERED * full.mean,
            f"lose to the set ({said} against {percent(own.mean)})",
        ),
        "learnt by heart": (far, f"know {percent(trained)} of their training images, but {said} of the test images"),
    }
    return tuple(Doubt(kind=kind, text=FULL_DATA + text) for kind, (holds, text) in cases.items() if holds)


@dataclass(frozen=True, kw_only=True)
class Seeds(Record):
    """Numbers of networks."""

    distilled: int | None = None
    full: int | None = None


@dataclass(frozen=True, kw_only=True)
class Lossless(Record):
    """Whether a distilled set is as good as the full data, to one standard deviation.

    Args:
        lossless: None where a single full-data seed has no spread to judge a lower mean by.
        distilled: the mean.
        full: that of the full data.
        std: of the full data's accuracies over seeds.
        std_note: what that is.
        floor: what the distilled mean must reach, or None.
        n: the numbers of seeds.
    """

    lossless: bool | None = None
    distilled: float
    full: float
    std: float | None = None
    std_note: str = "standard deviation (n - 1) of the full data's accuracies over seeds"
    floor: float | None = None
    n: Seeds = Seeds()


def lossless(distilled: Accuracy, full: Accuracy) -> Lossless:
    """The judgement of these accuracies."""
    _fractions(distilled=distilled.mean, full=full.mean)
    below, std = full.mean - distilled.mean, full.std
    return Lossless(
        lossless=True if below <= 0 else None if std is None else below <= std + ROUNDING,
        distilled=distilled.mean,
        full=full.mean,
        std=std,
        floor=None if std is None else full.mean - std,
        n=Seeds(distilled=distilled.n, full=full.n),
    )


@dataclass(frozen=True, kw_only=True)
class Amount(Record):
    """How much there is of a distilled set and of the real images; `labels` is the labels' part of `distilled`."""

    distilled: int
    labels: int | None = None
    real: int
    ratio: float

    LEFT_OUT: ClassVar = ("labels",)


@dataclass(frozen=True, kw_only=True)
class Compression(Record):
    """How much smaller a distilled set is than the real images; a ratio of bytes above 1 is possible."""

    images: Amount
    bytes: Amount


def compression(
    shape: tuple[int, int, int, int],
    label_numbers: int,
    real_images: int,
    real_shape: tuple[int, int, int],
    stored: int | None = None,
) -> Compression:
    """The sizes of a distilled set and of the real images.

    Args:
        shape: N, C, H, W of the distilled images, stored as float32 unless `stored` says otherwise.
        label_numbers: numbers stored as the label of one image, float32 as well: K for logits; 0 leaves labels out.
        real_images: how many.
        real_shape: C, H, W of those, stored as uint8; their labels are not counted.
        stored: bytes that the images are decoded from; None where they are stored as they are.

    Raises:
        ValueError: when a size is below 1, or `label_numbers` below 0.
    """
    if min(*shape, real_images, *real_shape) < 1 or label_numbers < 0:
        raise ValueError(f"sizes must be at least 1: {shape}, {label_numbers}, {real_images}, {real_shape}")
    labels = FLOAT32 * shape[0] * label_numbers
    size, real = (FLOAT32 * math.prod(shape) if stored is None else stored) + labels, UINT8 * real_images * math.prod(real_shape)
    return Compression(
        images=Amount(distilled=shape[0], real=real_images, ratio=shape[0] / real_images),
        bytes=Amount(distilled=size, labels=labels, real=real, ratio=size / real),
    )


@dataclass(frozen=True, kw_only=True)
class Ranking(Record):
    """DD-Ranking's label-robust score, and what it is made of; accuracies in [0, 1].

    Args:
        acc_real_hard: of the full data with hard labels.
        acc_syn_hard: of the distilled images with hard labels.
        acc_syn_any: of the distilled images with the method's own labels and protocol.
        acc_random_any: of as many random real images under that protocol.
        hlr, ior, w, alpha, lrs: as in the equations above.
    """

    acc_real_hard: float
    acc_syn_hard: float
    acc_syn_any: float
    acc_random_any: float
    hlr: float
    ior: float
    w: float
    alpha: float
    lrs: float


@dataclass(frozen=True, kw_only=True)
class Robustness(Record):
    """DD-Ranking's augmentation-robust score, and what it is made of; accuracies in [0, 1].

    Args:
        acc_syn_aug: of the distilled images, trained on with augmentation.
        acc_random_aug: of as many random real images, likewise.
        acc_syn_plain: of the distilled images without augmentation.
        acc_random_plain: of the random images, likewise.
        gain_aug, gain_plain: distilled less random.
        gamma, beta, ars: as in the equations above.
    """

    acc_syn_aug: float
    acc_random_aug: float
    acc_syn_plain: float
    acc_random_plain: float
    gain_aug: float
    gain_plain: float
    gamma: float
    beta: float
    ars: float


def ranking(acc_real_hard: float, acc_syn_hard: float, acc_syn_any: float, acc_random_any: float, w: float = 0.5) -> Ranking:
    """The label-robust score; `w`, the weight of IOR, is in [0, 1]."""
    accuracies = {
        "acc_real_hard": acc_real_hard,
        "acc_syn_hard": acc_syn_hard,
        "acc_syn_any": acc_syn_any,
        "acc_random_any": acc_random_any,
    }
    _fractions(**accuracies)
    require(0 <= w <= 1, "w", w, "in [0, 1]")
    hlr, ior = acc_real_hard - acc_syn_hard, acc_syn_any - acc_random_any
    alpha = w * ior - (1 - w) * hlr
    return Ranking(**accuracies, hlr=hlr, ior=ior, w=w, alpha=alpha, lrs=_rescaled(alpha))


def robustness(
    acc_syn_aug: float, acc_random_aug: float, acc_syn_plain: float, acc_random_plain: float, gamma: float = 0.5
) -> Robustness:
    """The augmentation-robust score; `gamma`, the weight of the gain with augmentation, is in [0, 1]."""
    accuracies = {
        "acc_syn_aug": acc_syn_aug,
        "acc_random_aug": acc_random_aug,
        "acc_syn_plain": acc_syn_plain,
        "acc_random_plain": acc_random_plain,
    }
    _fractions(**accuracies)
    require(0 <= gamma <= 1, "gamma", gamma, "in [0, 1]")
    augmented, plain = acc_syn_aug - acc_random_aug, acc_syn_plain - acc_random_plain
    beta = gamma * augmented + (1 - gamma) * plain
    return Robustness(**accuracies, gain_aug=augmented, gain_plain=plain, gamma=gamma, beta=beta, ars=_rescaled(beta))


def _rescaled(score: float) -> float:
    """r."""
    return (math.exp(score) - math.exp(-1)) / (math.exp(1) - math.exp(-1))


def _fractions(**accuracies: float) -> None:
    for name, value in accuracies.items():
        require(0 <= value <= 1, name, value, "in [0, 1] (a fraction, not a percentage)")
