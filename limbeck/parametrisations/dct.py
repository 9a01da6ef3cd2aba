"""The lowest frequencies of several images in the place of one.

    X_{i, j} = C_Hᵀ Z(P_{i, j}) C_W        C_n[u, x] = s_u √(2/n) cos(π (2x + 1) u / 2n),  s_0 = √½, else 1

C_n is the orthonormal cosine transform, and Z puts the numbers of a channel to the k frequencies (u, v) of least (u/H)² + (v/W)²,
zeros elsewhere. Of factor² images in a slot each has k = ⌊keep · H W⌋ numbers a channel; with keep = 1/factor² a slot takes at
most the bytes of one image. C is orthonormal, so that encoding is the adjoint of decoding, and finds what is nearest to an image.

After Shin, Shin and Moon, "Frequency Domain-based Dataset Distillation" (FreD), 2023, arXiv:2311.08819, which chooses the
frequencies by what they explain of the real images.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from limbeck.parametrisations.multi_formation import check_factor
from limbeck.parametrisations.parametrisation import Parametrisation, Shape
from limbeck.runtime.errors import require


@dataclass(frozen=True)
class Dct(Parametrisation):
    """factor² images a slot, of each the lowest frequencies.

    Args:
        factor: whose square is the number of images of a slot.
        keep: the share of an image's numbers that is kept, in (0, 1]; None takes 1/factor².

    Raises:
        UsageError: for a value that is none of these.

    Example:
        >>> kept = Dct(2, keep=0.25)
        >>> kept.images_per_slot, kept.slot_shape((3, 32, 32))  # four images, of each channel a quarter of its numbers
        (4, (4, 3, 256))
    """

    factor: int = 2
    keep: float | None = None

    def __post_init__(self) -> None:
        check_factor(self.factor)
        good = self.keep is None or (isinstance(self.keep, (int, float)) and 0 < self.keep <= 1)
        require(good, "parametrisation.keep", self.keep, "in (0, 1]")

    @property
    def images_per_slot(self) -> int:
        return int(self.factor**2)

    def slot_shape(self, shape: Shape) -> tuple[int, ...]:
        c, h, w = shape
        kept = self._kept(h, w)
        least = f"at least {_rounded_up(1 / (h * w))}, one number of {h} × {w}"
        if self.keep is None:
            require(kept >= 1, "parametrisation.factor", self.factor, f"at most {math.isqrt(h * w)} for images of {h} × {w}")
        require(kept >= 1, "parametrisation.keep", self.keep, least)
        return self.images_per_slot, c, kept

    def encode(self, images: Tensor) -> Tensor:
        h, w = images.shape[-2:]
        found = _cosines(h).to(images) @ images @ _cosines(w).to(images).T
        kept: Tensor = found.flatten(-2)[..., _lowest(h, w)[: self._kept(h, w)].to(images.device)]
        slots: Tensor = kept.unflatten(0, (-1, self.images_per_slot))
        return slots

    def decode(self, stored: Tensor, shape: Shape) -> Tensor:
        _, h, w = shape
        kept = stored.flatten(0, 1)
        index = _lowest(h, w)[: kept.shape[-1]].to(stored.device)
        all_of_them = kept.new_zeros(*kept.shape[:-1], h * w).index_copy(-1, index, kept).unflatten(-1, (h, w))
        images: Tensor = _cosines(h).to(stored).T @ all_of_them @ _cosines(w).to(stored)
        return images

    def _kept(self, h: int, w: int) -> int:
        """k."""
        # What is meant by 0.03 or 1/9 is no binary fraction, and a product that is whole for them must not be floored below.
        return h * w // self.factor**2 if self.keep is None else math.floor(self.keep * h * w * (1 + 1e-12))


def _rounded_up(share: float) -> str:
    """Three digits that are no less."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 2)
    return f"{math.ceil(share / unit) * unit:.3g}"


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # it is kept, and a later call may go back through it
def _cosines(n: int) -> Tensor:
    """C_n, float64."""
    x = torch.arange(n, dtype=torch.float64)
    rows = math.sqrt(2 / n) * torch.cos(math.pi / (2 * n) * torch.outer(x, 2 * x + 1))
    rows[0] *= math.sqrt(0.5)
    return rows


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _lowest(h: int, w: int) -> Tensor:
    """The frequencies of h × w in order, as positions row by row; of equal ones the first row first."""
    u, v = torch.arange(h).unsqueeze(1), torch.arange(w)
    return ((u * w) ** 2 + (v * h) ** 2).flatten().argsort(stable=True)
