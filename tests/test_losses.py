"""The losses against plain formulas, closed-form gradients and torch's own."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from limbeck.losses import cross_entropy, kl_divergence, soft_cross_entropy


def logits(*shape: int, seed: int = 0, spread: float = 2.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def test_soft_cross_entropy_is_the_formula():
    f, y = logits(4, 3), logits(4, 3, seed=1)
    rows = zip(f.tolist(), y.tolist(), strict=True)
    terms = [sum(p * math.log(q) for p, q in zip(softmax(b), softmax(a), strict=True)) for a, b in rows]
    assert soft_cross_entropy(f, y).item() == pytest.approx(-sum(terms) / 4, rel=1e-14)


def test_soft_cross_entropy_has_the_closed_form_gradients():
    """∂/∂f = (softmax f − softmax Y) / N and ∂/∂Y_k = −p_k (log q_k − Σ_j p_j log q_j) / N."""
    f, y = logits(5, 4).requires_grad_(), logits(5, 4, seed=1).requires_grad_()
    in_f, in_y = torch.autograd.grad(soft_cross_entropy(f, y), (f, y))
    p, q = y.softmax(1), f.softmax(1)
    torch.testing.assert_close(in_f, (q - p) / 5, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(in_y, -p * (q.log() - (p * q.log()).sum(1, keepdim=True)) / 5, rtol=1e-12, atol=1e-15)


def test_cross_entropy_of_one_hot_labels_is_that_of_hard_labels():
    f, hard = logits(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    one_hot = functional.one_hot(hard, 4).double()
    torch.testing.assert_close(cross_entropy(f, one_hot), functional.cross_entropy(f, hard), rtol=1e-14, atol=0)


def test_cross_entropy_of_mixed_labels_is_torchs():
    f, p = logits(6, 4), logits(6, 4, seed=1).softmax(1)
    torch.testing.assert_close(cross_entropy(f, p), functional.cross_entropy(f, p), rtol=1e-14, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_kl_divergence_is_that_of_the_divided_logits_without_a_factor(temperature):
    teacher, student = logits(5, 7), logits(5, 7, seed=1)
    p = (teacher / temperature).softmax(1)
    expected = functional.kl_div((student / temperature).log_softmax(1), p, reduction="batchmean")
    torch.testing.assert_close(kl_divergence(teacher, student, temperature), expected, rtol=1e-12, atol=0)


def test_kl_divergence_is_zero_between_equals_and_not_symmetric():
    teacher, student = logits(5, 7), logits(5, 7, seed=1)
    assert kl_divergence(teacher, teacher + 3, 20).item() == pytest.approx(0, abs=1e-15)
    assert kl_divergence(teacher, student, 1) != kl_divergence(student, teacher, 1)


def test_losses_stay_finite_for_extreme_logits():
    f, y = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    assert soft_cross_entropy(f, y).item() == 2e4
    assert cross_entropy(f, torch.tensor([[1.0, 0.0]])).item() == 0
    assert kl_divergence(y, f, 20.0).item() == 1e3


LOSSES = {
    "soft": soft_cross_entropy,
    "probabilities": lambda f, p: cross_entropy(f, p.softmax(1)),
    "divergence": lambda f, t: kl_divergence(t, f, 4.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_twice_differentiable(name):
    inputs = logits(3, 4).requires_grad_(), logits(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], inputs)
    assert torch.autograd.gradgradcheck(LOSSES[name], inputs)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_under_vmap_are_those_of_each_slice(name):
    f, y = logits(3, 5, 4), logits(3, 5, 4, seed=1)
    expected = torch.stack([LOSSES[name](a, b) for a, b in zip(f, y, strict=True)])
    torch.testing.assert_close(torch.vmap(LOSSES[name])(f, y), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_gradient_of_a_loss_compiles_to_one_graph(name):
    gradient = torch.func.grad(LOSSES[name])
    compiled = torch.compile(gradient, fullgraph=True, backend="eager")
    f, y = logits(3, 4), logits(3, 4, seed=1)
    torch.testing.assert_close(compiled(f, y), gradient(f, y), rtol=1e-14, atol=0)
