"""ImageNet's 1000 classes, and the 23 published lists of ten of them.

`registry/imagenet_wnids.txt` has the WordNet ids of ILSVRC 2012, sorted: a class's index is its line, from 0.
`registry/imagenet_subsets.csv` has the lists, with the names that their classes go by there; the other classes are known by
their WordNet ids alone. The lists are kept as published, faults included.
"""

import csv
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from limbeck.runtime.errors import UsageError

FOLDER = Path(__file__).with_suffix("")

COMP_DD = (
    "Comp-DD: Wang et al., Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios, 2024, "
    "arXiv:2410.17193"
)
MTT = "Cazenavette et al., Dataset Distillation by Matching Training Trajectories, 2022, arXiv:2203.11932"
FASTAI = "Howard, imagenette, 2019, github.com/fastai/imagenette"
PROVENANCE = {
    "imagenette": f"{FASTAI}: ten classes that are easily told apart",
    "imagewoof": f"{FASTAI}: ten breeds of dogs",
    "imagemeow": f"{MTT}: cats",
    "imagesquawk": f"{MTT}: birds",
    "imagefruit": f"{MTT}: fruits",
    "imageyellow": f"{MTT}: yellow things",
    "in1k-cifar10": f"{COMP_DD.removeprefix('Comp-DD: ')}: ten classes that are compared with those of CIFAR-10",
}
NOTES = {
    "comp-dd/music-hard": "published with banjo (420) twice: nine distinct classes, so that its accuracies cannot be compared with "
    "those of ten classes; no tenth class is made up"
}
VAL_IMAGES = 50  # of every class, in ILSVRC 2012


@dataclass(frozen=True, slots=True)
class ImageNetClass:
    """A class of ILSVRC 2012: its WordNet id, its index 0 … 999, and its name (the WordNet id where no other is known)."""

    wnid: str
    index: int
    name: str


@dataclass(frozen=True)
class Subset:
    """A published list of classes.

    Args:
        name: such as `comp-dd/bird-hard`.
        published: the list as it was published, in its order.
        provenance: who published it.
        note: what a user of it must know; empty for most.
    """

    name: str
    published: tuple[ImageNetClass, ...]
    provenance: str
    note: str = ""

    @property
    def classes(self) -> tuple[ImageNetClass, ...]:
        """The distinct classes, in the order of their first appearance: the labels 0, 1, …."""
        return tuple(dict.fromkeys(self.published))


@cache
def wnids() -> tuple[str, ...]:
    """The WordNet ids of the 1000 classes, by index."""
    return tuple((FOLDER / "imagenet_wnids.txt").read_text(encoding="ascii").split())


@cache
def known_names() -> dict[str, str]:
    """Names by WordNet id, of the classes that a published list names."""
    return {entry.wnid: entry.name for subset in subsets().values() for entry in subset.classes}


@cache
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """All 1000 classes."""
    return tuple(ImageNetClass(wnid, index, known_names().get(wnid, wnid)) for index, wnid in enumerate(wnids()))


@cache
def subsets() -> dict[str, Subset]:
    """The published lists by name: sixteen of Comp-DD, six older ones, IN1K-CIFAR-10."""
    lists: dict[str, list[ImageNetClass]] = {}
    with (FOLDER / "imagenet_subsets.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            entry = ImageNetClass(row["wnid"], int(row["imagenet_index"]), row["name"])
            lists.setdefault(row["subset"], []).append(entry)
    return {name: Subset(name, tuple(found), PROVENANCE.get(name, COMP_DD), NOTES.get(name, "")) for name, found in lists.items()}


def find_subset(name: str, key: str = "data.source") -> Subset:
    """The list of that name; `comp-dd/` may be left out.

    Raises:
        UsageError: when there is none; the message names the key, the nearest name, and all.
    """
    short = {known.removeprefix("comp-dd/"): subset for known, subset in subsets().items()}
    wanted = name.lower().removeprefix("comp-dd/")
    if wanted not in short:
        near = get_close_matches(wanted, short, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{key}: {name!r} is none of ImageNet's published subsets, which are {', '.join(short)}{hint}")
    return short[wanted]
