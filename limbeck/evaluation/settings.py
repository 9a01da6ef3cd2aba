"""What a user may say about evaluation: the keys `eval.*`."""

from dataclasses import dataclass
from typing import Literal

from limbeck.runtime.errors import require


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSettings:
    """How results are measured (PAPER § 8).

    Args:
        protocol: how fresh networks are trained on a small set: `dd`, `dd-published`, `dd-hard`, `none`, `kd`, `kd-rded`,
            `kd-sre2l`, `soft-ce` (`evaluation/protocols.py`), or a .yaml file with a protocol of your own.
        every: iterations between two evaluations on the validation split.
        seeds: fresh networks of the final evaluation on the test split.
        epochs: of each of them; None takes the protocol's.
        batch_size: of each of them; None takes the protocol's.
        every_seeds: fresh networks of a periodic evaluation.
        networks: names of the networks to evaluate with, joined by commas; None takes the one distilled for.
        teacher: name of the teacher's network; None takes the student's own.
        view_labels: where a protocol asks a teacher about augmented views: `stored` takes the labels that the set holds, if it
            does, `live` asks the teacher in every step.
        full_epochs: epochs of the networks trained on the whole training split, the teacher among them.
        full_seeds: how many of those.
        full_lr: their step size.
        full_batch_size: their batch size.
        random_lr: step size on the random real subset; None takes the best of the distilled set's η and 0.001, 0.005, 0.01,
            0.05, 0.1 on images that are neither tested nor in the subset.
    """

    protocol: str = "dd"
    every: int = 500
    seeds: int = 5
    epochs: int | None = None
    batch_size: int | None = None
    every_seeds: int = 1
    networks: str | None = None
    teacher: str | None = None
    view_labels: Literal["stored", "live"] = "stored"
    full_epochs: int = 100
    full_seeds: int = 2
    full_lr: float = 0.01
    full_batch_size: int = 256
    random_lr: float | None = None

    def __post_init__(self) -> None:
        for name in ("every", "every_seeds", "full_epochs", "full_batch_size"):
            require(getattr(self, name) >= 1, f"eval.{name}", getattr(self, name), "at least 1")
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"eval.{name}", value, "at least 1, or null for the protocol's")
        require(self.view_labels in ("stored", "live"), "eval.view_labels", self.view_labels, "stored or live")
        for name in ("seeds", "full_seeds"):
            require(getattr(self, name) >= 2, f"eval.{name}", getattr(self, name), "at least 2 (an interval needs two)")
        require(0 < self.full_lr < float("inf"), "eval.full_lr", self.full_lr, "above 0 and finite")
        require(self.random_lr is None or 0 < self.random_lr < float("inf"), "eval.random_lr", self.random_lr, "above 0 and finite")
