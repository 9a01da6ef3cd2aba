"""Where numbers are not finite."""

import torch
from torch import Tensor


def first_infinite(values: Tensor) -> int | None:
    """The first position along the first dimension with a number that is NaN or infinite; None where all are finite."""
    if bool(values.isfinite().all()):
        return None
    return int((~values.isfinite()).flatten(1).any(1).to(torch.uint8).argmax())
