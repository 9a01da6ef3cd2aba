"""Crops from easy to hard: the least share s of the area that a crop has falls while images are recovered (CDA).

With β_h the greatest share, β_l the least, T = `milestone` times the iterations, and iteration t counted from 0,

    step      s(t) = β_h                                             for t < T,   β_l from there on
    linear    s(t) = β_h − (t / T) (β_h − β_l)                       for t < T,   β_l from there on
    cosine    s(t) = β_l + (β_h − β_l) (cos(π t / T) + 1) / 2        for t < T,   β_l from there on

so that the first crops are whole images (of those longer than 4:3, as crops are not, the middle) and the last ones as small as
SRe2L's.

Yin and Shen, "Dataset Distillation via Curriculum Data Synthesis in Large Data Era" (CDA), 2023, arXiv:2311.18838.
"""

import math

from limbeck.methods.settings import CropCurriculum


def least_share(
    curriculum: CropCurriculum, scale: tuple[float, float], iteration: int, iterations: int, milestone: float = 1.0
) -> float:
    """s(t).

    Args:
        curriculum: which of the three; `none` is β_l throughout.
        scale: β_l and β_h.
        iteration: t.
        iterations: of a batch.
        milestone: in (0, 1].
    """
    low, high = scale
    done = iteration / (milestone * iterations)
    if curriculum == "none" or done >= 1:
        return low
    if curriculum == "step":
        return high
    left = 1 - done if curriculum == "linear" else (math.cos(math.pi * done) + 1) / 2
    return min(high, low + (high - low) * left)  # rounding must not lead past it
