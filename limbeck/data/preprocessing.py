"""From pixels to what a network takes, and back.

    normalise:  x = (p − m_c) / s_c             m, s: mean and standard deviation of each channel over the training split, or
                                                those that published experiments take, or numbers of the user's own
    whiten:     x = (p − m) W                   W = U diag(1/√(λ + ε)) Uᵀ,  W⁻¹ = U diag(√(λ + ε)) Uᵀ,  ε = 0.1

where p are pixels in [0, 1] and U diag(λ) Uᵀ is the covariance of the D = C·H·W pixels over the training split. W is symmetric: the
zero-phase whitening of Krizhevsky, "Learning multiple layers of features from tiny images", 2009. Both are fitted in float64.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from limbeck.data.constants import CONSTANTS
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split
from limbeck.runtime.errors import UsageError, require

EPSILON = 0.1
MOST_PIXELS = 3 * 64 * 64  # both matrices then take 1.2 GB in float32, and the fit six times as much
CHUNK = 1024


class Preprocessing(ABC):
    """A map of images that has an inverse."""

    kind: ClassVar[str]

    @abstractmethod
    def forward(self, pixels: Tensor) -> Tensor:
        """What the network takes, for float `pixels` in [0, 1] with shape (N, C, H, W); differentiable."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """The pixels that `forward` makes `x` from, with shape (N, C, H, W); not clamped to [0, 1]."""

    def tensors(self) -> dict[str, Tensor]:
        """What `preprocessing_from` needs to make it again."""
        return dict(vars(self))

    @property
    def identity(self) -> str:
        """What determines it, beside the images that it is fitted on."""
        return self.kind

    def prepare(self, images: Tensor) -> Tensor:
        """What the network takes, float32, for uint8 `images` with shape (N, C, H, W)."""
        return self.forward(images.float() / 255)


@dataclass(frozen=True, eq=False)
class Identity(Preprocessing):
    """Pixels as they are."""

    kind: ClassVar[str] = "identity"

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels

    def inverse(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True, eq=False)
class Normalise(Preprocessing):
    """Zero mean and unit deviation in every channel; `mean` and `std` have shape (C,)."""

    mean: Tensor
    std: Tensor
    kind: ClassVar[str] = "normalise"

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - _per_channel(self.mean, pixels)) / _per_channel(self.std, pixels)

    def inverse(self, x: Tensor) -> Tensor:
        return x * _per_channel(self.std, x) + _per_channel(self.mean, x)


@dataclass(frozen=True, eq=False)
class Constant(Normalise):
    """The same by numbers that no image has a part in."""

    @property
    def identity(self) -> str:
        return f"{self.kind} {self.mean.tolist()} {self.std.tolist()}"


@dataclass(frozen=True, eq=False)
class Whiten(Preprocessing):
    """Nearly uncorrelated pixels; `mean` has shape (D,), `matrix` and `inverse_matrix` (D, D), D = C·H·W."""

    mean: Tensor
    matrix: Tensor
    inverse_matrix: Tensor
    kind: ClassVar[str] = "whiten"

    def forward(self, pixels: Tensor) -> Tensor:
        return ((pixels.flatten(1) - self.mean.to(pixels)) @ self.matrix.to(pixels)).view_as(pixels)

    def inverse(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.inverse_matrix.to(x) + self.mean.to(x)).view_as(x)


def fit_preprocessing(settings: DataSettings, train: Split) -> Preprocessing:
    """The preprocessing that `settings.zca` and `settings.normalise` ask for, fitted on `train` where it is not said in numbers.

    Raises:
        UsageError: when the images are too large to whiten, or have another number of channels than is said.
    """
    if settings.zca:
        return fit_whiten(train)
    if settings.normalise in ("fitted", "none"):
        return fit_normalise(train) if settings.normalise == "fitted" else Identity()
    return constant(settings.normalise, train.storage.shape[1], "data.normalise")


def constant(said: Any, channels: int, key: str) -> Constant:
    """Normalisation by published means and deviations.

    Args:
        said: their name, or the numbers: means and deviations, one of each for every channel.
        channels: of the images.
        key: that says it.

    Raises:
        UsageError: when it is of another number of channels.
    """
    mean, std = CONSTANTS[said] if isinstance(said, str) else said
    require(len(mean) == channels, key, said, f"for images of {channels} channel{'s' * (channels > 1)}, it has {len(mean)}")
    return Constant(torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32))


def fit_normalise(train: Split) -> Normalise:
    """Mean and standard deviation of every channel; a constant channel gets deviation 1.

    Example:
        >>> import limbeck
        >>> data = limbeck.load_data("scenes:easy", size=16, per_class=12)
        >>> fit_normalise(data.train).prepare(data.train.images()).mean().abs() < 1e-4
        tensor(True)
    """
    channels = train.storage.shape[1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for images in _chunks(train):
        counts += [np.bincount(images[:, c].ravel(), minlength=256) for c in range(channels)]
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1))
    std[(counts > 0).sum(axis=1) == 1] = 1
    return Normalise(_float32(mean), _float32(std))


def fit_whiten(train: Split, epsilon: float = EPSILON) -> Whiten:
    """ZCA with `epsilon` added to the covariance's eigenvalues.

    Raises:
        UsageError: when D = C·H·W is above `MOST_PIXELS`.
    """
    size = int(np.prod(train.storage.shape[1:]))
    accepted = f"possible for images of {size} values: at most {MOST_PIXELS}; set data.zca=false or a smaller data.size"
    require(size <= MOST_PIXELS, "data.zca", True, accepted)
    mean = sum((_flat(images).sum(axis=0) for images in _chunks(train)), start=np.zeros(size)) / len(train)
    vectors, values = _fewer_images(train, mean) if len(train) < size else _fewer_pixels(train, mean)

    # The eigenvalues that are not among `values` are 0 and share 1/√ε, whatever their eigenvectors are.
    def power(exponent: float) -> np.ndarray:
        rest = epsilon**exponent
        matrix: np.ndarray = (vectors * ((values + epsilon) ** exponent - rest)) @ vectors.T
        matrix[np.diag_indices(size)] += rest
        return matrix

    return Whiten(_float32(mean), _float32(power(-0.5)), _float32(power(0.5)))


def _fewer_pixels(train: Split, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors (D, D) and eigenvalues (D,) of the covariance."""
    covariance = np.zeros((len(mean), len(mean)))
    for images in _chunks(train):
        centred = _flat(images) - mean
        covariance += centred.T @ centred
    values, vectors = np.linalg.eigh(covariance / (len(train) - 1))
    return vectors, np.maximum(values, 0)


