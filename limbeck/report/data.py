"""What a run's images are: its data card for the page."""

from dataclasses import dataclass

import torch

from limbeck.report.contents import Run
from limbeck.runs.data_card import FILE, CardAbout, DataCard
from limbeck.runtime.tables import uri

SPLITS = {"train": "training", "val": "validation", "test": "test"}
LONG = 12  # classes: more of them scroll


@dataclass(frozen=True)
class OfClass:
    """A row of the table: the class, its images in every split, their share of the largest class's, and a strip of examples."""

    name: str
    counts: tuple[int, ...]
    share: float
    strip: str | None
    shown: int


@dataclass(frozen=True)
class Data:
    """The card for the page; `height` of a strip of examples, and its width for each of them, in pixels."""

    about: CardAbout
    facts: str
    rows: tuple[OfClass, ...]
    height: int
    width: int

    @property
    def splits(self) -> list[tuple[str, int]]:
        """The name of every split, and how many images it has."""
        return [(SPLITS[name], self.about.totals[name]) for name in SPLITS]

    @property
    def has_examples(self) -> bool:
        """Whether any class has pictures."""
        return any(row.strip for row in self.rows)

    @property
    def is_long(self) -> bool:
        """Whether there are more rows than a reader wants at once."""
        return len(self.rows) > LONG


def data(run: Run) -> Data | None:
    """The card of a run; None where none was kept, as by earlier versions."""
    if not (run.path / FILE).exists():
        return None
    card = DataCard.read(run.path)
    about, largest = card.about, max(*card.about.counts["train"], 1)
    channels, height, width = about.shape
    rows = []
    for k, name in enumerate(about.class_names):
        examples = card.examples[card.classes == k]
        counts = tuple(about.counts[split][k] for split in SPLITS)
        rows.append(OfClass(name, counts, 100 * counts[0] / largest, _strip(examples) if len(examples) else None, len(examples)))
    tall, wide = (card.examples.shape[2:] if len(card.examples) else (height, width))[:2]
    scale = max(1, 40 // max(tall, wide))
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    facts = f"{sum(about.totals.values())} images of {len(rows)} classes, {width} × {height} pixels, {kind}"
    return Data(about, facts, tuple(rows), tall * scale, wide * scale)


def _strip(images: torch.Tensor) -> str:
    """Images, uint8 with shape (n, C, h, w), side by side as a data URI."""
    from limbeck.distilled.preview import picture

    return uri(picture(torch.cat(list(images.permute(0, 2, 3, 1)), dim=1).numpy()))
