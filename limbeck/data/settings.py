"""What a user may say about the data: the keys `data.*`."""

from dataclasses import dataclass

from limbeck.runtime.errors import require


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSettings:
    """Where the images come from and how they are prepared.

    Args:
        source: `scenes`, `scenes:easy|medium|hard`, a folder of images, or an `.npz` file.
        size: side of the images in pixels, or [height, width]; None keeps them as they are (scenes: 32).
        per_class: training images per class; None takes all (scenes: 300).
        normalise: subtract the mean and divide by the standard deviation of every channel.
        zca: whiten instead (Krizhevsky's ZCA, eps 0.1, fitted on the training split).
        val_fraction: share of the training images kept apart, class by class, to choose the best checkpoint on.
        seed: of the built-in images and of the splits.
        workers: processes that decode images; None takes all cores.
    """

    source: str = "scenes"
    size: int | tuple[int, int] | None = None
    per_class: int | None = None
    normalise: bool = True
    zca: bool = False
    val_fraction: float = 0.1
    seed: int = 0
    workers: int | None = None

    def __post_init__(self) -> None:
        sides = () if self.size is None else (self.size,) if isinstance(self.size, int) else self.size
        require(all(side >= 8 for side in sides), "data.size", self.size, "a side, or [height, width], of at least 8 pixels")
        require(self.per_class is None or self.per_class >= 2, "data.per_class", self.per_class, "at least 2")
        require(0 < self.val_fraction < 1, "data.val_fraction", self.val_fraction, "in (0, 1)")
        require(self.workers is None or self.workers >= 1, "data.workers", self.workers, "at least 1")
