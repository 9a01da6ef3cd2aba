"""The stages against the module, and every derivative of theirs against automatic differentiation, in float64."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import grad
from torch.func import jvp, vjp
from torch.nn.functional import conv2d

from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.networks.stages import Convolution, Dense, Linear, NetworkStage, NormActivatePool, Parameters, Rest, Tangent
from limbeck.runtime.random import generator

NORMS = ("instancenorm", "groupnorm", "batchnorm", "nonorm")
POOLINGS = ("avgpool", "maxpool", "nopool")
ACTIVATIONS = ("relu", "leaky", "sigmoid")
NAMES = ["-".join(("ConvNetD2-w8", *parts)) for parts in product(NORMS, POOLINGS, ACTIVATIONS)]
SHAPE = (3, 8, 12)


def randn(*shape: int, seed: int | str = 0) -> Tensor:
    return torch.randn(shape, generator=generator(0, "stages", seed), dtype=torch.float64)


def close(value: Tensor, reference: Tensor) -> None:
    """Equal to 1e-10 of the largest entry, or of 1e-2 where all are smaller: some derivatives are zero."""
    assert value.shape == reference.shape
    assert value.dtype == reference.dtype
    assert (value - reference).abs().max() <= 1e-10 * reference.abs().max().clamp_min(1e-2)


class Case:
    """A network of two blocks for 8×12 pixels with a θ that no initialisation gives: norms scale and shift."""

    def __init__(self, name: str) -> None:
        self.network: FlatNetwork = flat_network(name, SHAPE, 4)
        self.theta = self.network.initial(generator(0, name)).double()
        self.theta += 0.3 * randn(len(self.theta), seed=name)
        self.x = randn(3, *SHAPE)

    def stages(self, dtype: torch.dtype | None = None) -> list[NetworkStage]:
        stages = self.network.stages(dtype)
        assert stages is not None
        return stages

    def parameters(self, stage: NetworkStage, theta: Tensor) -> tuple[Tensor, Parameters]:
        named = self.network.parameters(theta)
        weight, *p = (named[name] for name in stage.names)
        return weight, tuple(p)


def rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("name", NAMES)
def test_the_stages_compute_what_the_module_computes(name: str) -> None:
    case = Case(name)
    value, used = rows(case.x), []
    for stage in case.stages():
        weight, p = case.parameters(stage, case.theta)
        value = stage.rest.forward(stage.linear.apply(value, weight), p)
        used += stage.names
    assert sorted(used) == sorted(case.network.shapes)
    close(value, case.network(case.theta, case.x))
    assert value.std() > 1e-2


def check_rest(rest: Rest, z: Tangent, p: Parameters, pt: Parameters) -> None:
    """All derivatives of φ at (z, p) along (ż, ṗ) against those of its `forward`."""

    def pull(gx: Tensor, z: Tensor, *p: Tensor) -> tuple[Tensor, ...]:
        return vjp(lambda *at: rest.forward(at[0], at[1:]), z, *p)[1](gx)

    value, dot = jvp(lambda *at: rest.forward(at[0], at[1:]), (z.value, *p), (z.dot, *pt))
    found = rest.forward_tangent(z, p, pt)
    close(found.value, value)
    close(found.dot, dot)
    gx = Tangent(randn(*value.shape, seed="g"), randn(*value.shape, seed="its tangent"))
    (gz, *gp), (gz_dot, *gp_dot) = jvp(pull, (gx.value, z.value, *p), (gx.dot, z.dot, *pt))
    back, back_p = rest.backward(gx.value, z.value, p)
    tangent, tangent_p = rest.backward_tangent(gx, z, p, pt)
    for a, b in zip((back, *back_p, *tangent, *tangent_p), (gz, *gp, gz, gz_dot, *gp_dot), strict=True):
        close(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_the_rest(name: str) -> None:
    case = Case(name)
    value, direction = rows(case.x), randn(len(case.theta), seed="direction")
    for stage in case.stages():
        (weight, p), (_, pt) = (case.parameters(stage, vector) for vector in (case.theta, direction))
        z = stage.linear.apply(value, weight)
        check_rest(stage.rest, Tangent(z, randn(*z.shape, seed="z")), p, pt)
        value = stage.rest.forward(z, p)


def test_nonsquare_cells_are_pooled_where_they_lie() -> None:
    """Of the cell (i, j) the mean and the greatest, at (i, j) of half the height and half the width."""
    z = torch.arange(4 * 6, dtype=torch.float64).reshape(1, 4, 6, 1)
    p = (torch.zeros(1, dtype=torch.float64),)
    for pooling, at in (("avg", 3.5), ("max", 7.0)):
        pooled = NormActivatePool("none", 1, pooling, "relu").forward(z, p)
        assert pooled[0, :, :, 0].tolist() == [[at, at + 2, at + 4], [at + 12, at + 14, at + 16]]


def test_of_equal_greatest_pixels_each_has_its_share() -> None:
    """The greatest of equals moves with their mean, so that ⟨x'̇, g⟩ = ⟨ż, g_z⟩ still holds."""
    rest = NormActivatePool("none", 1, "max", "leaky")
    z = torch.tensor([[3.0, 3.0], [1.0, 3.0]], dtype=torch.float64).reshape(1, 2, 2, 1)
    p = (torch.zeros(1, dtype=torch.float64),)
    dot = torch.tensor([[3.0, 6.0], [100.0, 9.0]], dtype=torch.float64).reshape(1, 2, 2, 1)
    assert rest.forward_tangent(Tangent(z, dot), p, p).dot.item() == pytest.approx(6)
    gz, _ = rest.backward(torch.ones(1, 1, 1, 1, dtype=torch.float64), z, p)
    assert gz.flatten().tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])


