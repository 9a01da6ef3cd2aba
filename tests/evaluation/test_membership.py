"""Membership inference by hand, against plain pairs, on networks that betray all or nothing, and on a real training."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from evaluation.layout import in_json
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import cross_entropy as torch_cross_entropy

from limbeck.augmentation import Dsa
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation import membership as module
from limbeck.evaluation.fitting import Cell, Cells
from limbeck.evaluation.membership import best_threshold, margins
from limbeck.losses import cross_entropy, soft_cross_entropy
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator
from limbeck.training import train as trainer
from limbeck.training.images import Images, TensorImages
from limbeck.training.optimisers import Sgd

membership = in_json(module.membership)
attack = in_json(module.attack)

FIGURES = ("accuracy", "auc", "tpr_at_1_fpr")


def logits_of_margins(z: Tensor) -> Tensor:
    """Two-class logits of images of class 1 whose z is this."""
    return torch.stack([torch.zeros_like(z), z], 1)


def ones(number: int) -> Tensor:
    return torch.ones(number, dtype=torch.int64)


def by_margins(members: Tensor, others: Tensor, seed: int = 0, draws: int = 50) -> dict[str, Any]:
    found = (logits_of_margins(members), ones(len(members)), logits_of_margins(others), ones(len(others)))
    return attack(*found, generator(seed, "attack"), draws)


def auc(members: torch.Tensor, others: torch.Tensor) -> float:
    """As the attack has it, from the counts at every distinct score."""
    distinct, place = torch.cat([members, others]).unique(return_inverse=True)
    counts = [part.bincount(minlength=len(distinct)) for part in place.split([len(members), len(others)])]
    return float(module._roc(counts[0], counts[1])[0])


def test_auc_of_a_worked_example() -> None:
    # Of the six pairs 3 > 1, 3 > 2, 2 > 1 are won, 2 = 2 is half, 1 = 1 is half, 1 < 2 is lost: 4 / 6.
    assert auc(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0])) == pytest.approx(4 / 6)


SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=9)


@given(SCORES, SCORES)
def test_auc_equals_all_pairs_and_scikit_learn(members: list[float], others: list[float]) -> None:
    found = auc(torch.tensor(members), torch.tensor(others))
    pairs = [(m > o) + (m == o) / 2 for m in members for o in others]
    assert found == pytest.approx(math.fsum(pairs) / len(pairs), abs=1e-12)
    assert found == pytest.approx(roc_auc_score([1] * len(members) + [0] * len(others), members + others), abs=1e-12)


@given(SCORES, SCORES)
def test_auc_is_that_of_ranks(members: list[float], others: list[float]) -> None:
    a, b = torch.tensor(members), torch.tensor(others)
    assert auc(a, b) == auc(a.exp() - 3, b.exp() - 3)
    assert auc(a, b) == pytest.approx(1 - auc(b, a), abs=1e-12)


@given(SCORES, SCORES)
def test_the_threshold_is_the_best(members: list[float], others: list[float]) -> None:
    def balanced(t: float) -> float:
        return (sum(m > t for m in members) / len(members) + sum(o <= t for o in others) / len(others)) / 2

    found = best_threshold(torch.tensor(members, dtype=torch.float64), torch.tensor(others, dtype=torch.float64))
    assert balanced(found) == pytest.approx(max(balanced(t) for t in [-9.0, *members, *others]), abs=1e-12)


def test_the_threshold_lies_midway() -> None:
    assert best_threshold(torch.tensor([4.0, 9.0]), torch.tensor([-1.0, 1.0])) == 2.5
    assert best_threshold(torch.tensor([1.0]), torch.tensor([1.0])) == 1.0


def test_margins_are_the_loss_and_do_not_saturate() -> None:
    logits = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 7
    z = margins("m", logits, labels)
    losses = torch_cross_entropy(logits.double(), labels, reduction="none")
    assert torch.allclose(torch.log1p((-z).exp()), losses, atol=1e-12)
    # In the loss these two are the same: 0.
    assert margins("m", torch.tensor([[90.0, 0.0], [91.0, 0.0]]), torch.tensor([0, 0])).tolist() == [90, 91]


def test_margins_of_what_is_no_number() -> None:
    wild = torch.tensor([[math.nan, 0], [0, math.inf], [math.inf, 0], [0, math.nan], [1e38, -3e38]])
    found = margins("m", wild, torch.tensor([0, 0, 0, 0, 0]))
    assert found[:4].tolist() == [-1e300, -1e300, 1e300, -1e300]
    assert found[4].item() == pytest.approx(4e38)
    assert margins("m", torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)).tolist() == [1e300, 1e300]  # one class: no doubt


def test_a_network_that_betrays_all() -> None:
    chance = torch.Generator().manual_seed(0)
    found = by_margins(5 + torch.rand(40, generator=chance), -torch.rand(300, generator=chance))
    assert all(found[name] == {"value": 1.0, "ci95": [1.0, 1.0]} for name in FIGURES)
    assert (found["members"], found["others"]) == (40, 300)
    assert math.log1p(math.exp(-5)) < found["threshold"] < math.log(2)
    assert (found["member_accuracy"], found["other_accuracy"]) == (1.0, 0.0)


def test_a_network_that_betrays_nothing() -> None:
    held = dict.fromkeys(FIGURES, 0)
    for seed in range(40):
        chance = torch.Generator().manual_seed(seed)
        found = by_margins(torch.randn(120, generator=chance), torch.randn(150, generator=chance), seed, 100)
        for name, chance_level in (("accuracy", 0.5), ("auc", 0.5)):
            low, high = found[name]["ci95"]
            held[name] += low <= chance_level <= high
            assert abs(found[name]["value"] - 0.5) < 0.16
    # At 95 %, fewer than 33 of 40 happen once in a thousand.
    assert min(held["accuracy"], held["auc"]) >= 33


def test_the_interval_of_auc_is_that_of_delong() -> None:
    chance = torch.Generator().manual_seed(3)
    members, others = torch.randn(150, generator=chance).double() + 1, torch.randn(200, generator=chance).double()
    found = by_margins(members, others, draws=2000)["auc"]
    wins = (members[:, None] > others).double()
    error = math.sqrt(wins.mean(1).var().item() / 150 + wins.mean(0).var().item() / 200)
    assert found["value"] == pytest.approx(wins.mean().item(), abs=1e-12)
    assert found["ci95"] == pytest.approx([found["value"] - 1.96 * error, found["value"] + 1.96 * error], abs=0.2 * error)


def test_true_positives_at_one_false_positive_in_a_hundred() -> None:
    others = torch.arange(200.0)  # two may be false alarms: t' = 197
    members = torch.tensor([100.0, 196.5, 197.0, 197.5, 300.0, 400.0])
    assert by_margins(members, others)["tpr_at_1_fpr"]["value"] == pytest.approx(3 / 6)
    # Of 99 none may be: t' = 98, and what equals it is no member.
    assert by_margins(torch.tensor([97.5, 98.0, 99.0]), others[:99])["tpr_at_1_fpr"]["value"] == pytest.approx(1 / 3)


def test_the_accuracy_is_of_the_half_that_did_not_choose() -> None:
    # Scores without meaning, as many as there are: the half that chooses finds a threshold above chance, the other half does not.
    found = [by_margins(*torch.randn(2, 12, generator=torch.Generator().manual_seed(seed)), seed, 1) for seed in range(400)]
    mean = math.fsum(one["accuracy"]["value"] for one in found) / 400
    assert abs(mean - 0.5) < 4.5 * math.sqrt(0.25 / 12 / 400)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=8), st.lists(st.integers(-3, 3), min_size=2, max_size=8))
def test_a_monotone_map_changes_no_figure(members: list[int], others: list[int]) -> None:
    a, b = torch.tensor(members).double(), torch.tensor(others).double()
    plain, mapped = by_margins(a, b, draws=5), by_margins(8 * a + 16, 8 * b + 16, draws=5)
    assert all(plain[name] == mapped[name] for name in FIGURES)


def test_a_diverged_network_betrays_nothing() -> None:
    nothing = torch.full((6, 3), math.nan)
    labels = torch.arange(6) % 3
    found = attack(nothing, labels, nothing, labels, generator(0, "a"), 10)
    assert (found["accuracy"]["value"], found["auc"]["value"], found["tpr_at_1_fpr"]["value"]) == (0.5, 0.5, 0.0)
    assert found["member_accuracy"] == 0.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_wrong_logits_are_refused() -> None:
    logits, labels = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
    for wrong in ((logits[:1], labels[:1]), (logits, labels[:3]), (logits[:, 0], labels)):
        with pytest.raises(UsageError, match=r"^member_logits: .* is not logits with shape \(n, K\)"):
            attack(*wrong, logits, labels, generator(0, "a"))
    with pytest.raises(UsageError, match=r"^other_labels: \(2, 2\) is not in 0 … 1"):
        attack(logits, labels, logits, labels + 2, generator(0, "a"))


# The pixel of a training image is its number, that of a test image −1 − its number.
TRAIN, TRAIN_LABELS = TensorImages(torch.arange(30.0)[:, None, None, None]), torch.arange(30) % 3
TEST, TEST_LABELS = TensorImages(-1 - torch.arange(20.0)[:, None, None, None]), torch.arange(20) % 3
DISTILLED = SmallSet(torch.full((3, 1, 1, 1), 0.5), torch.eye(3), torch.arange(3), 0.01, "logits")
SUBSETS = [torch.tensor([0, 4, 8]), torch.tensor([3, 7, 11])]


class Memoriser:
    """A training after which exactly the images trained on are classified rightly, and all others wrongly."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool, int]] = []
        self.asked: list[list[list[int]]] = []

    def __call__(self, network: str, small: SmallSet, *, seed: int, measure: Sequence[Images]) -> list[Tensor]:
        self.calls.append((len(small), small.kind == "hard", seed))
        pixels = [part.fetch(torch.arange(len(part))).flatten().long() for part in measure]
        self.asked.append([part.tolist() for part in pixels])
        trained = small.images.flatten().long() if small.kind == "hard" else torch.tensor([10_000])
        classes = [torch.where(part >= 0, part, -1 - part) % 3 for part in pixels]
        return [torch.eye(3)[torch.where(torch.isin(p, trained), k, (k + 1) % 3)] for p, k in zip(pixels, classes, strict=True)]


