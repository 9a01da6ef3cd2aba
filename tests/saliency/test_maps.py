"""Activation maps against plain loops, and that the map network is left as it was."""

from functools import partial

import pytest
import torch
from reference.grad_cam import grad_cam, layer_cam, smooth_grad_cam_pp, to_unit, upsampled
from torch import Tensor, nn
from torchcam import methods

from limbeck.networks.names import build_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator
from limbeck.saliency.maps import FunctionCam, TorchCam, find_layers, has_maps

HEIGHT, WIDTH, CLASSES = 8, 12, 3
CAMS = ["gradcam", "smooth_gradcam_pp", "layercam", "average"]


class Small(nn.Module):
    """Two blocks, each followed by a pooling, and a linear head; dropout and batch norm have two modes."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Dropout(0.5))
        second = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.GroupNorm(5, 5), nn.LeakyReLU())
        self.blocks = nn.ModuleList([first, second])
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(5 * (HEIGHT // 4) * (WIDTH // 4), CLASSES)

    def front(self, depth: int, x: Tensor) -> Tensor:
        """The output of block `depth`."""
        return self.blocks[0](x) if depth == 0 else self.blocks[1](self.pool(self.blocks[0](x)))

    def back(self, depth: int, a: Tensor) -> Tensor:
        """The logits from that output on."""
        a = self.pool(a)
        return self.head((self.pool(self.blocks[1](a)) if depth == 0 else a).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.back(1, self.front(1, x))


def small(seed: int = 0) -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Small().double().eval()


def some_images(number: int = 5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(number, 2, HEIGHT, WIDTH, generator=g, dtype=torch.float64)
    return x, torch.randint(CLASSES, (number,), generator=g)


def plain_maps(network: Small, depths: list[int], cam) -> Tensor:
    """The mean over layers of `cam(i, front, back)` brought to [0, 1] and to the images' size."""
    maps = []
    for i in range(5):
        parts = []
        for depth in depths:
            values = cam(i, lambda x, depth=depth: network.front(depth, x), lambda a, depth=depth: network.back(depth, a))
            parts.append(torch.from_numpy(upsampled(to_unit(values), HEIGHT, WIDTH)))
        maps.append(sum(parts) / len(parts))
    return torch.stack(maps)


LAYERS = {"last": [1], "blocks.0": [0], "blocks.0+last": [0, 1]}


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("frozen", [False, True])
def test_gradcam_is_the_formula(layers, frozen):
    network, (x, classes) = small(), some_images()
    expected = plain_maps(network, LAYERS[layers], lambda i, front, back: grad_cam(x[i], front, back, classes[i]))
    network.requires_grad_(not frozen)
    maps = TorchCam(layer=layers, batch_size=2)(network, x, classes, generator(0))
    assert expected.amax() > 0.5
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layers", LAYERS)
def test_layercam_is_the_formula(layers):
    network, (x, classes) = small(), some_images()
    expected = plain_maps(network, LAYERS[layers], lambda i, front, back: layer_cam(x[i], front, back, classes[i]))
    chosen = TorchCam("layercam", layers, batch_size=2)
    maps = chosen(network, x, classes, generator(0))
    assert expected.amax() > 0.5
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-12)


def noises(x: Tensor) -> Tensor:
    """The noise of `generator(7)` on images that are taken two at a time, with shape (N, 4, C, H, W)."""
    drawn, found = generator(7), []
    for images in x.split(2):
        noise = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, (), generator=drawn)))
        zeros = torch.zeros(images.shape, dtype=torch.float32)  # as torch-cam draws it
        found.append(torch.stack([torch.normal(zeros, 0.3, generator=noise) for _ in range(4)], 1).double())
    return torch.cat(found)