LINEARS: dict[str, tuple[Linear, tuple[int, ...], tuple[int, ...]]] = {
    **{
        f"{channels} channels of {height}×{width}": (Convolution(), (2, height, width, channels), (6, channels, 3, 3))
        # Up to four channels of even sides go two by two pixels at once, the others through the library's own adjoint.
        for channels, (height, width) in product((1, 3, 4, 5), ((4, 6), (2, 2), (5, 6), (4, 7), (1, 1), (3, 5)))
    },
    **{
        f"{channels} channels of {height}×{width}, padded by 3": (
            Convolution(padding=3),
            (2, height, width, channels),
            (6, channels, 3, 3),
        )
        for channels, (height, width) in product((1, 3, 5), ((28, 28), (4, 6), (5, 6)))
    },
    "dense": (Dense((3, 2)), (4, 3, 2, 5), (7, 30)),
}


def plain(linear: Linear, x: Tensor, weight: Tensor) -> Tensor:
    """W ∘ x by torch's own layers."""
    planes = x.permute(0, 3, 1, 2)
    if not isinstance(linear, Convolution):
        return planes.flatten(1) @ weight.t()
    return rows(conv2d(planes, weight, padding=linear.padding))


@pytest.mark.parametrize("kind", LINEARS)
def test_linear_maps_are_those_of_autograd(kind: str) -> None:
    linear, x_shape, weight_shape = LINEARS[kind]
    x, weight = randn(*x_shape).requires_grad_(), randn(*weight_shape, seed="weight").requires_grad_()
    z = plain(linear, x, weight)
    gz = randn(*z.shape, seed="g")
    gx, g_weight = grad(z, (x, weight), gz)
    with torch.no_grad():
        close(linear.apply(x, weight), z)
        close(linear.to_input(gz, weight), gx)
        close(linear.to_weight(gz, x, weight), g_weight)


@pytest.mark.parametrize(
    ("channels", "side", "two_by_two"), [(1, 4, True), (3, 4, True), (4, 4, True), (5, 4, False), (3, 5, False)]
)
def test_only_images_of_even_sides_go_two_by_two(
    channels: int, side: int, two_by_two: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Tensor] = []
    original: Callable[..., Tensor] = Convolution._to_image
    monkeypatch.setattr(Convolution, "_to_image", lambda self, gz, weight: calls.append(gz) or original(self, gz, weight))
    Convolution().to_input(randn(1, side, side, 6), randn(6, channels, 3, 3))
    assert bool(calls) is two_by_two


sizes = st.integers(1, 5)
linears = st.one_of(
    st.tuples(st.sampled_from([Convolution(), Convolution(padding=3)]), sizes, sizes, sizes, sizes),
    st.tuples(sizes, sizes, sizes, sizes).map(lambda drawn: (Dense((drawn[1], drawn[2])), *drawn)),
)