def run(fit: Any, **more: Any) -> dict[str, Any]:
    given = {"seeds": [5, 6], "draws": 20, **more}
    return membership(fit, "n", DISTILLED, SUBSETS, TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, **given)


def test_a_memoriser_is_found_out() -> None:
    fit = Memoriser()
    found = run(fit)
    assert list(found) == ["distilled", "random", "random_own", "full"]
    assert [found[name]["auc"]["mean"] for name in ("distilled", "random_own", "full")] == [0.5, 1.0, 1.0]
    assert [found[name]["accuracy"]["mean"] for name in ("distilled", "random_own", "full")] == [0.5, 1.0, 1.0]
    assert fit.calls == [(3, False, 5), (3, True, 5), (30, True, 5), (3, False, 6), (3, True, 6), (30, True, 6)]
    # Members and non-members are equally many, and the same for all networks of a seed.
    distilled, random, full = fit.asked[:3]
    assert distilled == full == random[:2]
    assert sorted(distilled[0]) == list(range(-20, 0))
    assert len(set(distilled[1])) == 20
    assert random[2] == [0, 4, 8]
    assert fit.asked[4][2] == [3, 7, 11]
    assert sorted(fit.asked[3][1]) != sorted(distilled[1])
    # Of the members drawn, those of the subset are found.
    for attacked, asked, subset in zip(found["random"]["seeds"], (fit.asked[1], fit.asked[4]), SUBSETS, strict=True):
        share = len(set(asked[1]) & set(subset.tolist())) / 20
        assert attacked["auc"]["value"] == pytest.approx(0.5 + share / 2)
        assert attacked["member_accuracy"] == pytest.approx(share)
    assert found["full"]["auc"]["n"] == 2
    json.dumps(found, allow_nan=False)


