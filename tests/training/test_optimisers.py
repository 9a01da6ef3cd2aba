"""The optimisers against torch's, GSAM against the equations in plain loops, a closed form and pytorch-optimizer's."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import gsam
from torch import Tensor, nn

from limbeck.runtime.errors import UsageError
from limbeck.training.optimisers import AdamW, Gsam, Optimiser, Sgd, decays

SHAPES = [torch.Size(shape) for shape in [(3, 4), (3,), (2, 3, 2, 2), (2,), ()]]
P = 12 + 3 + 24 + 2 + 1

GradientAt = Callable[[Tensor], Tensor]


def vector(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or (P,), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(theta: Tensor, target: Tensor) -> Tensor:
    """A smooth loss that is no quadratic, with shape θ.shape[:-1]; every entry depends on its neighbour."""
    return ((theta - target).tanh() * theta.roll(1, -1).cos() + 0.1 * theta**2).sum(-1)


def gradient_of(target: Tensor) -> GradientAt:
    def gradient(theta: Tensor) -> Tensor:
        leaf = theta.detach().requires_grad_()
        (found,) = torch.autograd.grad(loss(leaf, target).sum(), leaf)
        return found

    return gradient


def run(optimiser: Optimiser, theta: Tensor, steps: int = 20, factors: list[float] | None = None) -> Tensor:
    """θ after steps on losses that differ from step to step."""
    theta = theta.clone()
    state = optimiser.state(theta)
    for number in range(steps):
        optimiser.step(theta, state, gradient_of(vector(100 + number)), factors[number] if factors else 1.0)
    return theta


def run_torch(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], theta: Tensor, factors: list[float] | None = None
) -> Tensor:
    """The same with one of torch's optimisers on parameters of `SHAPES`."""
    parts = theta.split([shape.numel() for shape in SHAPES])
    parameters = [nn.Parameter(part.view(shape).clone()) for part, shape in zip(parts, SHAPES, strict=True)]
    optimiser = make(parameters)
    rates = [group["lr"] for group in optimiser.param_groups]
    for number in range(20):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * (factors[number] if factors else 1.0)
        optimiser.zero_grad()
        loss(torch.cat([value.flatten() for value in parameters]), vector(100 + number)).backward()
        optimiser.step()
    return torch.cat([value.detach().flatten() for value in parameters])


FACTORS = [0.5 * (1 + math.cos(math.pi * number / 20)) for number in range(20)]


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 5e-2), (0.0, 5e-2)])
def test_sgd_is_torchs(momentum: float, weight_decay: float) -> None:
    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, 0.05, momentum=momentum, weight_decay=weight_decay)

    for factors in (None, FACTORS):
        ours = run(Sgd(0.05, momentum, weight_decay), vector(0), factors=factors)
        torch.testing.assert_close(ours, run_torch(make, vector(0), factors), rtol=0, atol=1e-12)


def test_sgd_rounds_as_its_formula_does() -> None:
    theta, velocity, g = (vector(seed, 1000).float() for seed in range(3))
    ours, state = theta.clone(), (velocity.clone(),)
    Sgd(0.03, 0.9, 5e-4).step(ours, state, lambda _: g, 0.1)
    velocity = velocity * 0.9 + g
    velocity = velocity.add(theta, alpha=5e-4)
    assert torch.equal(state[0], velocity)
    assert torch.equal(ours, theta.sub(velocity, alpha=0.03 * 0.1))


@pytest.mark.parametrize("masked", [False, True])
def test_adamw_is_torchs(masked: bool) -> None:
    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [
            {"params": [value for value in parameters if value.ndim >= 2], "weight_decay": 0.3},
            {"params": [value for value in parameters if value.ndim < 2], "weight_decay": 0.0 if masked else 0.3},
        ]
        return torch.optim.AdamW(groups, 0.02, betas=(0.8, 0.99), eps=1e-6)

    ours = AdamW(0.02, (0.8, 0.99), 1e-6, 0.3, decays(SHAPES) if masked else None)
    for factors in (None, FACTORS):
        torch.testing.assert_close(run(ours, vector(0), factors=factors), run_torch(make, vector(0), factors), rtol=0, atol=1e-12)


