"""Distances against plain loops, their closed forms and gradients, and through every student step."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.matching import layer_cosine
from torch import Tensor

from limbeck.augmentation import Dsa
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Exact, InnerLoop, Unroll
from limbeck.matching.criteria import LayerDropout, LowLossDropout, layers_of
from limbeck.matching.distances import Distance, LayerCosine, MatchingLoss, SquaredError
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator

sizes_of_layers = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def layers_with(sizes: list[int]) -> list[slice]:
    return [slice(stop - size, stop) for size, stop in zip(sizes, accumulate(sizes), strict=True)]


def three(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """θ_T, θ*_t and θ*_{t+M}."""
    return torch.randn(3, count, generator=generator(seed), dtype=torch.float64).unbind(0)


@given(sizes_of_layers, st.integers(0, 10**6), st.sampled_from([None, 0.0, 0.3, 0.9]))
def test_layer_cosine_and_its_gradient_are_the_definition(sizes: list[int], seed: int, share: float | None) -> None:
    theta, start, target = three(sum(sizes), seed)
    kept = None if share is None else torch.rand(sum(sizes), generator=generator(seed, "kept")) >= share
    mask = None if kept is None else kept.tolist()
    leaf = theta.requires_grad_()
    found = LayerCosine()(leaf, start, target, kept, layers_with(sizes))

    def plainly(theta: Tensor) -> float:
        return layer_cosine(theta.tolist(), start.tolist(), target.tolist(), sizes, mask)

    assert found.item() == pytest.approx(plainly(theta), abs=1e-12)
    (gradient,) = torch.autograd.grad(found, leaf)
    for p in range(sum(sizes)):
        step = torch.zeros(sum(sizes), dtype=torch.float64)
        step[p] = 1e-6 * (theta - start).norm().item()
        slope = (plainly(theta.detach() + step) - plainly(theta.detach() - step)) / (2 * step[p].item())
        assert gradient[p].item() == pytest.approx(slope, rel=1e-4, abs=1e-6)
        assert kept is None or kept[p] or gradient[p] == 0


LAYERS = layers_with([4, 3, 5])


def away(start: Tensor, target: Tensor, factors: list[float]) -> Tensor:
    """θ*_t plus a multiple of the expert's way in every layer."""
    theta = start.clone()
    for layer, factor in zip(LAYERS, factors, strict=True):
        theta[layer] += factor * (target - start)[layer]
    return theta


@pytest.mark.parametrize(
    ("factors", "distance"),
    [
        ([1.0, 1.0, 1.0], 0.0),  # at the target
        ([0.01, 3.0, 100.0], 0.0),  # any length of the same way
        ([-1.0, -0.2, -7.0], 1.0),
        ([1.0, -1.0, 1.0], 1 / 3),
        ([0.0, 0.0, 0.0], 0.5),  # a student that does not move
    ],
)
def test_along_the_experts_way(factors: list[float], distance: float) -> None:
    _, start, target = three(12)
    found = LayerCosine()(away(start, target, factors), start, target, None, LAYERS)
    assert found.item() == pytest.approx(distance, abs=1e-14)


