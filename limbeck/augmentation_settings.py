"""What a user may say about augmentation: the keys `augment.*`."""

from dataclasses import dataclass

from limbeck.runtime.errors import require

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentSettings:
    """Differentiable augmentation (PAPER § 7).

    Args:
        strategy: operations joined by `_`, one of which is drawn at each call; `none` augments nothing.
        crop_ratio: greatest shift of `crop`, as a share of the side.
        flip: False takes `flip` out of the strategy (for digits and letters).
        rotate: False takes `rotate` out.
    """

    strategy: str = "color_crop_cutout_flip_scale_rotate"
    crop_ratio: float = 0.25
    flip: bool = True
    rotate: bool = True

    def __post_init__(self) -> None:
        known = self.strategy == "none" or all(name in OPERATIONS for name in self.strategy.split("_"))
        require(known, "augment.strategy", self.strategy, f"none or some of {'_'.join(OPERATIONS)}")
        require(0 <= self.crop_ratio <= 1, "augment.crop_ratio", self.crop_ratio, "in [0, 1]")
