"""Seeded splits, class by class.

Of n_k images of a class, max(1, round(share · n_k)) are held out, but never the last one: every class keeps an image to train on,
and a class with a single image holds none out. A share of 0 holds nothing out. Each class is drawn by a generator of its own, so
that adding images to one class moves no image of another.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from limbeck.data.imageset import ImageSet, Split, content_fingerprint
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import numpy_generator

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Wanted:
    """Which images to load of a source that nothing is trained on: no class has to have one in every split then.

    Args:
        parts: of `train`, `val` and `test`.
        per_class: images of each class from all of these together, drawn by `seed`; None takes all.
        seed: of the draw.
        glimpse: all images are wanted and divided as they always are, but no more than so many need be decoded: unless all of
            them were before, the others share these, as far as the source is made of single files.
    """

    parts: tuple[str, ...]
    per_class: int | None = None
    seed: int = 0
    glimpse: int | None = None

    def draw(self, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The positions, ascending, of those images in each of the parts that there are.

        Args:
            labels: of every part, int with shape (N,).
        """
        parts = [part for part in self.parts if part in labels]
        together = np.concatenate([labels[part] for part in parts]) if parts else np.arange(0)
        taken = np.zeros(len(together), dtype=bool)
        taken[cap(together, self.per_class, self.seed) if len(together) else []] = True
        ends = np.cumsum([len(labels[part]) for part in parts])
        return {part: np.flatnonzero(taken[end - len(labels[part]) : end]) for part, end in zip(parts, ends, strict=True)}


def hold_out(labels: np.ndarray, share: float, seed: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Divide images in two, stratified by class.

    Args:
        labels: int with shape (N,).
        share: of each class to hold out, in [0, 1).
        seed, key: name the draw.

    Returns:
        The positions kept and the positions held out, each ascending; together they are 0 … N−1.
    """
    held = np.zeros(len(labels), dtype=bool)
    for k in np.unique(labels) if share > 0 else ():
        members = np.flatnonzero(labels == k)
        count = min(max(1, int(share * len(members) + 0.5)), len(members) - 1)
        held[numpy_generator(seed, key, int(k)).permutation(members)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def hold_out_test(labels: np.ndarray, settings: DataSettings) -> tuple[np.ndarray, np.ndarray]:
    """The positions to train on and, `TEST_SHARE` of each class, to test on, for a source that does not say.

    Raises:
        UsageError: when no class can spare an image.
    """
    kept, held = hold_out(labels, TEST_SHARE, settings.seed, "test")
    if len(held) == 0:
        raise UsageError(f"data.source: {settings.source!r} has one image in every class: none can be spared to test on")
    return kept, held


def cap(labels: np.ndarray, per_class: int | None, seed: int) -> np.ndarray:
    """Positions, ascending, of at most `per_class` images of every class, drawn by `seed`; None keeps all."""
    if per_class is None:
        return np.arange(len(labels))
    classes = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    drawn = [numpy_generator(seed, "cap", i).permutation(members)[:per_class] for i, members in enumerate(classes)]
    return np.sort(np.concatenate(drawn))


def divide(
    settings: DataSettings,
    train: Split,
    test: Split,
    class_names: tuple[str, ...],
    val: Split | None = None,
    content: str | None = None,
) -> ImageSet:
    """The `ImageSet` of these training and test images.

    Args:
        settings: `per_class` caps the training images first; `val_fraction` of what remains becomes the validation split,
            which is empty where that is 0.
        train, test: the source's two parts.
        class_names: in the order of the labels.
        val: the source's own validation images, if it has any; nothing is then taken from `train`.
        content: fingerprint of the pixels, where it is known already.

    Raises:
        UsageError: when no class can spare an image for validation.
    """
    train = train.take(cap(train.labels, settings.per_class, settings.seed))
    if val is None:
        kept, held = hold_out(train.labels, settings.val_fraction, settings.seed, "val")
        if len(held) == 0 and settings.val_fraction > 0:
            raise UsageError(
                f"data.source: {settings.source!r} has one training image in every class: none can be spared to validate on; "
                "data.val_fraction=0 does without"
            )
        train, val = train.take(kept), train.take(held)
    return ImageSet(train, val, test, class_names, settings.source, content_fingerprint(train, val, test, class_names, content))
