"""A few labelled images: the one value for what a network is trained on in the place of a data set.

X   images, as a network takes them       Y   labels, whose kind says what they are       η   the step size to train with

logits          p = softmax(Y)
probabilities   p = Y, rows ≥ 0 that sum to 1
hard            p = Y, one-hot rows
"""

import math
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck.data.preprocessing import Preprocessing
from limbeck.distilled.view_labels import StoredViews
from limbeck.parametrisations.parametrisation import Code

Kind = Literal["logits", "probabilities", "hard"]
SHOWN = 10  # classes, and images of each, in a notebook
SUM_ERROR = 1e-2  # of probabilities: half precision and many classes


@dataclass(frozen=True, eq=False, repr=False)
class SmallSet:
    """Images with labels.

    Args:
        images: X, floats with shape (N, C, H, W), N ≥ 1.
        labels: Y, floats with shape (N, K).
        classes: the class each image stands for, int64 with shape (N,), in 0 … K − 1, on the CPU.
        syn_lr: η, above 0; None where nothing says it.
        kind: what `labels` are, as above.
        views: a teacher's labels of augmented views of these images, beside `labels`; None where there are none.
        code: what the images are decoded from, where that is stored in their place (`parametrisations/`).

    Raises:
        ValueError: when these do not fit together, or a number is not finite.

    >>> small = SmallSet(torch.rand(2, 3, 8, 8), torch.tensor([[2.0, 0], [0, 0]]), torch.tensor([0, 1]), 0.01, "logits")
    >>> small.probabilities()
    tensor([[0.8808, 0.1192],
            [0.5000, 0.5000]])
    >>> small.hard()
    tensor([[1., 0.],
            [0., 1.]])
    """

    images: Tensor
    labels: Tensor
    classes: Tensor
    syn_lr: float | None
    kind: Kind
    views: StoredViews | None = None
    code: Code | None = None

    def __post_init__(self) -> None:
        if problem := _problem(self):
            raise ValueError(problem)

    def __repr__(self) -> str:
        step = "" if self.syn_lr is None else f", η = {self.syn_lr:.4g}"
        shape = "×".join(map(str, self.images.shape[1:]))
        return f"SmallSet({len(self)} images {shape}, {self.kind} of {self.labels.shape[1]} classes{step})"

    def __len__(self) -> int:
        return len(self.images)

    def _repr_html_(self) -> str:
        """The first images of the first classes in a notebook, a row each, from the darkest value to the brightest."""
        from PIL.Image import fromarray

        from limbeck.runtime.tables import picture, table

        low, high = (float(end) for end in self.images.float().aminmax())
        rows: list[tuple[str, ...]] = []
        for k in torch.unique(self.classes)[:SHOWN].tolist():
            x = (self.images[self.classes == k][:SHOWN].float().cpu() - low) / max(high - low, 1e-12)
            x = x if x.shape[1] == 3 else x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
            levels = (255 * x).round().byte().permute(2, 0, 3, 1).flatten(1, 2).contiguous().numpy()
            rows.append((f"class {k}", picture(fromarray(levels), min(64, max(32, len(levels))))))
        more = f" The first {SHOWN} of {self.labels.shape[1]} classes." if self.labels.shape[1] > SHOWN else ""
        return f"<p>{escape(repr(self))}</p>{table(rows)}<p>Black is {low:.3g}, white {high:.3g}.{more}</p>"

    @classmethod
    def of_classes(cls, images: Tensor, classes: Tensor, num_classes: int, syn_lr: float | None = None) -> "SmallSet":
        """Images (N, C, H, W) whose hard labels are their classes, int64 with shape (N,) on the CPU."""
        return cls(images, one_hot(classes, num_classes).float().to(images.device), classes, syn_lr, "hard")

    @property
    def num_classes(self) -> int:
        """K."""
        return self.labels.shape[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def ipc(self) -> int:
        """The greatest number of images that a class has."""
        return int(torch.bincount(self.classes).max())

    @property
    def stored(self) -> Tensor:
        """What is stored of the images: themselves, or what they are decoded from."""
        return self.images if self.code is None else self.code.stored

    @property
    def slots(self) -> int:
        """The greatest number of slots that a class has: of images, where these are stored themselves."""
        return self.ipc if self.code is None else -(-self.ipc // self.code.decoder.images_per_slot)

    @property
    def real_ipc(self) -> int:
        """Real images per class that take as many bytes as those of the class that has most, rounded up."""
        return self.ipc if self.code is None else self.code.decoder.real_images(self.slots)

    def probabilities(self) -> Tensor:
        """p, with shape (N, K)."""
        return self.labels.softmax(dim=1) if self.kind == "logits" else self.labels

    def hard(self) -> Tensor:
        """The classes as one-hot rows with shape (N, K), whatever the labels say."""
        return one_hot(self.classes, self.num_classes).float().to(self.labels.device)

    def to(self, device: torch.device | str) -> "SmallSet":
        """The same with images and labels on that device."""
        code = None if self.code is None else self.code.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), code=code)


