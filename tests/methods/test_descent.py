"""The outer loop's steps, beside torch's optimisers."""

import pytest
import torch

from limbeck.methods.descent import adamw, sgd


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_torchs(momentum: float) -> None:
    ours, velocity, theirs = drawn(0), torch.zeros(4, 3, dtype=torch.float64), drawn(0).requires_grad_()
    optimiser = torch.optim.SGD([theirs], lr=0.3, momentum=momentum)
    for step in range(1, 6):
        sgd(ours, velocity, drawn(step), 0.3, momentum)
        theirs.grad = drawn(step)
        optimiser.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-14, atol=1e-14)


def test_the_first_step_of_adamw_in_single_precision_is_the_step_size() -> None:
    """m̂ = g and ŝ = g²; with 1 − β₂ in single precision the step would be off by 2e-5."""
    value, zeros = torch.zeros(4, 3), torch.zeros(4, 3)
    adamw(value, (zeros, zeros.clone(), zeros.new_zeros(())), torch.ones(4, 3), 0.5, (0.9, 0.999), 0.0)
    torch.testing.assert_close(value, torch.full((4, 3), -0.5), rtol=2e-7, atol=0)


@pytest.mark.parametrize(("betas", "decay"), [((0.9, 0.999), 0.01), ((0.5, 0.9), 0.0), ((0.0, 0.0), 0.5)])
def test_adamw_is_torchs(betas: tuple[float, float], decay: float) -> None:
    zeros = torch.zeros(4, 3, dtype=torch.float64)
    ours, moments, theirs = drawn(0), (zeros, zeros.clone(), zeros.new_zeros(())), drawn(0).requires_grad_()
    optimiser = torch.optim.AdamW([theirs], lr=0.3, betas=betas, weight_decay=decay)
    for step in range(1, 30):
        gradient = drawn(step) * (step % 3)  # also none at all
        adamw(ours, moments, gradient, 0.3, betas, decay)
        theirs.grad = gradient.clone()
        optimiser.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)
    state = optimiser.state[theirs]
    for found, name in zip(moments, ("exp_avg", "exp_avg_sq", "step"), strict=True):
        torch.testing.assert_close(found, state[name].to(found), rtol=1e-12, atol=1e-14)
