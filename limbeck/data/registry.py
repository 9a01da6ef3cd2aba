"""ImageNet's 1000 classes, and the 23 published lists of ten of them, kept as published, faults included (`docs/data.md`).

`registry/imagenet_wnids.txt` has the WordNet ids of ILSVRC 2012, sorted: a class's index is its line, from 0. The column `also` of
`registry/imagenet_names.csv` has a further name where the first is another class's: "crane" is a bird and a machine.
"""

import csv
from collections import Counter
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
# Of every class, in ILSVRC 2012: from as many training images to as many, and to validate.
TRAIN_IMAGES, VAL_IMAGES = (732, 1300), 50


@dataclass(frozen=True, slots=True)
class ImageNetClass:
    """A class of ILSVRC 2012: its WordNet id, its index 0 … 999, and its name (its WordNet id where that could be another's)."""

    wnid: str
    index: int
    name: str


@dataclass(frozen=True)
class ClassSubset:
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

    @property
    def train_images(self) -> tuple[int, int]:
        """Between how many and how many training images the classes have together in ILSVRC 2012."""
        least, most = TRAIN_IMAGES
        return least * len(self.classes), most * len(self.classes)

    @property
    def val_images(self) -> int:
        """How many validation images the classes have together in ILSVRC 2012."""
        return VAL_IMAGES * len(self.classes)


@cache
def wnids() -> tuple[str, ...]:
    """The WordNet ids of the 1000 classes, by index."""
    return tuple((FOLDER / "imagenet_wnids.txt").read_text(encoding="ascii").split())


@cache
def names() -> dict[str, tuple[str, ...]]:
    """What each of the 1000 classes is called, by WordNet id: its name and, in seven cases, a word that is another's name, too."""
    with (FOLDER / "imagenet_names.csv").open(encoding="utf-8", newline="") as file:
        return {row["wnid"]: tuple(filter(None, (row["name"], row["also"]))) for row in csv.DictReader(file)}


@cache
def known_names() -> dict[str, str]:
    """Names by WordNet id, no two of them the same: those of the published lists, and the others that mean one class."""
    published = {entry.wnid: entry.name for subset in subsets().values() for entry in subset.classes}
    return published | {wnid: name for wnid, name in _distinct().items() if wnid not in published}


def words_of(wnid: str) -> tuple[str, ...]:
    """What else a class of that WordNet id is called; nothing for what is none of ImageNet's."""
    return names().get(wnid, ())


@cache
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """All 1000 classes; those whose name could be another's go by their WordNet ids."""
    return tuple(ImageNetClass(wnid, index, _distinct().get(wnid, wnid)) for index, wnid in enumerate(wnids()))


@cache
def _distinct() -> dict[str, str]:
    """The names, by WordNet id, that mean one class in whatever case they are written."""
    uses = Counter(word.casefold() for words in names().values() for word in words)
    return {wnid: words[0] for wnid, words in names().items() if uses[words[0].casefold()] == 1}


@cache
def subsets() -> dict[str, ClassSubset]:
    """The published lists by name: sixteen of Comp-DD, six older ones, IN1K-CIFAR-10."""
    lists: dict[str, list[ImageNetClass]] = {}
    with (FOLDER / "imagenet_subsets.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            entry = ImageNetClass(row["wnid"], int(row["imagenet_index"]), row["name"])
            lists.setdefault(row["subset"], []).append(entry)
    return {
        name: ClassSubset(name, tuple(found), PROVENANCE.get(name, COMP_DD), NOTES.get(name, "")) for name, found in lists.items()
    }


def find_subset(name: str, key: str = "data.source") -> ClassSubset:
    """The list of that name; `comp-dd/` may be left out, and it may be spelt as published, `birds_easy`.

    Raises:
        UsageError: when there is none; the message names the key, the nearest name, and all.
    """
    short = {known.removeprefix("comp-dd/"): subset for known, subset in subsets().items()}
    wanted = name.lower().removeprefix("comp-dd/").replace("_", "-")
    group, dash, level = wanted.partition("-")
    wanted = f"{group.removesuffix('s')}{dash}{level}" if level in ("easy", "hard") else wanted
    if wanted not in short:
        near = get_close_matches(wanted, short, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{key}: {name!r} is none of ImageNet's published subsets, which are {', '.join(short)}{hint}")
    return short[wanted]
