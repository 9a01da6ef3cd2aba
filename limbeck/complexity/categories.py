"""Categories: groups of classes that look alike, from a file, by prefixes of WordNet ids, published, or found by clustering.

    FILE.yaml                                 {bird: [robin, n01592084, 7], …}: names, WordNet ids or indices
    wordnet:bird=n015,n016:dog=n02085-n02113  by what WordNet ids (or names) begin with, or by a range of such beginnings
    comp-dd                                   the eight published categories, of which the twenty published classes are known
    cluster:N                                 N groups of like mean features

Clustering is Ward's (J. H. Ward, "Hierarchical grouping to optimize an objective function", 1963) on the centred mean features of
the classes, each of unit length; nothing in it is drawn.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from limbeck.data.classes import Classes
from limbeck.data.registry import known_names, subsets
from limbeck.runtime.errors import UsageError, require

FORMS = "a .yaml or .json file, wordnet:NAME=PREFIX,…, comp-dd or cluster:N"


def categories(text: str, class_names: Sequence[str], features: Callable[[], np.ndarray]) -> dict[str, list[int]]:
    """The classes of every category, ascending, by its name.

    Args:
        text: as `--categories` has it.
        class_names: K names.
        features: gives the mean features of every class, with shape (K, D); only asked by `cluster:N`.

    Raises:
        UsageError: when the text or the file is none of the forms, or names a class that is none.
    """
    kind, colon, rest = text.partition(":")
    if kind == "cluster" and colon:
        return clusters(rest, features())
    if kind == "wordnet" and colon:
        return by_prefix(rest, class_names)
    if text == "comp-dd":
        return published(class_names)
    path = Path(text).expanduser()
    if not path.is_file():
        raise UsageError(f"--categories: {text!r} is not there; {FORMS} is accepted")
    return from_file(path, class_names)


def from_file(path: Path, class_names: Sequence[str]) -> dict[str, list[int]]:
    """The categories of a YAML or JSON file.

    Raises:
        UsageError: when it cannot be read, is no mapping of names to lists, or names a class that is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
        held: Any = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"--categories: '{path}' cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(held, Mapping) or not held:
        raise UsageError(f"--categories: '{path}' holds no mapping of names to lists of classes")
    known = named(class_names)
    found = {}
    for name, wanted in held.items():
        good = isinstance(wanted, list) and all(isinstance(item, (int, str)) and not isinstance(item, bool) for item in wanted)
        if not good or not wanted:
            raise UsageError(f"--categories: {name!r} in '{path}' is no list of classes: names, WordNet ids or indices")
        try:
            found[str(name)] = sorted(known.choose(wanted, "the source").tolist())
        except UsageError as error:
            raise UsageError(f"--categories: in {name!r}, {str(error).removeprefix('data.classes: ')}") from None
    return found


def by_prefix(text: str, class_names: Sequence[str]) -> dict[str, list[int]]:
    """`bird=n015,n016:dog=n02085-n02113`; a category without a name is called by its prefixes.

    Raises:
        UsageError: when a category matches no class, or two have one name.
    """
    known, found = named(class_names), dict[str, list[int]]()
    for part in text.split(":"):
        name, equals, listed = part.partition("=")
        prefixes = [prefix for prefix in (listed if equals else name).split(",") if prefix]
        chosen = [k for k in range(len(known)) if any(_begins(word, prefix) for word in known.words(k) for prefix in prefixes)]
        if not name or not chosen:
            raise UsageError(f"--categories: {part!r} matches no class; NAME=PREFIX,… or NAME=FIRST-LAST is accepted")
        require(name not in found, "--categories", name, "the name of one category only")
        found[name] = chosen
    return found


def published(class_names: Sequence[str]) -> dict[str, list[int]]:
    """The categories of Comp-DD whose twenty published classes (music: nineteen) are all among these.

    Raises:
        UsageError: when no category is.
    """
    known, lists = named(class_names), dict[str, list[int]]()
    place = {word: k for k in range(len(known)) for word in known.words(k)}
    for subset in subsets().values():
        if subset.name.startswith("comp-dd/"):
            name = subset.name.removeprefix("comp-dd/").rpartition("-")[0]
            lists.setdefault(name, []).extend(place.get(entry.wnid, place.get(entry.name, -1)) for entry in subset.classes)
    whole = {name: sorted(found) for name, found in lists.items() if min(found) >= 0}
    if not whole:
        raise UsageError("--categories: 'comp-dd' needs the classes of ImageNet, of which too many are missing in the source")
    return whole


def clusters(text: str, features: np.ndarray) -> dict[str, list[int]]:
    """N groups of classes of like features, the largest first: `cluster-1`, `cluster-2`, ….

    Raises:
        UsageError: when N is none, or larger than the number of classes with features.
    """
    from sklearn.cluster import AgglomerativeClustering

    usable = np.flatnonzero(np.isfinite(features).all(1))
    require(
        text.isdigit() and 1 <= int(text) <= len(usable), "--categories", f"cluster:{text}", f"cluster:1 … cluster:{len(usable)}"
    )
    if int(text) == 1:
        return {"cluster-1": usable.tolist()}
    centred = features[usable] - features[usable].mean(0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)
    labels = AgglomerativeClustering(n_clusters=int(text), linkage="ward").fit_predict(unit)
    groups = [usable[labels == label].tolist() for label in range(int(text))]
    return {f"cluster-{number}": group for number, group in enumerate(sorted(groups, key=lambda g: (-len(g), g)), 1)}


def named(class_names: Sequence[str]) -> Classes:
    """The classes with what else they are called: by WordNet id where the name is a known one, and the other way round."""
    ids: dict[str, list[str]] = {}
    for wnid, name in known_names().items():
        ids.setdefault(name, []).append(wnid)
    others = [(known_names()[name],) if name in known_names() else tuple(ids.get(name, ())) for name in class_names]
    return Classes(tuple(class_names), tuple(words if len(words) == 1 else () for words in others))


def _begins(word: str, prefix: str) -> bool:
    """Whether a word begins so, or, a WordNet id, with something from FIRST to LAST."""
    if word.startswith(prefix):
        return True
    ends = re.fullmatch(r"(n\d+)-(n\d+)", prefix)
    if ends is None or re.fullmatch(r"n\d{8}", word) is None:
        return False
    return ends[1] <= word[: len(ends[1])] and word[: len(ends[2])] <= ends[2]