def test_at_most_so_many_are_asked() -> None:
    fit = Memoriser()
    run(fit, most=4)
    assert {len(part) for asked in fit.asked for part in asked[:2]} == {4}


def test_it_goes_on_where_it_was() -> None:
    kept: dict[str, Cell] = {}
    whole = run(Memoriser(), cells=Cells(after=kept.__setitem__))
    assert sorted(kept) == [f"{kind}/{seed}" for kind in ("distilled", "full", "random") for seed in (5, 6)]
    kept = json.loads(json.dumps(kept))
    del kept["random/6"]
    fit = Memoriser()
    assert run(fit, cells=Cells(kept)) == whole
    assert fit.calls == [(3, True, 6)]


def test_what_does_not_fit_is_refused_before_training() -> None:
    def check(message: str, **changed: Any) -> None:
        given = {
            "distilled": DISTILLED,
            "subsets": SUBSETS,
            "train": TRAIN,
            "train_labels": TRAIN_LABELS,
            "test": TEST,
            "test_labels": TEST_LABELS,
            "seeds": [0, 1],
            **changed,
        }
        with pytest.raises(UsageError, match=message):
            membership(lambda *_, **__: pytest.fail("trained"), "n", **given)

    check(r"^subsets: 1 is not 2, one for each seed", subsets=SUBSETS[:1])
    check(r"^subsets: \(1,\) is not two or more positions", subsets=[torch.tensor([0])] * 2)
    check(r"^subsets: .* positions in 0 … 29", subsets=[torch.tensor([0, 30])] * 2)
    check(r"^train: \(30, 29\) is not", train_labels=TRAIN_LABELS[:29])
    check(r"^test: \[0, 1, 2, 3\] is not labels in 0 … 2", test_labels=torch.arange(20) % 4)
    check(r"^most: 1 is not at least 2", most=1)
    check(r"^seeds: \[3, 3\] is not", seeds=[3, 3])


