"""Networks by name, and their parameters as one vector."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm

from limbeck.networks.batch_norm import BatchNorm
from limbeck.networks.convnet import ConvNet
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.networks.names import build_network, same_network, usual_name
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator


def test_the_published_convnet_has_its_published_size() -> None:
    # 3·128·9 + 128, two of 128·128·9 + 128, three norms of 256, and the head 2048·10 + 10: 320 010 for CIFAR-10.
    assert flat_network("ConvNetD3", (3, 32, 32), 10).num_parameters == 320_010
    assert (
        flat_network("ConvNetD5", (3, 128, 128), 10).num_parameters
        == 128 * 27 + 128 + 4 * (128 * 1152 + 128) + 5 * 256 + 128 * 16 * 10 + 10
    )

    # MNIST's, whose 28×28 become 32×32: 9·128 + 128 in the first block, and the head as for CIFAR-10.
    assert flat_network("ConvNetD3", (1, 28, 28), 10).num_parameters == 317_706


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_28_pixels_are_padded_to_32_by_the_first_convolution(channels: int) -> None:
    """Torch's own layers, in float64."""
    network = flat_network("ConvNetD3-w6", (channels, 28, 28), 4)
    theta = network.initial(generator(0, "padded")).double()
    inputs = (channels, 6, 6)
    parts = [
        (nn.Conv2d(size, 6, 3, padding=3 if number == 0 else 1), nn.GroupNorm(6, 6), nn.ReLU(), nn.AvgPool2d(2))
        for number, size in enumerate(inputs)
    ]
    plain = nn.Sequential(*(part for block in parts for part in block), nn.Flatten(), nn.Linear(6 * 4 * 4, 4)).double()
    nn.utils.vector_to_parameters(theta, plain.parameters())
    x = torch.randn(5, channels, 28, 28, dtype=torch.float64, generator=generator(0, "x"))
    torch.testing.assert_close(network(theta, x), plain(x), rtol=1e-12, atol=1e-12)
    # Others are not: 28 → 14 → 7 → 3, and of 30 rows 3 are left too.
    assert flat_network("ConvNetD3-w6", (channels, 28, 30), 4).shapes["classifier.weight"] == (4, 6 * 3 * 3)
    build_network("ConvNetD5", channels, 28, 28, 4)  # 32 can be halved five times
    with pytest.raises(UsageError, match="28×30 pixels are not at least 32×32"):
        build_network("ConvNetD5", channels, 28, 30, 4)


@pytest.mark.parametrize(
    ("name", "norm", "pool", "activation"),
    [
        ("ConvNetD1", nn.GroupNorm, nn.AvgPool2d, nn.ReLU),
        ("ConvNetD2-w12-batchnorm-maxpool-leaky", BatchNorm, nn.MaxPool2d, nn.LeakyReLU),
        ("ConvNetD2-sigmoid-nopool-w4-nonorm", nn.Identity, nn.Identity, nn.Sigmoid),
        ("ConvNetD2-groupnorm-w8", nn.GroupNorm, nn.AvgPool2d, nn.ReLU),
    ],
)
def test_names_choose_the_parts(name: str, norm: type, pool: type, activation: type) -> None:
    network = build_network(name, 1, 13, 18, 5)
    assert isinstance(network, ConvNet)
    assert isinstance(network.blocks[0], nn.Sequential)
    assert [type(part) for part in network.blocks[0]] == [nn.Conv2d, norm, activation]
    assert type(network.pool) is pool
    assert network(torch.randn(2, 1, 13, 18)).shape == (2, 5)


def test_instance_and_group_norm() -> None:
    for name, groups in (("ConvNetD1-w8", 8), ("ConvNetD1-w8-groupnorm", 4)):
        norm = build_network(name, 3, 8, 8, 2).get_submodule("blocks.0.1")
        assert isinstance(norm, nn.GroupNorm)
        assert norm.num_groups == groups


