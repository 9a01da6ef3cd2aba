"""Networks for image classification of `transformers`, from a folder or the Hugging Face Hub.

Activation maps want a network whose last layer is an image and whose head takes its mean or little more. ResNets, ConvNeXts,
EfficientNets and their like are such; in a vision transformer the last image is what it is given, and all that follows is hidden
from the map. Every network makes maps of two blank images before anything is measured with it.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.preprocessing import Normalise, constant
from limbeck.image_complexity.classifier import Classifier, frozen, size_text, unreadable
from limbeck.image_complexity.maps import look
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.networks.blocks import run_watched
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import read_json
from limbeck.runtime.random import generator

IMAGENET = constant("imagenet", 3, "--normalise")
IMAGENET_SIZE = 224
MOST_LINEAR = 4  # linear layers of a head: VGG's has three, one block of a transformer six


def pretrained(name: str | Path, settings: ComplexitySettings) -> Classifier:
    """A network of `transformers`, on the CPU.

    Args:
        name: of a network on the Hub, or a folder with its config.json and model.safetensors.
        settings: `size`, `normalise`, `layer` and `cam` count here.

    Raises:
        UsageError: when the extra `hub` is not installed, the network cannot be read, takes no images of that size, has not the
            layer asked for, or gives no maps there.
    """
    if isinstance(name, Path) and not (name / "config.json").is_file():
        raise UsageError(f"--network: '{name}' holds neither network.json, as Limbeck writes, nor config.json, as transformers do")
    transformers = _library()
    try:
        # Nothing but safetensors, for other files of weights are pickles, and no code that comes with them.
        kept: dict[str, bool] = {"use_safetensors": True, "trust_remote_code": False}
        model = transformers.AutoModelForImageClassification.from_pretrained(str(name), **kept)
        labels = {int(k): str(word) for k, word in model.config.id2label.items()}
        names = tuple(labels[k] for k in range(len(labels)))
        module = frozen(Logits(model).float())
        own = own_size(model.config)
        sides = own if settings.size is None else (settings.size, settings.size)
        shape = (int(getattr(model.config, "num_channels", 3)), *sides)
        preprocessing = IMAGENET if settings.normalise == "imagenet" else _own_normalise(name, shape[0])
        require(len(preprocessing.mean) == shape[0], "--normalise", settings.normalise, f"made for {shape[0]} channels")
        found = Classifier(Path(name).name, module, shape, preprocessing, names, {"pretrained": str(name)})
        _check_logits(found, own)
    except UsageError:
        raise
    except Exception as error:  # the library and what it stands on raise errors of many kinds
        raise unreadable(name, error) from error
    _check_maps(found, settings)
    return found


class Logits(nn.Module):
    """The logits of a network of `transformers`, whose parts go by their own names; a ResNet's stages are layer1 … layer4."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.held = (model,)  # in a tuple, so that it is no part itself, whose name would stand before all others
        # First, because a module that goes by two names is listed under the first.
        stages = getattr(getattr(getattr(model, "resnet", None), "encoder", None), "stages", ())
        for number, stage in enumerate(stages, 1):
            self.add_module(f"layer{number}", stage)
        for name, part in model.named_children():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        """Logits with shape (N, K) for images with shape (N, C, H, W)."""
        logits: Tensor = self.held[0](pixel_values=x).logits
        return logits


def own_size(config: Any) -> tuple[int, int]:
    """(height, width) of the images that the network was made for, ImageNet's where it does not say."""
    said = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", None)
    sides = [said, said] if isinstance(said, int) else list(said) if isinstance(said, Sequence) and len(said) == 2 else []
    good = bool(sides) and all(isinstance(side, int) and side > 0 for side in sides)
    return (sides[0], sides[1]) if good else (IMAGENET_SIZE, IMAGENET_SIZE)


def _check_logits(found: Classifier, own: tuple[int, int]) -> None:
    """Refuse a network that does not give a logit for every class."""
    try:
        with torch.no_grad():
            logits = found.module(torch.zeros(1, *found.shape))
    except Exception as error:
        if found.shape[1:] == own:
            raise
        reason = " ".join(str(error).split())[:200]
        accepted = f"possible: {found.name} takes images of {size_text(own)} pixels ({reason})"
        raise UsageError(f"--size: {found.shape[1]} is not {accepted}") from error
    accepted = f"one that gives logits of its {len(found.class_names)} classes"
    require(logits.shape == (1, len(found.class_names)), "--network", found.about["pretrained"], accepted)


def _check_maps(found: Classifier, settings: ComplexitySettings) -> None:
    """Refuse a layer, or with `last` a network, whose maps would be none or say little."""
    layers = found.layers(settings.layer)
    shown = "+".join(layers)
    x = torch.zeros(2, *found.shape)
    try:
        seen = look(found.module, x, None, layers, settings.cam, generator(settings.seed, "probe"))
        sound = all(one.ndim == 3 and len(one) == len(x) for one in seen.maps)
    except Exception:  # whatever torch-cam and hooks do with outputs that are no images
        sound = False
    if not sound:
        raise UsageError(
            f"--layer: {settings.layer!r} ({shown}) of {found.name} gives no map of an image; networks that are convolutional up "
            "to their head are accepted, such as ResNets, and modules that give one image for each image"
        )
    if settings.layer == "last" and (blocks := _linear_after(found.module, x[:1], shown)) > MOST_LINEAR:
        raise UsageError(
            f"--layer: 'last' finds {shown} in {found.name}, and {blocks} linear layers follow: what a network makes of an image "
            "after its last map, as vision transformers do, no map shows; convolutional networks are accepted, or a layer by name"
        )


def _linear_after(module: nn.Module, x: Tensor, layer: str) -> int:
    """How many linear layers work after that one."""
    counts = [0]

    def begin(*_: Any) -> None:
        counts[0] = 0

    def count(*_: Any) -> None:
        counts[0] += 1

    linear: dict[nn.Module, Callable[..., Any]] = {part: count for part in module.modules() if isinstance(part, nn.Linear)}
    run_watched(module, x, {**linear, module.get_submodule(layer): begin})
    return counts[0]


def _own_normalise(name: str | Path, channels: int) -> Normalise:
    """Mean and deviation that the network came with; ImageNet's where it came without."""
    try:
        if isinstance(name, Path):
            place = name / "preprocessor_config.json"
        else:
            place = Path(import_module("huggingface_hub").hf_hub_download(name, "preprocessor_config.json"))
        config = read_json(place)
        mean, std = (torch.tensor(config[key], dtype=torch.float32) for key in ("image_mean", "image_std"))
    except Exception:  # noqa: BLE001 (absent, or unreachable, or of another form)
        return IMAGENET
    return Normalise(mean, std) if mean.shape == std.shape == (channels,) and bool((std > 0).all()) else IMAGENET


def _library() -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise UsageError("--network: networks of transformers need the extra hub: pip install 'limbeck[hub]'") from error
