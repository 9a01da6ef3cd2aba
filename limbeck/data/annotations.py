"""Which class the images of a flat folder show, as lists beside it say (`docs/data.md` has them): ImageNet's and Tiny-ImageNet's.

An ILSVRC2012_ID, 1 … 1000, is not a place among the sorted WordNet ids: without the list that explains it nothing is known.
"""

import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from limbeck.data.decode import SUFFIXES
from limbeck.runtime import bounded
from limbeck.runtime.errors import UsageError, one_line

LISTS = (
    "LOC_val_solution.csv",
    "val_annotations.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "val.txt",
    "ILSVRC2012_validation_ground_truth.txt",
)
DEVKITS = ("ILSVRC2012_devkit_t12/data", "devkit/data", "data")
PLAIN = ("val.txt",)  # too plain a name to be looked for outside the root
WNID = re.compile(r"n\d{8}")


def find_list(root: Path, images: Path) -> Path | None:
    """The list of the folder `images` under `root`: in it, in `root`, in a development kit, or above (as Kaggle has it)."""
    above = root.parents[:3]
    near = [images, root, *(root / kit for kit in DEVKITS)]
    far = [*above, *(at / kit for at in above for kit in DEVKITS)]
    found = [place / name for place in near for name in LISTS]
    found += [place / name for place in far for name in LISTS if name not in PLAIN]
    return next((path for path in found if path.is_file()), None)


def by_class(annotation: Path, files: Sequence[Path], wnids: Sequence[str], wanted: Container[str]) -> dict[str, list[Path]]:
    """The files of the wanted classes, as the list says.

    Args:
        annotation: the list.
        files: all files of the folder, sorted.
        wnids: WordNet ids by index, for lists that give indices.
        wanted: classes whose files must be there.

    Raises:
        UsageError: when the list cannot be read, does not fit the files, gives one two classes, or names a class that does not
            exist.
    """
    rows = _rows(annotation)
    if len(rows[0]) == 1:
        if len(rows) != len(files):
            raise _refusal(annotation, f"has {len(rows)} lines for {len(files)} images")
        classes = _kit_ids(annotation) if rows[0][0].isdigit() else {}
        named = [(file, classes.get(row[0], row[0])) for file, row in zip(files, rows, strict=True)]
    else:
        known, listed = dict[str, Path](), dict[str, str]()
        for file in files:
            if (other := known.setdefault(_stem(file.name), file)) != file:
                raise _refusal(annotation, f"does not tell '{other}' and '{file}' apart")
        by_index = {str(index): wnid for index, wnid in enumerate(wnids)}
        for name, word in rows:
            wnid = by_index.get(word.lstrip("0") or "0", word)
            if (first := listed.setdefault(_stem(name), wnid)) != wnid:
                raise _refusal(annotation, f"gives {_stem(name)!r} two classes, {first!r:.60} and {wnid!r:.60}")
        if alone := [file for stem, file in known.items() if stem not in listed]:
            raise _refusal(annotation, f"does not name the image '{alone[0]}'")
        if absent := [stem for stem, wnid in listed.items() if stem not in known and wnid in wanted]:
            raise _refusal(annotation, f"names {len(absent)} images that are not there, such as {absent[0]!r}")
        named = [(file, listed[stem]) for stem, file in known.items()]
    groups: dict[str, list[Path]] = {}
    for file, wnid in named:
        if not WNID.fullmatch(wnid):
            raise _refusal(
                annotation, f"says that '{file.name}' is of the class {wnid!r:.60}, which is no WordNet id and no known number"
            )
        groups.setdefault(wnid, []).append(file)
    return {wnid: sorted(members) for wnid, members in groups.items() if wnid in wanted}


def read_text(path: Path) -> str:
    """The text of a small file that came with the images.

    Raises:
        UsageError: when it cannot be read.
    """
    try:
        return bounded.read_text(path, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else reason
        raise _refusal(path, f"cannot be read: {reason}") from error


def read_words(path: Path) -> dict[str, tuple[str, ...]]:
    """The synonyms of classes by WordNet id, from lines such as `n01440764 tench, Tinca tinca`.

    Raises:
        UsageError: when the file cannot be read.
    """
    rows = [line.split(maxsplit=1) for line in read_text(path).splitlines()]
    return {row[0]: tuple(word.strip() for word in row[1].split(",")) for row in rows if len(row) == 2}


def _rows(annotation: Path) -> list[list[str]]:
    """The columns of every line: one, or the file and its class."""
    lines = [line.replace(",", " ").split()[:2] for line in read_text(annotation).splitlines() if line.strip(" ,\t")]
    if lines and lines[0][0] == "ImageId":
        lines = lines[1:]
    if not lines or len({len(line) for line in lines}) != 1:
        raise _refusal(annotation, "is not a list of files with their classes, nor of classes alone")
    return lines


def _stem(name: str) -> str:
    """The file's name without its folder and without the suffix of images, which some lists leave out."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return Path(last).stem if Path(last).suffix.lower() in SUFFIXES else last


def _kit_ids(annotation: Path) -> dict[str, str]:
    """WordNet ids by ILSVRC2012_ID, from the development kit that the list belongs to."""
    for folder in (annotation.parent, *(annotation.parent / kit for kit in DEVKITS), annotation.parent.parent):
        if (text := folder / "map_clsloc.txt").is_file():
            rows = [line.split() for line in read_text(text).splitlines() if line.strip()]
            return {row[1]: row[0] for row in rows if len(row) >= 2}
        if (matrix := folder / "meta.mat").is_file():
            return _read_meta(matrix)
    wanted = "meta.mat or map_clsloc.txt of the development kit (ILSVRC2012_devkit_t12/data) must lie beside it"
    raise _refusal(annotation, f"gives classes by ILSVRC2012_ID: {wanted}")


def _read_meta(path: Path) -> dict[str, str]:
    from scipy.io import loadmat

    try:
        synsets: Any = loadmat(path, squeeze_me=True)["synsets"]
        return {str(int(entry["ILSVRC2012_ID"])): str(entry["WNID"]) for entry in synsets}
    except Exception as error:  # a foreign MATLAB file fails in many ways
        raise _refusal(path, f"cannot be read as the development kit's meta.mat ({type(error).__name__})") from error


def _refusal(path: Path, reason: str) -> UsageError:
    return UsageError(f"data.source: the file '{path}' {reason}")
