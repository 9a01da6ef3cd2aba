"""A network that looks at images, whoever made it: what it takes, what it is called, which classes and layers it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck.data.preprocessing import Preprocessing
from limbeck.data.registry import known_names, wnids
from limbeck.networks.factory import structure
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.saliency.maps import find_layers

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts
SHOWN = 12


@dataclass(frozen=True, eq=False)
class Classifier:
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
        own, given = self.module.state_dict(), self.preprocessing.tensors()
        if own.keys() & given.keys():
            own = {f"module.{key}": value for key, value in own.items()}
            given = {f"preprocessing.{key}": value for key, value in given.items()}
        state = {**own, **given}
        arrays = [tensor.detach().cpu().float().numpy().reshape(-1) for tensor in state.values()]
        code = structure(self.module)
        parts = self.name, self.shape, self.preprocessing.kind, list(state), array_fingerprint(*arrays)
        return fingerprint(*parts, *([] if code is None else [code]))

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


def frozen(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, without gradients for its parameters."""
    return module.eval().requires_grad_(False)


def unreadable(name: object, error: Exception) -> UsageError:
    """The error of one line that says why something is no network."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UsageError(f"--network: {str(name)!r} cannot be read as a network: {reason[:300]}")


def size_text(shape: Sequence[int]) -> str:
    """Such as 224×224, of the last two sides of a shape."""
    return "×".join(map(str, shape[-2:]))


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
