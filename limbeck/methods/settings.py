"""What a user may say about the outer loop and about single methods: the keys `outer.*`, `real.*`, `rded.*` and `sre2l.*`."""

from dataclasses import dataclass
from typing import Literal

from limbeck.runtime.errors import require

LARGEST = 1e38  # single precision ends a little above


@dataclass(frozen=True, kw_only=True, slots=True)
class OuterSettings:
    """The outer loop (PAPER § 6).

    Args:
        iterations: outer iterations.
        lr_img: step size on the images X.
        img_momentum: of that SGD.
        lr_label: step size on the soft labels Y; 0 keeps them.
        label_momentum: of that SGD.
        lr_lr: step size on the learned inner step size η; 0 keeps it.
        lr_momentum: of that SGD.
        syn_lr_init: η at the start.
        max_match_loss: an iteration whose loss exceeds it changes nothing; `.inf` never skips a finite loss.
        ema_decay: of the running average of X that is evaluated instead of X; None evaluates X itself.
        checkpoint_every: iterations between two checkpoints.
    """

    iterations: int = 10_000
    lr_img: float = 1000.0
    img_momentum: float = 0.5
    lr_label: float = 2.0
    label_momentum: float = 0.9
    lr_lr: float = 1e-5
    lr_momentum: float = 0.5
    syn_lr_init: float = 0.01
    max_match_loss: float = float("inf")
    ema_decay: float | None = None
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        require(self.iterations >= 1, "outer.iterations", self.iterations, "at least 1")
        for name in ("lr_img", "lr_label", "lr_lr"):
            require(0 <= getattr(self, name) <= LARGEST, f"outer.{name}", getattr(self, name), f"in [0, {LARGEST:g}]")
        for name in ("img_momentum", "label_momentum", "lr_momentum"):
            require(0 <= getattr(self, name) < 1, f"outer.{name}", getattr(self, name), "in [0, 1)")
        require(1e-6 <= self.syn_lr_init <= LARGEST, "outer.syn_lr_init", self.syn_lr_init, f"in [1e-6, {LARGEST:g}]")
        require(self.max_match_loss > 0, "outer.max_match_loss", self.max_match_loss, "above 0")
        require(self.ema_decay is None or 0 < self.ema_decay < 1, "outer.ema_decay", self.ema_decay, "in (0, 1)")
        require(self.checkpoint_every >= 1, "outer.checkpoint_every", self.checkpoint_every, "at least 1")


ROLL, AT_SIDE = 32, 224  # SRe2L's published shift, of images of that side
PUBLISHED_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RealSettings:
    """Batches of real images, and the networks that gradients are matched in (PAPER § 9: DC, DSA, DM).

    DM draws a new network for every iteration and never trains it: of these keys it has only `batch`.

    Args:
        batch: real images of a class in an iteration; a class that has fewer gives them all.
        outer_loops: iterations that a network is matched in before the next is drawn. None takes the published number of the
            number of images per class that is nearest, as a ratio: 1, 10, 20, 30, 40, 50 for 1, 10, 20, 30, 40, 50 images per
            class, so that 3 of them take 1, and 4 take 10. The published 1000 networks are as many times this number of iterations.
        inner_loops: epochs on the synthetic images that it is trained for between two of them; None takes 1, 50, 25, 20, 15, 10
            in the same way.
        network_lr: step size of SGD in that training.
        network_momentum: of that SGD.
        network_weight_decay: of that SGD.
        network_batch: synthetic images per step of it.
    """

    batch: int = 256
    outer_loops: int | None = None
    inner_loops: int | None = None
    network_lr: float = 0.01
    network_momentum: float = 0.0
    network_weight_decay: float = 0.0
    network_batch: int = 256

    def __post_init__(self) -> None:
        require(self.batch >= 1, "real.batch", self.batch, "at least 1")
        require(self.outer_loops is None or self.outer_loops >= 1, "real.outer_loops", self.outer_loops, "at least 1")
        require(self.inner_loops is None or self.inner_loops >= 0, "real.inner_loops", self.inner_loops, "at least 0")
        require(0 < self.network_lr < float("inf"), "real.network_lr", self.network_lr, "above 0 and finite")
        require(0 <= self.network_momentum < 1, "real.network_momentum", self.network_momentum, "in [0, 1)")
        decays = 0 <= self.network_weight_decay < float("inf")
        require(decays, "real.network_weight_decay", self.network_weight_decay, "at least 0 and finite")
        require(self.network_batch >= 1, "real.network_batch", self.network_batch, "at least 1")

    def loops(self, ipc: int) -> tuple[int, int]:
        """`outer_loops` and `inner_loops` for so many images per class, at least 1."""
        outer, inner = PUBLISHED_LOOPS[min(PUBLISHED_LOOPS, key=lambda known: max(known / ipc, ipc / known))]
        return (outer if self.outer_loops is None else self.outer_loops, inner if self.inner_loops is None else self.inner_loops)


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