def _problem(small: SmallSet) -> str | None:
    """What is wrong with a set, or None."""
    images, labels, classes = small.images, small.labels, small.classes
    if images.ndim != 4 or not images.is_floating_point() or images.numel() == 0:
        return f"images must be floats (N, C, H, W), not {images.dtype} {list(images.shape)}"
    if labels.ndim != 2 or not labels.is_floating_point() or len(labels) != len(images) or labels.numel() == 0:
        return f"labels must be floats [{len(images)}, K], not {labels.dtype} {list(labels.shape)}"
    if classes.dtype != torch.int64 or list(classes.shape) != [len(images)]:
        return f"classes must be int64 {[len(images)]}, not {classes.dtype} {list(classes.shape)}"
    if not 0 <= int(classes.min()) <= int(classes.max()) < labels.shape[1]:
        return f"classes must be in 0 … {labels.shape[1] - 1}"
    for name, values in (("image", images), ("label", labels)):
        if (odd := first_infinite(values)) is not None:
            return f"images and labels must be finite, and {name} {odd} is not"
    if small.kind not in get_args(Kind):
        return f"kind {small.kind!r} is not one of {', '.join(get_args(Kind))}"
    if small.kind == "hard" and not is_one_hot(labels):
        return "hard labels must be one-hot"
    if small.kind == "probabilities" and not are_probabilities(labels):
        return "probabilities must be rows ≥ 0 that sum to 1"
    if small.syn_lr is not None and not (math.isfinite(small.syn_lr) and small.syn_lr > 0):
        return f"syn_lr must be finite and above 0, not {small.syn_lr}"
    if small.code is not None and (wrong := small.code.problem(images)) is not None:
        return wrong
    return None if small.views is None else small.views.problem(images, labels.shape[1])


def is_one_hot(labels: Tensor) -> bool:
    """Whether each row of labels (N, K) has a single 1 and zeros beside it."""
    return bool(((labels == 0) | (labels == 1)).all()) and bool((labels.sum(dim=1) == 1).all())


def are_probabilities(labels: Tensor) -> bool:
    """Whether the rows of labels (N, K) are ≥ 0 and sum to 1, up to a rounding."""
    return bool((labels >= 0).all()) and bool(((labels.sum(dim=1) - 1).abs() < SUM_ERROR).all())


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NamedSet:
    """A set with names and whatever is known of it: what the card and the preview of a `DistilledSet` read."""

    set: SmallSet
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_pixels(self) -> Tensor:
        """The images without their preprocessing, with shape (N, C, H, W), clamped to [0, 1]."""
        return self.preprocessing.inverse(self.set.images).clamp(0, 1)


def first_infinite(values: Tensor) -> int | None:
    """The first position along the first dimension with a number that is NaN or infinite; None where all are finite."""
    if bool(values.isfinite().all()):
        return None
    return int((~values.isfinite()).flatten(1).any(1).to(torch.uint8).argmax())
