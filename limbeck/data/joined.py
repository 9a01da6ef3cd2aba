"""Several sets of images as one, so that one network learns all of them: classes of the same name are one class."""

from collections.abc import Sequence

import numpy as np

from limbeck.data.imageset import ImageSet
from limbeck.data.split import Split, room_for, whole
from limbeck.runtime.errors import UsageError


def joined(sets: Sequence[ImageSet], source: str) -> ImageSet:
    """The images of all sets, split by split, in their order.

    Args:
        sets: of images of one shape; their classes are numbered in the order in which their names come first.
        source: what the whole is called.

    Raises:
        UsageError: when images differ in shape.

    >>> from limbeck import load_data
    >>> easy, hard = (load_data(f"scenes:{level}", per_class=10) for level in ("easy", "hard"))
    >>> joined((easy, hard), "scenes"), len(easy.train)
    (ImageSet('scenes', 180 + 20 + 2000 images 3×32×32, 10 classes), 90)
    """
    shapes = {one.shape for one in sets}
    if len(shapes) > 1:
        said = ", ".join(f"{one.source} {'×'.join(map(str, one.shape))}" for one in sets)
        raise UsageError(f"data.size: images of one size are needed to join sets: {said}")
    names = tuple(dict.fromkeys(name for one in sets for name in one.class_names))
    numbers = [np.array([names.index(name) for name in one.class_names], dtype=np.int64) for one in sets]
    train, val, test = (_part([getattr(one, part) for one in sets], numbers, source) for part in ("train", "val", "test"))
    return ImageSet.of(train, val, test, names, source)


def _part(splits: Sequence[Split], numbers: Sequence[np.ndarray], source: str) -> Split:
    """One of the three, from those of all sets; boxes where all of them have some."""
    storage = room_for(sum(map(len, splits)), splits[0].storage.shape[1:], source)
    np.concatenate([split.storage[split.rows] for split in splits], out=storage)
    boxes = [split.boxes for split in splits if split.boxes is not None]
    labels = np.concatenate([number[split.labels] for split, number in zip(splits, numbers, strict=True)])
    return whole(storage, labels, np.concatenate(boxes) if len(boxes) == len(splits) else None)
