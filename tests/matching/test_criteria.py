"""Common Pattern Dropout and its rivals against plain loops."""

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import criteria as plain
from reference.matching import matching_gradient, matching_loss

from limbeck.matching.criteria import (
    Criterion,
    HighLossDropout,
    KeepAll,
    LayerDropout,
    LowLossDropout,
    RandomDropout,
    UniformDropout,
    layers_of,
)
from limbeck.matching.distances import MatchingLoss
from limbeck.networks.flat import flat_network
from limbeck.runtime.random import generator

# A coarse grid, so that equal losses occur.
numbers = st.integers(-4, 4).map(lambda value: value / 4)
triples = st.lists(st.tuples(numbers, numbers, numbers), min_size=2, max_size=40)


@given(triples, st.sampled_from([0.0, 0.125, 0.25, 0.375, 0.5, 0.9]))
def test_loss_and_gradient_equal_the_loops(rows: list[tuple[float, float, float]], drop_ratio: float) -> None:
    # The last parameter has the largest loss and a distance, so that the fraction is never 0/0.
    theta, start, target = (list(column) for column in zip(*rows, (9.0, 1.0, 0.0), strict=True))
    leaf = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    loss = MatchingLoss(
        torch.tensor(start, dtype=torch.float64), torch.tensor(target, dtype=torch.float64), LowLossDropout(drop_ratio)
    )
    value = loss(leaf)
    expected, kept = matching_loss(theta, start, target, drop_ratio)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert loss.kept is not None
    assert loss.kept.tolist() == kept
    (gradient,) = torch.autograd.grad(value, leaf)
    assert gradient.tolist() == pytest.approx(matching_gradient(theta, start, target, drop_ratio), rel=1e-12, abs=1e-15)


def test_nothing_dropped_is_the_plain_loss() -> None:
    theta, start, target = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = ((theta - target) ** 2).sum() / ((start - target) ** 2).sum()
    for criterion in (KeepAll(), LowLossDropout(0.0)):
        assert MatchingLoss(start, target, criterion)(theta).item() == pytest.approx(whole.item(), rel=1e-14)


def test_the_kept_set_is_chosen_once() -> None:
    loss = MatchingLoss(torch.zeros(4), torch.ones(4), LowLossDropout(0.5))
    loss(torch.tensor([1.0, 1.0, 3.0, 4.0]))
    assert loss(torch.tensor([3.0, 4.0, 1.0, 1.0])).item() == 0.0  # only the last two count, and they are met now


def dropped_by(criterion: Criterion, losses: list[float], slices: dict[str, slice] | None = None, seed: int = 0) -> set[int]:
    values = torch.tensor(losses, dtype=torch.float64)
    mask = criterion.keep(values, layers=layers_of(slices or {}), generator=generator(seed))
    assert mask.dtype == torch.bool
    return {p for p, kept in enumerate(mask.tolist()) if not kept}


def slices_of(sizes: list[int]) -> dict[str, slice]:
    """Layers of those sizes: every second one has a weight and a bias."""
    found, start = {}, 0
    for layer, size in enumerate(sizes):
        parts = [("weight", size)] if layer % 2 or size == 1 else [("weight", size - 1), ("bias", 1)]
        for name, part in parts:
            found[f"blocks.{layer}.{name}"] = slice(start, start + part)
            start += part
    return found


ratios = st.sampled_from([0.01, 0.1, 0.125, 0.25, 0.29, 0.5, 0.75, 0.99])
layer_sizes = st.lists(st.integers(1, 20), min_size=1, max_size=7)


@given(st.lists(numbers, max_size=40), ratios, st.sampled_from(["low", "high"]))
def test_loss_drops_the_lowest_or_the_highest(losses: list[float], ratio: float, side: Literal["low", "high"]) -> None:
    criterion = LowLossDropout(ratio) if side == "low" else HighLossDropout(ratio)
    assert dropped_by(criterion, losses) == plain.by_loss(losses, ratio, side)


@given(layer_sizes, ratios, st.sampled_from(["first", "middle", "last"]))
def test_layers_go_whole_and_the_last_of_them_in_part(
    sizes: list[int], ratio: float, where: Literal["first", "middle", "last"]
) -> None:
    assert dropped_by(LayerDropout(ratio, where), [0.0] * sum(sizes), slices_of(sizes)) == plain.by_depth(sizes, ratio, where)


def test_layers_of_a_convnet_are_dropped_as_wholes() -> None:
    """ConvNetD2-w4 on 8×8 images has layers of 112, 8, 148, 8 and 34 parameters."""
    network = flat_network("ConvNetD2-w4", (3, 8, 8), 2)
    losses = torch.zeros(network.num_parameters)

    def dropped(where: Literal["first", "middle", "last"], ratio: float) -> dict[str, int]:
        mask = LayerDropout(ratio, where).keep(losses, layers=layers_of(network.slices))
        return {name: count for name, part in network.slices.items() if (count := int((~mask[part]).sum()))}

    assert [layer.stop - layer.start for layer in layers_of(network.slices)] == [112, 8, 148, 8, 34]
    first = {"blocks.0.0.weight": 108, "blocks.0.0.bias": 4, "blocks.0.1.weight": 4, "blocks.0.1.bias": 4}
    assert dropped("first", 120 / 310) == first
    assert dropped("middle", 0.25) == {"blocks.1.0.weight": 77}
    assert dropped("last", 42 / 310) == {
        "blocks.1.1.weight": 4,
        "blocks.1.1.bias": 4,
        "classifier.weight": 32,
        "classifier.bias": 2,
    }


@given(st.integers(1, 60), ratios, st.integers(0, 1000))
def test_random_drops_the_share_by_its_generator(count: int, ratio: float, seed: int) -> None:
    first, second = (dropped_by(RandomDropout(ratio), [0.0] * count, seed=seed) for _ in range(2))
    assert first == second
    assert len(first) == plain.share(ratio, count)


def test_random_drops_every_parameter_equally_often() -> None:
    counts = [0] * 8
    for seed in range(2000):
        for p in dropped_by(RandomDropout(0.25), [float(p) for p in range(8)], seed=seed):
            counts[p] += 1
    assert all(abs(count - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5 for count in counts)


@given(layer_sizes, ratios, st.integers(0, 1000))
def test_uniform_drops_the_same_share_of_every_layer(sizes: list[int], ratio: float, seed: int) -> None:
    criterion, losses, slices = UniformDropout(ratio), [0.0] * sum(sizes), slices_of(sizes)
    found = dropped_by(criterion, losses, slices, seed)
    assert found == dropped_by(criterion, losses, slices, seed)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    per_layer = [sum(start <= p < start + size for p in found) for start, size in zip(starts, sizes, strict=True)]
    assert per_layer == [plain.share(ratio, size) for size in sizes]


def test_uniform_chooses_by_chance_within_a_layer() -> None:
    slices = slices_of([2, 4])
    found = {frozenset(dropped_by(UniformDropout(0.5), [0.0] * 6, slices, seed)) for seed in range(200)}
    assert found == {frozenset({a, b, c}) for a in (0, 1) for b in (2, 3, 4, 5) for c in (2, 3, 4, 5) if b != c}


def test_layers_that_are_not_those_of_the_loss_are_noticed() -> None:
    for criterion in (UniformDropout(0.5), LayerDropout(0.5)):
        with pytest.raises(AssertionError, match="3 parameters do not make up the 4"):
            criterion.keep(torch.zeros(4), layers=[slice(0, 3)], generator=generator(0))
