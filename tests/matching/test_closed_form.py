"""g and its products, by reverse mode and in closed form, against plain back-propagation through ⟨g, λ⟩, in float64."""

from itertools import product

import pytest
import torch
from reference.deviation import deviation
from reference.student import Products, plain_convnet, products
from torch import Tensor

from limbeck.losses import kl_divergence, soft_cross_entropy
from limbeck.matching.closed_form import Staged
from limbeck.matching.derivatives import Derivatives, Loss, Pulled, Reverse
from limbeck.networks.flat import flat_network
from limbeck.runtime.random import generator

NORMS = ("instancenorm", "groupnorm", "batchnorm", "nonorm")
POOLINGS = ("avgpool", "maxpool", "nopool")
ACTIVATIONS = ("relu", "leaky", "sigmoid")
NAMES = ["-".join(("ConvNetD2-w8", *parts)) for parts in product(NORMS, POOLINGS, ACTIVATIONS)]


class Case:
    """Five images of 8×12 under a θ whose norms scale and shift, and a λ."""

    def __init__(self, name: str, shape: tuple[int, int, int] = (3, 8, 12), loss: Loss = soft_cross_entropy) -> None:
        draws = generator(0, "staged", name)
        self.network, self.loss = flat_network(name, shape, 4), loss
        self.theta = self.network.initial(draws).double()
        self.theta += 0.3 * torch.randn(self.theta.shape, generator=draws, dtype=torch.float64)
        self.cotangent = torch.randn(self.theta.shape, generator=draws, dtype=torch.float64)
        self.x = torch.randn(5, *shape, generator=draws, dtype=torch.float64)
        self.y = torch.randn(5, 4, generator=draws, dtype=torch.float64)

    @property
    def at(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.theta, self.x, self.y

    def reverse(self) -> Reverse:
        return Reverse(self.network, self.loss)

    def staged(self) -> Staged:
        stages = self.network.stages()
        assert stages is not None
        return Staged(self.network, stages, self.loss)


def close(value: Tensor, reference: Tensor) -> None:
    """Equal to 1e-10 of the norm."""
    assert value.shape == reference.shape
    assert value.dtype == reference.dtype
    assert reference.norm() > 1e-4
    assert deviation(value, reference) < 1e-10


def close_products(pulled: Pulled, slope: Tensor, theta: Tensor | None, x: Tensor, y: Tensor) -> None:
    close(pulled.slope, slope)
    close(pulled.x, x)
    close(pulled.y, y)
    assert pulled.x.is_contiguous()
    if theta is None:
        assert pulled.theta.shape == (0,)
    else:
        close(pulled.theta, theta)


@torch.no_grad()
def check(case: Case, functions: Derivatives, gradient: Tensor, *expected: Tensor) -> None:
    """All five functions against g, ⟨g, λ⟩, h_θ, h_x and h_y."""
    slope, theta, x, y = expected
    close(functions.gradient(*case.at), gradient)
    found, kept = functions.keep(*case.at)
    close(found, gradient)
    close_products(functions.pullback(*case.at, case.cotangent), slope, theta, x, y)
    close_products(functions.pullback_data(*case.at, case.cotangent), slope, None, x, y)
    for _ in range(2):  # several losses may be walked back from what one step has kept
        close_products(functions.pullback_kept(*case.at, case.cotangent, kept), slope, theta, x, y)


def oracle(case: Case) -> Products:
    return products(plain_convnet(case.network.name, 4), *case.at, case.cotangent)


@pytest.mark.parametrize("name", NAMES)
def test_reverse_equals_plain_back_propagation(name: str) -> None:
    case = Case(name)
    expected = oracle(case)
    check(case, case.reverse(), expected.gradient, expected.slope, expected.theta, expected.x, expected.y)


@pytest.mark.parametrize("name", NAMES)
def test_staged_equals_reverse_and_plain_back_propagation(name: str) -> None:
    case = Case(name)
    with torch.no_grad():
        check(case, case.staged(), case.reverse().gradient(*case.at), *case.reverse().pullback(*case.at, case.cotangent))
    expected = oracle(case)
    check(case, case.staged(), expected.gradient, expected.slope, expected.theta, expected.x, expected.y)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ConvNetD1-w4-instancenorm", (1, 2, 2)),  # a single block, whose pooling leaves a single pixel
        ("ConvNetD3-w4-groupnorm-leaky", (4, 8, 16)),
        ("ConvNetD2-w12-instancenorm-maxpool-sigmoid", (6, 4, 12)),  # more channels than an image's
        ("ConvNetD2-w4-batchnorm-nopool-leaky", (3, 5, 7)),  # odd sides: nothing is pooled
        ("ConvNetD3-w4-instancenorm", (1, 28, 28)),  # padded to 32×32
        ("ConvNetD2-w4-batchnorm-maxpool", (3, 28, 28)),
        ("ConvNetD5-w4-nonorm-sigmoid", (6, 28, 28)),  # more channels than an image's
    ],
)
def test_other_depths_channels_and_sizes(name: str, shape: tuple[int, int, int]) -> None:
    case = Case(name, shape)
    expected = oracle(case)
    check(case, case.staged(), expected.gradient, expected.slope, expected.theta, expected.x, expected.y)


def test_another_loss() -> None:
    """The closed form takes the loss as it is: its own second derivatives by y and the logits are used."""

    def divergence(logits: Tensor, y: Tensor) -> Tensor:
        return kl_divergence(y, logits, 2.0)

    case = Case("ConvNetD2-w8-instancenorm-avgpool-sigmoid", loss=divergence)
    at = tuple(tensor.clone().requires_grad_() for tensor in case.at)
    (gradient,) = torch.autograd.grad(divergence(case.network(*at[:2]), at[2]), at[0], create_graph=True)
    slope = gradient @ case.cotangent
    for functions in (case.reverse(), case.staged()):
        expected = torch.autograd.grad(slope, at, retain_graph=True)
        check(case, functions, gradient.detach(), slope.detach(), *expected)


@pytest.mark.parametrize("name", ["ConvNetD2-w8-instancenorm-avgpool-relu", "ConvNetD2-w8-batchnorm-maxpool-sigmoid"])
def test_the_product_is_linear_and_its_matrix_symmetric(name: str) -> None:
    """h_θ = H λ: ⟨μ, H λ⟩ = ⟨λ, H μ⟩, for the Hessian is symmetric, and H(λ + cμ) = Hλ + cHμ."""
    case = Case(name)
    staged, other = case.staged(), torch.randn(case.theta.shape, generator=generator(1, "other"), dtype=torch.float64)
    with torch.no_grad():
        one, two, both = (staged.pullback(*case.at, v) for v in (case.cotangent, other, case.cotangent - 2.5 * other))
    close(one.theta @ other, two.theta @ case.cotangent)
    for a, b, c in zip(one, two, both, strict=True):
        close(c, a - 2.5 * b)


def test_channels_last_images_are_as_good() -> None:
    case = Case("ConvNetD2-w8-instancenorm-avgpool-relu")
    expected = oracle(case)
    case.x = case.x.contiguous(memory_format=torch.channels_last)
    check(case, case.staged(), expected.gradient, expected.slope, expected.theta, expected.x, expected.y)
