"""What a user may say about Discriminative Area Enhancement: the keys `enhance.*`."""

from dataclasses import dataclass
from typing import Literal, get_args

from limbeck.runtime.errors import require

Cam = Literal["gradcam", "smooth_gradcam_pp", "layercam", "average"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EnhanceSettings:
    """Activation maps and the gradient weights made from them (PAPER § 5).

    Args:
        weighting: `activation` weights by F(M, β); `constant` by the mean of F, `shuffled` by another image's F
            (both controls); `none` leaves the gradient alone.
        beta: β, added to the map where it is not below the threshold.
        cam: what maps are made of: `gradcam`, `smooth_gradcam_pp`, `layercam`, or `average`, the mean of the three, each of which
            is brought to [0, 1] before.
        cam_network: `expert`, the last epoch of the first expert.
        cam_layer: a module of the map network, such as `blocks.2`; `last` is its last convolution block;
            several names joined by `+` are averaged.
        cam_every: iterations between two computations of the maps.
        cam_threshold: `mean` of each map, or a number.
    """

    weighting: Literal["activation", "constant", "shuffled", "none"] = "activation"
    beta: float = 1.0
    cam: Cam = "gradcam"
    cam_network: Literal["expert"] = "expert"
    cam_layer: str = "last"
    cam_every: int = 100
    cam_threshold: Literal["mean"] | float = "mean"

    def __post_init__(self) -> None:
        require(self.cam in get_args(Cam), "enhance.cam", self.cam, f"one of {', '.join(get_args(Cam))}")
        require(0 <= self.beta < float("inf"), "enhance.beta", self.beta, "at least 0 and finite")
        require(self.cam_every >= 1, "enhance.cam_every", self.cam_every, "at least 1")
        accepted = "mean or a number in [0, 1]"
        require(
            self.cam_threshold == "mean" or 0 <= float(self.cam_threshold) <= 1,
            "enhance.cam_threshold",
            self.cam_threshold,
            accepted,
        )
