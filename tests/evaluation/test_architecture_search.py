"""Rank correlations by hand, against plain loops and SciPy; the search with a training whose results are known."""

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from evaluation.layout import in_json
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation import architecture_search as module
from limbeck.evaluation.architecture_search import PUBLISHED, search_space
from limbeck.evaluation.fitting import Cell, Cells
from limbeck.networks.names import build_network
from limbeck.runtime.errors import UsageError
from limbeck.training.images import Images, TensorImages

search = in_json(module.search)
rank_correlation = in_json(module.rank_correlation)

Table = dict[str, list[float]]


def table(values: Sequence[float]) -> Table:
    return {f"n{i}": [float(value)] for i, value in enumerate(values)}


def correlation(a: Sequence[float], b: Sequence[float], **more: Any) -> dict[str, Any]:
    return rank_correlation(table(a), table(b), **{"draws": 20, **more})


def plain_ranks(values: Sequence[float]) -> list[float]:
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def plain_spearman(a: Sequence[float], b: Sequence[float]) -> float:
    x, y = plain_ranks(a), plain_ranks(b)
    middle = (len(a) + 1) / 2
    products = [math.fsum((p - middle) * (q - middle) for p, q in zip(u, v, strict=True)) for u, v in ((x, y), (x, x), (y, y))]
    return products[0] / math.sqrt(products[1] * products[2])


def plain_kendall(a: Sequence[float], b: Sequence[float]) -> float:
    def sign(x: float) -> int:
        return (x > 0) - (x < 0)

    pairs = [(sign(a[i] - a[j]), sign(b[i] - b[j])) for i, j in itertools.combinations(range(len(a)), 2)]
    return sum(s * t for s, t in pairs) / math.sqrt(sum(s * s for s, _ in pairs) * sum(t * t for _, t in pairs))


def test_correlations_of_a_worked_example() -> None:
    # Ranks 1 2 3 4 against 1 3 2 4: Σd² = 2, ρ = 1 − 6·2 / (4·15) = 0.8; of six pairs five agree, τ = (5 − 1) / 6.
    found = correlation([0.1, 0.2, 0.3, 0.4], [0.5, 0.7, 0.6, 0.8])["all"]
    assert found["spearman"]["value"] == pytest.approx(0.8)
    assert found["kendall"]["value"] == pytest.approx(2 / 3)


def test_ties_of_a_worked_example() -> None:
    # Ranks 1.5 1.5 3 against 1 2 3: ρ = 1.5 / √(1.5 · 2). Of three pairs one is tied in a, the others agree: τ_b = 2 / √(2 · 3).
    found = correlation([0.1, 0.1, 0.2], [0.1, 0.2, 0.3])["all"]
    assert found["spearman"]["value"] == pytest.approx(1.5 / math.sqrt(3))
    assert found["kendall"]["value"] == pytest.approx(2 / math.sqrt(6))


VALUES = st.integers(0, 6).map(lambda k: k / 7)
PAIRS = st.integers(3, 9).flatmap(
    lambda n: st.tuples(st.lists(VALUES, min_size=n, max_size=n), st.lists(VALUES, min_size=n, max_size=n))
)


@settings(deadline=None, max_examples=25)
@given(PAIRS)
def test_correlations_equal_loops_and_scipy(pair: tuple[list[float], list[float]]) -> None:
    a, b = pair
    found = correlation(a, b, draws=2)["all"]
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert (found["spearman"], found["kendall"]) == (None, None)
        assert "equal by the " + ("proxy" if len(set(a)) == 1 else "truth") in found["reason"]
        return
    assert found["reason"] is None
    assert found["spearman"]["value"] == pytest.approx(plain_spearman(a, b), abs=1e-12)
    assert found["kendall"]["value"] == pytest.approx(plain_kendall(a, b), abs=1e-12)
    assert found["spearman"]["value"] == pytest.approx(spearmanr(a, b)[0], abs=1e-12)
    assert found["kendall"]["value"] == pytest.approx(kendalltau(a, b)[0], abs=1e-12)


