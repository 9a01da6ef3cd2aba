import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.pictures import load, refused
from data.test_idx import write as write_idx

rng = np.random.default_rng(0)
NAMES = ["airplane", "automobile", "bird"]
COUNTS = [4, 4, 4, 4, 5, 6]  # images of the five batches and of the test batch
TOTAL = sum(COUNTS)
PIXELS = rng.integers(0, 256, (TOTAL, 3072), dtype=np.uint8)
LABELS = np.arange(TOTAL) % 3
ENDS = np.cumsum(COUNTS)[:-1]


def pickled_ten(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name, pixels, labels in zip(files, np.split(PIXELS, ENDS), np.split(LABELS, ENDS), strict=True):
        batch = {b"batch_label": name.encode(), b"labels": labels.tolist(), b"data": pixels, b"filenames": [b"x.png"] * len(labels)}
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    meta = {b"num_cases_per_batch": 4, b"label_names": [name.encode() for name in NAMES], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, 2))
    return folder


def binary_ten(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    records = np.concatenate([LABELS[:, None].astype(np.uint8), PIXELS], axis=1)
    for name, part in zip(files, np.split(records, ENDS), strict=True):
        (folder / name).write_bytes(part.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def pickled_hundred(root: Path) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, part in (("train", slice(0, 21)), ("test", slice(21, None))):
        coarse = [0] * len(LABELS[part])
        batch = {b"data": PIXELS[part], b"fine_labels": LABELS[part].tolist(), b"coarse_labels": coarse}
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    meta = {b"fine_label_names": [name.encode() for name in NAMES], b"coarse_label_names": [b"things"]}
    (folder / "meta").write_bytes(pickle.dumps(meta, 2))
    return folder


def binary_hundred(root: Path) -> Path:
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    records = np.concatenate([np.zeros((TOTAL, 1), np.uint8), LABELS[:, None].astype(np.uint8), PIXELS], axis=1)
    (folder / "train.bin").write_bytes(records[:21].tobytes())
    (folder / "test.bin").write_bytes(records[21:].tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(NAMES))
    return folder


KINDS = [pickled_ten, binary_ten, pickled_hundred, binary_hundred]


@pytest.mark.parametrize("write", KINDS)
def test_each_layout_is_the_same_images(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path)
    made = load(folder, val_fraction=0)
    assert made.class_names == tuple(NAMES)
    np.testing.assert_array_equal(made.train.images(), PIXELS[:21].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(made.test.images(), PIXELS[21:].reshape(-1, 3, 32, 32))
    assert made.train.labels.tolist() == LABELS[:21].tolist()
    assert load(tmp_path, val_fraction=0).fingerprint == made.fingerprint  # the folder above it
    npz = tmp_path / "x.npz"
    shaped = PIXELS.reshape(-1, 3, 32, 32)
    arrays = {"x_train": shaped[:21], "y_train": LABELS[:21], "x_test": shaped[21:], "y_test": LABELS[21:]}
    np.savez(npz, **arrays, class_names=np.array(NAMES))
    assert load(npz, val_fraction=0).fingerprint == made.fingerprint


@pytest.mark.parametrize("write", KINDS)
def test_the_archive_is_read_without_being_unpacked(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path / "unpacked")
    archive = tmp_path / f"{folder.name}.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)
        file.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    before = sorted(tmp_path.rglob("*"))
    assert load(archive, val_fraction=0).fingerprint == load(folder, val_fraction=0).fingerprint
    assert sorted(tmp_path.rglob("*")) == before


def test_classes_size_and_missing_names(tmp_path: Path) -> None:
    folder = binary_ten(tmp_path)
    (folder / "batches.meta.txt").unlink()
    made = load(folder, classes=(2, "0"), size=16, val_fraction=0)
    assert (made.class_names, made.shape) == (("2", "0"), (3, 16, 16))
    assert made.train.labels.tolist() == [{2: 0, 0: 1}[k] for k in LABELS[:21] if k != 1]


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.path,)


def test_refusals(tmp_path: Path) -> None:
    folder = pickled_ten(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Runs(tmp_path / "made")}))
    assert refused(folder).startswith("data.source: the file 'data_batch_3' is refused as a pickle: it asks for ")
    assert not (tmp_path / "made").exists()
    for batch, told in [
        ({b"data": PIXELS[:4].astype(np.int32), b"labels": [0] * 4}, "holds no pixels of 8 bits with shape (n, 3072)"),
        ({b"data": PIXELS[:4], b"labels": [0] * 3}, "holds no list of 4 whole numbers as 'labels' or 'fine_labels'"),
        ({b"data": PIXELS[:4], b"labels": [0, 1, 2, 2**80]}, "holds labels that are no classes"),
        ({b"data": PIXELS[:4], b"labels": [0, 1, 2, 9]}, "holds y_train with labels from 0 to 9"),
        ([1], "holds a list where a dict is expected"),
    ]:
        (folder / "data_batch_3").write_bytes(pickle.dumps(batch, 2))
        assert told in refused(folder)
    binary = binary_ten(tmp_path / "other")
    (binary / "test_batch.bin").write_bytes(bytes(4000))
    assert "has 4000 bytes, which is no whole number of records of 3073" in refused(binary)
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    assert "cannot be read as a tar archive" in refused(tmp_path / "x.tar.gz")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz"):
        pass
    assert "is an archive, but not one of CIFAR-10 or CIFAR-100" in refused(tmp_path / "x.tar.gz")