def test_at_right_angles_it_is_a_half_and_lengths_do_not_count() -> None:
    theta, start, target = three(12)
    across = theta - start
    for layer in LAYERS:
        wanted = (target - start)[layer]
        across[layer] -= (across[layer] @ wanted) / (wanted @ wanted) * wanted
    assert LayerCosine()(start + across, start, target, None, LAYERS).item() == pytest.approx(0.5, abs=1e-12)
    once = LayerCosine()(theta, start, target, None, LAYERS)
    for length in (1e-5, 0.5, 20.0):
        scaled = LayerCosine()(start + length * (theta - start), start, target, None, LAYERS)
        assert scaled.item() == pytest.approx(once.item(), abs=1e-9)
        assert SquaredError()(start + length * (theta - start), start, target, None, LAYERS) != SquaredError()(
            theta, start, target, None, LAYERS
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_that_does_not_move_is_a_half_and_has_no_gradient(dtype: torch.dtype) -> None:
    theta, start, target = (tensor.to(dtype) for tensor in three(12))
    theta[LAYERS[0]], target[LAYERS[1]] = start[LAYERS[0]], start[LAYERS[1]]
    leaf = theta.requires_grad_()
    loss = LayerCosine()(leaf, start, target, None, LAYERS)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert not gradient[:7].any() and gradient[7:].all()
    assert loss.item() == pytest.approx((1 + layer_cosine(*(v[7:].tolist() for v in (theta, start, target)), [5])) / 3, rel=1e-6)


def test_a_criterion_chooses_by_squared_losses_under_any_distance() -> None:
    theta, start, target = three(12)
    losses = [MatchingLoss(start, target, LowLossDropout(0.5), distance, LAYERS) for distance in (SquaredError(), LayerCosine())]
    values = [loss(theta) for loss in losses]
    assert losses[0].kept is not None and losses[1].kept is not None
    assert torch.equal(losses[0].kept, losses[1].kept) and losses[1].kept.sum() == 6
    expected = layer_cosine(theta.tolist(), start.tolist(), target.tolist(), [4, 3, 5], losses[1].kept.tolist())
    assert values[1].item() == pytest.approx(expected, abs=1e-12)
    whole = MatchingLoss(start, target, LayerDropout(0.34, "first"), LayerCosine(), LAYERS)(theta)
    rest = [tensor[4:] for tensor in (theta, start, target)]
    left = LayerCosine()(*rest, None, layers_with([3, 5]))  # type: ignore[call-arg, arg-type]
    assert whole.item() == pytest.approx((0.5 + 2 * left.item()) / 3, abs=1e-12)  # of what is dropped nobody knows the way


@pytest.mark.parametrize("name", ["ConvNetD2-w4", "ConvNetD1-w4-batchnorm"])
@pytest.mark.parametrize("ratio", [0.0, 0.3])
def test_through_all_steps_exact_is_unroll(name: str, ratio: float) -> None:
    network, draws = flat_network(name, (3, 8, 8), 3), generator(0, "case")
    start = network.initial(draws).double()
    target = start + 0.05 * torch.randn(start.shape, generator=draws, dtype=torch.float64)
    images, labels = (torch.randn(6, *shape, generator=draws, dtype=torch.float64) for shape in ((3, 8, 8), (3,)))
    inner = InnerLoop(StudentStep(network, soft_cross_entropy), start, draw_steps((6, 3, 8, 8), 4, 5, Dsa(), 0, 0))
    found = []
    for adjoint in (Exact(kept=2), Unroll()):
        loss = MatchingLoss(start, target, LowLossDropout(ratio), LayerCosine(), layers_of(network.slices))
        found.append(adjoint(inner, images, labels, torch.tensor(0.05, dtype=torch.float64), loss)[0])
    exact, unroll = found
    assert exact.loss.item() == pytest.approx(unroll.loss.item(), rel=1e-12)
    for one, other in ((exact.images, unroll.images), (exact.labels, unroll.labels), (exact.syn_lr, unroll.syn_lr)):
        assert other.norm() > 1e-8
        assert ((one - other).norm() / other.norm()).item() < 1e-10


@pytest.mark.parametrize(
    "wrong",
    [lambda theta: theta.detach().sum(), lambda theta: theta.square(), lambda theta: 1.0],
    ids=["no gradient", "vector", "float"],
)
def test_a_distance_that_gives_no_scalar_with_a_gradient_is_refused_by_name(wrong: Callable[[Tensor], Any]) -> None:
    class Wrong(Distance):
        def __call__(self, theta: Tensor, *rest: Any) -> Any:
            return wrong(theta)

    start, target = torch.zeros(4), torch.ones(4)
    with pytest.raises(
        UsageError, match=r"^match\.distance: 'Wrong' is not a distance that gives a scalar with a gradient by θ_T$"
    ):
        MatchingLoss(start, target, distance=Wrong())(torch.rand(4, requires_grad=True))