@settings(deadline=None, max_examples=10)
@given(PAIRS)
def test_a_monotone_map_of_the_proxy_changes_nothing(pair: tuple[list[float], list[float]]) -> None:
    a, b = pair
    found, mapped = (correlation(x, b, draws=5) for x in (a, [math.exp(3 * v) - 40 for v in a]))
    assert found == mapped
    turned = correlation([-v for v in a], b, draws=5)["all"]
    if found["all"]["spearman"]:
        for name in ("spearman", "kendall"):
            assert turned[name]["value"] == pytest.approx(-found["all"][name]["value"], abs=1e-12)
            assert turned[name]["p"] == found["all"][name]["p"]


def test_p_is_that_of_all_assignments() -> None:
    # Of the 24 orders of four only the same and the reverse have |ρ| = 1: p = 2 / 24; 4.5 standard deviations of 3000 draws.
    found = correlation(range(4), range(4), draws=3000, shares=())["all"]
    assert found["spearman"]["p"] == pytest.approx(1 / 12, abs=4.5 * math.sqrt(1 / 12 * 11 / 12 / 3000))
    assert found["kendall"]["p"] == found["spearman"]["p"]
    assert found["spearman"]["ci95"] == pytest.approx([1, 1])
    assert 0.3 < correlation([0, 1, 2], [0, 2, 1], draws=3000, shares=())["all"]["kendall"]["p"] <= 1  # all six have |τ| ≥ 1/3


def test_the_interval_holds_what_numpy_resamples() -> None:
    chance = torch.Generator().manual_seed(0)
    truth = torch.randn(40, generator=chance)
    proxy = truth + torch.randn(40, generator=chance)
    found = correlation(proxy.tolist(), truth.tolist(), draws=400)["all"]["spearman"]
    again = torch.randint(40, (400, 40), generator=chance).numpy()
    spread = torch.tensor([spearmanr(proxy.numpy()[i], truth.numpy()[i])[0] for i in again], dtype=torch.float64)
    assert found["ci95"] == pytest.approx(spread.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist(), abs=0.08)
    assert found["ci95"][0] < found["value"] < found["ci95"][1]
    assert found["p"] == 1 / 401


def test_the_top_is_the_best_of_the_truth() -> None:
    n = 60  # the proxy is right about the others and wrong about the best six
    proxy = [float(i) for i in range(54)] + [100.0 - i for i in range(6)]
    found = correlation(proxy, range(n), shares=(0.05, 0.1, 1.0))
    assert [(part["share"], part["n"]) for part in found["top"]] == [(0.05, 5), (0.1, 6), (1.0, 60)]
    assert [part["spearman"]["value"] for part in found["top"][:2]] == pytest.approx([-1, -1])
    assert found["top"][2]["spearman"]["value"] == found["all"]["spearman"]["value"] > 0.9


def test_ties_at_the_edge_of_the_top_all_count() -> None:
    assert correlation(range(8), [0.1, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9], shares=(0.1,))["top"][0]["n"] == 7


def test_the_pick_and_its_regret() -> None:
    found = correlation([0.3, 0.2, 0.1], [0.6, 0.9, 0.3])
    assert found["picked"] == ["n0"]
    assert found["accuracy"] == pytest.approx({"picked": 0.6, "best": 0.9, "mean": 0.6})
    assert found["regret"] == pytest.approx(0.3)
    tied = correlation([0.3, 0.3, 0.1], [0.6, 0.9, 0.3])
    assert tied["picked"] == ["n0", "n1"]
    assert tied["regret"] == pytest.approx(0.15)
    assert correlation([0.1, 0.2], [0.1, 0.2])["regret"] == 0


def test_equal_means_of_different_accuracies_tie() -> None:
    # 0.6 / 3 is 0.19999999999999998.
    found = rank_correlation({"a": [0.1, 0.2, 0.3], "b": [0.2], "c": [0.1]}, {"a": [0.1], "b": [0.2], "c": [0.3]}, draws=2)
    assert found["picked"] == ["a", "b"]


