"""Whether a network betrays which images its training set was made from.

The attacker sees the loss ℓ of an image under the network and calls the image a member of the training set where ℓ < c. With
the logits f, the class y and

    z = f_y − log Σ_{k≠y} exp f_k,        ℓ = −log softmax(f)_y = log(1 + e^{−z}),

that is z > t for some t; z is used, because ℓ of a well fitted image rounds to 0. The threshold t is that of highest accuracy
on the shadow half of members and non-members, and the accuracy is measured on the other half:

    accuracy   ½ (P(z > t | member) + P(z ≤ t | non-member))        balanced: ½ is chance, whatever the numbers
    AUC        P(z_member > z_other) + ½ P(z_member = z_other)      of all pairs, in closed form by ranks
    TPR        P(z > t' | member) with t' the lowest at which at most 1 % of the non-members have z > t'

Intervals are percentiles of a bootstrap over images, members and non-members apart, under a fixed network and threshold. At 0 and 1
the bootstrap sees no spread: ten of ten give [1, 1]. With fewer than 100 non-members the TPR is that without any false alarm.

S. Yeom, I. Giacomelli, M. Fredrikson and S. Jha, "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting",
2018, arXiv:1709.01604. TPR at a low FPR: N. Carlini et al., "Membership Inference Attacks From First Principles", 2022,
arXiv:2112.03570, whose attack, stronger than this one, compares with many networks for each image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from limbeck.accuracy import Accuracy
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.fitting import Cell, Cells, Fit, Network, check_measured, check_seeds, percentiles, right_share
from limbeck.evaluation.statistics import summarise
from limbeck.runtime.errors import require
from limbeck.runtime.random import generator
from limbeck.runtime.records import Record
from limbeck.training.images import Chosen, Images

FIGURES = ("accuracy", "auc", "tpr_at_1_fpr")
FALSE_ALARMS = 100  # one in so many
LIMIT = 1e300  # stands for infinity, so that a mean of two scores is a number


@dataclass(frozen=True, kw_only=True)
class Figure(Record):
    """A value with the ends of its 95 % interval."""

    value: float
    ci95: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Attack(Record):
    """How well the loss tells members from others.

    Args:
        members: m.
        others: n.
        accuracy: on the half that did not choose the threshold.
        auc: of all pairs.
        tpr_at_1_fpr: the true positive rate at a false positive rate of 1 %.
        threshold: c, the loss below which an image is called a member.
        member_accuracy: the network's own accuracy on members.
        other_accuracy: on the others.
    """

    members: int
    others: int
    accuracy: Figure
    auc: Figure
    tpr_at_1_fpr: Figure
    threshold: float
    member_accuracy: float
    other_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Attacks(Record):
    """Those on the networks of several seeds, and their figures over seeds."""

    seeds: tuple[Attack, ...]
    accuracy: Accuracy
    auc: Accuracy
    tpr_at_1_fpr: Accuracy


def membership(
    fit: Fit,
    network: Network,
    distilled: SmallSet,
    subsets: Sequence[Tensor],
    train: Images,
    train_labels: Tensor,
    test: Images,
    test_labels: Tensor,
    *,
    seeds: Sequence[int],
    most: int = 10_000,
    draws: int = 1000,
    cells: Cells = Cells(),
) -> dict[str, Attacks]:
    """Attack networks trained on the distilled set, on a random subset, and on all training images.

    By model: `distilled`, `random`, `random_own` (the same network; its members are the subset's own images) and `full`.

    In every seed equal numbers of training images (members) and test images (non-members) are drawn, the same for all networks.

    The attack takes whatever tells training from test images for membership. `random` is the control: that network has seen few
    of the members, so that an AUC off ½ there says that the two splits differ.

    Args:
        fit: the training.
        network: the architecture.
        distilled: the distilled set.
        subsets: positions in `train` of a random subset for each seed, int64 with shape (n,), n ≥ 2; as many images as the
            distilled set has make the comparison fair.
        train: the images that the distilled set was made from.
        train_labels: their classes, int64 with shape (N,).
        test: images of the same distribution that it was not made from.
        test_labels: their classes, int64 with shape (M,).
        seeds: one network of each kind per seed.
        most: members, and non-members, at most.
        draws: of the bootstrap.
        cells: results that are done, and where new ones go; keys are `training set/seed`.

    Raises:
        UsageError: for sets, seeds or images that do not fit together; before anything is trained.
    """
    num_classes = distilled.num_classes
    check_measured("train", train, train_labels, num_classes)
    check_measured("test", test, test_labels, num_classes)
    _check_subsets(subsets, seeds, len(train))
    count = min(len(train), len(test), most)
    require(count >= 2, "most", count, "at least 2, as the training and the test images must be")
    train_labels, test_labels = train_labels.cpu(), test_labels.cpu()

    def real(positions: Tensor) -> SmallSet:
        return SmallSet.of_classes(train.fetch(positions), train_labels[positions], num_classes)

    def cell(kind: str, seed: int, subset: Tensor) -> Cell:
        chance = generator(seed, "membership images")
        drawn, others = (torch.randperm(len(images), generator=chance)[:count] for images in (train, test))
        members = {"": drawn, "_own": subset} if kind == "random" else {"": drawn}
        makers: dict[str, Callable[[], SmallSet]] = {
            "distilled": lambda: distilled,
            "random": lambda: real(subset),
            "full": lambda: real(torch.arange(len(train))),
        }
        asked = [Chosen(test, others), *(Chosen(train, positions) for positions in members.values())]
        other, *found = fit(network, makers[kind](), seed=seed, measure=asked)
        return {
            kind + name: attack(
                logits, train_labels[positions], other, test_labels[others], generator(seed, "membership", kind + name), draws
            ).to_dict()
            for (name, positions), logits in zip(members.items(), found, strict=True)
        }

    kinds, pairs = ("distilled", "random", "full"), list(zip(seeds, subsets, strict=True))
    each = cells.all({f"{kind}/{seed}": partial(cell, kind, seed, subset.cpu()) for seed, subset in pairs for kind in kinds})
    rows = [{name: one for kind in kinds for name, one in each[f"{kind}/{seed}"].items()} for seed in seeds]
    models = {name: [Attack.from_dict(row[name]) for row in rows] for name in rows[0]}
    return {
        name: Attacks(seeds=tuple(found), **{key: summarise([getattr(one, key).value for one in found]) for key in FIGURES})
        for name, found in models.items()
    }


def attack(
    member_logits: Tensor,
    member_labels: Tensor,
    other_logits: Tensor,
    other_labels: Tensor,
    generator: torch.Generator,
    draws: int = 1000,
) -> Attack:
    """How well the loss tells members from others.

    Args:
        member_logits: of the members, with shape (m, K), m ≥ 2.
        member_labels: their classes, int64 with shape (m,).
        other_logits: of the non-members, with shape (n, K), n ≥ 2.
        other_labels: their classes, int64 with shape (n,).
        generator: of the halves and of the bootstrap.
        draws: of the bootstrap.

    Raises:
        UsageError: for logits and labels of other shapes.
    """
    members, others = margins("member", member_logits, member_labels), margins("other", other_logits, other_labels)
    require(draws >= 1, "draws", draws, "at least 1")
    shadow_members, left_members = _halves(members, generator)
    shadow_others, left_others = _halves(others, generator)
    threshold = best_threshold(shadow_members, shadow_others)
    called, cleared = (left_members > threshold).double(), (left_others <= threshold).double()
    distinct, place = torch.cat([members, others]).unique(return_inverse=True)
    places, size = place.split([len(members), len(others)]), len(distinct)

    def figures(chosen: Sequence[Tensor]) -> tuple[float, float, float]:
        """The three figures of the members, others, left members and left others at these positions."""
        counts = [at[index].bincount(minlength=size) for at, index in zip(places, chosen[:2], strict=True)]
        accuracy = (called[chosen[2]].mean() + cleared[chosen[3]].mean()) / 2
        return accuracy.item(), *_roc(counts[0], counts[1])

    sizes = [len(part) for part in (members, others, called, cleared)]
    values = figures([torch.arange(n) for n in sizes])
    spread = torch.tensor(
        [figures([torch.randint(n, (n,), generator=generator) for n in sizes]) for _ in range(draws)], dtype=torch.float64
    )
    found = zip(FIGURES, values, spread.T, strict=True)
    return Attack(
        members=len(members),
        others=len(others),
        **{name: Figure(value=value, ci95=tuple(percentiles(row))) for name, value, row in found},
        threshold=math.log1p(math.exp(-threshold)) if threshold > -700 else -threshold,
        member_accuracy=right_share(member_logits, member_labels),
        other_accuracy=right_share(other_logits, other_labels),
    )


def margins(key: str, logits: Tensor, labels: Tensor) -> Tensor:
    """z, float64 with shape (n,), on the CPU; a diverged network's count as the lowest, and ±∞ as ±1e300.

    Args:
        key: what the logits are called in messages.
        logits: with shape (n, K), n ≥ 2.
        labels: int64 with shape (n,), in 0 … K − 1.

    Raises:
        UsageError: for other shapes or labels.
    """
    shapes = (tuple(logits.shape), tuple(labels.shape))
    sound = logits.ndim == 2 and len(logits) >= 2 and logits.shape[1] >= 1 and labels.shape == logits.shape[:1]
    require(sound, f"{key}_logits", shapes, "logits with shape (n, K) and labels with shape (n,), n ≥ 2")
    low, high = int(labels.min()), int(labels.max())
    require(low >= 0 and high < logits.shape[1], f"{key}_labels", (low, high), f"in 0 … {logits.shape[1] - 1}")
    f, y = logits.detach().cpu().double(), labels.cpu()[:, None]
    z = f.gather(1, y)[:, 0] - f.scatter(1, y, -torch.inf).logsumexp(1)
    return z.nan_to_num(-LIMIT, LIMIT, -LIMIT).clamp(-LIMIT, LIMIT)


def best_threshold(members: Tensor, others: Tensor) -> float:
    """The t at which z > t tells these members and others apart best: of equally good ones the lowest.

    It lies midway between two neighbouring scores; where none beats chance it is the highest score.
    """
    distinct, place = torch.cat([members, others]).unique(return_inverse=True)
    parts = place.split([len(members), len(others)])
    m, n = (part.bincount(minlength=len(distinct)).cumsum(0) for part in parts)
    gain = n * len(members) - m * len(others)  # ∝ P(z ≤ t | other) − P(z ≤ t | member), t the distinct scores; exact in integers
    best = int(gain.argmax()) if bool((gain > 0).any()) else len(distinct) - 1
    above = min(best + 1, len(distinct) - 1)
    return float(distinct[best] / 2 + distinct[above] / 2)


def _check_subsets(subsets: Sequence[Tensor], seeds: Sequence[int], total: int) -> None:
    """Raise `UsageError` unless there are seeds and for each a subset of so many images."""
    check_seeds(seeds)
    require(len(subsets) == len(seeds), "subsets", len(subsets), f"{len(seeds)}, one for each seed")
    for subset in subsets:
        inside = len(subset) >= 2 and int(subset.min()) >= 0 and int(subset.max()) < total
        require(inside, "subsets", tuple(subset.shape), f"two or more positions in 0 … {total - 1}")


def _roc(members: Tensor, others: Tensor) -> tuple[float, float]:
    """AUC and TPR of so many members and others at each distinct score, in ascending order."""
    m, n = int(members.sum()), int(others.sum())
    above = n - others.cumsum(0)
    below = (n - above) - others.double() / 2  # others with a lower score and half of those with the same
    area = (members * below).sum().item() / (m * n)
    first = int((above <= n // FALSE_ALARMS).int().argmax())
    return area, members[first + 1 :].sum().item() / m


def _halves(scores: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random half, rounded down, and the rest."""
    shadow, left = scores[torch.randperm(len(scores), generator=generator)].tensor_split([len(scores) // 2])
    return shadow, left
