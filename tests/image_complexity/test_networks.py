"""Networks that are kept, read and matched with the data's classes."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data.pictures import Said
from image_complexity import material
from image_complexity.material import image_set, tiny_judge, workspace_of
from torch import nn

from limbeck.data.preprocessing import Identity, Normalise
from limbeck.data.registry import find_subset, wnids
from limbeck.evaluation.settings import EvalSettings
from limbeck.image_complexity import run
from limbeck.image_complexity.classifier import Classifier
from limbeck.image_complexity.maps import to_unit
from limbeck.image_complexity.networks import is_trained_here, judge, load_network, save_network, trained
from limbeck.image_complexity.pretrained import IMAGENET, own_size, pretrained
from limbeck.image_complexity.run import measure_complexity
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.networks.names import build_network
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.progress import NoProgress

SETTINGS = ComplexitySettings(network="ConvNetD1-w4-batchnorm", workers=1)


def small_workspace() -> Workspace:
    workspace = Workspace(DistillSettings(eval=EvalSettings(full_epochs=1)), NoProgress())
    workspace.data = image_set()
    return workspace


def test_a_trained_network_is_kept_and_gives_the_same_figures(tmp_path: Path) -> None:
    workspace = small_workspace()
    first = measure_complexity(SETTINGS, workspace, tmp_path / "out")
    assert first is not None
    settings = replace(SETTINGS, network=str(tmp_path / "out" / "network"))
    again = measure_complexity(settings, workspace, tmp_path / "again")
    assert again is not None
    assert again.results.complexity == first.results.complexity
    assert again.measurement.judge.identity == first.measurement.judge.identity
    assert not (tmp_path / "again" / "network").exists()
    about = json.loads((tmp_path / "out" / "network" / "network.json").read_text())["about"]
    assert about["trained_on"]["fingerprint"] == workspace.data.fingerprint
    assert 0 <= about["test_accuracy"] <= 1


def test_seed_0_takes_the_full_datas_network_and_others_another() -> None:
    workspace = small_workspace()
    evaluator = workspace.evaluator_of(workspace.network_of(SETTINGS.network))
    module = evaluator.full_data.teacher(lambda: evaluator.images_of("test"))
    own = trained(SETTINGS, workspace).module.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())
    other = trained(replace(SETTINGS, seed=1), workspace).module.state_dict()
    assert not torch.equal(other["classifier.weight"], own["classifier.weight"])


def test_without_test_images_its_accuracy_is_not_known() -> None:
    workspace = small_workspace()
    workspace.data = replace(workspace.data, test=workspace.data.test.take(np.arange(0)), fingerprint="no test")
    assert trained(SETTINGS, workspace).about["test_accuracy"] is None


@pytest.mark.parametrize("named", ["transformers:/data/net", "transformers:net", "timm:resnet18"])
def test_a_network_of_a_library_is_trained_here_wherever_its_folder_lies(named: str) -> None:
    assert is_trained_here(named)
    assert not is_trained_here("name/net") and not is_trained_here("hf:name/net")


def test_a_network_that_is_code_is_not_kept_which_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n\n\ndef small(channels, height, width, classes):\n"
        "    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)\n"
        "    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), *head)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings, said = replace(SETTINGS, network="my_networks:small", layer="0"), Said()
    assert measure_complexity(settings, small_workspace(), tmp_path / "out", progress=said) is not None
    assert (tmp_path / "out" / "complexity.json").exists() and not (tmp_path / "out" / "network").exists()
    assert "the network is not kept: 'my_networks:small' is code of yours, without which nothing can read it" in said.lines


@pytest.mark.parametrize("broken", ["network.json", "network.safetensors"])
def test_unreadable_folders_are_one_line(broken: str, tmp_path: Path) -> None:
    save_network(trained(SETTINGS, small_workspace()), tmp_path / "kept")
    assert load_network(tmp_path / "kept").shape == (3, 8, 8)
    (tmp_path / "kept" / broken).write_text("{}")
    with pytest.raises(UsageError, match=r"^--network: '.*kept' cannot be read as a network: ") as raised:
        load_network(tmp_path / "kept")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("pooling", ["avgpool", "nopool"])
def test_a_network_that_did_not_pad_its_images_is_refused(pooling: str, tmp_path: Path) -> None:
    """As the first version's of 28×28 pixels, whose head has 14² inputs for a channel, or 28², and not 16² or 32²."""
    name, names = f"ConvNetD1-w2-{pooling}", ("a", "b")
    kept = Classifier(name, build_network(name, 1, 28, 28, 2), (1, 28, 28), Identity(), names)
    save_network(kept, tmp_path / "kept")
    assert load_network(tmp_path / "kept").shape == (1, 28, 28)
    side = 14 if pooling == "avgpool" else 28
    kept.module.classifier = nn.Linear(2 * side**2, 2)
    save_network(kept, tmp_path / "old")
    with pytest.raises(UsageError, match=r"^--network: '.*old' cannot be read as a network: .*classifier") as raised:
        load_network(tmp_path / "old")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("network", "changes", "said"),
    [
        ("ConvNetD3x", {}, "--network: 'ConvNetD3x' is not a name such as"),
        ("ConvNetD1-w4", {"size": 64}, "--size: 64 is not possible for a network that is trained on the data: set data.size"),
        ("ConvNetD1-w4", {"normalise": "imagenet"}, "--normalise: 'imagenet' is not possible for a network that is trained on the"),
        ("ConvNetD1-w4", {"layer": "layer4"}, "--layer: 'layer4' is not last or"),
        (".", {}, "holds neither network.json, as Limbeck writes, nor config.json"),
    ],
)
def test_refusals(network: str, changes: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as raised:
        judge(replace(SETTINGS, network=network, **changes), workspace_of(image_set()))
    assert said in str(raised.value)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"need the extra hub: pip install 'limbeck\[hub\]'"):
        judge(replace(SETTINGS, network="microsoft/resnet-18"), workspace_of(image_set()))