@given(linears, sizes, st.floats(-2, 2), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_linear_maps_are_bilinear_and_adjoint(drawn: tuple[Linear, int, int, int, int], outputs: int, c: float, seed: int) -> None:
    """⟨W ∘ x, g⟩ = ⟨x, Wᵀ g⟩ = ⟨W, g ⋆ x⟩, and each of the three maps is linear in both of its arguments."""
    linear, batch, height, width, channels = drawn
    inner = (channels, 3, 3) if isinstance(linear, Convolution) else (channels * height * width,)
    x, x2 = (randn(batch, height, width, channels, seed=f"x {seed} {k}") for k in (0, 1))
    weight, weight2 = (randn(outputs, *inner, seed=f"weight {seed} {k}") for k in (0, 1))
    z = linear.apply(x, weight)
    g, g2 = (randn(*z.shape, seed=f"g {seed} {k}") for k in (0, 1))
    scalar = (z * g).sum()
    torch.testing.assert_close((x * linear.to_input(g, weight)).sum(), scalar, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close((weight * linear.to_weight(g, x, weight)).sum(), scalar, rtol=1e-10, atol=1e-10)

    def bilinear(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, a2: Tensor, b: Tensor, b2: Tensor) -> None:
        close(function(a + c * a2, b), function(a, b) + c * function(a2, b))
        close(function(a, b + c * b2), function(a, b) + c * function(a, b2))

    bilinear(linear.apply, x, x2, weight, weight2)
    bilinear(linear.to_input, g, g2, weight, weight2)
    bilinear(lambda g, x: linear.to_weight(g, x, weight), g, g2, x, x2)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.sampled_from(NAMES), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_rest_at_any_size(half_height: int, half_width: int, batch: int, name: str, seed: int) -> None:
    rest = Case(name).stages()[0].rest
    z, z_dot = (randn(batch, 2 * half_height, 2 * half_width, 8, seed=f"z {seed} {k}") for k in (0, 1))
    p, pt = (tuple(randn(8, seed=f"p {seed} {k} {i}") for i in range(1 if "nonorm" in name else 3)) for k in (0, 1))
    check_rest(rest, Tangent(z, z_dot), p, pt)


@pytest.mark.parametrize(
    ("name", "height", "width", "has"),
    [
        ("ConvNetD2-w8", 8, 12, True),
        ("ConvNetD2-w8", 4, 4, True),
        ("ConvNetD2-w8", 8, 13, False),
        ("ConvNetD2-w8", 9, 12, False),
        ("ConvNetD2-w8", 10, 12, False),  # 10 → 5 → 2: the second pooling leaves a row out
        ("ConvNetD2-w8-maxpool", 12, 10, False),
        ("ConvNetD2-w8-nopool", 7, 5, True),
        ("ConvNetD3-w8", 28, 28, True),  # padded to 32
        ("ConvNetD5-w8", 28, 28, True),
        ("ConvNetD3-w8", 28, 30, False),
        ("ConvNetD3-w8", 32, 32, True),
    ],
)
def test_there_are_stages_only_where_poolings_leave_nothing_out(name: str, height: int, width: int, has: bool) -> None:
    network = flat_network(name, (3, height, width), 4)
    stages = network.stages()
    assert (stages is not None) is has
    if stages is not None:
        assert len(stages) == len(network.module.blocks) + 1


def test_a_module_without_stages_has_none() -> None:
    assert FlatNetwork(torch.nn.Linear(3, 2), "linear").stages() is None


def test_convolutions_compute_in_the_precision_asked_for() -> None:
    """Images and z are in it, gradients of weights in the weights' own."""
    stage = Case("ConvNetD2-w8").stages(torch.bfloat16)[0]
    x, weight = randn(2, 8, 12, 3).float(), randn(8, 3, 3, 3, seed="weight").float()
    z = stage.linear.apply(x, weight)
    assert z.dtype == torch.bfloat16
    assert (z.float() - plain(stage.linear, x, weight)).norm() < 0.01 * z.float().norm()
    assert stage.linear.to_input(z, weight).dtype == torch.bfloat16
    assert stage.linear.to_weight(z, x, weight).dtype == torch.float32