@pytest.mark.parametrize("layers", ["last", "blocks.0+last"])
def test_the_average_is_that_of_the_three_maps_each_brought_to_unit_range(layers):
    network, (x, classes) = small(), some_images()
    noise = noises(x)
    cams = (
        lambda i, front, back: grad_cam(x[i], front, back, classes[i]),
        lambda i, front, back: smooth_grad_cam_pp(x[i], noise[i], front, back, classes[i]),
        lambda i, front, back: layer_cam(x[i], front, back, classes[i]),
    )
    parts = [plain_maps(network, LAYERS[layers], cam) for cam in cams]
    assert min((parts[a] - parts[b]).abs().amax().item() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.01
    chosen = TorchCam("average", layers, batch_size=2)
    maps = chosen(network, x, classes, generator(7))
    torch.testing.assert_close(maps, sum(parts) / 3, rtol=0, atol=1e-10)


@pytest.mark.parametrize("layers", LAYERS)
def test_smooth_gradcam_pp_is_the_formula_with_the_same_noise(layers):
    network, (x, classes) = small(), some_images()
    noise_of = noises(x)
    expected = plain_maps(network, LAYERS[layers], lambda i, f, b: smooth_grad_cam_pp(x[i], noise_of[i], f, b, classes[i]))
    chosen = TorchCam("smooth_gradcam_pp", layers, batch_size=2)
    maps = chosen(network, x, classes, generator(7))
    assert abs(noise_of.std().item() - 0.3) < 0.015
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-10)


def test_smooth_noise_follows_the_generator_and_not_the_global_one():
    network, (x, classes) = small(), some_images()
    chosen, maps = TorchCam("smooth_gradcam_pp"), []
    with torch.random.fork_rng(devices=[]):
        for global_seed, key in [(1, 5), (2, 5), (2, 6)]:
            torch.manual_seed(global_seed)
            before = torch.get_rng_state()
            maps.append(chosen(network, x, classes, generator(0, key)))
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[1], maps[2])


@pytest.mark.parametrize("cam", CAMS)
def test_maps_are_values_between_0_and_1_of_the_images_type(cam):
    network, (x, classes) = small().float(), some_images()
    with torch.no_grad():
        maps = TorchCam(cam)(network, x.float().requires_grad_(), classes, generator(0))
    assert maps.shape == (5, HEIGHT, WIDTH)
    assert maps.dtype == torch.float32 and not maps.requires_grad
    assert maps.amin() >= 0 and maps.amax() <= 1


def test_torchs_default_type_changes_nothing():
    """In which torch-cam draws its noise: a network in single precision could not take it in double."""
    network, (x, classes), usual = small().float(), some_images(), torch.get_default_dtype()
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found.append(TorchCam("smooth_gradcam_pp")(network, x.float(), classes, generator(0)))
            assert torch.get_default_dtype() == dtype
        finally:
            torch.set_default_dtype(usual)
    assert torch.equal(*found)


@pytest.mark.parametrize("cam", CAMS)
def test_a_network_without_preference_gives_zeros(cam):
    network, (x, classes) = small(), some_images()
    nn.init.zeros_(network.head.weight)
    maps = TorchCam(cam)(network, x, classes, generator(0))
    assert torch.equal(maps, torch.zeros_like(maps))


def test_a_map_of_equal_values_is_zeros():
    network, (x, classes) = small(), some_images()
    nn.init.zeros_(network.blocks[1][0].weight)
    nn.init.ones_(network.blocks[1][1].bias)
    nn.init.ones_(network.head.weight)
    maps = TorchCam()(network, x, classes, generator(0))
    assert torch.equal(maps, torch.zeros_like(maps))


def test_maps_of_small_gradients_reach_as_far():
    network, (x, classes) = small(), some_images()
    before = TorchCam()(network, x, classes, generator(0))
    with torch.no_grad():
        network.head.weight *= 1e-12
    torch.testing.assert_close(TorchCam()(network, x, classes, generator(0)), before, rtol=0, atol=1e-9)


def state_of(network: nn.Module) -> list[object]:
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks) for part in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]
    gradients = [None if parameter.grad is None else parameter.grad.tolist() for parameter in network.parameters()]
    values = [value.tolist() for value in network.state_dict().values()]
    return [hooks, flags, gradients, values, [part.training for part in network.modules()]]


