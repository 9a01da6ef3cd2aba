"""Modules of any kind as f(θ, x): batch norms, shared and frozen parameters, buffers, initial values."""

import copy
import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.functional import batch_norm
from torch.nn.utils.parametrizations import spectral_norm

from limbeck.networks.batch_norm import BatchNorm, convert_batch_norms, measure_statistics
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.networks.micro_batches import output_sizes
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator


def randn(*shape: int, seed: int | str = 0) -> Tensor:
    return torch.randn(shape, generator=generator(0, "modules", seed), dtype=torch.float64)


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def normed(*norms: nn.Module) -> nn.Sequential:
    """Convolutions with the given norms of six channels."""
    parts = [part for place, norm in enumerate(norms) for part in (nn.Conv2d(6 if place else 3, 6, 3), norm, nn.ReLU())]
    return nn.Sequential(*parts, nn.Flatten(), nn.LazyLinear(4))


def theta_of(module: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten() for value in module.parameters()])


def test_torchs_batch_norms_become_pure() -> None:
    module = normed(nn.BatchNorm2d(6, eps=0.1), nn.BatchNorm2d(6, affine=False, track_running_stats=False)).double()
    x = randn(5, 3, 9, 8)
    module(x).sum().backward()  # gives the last layer its shape, and the first norm statistics
    nn.init.normal_(module[1].weight)
    module.eval()
    before = copy.deepcopy(module.state_dict())
    network = FlatNetwork(module, "normed")
    theta = theta_of(module)
    for _ in range(2):
        assert torch.allclose(network(theta, x), copy.deepcopy(module).train()(x), atol=1e-12)
        vmap(grad(lambda theta: network(theta, x).square().sum()))(torch.stack([theta, 2 * theta]))
    # The module that was handed over is as it was.
    assert not module.training
    assert isinstance(module[1], nn.BatchNorm2d)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    # Without images the statistics are those that the module came with.
    kept = network.with_parameters(theta)
    assert torch.equal(kept[1].mean, module[1].running_mean)
    assert torch.allclose(kept[:3](x), module[:3](x), atol=1e-12)
    # With images they are measured.
    measured = network.with_parameters(theta, lambda: x)
    z = module[0](x).detach()
    mean, variance = z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)
    expected = batch_norm(z, mean, variance, module[1].weight, module[1].bias, eps=0.1)
    assert torch.allclose(measured[:2](x), expected, atol=1e-12)
    # Now the second norm has met in training mode what it meets in evaluation.
    assert torch.allclose(measured(x), network(theta, x), atol=1e-10)


def test_a_module_is_taken_from_whatever_device_it_lies_on() -> None:
    class There(nn.Sequential):
        """On the meta device, which hands no values over as a GPU would."""

        def to(self, device: torch.device) -> nn.Module:  # type: ignore[override]
            return self.to_empty(device=device)

    module = There(nn.Flatten(), nn.Linear(12, 2, device="meta"))
    network = flat_network(module, (3, 2, 2), 2)
    assert {value.device.type for value in network.module.parameters()} == {"cpu"}
    assert {value.device.type for value in module.parameters()} == {"meta"}
    with pytest.raises(UsageError, match="^network: 'Linear' cannot be taken to the CPU, which raised NotImplementedError: "):
        flat_network(nn.Linear(12, 2, device="meta"), (3, 2, 2), 2)


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 5), (7, 6, 4, 5), (7, 6, 2, 3, 4)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_takes_any_number_of_dimensions(shape: tuple[int, ...], affine: bool) -> None:
    norm, x = BatchNorm(6, affine=affine).double(), randn(*shape)
    if norm.weight is not None and norm.bias is not None:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    assert torch.allclose(norm(x), batch_norm(x, None, None, norm.weight, norm.bias, training=True), atol=1e-12)
    norm.eval()
    norm.mean, norm.variance = randn(6), randn(6, seed=1).square()
    expected = batch_norm(x, norm.mean, norm.variance, norm.weight, norm.bias)
    assert torch.allclose(norm(x), expected, rtol=1e-10)


