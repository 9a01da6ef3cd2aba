"""What a user may say about the experts: the keys `experts.*`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from limbeck.runtime.checked import Checked, Count, FolderPath, NotNegative, Positive, Rule, Share, within
from limbeck.runtime.errors import require

Milestones = Annotated[
    tuple[float, ...],
    Rule(
        "shares of the epochs above 0 and at most 1, ascending",
        lambda shares: all(0 < share <= 1 for share in shares) and list(shares) == sorted(shares),
    ),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertSettings(Checked):
    """How the expert trajectories are trained and kept.

    Args:
        num_experts: S, networks trained from different seeds.
        train_epochs: E, epochs of each.
        expert_lr: step size of SGD, at the beginning.
        rate: how it changes: not, `constant`; `drop_at_half`, to a tenth, momentum starting anew; `steps`, by `rate_factor` at
            every one of `rate_milestones`; `cosine`, half a wave down to `lr_min`.
        rate_epochs: the epochs that this change is laid out over; None takes train_epochs. Trained further, experts keep the step
            size that it ends with; experts with other `rate_epochs` are other experts.
        rate_milestones: of `steps`, shares of those epochs, ascending.
        rate_factor: of `steps`.
        lr_min: of `cosine`, the step size that it comes down to.
        momentum: of SGD.
        weight_decay: of SGD.
        batch_size: images per step.
        optimiser: `sgd`, or `gsam` (adaptive, around that SGD), which flattens the trajectory; it takes twice as long.
        rho_min, rho_max: of GSAM, its radius at the least and at the greatest step size of `rate`; a constant one has rho_max.
        alpha: of GSAM, how much of the gradient across its ascent is taken off.
        curriculum: `pad` goes from easy to difficult images and leaves out the easiest later; `none` takes all.
        difficulty: what `pad` sorts by: the length of the gradient by the last layer's parameters, `grand_last`, as its release
            does, or by all parameters, `grand`; or that of the error, `el2n` (`experts/curriculum.py`).
        crop_ratio: of the experts' augmentation; the other augmentation keys are shared with `augment`.
        label_experts: how many experts are averaged for the soft labels; None takes all.
        dtype: how checkpoints are kept: `fp32`; `half`, in half the space, which changes no displacement θ*_{t+M} − θ*_t within
            a block of eight epochs by more than 1 %, nor one between blocks unless the trajectory comes back to where it was
            (0.1–0.3 % measured); or `fp16`, plain rounding, which changes it by 0.3–5 %.
        store: the folder of the trajectory store, or its URL (`s3://bucket/experts`); None takes the one in the cache that belongs
            to these settings.
    """

    prefix: ClassVar[str] = "experts."
    num_experts: Count = 100
    train_epochs: Count = 100
    expert_lr: Positive = 0.01
    rate: Literal["constant", "drop_at_half", "steps", "cosine"] = "constant"
    rate_epochs: Count | None = None
    rate_milestones: Milestones = (0.5, 0.75)
    rate_factor: Annotated[float, Rule("above 0 and at most 1", lambda factor: 0 < factor <= 1)] = 0.1
    lr_min: NotNegative = 0.0
    momentum: Share = 0.0
    weight_decay: NotNegative = 0.0
    batch_size: Count = 256
    optimiser: Literal["sgd", "gsam"] = "sgd"
    rho_min: NotNegative = 0.01
    rho_max: NotNegative = 0.01
    alpha: NotNegative = 0.3
    curriculum: Literal["none", "pad"] = "none"
    difficulty: Literal["grand_last", "grand", "el2n"] = "grand_last"
    crop_ratio: Annotated[float, within("[0, 1]")] = 0.125
    label_experts: Count | None = None
    dtype: Literal["fp32", "fp16", "half"] = "fp32"
    store: FolderPath | None = None

    def check_together(self) -> None:
        low, high = self.lr_min, self.expert_lr
        require(low < high, "experts.lr_min", low, f"at least 0 and below {high}, expert_lr")
        moves = self.rate != "cosine" or low > 0 or (self.rate_epochs or self.train_epochs) >= self.train_epochs
        reason = f"above 0, where experts.train_epochs ({self.train_epochs}) goes beyond experts.rate_epochs ({self.rate_epochs})"
        require(moves, "experts.lr_min", low, reason)
        accepted = f"finite and at least experts.rho_min ({self.rho_min}), which is at least 0"
        require(self.rho_min <= self.rho_max, "experts.rho_max", self.rho_max, accepted)
        few = self.label_experts is None or self.label_experts <= self.num_experts
        require(few, "experts.label_experts", self.label_experts, f"in 1 … experts.num_experts ({self.num_experts})")


# The keys that a change of the step size depends on.
OF_RATE: dict[str, tuple[str, ...]] = {
    "constant": (),
    "drop_at_half": ("rate_epochs",),
    "steps": ("rate_epochs", "rate_milestones", "rate_factor"),
    "cosine": ("rate_epochs", "lr_min"),
}


def unread(settings: ExpertSettings) -> set[str]:
    """The keys of an optimiser, a change of the step size or a curriculum that is not used."""
    keys = {key for own in OF_RATE.values() for key in own} - set(OF_RATE[settings.rate])
    keys |= {"rho_min", "rho_max", "alpha"} if settings.optimiser != "gsam" else set()
    return keys | ({"difficulty"} if settings.curriculum == "none" else set())
