"""`data-card.safetensors` of a run folder: what the run's images are, for people, so that a report needs the images no more.

It holds counts of every class in every split, and small pictures of a few training images, unless `features` is `none`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing, preprocessing_from
from limbeck.data.split import Split, evenly
from limbeck.runtime.errors import UsageError, reason
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import Damaged, FileKind

DATA_CARD = FileKind("data card")
FILE = "data-card.safetensors"
PREFIX = "preprocessing."
EXAMPLES, MOST_EXAMPLES = 6, 200  # of a class, and in all
LARGEST_SIDE = 64
R = TypeVar("R", bound=Record)
BUDGET = 2**21  # bytes of pictures


@dataclass(frozen=True, kw_only=True)
class CardAbout(Record):
    """What a run's images are.

    Args:
        source: what the user called them.
        class_names: K names.
        counts: how many images of each class are in `train`, `val` and `test`.
        shape: of an image, (C, H, W).
        fingerprint: of all of them.
        preprocessing: the kind of what networks take them by; None in cards of earlier versions.
    """

    source: str
    class_names: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    shape: tuple[int, int, int]
    fingerprint: str
    preprocessing: str | None = None

    @property
    def totals(self) -> dict[str, int]:
        """How many images each split has."""
        return {name: sum(counts) for name, counts in self.counts.items()}


@dataclass(frozen=True, eq=False)
class DataCard:
    """The content of the file.

    Args:
        about: in words and numbers.
        examples: small pictures of training images, uint8 with shape (n, C, h, w), ordered by class.
        classes: of these, int64 with shape (n,).
        preprocessing: that leads from what networks take back to pixels, before there is a set that says so; None in cards of
            earlier versions.
    """

    about: CardAbout
    examples: Tensor
    classes: Tensor
    preprocessing: Preprocessing | None = None

    @classmethod
    def of(cls, data: ImageSet, preprocessing: Preprocessing | None = None, *, pictures: bool) -> "DataCard":
        """The card of those images, with pictures of some or without any."""
        count, splits = data.num_classes, {"train": data.train, "val": data.val, "test": data.test}
        some = evenly(data.train.labels, min(EXAMPLES * count, MOST_EXAMPLES)) if pictures else np.arange(0)
        some = some[np.argsort(data.train.labels[some], kind="stable")]
        counts = {name: tuple(np.bincount(one.labels, minlength=count).tolist()) for name, one in splits.items()}
        about = CardAbout(
            source=data.source,
            class_names=data.class_names,
            counts=counts,
            shape=data.shape,
            fingerprint=data.fingerprint,
            preprocessing=None if preprocessing is None else preprocessing.kind,
        )
        return cls(about, small_pictures(data.train, some, BUDGET), torch.from_numpy(data.train.labels[some]), preprocessing)

    def write(self, folder: Path, of: str) -> None:
        """Write it into the folder of the run `of`."""
        tensors = {"examples": self.examples, "classes": self.classes}
        if self.preprocessing is not None:
            tensors |= {PREFIX + name: tensor for name, tensor in self.preprocessing.tensors().items()}
        write_tensors(folder / FILE, tensors, self.about.to_dict(), DATA_CARD, of)

    @classmethod
    def read(cls, folder: Path) -> "DataCard":
        """The card in a run folder.

        Raises:
            OSError: when there is none, as in folders of earlier versions.
            Damaged: when it is not what was written, or what no run can have written.
        """
        about, tensors = read_kept(folder / FILE, DATA_CARD, CardAbout, ("examples", "classes"))
        way = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
        try:
            preprocessing = None if about.preprocessing is None else preprocessing_from(about.preprocessing, way)
            card = cls(about, tensors["examples"], tensors["classes"], preprocessing)
        except UsageError as error:
            raise Damaged(f"its content is no data card's: {error}") from error
        counts, classes = card.about.counts, len(card.about.class_names)
        if counts.keys() != {"train", "val", "test"} or any(len(of_split) != classes for of_split in counts.values()):
            raise Damaged("its counts are not those of its classes")
        if not are_pictures(card.examples, len(card.classes)) or not are_below(card.classes, classes):
            raise Damaged("its pictures are not those of its classes")
        return card


def read_kept(path: Path, kind: FileKind, about: type[R], names: Iterable[str]) -> tuple[R, Mapping[str, Tensor]]:
    """What a run keeps for its report in a file: what that says of itself, and tensors, those of these names among them.

    Raises:
        OSError: when there is none.
        Damaged: when it is not what was written, or what no run can have written.
    """
    tensors, metadata = read_tensors(path, kind=kind)
    if lacking := [name for name in names if name not in tensors]:
        raise Damaged(f"it lacks {', '.join(lacking)}")
    try:
        return about.from_dict(metadata), tensors
    except (TypeError, LookupError) as error:
        raise Damaged(f"what it says of itself is something else: {reason(error)}") from error


def small_pictures(split: Split, positions: np.ndarray, budget: int) -> Tensor:
    """Pictures of some images, uint8 with shape (n, C, h, w), as large as `small` says."""
    shape = split.storage.shape[1:]
    size = small((shape[0], shape[1], shape[2]), len(positions), budget)
    made = torch.empty(len(positions), shape[0], *size, dtype=torch.uint8)
    for at in torch.arange(len(positions)).split(256):
        images = split.images(positions[at.numpy()])
        made[at] = images if size == shape[1:] else interpolate(images.float(), size=size, mode="area").round().byte()
    return made


def small(shape: tuple[int, int, int], count: int, budget: int) -> tuple[int, int]:
    """The height and width of so many pictures of images (C, H, W): no side above `LARGEST_SIDE`, nor all above `budget` bytes."""
    _, height, width = shape
    scale = min(1.0, LARGEST_SIDE / max(height, width), (budget / max(1, count * math.prod(shape))) ** 0.5)
    return max(1, int(height * scale)), max(1, int(width * scale))


def are_pictures(held: Tensor, count: int) -> bool:
    """Whether a tensor holds so many pictures."""
    return held.dtype == torch.uint8 and held.ndim == 4 and len(held) == count and 0 not in held.shape[1:]


def are_below(held: Tensor, count: int) -> bool:
    """Whether a tensor holds whole numbers in [0, count)."""
    return held.dtype == torch.int64 and bool(((held >= 0) & (held < count)).all())