@pytest.mark.parametrize("held", ["main.py", None])
def test_a_folder_of_something_else_is_not_replaced_by_the_network(
    held: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "judge", None)  # which would train
    place = tmp_path / "network"
    if held is None:
        place.write_text("mine")
    else:
        place.mkdir()
        (place / held).write_text("mine")
    workspace = small_workspace()
    with pytest.raises(
        UsageError, match=r"^output: '.*' is not a place for the network: '.*network' is something else; "
    ) as raised:
        measure_complexity(SETTINGS, workspace, tmp_path)
    assert "\n" not in str(raised.value)
    assert (place if held is None else place / held).read_text() == "mine"
    assert measure_complexity(replace(SETTINGS, layer="pool"), workspace, tmp_path, network=tiny_judge()) is not None
    assert (place if held is None else place / held).read_text() == "mine"


def test_a_network_of_before_and_an_empty_folder_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    for _ in range(2):
        assert measure_complexity(SETTINGS, small_workspace(), tmp_path) is not None
        assert load_network(tmp_path / "network").name == SETTINGS.network


class Smooth(material.Tiny):
    """Has the weights and the name of the other."""

    def front(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(nn.functional.gelu(self.body[0](x)))


Smooth.__name__ = Smooth.__qualname__ = "Tiny"


def test_networks_of_equal_weights_whose_code_differs_are_two() -> None:
    module = material.tiny()
    other = Smooth().eval().requires_grad_(False)
    other.load_state_dict(module.state_dict())
    assert str(other) == str(module)
    assert tiny_judge(module=other).identity != tiny_judge(module=module).identity
    assert tiny_judge(module=material.tiny()).identity == tiny_judge(module=module).identity


def test_buffers_called_as_those_of_the_preprocessing_count_beside_them() -> None:
    """And the fingerprint of a network of Limbeck's without such is that of its values alone, under which maps are kept."""

    def made(mean: float, own: float | None) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            module = build_network("ConvNetD1-w2", 3, 8, 8, 2)
        if own is not None:
            module.register_buffer("mean", torch.full((3,), own))
        return Classifier("it", module, (3, 8, 8), Normalise(torch.full((3,), mean), torch.ones(3)), ("a", "b"))

    plain = made(0.0, None)
    values = {**plain.module.state_dict(), **plain.preprocessing.tensors()}
    arrays = [value.numpy().reshape(-1) for value in values.values()]
    assert plain.identity == fingerprint("it", (3, 8, 8), "normalise", list(values), array_fingerprint(*arrays))
    assert len({made(mean, own).identity for mean in (0.0, 1.0) for own in (0.0, 1.0)}) == 4


@pytest.mark.parametrize(("key", "value"), [("size", 64), ("normalise", "imagenet")])
def test_a_network_that_is_given_is_not_changed_by_settings(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^--{key}: {value!r} is not possible"):
        measure_complexity(replace(SETTINGS, layer="pool", **{key: value}), small_workspace(), network=tiny_judge())


def test_classes_of_a_subset_are_found_among_imagenets() -> None:
    subset = find_subset("music-hard")
    synonyms = tuple("tench, Tinca tinca" if k == 0 else f"name {k}, other {k}" for k in range(1000))
    nameless = tuple(f"LABEL_{k}" for k in range(1000))
    indices = [entry.index for entry in subset.classes]
    for names in (synonyms, nameless, wnids()):
        network = tiny_judge(names)
        for called in ("name", "wnid"):
            assert network.class_ids([getattr(entry, called) for entry in subset.classes]).tolist() == indices
    assert tiny_judge(synonyms).class_ids(["other 7", "Name_7", "nothing"]).tolist() == [7, 7, -1]


def test_names_that_mean_two_classes_mean_none() -> None:
    network = tiny_judge(("crane, bird", "crane, machine", "bird bath"))
    assert network.class_ids(["crane", "machine", "crane, bird"]).tolist() == [-1, 1, 0]
    assert tiny_judge(("x", "y", "z")).class_ids(["a", "b", "c"]).tolist() == [-1, -1, -1]
    assert tiny_judge(("LABEL_0", "LABEL_1")).class_ids(["a", "b"]).tolist() == [0, 1]


class Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, padding=1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Stage(3, 4), Stage(4, 5)])

    def forward(self, x: torch.Tensor) -> SimpleNamespace:
        for stage in self.stages:
            x = stage(x)
        return SimpleNamespace(last_hidden_state=x)