def test_adamw_is_exact_enough_in_single_precision() -> None:
    """1 − β₂ᵗ in float32 would be wrong by 5e-5 at the first step, and that step by half of it."""
    g = vector(1).float()
    theta = torch.zeros(P, dtype=torch.float32)
    optimiser = AdamW(0.1, weight_decay=0.0)
    optimiser.step(theta, optimiser.state(theta), lambda _: g)
    torch.testing.assert_close(theta, -0.1 * g / (g.abs() + 1e-8), rtol=1e-6, atol=0)


def test_decays_marks_what_has_two_dimensions() -> None:
    assert decays(SHAPES).tolist() == [True] * 12 + [False] * 3 + [True] * 24 + [False] * 3
    assert decays([]).shape == (0,)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_gsam_is_the_equations(alpha: float, adaptive: bool) -> None:
    optimiser = Gsam(0.05, 0.9, 5e-2, rho_min=0.1, rho_max=0.4, alpha=alpha, adaptive=adaptive)
    theta, velocity = vector(0).tolist(), [0.0] * P
    for number, factor in enumerate(FACTORS):
        gradient = gradient_of(vector(100 + number))

        def plain(at: list[float], gradient: GradientAt = gradient) -> list[float]:
            return gradient(torch.tensor(at, dtype=torch.float64)).tolist()

        rho = 0.1 + 0.3 * factor
        theta, velocity = gsam.step(theta, velocity, plain, 0.05 * factor, rho, alpha, adaptive, 0.9, 5e-2)
    expected = torch.tensor(theta, dtype=torch.float64)
    torch.testing.assert_close(run(optimiser, vector(0), factors=FACTORS), expected, rtol=0, atol=1e-9)


def on_quadratic(optimiser: Gsam, theta: list[float]) -> list[float]:
    """θ after a step down ½ (θ₁² + 4 θ₂²)."""
    values = torch.tensor(theta, dtype=torch.float64)
    curvature = torch.tensor([1.0, 4.0], dtype=torch.float64)
    optimiser.step(values, optimiser.state(values), lambda at: curvature * at)
    found: list[float] = values.tolist()
    return found


def test_gsam_on_a_quadratic() -> None:
    """At θ = (2, ½): g = (2, 2). With e = (1, 1), g_p = (3, 6) and g_⊥ = (2, 2) − 18/45 (3, 6) = (0.8, −0.4).

    Adaptive, θ² ∘ g = (8, ½), ‖|θ| ∘ g‖ = √17, and with ρ = √17/4 e = (2, ⅛), g_p = (4, 2.5), g_⊥ = (2, 2) − 13/22.25 (4, 2.5).
    """
    plain = Gsam(0.1, rho_min=math.sqrt(2), rho_max=math.sqrt(2), alpha=0.5, adaptive=False)
    assert on_quadratic(plain, [2, 0.5]) == pytest.approx([2 - 0.26, 0.5 - 0.62], abs=1e-11)
    rho = math.sqrt(17) / 4
    adaptive = Gsam(0.1, rho_min=rho, rho_max=rho, alpha=0.5)
    orthogonal = [2 - 52 / 22.25, 2 - 32.5 / 22.25]
    expected = [2 - 0.1 * (4 - 0.5 * orthogonal[0]), 0.5 - 0.1 * (2.5 - 0.5 * orthogonal[1])]
    assert on_quadratic(adaptive, [2, 0.5]) == pytest.approx(expected, abs=1e-11)


def test_gsam_is_pytorch_optimizers() -> None:
    library = pytest.importorskip("pytorch_optimizer")

    class Vector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(vector(0))

        def forward(self, target: Tensor) -> Tensor:
            return loss(self.theta, target)

    class Radius:
        """What the library asks for: a schedule of ρ."""

        def step(self) -> float:
            return 0.3

    for adaptive in (False, True):
        model = Vector()
        base = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-2)
        theirs = library.GSAM(model.parameters(), base, model, Radius(), alpha=0.4, adaptive=adaptive)
        for number in range(20):

            def closure(target: Tensor = vector(100 + number), model: nn.Module = model) -> tuple[Tensor, Tensor]:
                model.zero_grad()
                with torch.enable_grad():
                    value = model(target)
                    value.backward()
                return value, value.detach()

            theirs.step(closure)
        ours = run(Gsam(0.05, 0.9, 5e-2, 0.3, 0.3, 0.4, adaptive), vector(0))
        # Some of the library's norms are in single precision.
        torch.testing.assert_close(ours, model.theta.detach(), rtol=0, atol=1e-6)


