"""RandAugment and AutoAugment: operations on 8-bit pixels, drawn for every image on its own.

    RandAugment(n, m)    n operations, each equally likely, at the strength m / 30
    AutoAugment          one of 25 pairs of operations, each with a probability and a strength k / 9 of its own

With the strength s in [0, 1], and a sign of either kind with probability ½ where there is ±:

    ShearX, ShearY                               x ← x ± 0.3 s · y, about the first pixel
    TranslateX, TranslateY                       by ±150/331 · s of the side
    Rotate                                       by ±30 s degrees
    Color, Contrast, Brightness, Sharpness       by the factor 1 ± 0.9 s
    Solarize                                     pixels from 255 (1 − s) on are inverted
    Posterize                                    8 − round(4 s) bits are kept
    AutoContrast, Equalize, Invert, Identity     have no strength

What comes in from outside is mid-grey, 128. These are operations of Pillow, by which both papers are defined; an image gets there
by the inverse of its preprocessing, cut off at black and white, and back: no gradient goes through, and nothing is distilled
through them. They belong to evaluation (`protocol.policy`).

Cubuk, Zoph, Mané, Vasudevan and Le, "AutoAugment: Learning Augmentation Policies from Data", 2019, arXiv:1805.09501; Cubuk, Zoph,
Shlens and Le, "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", 2020, arXiv:1909.13719.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from limbeck.augmentation import Applied, Augmentation
from limbeck.data.preprocessing import Identity, Preprocessing
from limbeck.runtime.errors import require

if TYPE_CHECKING:
    from PIL.Image import Image

STRONGEST, STEPS, GREY = 30, 9, 128
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Color", "Contrast", "Brightness", "Sharpness")
DRAWN = ("Identity", "AutoContrast", "Equalize", "Solarize", "Posterize", *SIGNED)  # from which RandAugment draws

# Of every operation the probability and, where it has one, the strength in steps of 9.
_PAIRS = {
    "autoaugment-imagenet": """
        Posterize .4 8, Rotate .6 9; Solarize .6 5, AutoContrast .6; Equalize .8, Equalize .6; Posterize .6 7, Posterize .6 6;
        Equalize .4, Solarize .2 4; Equalize .4, Rotate .8 8; Solarize .6 3, Equalize .6; Posterize .8 5, Equalize 1;
        Rotate .2 3, Solarize .6 8; Equalize .6, Posterize .4 6; Rotate .8 8, Color .4 0; Rotate .4 9, Equalize .6;
        Equalize 0, Equalize .8; Invert .6, Equalize 1; Color .6 4, Contrast 1 8; Rotate .8 8, Color 1 2; Color .8 8, Solarize .8 7;
        Sharpness .4 7, Invert .6; ShearX .6 5, Equalize 1; Color .4 0, Equalize .6; Equalize .4, Solarize .2 4;
        Solarize .6 5, AutoContrast .6; Invert .6, Equalize 1; Color .6 4, Contrast 1 8; Equalize .8, Equalize .6""",
    "autoaugment-cifar10": """
        Invert .1, Contrast .2 6; Rotate .7 2, TranslateX .3 9; Sharpness .8 1, Sharpness .9 3; ShearY .5 8, TranslateY .7 9;
        AutoContrast .5, Equalize .9; ShearY .2 7, Posterize .3 7; Color .4 3, Brightness .6 7; Sharpness .3 9, Brightness .7 9;
        Equalize .6, Equalize .5; Contrast .6 7, Sharpness .6 5; Color .7 7, TranslateX .5 8; Equalize .3, AutoContrast .4;
        TranslateY .4 3, Sharpness .2 6; Brightness .9 6, Color .2 8; Solarize .5 2, Invert 0; Equalize .2, AutoContrast .6;
        Equalize .2, Equalize .6; Color .9 9, Equalize .6; AutoContrast .8, Solarize .2 8; Brightness .1 3, Color .7 0;
        Solarize .4 5, AutoContrast .9; TranslateY .9 9, TranslateY .7 9; AutoContrast .9, Solarize .8 3; Equalize .8, Invert .1;
        TranslateY .7 9, AutoContrast .9""",
}


class Step(NamedTuple):
    """An operation at a strength in [0, 1], or in [−1, 0] where the sign was drawn."""

    operation: str
    strength: float = 0.0


@dataclass(frozen=True)
class Policy(Augmentation):
    """Changes pixels, every image by steps of its own.

    Args:
        preprocessing: of the images.
    """

    preprocessing: Preprocessing = field(default_factory=Identity)

    @abstractmethod
    def steps(self, generator: torch.Generator) -> list[Step]:
        """Those of one image."""

    def draw(self, generator: torch.Generator, shape: Sequence[int], siamese: bool = False) -> Applied:
        require(shape[1] in (1, 3), "protocol.policy", type(self).__name__, f"made for images of {shape[1]} channels: 1 or 3")
        drawn = [self.steps(generator) for _ in range(1 if siamese else shape[0])]

        def change(x: Tensor) -> Tensor:
            with torch.no_grad():
                pixels = (255 * self.preprocessing.inverse(x.cpu().float())).round().clamp(0, 255).byte().numpy()
                each = drawn * len(pixels) if siamese else drawn
                changed = np.stack([_changed(image, steps) for image, steps in zip(pixels, each, strict=True)])
                return self.preprocessing.prepare(torch.from_numpy(changed)).to(x)

        return change


@dataclass(frozen=True)
class RandAugment(Policy):
    """So many operations at one strength, in steps of 30."""

    operations: int = 2
    magnitude: int = 9

    def steps(self, generator: torch.Generator) -> list[Step]:
        chosen = torch.randint(len(DRAWN), (self.operations,), generator=generator).tolist()
        return [_signed(DRAWN[at], self.magnitude / STRONGEST, generator) for at in chosen]


@dataclass(frozen=True)
class AutoAugment(Policy):
    """One of the pairs that were found on ImageNet or on CIFAR-10."""

    found_on: str = "autoaugment-imagenet"

    def steps(self, generator: torch.Generator) -> list[Step]:
        pairs = pairs_of(self.found_on)
        pair = pairs[int(torch.randint(len(pairs), (), generator=generator))]
        done = torch.rand(len(pair), generator=generator).tolist()
        signed = [_signed(operation, k / STEPS, generator) for operation, _, k in pair]
        return [step for step, (_, share, _), u in zip(signed, pair, done, strict=True) if u < share]


def pairs_of(policy: str) -> list[list[tuple[str, float, int]]]:
    """The pairs of a policy of AutoAugment: of each operation its name, its probability and its strength in steps of 9, or 0."""

    def one(text: str) -> tuple[str, float, int]:
        operation, share, *strength = text.split()
        return operation, float(share), int(strength[0]) if strength else 0

    return [[one(text) for text in pair.split(",")] for pair in _PAIRS[policy].split(";")]


def policy_of(name: str, preprocessing: Preprocessing, operations: int, magnitude: int) -> Policy:
    """The policy of that name, `randaugment` or one of AutoAugment's."""
    if name == "randaugment":
        return RandAugment(preprocessing, operations, magnitude)
    return AutoAugment(preprocessing, name)


