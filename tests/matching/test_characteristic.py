"""The discrepancy of characteristic functions, against loops over complex numbers and closed forms."""

import math

import pytest
import torch
from reference import characteristic as plain
from torch import Tensor

from limbeck.matching.characteristic import characteristic, discrepancy


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REAL, SYNTHETIC, T = drawn(7, 3, seed=0), drawn(4, 3, seed=1), drawn(5, 3, seed=2)
WEIGHTS = [(0.5, 0.5), (0.9, 0.1), (1.0, 0.0), (0.0, 1.0)]


def apart(real: Tensor, synthetic: Tensor, t: Tensor, *weights: float) -> Tensor:
    return discrepancy(characteristic(real, t), characteristic(synthetic, t), *weights)


def normal(mean: float, deviation: float, count: int = 20_000) -> Tensor:
    """The quantiles of a normal distribution, with shape (count, 1)."""
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return (mean + deviation * torch.special.ndtri(shares))[:, None]


@pytest.mark.parametrize(("alpha", "beta"), WEIGHTS)
def test_value_and_gradient_are_those_of_loops(alpha: float, beta: float) -> None:
    x, y = SYNTHETIC.clone().requires_grad_(), SYNTHETIC.clone().requires_grad_()
    found, expected = apart(REAL, x, T, alpha, beta), plain.discrepancy([*REAL], [*y], T, alpha, beta)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found, x)[0], torch.autograd.grad(expected, y)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("alpha", "beta"), WEIGHTS)
def test_gradient_is_that_of_differences(alpha: float, beta: float) -> None:
    arguments = (SYNTHETIC.clone().requires_grad_(), T.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda x, t: apart(REAL, x, t, alpha, beta), arguments)


def test_with_equal_weights_it_is_the_distance_of_the_two_functions() -> None:
    r, s = characteristic(REAL, T), characteristic(SYNTHETIC, T)
    wanted = math.sqrt(0.3) * (r - s).square().sum(0).sqrt().mean()
    torch.testing.assert_close(discrepancy(r, s, 0.3, 0.3), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("other", "deviation"), [((0.7, 0.5)), ((0.2, 1.5)), ((-1.0, 0.8))])
def test_two_normal_distributions_have_their_closed_form(other: float, deviation: float) -> None:
    """Φ(t) = exp(jμt − σ²t²/2)."""
    t = torch.tensor([[0.3], [1.0], [-1.7]], dtype=torch.float64)
    a, b = normal(0.2, 0.8), normal(other, deviation)
    exact = [torch.exp(1j * mean * t[:, 0] - (s * t[:, 0]) ** 2 / 2) for mean, s in ((0.2, 0.8), (other, deviation))]
    for features, phi in zip((a, b), exact, strict=True):
        torch.testing.assert_close(torch.complex(*characteristic(features, t)), phi, rtol=0, atol=2e-4)
    lengths = [phi.abs() for phi in exact]
    turned = (0.2 - other) * t[:, 0]
    parts = (lengths[0] - lengths[1]).square(), 2 * lengths[0] * lengths[1] * (1 - turned.cos())
    for alpha, beta in WEIGHTS:
        wanted = (alpha * parts[0] + beta * parts[1]).sqrt().mean()
        torch.testing.assert_close(apart(a, b, t, alpha, beta), wanted, rtol=1e-3, atol=1e-3)


def test_amplitudes_do_not_see_where_features_lie_and_phases_see_nothing_else() -> None:
    moved, widened = REAL + 0.4, 2 * REAL
    assert apart(REAL, moved, T, 1.0, 0.0) < 1e-12 < 0.1 < apart(REAL, moved, T, 0.0, 1.0)
    even = torch.cat([REAL, -REAL]) / 4  # Φ is real and here above 0, and stays so
    assert apart(even, even / 2, T, 0.0, 1.0) < 1e-5 < 0.01 < apart(even, even / 2, T, 1.0, 0.0)
    assert apart(REAL, widened, T, 0.5, 0.5) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("alpha", "beta"), WEIGHTS)
def test_of_the_same_features_it_is_0_and_its_gradient_is_finite(alpha: float, beta: float, dtype: torch.dtype) -> None:
    real, t = REAL.to(dtype), T.to(dtype)
    x = real.clone().requires_grad_()
    found = apart(real, x, t, alpha, beta)
    assert found < (1e-3 if dtype == torch.float32 else 1e-5)
    (gradient,) = torch.autograd.grad(found, x)
    assert gradient.isfinite().all() and gradient.abs().max() < 10
    balanced = torch.tensor([[math.pi], [0.0]], dtype=dtype).requires_grad_()  # Φ(1) = 0 but for rounding
    at = torch.ones(1, 1, dtype=dtype)
    (gradient,) = torch.autograd.grad(apart(balanced.detach(), balanced, at, alpha, beta), balanced)
    assert gradient.isfinite().all()
