"""The networks of the field: their sizes, what they compute, and that the engine can differentiate them."""

from collections.abc import Callable

import pytest
import torch
from reference.deviation import deviation
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, instance_norm, linear, max_pool2d, relu

from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.networks.names import build_network, check_network_name
from limbeck.networks.resnet import ResNet18
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator
from limbeck.saliency.maps import find_layers

SMALL = ["ResNet18-w4", "ResNet18BN-w4", "VGG11-w4", "VGG11-w4-batchnorm", "AlexNet-w4", "AlexNet-w8-groupnorm", "LeNet", "MLP-w8"]
SIZES = [(3, 32, 32), (3, 64, 64), (3, 128, 128), (1, 28, 28), (3, 33, 47)]
CLASSES = 5


def randn(*shape: int, seed: int | str = 0) -> Tensor:
    return torch.randn(shape, generator=generator(0, "architectures", seed), dtype=torch.float64)


def point(network: FlatNetwork, seed: int = 0) -> Tensor:
    """A θ that no initialisation gives: norms scale and shift."""
    return network.initial(generator(seed, network.name)).double() + 0.05 * randn(network.num_parameters, seed=seed)


def close(value: Tensor, reference: Tensor) -> None:
    assert value.shape == reference.shape
    assert deviation(value, reference) < 1e-10


# Those with four digits behind the comma are published; others follow from the layers: (inputs · kernel² + bias) · outputs.
@pytest.mark.parametrize(
    ("name", "shape", "classes", "size"),
    [
        ("ResNet18BN", (3, 32, 32), 10, 11_173_962),
        ("ResNet18", (3, 64, 64), 10, 11_173_962),
        ("ResNet18-batchnorm", (3, 224, 224), 1000, 11_689_512),  # with the stem of ImageNet
        ("VGG11BN", (3, 32, 32), 10, 9_231_114),
        ("VGG11", (3, 128, 128), 10, 9_231_114),
        ("VGG11-nonorm", (3, 32, 32), 10, 9_231_114 - 2 * 2752),
        ("LeNet", (3, 32, 32), 10, 62_006),
        ("LeNet", (3, 64, 64), 10, 62_006),
        ("LeNet", (3, 128, 128), 10, 62_006),
        ("LeNet", (1, 28, 28), 10, 61_706),
        *(
            (
                "AlexNet",
                (3, side, side),
                10,
                76 * 128 + (128 * 25 + 1) * 192 + (192 * 9 + 1) * (256 + 192) + (256 * 9 + 1) * 192 + 30_730,
            )
            for side in (32, 64, 128)
        ),
        ("AlexNet", (1, 28, 28), 10, 26 * 128 + 614_592 + 442_624 + 442_560 + 331_968 + 30_730),
        ("AlexNetBN", (3, 32, 32), 10, 1_872_202 + 2 * (128 + 3 * 192 + 256)),
        ("MLP", (3, 32, 32), 10, 3073 * 128 + 129 * 128 + 1290),
        ("MLP-w20", (1, 28, 28), 10, 785 * 20 + 21 * 20 + 210),
    ],
)
def test_networks_have_their_sizes(name: str, shape: tuple[int, int, int], classes: int, size: int) -> None:
    with torch.device("meta"):
        module = build_network(name, *shape, classes)
    assert sum(value.numel() for value in module.parameters()) == size


