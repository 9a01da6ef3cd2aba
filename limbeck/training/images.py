"""Images as a network takes them, fetched by index."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.preprocessing import Preprocessing, Whiten
from limbeck.data.split import Split
from limbeck.runtime.devices import on_gpu
from limbeck.runtime.memory import check_memory, free_memory

HELD_BYTES = 2 * 1024**3
SPARED = 0.75  # of the memory that is free


class Images(ABC):
    """N prepared images with shape (C, H, W) on a device."""

    shape: tuple[int, int, int]
    device: torch.device

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def fetch(self, index: Tensor) -> Tensor:
        """The images of `index` (int64, shape (n,), on the CPU), with shape (n, C, H, W)."""


class TensorImages(Images):
    """Images that are one tensor with shape (N, C, H, W) already."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.device = images, images.device
        self.shape = (images.shape[1], images.shape[2], images.shape[3])
        # Sent to another process as this array, which the sender writes to a file once, however often it is sent.
        self._array = images.numpy() if not on_gpu(images.device) else None

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[Any, ...]:
        return _held, (self._array if self._array is not None else self.images.cpu().numpy(), str(self.device))

    def fetch(self, index: Tensor) -> Tensor:
        return self.images[index.to(self.device)]


def _held(images: np.ndarray, device: str) -> TensorImages:
    return TensorImages(torch.from_numpy(images).to(device))


class LazyImages(Images):
    """Images of a split that are prepared when they are fetched, because all of them would fill the memory."""

    def __init__(self, split: Split, preprocessing: Preprocessing, device: torch.device) -> None:
        self.split, self.preprocessing, self.device = split, preprocessing, device
        self.shape = split.storage.shape[1:]

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, index: Tensor) -> Tensor:
        return self.preprocessing.prepare(self.split.images(index.numpy())).to(self.device)


class Chosen(Images):
    """The images at some positions of others.

    Args:
        images: the others.
        positions: int64 with shape (n,), on the CPU.
    """

    def __init__(self, images: Images, positions: Tensor) -> None:
        self.images, self.positions = images, positions
        self.shape, self.device = images.shape, images.device

    def __len__(self) -> int:
        return len(self.positions)

    def fetch(self, index: Tensor) -> Tensor:
        return self.images.fetch(self.positions[index])


def prepare_split(split: Split, preprocessing: Preprocessing, device: torch.device) -> Images:
    """The images of `split`, held as one tensor on `device` where they fit in 2 GiB, and in the memory that is free.

    Raises:
        UsageError: for whitened images that do not fit there, which are rounded otherwise when they are prepared one by one.
    """
    lazy = LazyImages(split, preprocessing, device)
    size = 4 * len(split) * math.prod(lazy.shape)
    if size > HELD_BYTES:
        return lazy
    if preprocessing.kind == Whiten.kind:
        what, less = (
            f"holding {len(split)} whitened images",
            "data.zca=false, a lower data.per_class or a smaller data.size takes less",
        )
        check_memory(size, device, "data.zca: True", what, less)
    elif size > SPARED * free_memory(device):
        return lazy
    held = torch.empty(len(split), *lazy.shape, device=device)
    for index in torch.arange(len(split)).split(1024):  # into its place: joining parts would need the memory twice
        held[index[0] : index[-1] + 1] = lazy.fetch(index)
    return TensorImages(held)


def sample(images: Images, most: int = 512) -> Tensor:
    """At most `most` images with shape (n, C, H, W), evenly spaced, so that every class of a sorted set is among them."""
    count = min(len(images), most)
    return images.fetch(torch.arange(count) * len(images) // count)
