"""Tiny-ImageNet as it is distributed: 200 classes of 500 training and 50 validation images, 64×64.

    ROOT/wnids.txt                       WordNet ids
    ROOT/words.txt                       their synonyms
    ROOT/train/WNID/images/*.JPEG
    ROOT/val/images/*.JPEG               with ROOT/val/val_annotations.txt
    ROOT/test/images/*.JPEG              without labels, and not read

Labels are in the order of the sorted WordNet ids; the validation images are what one tests on.
"""

from pathlib import Path

from limbeck.data.annotations import by_class, read_text, read_words
from limbeck.data.classes import Classes
from limbeck.data.files import load_files
from limbeck.data.folder import images_under, list_classes
from limbeck.data.imagenet import files_of
from limbeck.data.imageset import ImageSet
from limbeck.data.settings import DataSettings
from limbeck.data.split import Wanted
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress

LIST = "val/val_annotations.txt"


def holds_tiny(root: Path) -> bool:
    """Whether the folder is Tiny-ImageNet's."""
    return (root / "wnids.txt").is_file() and (root / LIST).is_file() and (root / "train").is_dir()


def load_tiny(settings: DataSettings, root: Path, progress: Progress, wanted: Wanted | None = None) -> ImageSet:
    """The images under `root`; a class is called by its first synonym where no other class is, else by its WordNet id.

    Raises:
        UsageError: when a class lacks images, or the lists do not fit them.
    """
    wnids = tuple(sorted(set(read_text(root / "wnids.txt").split())))
    if len(wnids) < 2:
        raise UsageError(f"data.source: '{root / 'wnids.txt'}' names {len(wnids)} classes; at least two are needed")
    words = read_words(root / "words.txt") if (root / "words.txt").is_file() else {}
    first = {wnid: words[wnid][0] if wnid in words else wnid for wnid in wnids}
    called = list(first.values())
    names = tuple(first[wnid] if called.count(first[wnid]) == 1 else wnid for wnid in wnids)
    classes = Classes(names, tuple((wnid, *words.get(wnid, ())) for wnid in wnids))
    files = images_under(root / "val" / "images")
    val = files_of(by_class(root / LIST, files, wnids, set(wnids)), wnids, root / "val" / "images")
    parts = {"train": list_classes(root / "train", wnids), "test": val}
    return load_files(settings, parts, classes, progress, wanted, root)