def unusual() -> Small:
    """A network whose parts differ in mode, in being frozen and in having a gradient."""
    network = small().train()
    network.blocks[1].eval()
    network.blocks[0][0].requires_grad_(False)
    network.head.weight.grad = torch.ones_like(network.head.weight)
    return network


@pytest.mark.parametrize("cam", CAMS)
def test_the_network_is_left_as_it_was(cam):
    network, (x, classes) = unusual(), some_images()
    before = state_of(network)
    maps = TorchCam(cam)(network, x, classes, generator(0))
    assert state_of(network) == before
    assert torch.equal(maps, TorchCam(cam)(network.eval(), x, classes, generator(0)))


@pytest.mark.parametrize("cam", CAMS)
def test_the_network_is_left_as_it_was_after_an_error(cam):
    network, (x, _) = unusual(), some_images()
    before, random = state_of(network), torch.get_rng_state()
    with pytest.raises(RuntimeError):
        TorchCam(cam)(network, x, torch.full((5,), CLASSES), generator(0))
    assert state_of(network) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_last_is_the_last_block_of_a_convnet():
    network = build_network("ConvNetD2-w4", 3, 8, 8, 2)
    assert find_layers(network, torch.zeros(1, 3, 8, 8), "last") == ["blocks.1"]
    assert find_layers(network, torch.zeros(1, 3, 8, 8), "blocks.0.0+last") == ["blocks.0.0", "blocks.1"]


def test_last_is_elsewhere_the_last_output_with_more_than_one_pixel():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    assert find_layers(network, torch.zeros(1, 1, 8, 8), "last") == ["1"]


@pytest.mark.parametrize("name", ["blocks.2", "head", "", "blocks.0+", "blocks", "blocks.0,last"])
def test_a_layer_without_a_map_is_refused_with_the_names_that_have_one(name):
    network, (x, classes) = unusual(), some_images()
    before = state_of(network)
    with pytest.raises(UsageError) as error:
        TorchCam(layer=name)(network, x, classes, generator(0))
    accepted = "last or, joined by +, some of blocks.0, blocks.1, pool or modules inside them"
    assert str(error.value) == f"enhance.cam_layer: {name!r} is not {accepted}"
    assert state_of(network) == before


def test_a_network_without_images_inside_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(HEIGHT * WIDTH * 2, 2)).double()
    with pytest.raises(UsageError, match=r"enhance\.cam_layer: the map network Sequential has no layer"):
        TorchCam()(network, *some_images(), generator(0))


