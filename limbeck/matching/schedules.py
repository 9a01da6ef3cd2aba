"""Which start epoch t an iteration draws (PAPER § 3).

    sequential:  t uniform on [min, u),  u = min(max, first + ⌊(max − first) · iteration / iterations⌋)
    uniform:     t uniform on [min, max)

Guo et al., "Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching" (DATM), 2024,
arXiv:2310.05773.
"""

import torch

from limbeck.matching.settings import ScheduleSettings


def upper_end(settings: ScheduleSettings, iteration: int) -> int:
    """u, the exclusive upper end of the range that `iteration` (from 0) draws from."""
    if settings.kind == "uniform":
        return settings.max_start_epoch
    first, last = settings.first_max_start_epoch, settings.max_start_epoch
    return min(last, first + (last - first) * iteration // settings.iterations)


def draw_start_epoch(settings: ScheduleSettings, iteration: int, generator: torch.Generator) -> int:
    """t, drawn for `iteration`."""
    low, high = settings.min_start_epoch, upper_end(settings, iteration)
    return int(torch.randint(low, high, (), generator=generator))


def reachable_epochs(settings: ScheduleSettings, expert_epochs: int) -> list[int]:
    """Every epoch that a start t or a target t + `expert_epochs` can be, in order."""
    starts = range(settings.min_start_epoch, settings.max_start_epoch)
    return sorted({*starts, *(start + expert_epochs for start in starts)})