def test_two_architectures_have_no_correlation() -> None:
    found = correlation([0.1, 0.2], [0.1, 0.2])
    assert found["all"] == {"n": 2, "spearman": None, "kendall": None, "reason": "2 architectures are fewer than 3"}


def test_wrong_tables_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^proxy: \['n0'\] is not of the architectures of the truth \['n0', 'n1'\]"):
        rank_correlation(table([0.1]), table([0.1, 0.2]))
    with pytest.raises(UsageError, match=r"^proxy: \[\] is not"):
        rank_correlation({}, {})
    with pytest.raises(UsageError, match=r"^truth.n1: \[nan\] is not one finite accuracy or more"):
        correlation([0.1, 0.2], [0.1, math.nan])
    with pytest.raises(UsageError, match=r"^proxy.n0: \[\] is not one finite accuracy"):
        rank_correlation({"n0": []}, table([0.1]))
    with pytest.raises(UsageError, match=r"^shares: \[0\] is not in \(0, 1\]"):
        correlation([0.1], [0.1], shares=(0,))


def test_the_space_is_a_grid_of_networks() -> None:
    space = search_space()
    assert len(space) == len(set(space)) == 24
    assert space[0] == "ConvNetD1-w32-instancenorm-avgpool-relu"
    assert all(build_network(name, 3, 8, 8, 2) for name in space)
    assert len(search_space(**PUBLISHED)) == 4 * 4 * 4 * 3 * 3
    assert search_space(depths=(2, 2), widths=(8,), norms=("nonorm",), poolings=("nopool",)) == ["ConvNetD2-w8-nonorm-nopool-relu"]
    with pytest.raises(UsageError, match=r"^widths: \[\] is not one value or more"):
        search_space(widths=())
    with pytest.raises(UsageError, match=r"unknown part 'layernorm'"):
        search_space(norms=("layernorm",))


NAMES = search_space(depths=(1, 2), widths=(4, 8), norms=("nonorm",), poolings=("avgpool",))
TEST, LABELS = TensorImages(torch.zeros(10, 1, 8, 8)), torch.arange(10) % 2
CHOOSE, CHOICES = TensorImages(torch.zeros(4, 1, 8, 8)), torch.arange(4) % 2
SETS = {
    "distilled": SmallSet(torch.zeros(2, 1, 8, 8), torch.eye(2), torch.arange(2), 0.01, "logits"),
    "full": SmallSet.of_classes(torch.ones(6, 1, 8, 8), torch.arange(6) % 2, 2),
}


def with_right(labels: Tensor, right: int) -> Tensor:
    """Logits by which the first `right` images are classified rightly."""
    guesses = torch.where(torch.arange(len(labels)) < right, labels, 1 - labels)
    return torch.eye(2)[guesses]