def applied(image: "Image", step: Step) -> "Image":
    """The image, of mode L or RGB, after one operation."""
    from PIL import Image, ImageEnhance, ImageOps

    name, s = step
    width, height = image.size
    affine = {
        "ShearX": (1, 0.3 * s, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, 0.3 * s, 1, 0),
        "TranslateX": (1, 0, 150 / 331 * s * width, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, 150 / 331 * s * height),
    }
    grey = GREY if image.mode == "L" else (GREY,) * 3
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name], fillcolor=grey)
    match name:
        case "Identity":
            return image
        case "Rotate":
            return image.rotate(30 * s, fillcolor=grey)
        case "Solarize":
            return ImageOps.solarize(image, 255 * (1 - s))  # type: ignore[arg-type]
        case "Posterize":
            return ImageOps.posterize(image, 8 - round(4 * s))
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Invert":
            return ImageOps.invert(image)
    return getattr(ImageEnhance, name)(image).enhance(1 + 0.9 * s)  # type: ignore[no-any-return]


def _signed(operation: str, strength: float, generator: torch.Generator) -> Step:
    """The step, with a sign that is drawn whether or not the operation has one."""
    minus = float(torch.rand((), generator=generator)) < 0.5
    return Step(operation, -strength if minus and operation in SIGNED else strength)


def _changed(pixels: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """One image (C, H, W), uint8, after its steps."""
    from PIL import Image

    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    for step in steps:
        image = applied(image, step)
    found = np.asarray(image)
    return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)