def pooled() -> nn.Module:
    """A network that pools globally before its one linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)]
        return nn.Sequential(*parts).double().train()


OTHERS = [name for name, value in vars(methods).items() if isinstance(value, type)]
ASKING = {"CAM": "RuntimeError", "LeGrad": "ValueError", "RefineCAM": "ValueError"}


@pytest.mark.parametrize("kind", OTHERS)
def test_each_of_torch_cams_classes_makes_maps_or_is_refused_with_its_reason(kind):
    network, (x, classes) = unusual(), some_images()
    before, random = state_of(network), torch.get_rng_state()
    cam = TorchCam(kind, batch_size=2)
    if kind in ASKING:
        for refused in (lambda: cam(network, x, classes, generator(0)), lambda: cam.check(network, x)):
            with pytest.raises(UsageError) as error:
                refused()
            assert str(error.value).startswith(
                f"enhance.cam: {kind!r} makes no maps of Small at blocks.1: torch-cam raised {ASKING[kind]}: "
            )
            assert "\n" not in str(error.value)
    else:
        cam.check(network, x)
        maps, again = (cam(network, x, classes, generator(0, "maps")) for _ in range(2))
        assert torch.equal(maps, again) and not maps.requires_grad
        assert maps.shape == (5, HEIGHT, WIDTH) and maps.amin() >= 0 and 0.5 < maps.amax() <= 1
    assert state_of(network) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_what_a_class_asks_for_can_be_given():
    network, (x, classes) = pooled(), some_images()
    weights = network[4].weight[classes].detach()
    with torch.no_grad():
        plain = (weights[:, :, None, None] * network[:2](x)).sum(1)
    maps = TorchCam("CAM", "1")(network, x, classes, generator(0))
    for one, expected in zip(maps, plain, strict=True):
        torch.testing.assert_close(one, torch.from_numpy(to_unit(expected.numpy())), rtol=0, atol=1e-12)
    refined = TorchCam("RefineCAM", "blocks.0+last")(small(), x, classes, generator(0))
    assert refined.shape == (5, HEIGHT, WIDTH) and refined.amax() == 1


def test_a_flat_map_below_zero_is_zeros():
    network, (x, classes) = pooled(), some_images()
    nn.init.zeros_(network[0].weight)
    nn.init.ones_(network[0].bias)
    nn.init.constant_(network[4].weight, -1.0)
    assert not TorchCam("CAM", "1")(network, x, classes, generator(0)).any()


@pytest.mark.parametrize("kind", ["XGradCam", "core", "torch", "OutputTarget", "_CAM", ""])
def test_what_torch_cam_does_not_have_is_refused(kind):
    with pytest.raises(UsageError) as error:
        TorchCam(kind)(small(), *some_images(), generator(0))
    assert str(error.value).startswith(
        f"enhance.cam: {kind!r} is not one of gradcam, smooth_gradcam_pp, layercam, average or of torch-cam's "
    )
    assert "XGradCAM" in str(error.value)


def brightness(module: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """A map of one's own: with noise, of a module in evaluation mode whose parameters are frozen."""
    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    noisy = x.mean(1) + classes[:, None, None] + torch.randn(x.shape[0], *x.shape[2:])
    return noisy.sigmoid()


def test_a_function_of_ones_own_makes_maps_repeatably_and_leaves_the_network_as_it_was():
    network, (x, classes) = unusual(), some_images()
    before, random = state_of(network), torch.get_rng_state()
    maps, again, other = (FunctionCam(brightness)(network, x, classes, generator(0, key)) for key in (1, 1, 2))
    assert torch.equal(maps, again) and not torch.equal(maps, other)
    assert state_of(network) == before
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda module, x, classes: x,
        lambda module, x, classes: x[:, 0],
        lambda module, x, classes: 2 + x[:, 0].sigmoid(),
        lambda module, x, classes: x[:1, 0].sigmoid(),
        lambda module, x, classes: torch.full_like(x[:, 0], torch.nan),
        lambda module, x, classes: x[:, 0].sigmoid().numpy(),
    ],
)
def test_maps_of_ones_own_of_another_shape_or_range_are_refused(wrong):
    with pytest.raises(UsageError) as error:
        FunctionCam(wrong)(small(), *some_images(), generator(0))
    assert str(error.value) == "enhance.cam: '<lambda>' is not a function that gives maps in [0, 1] with shape (5, 8, 12)"


def test_maps_of_ones_own_may_reach_both_ends_of_the_range():
    network, (x, classes) = small(), some_images()
    halves = (x[:, 0] > 0).to(x)
    assert torch.equal(FunctionCam(lambda module, x, classes: halves)(network, x, classes, generator(0)), halves)


def test_a_function_without_a_name_is_called_by_its_type():
    with pytest.raises(UsageError, match="^enhance.cam: 'partial' is not a function that gives maps"):
        FunctionCam(partial(lambda module, x, classes: x))(small(), *some_images(), generator(0))


def test_whether_there_are_maps_is_whether_the_layer_is_there():
    images = some_images()[0]
    assert has_maps(small(), images, TorchCam()) and has_maps(small(), images[:1], TorchCam(layer="blocks.0"))
    assert not has_maps(small(), images, TorchCam(layer="blocks.7"))
