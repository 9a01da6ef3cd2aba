import gzip
from pathlib import Path

import numpy as np
import pytest
from data.pictures import load, refused

rng = np.random.default_rng(0)
IMAGES = {"train": rng.integers(0, 256, (30, 14, 12), dtype=np.uint8), "t10k": rng.integers(0, 256, (10, 14, 12), dtype=np.uint8)}


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def write(folder: Path, mark: str = "-", compressed: bool = False) -> Path:
    folder.mkdir(parents=True)
    for stem, images in IMAGES.items():
        for what, array in (("images", images), ("labels", np.arange(len(images), dtype=np.uint8) % 10)):
            name = f"{stem}-{what}{mark}idx{array.ndim}-ubyte"
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
    return folder


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("compressed", [False, True])
def test_plain_and_compressed(tmp_path: Path, mark: str, compressed: bool) -> None:
    made = load(write(tmp_path / "mnist", mark, compressed), val_fraction=0)
    assert (made.shape, made.class_names) == ((1, 14, 12), tuple("0123456789"))
    np.testing.assert_array_equal(made.train.images()[:, 0], IMAGES["train"])
    np.testing.assert_array_equal(made.test.images()[:, 0], IMAGES["t10k"])
    assert made.test.labels.tolist() == list(range(10))


@pytest.mark.parametrize("inside", ["", "raw", "FashionMNIST/raw"])
def test_fashion_is_known_by_its_path(tmp_path: Path, inside: str) -> None:
    root = tmp_path / "fashion"
    write(root / inside)
    made = load(root, classes=("Ankle boot", 0), val_fraction=0)
    assert made.class_names == ("Ankle boot", "T-shirt/top")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train-images-idx3-ubyte", bytes(20), "is no idx file of 3 dimensions of bytes"),
        ("train-images-idx3-ubyte", bytes((0, 0, 13, 3)) + bytes(12), "is no idx file of 3 dimensions of bytes"),
        ("train-labels-idx1-ubyte", idx(np.zeros(30, np.uint8))[:-1], "has 29 bytes of data, not the 30 of 30"),
        ("train-images-idx3-ubyte", bytes((0, 0, 8, 3)) + b"\xff" * 12, "not the 79228162458924105385300197375 of 4294967295×"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(9, np.uint8)), "has 10 images and 9 labels to test on"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((0, 14, 12), np.uint8)), "has 0 images and 10 labels to test on"),
    ],
)
def test_refusals(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    root = write(tmp_path / "mnist")
    (root / name).write_bytes(content)
    assert told in refused(root)


def test_a_broken_compressed_file(tmp_path: Path) -> None:
    root = write(tmp_path / "mnist", compressed=True)
    path = root / "train-labels-idx1-ubyte.gz"
    for damaged in (path.read_bytes()[:-9], b"no gzip", path.read_bytes()[:14] + b"\xff\xff\xff" + path.read_bytes()[17:]):
        path.write_bytes(damaged)
        assert refused(root).startswith(f"data.source: the file '{path}' cannot be read: ")


def test_of_several_data_sets_in_a_folder_one_is_to_be_given(tmp_path: Path) -> None:
    one, other = write(tmp_path / "FashionMNIST" / "raw"), write(tmp_path / "MNIST" / "raw")
    told = f"data.source: '{tmp_path}' holds several data sets; give one of them, '{one}' or '{other}'"
    assert refused(tmp_path) == told
    assert (load(one).class_names[0], load(tmp_path / "MNIST").class_names[0]) == ("T-shirt/top", "0")
