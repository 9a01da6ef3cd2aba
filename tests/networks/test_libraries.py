"""Networks of timm, torchvision and transformers by name: made for the images at hand, or refused in a line."""

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from limbeck.networks.batch_norm import BatchNorm
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.networks.names import check_network_name, usual_name
from limbeck.runs.strangers import code_in
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator

SHAPE = (3, 8, 8)


class BatchNormAct2d(nn.BatchNorm2d):
    """As timm's: it drops and activates, too."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(x)))


def small(num_classes: int, in_chans: int = 3, **told: Any) -> nn.Module:
    made = nn.Sequential(
        nn.Conv2d(in_chans, 4, 3), BatchNormAct2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    )
    made.told = told  # type: ignore[assignment]
    return made


def create(name: str, pretrained: bool = True, num_classes: int = 1000, in_chans: int = 3, **told: Any) -> nn.Module:
    assert not pretrained
    if name == "conv" and "img_size" in told:
        raise TypeError("__init__() got an unexpected keyword argument 'img_size'")
    made = small(num_classes, in_chans, **told)
    if name == "vit":
        height, width = told["img_size"]
        made.patch_embed = SimpleNamespace(num_patches=height // 16 * (width // 16))  # type: ignore[assignment]
    return made


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = ModuleType("timm")
    found.create_model, found.is_model, found.list_models = create, lambda name: name in ("conv", "vit"), lambda: ["conv", "vit"]
    monkeypatch.setitem(sys.modules, "timm", found)


def grads(network: FlatNetwork, channels: int = 3) -> torch.Tensor:
    """The derivative by images of the squared gradient by parameters, which matching needs."""
    theta = network.initial(generator(0, "theta")).requires_grad_()
    x = torch.rand(4, channels, 8, 8, generator=generator(0, "x")).requires_grad_()
    (g,) = torch.autograd.grad(network(theta, x).square().sum(), theta, create_graph=True)
    (second,) = torch.autograd.grad(g.square().sum(), x)
    return second


@pytest.mark.usefixtures("timm")
def test_timms_are_made_for_the_images_with_pure_norms() -> None:
    network = flat_network("timm:conv", (1, 8, 8), 5)
    assert network.name == usual_name("timm:conv") == "timm:conv"
    assert network.has_batch_norm and any(type(part) is BatchNorm for part in network.module.modules())
    assert network(network.initial(generator(0, "a")), torch.rand(2, 1, 8, 8)).shape == (2, 5)
    assert grads(network, 1).abs().sum() > 0
    one, other, again = (network.initial(generator(seed, "a")) for seed in (0, 1, 0))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert network.structure == flat_network("timm:conv", (1, 8, 8), 5).structure is not None


@pytest.mark.usefixtures("timm")
def test_a_norm_that_activates_stays_what_it_was() -> None:
    torch.manual_seed(0)
    network = flat_network("timm:conv", SHAPE, 5)
    theta, x = network.initial(generator(0, "a")), torch.rand(6, *SHAPE)
    plain = small(5)
    for (_, own), ours in zip(plain.named_parameters(), network.parameters(theta).values(), strict=True):
        own.data.copy_(ours)
    torch.testing.assert_close(network(theta, x), plain(x))


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("timm:con", SHAPE, "network: 'timm:con' is no network of timm; near it are conv"),
        ("timm:hf_hub:somebody/something", SHAPE, "network: 'timm:hf_hub:somebody/something' is no network of timm"),
        ("timm:vit", SHAPE, "network: 'timm:vit' is not one whose patches fit into images of 8×8 pixels"),
        ("transformers:nowhere", SHAPE, "network: 'transformers:nowhere' is not transformers:FOLDER, a folder with"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_line(name: str, shape: tuple[int, int, int], said: str) -> None:
    check_network_name(name)
    with pytest.raises(UsageError) as caught:
        flat_network(name, shape, 5)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_missing_library_names_the_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError) as caught:
        flat_network(f"{library}:resnet18", SHAPE, 5)
    said = f"needs {library}, of the extra networks: pip install 'limbeck[networks]'"
    assert str(caught.value) == f"network: '{library}:resnet18' {said}"


def test_a_library_for_another_torch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr("limbeck.networks.libraries.import_module", broken)
    with pytest.raises(UsageError, match="'torchvision:resnet18' cannot be made: torchvision does not fit this torch: operator"):
        flat_network("torchvision:resnet18", SHAPE, 5)


def test_torchvisions_take_three_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    found, models = ModuleType("torchvision"), SimpleNamespace()
    models.list_models = lambda module: ["resnet18", "vit_b_16"]

    def get_model(name: str, weights: object, num_classes: int, **told: Any) -> nn.Module:
        assert weights is None
        made = nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
        made.told = told  # type: ignore[assignment]
        return made

    models.get_model = get_model
    found.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", found)
    assert flat_network("torchvision:resnet18", SHAPE, 5).module.told == {}
    assert flat_network("torchvision:vit_b_16", SHAPE, 5).module.told == {"image_size": 8}
    for name, shape, said in (
        ("resnet18", (1, 8, 8), "is not made for images of 1 channels: those of torchvision take 3"),
        ("vit_b_16", (3, 8, 16), "is not made for images of 8×16 pixels, but for square ones"),
        ("resnet81", SHAPE, "is no network of torchvision; near it are resnet18"),
    ):
        with pytest.raises(UsageError) as caught:
            flat_network(f"torchvision:{name}", shape, 5)
        assert str(caught.value) == f"network: 'torchvision:{name}' {said}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`vit`, a configuration; `resnet`, one with weights for three classes."""
    transformers = pytest.importorskip("transformers")
    path, vit = tmp_path_factory.mktemp("networks"), {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.ViTConfig(**vit, intermediate_size=16, image_size=64, patch_size=4).save_pretrained(path / "vit")
    resnet = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    transformers.ResNetForImageClassification(resnet).save_pretrained(path / "resnet")
    return path


def test_a_configuration_is_fitted_to_the_images(folders: Path) -> None:
    network = flat_network(f"transformers:{folders / 'vit'}", (1, 8, 8), 5)
    theta = network.initial(generator(0, "a"))
    assert network(theta, torch.rand(2, 1, 8, 8)).shape == (2, 5)
    assert network.shapes["model.vit.embeddings.position_embeddings"] == (1, 1 + 4, 8)
    assert not network.has_batch_norm
    assert grads(network, 1).abs().sum() > 0
    assert not torch.equal(theta, network.initial(generator(1, "a")))
    both = torch.func.vmap(lambda one: network(one, torch.ones(2, 1, 8, 8)))(torch.stack([theta, theta]))
    torch.testing.assert_close(both[0], network(theta, torch.ones(2, 1, 8, 8)))


def test_weights_are_where_every_network_begins(folders: Path) -> None:
    from safetensors.torch import load_file

    name = f"transformers:{folders / 'resnet'}"
    kept = load_file(folders / "resnet" / "model.safetensors")
    for classes in (3, 5):
        network = flat_network(name, SHAPE, classes)
        assert network.has_batch_norm
        for seed in (0, 1):
            begun = network.parameters(network.initial(generator(seed, "a")))
            same = {
                key
                for key, value in begun.items()
                if torch.equal(value, kept.get(key.removeprefix("model."), torch.empty(0)).float().to(value))
            }
            drawn = set() if classes == 3 else {"model.classifier.1.weight", "model.classifier.1.bias"}
            assert begun.keys() - same <= drawn | {"model.classifier.1.bias"}
        module = network.with_parameters(network.initial(generator(0, "a")), lambda: torch.rand(8, *SHAPE))
        assert module(torch.rand(2, *SHAPE)).shape == (2, classes)
    with pytest.raises(UsageError, match="is not made for images of 1 channels: its weights take 3"):
        flat_network(name, (1, 8, 8), 3)


def test_what_a_configuration_leaves_out_at_random_is_known(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"embed_dim": 4, "depths": [1, 1], "num_heads": [1, 1], "window_size": 2, "patch_size": 2}
    for share in (0.1, 0.0):  # stochastic depth, the first of them by default
        transformers.SwinConfig(**small, **({} if share else {"drop_path_rate": share})).save_pretrained(tmp_path)
        assert flat_network(f"transformers:{tmp_path}", SHAPE, 5).has_dropout is bool(share)


def test_only_a_folder_is_something_of_the_users() -> None:
    assert code_in({"network": "timm:resnet18", "eval.networks": "torchvision:vgg11, timm:vit"}) == {}
    assert code_in({"network": "transformers:folder"}) == {"network": "transformers:folder"}
    assert code_in({"eval.teacher": "mine:Net"}) == {"eval.teacher": "mine:Net"}


def _real(library: str) -> None:
    try:
        importlib.import_module(library)
    except Exception as error:  # absent, or made for another torch
        pytest.skip(f"{library}: {error}")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("timm:resnet10t", (1, 32, 32)),
        ("timm:mobilenetv2_050", (3, 32, 32)),  # whose norms activate
        ("timm:vit_tiny_patch16_224", (3, 32, 32)),
        ("torchvision:shufflenet_v2_x0_5", (3, 32, 32)),
    ],
)
def test_real_ones(name: str, shape: tuple[int, int, int]) -> None:
    _real(name.partition(":")[0])
    network = flat_network(name, shape, 5)
    theta, x = network.initial(generator(0, "a")), torch.rand(2, *shape)
    theta.requires_grad_()
    logits = network(theta, x)
    assert logits.shape == (2, 5)
    (g,) = torch.autograd.grad(logits.square().sum(), theta, create_graph=True)
    (second,) = torch.autograd.grad(g.square().sum(), theta)
    assert second.isfinite().all() and second.abs().sum() > 0
    assert network.structure == flat_network(name, shape, 5).structure
    with pytest.raises(UsageError, match="is no network of"):
        flat_network(f"{name}x", shape, 5)
