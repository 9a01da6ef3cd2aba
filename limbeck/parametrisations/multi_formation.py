"""Several images in the place of one: each is a part of it, enlarged.

    X_{i, (a, b)} = A_a P_i[rows a, columns b] B_bᵀ

a and b number factor strips of rows and of columns, whose ends lie at ⌊H a / factor⌋, ⌊W b / factor⌋; A_a (H × rows of a) and B_b
are linear interpolation, pixels being areas (`align_corners=False`). Written as matrices their adjoint is exact, and sums in the
same order on every device.

Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization" (IDC), 2022, arXiv:2205.14959.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from limbeck.parametrisations.parametrisation import Parametrisation, Shape
from limbeck.runtime.errors import require


@dataclass(frozen=True)
class MultiFormation(Parametrisation):
    """factor² images a slot of (C, H, W).

    Args:
        factor: into how many strips each side is cut, at least 1.

    Raises:
        UsageError: for another factor.

    Example:
        >>> slots = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> MultiFormation(2).decode(slots, (1, 2, 2))[:, 0, 0, 0]  # every number is an image of its own here
        tensor([0., 1., 2., 3.])
    """

    factor: int = 2

    def __post_init__(self) -> None:
        check_factor(self.factor)

    @property
    def images_per_slot(self) -> int:
        return int(self.factor**2)

    def slot_shape(self, shape: Shape) -> tuple[int, ...]:
        least = min(shape[1:])
        require(self.factor <= least, "parametrisation.factor", self.factor, f"at most {least}, the images' shorter side")
        return shape

    def encode(self, images: Tensor) -> Tensor:
        """Each image shrunk to its part, by the mean over areas."""
        c, h, w = images.shape[1:]
        parts = images.unflatten(0, (-1, self.images_per_slot))
        rows, columns = strips(h, self.factor), strips(w, self.factor)
        lines = [
            torch.cat(
                [
                    adaptive_avg_pool2d(parts[:, self.factor * a + b], (_length(row), _length(column)))
                    for b, column in enumerate(columns)
                ],
                -1,
            )
            for a, row in enumerate(rows)
        ]
        return torch.cat(lines, -2)

    def decode(self, stored: Tensor, shape: Shape) -> Tensor:
        _, h, w = shape
        found = [
            _enlarging(_length(row), h).to(stored) @ stored[..., row, column] @ _enlarging(_length(column), w).to(stored).T
            for row in strips(h, self.factor)
            for column in strips(w, self.factor)
        ]
        return torch.stack(found, 1).flatten(0, 1)


def check_factor(factor: object) -> None:
    """Raise `UsageError` for a factor that is no whole number from 1 on."""
    good = isinstance(factor, int) and not isinstance(factor, bool) and factor >= 1
    require(good, "parametrisation.factor", factor, "a whole number, at least 1")


def strips(side: int, factor: int) -> list[slice]:
    """A side cut into `factor` parts, of which no two differ by more than one pixel."""
    return [slice(side * k // factor, side * (k + 1) // factor) for k in range(factor)]


def _length(part: slice) -> int:
    return int(part.stop - part.start)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # it is kept, and a later call may go back through it
def _enlarging(few: int, many: int) -> Tensor:
    """The matrix (many × few) of linear interpolation, float64."""
    basis = torch.eye(few, dtype=torch.float64).unsqueeze(0)
    return interpolate(basis, size=many, mode="linear", align_corners=False)[0].T.contiguous()
