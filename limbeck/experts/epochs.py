"""Sets of epochs as people write them: `0-21,100`."""

import re
from collections.abc import Iterable

from limbeck.runtime.errors import require

LAST = 99_999


def runs_of(epochs: Iterable[int]) -> list[list[int]]:
    """The epochs in order, cut where one is left out."""
    runs: list[list[int]] = []
    for epoch in sorted(set(epochs)):
        if not runs or runs[-1][-1] != epoch - 1:
            runs.append([])
        runs[-1].append(epoch)
    return runs


def text_of(epochs: Iterable[int]) -> str:
    """Such as `0-21,100`; `none` of none."""
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs_of(epochs)) or "none"


def parse_epochs(key: str, text: str) -> list[int]:
    """The epochs that `text` names, in order.

    Raises:
        UsageError: when it names none.
    """
    parts = [re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part) for part in text.split(",")]
    ends = [(int(part[1]), int(part[2] or part[1])) for part in parts if part is not None]
    good = len(ends) == len(parts) and all(first <= last <= LAST for first, last in ends)
    require(good, key, text, f"numbers and ranges up to {LAST}, such as 0-21,100")
    return sorted({epoch for first, last in ends for epoch in range(first, last + 1)})
