"""Sets as others write them, to test with."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from distilled.samples import NAMES
from PIL import Image
from torch import Tensor


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
