"""What a user may say about Discriminative Area Enhancement: the keys `enhance.*`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from limbeck.runtime.checked import Checked, Count, Named, NotNegative, within

Cam = Literal["gradcam", "smooth_gradcam_pp", "layercam", "average"]
# `torchcam.methods` has these classes; they are named here because it imports torch.
TorchCam = Literal[
    "CAM",
    "FinerCAM",
    "GradCAM",
    "GradCAMpp",
    "ISCAM",
    "LayerCAM",
    "LeGrad",
    "RefineCAM",
    "SSCAM",
    "ScoreCAM",
    "SmoothGradCAMpp",
    "XGradCAM",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class EnhanceSettings(Checked):
    """Activation maps and the gradient weights made from them.

    Args:
        weighting: `activation` weights by F(M, β); `constant` by the mean of F, `shuffled` by another image's F
            (both controls); `none` leaves the gradient alone. Or a weighting of one's own.
        beta: β, added to the map where it is not below the threshold.
        cam: what maps are made of: `gradcam`, `smooth_gradcam_pp`, `layercam`, or `average`, the mean of the three, each of which
            is brought to [0, 1] before; or a class of torch-cam by its name, or maps of one's own.
        cam_network: `expert`, the last epoch of the first expert; a network of the full data where a method reads no experts, a
            recovery's teacher.
        cam_layer: a module of the map network, such as `blocks.2`; `last` is its last convolution block;
            several names joined by `+` are averaged.
        cam_every: iterations between two computations of the maps.
        cam_threshold: `mean` of each map, or a number.
    """

    prefix: ClassVar[str] = "enhance."
    weighting: Named[Literal["activation", "constant", "shuffled", "none"]] = "activation"
    beta: NotNegative = 1.0
    cam: Named[Literal[Cam, TorchCam]] = "gradcam"
    cam_network: Literal["expert"] = "expert"
    cam_layer: str = "last"
    cam_every: Count = 100
    cam_threshold: Literal["mean"] | Annotated[float, within("[0, 1]", "a number ")] = "mean"
