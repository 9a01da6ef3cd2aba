"""What a user may say about matching: the keys `match.*`, `schedule.*` and `engine.*`."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from limbeck.runtime.checked import Checked, Chosen, Count, Named, Rule, Share, at_least
from limbeck.runtime.errors import require

Criteria = Literal["loss", "random", "uniform", "first", "middle", "last", "none"]
Distances = Literal["squared", "cosine"]
Kind = Literal["exact", "unroll", "tesla", "truncated"]
SmallChunk = Literal["first", "last"]
Precision = Literal["fp32", "tf32", "bf16"]
Wanted = Literal["auto", "fp32", "tf32", "bf16"]


def _bytes(memory: str) -> float:
    """The bytes that such a text names; nan where it names none."""
    matched = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kKMGT]i?)?B?", memory)
    if matched is None:
        return math.nan
    unit = matched[2] or ""
    return float(matched[1]) * float(1024 if unit.endswith("i") else 1000) ** " KMGT".index(unit[:1].upper() or " ")


Memory = Annotated[
    str,
    Rule(
        "auto or a number of bytes such as 4GiB, 1.5GB or 800MB", lambda memory: memory == "auto" or not math.isnan(_bytes(memory))
    ),
    Rule("from 1 byte to 1 EiB", lambda memory: memory == "auto" or 1 <= _bytes(memory) <= 2**60),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchSettings(Checked):
    """The inner loop and its loss.

    Args:
        syn_steps: T, student steps per iteration.
        expert_epochs: M, epochs that the target lies ahead.
        batch_syn: B, synthetic images per student step; None, or more than there are, takes all; `slots` as many as the set has
            slots, so that a step costs what it does without a parametrisation that stores several images in each.
        small_chunk: where B does not divide their number, which chunk of a permutation is the smaller one: `last`, or `first`, as
            the field's releases have it.
        criterion: which parameters are dropped: `loss`, those of lowest loss (Common Pattern Dropout); `random`, any; `uniform`,
            any, the same share of every layer; `first` (PAD's masking by depth), `middle`, `last`, whole layers until the share
            is reached, the last of them in part; `none` keeps all. A layer is a module that owns parameters. Or a criterion of
            one's own.
        drop_ratio: α, the share dropped. EDF has, where it is not given, what is published for the number of images per class:
            0 for one, 0.25 for 10, 0.375 for 50; for others that of the nearest of 10 and 50, as a ratio.
        drop_side: of `loss` alone: `low` drops the lowest losses, `high` the highest.
        distance: how θ_T is compared with the target: `squared`, the error that remains; `cosine`, the direction in every layer; or
            one of one's own.
        loss: ℓ(logits, y) of a student step, a mean over the batch that can be differentiated twice: `auto`, cross-entropy with
            `labels`, or one of one's own, for logits or one-hot rows y as `labels` has them.
        relabel: soft labels are not learned, but in every iteration what the target checkpoint says of the images (TESLA, whose
            own this is); `outer.lr_label` is 0 then.
        match_norm: rescale ∇X to the norm it has without Common Pattern Dropout and Discriminative Area Enhancement.
    """

    prefix: ClassVar[str] = "match."
    syn_steps: Count = 40
    expert_epochs: Count = 2
    batch_syn: Count | Literal["slots"] | None = None
    small_chunk: SmallChunk = "last"
    criterion: Named[Criteria] = "loss"
    drop_ratio: Share = Chosen(0.0)
    drop_side: Literal["low", "high"] = "low"
    distance: Named[Distances] = "squared"
    loss: Named[Literal["auto"]] = "auto"
    relabel: bool = False
    match_norm: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleSettings(Checked):
    """Which start epoch t an iteration may draw.

    Args:
        kind: `sequential` widens the range from first_max_start_epoch to max_start_epoch; `uniform` keeps it whole. Or a schedule
            of one's own.
        min_start_epoch: the lowest t.
        first_max_start_epoch: the first upper end (exclusive), of the sequential schedule only.
        max_start_epoch: the last upper end (exclusive).
        iterations: in which the sequential schedule reaches it.
    """

    prefix: ClassVar[str] = "schedule."
    kind: Named[Literal["sequential", "uniform"]] = "sequential"
    min_start_epoch: Annotated[int, at_least(0)] = 0
    first_max_start_epoch: int = 5
    max_start_epoch: int = 10
    iterations: Count = 1000

    def check_together(self) -> None:
        accepted = f"above schedule.min_start_epoch ({self.min_start_epoch})"
        require(self.max_start_epoch > self.min_start_epoch, "schedule.max_start_epoch", self.max_start_epoch, accepted)
        if self.kind == "sequential":
            low, high = self.min_start_epoch, self.max_start_epoch
            accepted = f"above schedule.min_start_epoch ({low}) and at most schedule.max_start_epoch ({high})"
            ordered = low < self.first_max_start_epoch <= high
            require(ordered, "schedule.first_max_start_epoch", self.first_max_start_epoch, accepted)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings(Checked):
    """How the pixel gradient is computed.

    Args:
        kind: `exact` walks back through the student steps; `unroll` keeps the graph of all of them (the reference);
            `tesla` takes λ as constant; `truncated` walks back through the last steps only; or an adjoint of one's own.
        last_steps: of `truncated`.
        memory: what X, θ_0 … θ_T, the steps kept and the working memory of one step may take together, such as `4GiB` or
            `800MB`; `auto` takes half of what is free.
        micro_batch: images that a step differentiates at a time; `auto` lets their largest activation fit the cache of a CPU,
            and the memory; batch norm needs whole batches.
        precision: of convolutions and matrix products in student steps: `fp32`, `tf32` (on CUDA only) or `bf16`; `auto` takes
            bf16 where the device multiplies it faster than fp32, and fp32 elsewhere.
        compile: whether the step is compiled; `auto` compiles where it pays and a compiler is found. `unroll` never is.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        shard: of several processes (`torchrun`): whether each holds only its share of the synthetic images, with their labels and
            momenta, instead of all: `auto` from 128 MiB of images on, where the method allows it; `yes`, `no`.
        deterministic: the same bits on every number of threads and cores: each operation takes one thread, micro-batches beside
            each other are as many wherever they run, and on CUDA torch takes algorithms that repeat where it has any.
    """

    prefix: ClassVar[str] = "engine."
    kind: Named[Kind] = "exact"
    last_steps: Count = 10
    memory: Memory = "auto"
    micro_batch: Count | Literal["auto"] = "auto"
    precision: Wanted = "fp32"
    compile: Literal["auto", "yes", "no"] = "auto"
    device: str = "auto"
    shard: Literal["auto", "yes", "no"] = "auto"
    deterministic: bool = False

    def budget(self) -> int | None:
        """The bytes that `memory` names; None where it is `auto`."""
        return None if self.memory == "auto" else int(_bytes(self.memory))
