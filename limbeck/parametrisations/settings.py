"""What a user may say about what a set stores: the keys `parametrisation.*`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from limbeck.runtime.checked import Checked, Count, Named, within


@dataclass(frozen=True, kw_only=True, slots=True)
class ParametrisationSettings(Checked):
    """What the outer loop optimises and a set stores (`parametrisations/`).

    Args:
        kind: `pixels` are the images themselves; `multi` cuts each of the `ipc` slots of a class into factor² parts and enlarges
            each to an image; `dct` keeps the lowest frequencies of factor² images in each. Or a parametrisation of one's own.
        factor: of `multi` and `dct`: factor² images are decoded from a slot.
        keep: of `dct`: the share of an image's numbers that is kept of each; None takes 1/factor², so that a slot is as large as
            one image.
    """

    prefix: ClassVar[str] = "parametrisation."
    kind: Named[Literal["pixels", "multi", "dct"]] = "pixels"
    factor: Count = 2
    keep: Annotated[float, within("(0, 1]")] | None = None
