"""What is published of an item: the figures of K. Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in
Complex Scenarios", 2024, arXiv:2410.17193, as far as they are printed; of subsets of ImageNet at 128×128.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from limbeck.runtime.records import Record
from limbeck.studies.comp_dd import COMPLEXITY

FILE = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True, kw_only=True)
class Published(Record):
    """A printed figure.

    Args:
        dataset: the subset of ImageNet.
        ipc: images per class; None where there are none.
        row: what it is of.
        figure: in percent, as printed, with its deviation where there is one.
    """

    dataset: str
    ipc: int | None
    row: str
    figure: str

    @property
    def mean(self) -> float:
        """Without its deviation."""
        return float(self.figure.partition(" ")[0])


def published(item: str) -> tuple[Published, ...]:
    """The printed figures of an item; none where the paper has a picture."""
    return tuple(one for name, one in _all() if name == item)


@lru_cache(maxsize=1)
def _all() -> tuple[tuple[str, Published], ...]:
    with FILE.open(encoding="utf-8", newline="") as file:
        of_tables = [
            (row["item"], Published(dataset=row["dataset"], ipc=int(row["ipc"]), row=row["row"], figure=row["figure"]))
            for row in csv.DictReader(file)
        ]
    return (*of_tables, *(("fig8", one) for one in _complexities()))


def _complexities() -> Iterator[Published]:
    for category, figures in COMPLEXITY.items():
        for level, figure in zip(("easy", "hard"), figures, strict=True):
            yield Published(dataset=f"{category}-{level}", ipc=None, row="complexity", figure=f"{figure:.1f}")