def _fewer_images(train: Split, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, (D, r) and (r,), from the N×N products of the images: A Aᵀ and Aᵀ A have the same eigenvalues but for zeros."""
    centred = np.concatenate([_flat(images) - mean for images in _chunks(train)])
    values, left = np.linalg.eigh(centred @ centred.T)
    real = values > values[-1] * len(train) * np.finfo(np.float64).eps
    return centred.T @ (left[:, real] / np.sqrt(values[real])), values[real] / max(len(train) - 1, 1)


def describe(preprocessing: Preprocessing) -> str:
    """A preprocessing in a few words."""
    if isinstance(preprocessing, Normalise):
        mean, std = (" ".join(f"{value:.4g}" for value in held.tolist()[:4]) for held in (preprocessing.mean, preprocessing.std))
        return f"normalise (mean {mean}, std {std})"
    return preprocessing.kind


def preprocessing_from(kind: str, tensors: dict[str, Tensor]) -> Preprocessing:
    """The preprocessing whose `kind` and `tensors()` these are.

    Raises:
        UsageError: when the kind is unknown, or tensors are missing, not finite, deviations not above 0, or of shapes
            that do not fit together.
    """
    kinds: dict[str, type[Identity] | type[Normalise] | type[Whiten]] = {c.kind: c for c in (Identity, Normalise, Whiten)}
    require(kind in kinds, "preprocessing", kind, f"one of {', '.join(kinds)}")
    names = [field.name for field in fields(kinds[kind])]
    if missing := [name for name in names if name not in tensors]:
        raise UsageError(f"preprocessing: {kind} lacks {', '.join(missing)}")
    held = [tensors[name].float() for name in names]
    size = held[0].shape if held else None
    square = None if size is None else torch.Size((*size, *size))
    fitting = all(t.shape == (square if name.endswith("matrix") else size) for name, t in zip(names, held, strict=True))
    shapes = [tuple(t.shape) for t in held]
    require(fitting and (size is None or len(size) == 1), "preprocessing", shapes, f"the shapes of {kind}")
    require(all(bool(t.isfinite().all()) for t in held), "preprocessing", kind, "finite everywhere")
    require(kind != "normalise" or bool((held[1] > 0).all()), "preprocessing", kind, "of deviations above 0")
    return kinds[kind](*held)


def _chunks(train: Split) -> Iterator[np.ndarray]:
    """uint8 pieces (n, C, H, W) of the split, so that a memory-mapped one is never whole in memory."""
    for start in range(0, len(train), CHUNK):
        yield train.storage[train.rows[start : start + CHUNK]]


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).view(-1, 1, 1)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255.0


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
