"""What a user may say about SRe2L: the keys `sre2l.*`."""

from dataclasses import dataclass

from limbeck.runtime.errors import require

ROLL, AT_SIDE = 32, 224  # the published shift, of images of that side


@dataclass(frozen=True, kw_only=True, slots=True)
class Sre2lSettings:
    """Images recovered from a teacher's weights and batch norms (PAPER § 9).

    Args:
        iterations: of every batch.
        lr: Adam's step size at the start; it falls along a cosine to 0.
        betas: of Adam.
        batch_size: images that are recovered together, one of each class after the other.
        bn_weight: of the distance between the statistics of the images and those of the teacher's batch norms.
        first_multiplier: by which the first batch norm counts more.
        crop_scale: least and greatest share of the area that a crop has.
        roll: greatest shift in pixels; None takes 32 for 224 pixels, and in proportion for other sizes.
        same_view: whether all images of a batch get the same crop, flip and shift, as in the published runs.
        teacher: name of the teacher's network, which must have batch norms; None takes the one distilled for, or where that has
            none, the same with batch norm.
    """

    iterations: int = 4000
    lr: float = 0.25
    betas: tuple[float, float] = (0.5, 0.9)
    batch_size: int = 100
    bn_weight: float = 0.01
    first_multiplier: float = 10.0
    crop_scale: tuple[float, float] = (0.08, 1.0)
    roll: int | None = None
    same_view: bool = True
    teacher: str | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size"):
            require(getattr(self, name) >= 1, f"sre2l.{name}", getattr(self, name), "at least 1")
        require(0 < self.lr < float("inf"), "sre2l.lr", self.lr, "above 0 and finite")
        require(all(0 <= beta < 1 for beta in self.betas), "sre2l.betas", list(self.betas), "two numbers in [0, 1)")
        for name in ("bn_weight", "first_multiplier"):
            value = getattr(self, name)
            require(0 <= value < float("inf"), f"sre2l.{name}", value, "at least 0 and finite")
        low, high = self.crop_scale
        require(0 < low <= high <= 1, "sre2l.crop_scale", list(self.crop_scale), "two shares in (0, 1], the smaller first")
        require(self.roll is None or self.roll >= 0, "sre2l.roll", self.roll, "at least 0, or null")

    def roll_for(self, height: int, width: int) -> int:
        """The greatest shift, in pixels, of images of that size."""
        return round(ROLL * min(height, width) / AT_SIDE) if self.roll is None else self.roll
