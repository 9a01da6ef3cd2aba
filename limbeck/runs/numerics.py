"""What earlier versions computed otherwise from the same settings, so that none of it is taken for what is computed now.

1   the first
2   ConvNets pad images of 28×28 pixels; PAD's windows end with epochs 40 and 60; the protocol `kd-rded` as RDED has it
"""

from limbeck.methods.registry import known
from limbeck.networks.convnet import PADDED
from limbeck.runs.settings import DistillSettings

NUMERICS = 2


def otherwise(numerics: int, settings: DistillSettings, *, padded: bool) -> str | None:
    """What a version computed otherwise under these settings, as the beginning of a sentence; None where nothing.

    Args:
        numerics: of that version.
        settings: of a run.
        padded: whether its network is a ConvNet that pads the images.
    """
    if numerics >= NUMERICS:
        return None
    method = known(settings.method)
    if padded:
        return f"network: {settings.network!r} did not pad images of {PADDED}×{PADDED} pixels"
    if settings.experts.curriculum == "pad" and (method is None or method.experts):
        return "experts.curriculum: 'pad' took other images in some epochs"
    if settings.eval.protocol == "kd-rded":
        return "eval.protocol: 'kd-rded' shuffled and cropped images otherwise"
    return None