def test_a_batch_norm_in_several_places_stays_one() -> None:
    norm = nn.BatchNorm2d(6)
    network = FlatNetwork(nn.Sequential(nn.Conv2d(3, 6, 1), norm, nn.Sequential(norm), nn.Flatten()), "twice")
    assert network.module[1] is network.module[2][0]
    assert network.num_parameters == 24 + 12
    alone = FlatNetwork(norm, "alone")
    assert isinstance(alone.module, BatchNorm)


def test_a_batch_norm_that_does_something_else_is_refused() -> None:
    class Activated(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    with pytest.raises(UsageError, match="^network: 'mine' has the batch norm Activated, which is not one of torch's own$"):
        FlatNetwork(nn.Sequential(nn.Conv2d(3, 6, 1), Activated(6)), "mine")


def test_incomplete_modules_are_refused() -> None:
    with pytest.raises(UsageError, match="is not complete: some of its parameters get their shape at its first call"):
        FlatNetwork(nn.LazyLinear(3), "lazy")
    with pytest.raises(UsageError, match="is not one with parameters that require gradients"):
        FlatNetwork(nn.Flatten(), "empty")


def test_measuring_statistics_draws_nothing() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)).double()
    network, x, random = FlatNetwork(module, "dropping"), randn(4, 3, 5, 5), torch.get_rng_state()
    measured = network.with_parameters(theta_of(module), lambda: x)
    assert torch.allclose(measured[2].mean, module[1](x).mean((0, 2, 3)))
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(part.training for part in measured.modules())


def test_a_norm_that_is_never_called_keeps_its_statistics() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    network = FlatNetwork(Half(), "half")
    measured = network.with_parameters(network.initial(generator(0)), lambda: torch.rand(2, 3, 4, 4))
    assert measured.unused.variance.tolist() == [1, 1, 1]
    assert measured.used.variance.max() < 1


class Unusual(nn.Module):
    """Tied weights, a frozen parameter, a buffer that is read, and two that every call writes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 6, bias=False)
        self.decoder = nn.Linear(6, 6)
        self.decoder.weight = self.encoder.weight
        self.fixed = nn.Parameter(torch.arange(6.0), requires_grad=False)
        self.register_buffer("offset", torch.linspace(0, 1, 6))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("running", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.running.mul_(0.9).add_(x.detach().mean(0))
        return self.decoder(self.encoder(x + self.offset).relu() * self.fixed)


def test_shared_and_frozen_parameters_and_buffers() -> None:
    module = Unusual()
    network = FlatNetwork(module, "unusual")
    assert list(network.shapes) == ["encoder.weight", "decoder.bias"]
    assert network.num_parameters == 42
    theta, x = randn(42), randn(3, 6, seed="x")
    weight, bias = theta[:36].view(6, 6), theta[36:]
    hidden = ((x + module.offset) @ weight.t()).relu() * module.fixed
    assert torch.allclose(network(theta, x), hidden @ weight.t() + bias, atol=1e-6)  # the offset has single precision

    def loss(theta: Tensor) -> Tensor:
        return network(theta, x).square().sum()

    leaf = theta.clone().requires_grad_()
    expected = torch.autograd.grad(loss(leaf), leaf)[0]
    assert torch.allclose(vmap(grad(loss))(theta[None])[0], expected)
    step = 1e-6 * randn(42, seed="step")
    assert (loss(theta + step) - loss(theta - step)).item() == pytest.approx(2 * (expected @ step).item(), rel=1e-4)
    assert network.module.calls == 0
    assert network.module.running.abs().sum() == 0
    held = network.with_parameters(theta)
    assert held.encoder.weight is held.decoder.weight
    assert torch.allclose(held(x), network(theta, x))
    assert held.calls == 1
    assert len(network.initial(generator(0, "a"))) == 42


def test_a_look_at_a_network_changes_neither_buffers_nor_chance() -> None:
    module = nn.Sequential(nn.Flatten(), Unusual(), spectral_norm(nn.Linear(6, 6)), nn.Dropout(0.5))
    for given in (module, lambda num_classes: copy.deepcopy(module)):
        random = torch.get_rng_state()
        network = flat_network(given, (1, 2, 3), 6)
        assert output_sizes(network, (1, 2, 3))[-1] == 6
        for kept in (network.module, network._still):
            assert all(torch.equal(value, module.get_buffer(name)) for name, value in kept.named_buffers())
        assert network.module[1].calls == module[1].calls == 0
        assert torch.equal(torch.get_rng_state(), random)


class Scaled(nn.Module):
    """A module whose way to reset itself asks for more."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))

    def reset_parameters(self, scale: float) -> None:
        nn.init.constant_(self.gain, scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def test_a_module_that_cannot_be_reset_is_refused_in_a_line() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), Scaled())
    said = (
        r"^network: 'Sequential' has a part that cannot be reset, which raised TypeError: .*reset_parameters\(\) missing 1 required"
    )
    for given in (module, lambda num_classes: module):
        with pytest.raises(UsageError, match=said):
            flat_network(given, (3, 2, 2), 4)
    made = flat_network(lambda num_classes: copy.deepcopy(module), (3, 2, 2), 4)  # what makes it anew needs no reset
    assert made.initial(generator(0, "a"))[-4:].tolist() == [1] * 4


