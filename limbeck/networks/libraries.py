"""Networks of other libraries by name: `timm:NAME`, `torchvision:NAME`, `transformers:FOLDER`.

They are made for the images at hand as far as a library lets them: number of classes, channels, and the images' size where a
network is told it. Nothing is downloaded: those of timm and torchvision are fresh, drawn from a seed as all others; a folder has
the config.json of a network and, where it has weights too (model.safetensors), every network begins with these, and only a head
for another number of classes is drawn. Batch norms become pure ones, as everywhere (`batch_norm.py`).

Wightman, "PyTorch Image Models", 2019; Wolf et al., "Transformers: State-of-the-Art Natural Language Processing", 2020,
arXiv:1910.03771.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from limbeck.networks.batch_norm import convert_batch_norms
from limbeck.runtime.errors import UsageError, one_line, require
from limbeck.runtime.plugins import library_of

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class LogitsOf(nn.Module):
    """The logits of a network of `transformers`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits with shape (N, K) for images with shape (N, C, H, W)."""
        logits: Tensor = self.model(pixel_values=x).logits
        return logits


def is_own(module: nn.Module) -> bool:
    """Whether it is a network that Limbeck has."""
    return type(module).__module__.startswith("limbeck.") and not isinstance(module, LogitsOf)


def maker(name: str) -> Callable[[int, int, int, int], nn.Module]:
    """What makes the network of that name, of channels, height, width and the number of classes."""
    makers = {"timm": _of_timm, "torchvision": _of_torchvision, "transformers": _of_transformers}
    return partial(makers[str(library_of(name))], name)


def _of_timm(name: str, channels: int, height: int, width: int, num_classes: int) -> nn.Module:
    timm, own = _library("timm", name), name.partition(":")[2]
    # Other forms name places of which configurations are fetched.
    _check_known(name, own, re.fullmatch(r"[\w.]+", own) is not None and timm.is_model(own.partition(".")[0]), timm.list_models)
    given = {"pretrained": False, "num_classes": num_classes, "in_chans": channels}
    try:
        module = timm.create_model(own, img_size=(height, width), **given)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        module = timm.create_model(own, **given)
    patches = getattr(getattr(module, "patch_embed", None), "num_patches", None)
    require(patches != 0, "network", name, f"one whose patches fit into images of {height}×{width} pixels")
    return _with_plain_norms(module)


def _of_torchvision(name: str, channels: int, height: int, width: int, num_classes: int) -> nn.Module:
    library, own = _library("torchvision", name), name.partition(":")[2]
    models = library.models
    _check_known(name, own, own in models.list_models(module=models), partial(models.list_models, module=models))
    require(channels == 3, "network", name, f"made for images of {channels} channels: those of torchvision take 3")
    size = {"image_size": height} if own.startswith("vit_") else {}
    require(not size or height == width, "network", name, f"made for images of {height}×{width} pixels, but for square ones")
    module: nn.Module = models.get_model(own, weights=None, num_classes=num_classes, **size)
    return module


def _of_transformers(name: str, channels: int, height: int, width: int, num_classes: int) -> nn.Module:
    folder = Path(name.partition(":")[2]).expanduser()
    accepted = "transformers:FOLDER, a folder with a network's config.json, and with model.safetensors where it has weights"
    require((folder / "config.json").is_file(), "network", name, accepted)
    library = _library("transformers", name)
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    # Written out, because torch's fused attention has no second derivatives.
    kept: dict[str, Any] = {"attn_implementation": "eager"}
    with _quiet(library):
        config = library.AutoConfig.from_pretrained(str(folder), **here)
        if int(config.num_labels) != num_classes:
            config.num_labels = num_classes
        auto = library.AutoModelForImageClassification
        if any((folder / file).is_file() for file in WEIGHTS):
            takes = int(getattr(config, "num_channels", channels))
            require(takes == channels, "network", name, f"made for images of {channels} channels: its weights take {takes}")
            # What does not fit is the head, of which the number of classes has been changed just now.
            model = auto.from_pretrained(
                str(folder), config=config, use_safetensors=True, ignore_mismatched_sizes=True, **here, **kept
            )
        else:
            _told(config, "num_channels", channels)
            _told(config, "image_size", height if height == width else (height, width))
            model = auto.from_config(config, trust_remote_code=False, **kept)
    return LogitsOf(convert_batch_norms(model.float(), name))


def _told(config: Any, key: str, value: Any) -> None:
    """Tell a configuration what images are like, where it says such a thing at all."""
    if hasattr(config, key):
        setattr(config, key, value)


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Nothing is said about heads that are drawn anew, and no bar drawn."""
    log = library.utils.logging
    before, drawn = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(before)
        if drawn:
            log.enable_progress_bar()


def _with_plain_norms(module: nn.Module) -> nn.Module:
    """`module` with timm's batch norms that drop and activate as torch's batch norm, followed by the two, in place."""
    for parent in list(module.modules()):
        for key, child in list(parent.named_children()):
            if type(child).__name__ == "BatchNormAct2d" and isinstance(child, _BatchNorm):
                norm = nn.BatchNorm2d(child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats)
                norm.load_state_dict(child.state_dict())
                setattr(parent, key, nn.Sequential(norm, child.get_submodule("drop"), child.get_submodule("act")))
    return module


def _check_known(name: str, own: str, known: bool, names: Callable[[], Sequence[str]]) -> None:
    if known:
        return
    near = ", ".join(get_close_matches(own, names(), 3))
    library = name.partition(":")[0]
    raise UsageError(f"network: {name!r} is no network of {library}" + (f"; near it are {near}" if near else ""))


def _library(module: str, name: str) -> Any:
    """The library, or a sentence that says what is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        said = f"needs {missing}, of the extra networks: pip install 'limbeck[networks]'"
        raise UsageError(f"network: {name!r} {said}") from error
    except Exception as error:  # torchvision that was made for another torch
        raise UsageError(f"network: {name!r} cannot be made: {module} does not fit this torch: {one_line(error)}") from error
