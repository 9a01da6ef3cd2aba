"""A synthetic ImageNet: 1000 class folders whose images say by their colour which class they are of."""

from pathlib import Path

import numpy as np
from data.pictures import png

from limbeck.data.registry import wnids

SIDE = 16


def colour(index: int) -> tuple[int, int, int]:
    """The one colour of the images of a class."""
    return index // 100, index // 10 % 10, index % 10 + 100


def index_of(image: np.ndarray) -> int:
    """The class that an image (3, H, W) is of."""
    assert (image == image[:, :1, :1]).all()
    hundreds, tens, ones = image[:, 0, 0].tolist()
    return 100 * hundreds + 10 * tens + ones - 100


def build_tree(root: Path, train: int = 2) -> Path:
    """`train/` with two images of 16×16 a class, class-wise `val/` with one, called as in ImageNet; flat `flat/` has those, too."""
    (root / "flat").mkdir(parents=True)
    for index, wnid in enumerate(wnids()):
        content = png(np.full((SIDE, SIDE, 3), colour(index), np.uint8))
        for part in ("train", "val"):
            (root / part / wnid).mkdir(parents=True)
        for i in range(train):
            (root / "train" / wnid / f"{wnid}_{i}.JPEG").write_bytes(content)
        name = val_name(index)
        (root / "val" / wnid / name).write_bytes(content)
        (root / "flat" / name).write_bytes(content)
    return root


def val_name(index: int) -> str:
    """The file of the class's validation image: their order is not that of the classes."""
    return f"ILSVRC2012_val_{(index * 389 + 7) % 1000 + 1:08}.JPEG"
