"""Sets as others write them, the data that they are for, and how they are read or refused, to test with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilled.samples import NAMES
from PIL import Image
from torch import Tensor

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing, fit_normalise
from limbeck.data.split import whole
from limbeck.distilled.foreign import ForeignOptions
from limbeck.distilled.read import read_set
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.errors import UsageError

SHAPE = (3, 8, 10)
rng = np.random.default_rng(1)


def image_set(shape: tuple[int, int, int] = SHAPE, names: tuple[str, ...] = NAMES) -> ImageSet:
    """Twelve random images, each split all of them."""
    split = whole(rng.integers(0, 256, (12, *shape), dtype=np.uint8), np.arange(12) % len(names))
    return ImageSet(split, split, split, names, "here", "0123456789abcdef")


DATA = image_set()
NORMALISE = fit_normalise(DATA.train)
PIXELS = torch.from_numpy(rng.random((6, *SHAPE), dtype=np.float32))
PREPARED = NORMALISE.forward(PIXELS)
HARD = torch.tensor([0, 0, 1, 1, 2, 2])
LOGITS = torch.nn.functional.one_hot(HARD, 3) * 4.0 + torch.from_numpy(rng.normal(size=(6, 3))).float()


def save_pt(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def save_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
    return path


def write_images(root: Path, images: Tensor, labels: Tensor, names: tuple[str, ...] = NAMES) -> Path:
    """PNG files of pixels (N, C, H, W) in class folders."""
    for number, (image, k) in enumerate(zip(images, labels.tolist(), strict=True)):
        (root / names[k]).mkdir(parents=True, exist_ok=True)
        levels = (image * 255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
        Image.fromarray(levels).save(root / names[k] / f"{number}.png")
    return root


def read(path: Path, data: ImageSet = DATA, preprocessing: Preprocessing = NORMALISE, **options: Any) -> DistilledSet:
    return read_set(path, data, preprocessing, options=ForeignOptions(**options))


def refused(path: Path, message: str, data: ImageSet = DATA, preprocessing: Preprocessing = NORMALISE, **options: Any) -> None:
    with pytest.raises(UsageError) as caught:
        read(path, data, preprocessing, **options)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


def close(held: DistilledSet, images: Tensor, atol: float = 1e-6) -> bool:
    return held.images.shape == images.shape and torch.allclose(held.images, images, atol=atol)
