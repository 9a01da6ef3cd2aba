"""What a user may say about augmentation: the keys `augment.*`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from limbeck.runtime.checked import Checked, Named, Rule, within

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
Strategy = Annotated[
    Named[str],
    Rule(f"none or some of {'_'.join(OPERATIONS)}", lambda text: text == "none" or set(text.split("_")) <= set(OPERATIONS)),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentSettings(Checked):
    """Differentiable augmentation.

    Args:
        strategy: operations joined by `_`, one of which is drawn at each call; `none` augments nothing. Or an
            augmentation of one's own.
        crop_ratio: greatest shift of `crop`, as a share of the side: 0.25 is EDF's, the other methods have 0.125, as published.
        flip: False takes `flip` out of the strategy (for digits and letters).
        rotate: False takes `rotate` out.
    """

    prefix: ClassVar[str] = "augment."
    strategy: Strategy = "color_crop_cutout_flip_scale_rotate"
    crop_ratio: Annotated[float, within("[0, 1]")] = 0.25
    flip: bool = True
    rotate: bool = True
