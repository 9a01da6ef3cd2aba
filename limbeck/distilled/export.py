"""A distilled set for programs that do not know Limbeck: a folder of images, or one NumPy archive."""

import io
import re
import unicodedata
from pathlib import Path

import numpy as np

from limbeck.distilled.preview import picture, quantise
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.errors import require
from limbeck.runtime.files import new_folder, write_bytes, write_json

_RESERVED = ("", "con", "prn", "aux", "nul", "train", "val", "test")
LONGEST_NAME = 80  # bytes: file systems stop at 255, and archives of them earlier


def export_folder(held: DistilledSet, path: Path | str) -> Path:
    """Write a folder of 8-bit PNG files, one folder for each class, and the labels beside them.

    The class folders sort in the order of the classes. Besides, `labels.npz` holds `labels` (N, K), `probabilities`
    (N, K), `classes` (N,) and `files` (N,), row by row the same image, and `syn_lr`; `classes.json` holds the names of the classes,
    their folders, and the label kind. What an 8-bit image cannot hold, `export_npz` does.

    Raises:
        UsageError: when `path` exists and is not empty, or the images have neither one channel nor three.
    """
    path = Path(path)
    require(not path.exists() or (path.is_dir() and not any(path.iterdir())), "--output", str(path), "a new or an empty folder")
    require(held.shape[0] in (1, 3), "--to", "folder", f"possible for images of {held.shape[0]} channels; use npz")
    folders = folder_names(held.class_names)
    levels, classes = quantise(held.to_pixels()), held.classes.cpu().numpy()
    digits = len(str(held.ipc - 1))
    files, counts = [], dict.fromkeys(range(held.num_classes), 0)
    with new_folder(path) as root:
        for folder in folders:
            (root / folder).mkdir()
        for image, k in zip(levels, classes.tolist(), strict=True):
            files.append(f"{folders[k]}/{counts[k]:0{digits}d}.png")
            counts[k] += 1
            picture(image).save(root / files[-1])
        write_bytes(root / "labels.npz", _archive(_labels(held) | {"files": np.array(files)}))
        names = {"class_names": held.class_names, "folders": folders, "label_kind": held.label_kind, "syn_lr": held.syn_lr}
        write_json(root / "classes.json", names)
    return path


def export_npz(held: DistilledSet, path: Path | str) -> Path:
    """Write one `.npz` file, which `numpy.load(path, allow_pickle=False)` reads.

    It holds `images` (N, H, W, C), uint8 pixels; `images_float` (N, C, H, W), float32, as optimised and as a network takes them;
    `labels` (N, K) as `label_kind` says, `probabilities` (N, K), `classes` (N,), `class_names` (K,), `syn_lr`; `preprocessing` (its
    kind) and `preprocessing_mean`, …, its arrays.

    Raises:
        UsageError: when `path` exists and is not an empty file.
    """
    path = Path(path)
    require(not path.exists() or (path.is_file() and path.stat().st_size == 0), "--output", str(path), "a new file")
    content = {"images": quantise(held.to_pixels()), "images_float": held.images.cpu().numpy()} | _labels(held)
    content |= {"label_kind": np.array(held.label_kind), "class_names": np.array(held.class_names)}
    content["preprocessing"] = np.array(held.preprocessing.kind)
    content |= {f"preprocessing_{name}": tensor.cpu().numpy() for name, tensor in held.preprocessing.tensors().items()}
    write_bytes(path, _archive(content))
    return path


def folder_names(names: tuple[str, ...]) -> list[str]:
    """A folder name for each class, safe on every file system; as sorted text they are in the order of the classes.

    They are the classes' own names, without what no folder may be called, where those are distinct (capitals aside) and in order;
    otherwise each is preceded by its number.
    """
    safe = [_safe(name) for name in names]
    distinct = len({name.casefold() for name in safe}) == len(safe)
    if distinct and safe == sorted(safe) and not any(_reserved(name) for name in safe):
        return safe
    digits = len(str(len(names) - 1))
    return [f"{k:0{digits}d}-{name}".rstrip("-") for k, name in enumerate(safe)]


def _safe(name: str) -> str:
    """Letters, marks, digits and `_+-` of the name in any script; everything else becomes one `-`."""
    kept = (c if c in "_+-" or unicodedata.category(c)[0] in "LMN" else "-" for c in unicodedata.normalize("NFC", name))
    return re.sub("-+", "-", "".join(kept)).encode()[:LONGEST_NAME].decode(errors="ignore").strip("-")


def _reserved(name: str) -> bool:
    """Whether a folder cannot be called that: nothing, a device of Windows, a split that an image folder may have."""
    return name.casefold() in _RESERVED or bool(re.fullmatch("(?i)(com|lpt)[0-9]", name))


def _labels(held: DistilledSet) -> dict[str, np.ndarray]:
    arrays = {"labels": held.labels, "probabilities": held.probabilities(), "classes": held.classes}
    return {name: tensor.cpu().numpy() for name, tensor in arrays.items()} | {"syn_lr": np.array(held.syn_lr)}


def _archive(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