class Plain:
    """A network in torch's functions alone, fed with parameters one after the other."""

    def __init__(self, theta: Tensor, norm: str) -> None:
        self.theta, self.norm = theta, norm

    def take(self, *shape: int) -> Tensor:
        size = torch.Size(shape).numel()
        taken, self.theta = self.theta[:size].view(shape), self.theta[size:]
        return taken

    def conv(self, x: Tensor, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1, bias: bool = True) -> Tensor:
        weight = self.take(outputs, x.shape[1], kernel, kernel)
        return conv2d(x, weight, self.take(outputs) if bias else None, stride, padding)

    def normed(self, x: Tensor) -> Tensor:
        if self.norm == "none":
            return x
        weight, bias = self.take(x.shape[1]), self.take(x.shape[1])
        if self.norm == "batch":
            return batch_norm(x, None, None, weight, bias, training=True)
        return instance_norm(x, weight=weight, bias=bias)

    def linear(self, x: Tensor, outputs: int) -> Tensor:
        return linear(x, self.take(outputs, x.shape[1]), self.take(outputs))

    def resnet18(self, x: Tensor, width: int) -> Tensor:
        if x.shape[2] >= 128:
            x = max_pool2d(relu(self.normed(self.conv(x, width, 7, 2, 3, bias=False))), 3, 2, 1)
        else:
            x = relu(self.normed(self.conv(x, width, 3, 2 if x.shape[2] >= 64 else 1, bias=False)))
        for factor, strides in ((1, (1, 1)), (2, (2, 1)), (4, (2, 1)), (8, (2, 1))):
            for stride in strides:
                inner = relu(self.normed(self.conv(x, factor * width, 3, stride, bias=False)))
                inner = self.normed(self.conv(inner, factor * width, bias=False))
                x = relu(inner + (self.normed(self.conv(x, factor * width, 1, stride, 0, bias=False)) if stride == 2 else x))
        return self.linear(avg_pool2d(x, 4).flatten(1), CLASSES)

    def vgg11(self, x: Tensor, width: int) -> Tensor:
        for step in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M"):
            x = max_pool2d(x, 2) if step == "M" else relu(self.normed(self.conv(x, step * width)))
        return self.linear(x.mean((2, 3)), CLASSES)

    def alexnet(self, x: Tensor, width: int) -> Tensor:
        stride, grey = {28: 1, 32: 1, 64: 2, 128: 4}[x.shape[2]], x.shape[1] == 1
        x = max_pool2d(relu(self.normed(self.conv(x, width, 5, stride, 4 if grey else 2))), 2)
        x = max_pool2d(relu(self.normed(self.conv(x, 3 * width // 2, 5, 1, 2))), 2)
        x = relu(self.normed(self.conv(x, 2 * width)))
        x = relu(self.normed(self.conv(x, 3 * width // 2)))
        x = max_pool2d(relu(self.normed(self.conv(x, 3 * width // 2))), 2)
        assert x.shape[2:] == (4, 4)
        return self.linear(x.flatten(1), CLASSES)

    def lenet(self, x: Tensor, width: int) -> Tensor:
        x = max_pool2d(relu(self.conv(x, 6, 5, {28: 1, 32: 1, 64: 2, 128: 4}[x.shape[2]], 2 if x.shape[1] == 1 else 0)), 2)
        x = max_pool2d(relu(self.conv(x, 16, 5, 1, 0)), 2)
        assert x.shape[1:] == (16, 5, 5)
        return self.linear(relu(self.linear(relu(self.linear(x.flatten(1), 120)), 84)), CLASSES)

    def mlp(self, x: Tensor, width: int) -> Tensor:
        return self.linear(relu(self.linear(relu(self.linear(x.flatten(1), width)), width)), CLASSES)


@pytest.mark.parametrize(
    ("name", "shape", "plain", "norm"),
    [
        ("ResNet18-w4", (3, 32, 32), Plain.resnet18, "instance"),
        ("ResNet18-w4", (3, 128, 128), Plain.resnet18, "instance"),
        ("ResNet18BN-w4", (1, 64, 64), Plain.resnet18, "batch"),
        ("VGG11-w4", (3, 32, 32), Plain.vgg11, "instance"),
        ("VGG11BN-w4", (3, 64, 64), Plain.vgg11, "batch"),
        ("AlexNet-w4", (3, 64, 64), Plain.alexnet, "none"),
        ("AlexNet-w4", (1, 28, 28), Plain.alexnet, "none"),
        ("AlexNet-w4-instancenorm", (3, 128, 128), Plain.alexnet, "instance"),
        ("LeNet", (1, 28, 28), Plain.lenet, "none"),
        ("LeNet", (3, 128, 128), Plain.lenet, "none"),
        ("MLP-w4", (3, 32, 32), Plain.mlp, "none"),
    ],
)
def test_networks_compute_what_torch_computes_layer_by_layer(
    name: str, shape: tuple[int, int, int], plain: Callable[[Plain, Tensor, int], Tensor], norm: str
) -> None:
    network = flat_network(name, shape, CLASSES)
    theta, x = point(network), randn(2, *shape)
    reference = Plain(theta, norm)
    expected = plain(reference, x, 4)
    assert len(reference.theta) == 0
    close(network(theta, x), expected)
    assert expected.std(0).min() > 1e-4


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("name", SMALL)
def test_every_size_gives_logits_from_features(name: str, shape: tuple[int, int, int]) -> None:
    network = flat_network(name, shape, CLASSES)
    module = network.with_parameters(network.initial(generator(0, name)))
    x = randn(2, *shape).to(torch.get_default_dtype())
    with torch.no_grad():
        logits, features = module(x), module.features(x)
        assert logits.shape == (2, CLASSES)
        assert features.shape == (2, module.classifier.in_features)
        assert torch.equal(module.classifier(features), logits)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("name", "channels", "least"),
    [
        *(("ResNet18-w4", 3, 16), ("ResNet18-w4", 1, 16), ("VGG11-w4", 3, 32), ("VGG11-w4", 1, 28), ("AlexNet-w4", 3, 8)),
        *(("AlexNet-w4-instancenorm", 3, 8), ("AlexNet-w4", 1, 4), ("LeNet", 3, 16), ("LeNet", 1, 12)),
        *(("ConvNetD2-w4", 1, 4), ("MLP-w4", 3, 1)),
    ],
)
def test_the_least_size_works_and_less_is_refused(name: str, channels: int, least: int) -> None:
    network = flat_network(name, (channels, least, least + 1), CLASSES)
    logits = network(point(network), randn(2, channels, least, least + 1))
    assert (logits[0] - logits[1]).abs().max() > 1e-6  # an instance norm of one pixel would leave nothing of an image
    if least > 1:
        with pytest.raises(UsageError, match=rf"^network: '{name}' .*{least}×{least}"):
            build_network(name, channels, least - 1, 64, CLASSES)


@pytest.mark.parametrize("name", ["ResNet18-w4", "VGG11-w4", "AlexNet-w4", "AlexNet-w4-instancenorm", "LeNet", "MLP-w8"])
def test_images_are_independent_without_batch_norm(name: str) -> None:
    network = flat_network(name, (3, 32, 32), CLASSES)
    theta, x = point(network), randn(2, 3, 32, 32)
    close(network(theta, x), torch.cat([network(theta, x[:1]), network(theta, x[1:])]))
    assert not network.has_batch_norm


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = flat_network(name, (3, 32, 32), CLASSES)
    theta = point(network).requires_grad_()
    network(theta, randn(3, 3, 32, 32)).square().sum().backward()
    assert theta.grad is not None
    for part, gradient in network.parameters(theta.grad).items():
        # A norm over a channel takes away what a bias before it adds.
        vanishes = name.startswith("VGG11") and part.startswith("blocks") and part.endswith("0.bias")
        assert bool(gradient.abs().max() < 1e-9) is vanishes, part


@pytest.mark.parametrize("name", SMALL)
def test_stacked_parameters_under_vmap_and_grad(name: str) -> None:
    network = flat_network(name, (3, 32, 32), CLASSES)
    theta, x = torch.stack([point(network, seed) for seed in (0, 1)]), randn(2, 2, 3, 32, 32)

    def loss(theta: Tensor, x: Tensor) -> Tensor:
        return network(theta, x).square().sum()

    logits = vmap(network, in_dims=(0, None))(theta, x[0])
    gradients = vmap(grad(loss))(theta, x)
    for number in range(2):
        close(logits[number], network(theta[number], x[0]))
        leaf = theta[number].clone().requires_grad_()
        close(gradients[number], torch.autograd.grad(loss(leaf, x[number]), leaf)[0])


@pytest.mark.parametrize("name", ["ResNet18-w4", "ResNet18BN-w4", "VGG11-w4", "AlexNet-w8-groupnorm"])
def test_second_derivatives_are_symmetric(name: str) -> None:
    """uᵀHv = vᵀHu, and Hv is the slope of the gradient where no ReLU changes its side."""
    network = flat_network(name, (3, 32, 32), CLASSES)
    theta, x = point(network).requires_grad_(), randn(2, 3, 32, 32)
    u, v = randn(network.num_parameters, seed="u"), randn(network.num_parameters, seed="v")

    def gradient(theta: Tensor) -> Tensor:
        found: Tensor = torch.autograd.grad(network(theta, x).square().sum(), theta, create_graph=True)[0]
        return found

    first = gradient(theta)
    hu, hv = (torch.autograd.grad(first, theta, direction, retain_graph=True)[0] for direction in (u, v))
    assert torch.isclose(u @ hv, v @ hu, rtol=1e-9)
    step = 1e-9
    slope = (gradient(theta + step * v) - gradient(theta - step * v)).detach() / (2 * step)
    assert (slope - hv).norm() < 1e-3 * hv.norm()


@pytest.mark.parametrize(("name", "synonym"), [("ResNet18BN", "ResNet18-batchnorm"), ("VGG11BN-w8", "VGG11-w8-batchnorm")])
def test_bn_behind_a_name_means_batch_norm(name: str, synonym: str) -> None:
    with torch.device("meta"):
        assert str(build_network(name, 3, 32, 32, 10)) == str(build_network(synonym, 3, 32, 32, 10))
        assert str(build_network("ConvNetD3BN", 3, 32, 32, 10)) == str(build_network("ConvNetD3-batchnorm", 3, 32, 32, 10))
        assert str(build_network("AlexNetBN", 3, 32, 32, 10)) == str(build_network("AlexNet-batchnorm", 3, 32, 32, 10))
        assert str(build_network("ResNet18", 3, 32, 32, 10)) == str(build_network("ResNet18-instancenorm", 3, 32, 32, 10))
        assert str(build_network("AlexNet", 3, 32, 32, 10)) == str(build_network("AlexNet-nonorm", 3, 32, 32, 10))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "ResNet",
            "is not a name such as .*ResNet18.*LeNet, package.module:factory, timm:NAME, torchvision:NAME or transformers:FOLDER",
        ),
        ("resnet18", "is not a name such as"),
        ("BN", "is not a name such as"),
        ("", "is not a name such as"),
        ("ResNet18-maxpool", "has the unknown part 'maxpool'; known are w<width>, instancenorm, groupnorm, batchnorm, nonorm$"),
        ("ResNet18-", "has the unknown part ''"),
        ("ResNet18BN-batchnorm", "is not a name that states its norm once"),
        ("MLPBN", "has the unknown part 'batchnorm'; known are w<width>$"),
        ("LeNet-w8", "has the unknown part 'w8'; known are none$"),
        ("AlexNet-w5", "is not of a width divisible by 2$"),
        ("AlexNet-w4-groupnorm", "is not of a width divisible by 8, as groupnorm needs$"),
        ("VGG11-groupnorm-w6", "is not of a width divisible by 4, as groupnorm needs$"),
    ],
)
def test_other_names_are_refused_with_what_is_known(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^network: '{name}' {message}"):
        check_network_name(name)


@pytest.mark.parametrize(
    ("name", "side", "layer", "pixels"),
    [
        ("ResNet18-w4", 32, "layer4", 4),
        ("ResNet18-w4", 128, "layer4", 4),
        ("VGG11-w4", 32, "blocks.7", 2),  # the pooling behind it leaves one pixel
        ("VGG11-w4", 128, "blocks.7", 8),
        ("AlexNet-w4", 32, "blocks.4", 8),
        ("AlexNet-w4", 128, "blocks.4", 8),
        ("LeNet", 32, "blocks.1", 10),
    ],
)
def test_maps_are_made_from_the_last_convolutions(name: str, side: int, layer: str, pixels: int) -> None:
    module, x = build_network(name, 3, side, side, CLASSES), torch.zeros(1, 3, side, side)
    assert find_layers(module, x, "last") == [layer]
    shapes: list[torch.Size] = []
    module.get_submodule(layer).register_forward_hook(lambda part, inputs, output: shapes.append(output.shape))
    module(x)
    assert shapes[0][2:] == (pixels, pixels)


def test_a_resnet_shrinks_large_images_in_its_stem() -> None:
    for side, kernel in ((63, 3), (64, 3), (128, 7)):
        module = build_network("ResNet18-w4", 3, side, 200, CLASSES)
        assert isinstance(module, ResNet18)
        assert isinstance(module.stem[0], nn.Conv2d)
        assert module.stem[0].kernel_size == (kernel, kernel)