def test_without_alpha_it_is_sam_and_without_rho_sgd() -> None:
    """SAM: SGD with the gradient at θ + ρ g / ‖g‖. At ρ = 0 nothing is orthogonal, whatever α is."""
    theta, target = vector(0), vector(1)
    gradient = gradient_of(target)
    g = gradient(theta)
    expected = theta - 0.1 * gradient(theta + 0.5 * g / g.norm())
    sam = Gsam(0.1, rho_min=0.5, rho_max=0.5, alpha=0.0, adaptive=False)
    ours = theta.clone()
    sam.step(ours, sam.state(ours), gradient)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)
    flat = run(Gsam(0.05, 0.9, 5e-4, rho_min=0.0, rho_max=0.0, alpha=0.7), theta)
    torch.testing.assert_close(flat, run(Sgd(0.05, 0.9, 5e-4), theta), rtol=0, atol=1e-9)


def test_rho_follows_the_step_size() -> None:
    optimiser = Gsam(0.1, rho_min=0.02, rho_max=0.08)
    assert [optimiser.rho(factor) for factor in (1.0, 0.5, 0.0)] == pytest.approx([0.08, 0.05, 0.02])
    above = Gsam(0.1, rho_min=0.02, rho_max=0.08, lr_min=0.02)
    assert [above.rho(factor) for factor in (1.0, 0.6, 0.2)] == pytest.approx([0.08, 0.05, 0.02])
    assert Gsam(0.1).rho(0.3) == pytest.approx(0.01)


@pytest.mark.parametrize("factor", [1.0, 0.7, 0.2])
@pytest.mark.parametrize("share", [0.25, 0.25**3])
def test_a_smaller_step_is_of_the_same_rho(factor: float, share: float) -> None:
    optimiser = Gsam(0.1, 0.9, rho_min=0.02, rho_max=0.08, lr_min=0.02)
    assert optimiser.slowed(share).rho(factor) == pytest.approx(optimiser.rho(factor), rel=1e-12)
    for plain in (Sgd(0.1, 0.9, 5e-4), AdamW(0.1, decayed=torch.arange(4) % 2 == 0), Gsam(0.1, 0.9, rho_min=0.05, rho_max=0.05)):
        found, expected = (torch.linspace(-1, 1, 4) for _ in range(2))
        plain.slowed(share).step(found, plain.state(found), lambda at: at.exp(), factor)
        plain.step(expected, plain.state(expected), lambda at: at.exp(), factor * share)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimiser", [Sgd(0.1, 0.9), AdamW(0.1, weight_decay=0.0), Gsam(0.1, 0.9), Gsam(0.1, 0.9, adaptive=False)])
def test_a_zero_gradient_moves_nothing(optimiser: Optimiser, dtype: torch.dtype) -> None:
    for theta in (vector(0, 3, 5).to(dtype), torch.zeros(5, dtype=dtype)):
        kept, state = theta.clone(), optimiser.state(theta)
        optimiser.step(theta, state, torch.zeros_like)
        assert torch.equal(theta, kept)
        assert all(bool(value.isfinite().all()) for value in state)


def test_gsam_from_zero_parameters_and_with_tiny_or_huge_gradients_is_finite() -> None:
    for scale in (1e-30, 1e-12, 1e12):
        for theta in (torch.zeros(5), vector(0, 5).float()):
            optimiser = Gsam(1e-3)
            optimiser.step(theta, optimiser.state(theta), lambda at, scale=scale: scale * (at + 1))
            assert bool(theta.isfinite().all())


OPTIMISERS = [
    Sgd(0.05, 0.9, 5e-2),
    AdamW(0.02, weight_decay=0.3, decayed=decays(SHAPES)),
    Gsam(0.05, 0.9, 5e-2, 0.1, 0.4),
    Gsam(0.05, 0.9, 5e-2, 0.1, 0.4, adaptive=False),
]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_stacked_vectors_go_as_each_alone(optimiser: Optimiser) -> None:
    starts = vector(0, 3, P) * torch.tensor([[1.0], [1e-2], [10.0]], dtype=torch.float64)
    together = run(optimiser, starts, factors=FACTORS)
    assert torch.equal(together, torch.stack([run(optimiser, start, factors=FACTORS) for start in starts]))