def test_a_network_fitted_to_noise_betrays_its_images_and_no_others() -> None:
    """Random images with random labels can only be learned by heart."""
    chance = torch.Generator().manual_seed(0)
    images = TensorImages(torch.randn(120, 1, 4, 4, generator=chance))
    labels = torch.randint(3, (120,), generator=chance)
    test, test_labels = TensorImages(torch.randn(120, 1, 4, 4, generator=chance)), torch.randint(3, (120,), generator=chance)

    def fit(network: str, small: SmallSet, *, seed: int, measure: Sequence[Images]) -> list[Tensor]:
        flat = flat_network(network, (1, 4, 4), small.num_classes)
        how = trainer.Training(
            optimiser=Sgd(0.05, 0.9, 0.0),
            loss=cross_entropy if small.kind == "hard" else soft_cross_entropy,
            epochs=60,
            batch_size=30,
            augment=Dsa("none"),
        )
        start = flat.initial(generator(seed, "start"))
        theta = trainer.train(flat, start, TensorImages(small.images), small.labels, how, seed=seed, key=("fit",))
        return [trainer.logits_of(flat.with_parameters(theta), part) for part in measure]

    images_of_noise = torch.randn(30, 1, 4, 4, generator=chance)
    distilled = SmallSet(images_of_noise, 3 * torch.eye(3).repeat(10, 1), torch.arange(3).repeat(10), 0.01, "logits")
    subset = [torch.randperm(120, generator=chance)[:30]]
    found = membership(
        fit, "ConvNetD1-w16-nonorm-nopool", distilled, subset, images, labels, test, test_labels, seeds=[0], draws=200
    )
    assert found["random_own"]["auc"]["mean"] > 0.8
    assert found["random_own"]["accuracy"]["mean"] > 0.7
    low, high = found["distilled"]["seeds"][0]["auc"]["ci95"]
    assert low < 0.5 < high
    assert found["full"]["seeds"][0]["auc"]["ci95"][0] > 0.55
