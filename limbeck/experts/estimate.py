"""What a store will take, before anything is trained.

    bytes = S · Σ over the blocks of the kept epochs of the coding's bytes (`coding.py`) + headers,
    as a share of the list format: 4 P (E + 1) bytes an expert

For the published ten images per class (epochs 0 … 21 and the last of 100) that is 23 / 101 = 22.8 % in fp32. In half width four
of the 23 checkpoints end a block and are exact, the other 19 take 12⅛ bits a parameter: (4 · 32 + 19 · 12⅛) / (101 · 32) = 11.1 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.experts.blocks import blocks_of
from limbeck.experts.coding import CODINGS
from limbeck.experts.store import TrajectoryStore, Want, missing_jobs
from limbeck.runtime.executor import Shard

HEADER = 900  # bytes a file


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Disk and epochs of training.

    Args:
        disk: bytes of the store once it is full.
        list_format: bytes that lists of all epochs would take.
        share: the ratio of the two.
        checkpoints: an expert, at most.
        missing_experts: how many lack something.
        epochs: to train in all experts, from scratch or from where the store lets them go on.
        to_write: bytes of what that adds to the store.
    """

    disk: int
    list_format: int
    share: float
    checkpoints: int
    missing_experts: int
    epochs: int
    to_write: int


def estimate(
    want: Want, num_parameters: int, *, state: int = 0, store: TrajectoryStore | None = None, shard: Shard = Shard()
) -> Estimate:
    """What a store takes.

    Args:
        want: what is to be kept, such as `want_of` makes it.
        num_parameters: P.
        state: tensors of P numbers that the optimiser needs to go on; SGD without momentum: 0.
        store: holds some of it already; None: nothing.
        shard: the share of the experts to train.
    """
    experts = range(want.num_experts)
    disk = sum(_bytes(want.of(expert), want.coding, num_parameters, state) for expert in experts)
    last = max(max(want.of(expert), default=0) for expert in experts)
    lists = 4 * num_parameters * (last + 1) * want.num_experts
    left = missing_jobs(want, store, shard)
    jobs = [job for own in left.values() for job in own]
    return Estimate(
        disk=disk,
        list_format=lists,
        share=disk / lists,
        checkpoints=max(len(want.of(expert)) for expert in experts),
        missing_experts=len(left),
        epochs=sum(job.stop - job.start for job in jobs),
        to_write=sum(_bytes(job.keep, want.coding, num_parameters, state) for job in jobs),
    )


def _bytes(epochs: Sequence[int], coding: str, num_parameters: int, state: int) -> int:
    blocks = blocks_of(epochs)
    held = sum(CODINGS[coding if len(block) > 1 else "fp32"].size(len(block), num_parameters) + HEADER for block in blocks)
    ends = sum(block[-1] + 1 not in epochs for block in blocks)
    return held + ends * (4 * state * num_parameters + HEADER) * (state > 0)