def test_initial_values_of_convolutions_linear_layers_and_norms_are_drawn_in_their_order() -> None:
    network = flat_network("ConvNetD2-w4-batchnorm", (3, 8, 8), 5)
    draws, parts = generator(3, "a"), []
    for inputs, outputs, norm in ((27, 4, True), (36, 4, True), (16, 5, False)):
        bound = 1 / math.sqrt(inputs)
        sizes = (outputs * inputs, outputs)
        parts += [torch.rand(size, generator=draws, dtype=torch.float32) * 2 * bound - bound for size in sizes]
        parts += [torch.ones(4), torch.zeros(4)] if norm else []
    found = network.initial(generator(3, "a"))
    assert found.dtype == torch.get_default_dtype() and torch.equal(found, torch.cat(parts).to(found))


def test_initial_values_have_the_default_type_and_are_the_same_in_each() -> None:
    network = flat_network("ConvNetD2-w4-batchnorm", (3, 8, 8), 5)
    remade = flat_network(lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(192, classes)), (3, 8, 8), 5)
    found = {}
    for dtype in (torch.float32, torch.float64):
        with default_type(dtype):
            found[dtype] = network.initial(generator(3, "a"))
            for one in (network, remade):
                assert one(one.initial(generator(3, "a")), torch.rand(2, 3, 8, 8)).dtype == dtype
    assert torch.equal(found[torch.float32].double(), found[torch.float64])


class Token(nn.Module):
    """A parameter of a module that cannot reset itself."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((5,), 0.25))


class Own(nn.Module):
    """A module with a way of its own to reset its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.LayerNorm(2)

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.linear.weight, 10, 11)


