"""What a user may say about evaluation: the keys `eval.*`."""

from dataclasses import dataclass
from typing import Literal

from limbeck.runtime.errors import require


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSettings:
    """The evaluation protocol (PAPER § 8).

    Args:
        protocol: `dd`: fresh networks, SGD with momentum 0.9 and weight decay 5e-4, step size η (×0.1 after half of
            the epochs, momentum reset there), the distillation's augmentation, soft cross-entropy.
        every: iterations between two evaluations on the validation split.
        seeds: fresh networks of the final evaluation on the test split.
        epochs: of each of them.
        batch_size: of each of them.
        every_seeds: fresh networks of a periodic evaluation.
        full_epochs: epochs of the networks trained on the whole training split.
        full_seeds: how many of those.
        full_lr: their step size.
        full_batch_size: their batch size.
        random_lr: step size on the random real subset; None takes the best on the validation split of the distilled set's η
            and 0.001, 0.005, 0.01, 0.05, 0.1.
    """

    protocol: Literal["dd"] = "dd"
    every: int = 500
    seeds: int = 5
    epochs: int = 1000
    batch_size: int = 128
    every_seeds: int = 1
    full_epochs: int = 100
    full_seeds: int = 2
    full_lr: float = 0.01
    full_batch_size: int = 256
    random_lr: float | None = None

    def __post_init__(self) -> None:
        for name in ("every", "epochs", "batch_size", "every_seeds", "full_epochs", "full_batch_size"):
            require(getattr(self, name) >= 1, f"eval.{name}", getattr(self, name), "at least 1")
        for name in ("seeds", "full_seeds"):
            require(getattr(self, name) >= 2, f"eval.{name}", getattr(self, name), "at least 2 (an interval needs two)")
        require(0 < self.full_lr < float("inf"), "eval.full_lr", self.full_lr, "above 0 and finite")
        require(self.random_lr is None or 0 < self.random_lr < float("inf"), "eval.random_lr", self.random_lr, "above 0 and finite")
