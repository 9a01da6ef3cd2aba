"""What a user may say about matching: the keys `match.*`, `schedule.*` and `engine.*`."""

from dataclasses import dataclass
from typing import Literal

from limbeck.runtime.errors import require


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchSettings:
    """The inner loop and its loss (PAPER §§ 3, 4).

    Args:
        syn_steps: T, student steps per iteration.
        expert_epochs: M, epochs that the target lies ahead.
        batch_syn: B, synthetic images per student step; None, or more than there are, takes all.
        criterion: `loss` drops the parameters of lowest loss (Common Pattern Dropout); `none` keeps all.
        drop_ratio: α, the share dropped.
        match_norm: rescale ∇X to the norm it has without Common Pattern Dropout and Discriminative Area Enhancement.
    """

    syn_steps: int = 40
    expert_epochs: int = 2
    batch_syn: int | None = None
    criterion: Literal["loss", "none"] = "loss"
    drop_ratio: float = 0.0
    match_norm: bool = False

    def __post_init__(self) -> None:
        require(self.syn_steps >= 1, "match.syn_steps", self.syn_steps, "at least 1")
        require(self.expert_epochs >= 1, "match.expert_epochs", self.expert_epochs, "at least 1")
        require(self.batch_syn is None or self.batch_syn >= 1, "match.batch_syn", self.batch_syn, "at least 1")
        require(0 <= self.drop_ratio < 1, "match.drop_ratio", self.drop_ratio, "in [0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleSettings:
    """Which start epoch t an iteration may draw (PAPER § 3).

    Args:
        kind: `sequential` widens the range from first_max_start_epoch to max_start_epoch; `uniform` keeps it whole.
        min_start_epoch: the lowest t.
        first_max_start_epoch: the first upper end (exclusive), of the sequential schedule only.
        max_start_epoch: the last upper end (exclusive).
        iterations: in which the sequential schedule reaches it.
    """

    kind: Literal["sequential", "uniform"] = "sequential"
    min_start_epoch: int = 0
    first_max_start_epoch: int = 5
    max_start_epoch: int = 10
    iterations: int = 1000

    def __post_init__(self) -> None:
        require(self.min_start_epoch >= 0, "schedule.min_start_epoch", self.min_start_epoch, "at least 0")
        accepted = f"above schedule.min_start_epoch ({self.min_start_epoch})"
        require(self.max_start_epoch > self.min_start_epoch, "schedule.max_start_epoch", self.max_start_epoch, accepted)
        if self.kind == "sequential":
            low, high = self.min_start_epoch, self.max_start_epoch
            accepted = f"above schedule.min_start_epoch ({low}) and at most schedule.max_start_epoch ({high})"
            ordered = low < self.first_max_start_epoch <= high
            require(ordered, "schedule.first_max_start_epoch", self.first_max_start_epoch, accepted)
        require(self.iterations >= 1, "schedule.iterations", self.iterations, "at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    """How the pixel gradient is computed.

    Args:
        kind: `exact` walks back through the student steps (constant memory); `unroll` keeps the graph of all of them.
        compile: whether the exact engine compiles its step; `auto` compiles where a compiler is found.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
    """

    kind: Literal["exact", "unroll"] = "exact"
    compile: Literal["auto", "yes", "no"] = "auto"
    device: str = "auto"
