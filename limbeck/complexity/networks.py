"""The network that looks at images: one of Limbeck's, trained on the data or kept in a folder, or one of `transformers`.

A folder of `save_network` holds `network.json` (the architecture's name, the shape of its images, the names of its classes) and
`network.safetensors` (parameters, statistics and preprocessing). Nothing that is read here is ever unpickled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck.complexity.settings import ComplexitySettings
from limbeck.data.preprocessing import Normalise, Preprocessing, preprocessing_from
from limbeck.data.registry import known_names, wnids
from limbeck.evaluation.predictions import accuracy
from limbeck.evaluation.settings import EvalSettings
from limbeck.methods.workspace import Workspace
from limbeck.networks.flat import flat_network
from limbeck.networks.names import check_network_name
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import new_folder, read_json, read_tensors, write_json, write_tensors
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.saliency.maps import find_layers
from limbeck.training.images import Images, prepare_split

IMAGENET = Normalise(torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
IMAGENET_SIZE = 224
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts
SHOWN = 12
RECORD, TENSORS = "network.json", "network.safetensors"


@dataclass(frozen=True, eq=False)
class Judge:
    """A trained network and how images become its input.

    Args:
        name: of it.
        module: logits (N, K) of images (N, C, H, W); in evaluation mode, its parameters frozen.
        shape: (C, H, W) of what it takes.
        preprocessing: of pixels of that shape.
        class_names: K names.
        about: where it comes from, in JSON types.
    """

    name: str
    module: nn.Module
    shape: tuple[int, int, int]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(iter(self.module.parameters())).device

    @cached_property
    def identity(self) -> str:
        """A fingerprint of all that its logits depend on."""
        state = {**self.module.state_dict(), **self.preprocessing.tensors()}
        arrays = [tensor.detach().cpu().float().numpy().reshape(-1) for tensor in state.values()]
        return fingerprint(self.name, self.shape, self.preprocessing.kind, list(state), array_fingerprint(*arrays))

    def prepare(self, images: Tensor) -> Tensor:
        """What the module takes, on its device, for uint8 images with shape (N, C', H', W').

        Images of another size are squashed, grey ones repeated for a network that takes colour, and coloured ones made grey for
        one that does not.
        """
        pixels = images.to(self.device).float() / 255
        if pixels.shape[1] == 3 and self.shape[0] == 1:
            pixels = (pixels * pixels.new_tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True)
        elif pixels.shape[1] != self.shape[0]:
            pixels = pixels.expand(-1, self.shape[0], -1, -1)
        if pixels.shape[2:] != self.shape[1:]:
            pixels = interpolate(pixels, self.shape[1:], mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
        return self.preprocessing.forward(pixels)

    def class_ids(self, class_names: Sequence[str]) -> np.ndarray:
        """The network's id of each class, −1 where it has none, int64.

        Classes are matched by their names, by WordNet id and name where the network knows ImageNet's 1000 classes, and where the
        network's classes have no names by their order, if there are as many.
        """
        if tuple(class_names) == self.class_names:
            return np.arange(len(class_names))
        words: dict[str, set[int]] = {}
        for k, name in enumerate(self.class_names):
            for word in _words(name) | self._imagenet_words(k):
                words.setdefault(word, set()).add(k)
        ids = np.full(len(class_names), -1, dtype=np.int64)
        for label, name in enumerate(class_names):
            # The name as a whole before its parts: "crane" is a bird and a machine.
            for tried in (_plain(name), *sorted(_synonyms(name))):
                if len(found := words.get(tried, set())) == 1:
                    ids[label] = next(iter(found))
                    break
        if (ids < 0).all() and len(class_names) == len(self.class_names) and _nameless(self.class_names):
            return np.arange(len(class_names))
        return ids

    def layers(self, names: str) -> list[str]:
        """The modules that `names` means: `last`, or names joined by `+`.

        Raises:
            UsageError: when one is no module whose output is an image; the message lists those that are.
        """
        known = {name for name, _ in self.module.named_modules()}
        wanted = "+".join(name if name in known else _usual_name(name) for name in names.split("+"))
        x = torch.zeros(1, *self.shape, device=self.device)
        try:
            return find_layers(self.module, x, wanted)
        except UsageError as error:
            said = str(error).removeprefix("enhance.cam_layer: ").replace(repr(wanted), repr(names))
            raise UsageError(f"--layer: {_shortened(said)}") from None

    def _imagenet_words(self, k: int) -> set[str]:
        """What ImageNet's class `k` is called, if the network knows ImageNet's classes."""
        if len(self.class_names) != len(wnids()) or not (_nameless(self.class_names) or "tench" in _words(self.class_names[0])):
            return set()
        wnid = wnids()[k]
        return {wnid, _plain(known_names().get(wnid, wnid))}


def judge(settings: ComplexitySettings, workspace: Workspace) -> Judge:
    """The network that `settings.network` names.

    Args:
        settings: see there.
        workspace: of the data, on which Limbeck's networks are trained; its own key `network` does not count.

    Raises:
        UsageError: when there is no such network, it cannot be read, or it has not the layer asked for.
        Failure: when training diverges.
    """
    named = settings.network
    path = Path(named).expanduser()
    if path.is_dir():
        found = load_network(path) if (path / RECORD).is_file() else pretrained(path, settings)
    elif named.startswith("hf:") or "/" in named:
        found = pretrained(named.removeprefix("hf:"), settings)
    else:
        return trained(settings, workspace)
    own = (path / RECORD).is_file()
    require(not own or settings.size is None, "--size", settings.size, f"possible: {named!r} takes images of {_size(found)}")
    found = replace(found, module=found.module.to(workspace.device))
    found.layers(settings.layer)
    return found


def trained(settings: ComplexitySettings, workspace: Workspace) -> Judge:
    """The network of that name, trained on the training images as `eval.full_*` say, or taken from the cache.

    Raises:
        UsageError: when there is no network of that name, or it has not the layer asked for.
        Failure: when training diverges.
    """
    try:
        check_network_name(settings.network)
    except UsageError as error:
        reason = str(error).removeprefix("network: ")
        raise UsageError(f"--network: {reason}, a folder with a network, or NAME/NAME on the Hugging Face Hub") from None
    require(settings.size is None, "--size", settings.size, "possible for a network that is trained on the data: set data.size")
    data, network = workspace.data, workspace.network_of(settings.network)
    blank = Judge(settings.network, network.module, data.shape, workspace.preprocessing, data.class_names)
    blank.layers(settings.layer)  # before anything is trained
    evaluator = workspace.evaluator_of(network)
    own = {key.name: getattr(evaluator.settings, key.name) for key in fields(EvalSettings)}
    full = replace(evaluator.full_data, settings=_OneNetwork(**{**own, "full_seeds": 1}))
    if settings.seed:  # at 0 the first network of `limbeck distill` is taken
        full = replace(full, trials=replace(full.trials, seed=settings.seed))

    def test() -> Images:
        # Somebody has to be asked, and the network need not be tested.
        first = data.train.take(np.arange(1))
        return evaluator.images_of("test") if len(data.test) else prepare_split(first, full.preprocessing, workspace.device)

    module = full.teacher(test, workspace.progress)
    logits = full.logits(test, workspace.progress)[0]
    about = {
        "trained_on": {"source": data.source, "fingerprint": data.fingerprint},
        "epochs": evaluator.settings.full_epochs,
        "seed": settings.seed,
        "test_accuracy": accuracy(logits, evaluator.labels_of("test")) if len(data.test) else None,
    }
    return replace(blank, module=module, about=about)


def save_network(judge: Judge, folder: Path) -> None:
    """Write one of Limbeck's networks to a folder that `--network` takes, replacing what is there.

    Raises:
        UsageError: when the network is none that has a name.
    """
    check_network_name(judge.name)
    tensors = {f"module.{name}": value for name, value in judge.module.state_dict().items()}
    tensors |= {f"preprocessing.{name}": value for name, value in judge.preprocessing.tensors().items()}
    record = {
        "format": 1,
        "network": judge.name,
        "shape": judge.shape,
        "class_names": judge.class_names,
        "preprocessing": judge.preprocessing.kind,
        "about": dict(judge.about),
    }
    with new_folder(folder) as part:
        write_tensors(part / TENSORS, tensors)
        write_json(part / RECORD, record)


def load_network(folder: Path) -> Judge:
    """The network that `save_network` wrote, on the CPU.

    Raises:
        UsageError: when the folder cannot be read or holds something else.
    """
    try:
        record = read_json(folder / RECORD)
        tensors, _ = read_tensors(folder / TENSORS)
        require(record["format"] == 1, "format", record["format"], "1")
        channels, height, width = (int(side) for side in record["shape"])
        names = tuple(str(name) for name in record["class_names"])
        # By way of `FlatNetwork`, which is what puts its own norms in the place of torch's.
        module = flat_network(str(record["network"]), (channels, height, width), len(names)).module
        module.load_state_dict(_under("module.", tensors))
        preprocessing = preprocessing_from(str(record["preprocessing"]), _under("preprocessing.", tensors))
        about = dict(record["about"])
    except Exception as error:  # a file can be broken in many ways
        raise _unreadable(folder, error) from error
    return Judge(record["network"], _frozen(module), (channels, height, width), preprocessing, names, about)


def pretrained(name: str | Path, settings: ComplexitySettings) -> Judge:
    """A network for image classification of `transformers`, from a folder or the Hugging Face Hub, on the CPU.

    Args:
        name: of a network on the Hub, or a folder with its config.json and model.safetensors.
        settings: `size` and `normalise` count here.

    Raises:
        UsageError: when the extra `hub` is not installed or the network cannot be read.
    """
    if isinstance(name, Path) and not (name / "config.json").is_file():
        raise UsageError(f"--network: '{name}' holds neither {RECORD}, as Limbeck writes it, nor config.json, as transformers do")
    transformers = _library()
    try:
        # Nothing but safetensors: other files of weights are pickles.
        model = transformers.AutoModelForImageClassification.from_pretrained(str(name), use_safetensors=True)
        labels = {int(k): str(word) for k, word in model.config.id2label.items()}
        names = tuple(labels[k] for k in range(len(labels)))
        module = _frozen(Logits(model).float())
        side = settings.size or IMAGENET_SIZE
        shape = (int(getattr(model.config, "num_channels", 3)), side, side)
        preprocessing = IMAGENET if settings.normalise == "imagenet" else _own_normalise(name, shape[0])
        require(len(preprocessing.mean) == shape[0], "--normalise", settings.normalise, f"made for {shape[0]} channels")
        with torch.no_grad():
            logits = module(torch.zeros(1, *shape))
        require(logits.shape == (1, len(names)), "--network", str(name), f"one that gives logits of its {len(names)} classes")
    except UsageError:
        raise
    except Exception as error:  # the library and what it stands on raise errors of many kinds
        raise _unreadable(name, error) from error
    return Judge(Path(name).name, module, shape, preprocessing, names, {"pretrained": str(name)})


@dataclass(frozen=True, kw_only=True, slots=True)
class _OneNetwork(EvalSettings):
    """Settings under which one network on the full data is enough: no interval of its accuracy is wanted."""

    def __post_init__(self) -> None: ...


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


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _unreadable(name: str | Path, error: Exception) -> UsageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UsageError(f"--network: {str(name)!r} cannot be read as a network: {reason[:300]}")


def _size(judge: Judge) -> str:
    return "×".join(map(str, judge.shape[1:]))


def _usual_name(name: str) -> str:
    """The name here of a stage that is called as transformers call it."""
    prefix = "resnet.encoder.stages."
    if not name.startswith(prefix):
        return name
    number, _, rest = name.removeprefix(prefix).partition(".")
    return f"layer{int(number) + 1}{'.' if rest else ''}{rest}" if number.isdigit() else name


def _shortened(message: str) -> str:
    """An error that lists many layers, with the last of them only."""
    head, found, tail = message.partition("some of ")
    if not found:
        return message
    names, rest, end = tail.partition(" or modules inside them")
    listed = names.split(", ")
    return f"{head}{found}{', '.join(['…', *listed[-SHOWN:]] if len(listed) > SHOWN else listed)}{rest}{end}"


def _plain(word: str) -> str:
    """A name without what is written in one way here and in another there."""
    return " ".join(word.replace("_", " ").casefold().split())


def _synonyms(name: str) -> set[str]:
    """The words of "tench, Tinca tinca", and the name that goes with a WordNet id."""
    known = known_names().get(name)
    return {_plain(part) for part in name.split(",")} | ({_plain(known)} if known else set())


def _words(name: str) -> set[str]:
    return {_plain(name)} | _synonyms(name)


def _nameless(names: Sequence[str]) -> bool:
    """Whether the names are those that transformers make up."""
    return all(name == f"LABEL_{k}" for k, name in enumerate(names))
