"""What a user may say about the data: the keys `data.*`."""

from dataclasses import dataclass
from math import inf
from typing import Annotated, ClassVar, Literal

from limbeck.data.constants import Normalisation, spelled
from limbeck.runtime.checked import Checked, Count, FolderPath, Named, Rule, Seed, Share
from limbeck.runtime.errors import require

Classes = Annotated[
    tuple[str | int, ...] | None, Rule("null or at least two classes", lambda classes: classes is None or len(classes) >= 2)
]
Size = Annotated[
    int | tuple[int, int] | None,
    Rule(
        "a side, or [height, width], of at least 8 pixels",
        lambda size: size is None or min(size if isinstance(size, tuple) else (size,)) >= 8,
    ),
]
Range = Annotated[
    float | tuple[float, float] | None,
    Rule(
        "the number that is white, or [black, white], both finite and white above black",
        lambda levels: levels is None or _ascending(*(levels if isinstance(levels, tuple) else (0, levels))),
    ),
]


def _ascending(black: float, white: float) -> bool:
    return -inf < black < white < inf


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSettings(Checked):
    """Where the images come from and how they are prepared.

    Args:
        source: `scenes`, `scenes:easy|medium|hard`, `imagenet`, `imagenet:SUBSET`, `hf:NAME`, a folder or a file; `docs/data.md`
            lists all kinds. Or images of one's own.
        root: the folder that holds ImageNet, for `imagenet` and `imagenet:SUBSET`; None takes $LIMBECK_IMAGENET.
        classes: the classes to take, in the order of their labels: each by its index in the source's order, its WordNet id or its
            name; None takes all.
        size: side of the images in pixels, or [height, width]; None keeps them as they are (scenes: 32).
        crop: how images of another shape are brought to `size`: `squash` resizes them without keeping the aspect ratio, as the
            published experiments do, `centre` resizes the shorter side and cuts off what then juts out.
        range: in images of more than eight bits the number that is white, or [black, white]; None finds out over all images.
        image_field, label_field: what holds the images and what their classes, where the names of columns, arrays or members of a
            shard leave a doubt; None finds out.
        per_class: training images per class; None takes all (scenes: 300).
        skip_bad: leave images out that cannot be read, instead of refusing the source.
        normalise: what is subtracted from every channel of the pixels in [0, 1], and what it is divided by then: `fitted`, their
            mean and standard deviation over the training split; published ones, `imagenet`, `cifar10`, `cifar100`, `mnist`,
            `fashion-mnist`, `svhn`; or numbers, [[means], [deviations]]. `none` takes pixels as they are. True is `fitted`, False
            `none`. `outer.lr_img` is in these units.
        zca: whiten instead (Krizhevsky's ZCA, eps 0.1, fitted on the training split).
        val_fraction: share of the training images kept apart, class by class, to choose the best checkpoint on; 0 keeps none.
        seed: of the built-in images and of the splits.
        workers: processes that decode images; None takes all cores.
    """

    prefix: ClassVar[str] = "data."
    source: Named[str] = "scenes"
    root: FolderPath | None = None
    classes: Classes = None
    size: Size = None
    crop: Literal["squash", "centre"] = "squash"
    range: Range = None
    image_field: str | None = None
    label_field: str | None = None
    per_class: int | None = None
    skip_bad: bool = False
    normalise: Normalisation = "fitted"
    zca: bool = False
    val_fraction: Share = 0.1
    seed: Seed = 0
    workers: Count | None = None

    def check_together(self) -> None:
        object.__setattr__(self, "normalise", spelled(self.normalise))
        least = 1 if self.val_fraction == 0 else 2
        require(self.per_class is None or self.per_class >= least, "data.per_class", self.per_class, f"at least {least}")
