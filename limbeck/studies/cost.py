"""What the cells of a method took: seconds, and memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limbeck.runtime.records import Record
from limbeck.studies.cells import CellRecord


@dataclass(frozen=True, kw_only=True)
class Seconds(Record):
    """What a method's cells took.

    Args:
        distil: mean seconds between the experts and the evaluation.
        distil_cpu: the same of the process's CPU time, which other work does not lengthen; None where it was not noted.
        evaluate: mean seconds.
        experts: of the cell that trained them or at least longest waited for them.
    """

    distil: float | None = None
    distil_cpu: float | None = None
    evaluate: float | None = None
    experts: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Peak(Record):
    """Bytes until the end of distilling; only a `bound` where in every cell training the experts had taken more before."""

    bytes: float
    bound: bool = False


@dataclass(frozen=True, kw_only=True)
class Cost(Record):
    """What a method's cells took; of the memory None where it was not noted."""

    seconds: Seconds = Seconds()
    peak_memory: Peak | None = None

    @classmethod
    def of(cls, records: Sequence[CellRecord]) -> "Cost":
        """Of a method's cells."""
        peaks = []
        for record in records:
            stages = {name: value for name, value in record.peak_memory.items() if name != "evaluate"}
            if stages:
                peak = max(stages.values())
                peaks.append((peak, peak <= stages.get("experts", 0)))
        own = [peak for peak, bound in peaks if not bound]
        most = max(own) if own else min(peaks)[0] if peaks else None
        seconds = Seconds(
            distil=mean([_distilling(record.seconds) for record in records]),
            distil_cpu=mean([_distilling(record.cpu_seconds) for record in records if record.cpu_seconds]),
            evaluate=mean([record.seconds.get("evaluate", 0.0) for record in records]),
            experts=max((record.seconds.get("experts", 0.0) for record in records), default=0.0),
        )
        return cls(seconds=seconds, peak_memory=None if most is None else Peak(bytes=most, bound=not own))

    @property
    def time_text(self) -> str:
        """Seconds from the experts to the evaluation, and how many of the CPU."""
        spent = self.seconds
        return f"{spent.distil or 0:.0f} s" + ("" if spent.distil_cpu is None else f" ({spent.distil_cpu:.0f} s of CPU)")

    @property
    def memory_text(self) -> str:
        """MiB; after ≤ where experts were trained in the same process."""
        peak = self.peak_memory
        return "–" if peak is None else f"{'≤ ' if peak.bound else ''}{peak.bytes / 2**20:.0f} MiB"


def _distilling(seconds: Mapping[str, float]) -> float:
    return sum(value for name, value in seconds.items() if name not in ("experts", "evaluate"))


def mean(values: Sequence[float]) -> float | None:
    """Of the values; None where there are none."""
    return math.fsum(values) / len(values) if values else None
