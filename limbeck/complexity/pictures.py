"""The images that are measured: some of those of one or several splits, in a fixed order."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from limbeck.complexity.settings import ComplexitySettings
from limbeck.data.imageset import ImageSet, Split
from limbeck.data.split import cap
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint

PARTS = {"train": ("train", "val"), "test": ("test",), "all": ("train", "val", "test")}


@dataclass(frozen=True, eq=False)
class Pictures:
    """n images.

    Args:
        splits: by name.
        part: the place in `splits` of the split that each image is from, int64 with shape (n,), ascending.
        position: its position in that split, int64 with shape (n,).
        labels: its class, int64 with shape (n,).
        class_names: of the K classes.
        fingerprint: of the data set they are from.
    """

    splits: Mapping[str, Split]
    part: np.ndarray
    position: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def identity(self) -> str:
        """A fingerprint of the images and their order."""
        return fingerprint(self.fingerprint, list(self.splits), array_fingerprint(self.part, self.position))

    def images(self, index: np.ndarray) -> Tensor:
        """The images at `index` (int64, shape (m,)), uint8 with shape (m, C, H, W)."""
        first = next(iter(self.splits.values()))
        found = torch.empty(len(index), *first.storage.shape[1:], dtype=torch.uint8)
        for number, split in enumerate(self.splits.values()):
            chosen = np.flatnonzero(self.part[index] == number)
            found[torch.from_numpy(chosen)] = split.images(self.position[index[chosen]])
        return found

    def name(self, i: int) -> str | None:
        """What image `i` is called in its source; None where it has no name there."""
        return list(self.splits.values())[int(self.part[i])].name(int(self.position[i]))

    def boxes(self) -> np.ndarray | None:
        """The objects' boxes, with shape (n, 4); None where they are not known."""
        found = np.empty((len(self), 4), dtype=np.int64)
        for number, split in enumerate(self.splits.values()):
            if split.boxes is None:
                return None
            chosen = self.part == number
            found[chosen] = split.boxes[self.position[chosen]]
        return found


def choose(data: ImageSet, settings: ComplexitySettings) -> Pictures:
    """The images that `split` and `per_class` ask for.

    Raises:
        UsageError: when there are none.
    """
    splits = {name: split for name in PARTS[settings.split] if len(split := getattr(data, name))}
    if not splits:
        raise UsageError(f"--split: {settings.split!r} holds no image of {data.source!r}")
    part = np.repeat(np.arange(len(splits)), [len(split) for split in splits.values()])
    position = np.concatenate([np.arange(len(split)) for split in splits.values()])
    labels = np.concatenate([split.labels for split in splits.values()])
    taken = cap(labels, settings.per_class, settings.seed)
    return Pictures(splits, part[taken], position[taken], labels[taken], data.class_names, data.fingerprint)