def test_initial_values_of_other_modules_are_their_own() -> None:
    parts = {
        "conv1": nn.Conv1d(4, 3, 2),
        "transposed": nn.ConvTranspose2d(4, 3, 2),
        "layer": nn.LayerNorm(7),
        "embedding": nn.Embedding(50, 8),
        "prelu": nn.PReLU(3),
        "token": Token(),
        "own": Own(),
        "attention": nn.MultiheadAttention(8, 2),
        "conv2": nn.Conv2d(3, 2, 1),
        "recurrent": nn.GRU(3, 4),
    }
    module = nn.ModuleDict(parts)
    for value in module.parameters():
        if value.numel() != 5:
            nn.init.constant_(value, 99)
    network, random = FlatNetwork(module, "zoo"), torch.get_rng_state()
    theta = network.initial(generator(0, "a"))
    named = network.parameters(theta)
    assert (theta != 99).all()
    for name, bound in {"conv1": 8**-0.5, "transposed": 12**-0.5, "conv2": 3**-0.5}.items():
        for value in (named[f"{name}.weight"], named[f"{name}.bias"]):
            assert 0 < value.abs().max() <= bound
    assert named["layer.weight"].unique().tolist() == [1]
    assert named["layer.bias"].unique().tolist() == [0]
    assert named["embedding.weight"].std().item() == pytest.approx(1, abs=0.15)
    assert named["prelu.weight"].unique().tolist() == [0.25]
    assert named["token.token"].unique().tolist() == [0.25]
    assert named["own.linear.weight"].min() >= 10
    assert named["own.linear.bias"].abs().max() <= 3**-0.5
    assert 0 < named["attention.in_proj_weight"].abs().max() <= math.sqrt(6 / 32)
    assert named["attention.out_proj.bias"].unique().tolist() == [0]
    assert 0 < named["recurrent.weight_ih_l0"].abs().max() <= 0.5
    # They follow the generator alone, and nothing else changes.
    assert torch.equal(theta, network.initial(generator(0, "a")))
    other = network.parameters(network.initial(generator(1, "a")))
    for name in ("conv1.weight", "embedding.weight", "own.linear.weight", "attention.in_proj_weight", "conv2.weight"):
        assert not torch.equal(named[name], other[name])
    assert torch.equal(torch.get_rng_state(), random)
    assert (network.module["embedding"].weight == 99).all()


def test_parametrised_and_strangely_named_parts_do_not_get_in_the_way() -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2))
    module.stages = [3, 4, 6, 3]  # what other networks call something of theirs
    network = FlatNetwork(module, "normed weights")
    assert network.stages() is None
    theta = theta_of(module)
    assert torch.allclose(network(theta, torch.ones(1, 4)), module(torch.ones(1, 4)))
    assert network.initial(generator(0, "a")).isfinite().all()


def test_attention_has_second_derivatives() -> None:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 8))
            self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens: Tensor = self.encoder(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
            return tokens[:, 0]

    network, x = FlatNetwork(Attentive(), "attentive"), randn(2, 3, 8)
    size = network.num_parameters
    theta = network.initial(generator(0, "a")).double() + 0.1 * randn(size)
    product = vjp(grad(lambda theta: network(theta, x).square().sum()), theta)[1]
    u, v = randn(size, seed="u"), randn(size, seed="v")
    assert torch.isclose(u @ product(v)[0], v @ product(u)[0], rtol=1e-9)
    assert product(v)[0][network.slices["token"]].norm() > 1e-3


@pytest.mark.parametrize("name", ["ConvNetD2-w4-batchnorm", "ResNet18-w4", "VGG11-w4", "AlexNet-w4", "LeNet", "MLP-w4"])
def test_networks_can_be_sent_to_a_worker(name: str) -> None:
    network = flat_network(name, (3, 32, 32), 4)
    again = pickle.loads(pickle.dumps(network))
    theta, x = network.initial(generator(0, "a")), torch.rand(2, 3, 32, 32)
    assert torch.equal(again.initial(generator(0, "a")), theta)
    assert torch.equal(again(theta, x), network(theta, x))
    assert again.name == name


def test_statistics_do_not_drown_in_a_large_mean() -> None:
    """σ = 0.05 about 1000: the difference of two sums of squares would have no digit of it."""
    norm = convert_batch_norms(nn.BatchNorm2d(2), "norm")
    noise = torch.randn(300, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = (1000 + 0.05 * noise).float()
    measure_statistics(norm, images, 128)
    wanted = images.double()
    assert isinstance(norm, BatchNorm)
    assert torch.allclose(norm.mean.double(), wanted.mean((0, 2, 3)), rtol=1e-7)
    assert torch.allclose(norm.variance.double(), wanted.var((0, 2, 3), correction=0), rtol=1e-3)
