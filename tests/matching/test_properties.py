"""What every criterion, distance and weighting has in common, on one list of them all."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from limbeck.matching.criteria import (
    Criterion,
    HighLossDropout,
    KeepAll,
    LayerDropout,
    LowLossDropout,
    RandomDropout,
    UniformDropout,
)
from limbeck.matching.distances import Distance, LayerCosine, SquaredError
from limbeck.saliency.weights import Activation, Constant, NoWeighting, Shuffled, Weighting

LAYERS = [slice(0, 8), slice(8, 12), slice(12, 20)]
COUNT = 20
Made = Callable[[float], Criterion]
CRITERIA: dict[str, Made] = {
    "all": lambda _: KeepAll(),
    "low": LowLossDropout,
    "high": HighLossDropout,
    "random": RandomDropout,
    "uniform": UniformDropout,
    **{where: lambda ratio, where=where: LayerDropout(ratio, where) for where in ("first", "middle", "last")},
}
DISTANCES: list[Distance] = [SquaredError(), LayerCosine()]
WEIGHTINGS: list[Weighting] = [NoWeighting(), Activation(1.5), Constant(1.5), Shuffled(1.5)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def keep(criterion: Criterion, losses: Tensor, seed: int = 0) -> Tensor:
    return criterion.keep(losses, layers=LAYERS, generator=torch.Generator().manual_seed(seed))


def test_the_lists_are_whole() -> None:
    def leaves(base: type) -> set[type]:
        found = {cls for child in base.__subclasses__() for cls in leaves(child) or {child}}
        return {cls for cls in found if cls.__module__.startswith("limbeck.")}

    assert {type(make(0.5)) for make in CRITERIA.values()} == leaves(Criterion)
    assert set(map(type, DISTANCES)) == leaves(Distance)
    assert set(map(type, WEIGHTINGS)) == leaves(Weighting)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.75])  # of which each layer has a whole number
@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_drops_its_share_whatever_the_unit_of_the_losses_and_draws_from_its_generator(name: str, ratio: float) -> None:
    losses, before = drawn(COUNT), torch.get_rng_state()
    kept = keep(CRITERIA[name](ratio), losses)
    assert kept.dtype == torch.bool and (~kept).sum() == (0 if name == "all" else ratio * COUNT)
    assert torch.equal(kept, keep(CRITERIA[name](ratio), 1e6 * losses))
    assert torch.equal(kept, keep(CRITERIA[name](ratio), losses))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", CRITERIA)
def test_who_drops_more_drops_the_same_and_more(name: str) -> None:
    losses = drawn(COUNT)
    less, more = (keep(CRITERIA[name](ratio), losses) for ratio in (0.25, 0.5))
    assert (less | ~more).all()


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda one: type(one).__name__)
def test_a_distance_is_nothing_at_the_target_and_knows_no_origin_and_no_unit(distance: Distance) -> None:
    theta, start, target, kept = (*(drawn(COUNT, seed=seed) for seed in range(3)), drawn(COUNT, seed=3) > 0.3)
    value = distance(theta, start, target, kept, LAYERS)
    assert distance(target, start, target, kept, LAYERS).abs() < 1e-12
    moved = distance(*(one * 7 + 3 for one in (theta, start, target)), kept, LAYERS)
    torch.testing.assert_close(moved, value)


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda one: type(one).__name__)
def test_a_distance_does_not_see_what_is_dropped(distance: Distance) -> None:
    theta, start, target = (drawn(COUNT, seed=seed) for seed in range(3))
    kept = keep(LowLossDropout(0.5), (theta - target).square())
    value = distance(theta, start, target, kept, LAYERS)
    torch.testing.assert_close(distance(torch.where(kept, theta, -theta), start, target, kept, LAYERS), value)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: type(one).__name__)
def test_a_weighting_gives_a_positive_number_to_every_pixel_and_leaves_the_order_of_images(weighting: Weighting) -> None:
    maps, before = drawn(5, 4, 6), torch.get_rng_state()
    weights = weighting(maps, torch.Generator().manual_seed(0))
    assert weights.shape == (5, 1, 4, 6) and (weights > 0).all()
    assert torch.equal(before, torch.get_rng_state())
    if not isinstance(weighting, Shuffled):
        order = torch.tensor([3, 0, 4, 2, 1])
        assert torch.equal(weighting(maps[order], torch.Generator()), weights[order])


def test_the_controls_of_the_enhancement_have_its_size() -> None:
    maps = drawn(5, 4, 6)
    sums = [weighting(maps, torch.Generator().manual_seed(0)).sum() for weighting in WEIGHTINGS[1:]]
    torch.testing.assert_close(sums[1:], [sums[0]] * 2)