class Foreign(nn.Module):
    """Built as the ResNets of transformers are: outputs are objects, stages lie deep."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = nn.Module()
        self.resnet.encoder = Encoder()
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(5, 3))
        self.config = SimpleNamespace(id2label={0: "a, first", 1: "b", 2: "c"}, num_channels=3)

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.classifier(self.resnet.encoder(pixel_values).last_hidden_state.mean((2, 3))))


def test_a_network_of_the_form_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = Foreign().half()
    asked: list[Any] = []

    def from_pretrained(name: str, **options: Any) -> Foreign:
        asked.append((name, options))
        return model

    library = SimpleNamespace(AutoModelForImageClassification=SimpleNamespace(from_pretrained=from_pretrained))
    monkeypatch.setitem(sys.modules, "transformers", library)
    (tmp_path / "config.json").write_text("{}")
    settings = ComplexitySettings(network=str(tmp_path), layer="resnet.encoder.stages.1", maps="layer", size=16, workers=1)
    result = measure_complexity(settings, workspace_of(image_set()))
    assert result is not None
    assert asked == [(str(tmp_path), {"use_safetensors": True, "trust_remote_code": False})]  # never a pickle, nor code
    found = result.measurement.judge
    assert result.measurement.layers == ["layer2"]
    assert (found.shape, found.preprocessing, result.measurement.ids.tolist()) == ((3, 16, 16), IMAGENET, [0, 1, 2])
    images = torch.cat([image_set().train.images(), image_set().val.images()])
    x = found.prepare(images).requires_grad_()
    hidden = model.resnet.encoder(x).last_hidden_state
    labels = torch.from_numpy(result.measurement.pictures.labels)
    logits = model.classifier(hidden.mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), hidden)
    maps = to_unit((gradient.mean((2, 3), keepdim=True) * hidden).sum(1).relu().detach())
    (_, block), *_ = result.measurement.blocks()
    torch.testing.assert_close(block["map0"], maps, rtol=0, atol=1e-5)
    assert np.array_equal(result.images.predicted, logits.argmax(1).numpy())
    with pytest.raises(UsageError, match="--layer: 'layer9' is not last or, joined by .*layer1.*layer2"):
        found.layers("layer9")


def save_resnet(folder: Path, labels: int = 4) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 4, 6, 8], "depths": [1, 1, 1, 1]}
    config = transformers.ResNetConfig(layer_type="basic", id2label={k: f"name {k}, other" for k in range(labels)}, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        transformers.ResNetForImageClassification(config).save_pretrained(folder, safe_serialization=True)


def test_a_resnet_of_transformers(tmp_path: Path) -> None:
    save_resnet(tmp_path / "resnet")
    settings = ComplexitySettings(network=str(tmp_path / "resnet"), layer="layer4", maps="layer", classes="predicted", size=64)
    found = pretrained(tmp_path / "resnet", settings)
    assert found.preprocessing is IMAGENET
    assert found.shape == (3, 64, 64)
    assert found.layers("resnet.encoder.stages.3") == found.layers("last") == ["layer4"]
    with pytest.raises(UsageError, match="--layer: 'layer5' is not last or, .*layer4"):
        found.layers("layer5")
    result = measure_complexity(settings, workspace_of(image_set()))
    assert result is not None
    (_, block), *_ = result.measurement.blocks()
    assert block["map0"].shape[1:] == (2, 2)
    transformers = pytest.importorskip("transformers")
    model = transformers.ResNetForImageClassification.from_pretrained(tmp_path / "resnet").eval()
    x = found.prepare(image_set().train.images())
    with torch.no_grad():
        expected = model(pixel_values=x).logits.argmax(1).numpy()
    assert np.array_equal(result.images.predicted[: len(expected)], expected)
    (tmp_path / "resnet" / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}')
    assert pretrained(tmp_path / "resnet", settings).preprocessing.mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert pretrained(tmp_path / "resnet", replace(settings, normalise="imagenet")).preprocessing is IMAGENET
    (tmp_path / "resnet" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="cannot be read as a network"):
        pretrained(tmp_path / "resnet", settings)


def save_model(folder: Path, kind: str, **sizes: Any) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(num_labels=3, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        getattr(transformers, f"{kind}ForImageClassification")(config).save_pretrained(folder, safe_serialization=True)


VIT = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "image_size": 32,
    "patch_size": 8,
}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}


@pytest.mark.parametrize(
    ("kind", "sizes", "changes", "said"),
    [
        ("ViT", VIT, {}, "^--layer: 'last' finds vit.embeddings.patch_embeddings.projection in it, and 7 linear layers follow: "),
        ("ViT", VIT, {"size": 64}, r"^--size: 64 is not possible: it takes images of 32×32 pixels \("),
        ("Swin", SWIN, {}, r"^--layer: 'last' \(swin.encoder.*\) of it gives no map of an image; networks that are convolutional"),
    ],
)
def test_networks_that_make_no_maps(kind: str, sizes: dict[str, Any], changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save_model(tmp_path / "it", kind, **sizes)
    with pytest.raises(UsageError, match=said) as raised:
        pretrained(tmp_path / "it", ComplexitySettings(**changes))
    assert "\n" not in str(raised.value)


def test_a_layer_that_is_named_is_taken_and_the_size_is_the_networks(tmp_path: Path) -> None:
    save_model(tmp_path / "vit", "ViT", **VIT)
    found = pretrained(tmp_path / "vit", ComplexitySettings(layer="vit.embeddings.patch_embeddings.projection"))
    assert found.shape == (3, 32, 32)
    sizes = {"hidden_sizes": [4, 4, 4, 6], "depths": [1, 1, 1, 1], "image_size": 64}
    save_model(tmp_path / "convnext", "ConvNext", **sizes)
    assert pretrained(tmp_path / "convnext", ComplexitySettings()).shape == (3, 64, 64)
    assert pretrained(tmp_path / "convnext", ComplexitySettings(size=96)).layers("last") == ["convnext.encoder.stages.3"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [(48, (48, 48)), ([32, 64], (32, 64)), (None, (224, 224)), ("64", (224, 224)), ([3], (224, 224)), (0, (224, 224))],
)
def test_the_size_that_a_configuration_says(said: Any, expected: tuple[int, int]) -> None:
    assert own_size(SimpleNamespace(image_size=said)) == expected
    assert own_size(SimpleNamespace(vision_config=SimpleNamespace(image_size=said))) == expected
