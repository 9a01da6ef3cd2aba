"""The gradient that training descends along, against autograd's in float64, alone, in micro-batches, stacked and compiled."""

import warnings

import pytest
import torch
from torch import Tensor

from limbeck.losses import Divergence, cross_entropy, soft_cross_entropy
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.training import gradient as gradient_module
from limbeck.training.compute import Compute
from limbeck.training.gradient import Gradient, Loss, StagedGradient

LOSSES: dict[str, Loss] = {"soft": soft_cross_entropy, "hard": cross_entropy, "teacher": Divergence(20.0)}


def case(name: str, count: int = 6, dtype: torch.dtype = torch.float64) -> tuple[FlatNetwork, Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(5)
    network = flat_network(name, (3, 16, 16), 4)
    theta = network.initial(draws).to(dtype)
    theta += 0.1 * torch.randn(theta.shape, generator=draws, dtype=dtype)
    x = torch.randn(count, 3, 16, 16, generator=draws, dtype=dtype)
    return network, theta, x, torch.randn(count, 4, generator=draws, dtype=dtype)


def by_autograd(network: FlatNetwork, loss: Loss, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    leaf = theta.clone().requires_grad_()
    loss(network(leaf, x), y).backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("micro_batch", [None, 1, 4, 100])
def test_micro_batches_do_not_change_it(loss: str, micro_batch: int | None) -> None:
    network, theta, x, y = case("ConvNetD2-w4")
    y = y.softmax(1)
    found = Gradient(network, LOSSES[loss], micro_batch=micro_batch)(theta, x, y)
    expected = by_autograd(network, LOSSES[loss], theta, x, y)
    assert (found - expected).norm() / expected.norm() < 1e-12


@pytest.mark.parametrize("name", ["ConvNetD2-w4", "ConvNetD2-w4-batchnorm-maxpool-leaky"])
def test_the_closed_form_is_autograds(name: str) -> None:
    network, theta, x, y = case(name)
    stages = network.stages()
    assert stages is not None
    found = StagedGradient(network, stages, soft_cross_entropy)(theta, x, y)
    expected = by_autograd(network, soft_cross_entropy, theta, x, y)
    assert (found - expected).norm() / expected.norm() < 1e-12


@pytest.mark.parametrize("name", ["ConvNetD2-w4", "ConvNetD2-w4-batchnorm"])
def test_stacked_is_each_alone(name: str) -> None:
    network, theta, x, y = case(name)
    thetas, xs, ys = (torch.stack([value, 1.1 * value, value.roll(1, 0)]) for value in (theta, x, y))
    found = Gradient(network, soft_cross_entropy)(thetas, xs, ys)
    for row, *parts in zip(found, thetas, xs, ys, strict=True):
        expected = by_autograd(network, soft_cross_entropy, *parts)
        assert (row - expected).norm() / expected.norm() < 1e-12


@pytest.mark.slow  # stacks are for a GPU, whose tests are `make gpu`
def test_compiled_and_stacked_equals_plain() -> None:
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 10)
    draws = torch.Generator().manual_seed(0)
    thetas = torch.stack([network.initial(draws) for _ in range(3)])
    x, y = torch.randn(3, 4, 3, 8, 8, generator=draws), torch.rand(3, 4, 10, generator=draws)
    compute = Compute(network, torch.device("cpu"), "yes")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "training could not be compiled")
        found = compute.gradient(soft_cross_entropy, (3, 8, 8), 1, {4}, 3)
    assert found.compile
    expected = torch.stack([Gradient(network, soft_cross_entropy)(*each) for each in zip(thetas, x, y, strict=True)])
    assert (found(thetas, x, y) - expected).norm() / expected.norm() < 1e-4
    rest = torch.stack([Gradient(network, soft_cross_entropy)(*each) for each in zip(thetas, x[:, :3], y[:, :3], strict=True)])
    assert (found(thetas, x[:, :3], y[:, :3]) - rest).norm() / rest.norm() < 1e-4


def test_what_cannot_be_compiled_in_step_runs_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> Tensor:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(gradient_module, "compiled", lambda function: refuses)
    network = flat_network("ConvNetD1-w5", (3, 8, 8), 10)
    with pytest.warns(UserWarning, match="training could not be compiled and runs uncompiled: RuntimeError"):
        found = Compute(network, torch.device("cpu"), "yes").gradient(soft_cross_entropy, (3, 8, 8), 1, {4}, 2)
    assert not found.compile


def test_compiled_equals_plain() -> None:
    network, theta, x, y = case("ConvNetD1-w4", dtype=torch.float32)
    compiled = Gradient(network, soft_cross_entropy, compile=True, micro_batch=4)
    expected = by_autograd(network, soft_cross_entropy, theta, x, y)
    assert (compiled(theta, x, y) - expected).norm() / expected.norm() < 1e-4
