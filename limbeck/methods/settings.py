"""What a user may say about the outer loop and methods: keys `outer.*`, `real.*`, `ncfm.*`, `rded.*`, `sre2l.*`, `coreset.*`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from limbeck.runtime.checked import Checked, Count, NotNegative, Positive, Rule, Share, at_least, within
from limbeck.runtime.errors import require

StepSize = Annotated[float, within("[0, 1e+38]")]  # single precision ends a little above
AreaShares = Annotated[
    tuple[float, float],
    Rule("two shares in (0, 1], the smaller first", lambda shares: 0 < shares[0] <= shares[1] <= 1),
]
CropCurriculum = Literal["none", "step", "linear", "cosine"]
Betas = Annotated[tuple[float, float], Rule("two numbers in [0, 1)", lambda betas: all(0 <= beta < 1 for beta in betas))]


@dataclass(frozen=True, kw_only=True, slots=True)
class OuterSettings(Checked):
    """The outer loop.

    Args:
        iterations: outer iterations.
        lr_img: step size on the images X as networks take them, which are normalised: where the deviation of a channel is s, pixels
            move by s² times as much. A published step size belongs to the published deviations (`data.normalise`).
        img_momentum: of that SGD.
        img_optimiser: of X: `sgd` with momentum, or `adamw`, whose steps do not depend on the size of L; Y and η have SGD always.
        img_betas: of AdamW.
        img_weight_decay: of AdamW, by which X is drawn to 0 apart from its gradient.
        lr_label: step size on the soft labels Y; 0 keeps them.
        label_momentum: of that SGD.
        lr_lr: step size on the learned inner step size η; 0 keeps it.
        lr_momentum: of that SGD.
        syn_lr_init: η at the start.
        max_match_loss: an iteration whose loss exceeds it changes nothing; `.inf` never skips a finite loss.
        ema_decay: of the running average of X that is evaluated instead of X; None evaluates X itself.
        checkpoint_every: iterations between two checkpoints.
    """

    prefix: ClassVar[str] = "outer."
    iterations: Count = 10_000
    lr_img: StepSize = 1000.0
    img_momentum: Share = 0.5
    img_optimiser: Literal["sgd", "adamw"] = "sgd"
    img_betas: Betas = (0.9, 0.999)
    img_weight_decay: NotNegative = 0.01
    lr_label: StepSize = 2.0
    label_momentum: Share = 0.9
    lr_lr: StepSize = 1e-5
    lr_momentum: Share = 0.5
    syn_lr_init: Annotated[float, within("[1e-6, 1e+38]")] = 0.01
    max_match_loss: Annotated[float, Rule("above 0", lambda loss: loss > 0)] = float("inf")
    ema_decay: Annotated[float, within("(0, 1)")] | None = None
    checkpoint_every: Count = 100

    @property
    def adamw(self) -> bool:
        """Whether X goes down by AdamW."""
        return self.img_optimiser == "adamw"


ROLL, AT_SIDE = 32, 224  # SRe2L's published shift, of images of that side
PUBLISHED_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RealSettings(Checked):
    """Batches of real images, and the networks that gradients are matched in (DC, DSA, DM).

    DM and NCFM take a new network for every iteration and never train it: of these keys they have only `batch`.

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

    prefix: ClassVar[str] = "real."
    batch: Count = 256
    outer_loops: Count | None = None
    inner_loops: Annotated[int, at_least(0)] | None = None
    network_lr: Positive = 0.01
    network_momentum: Share = 0.0
    network_weight_decay: NotNegative = 0.0
    network_batch: Count = 256

    def loops(self, ipc: int) -> tuple[int, int]:
        """`outer_loops` and `inner_loops` for so many images per class, at least 1."""
        outer, inner = PUBLISHED_LOOPS[min(PUBLISHED_LOOPS, key=lambda known: max(known / ipc, ipc / known))]
        return (outer if self.outer_loops is None else self.outer_loops, inner if self.inner_loops is None else self.inner_loops)


@dataclass(frozen=True, kw_only=True, slots=True)
class NcfmSettings(Checked):
    """Characteristic functions of features (NCFM).

    Args:
        frequencies: N_t, points at which the characteristic functions are compared, drawn anew in each iteration.
        sampling: what they are drawn from: `normal`, N(0, I), as in all published runs, or `learned`, a mixture of normals whose
            scales ψ go up the same loss that X goes down.
        sampling_lr: of `learned`, the step size of Adam on ψ.
        amplitude: α, the weight of the difference of amplitudes.
        phase: β, that of the difference of phases.
        scale: what the discrepancy is multiplied by beside the calibration.
        calibration: weight of the cross-entropy of X under a trained network; 0 leaves it out.
    """

    prefix: ClassVar[str] = "ncfm."
    frequencies: Count = 4096
    sampling: Literal["normal", "learned"] = "normal"
    sampling_lr: Positive = 1e-3
    amplitude: NotNegative = 0.5
    phase: NotNegative = 0.5
    scale: Positive = 300.0
    calibration: NotNegative = 1.0

    def check_together(self) -> None:
        require(self.amplitude + self.phase > 0, "ncfm.phase", self.phase, "above 0 where ncfm.amplitude is 0: nothing is compared")


