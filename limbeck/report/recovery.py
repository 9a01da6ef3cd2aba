"""How much of the full data's accuracy the distilled images recover, as a gauge from nothing to all of it."""

from dataclasses import dataclass

from limbeck.accuracy import Accuracy, percent
from limbeck.report.contents import Run


@dataclass(frozen=True)
class Mark:
    """An accuracy in percent of the full data's, and where its 95 % interval ends, if it has one."""

    value: float
    ends: tuple[float, float] | None

    @property
    def text(self) -> str:
        """In words."""
        between = "" if self.ends is None else f", 95 % interval {percent(self.ends[0] / 100)} to {percent(self.ends[1] / 100)}"
        return f"{percent(self.value / 100)}{between}"


@dataclass(frozen=True)
class Gauge:
    """What a gauge shows.

    Args:
        distilled: the set.
        random: as many random real images; None where they were not measured.
        full: the full data's accuracy in words.
        top: what is at the right end, in percent: 100, or more where anything lies beyond.
    """

    distilled: Mark
    random: Mark | None
    full: str
    top: float

    @property
    def ticks(self) -> list[int]:
        """The values on the scale, so far apart that their words have room on a phone."""
        step = next((step for step in (25, 50) if step / self.top > 0.15), 100 * max(1, round(self.top / 500)))
        return list(range(0, int(self.top) + 1, step))

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the width."""
        return round(100 * min(max(value, 0.0), self.top) / self.top, 2)

    @property
    def text(self) -> str:
        """All of it in words."""
        beside = "" if self.random is None else f" As many random real images: {self.random.text}."
        return f"Recovered: {self.distilled.text}.{beside} 100 % is the full training data's accuracy, {self.full}."


def recovery(run: Run) -> Gauge | None:
    """The gauge of a run; None where the accuracies of the set or of the full data are unknown, or the latter is 0."""
    if run.result is None:
        return None
    found = run.result.accuracy
    if not found.distilled.known or not found.full.known or found.distilled.all_failed or not found.full.mean > 0:
        return None
    distilled = _mark(found.distilled, found.full.mean)
    random = _mark(found.random, found.full.mean) if found.random.known and not found.random.all_failed else None
    reached = [one.ends[1] if one.ends else one.value for one in (distilled, random) if one is not None]
    return Gauge(distilled, random, str(found.full), max(100.0, 10.0 * -(-max(reached) // 10)))


def _mark(accuracy: Accuracy, full: float) -> Mark:
    """An accuracy over the full data's mean, which is taken as it is."""
    ends = None
    if accuracy.ci95 is not None:
        low, high = (100 * min(max(end, 0.0), 1.0) / full for end in accuracy.ci95)
        ends = (low, high)
    return Mark(100 * accuracy.mean / full, ends)