@pytest.mark.parametrize(
    "name",
    ["ConvNet", "ConvNetD0", "ConvNetD9", "ConvNetD3-w0", "ConvNetD3-w8-w9", "ConvNetD3-blue", "ConvNetD3-w6-groupnorm", "ResNet"],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"^network: "):
        build_network(name, 3, 32, 32, 10)


def test_images_too_small_are_refused() -> None:
    with pytest.raises(UsageError, match=r"halves the image 4 times: 32×15 pixels are not at least 16×16"):
        build_network("ConvNetD4", 3, 32, 15, 10)


def test_the_flat_vector_is_the_module() -> None:
    network = flat_network("ConvNetD2-w8", (3, 8, 12), 4)
    theta, x = network.initial(generator(0, "a")), torch.randn(5, 3, 8, 12)
    module = network.with_parameters(theta)
    assert torch.equal(torch.cat([value.flatten() for value in module.parameters()]), theta)
    assert torch.equal(module(x), network(theta, x))
    for name, part in network.slices.items():
        assert torch.equal(theta[part], module.get_parameter(name).flatten())


def test_initial_parameters_follow_the_bounds_and_the_seed() -> None:
    network = flat_network("ConvNetD2-w64", (3, 16, 16), 10)
    theta = network.initial(generator(0, "a"))
    assert torch.equal(theta, network.initial(generator(0, "a")))
    assert not torch.equal(theta, network.initial(generator(1, "a")))
    named = network.parameters(theta)
    for name, inputs in (("blocks.0.0", 27), ("blocks.1.0", 64 * 9), ("classifier", 64 * 16)):
        bound, weight = 1 / math.sqrt(inputs), named[f"{name}.weight"]
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert named[f"{name}.bias"].abs().max() <= bound
    assert named["blocks.0.1.weight"].unique().tolist() == [1]
    assert named["blocks.0.1.bias"].unique().tolist() == [0]


def test_batch_norm_equals_torch_in_both_modes() -> None:
    norm, x = BatchNorm(6).double(), torch.randn(9, 6, 4, 5, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    assert torch.allclose(norm(x), batch_norm(x, None, None, norm.weight, norm.bias, training=True), atol=1e-12)
    network = FlatNetwork(nn.Sequential(norm), "one norm")
    theta = torch.cat([norm.weight.detach(), norm.bias.detach()])
    module = network.with_parameters(theta, statistics_from=lambda: x)
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    one = torch.randn(1, 6, 4, 5, dtype=torch.float64)
    assert torch.allclose(module(one), batch_norm(one, mean, variance, norm.weight, norm.bias), atol=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ConvNetD3", "ConvNetD3-w128", True),
        ("ConvNetD3-relu-avgpool", "ConvNetD3-instancenorm", True),
        ("ResNet18BN", "ResNet18-batchnorm-w64", True),
        ("AlexNet", "AlexNet-nonorm", True),
        ("LeNet", "LeNet", True),
        ("MLP", "MLP-w128", True),
        ("ConvNetD3", "ConvNetD4", False),
        ("ConvNetD3", "ConvNetD3-w64", False),
        ("AlexNet", "AlexNet-instancenorm", False),
        ("package.module:a", "package.module:b", False),
        ("Small", "Small", True),
        ("Small", "ConvNetD3", False),
    ],
)
def test_a_network_is_what_it_is_however_it_is_spelt(one: str, other: str, same: bool) -> None:
    assert same_network(one, other) is same_network(other, one) is same
    assert usual_name(usual_name(other)) == usual_name(other)


def test_the_usual_name_is_the_shortest_and_builds_the_same() -> None:
    names = {"ConvNetD3-relu-w128": "ConvNetD3", "ConvNetD2-sigmoid-nonorm-w8": "ConvNetD2-w8-nonorm-sigmoid"}
    names["VGG11BN"] = "VGG11-batchnorm"
    for name, usual in names.items():
        assert usual_name(name) == usual
        assert str(build_network(name, 3, 32, 32, 5)) == str(build_network(usual, 3, 32, 32, 5))