FROM_SIDE = 128  # the factor is 2 from here on: CIFAR and Tiny ImageNet have 1, ImageNet 2


@dataclass(frozen=True, kw_only=True, slots=True)
class RdedSettings(Checked):
    """Crops of real images, scored and stitched.

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

    prefix: ClassVar[str] = "rded."
    factor: Count | None = None
    images: Count = 300
    crops: Count = 5
    crop_scale: AreaShares = (0.08, 1.0)
    fit: Literal["pad", "resize"] = "pad"
    teacher: str | None = None

    def factor_for(self, height: int, width: int) -> int:
        """The factor for images of that size, in pixels.

        Raises:
            UsageError: when they have fewer pixels than parts.
        """
        factor = self.factor or (2 if min(height, width) >= FROM_SIDE else 1)
        require(factor <= min(height, width), "rded.factor", factor, f"at most {min(height, width)}, the images' shorter side")
        return factor


@dataclass(frozen=True, kw_only=True, slots=True)
class Sre2lSettings(Checked):
    """Images recovered from a teacher's weights and batch norms.

    Args:
        iterations: of every batch.
        lr: Adam's step size at the start; it falls along a cosine to 0.
        betas: of Adam.
        batch_size: images that are recovered together, one of each class after the other.
        bn_weight: of the distance between the statistics of the images and those of the teacher's batch norms.
        first_multiplier: by which the first batch norm counts more.
        crop_scale: least and greatest share of the area that a crop has.
        roll: greatest shift in pixels, down and to the right; None takes 32 for 224 pixels, and in proportion for other sizes.
        same_view: whether all images of a batch get the same crop, flip and shift, as in the published runs.
        teacher: name of the teacher's network, which must have batch norms; None takes the one distilled for, or where that has
            none, the same with batch norm.
        start: `noise`, or `patches`: of real images the crops that RDED would take with `rded.factor=1` (`rded.images`,
            `rded.crops`, `rded.crop_scale`), as the recovery's teacher scores them.
        crop_curriculum: how the least share of a crop falls from the greatest one to that of `crop_scale` over the iterations of a
            batch (`crop_curriculum.py`): at once, along a line, or along a cosine; `none` leaves it.
        crop_milestone: the share of the iterations after which it has fallen.
        stages: into so many equal parts the iterations of a batch are cut, each with Adam's moments anew (`residual.py`).
        residual: α in X ← α X + (1 − α) P between two stages, with P the real patches; 1 leaves X alone.
        low_resolution: share of the sides of X in every other stage, counted back from the last, which has the whole sides.
    """

    prefix: ClassVar[str] = "sre2l."
    iterations: Count = 4000
    lr: Positive = 0.25
    betas: Betas = (0.5, 0.9)
    batch_size: Count = 100
    bn_weight: NotNegative = 0.01
    first_multiplier: NotNegative = 10.0
    crop_scale: AreaShares = (0.08, 1.0)
    roll: Annotated[int, at_least(0)] | None = None
    same_view: bool = True
    teacher: str | None = None
    start: Literal["noise", "patches"] = "noise"
    crop_curriculum: CropCurriculum = "none"
    crop_milestone: Annotated[float, within("(0, 1]")] = 1.0
    stages: Count = 1
    residual: Annotated[float, within("[0, 1]")] = 1.0
    low_resolution: Annotated[float, within("(0, 1]")] = 1.0

    def check_together(self) -> None:
        accepted = f"at most sre2l.iterations ({self.iterations})"
        require(self.stages <= self.iterations, "sre2l.stages", self.stages, accepted)

    @property
    def takes_patches(self) -> bool:
        """Whether real patches are asked for."""
        return self.start == "patches" or (self.stages > 1 and self.residual < 1)

    def roll_for(self, height: int, width: int) -> int:
        """The greatest shift, in pixels, of images of that size."""
        return round(ROLL * min(height, width) / AT_SIDE) if self.roll is None else self.roll


@dataclass(frozen=True, kw_only=True, slots=True)
class CoresetSettings(Checked):
    """Real images chosen by how difficult they are: `el2n`, `forgetting` and `ccs`.

    Args:
        judges: whose difficulties: `full` of the `eval.full_seeds` networks of the full data, or `experts`, of all experts at the
            epochs that the schedule reaches.
        epoch: after which EL2N is taken; where networks are not trained for as long, the last before it.
        keep: the `hardest` images, as the papers keep them, or the `easiest`.
        score: that CCS goes by.
        cut: β, the share of a class's hardest images that CCS never takes; as many as leave `ipc`.
        bins: of CCS.
    """

    prefix: ClassVar[str] = "coreset."
    judges: Literal["full", "experts"] = "full"
    epoch: Count = 10
    keep: Literal["hardest", "easiest"] = "hardest"
    score: Literal["el2n", "forgetting"] = "el2n"
    cut: Annotated[float, within("[0, 1)")] = 0.3
    bins: Count = 50