def test_every_row_of_a_stacked_state_is_a_state() -> None:
    for optimiser in (Sgd(0.1), AdamW(0.1), AdamW(0.1, decayed=decays(SHAPES)), Gsam(0.1)):
        stacked, alone = optimiser.state(vector(0, 3, P)), optimiser.state(vector(0))
        assert [value[1].shape for value in stacked] == [value.shape for value in alone]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_factor_may_be_a_tensor_of_each_row_its_own(optimiser: Optimiser) -> None:
    starts, gradient = vector(0, 2, P), gradient_of(vector(1))
    theta = starts.clone()
    optimiser.step(theta, optimiser.state(theta), gradient, torch.tensor([[1.0], [0.25]], dtype=torch.float64))
    for row, start, factor in zip(theta, starts, (1.0, 0.25), strict=True):
        alone = start.clone()
        optimiser.step(alone, optimiser.state(alone), gradient, factor)
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_steps_go_on_from_a_stored_state(optimiser: Optimiser) -> None:
    """Also: only θ and the state change, and nothing of the gradients' tensors is kept or changed."""
    theta = vector(0)
    state = optimiser.state(theta)
    returned = []

    def step(number: int, at: Tensor, state: tuple[Tensor, ...]) -> None:
        def gradient(place: Tensor) -> Tensor:
            found = gradient_of(vector(number))(place)
            returned.append((found, found.clone()))
            return found

        optimiser.step(at, state, gradient)

    step(1, theta, state)
    stored = theta.clone(), copy.deepcopy(state)
    step(2, theta, state)
    step(2, *stored)
    assert torch.equal(theta, stored[0])
    assert all(torch.equal(a, b) for a, b in zip(state, stored[1], strict=True))
    assert all(torch.equal(found, kept) for found, kept in returned)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_gradient_that_is_written_where_the_last_one_lay_does_no_harm(optimiser: Optimiser) -> None:
    place = torch.empty(P, dtype=torch.float64)
    reused, fresh = vector(0), vector(0)
    gradient = gradient_of(vector(1))
    optimiser.step(reused, optimiser.state(reused), lambda at: place.copy_(gradient(at)))
    optimiser.step(fresh, optimiser.state(fresh), gradient)
    assert torch.equal(reused, fresh)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.floats(0, 2), rho=st.floats(0, 2), adaptive=st.booleans())
def test_the_ascent_is_orthogonal_to_the_perturbed_gradient(seed: int, alpha: float, rho: float, adaptive: bool) -> None:
    """⟨direction, g_p⟩ = ‖g_p‖² whatever α is; and ‖e / |θ|‖ = ρ (adaptive) or ‖e‖ = ρ."""
    theta, gradient, seen = vector(seed), gradient_of(vector(seed + 1)), []

    def watched(at: Tensor) -> Tensor:
        seen.append((at.clone(), gradient(at)))
        return seen[-1][1]

    optimiser = Gsam(1.0, rho_min=rho, rho_max=rho, alpha=alpha, adaptive=adaptive)
    moved = theta.clone()
    optimiser.step(moved, optimiser.state(moved), watched)
    (_, g), (climbed, perturbed) = seen
    e = (climbed - theta) / (theta.abs() if adaptive else 1)
    assert e.norm().item() == pytest.approx(rho, rel=1e-9, abs=1e-12)
    assert (e @ g).item() >= -1e-12
    assert ((theta - moved) @ perturbed).item() == pytest.approx((perturbed @ perturbed).item(), rel=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamW(0.1, betas=(0.9, 1.0)), r"optimiser.betas: \(0.9, 1.0\) is not two numbers in \[0, 1\)"),
        (lambda: AdamW(0.1, eps=-1.0), "optimiser.eps: -1.0 is not at least 0 and finite"),
        (lambda: AdamW(0.1, weight_decay=math.nan), "optimiser.weight_decay: nan is not at least 0 and finite"),
        (lambda: Gsam(0.1, alpha=-0.1), "optimiser.alpha: -0.1 is not at least 0 and finite"),
        (lambda: Gsam(0.1, rho_min=0.2), r"optimiser.rho_max: 0.01 is not finite and at least rho_min \(0.2\)"),
        (lambda: Gsam(0.1, rho_min=-1.0), r"optimiser.rho_max: 0.01 is not finite and at least rho_min \(-1.0\)"),
        (lambda: Gsam(0.1, lr_min=0.1), r"optimiser.lr_min: 0.1 is not at least 0 and below lr \(0.1\)"),
    ],
)
def test_what_is_not_accepted(make: Callable[[], Optimiser], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
