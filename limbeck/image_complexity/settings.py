"""What a user may say about complexity: the options of `limbeck complexity`."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_origin

from limbeck.runtime.checked import Count, Options, Rule, at_least, kinds_of

Cam = Literal["gradcam", "smooth_gradcam_pp", "layercam"]
Thresholds = Annotated[
    tuple[float, ...],
    Rule("one number or more in (0, 1]", lambda given: bool(given) and all(0 < threshold <= 1 for threshold in given)),
    Rule("of different numbers", lambda given: len(set(given)) == len(given)),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComplexitySettings(Options):
    """How complexity is measured.

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
    thresholds: Thresholds = (0.5, 0.1, 0.9)
    cam: Cam = "gradcam"
    layer: str = "last"
    maps: Literal["layer", "image"] = "image"
    classes: Literal["predicted", "true"] = "true"
    split: Literal["train", "test", "all"] = "train"
    per_class: Count | None = None
    size: Annotated[int, at_least(8, " pixels")] | None = None
    normalise: Literal["network", "imagenet"] = "network"
    batch_size: Count = 32
    workers: Count | None = None
    seed: int = 0

    @classmethod
    def key(cls, name: str) -> str:
        return "--threshold" if name == "thresholds" else Options.key(name)


CHOICES = {name: get_args(kind) for name, kind in kinds_of(ComplexitySettings).items() if get_origin(kind) is Literal}


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSettings(Options):
    """How a benchmark is made.

    Args:
        categories: as `--categories` has it (`categories.py`).
        classes_per_subset: n, of the easy and of the hard subset of every category.
        least: classes of the smallest category; a category that is smaller, or smaller than 2n, is left out.
    """

    categories: str
    classes_per_subset: Annotated[int, at_least(2)] = 10
    least: Annotated[int, at_least(2)] = 20
