"""What an evaluation of the outer loop sees."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What an evaluation sees; callbacks may keep it, the loop does not change its tensors.

    Args:
        iteration: finished iterations.
        images: X with shape (N, C, H, W), or its running average where one is evaluated.
        labels: Y with shape (N, K).
        syn_lr: η.
        maps: M with shape (N, H, W); zeros where none are made.
        weights: F with shape (N, 1, H, W).
        accuracy: mean accuracy in [0, 1] on the validation images; None where nothing is chosen by it.
        best: whether it is the best so far.
        loss: of the last iteration; None before the first, or where it was not finite.
        skipped: iterations that changed nothing.

    Example:
        >>> import limbeck
        >>> seen = []
        >>> quick = {"size": 16, "per_class": 12, "iterations": 2, "every": 1, "epochs": 1, "full_epochs": 1, "random_lr": 0.01}
        >>> run = limbeck.distill("scenes:easy", "dm", network="ConvNetD2-w4", callbacks=[seen.append], **quick)
        >>> [snapshot.iteration for snapshot in seen], seen[0].images.shape
        ([0, 1, 2], torch.Size([10, 3, 16, 16]))
    """

    iteration: int
    images: Tensor
    labels: Tensor
    syn_lr: float
    maps: Tensor
    weights: Tensor
    accuracy: float | None
    best: bool
    loss: float | None
    skipped: int


Callback = Callable[[Snapshot], None]