class Known:
    """A training after which network i gets i + 2 images right on the full data, or 5 − i on the distilled, and i of `choose`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def __call__(self, network: str, small: SmallSet, *, seed: int, measure: Sequence[Images]) -> list[Tensor]:
        self.calls.append((network, seed))
        hard = small.kind == "hard"
        assert hard == bool(small.images.any())
        i = NAMES.index(network)
        found = [with_right(LABELS, i + 2 + seed if hard else 5 - i)]
        return found + [with_right(CHOICES, 3 - i if hard else i)] * (len(measure) - 1)


def test_search_trains_every_cell_and_compares() -> None:
    fit = Known()
    found = search(fit, SETS, NAMES, [0, 2], TEST, LABELS, draws=20)
    assert sorted(fit.calls) == sorted(2 * list(itertools.product(NAMES, [0, 2])))
    assert found["accuracy"]["full"] == {name: [(i + 2) / 10, (i + 4) / 10] for i, name in enumerate(NAMES)}
    assert found["accuracy"]["distilled"] == {name: [(5 - i) / 10] * 2 for i, name in enumerate(NAMES)}
    assert found["choice"] is None
    assert found["images"] == {"distilled": 2, "full": 6}
    assert list(found["proxies"]) == ["distilled"]
    proxy = found["proxies"]["distilled"]
    assert proxy["all"]["spearman"]["value"] == pytest.approx(-1)
    assert proxy["picked"] == [NAMES[0]]
    assert proxy["regret"] == pytest.approx(0.3)
    assert all(seconds >= 0 for seconds in found["seconds"].values())


def test_proxies_choose_on_the_images_kept_for_it() -> None:
    found = search(Known(), SETS, NAMES, [0], TEST, LABELS, choose=(CHOOSE, CHOICES), draws=20)
    assert found["choice"]["distilled"] == {name: [i / 4] for i, name in enumerate(NAMES)}
    assert found["accuracy"]["full"] == {name: [(i + 2) / 10] for i, name in enumerate(NAMES)}  # the truth is of the test images
    assert found["proxies"]["distilled"]["accuracy"]["picked"] == pytest.approx(0.5)


def test_search_goes_on_where_it_was() -> None:
    kept: dict[str, Cell] = {}
    whole = search(Known(), SETS, NAMES, [0, 1], TEST, LABELS, draws=20, cells=Cells(after=kept.__setitem__))
    assert len(kept) == 2 * 4 * 2
    assert sorted(kept)[0] == f"distilled/{NAMES[0]}/0"
    kept = json.loads(json.dumps(kept))
    lost = kept.pop(f"full/{NAMES[1]}/1")
    fit, new = Known(), {}
    again = search(fit, SETS, NAMES, [0, 1], TEST, LABELS, draws=20, cells=Cells(kept, new.__setitem__))
    assert fit.calls == [(NAMES[1], 1)]
    assert {key: cell["accuracy"] for key, cell in new.items()} == {f"full/{NAMES[1]}/1": lost["accuracy"]}
    assert again["accuracy"] == whole["accuracy"]
    assert again["proxies"] == whole["proxies"]
    json.dumps(again)


def test_a_diverged_network_scores_nothing() -> None:
    def diverged(*_: Any, measure: Sequence[Images], **__: Any) -> list[Tensor]:
        return [torch.full((len(images), 2), torch.nan) for images in measure]

    found = search(diverged, SETS, NAMES, [0], TEST, LABELS, draws=20)
    assert set(itertools.chain(*found["accuracy"]["full"].values())) == {0.0}
    assert found["proxies"]["distilled"]["all"]["reason"] == "all architectures are equal by the proxy"


def test_what_does_not_fit_is_refused_before_training() -> None:
    def check(message: str, **changed: Any) -> None:
        given = {"sets": SETS, "names": NAMES, "seeds": [0], "test": TEST, "labels": LABELS, **changed}
        with pytest.raises(UsageError, match=message):
            search(lambda *_, **__: pytest.fail("trained"), **given)

    check(r"^truth: 'full' is not one of the sets distilled", sets={"distilled": SETS["distilled"]})
    check(r"^names: \[\] is not", names=[])
    check(r"^names: .* several different", names=[NAMES[0]] * 2)
    check(r"^seeds: \[1, 1\] is not", seeds=[1, 1])
    check(r"^seeds: \[\] is not", seeds=[])
    check(r"halves the image 4 times", names=["ConvNetD4"])
    check(r"^network: 'Transformer' is not", names=["Transformer"])
    check(r"^test: \(10, 9\) is not", labels=LABELS[:9])
    check(r"^test: \[0, 1, 2\] is not labels in 0 … 1", labels=torch.arange(10) % 3)
    check(r"^choose: \(4, 3\) is not", choose=(CHOOSE, CHOICES[:3]))
    three = SmallSet.of_classes(torch.zeros(2, 1, 8, 8), torch.arange(2), 3)
    check(r"^distilled: 3 is not a set of 2 classes", sets={**SETS, "distilled": three})