def coarse(folder: Path) -> np.ndarray:
    """Gives the images of a CIFAR-100 coarse classes: `COARSE` of them."""
    found = np.arange(TOTAL) % 2
    if folder.name == "cifar-100-binary":
        records = np.concatenate([found[:, None].astype(np.uint8), LABELS[:, None].astype(np.uint8), PIXELS], axis=1)
        (folder / "train.bin").write_bytes(records[:21].tobytes())
        (folder / "test.bin").write_bytes(records[21:].tobytes())
        (folder / "coarse_label_names.txt").write_text("plants\nthings\n")
        return found
    for name, part in (("train", slice(0, 21)), ("test", slice(21, None))):
        batch = {b"data": PIXELS[part], b"fine_labels": LABELS[part].tolist(), b"coarse_labels": found[part].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    names = {b"fine_label_names": [name.encode() for name in NAMES], b"coarse_label_names": [b"plants", b"things"]}
    (folder / "meta").write_bytes(pickle.dumps(names, 2))
    return found


@pytest.mark.parametrize("write", [pickled_hundred, binary_hundred])
def test_coarse_classes_are_taken_by_their_field(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path)
    found = coarse(folder)
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)
    for source in (folder, archive):
        made = load(source, label_field="coarse_labels", val_fraction=0)
        assert made.class_names == ("plants", "things")
        assert (made.train.labels.tolist(), made.test.labels.tolist()) == (found[:21].tolist(), found[21:].tolist())
    assert load(folder, label_field="fine_labels").fingerprint == load(folder).fingerprint
    told = "data.label_field: 'coarse' is not fine_labels or coarse_labels, which CIFAR-100 has"
    assert refused(folder, label_field="coarse") == told


def test_of_several_data_sets_in_a_folder_one_is_to_be_given(tmp_path: Path) -> None:
    root = tmp_path / "data"
    ten, hundred = pickled_ten(root), pickled_hundred(root)
    assert refused(root) == f"data.source: '{root}' holds several data sets; give one of them, '{ten}' or '{hundred}'"
    archive = tmp_path / "data.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(root, "data")
    told = f"data.source: '{archive}' is an archive of cifar-10-batches-py and cifar-100-python; unpack it to a folder"
    assert refused(archive) == told
    beside = tmp_path / "torch"
    ten, digits = pickled_ten(beside), write_idx(beside / "MNIST" / "raw")
    assert refused(beside) == f"data.source: '{beside}' holds several data sets; give one of them, '{digits}' or '{ten}'"
    assert len(load(ten, val_fraction=0).train) == 21
