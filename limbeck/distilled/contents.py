"""What the files of a distilled set say, and whether it is sound (`set.py` has what they are)."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from safetensors import SafetensorError
from safetensors.torch import load as deserialise

from limbeck.data.preprocessing import preprocessing_from
from limbeck.distilled import coded
from limbeck.distilled.small_set import Kind, NamedSet, SmallSet
from limbeck.distilled.view_labels import StoredViews
from limbeck.runtime.bounded import json_of
from limbeck.runtime.checked import shown, unwritable
from limbeck.runtime.errors import one_line
from limbeck.runtime.files import read_header
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import CHECKSUM, KIND, Damaged, FileKind

FORMAT, CODED = 1, 2  # of images as they are, and of what they are decoded from
SET = FileKind("distilled set")
TENSORS, METADATA, CARD, PREVIEW = "distilled.safetensors", "metadata.json", "README.md", "preview.png"
PREFIX, VIEWS_KEY = "preprocessing.", "views"
_WORDS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


@dataclass(frozen=True)
class Description(Record):
    """What the header of the tensors and `metadata.json` both say, so that the checksum covers it."""

    format: int
    images: tuple[int, ...]
    labels: tuple[int, ...]
    label_kind: Kind
    preprocessing: str
    syn_lr: float
    class_names: tuple[str, ...]
    parametrisation: Mapping[str, Any] | None = None

    LEFT_OUT: ClassVar = ("parametrisation",)


def assembled(metadata: dict[str, Any], content: bytes, views: StoredViews | None) -> NamedSet:
    """The set in the bytes of the two files; any error means that they are not sound."""
    described = metadata.pop("set")
    if described["format"] != (FORMAT if described.get("parametrisation") is None else CODED):
        raise ValueError(f"its format is {described['format']!r}, this version of Limbeck reads {FORMAT} and {CODED}")
    if hashlib.sha256(content).hexdigest() != described.pop("sha256"):
        raise ValueError(f"{TENSORS} does not match the checksum in {METADATA}")
    tensors, length = deserialise(content), int.from_bytes(content[:8], "little")
    header = read_header(json_of(content[8 : 8 + length])["__metadata__"])
    for name in sorted(header.keys() | described.keys()):
        if header.get(name) != described.get(name):
            raise ValueError(f"{METADATA} says set.{name} = {described.get(name)!r}, {TENSORS} {header.get(name)!r}")
    images, code = coded.images_of(tensors, described["images"], described.get("parametrisation"))
    for name, tensor in (("images", images), ("labels", tensors["labels"])):
        if list(tensor.shape) != described[name]:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, {METADATA} says {described[name]}")
    held = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    rest = (tensors["labels"], tensors["classes"], float(tensors["syn_lr"]), described["label_kind"], views, code)
    return NamedSet(
        set=SmallSet(images, *rest),
        preprocessing=preprocessing_from(described["preprocessing"], held),
        class_names=tuple(described["class_names"]),
        metadata=cast(dict[str, Any], _unspelled(metadata)),
    )


def check_said(held: NamedSet) -> None:
    """Raise `ValueError` where metadata that are read have another form, before anything is computed that they are to hold."""
    from limbeck.distilled.card import figure_of, results_of

    said = held.metadata
    for key, kind in (("settings", dict), ("evaluation", dict), ("evaluations", list), ("assumed", list)):
        if said.get(key) is not None and not isinstance(said[key], kind):
            raise ValueError(f"{METADATA} holds {shown(said[key])} as {key}, which is no {'object' if kind is dict else 'list'}")
    if not all(isinstance(note, str) for note in said.get("assumed") or ()):
        raise ValueError(f"{METADATA} holds something else than sentences as assumed")
    if _has_lone(said):
        raise ValueError(f"{METADATA} holds text that is no Unicode text")
    try:
        results_of(held)
        figure_of(held)
    except Exception as error:
        raise ValueError(f"{METADATA} holds evaluations that are none ({type(error).__name__}: {one_line(error, 80)})") from error


def _has_lone(value: Any) -> bool:
    """Whether something in it could not be written as UTF-8 again."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str) and unwritable(one):
            return True
        if isinstance(one, dict):
            left += one
            left += one.values()
        elif isinstance(one, list):
            left += (item for item in one if not isinstance(item, float))
    return False


def reason(error: Exception) -> str:
    """One line about what went wrong."""
    if isinstance(error, FileNotFoundError):
        return f"it has no {Path(str(error.filename)).name}"
    if isinstance(error, SafetensorError):
        return f"{TENSORS} cannot be read"
    if isinstance(error, Damaged):
        advice = f"; without its keys {KIND} and {CHECKSUM} it is read as it is" if "changed" in str(error) else ""
        return f"{METADATA} cannot be taken: {error}{advice}"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, (TypeError, AttributeError)):
        return f"{METADATA} does not have the form of one"
    return one_line(error)


def _unspelled(value: Any) -> Any:
    """Metadata as they were before `runtime.fingerprint.encodable` put words for the numbers that JSON has none for."""
    if isinstance(value, str):
        return _WORDS.get(value, value)
    if isinstance(value, list):
        return [_unspelled(item) for item in value]
    return {key: _unspelled(item) for key, item in value.items()} if isinstance(value, dict) else value
