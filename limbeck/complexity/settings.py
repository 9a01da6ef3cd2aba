"""What a user may say about complexity: the options of `limbeck complexity`."""

from dataclasses import dataclass
from typing import Literal, get_args

from limbeck.runtime.errors import require

Cam = Literal["gradcam", "smooth_gradcam_pp", "layercam"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComplexitySettings:
    """How complexity is measured (PAPER § 10).

    Args:
        network: that maps are made of: the name of a network to train on the data, a folder that holds one (of `save_network`, or
            of transformers), or a network on the Hugging Face Hub, such as `microsoft/resnet-18`.
        thresholds: from which activation on a pixel counts as active; complexity is that at the first, the others stand beside it.
        cam: `gradcam`, `smooth_gradcam_pp` or `layercam`.
        layer: a module of the network; `last` is its last with an image as output; several names joined by `+` are averaged.
        maps: where maps are thresholded: at the `layer`'s own resolution (7×7 in a ResNet at 224 pixels), or at that of the
            `image`, after bilinear upsampling.
        classes: the class a map is for: the `true` one, or the one that the network `predicted`.
        split: `train` (validation images included), `test` or `all`.
        per_class: images of each class, drawn by the seed; None takes all.
        size: side of what a pretrained network takes, in pixels; None takes what it was made for, 224 where it does not say.
            Limbeck's networks have a size of their own.
        normalise: mean and deviation of the inputs of a pretrained network: those it came with (`network`; ImageNet's where it came
            without) or `imagenet`'s.
        batch_size: images at a time; the noise of `smooth_gradcam_pp` depends on it.
        workers: processes; None takes one on a GPU and else one a core.
        seed: of what is drawn: images, noise, the network that is trained.
    """

    network: str = "ConvNetD3"
    thresholds: tuple[float, ...] = (0.5, 0.1, 0.9)
    cam: Cam = "gradcam"
    layer: str = "last"
    maps: Literal["layer", "image"] = "image"
    classes: Literal["predicted", "true"] = "true"
    split: Literal["train", "test", "all"] = "train"
    per_class: int | None = None
    size: int | None = None
    normalise: Literal["network", "imagenet"] = "network"
    batch_size: int = 32
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        good = bool(self.thresholds) and all(0 < threshold <= 1 for threshold in self.thresholds)
        require(good, "--threshold", self.thresholds, "one number or more in (0, 1]")
        require(len(set(self.thresholds)) == len(self.thresholds), "--threshold", self.thresholds, "of different numbers")
        for name, accepted in CHOICES.items():
            require(getattr(self, name) in accepted, f"--{name}", getattr(self, name), f"one of {', '.join(accepted)}")
        require(self.size is None or self.size >= 8, "--size", self.size, "at least 8 pixels")
        for name in ("per_class", "batch_size", "workers"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name.replace('_', '-')}", value, "at least 1")


CHOICES = {
    "cam": get_args(Cam),
    "maps": ("layer", "image"),
    "classes": ("predicted", "true"),
    "split": ("train", "test", "all"),
    "normalise": ("network", "imagenet"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSettings:
    """How a benchmark is made.

    Args:
        categories: as `--categories` has it (`categories.py`).
        classes_per_subset: n, of the easy and of the hard subset of every category.
        least: classes of the smallest category; a category that is smaller, or smaller than 2n, is left out.
    """

    categories: str
    classes_per_subset: int = 10
    least: int = 20

    def __post_init__(self) -> None:
        require(self.classes_per_subset >= 2, "--classes-per-subset", self.classes_per_subset, "at least 2")
        require(self.least >= 2, "--least", self.least, "at least 2")
