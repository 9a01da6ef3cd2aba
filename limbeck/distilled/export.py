"""A distilled set for programs that do not know Limbeck: a folder of images, one NumPy archive, or the files of research code."""

import io
import math
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.preprocessing import Normalise, Preprocessing, Whiten
from limbeck.distilled.about import AboutFile
from limbeck.distilled.preview import picture, quantise
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.errors import require
from limbeck.runtime.files import new_folder, write_bytes, write_json

# What no folder can be called: nothing, devices of Windows, splits that an image folder may have.
_RESERVED = re.compile("(?i)|con|prn|aux|nul|(com|lpt)[0-9]|train|val|test")
LONGEST_NAME = 80  # bytes: file systems stop at 255, and archives of them earlier


def export_folder(held: DistilledSet, path: Path | str) -> Path:
    """Write a folder of 8-bit PNG files, one folder for each class, and the labels beside them.

    The class folders sort in the order of the classes. Besides, `labels.npz` holds `labels` (N, K), `probabilities`
    (N, K), `classes` (N,) and `files` (N,), row by row the same image, and `syn_lr`; `classes.json` holds the names of the classes,
    their folders, and the label kind. What an 8-bit image cannot hold, `export_npz` does.

    Raises:
        UsageError: when `path` exists and is not empty, or the images have neither one channel nor three.
    """
    path = _new(path)
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
    write_bytes(path, npz(held))
    return path


def npz(held: DistilledSet) -> bytes:
    """The content of that file."""
    content = {"images": quantise(held.to_pixels()), "images_float": held.images.cpu().numpy()} | _labels(held)
    content |= {"label_kind": np.array(held.label_kind), "class_names": np.array(held.class_names)}
    content["preprocessing"] = np.array(held.preprocessing.kind)
    content |= {f"preprocessing_{name}": tensor.cpu().numpy() for name, tensor in held.preprocessing.tensors().items()}
    return _archive(content)


def export_research(held: DistilledSet, path: Path | str) -> Path:
    """Write a folder of the files that research code leaves, which `torch.load(…, weights_only=True)` reads.

    images_best.pt      X, float32 with shape (N, C, H, W), as optimised and as a network takes them
    labels_best.pt      logits, float32 with shape (N, K), or of hard labels the classes, int64 with shape (N,)
    lr_best.pt          η, float32 without dimensions
    res_METHOD_Nipc.pt  of hard labels besides {"data": [[X, classes]]}, as gradient and distribution matching leave it
    about.json          what no tensor says: its format, how X comes from pixels, classes, their names, η in double precision
    preprocessing.pt    of whitened images besides the means and matrices, which are too large for that

    Read back (`read.read_set`), it has the same images, labels, classes, η and preprocessing. What it was made by, its
    settings, results and labels of views are lost. Without about.json, the preprocessing is taken to be that of the data, and the
    class of an image with soft labels is found in these: the same where images come class by class, as many of each, and more
    than half of the labels of each class favour it.

    Raises:
        UsageError: when `path` exists and is not empty, or η is 0 or infinite in single precision.
    """
    path, hard = _new(path), held.label_kind == "hard"
    rate = torch.tensor(held.syn_lr, dtype=torch.float32)
    require(0 < rate.item() < math.inf, "--to", "research", f"possible for the step size {held.syn_lr:g}")
    images, labels = held.images, held.classes if hard else held.labels
    with new_folder(path) as root:
        for name, tensor in (("images", images), ("labels", labels), ("lr", rate)):
            write_bytes(root / f"{name}_best.pt", _pt(tensor))
        if hard:
            method = _safe(str(held.metadata.get("method") or "set"))
            write_bytes(root / f"res_{method}_{held.ipc}ipc.pt", _pt({"data": [[images, labels]]}))
        if isinstance(held.preprocessing, Whiten):
            write_bytes(root / "preprocessing.pt", _pt(held.preprocessing.tensors()))
        write_json(root / "about.json", _about(held))
    return path


def folder_names(names: tuple[str, ...]) -> list[str]:
    """A folder name for each class, safe on every file system; as sorted text they are in the order of the classes.

    They are the classes' own names, without what no folder may be called, where those are distinct (capitals aside) and in order;
    otherwise each is preceded by its number.
    """
    safe = [_safe(name) for name in names]
    distinct = len({name.casefold() for name in safe}) == len(safe)
    if distinct and safe == sorted(safe) and not any(_RESERVED.fullmatch(name) for name in safe):
        return safe
    digits = len(str(len(names) - 1))
    return [f"{k:0{digits}d}-{name}".rstrip("-") for k, name in enumerate(safe)]


def _safe(name: str) -> str:
    """Letters, marks, digits and `_+-` of the name in any script; everything else becomes one `-`."""
    kept = (c if c in "_+-" or unicodedata.category(c)[0] in "LMN" else "-" for c in unicodedata.normalize("NFC", name))
    return re.sub("-+", "-", "".join(kept)).encode()[:LONGEST_NAME].decode(errors="ignore").strip("-")


def _new(path: Path | str) -> Path:
    """`path`, once it is free for a folder."""
    path = Path(path)
    require(not path.exists() or (path.is_dir() and not any(path.iterdir())), "--output", str(path), "a new or an empty folder")
    return path


def _about(held: DistilledSet) -> AboutFile:
    """What the tensors of research code leave open."""
    channels = held.preprocessing.tensors() if isinstance(held.preprocessing, Normalise) else {}
    return AboutFile(
        images=f"(N, C, H, W), as a network takes them: {_formula(held.preprocessing)}",
        preprocessing=held.preprocessing.kind,
        mean=tuple(channels["mean"].tolist()) if channels else None,
        std=tuple(channels["std"].tolist()) if channels else None,
        labels="logits Y; softmax(Y) are the probabilities" if held.label_kind == "logits" else "the number of the class",
        label_kind=held.label_kind,
        class_names=held.class_names,
        classes=tuple(held.classes.tolist()),
        syn_lr=held.syn_lr,
        method=held.metadata.get("method"),
    )


def _formula(preprocessing: Preprocessing) -> str:
    """How images come from pixels."""
    if isinstance(preprocessing, Whiten):
        return "x = (p − mean) · matrix of the pixels p in [0, 1], all of an image in one row; preprocessing.pt has the three"
    if isinstance(preprocessing, Normalise):
        return "x = (p − mean) / std of the pixels p in [0, 1], channel by channel"
    return "the pixels in [0, 1]"


def _pt(content: Any) -> bytes:
    """What `torch.save` makes of tensors and lists of them, each on the CPU and without what it is a view of."""
    buffer = io.BytesIO()
    torch.save(_plain(content), buffer)
    return buffer.getvalue()


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _plain(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    assert isinstance(content, Tensor), content
    return content.detach().cpu().contiguous().clone()


def _labels(held: DistilledSet) -> dict[str, np.ndarray]:
    arrays = {"labels": held.labels, "probabilities": held.probabilities(), "classes": held.classes}
    return {name: tensor.cpu().numpy() for name, tensor in arrays.items()} | {"syn_lr": np.array(held.syn_lr)}


def _archive(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
