"""Photographs instead of made images: the same run from a folder of files and from an `.npz`, where a copy of Imagenette lies."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill

IMAGENETTE = Path(__file__).parents[2] / "shared" / "data" / "imagenette_128.npz"
TRAIN, TEST = 12, 4


@pytest.fixture
def photographs() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """16 photographs of each of the ten classes, (160, 128, 128, 3), their labels and the class names."""
    if not IMAGENETTE.exists():
        pytest.skip("imagenette_128.npz is not beside the repository")
    held = np.load(IMAGENETTE)
    labels, offsets, blob = held["val_labels"], held["val_offsets"], held["val_blob"]
    rows = np.concatenate([np.flatnonzero(labels == k)[: TRAIN + TEST] for k in range(10)])
    files = [blob[offsets[row] : offsets[row + 1]].tobytes() for row in rows]
    images = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    return images, labels[rows], [str(name) for name in held["class_names"]]


def write_folder(root: Path, images: np.ndarray, labels: np.ndarray, names: list[str]) -> Path:
    for number, (image, k) in enumerate(zip(images, labels, strict=True)):
        part = "train" if number % (TRAIN + TEST) < TRAIN else "test"
        (root / part / names[k]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / part / names[k] / f"{number:03d}.png")
    return root


def write_npz(path: Path, images: np.ndarray, labels: np.ndarray, names: list[str]) -> Path:
    train = np.arange(len(images)) % (TRAIN + TEST) < TRAIN
    arrays = {"x_train": images[train], "y_train": labels[train], "x_test": images[~train], "y_test": labels[~train]}
    np.savez(path, **arrays, class_names=np.array(names))
    return path


def test_a_folder_and_an_npz_hold_the_same_images(tmp_path: Path, photographs: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    images, labels, names = photographs
    names = [f"{k} {name}" for k, name in enumerate(names)]  # a folder's classes are in the order of their names
    folder = load_data(DataSettings(source=str(write_folder(tmp_path / "folder", images, labels, names)), val_fraction=0.25))
    arrays = load_data(DataSettings(source=str(write_npz(tmp_path / "arrays.npz", images, labels, names)), val_fraction=0.25))
    assert folder.class_names == arrays.class_names == tuple(names)
    for part in ("train", "val", "test"):
        own, other = getattr(folder, part), getattr(arrays, part)
        assert np.array_equal(own.labels, other.labels)
        assert (own.images() == other.images()).all()
    assert folder.shape == (3, 128, 128)


def test_photographs_are_distilled(tmp_path: Path, photographs: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    source = write_folder(tmp_path / "photographs", *photographs)
    small = {
        "data.source": str(source),
        "data.size": "32",
        "data.val_fraction": "0.25",
        "network": "ConvNetD3-w8",
        "experts.num_experts": "1",
        "experts.train_epochs": "3",
        "schedule.first_max_start_epoch": "1",
        "schedule.max_start_epoch": "1",
        "match.syn_steps": "2",
        "match.expert_epochs": "1",
        "outer.iterations": "3",
        "eval.epochs": "2",
        "eval.seeds": "2",
        "features": "none",
        "eval.full_epochs": "1",
        "engine.compile": "no",
    }
    results = distill(load_recipe("scenes", small), tmp_path / "run")
    assert results.accuracy.full.n == 2
    assert (tmp_path / "run" / "distilled" / "preview.png").exists()
