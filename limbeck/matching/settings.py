"""What a user may say about matching: the keys `match.*`, `schedule.*` and `engine.*`."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from limbeck.runtime.errors import require

Criteria = Literal["loss", "random", "uniform", "first", "middle", "last", "none"]
Kind = Literal["exact", "unroll", "tesla", "truncated"]
Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchSettings:
    """The inner loop and its loss (PAPER §§ 3, 4).

    Args:
        syn_steps: T, student steps per iteration.
        expert_epochs: M, epochs that the target lies ahead.
        batch_syn: B, synthetic images per student step; None, or more than there are, takes all.
        criterion: which parameters are dropped: `loss`, those of lowest loss (Common Pattern Dropout); `random`, any; `uniform`,
            any, the same share of every layer; `first` (PAD's masking by depth), `middle`, `last`, whole layers until the share
            is reached, the last of them in part; `none` keeps all. A layer is a module that owns parameters.
        drop_ratio: α, the share dropped.
        drop_side: of `loss` alone: `low` drops the lowest losses, `high` the highest.
        distance: how θ_T is compared with the target: `squared`, the error that remains; `cosine`, the direction in every layer.
        match_norm: rescale ∇X to the norm it has without Common Pattern Dropout and Discriminative Area Enhancement.
    """

    syn_steps: int = 40
    expert_epochs: int = 2
    batch_syn: int | None = None
    criterion: Criteria = "loss"
    drop_ratio: float = 0.0
    drop_side: Literal["low", "high"] = "low"
    distance: Literal["squared", "cosine"] = "squared"
    match_norm: bool = False

    def __post_init__(self) -> None:
        require(self.syn_steps >= 1, "match.syn_steps", self.syn_steps, "at least 1")
        require(self.expert_epochs >= 1, "match.expert_epochs", self.expert_epochs, "at least 1")
        require(self.batch_syn is None or self.batch_syn >= 1, "match.batch_syn", self.batch_syn, "at least 1")
        known = get_args(Criteria)
        require(self.criterion in known, "match.criterion", self.criterion, f"one of {', '.join(known)}")
        require(0 <= self.drop_ratio < 1, "match.drop_ratio", self.drop_ratio, "in [0, 1)")
        require(self.drop_side in ("low", "high"), "match.drop_side", self.drop_side, "low or high")


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
        kind: `exact` walks back through the student steps; `unroll` keeps the graph of all of them (the reference);
            `tesla` takes λ as constant; `truncated` walks back through the last steps only.
        last_steps: of `truncated`.
        memory: what X, θ_0 … θ_T, the steps kept and the working memory of one step may take together, such as `4GiB` or
            `800MB`; `auto` takes half of what is free.
        micro_batch: images that a step differentiates at a time; `auto` lets their largest activation fit the cache of a CPU,
            and the memory; batch norm needs whole batches.
        precision: of convolutions and matrix products in student steps: `fp32`, `tf32` (on CUDA only) or `bf16`.
        compile: whether the step is compiled; `auto` compiles where it pays and a compiler is found. `unroll` never is.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
    """

    kind: Kind = "exact"
    last_steps: int = 10
    memory: str = "auto"
    micro_batch: int | Literal["auto"] = "auto"
    precision: Precision = "fp32"
    compile: Literal["auto", "yes", "no"] = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        require(self.last_steps >= 1, "engine.last_steps", self.last_steps, "at least 1")
        self.budget()
        if self.micro_batch != "auto":
            require(self.micro_batch >= 1, "engine.micro_batch", self.micro_batch, "auto or at least 1")

    def budget(self) -> int | None:
        """The bytes that `memory` names; None where it is `auto`."""
        if self.memory == "auto":
            return None
        matched = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kKMGT]i?)?B?", self.memory)
        require(matched is not None, "engine.memory", self.memory, "auto or a number of bytes such as 4GiB, 1.5GB or 800MB")
        assert matched is not None, "checked above"
        unit = matched[2] or ""
        size = float(matched[1]) * (1024 if unit.endswith("i") else 1000) ** " KMGT".index(unit[:1].upper() or " ")
        require(1 <= size <= 2**60, "engine.memory", self.memory, "from 1 byte to 1 EiB")
        return int(size)
