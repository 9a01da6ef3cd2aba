"""What a user may say about RDED: the keys `rded.*`."""

from dataclasses import dataclass
from typing import Literal

from limbeck.runtime.errors import require

FROM_SIDE = 128  # the factor is 2 from here on: CIFAR and Tiny ImageNet have 1, ImageNet 2


@dataclass(frozen=True, kw_only=True, slots=True)
class RdedSettings:
    """Crops of real images, scored and stitched (PAPER § 9).

    Args:
        factor: sides of an image are cut into so many; factor² crops make one image. None takes 2 where both sides have 128
            pixels or more, else 1.
        images: real images per class that are cropped, or all where there are fewer; where ipc · factor² is more, so many.
        crops: of each of them, of which the best may be taken.
        crop_scale: least and greatest share of the area that a crop has.
        fit: how a crop comes to the size that the teacher takes, to be scored: `pad` puts it in the middle of what the network
            takes for zeros, as the published runs do, `resize` enlarges it.
        teacher: name of the teacher's network; None takes the one distilled for.
    """

    factor: int | None = None
    images: int = 300
    crops: int = 5
    crop_scale: tuple[float, float] = (0.08, 1.0)
    fit: Literal["pad", "resize"] = "pad"
    teacher: str | None = None

    def __post_init__(self) -> None:
        require(self.factor is None or self.factor >= 1, "rded.factor", self.factor, "at least 1, or null")
        for name in ("images", "crops"):
            require(getattr(self, name) >= 1, f"rded.{name}", getattr(self, name), "at least 1")
        low, high = self.crop_scale
        require(0 < low <= high <= 1, "rded.crop_scale", list(self.crop_scale), "two shares in (0, 1], the smaller first")
        require(self.fit in ("pad", "resize"), "rded.fit", self.fit, "pad or resize")

    def factor_for(self, height: int, width: int) -> int:
        """The factor for images of that size, in pixels.

        Raises:
            UsageError: when they have fewer pixels than parts.
        """
        factor = self.factor or (2 if min(height, width) >= FROM_SIDE else 1)
        require(factor <= min(height, width), "rded.factor", factor, f"at most {min(height, width)}, the images' shorter side")
        return factor
