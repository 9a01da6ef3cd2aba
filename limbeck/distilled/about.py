"""The description beside exported tensors: `about.json` in the folder of `export_research`, written there and read here.

It is known by `"format": "limbeck-research-1"`; those of before have five keys that no other file has together. Beside
images_best.pt it is read, or known to be somebody else's and left aside, or refused: no tensors are read by other means and
deviations because their description is damaged.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from limbeck.data.preprocessing import Normalise, Preprocessing, Whiten, preprocessing_from
from limbeck.distilled.formats import check_room, json_values, load, names_of, refusal, shown, step_size, tensor_of, within
from limbeck.runtime.errors import UsageError
from limbeck.runtime.records import Record

NAME = "about.json"
FAMILY = "limbeck-research-"
FORMAT = f"{FAMILY}1"
KEYS = ("label_kind", "classes", "class_names", "syn_lr", "preprocessing")
INSTEAD = "without this file the tensors are read as any others"


@dataclass(frozen=True, kw_only=True)
class AboutFile(Record):
    """What `export_research` writes into it."""

    format: str = FORMAT
    images: str
    preprocessing: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    labels: str
    label_kind: str
    class_names: tuple[str, ...]
    classes: tuple[int, ...]
    syn_lr: float
    method: str | None
    LEFT_OUT: ClassVar = ("mean", "std")


@dataclass(frozen=True, eq=False)
class About:
    """What is read from it.

    Args:
        kind: of the labels: `logits` or `hard`.
        classes: of the images, int64 with shape (N,).
        class_names: K names.
        syn_lr: η in double precision.
        preprocessing: of the images.
        files: where this stands.
    """

    kind: str
    classes: Tensor
    class_names: tuple[str, ...]
    syn_lr: float
    preprocessing: Preprocessing
    files: tuple[Path, ...]


def read_about(folder: Path) -> tuple[About | None, list[str]]:
    """What the `about.json` in a folder with images_best.pt says, and what is assumed about it.

    Returns:
        None where there is no such file, or where it is a JSON object with neither the format nor any of the five keys: one of
        somebody else's, which a note says.

    Raises:
        UsageError: when it leads out of the folder, is no JSON object, is of another format, or is broken.
    """
    file = folder / NAME
    if not file.exists() and not file.is_symlink():
        return None, []
    marker, *said, mean, std = json_values(within(folder, file), "format", *KEYS, "mean", "std", hint=f"; {INSTEAD}")
    if isinstance(marker, str) and marker.startswith(FAMILY):
        if marker != FORMAT:
            raise refusal(file, f"is of the format {marker[:60]!r}; {FORMAT!r} is accepted")
    elif all(value is ... for value in said):
        return None, [f"{NAME} is of another kind and left aside"]
    if missing := [key for key, value in zip(KEYS, said, strict=True) if value is ...]:
        raise refusal(file, f"lacks {', '.join(missing)}, which an export says; {INSTEAD}")
    label_kind, numbers, names, rate, kind = said
    listed = isinstance(names, list) and isinstance(numbers, list) and all(type(k) is int and 0 <= k < len(names) for k in numbers)
    if not listed or label_kind not in ("logits", "hard") or not isinstance(kind, str):
        raise refusal(file, "does not say the classes, their names, the kind of the labels and the preprocessing as an export does")
    preprocessing, files = _preprocessing(folder, file, kind[:60], {"mean": mean, "std": std})
    classes = torch.tensor(numbers, dtype=torch.int64)
    return About(label_kind, classes, names_of(file, names), step_size(file, rate), preprocessing, (file, *files)), []


def _preprocessing(folder: Path, file: Path, kind: str, channels: dict[str, Any]) -> tuple[Preprocessing, list[Path]]:
    """What leads from pixels to the images, and the files besides about.json that it stands in."""
    parts, files = {}, []
    if kind == Whiten.kind:
        files = [within(folder, folder / "preprocessing.pt")]
        matrices = load(files[0])
        if isinstance(matrices, dict):
            parts = {str(name): tensor_of(files[0], shown([str(name)]), value) for name, value in matrices.items()}
            check_room(files[0], 4 * sum(part.numel() for part in parts.values()))  # one number may stand for all of a tensor
    elif kind == Normalise.kind:
        try:
            parts = {name: torch.tensor(values, dtype=torch.float32) for name, values in channels.items()}
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise refusal(file, "does not say mean and std as lists of numbers") from error
    try:
        return preprocessing_from(kind, parts), files
    except UsageError as error:
        raise refusal(file, f"holds what is no preprocessing: {error}") from error
