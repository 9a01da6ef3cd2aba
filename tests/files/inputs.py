"""Small inputs as people have them, each with what must come out: made in a folder, read by Limbeck as any user's."""

import io
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

rng = np.random.default_rng(16)
K, TRAIN, TEST = 2, 12, 4  # classes, images to train and to test on
LABELS = np.arange(TRAIN + TEST) % K


@dataclass(frozen=True)
class Input:
    """An input and what it means.

    Args:
        source: what `--data` is given.
        images: uint8 with shape (N, C, H, W), those to train on first, in the order of the files.
        labels: of these.
        classes: their names.
        notes: what must be said of it, `…` for what it is called.
        keys: settings that it needs, as on a command.
        refused: what is said without these.
        val: how many of those behind the training images are its own for validation.
    """

    source: Path
    images: np.ndarray
    labels: np.ndarray = field(default_factory=lambda: LABELS)
    classes: tuple[str, ...] = ("0", "1")
    notes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    refused: str = ""
    val: int = 0


def by_class(root: Path, save: Callable[[Path, int], None], suffix: str) -> np.ndarray:
    """Files in `train/` and `test/` by class, and in which order they are read."""
    order = []
    for part, rows in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        for k in range(K):
            (root / part / str(k)).mkdir(parents=True)
            for i in (i for i in rows if LABELS[i] == k):
                save(root / part / str(k) / f"{i:02}{suffix}", i)
                order.append(i)
    return np.array(order)


def colour(height: int = 9, width: int = 8) -> np.ndarray:
    return rng.integers(0, 256, (TRAIN + TEST, height, width, 3), dtype=np.uint8)


def chw(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2) if images.ndim == 4 else images[:, None]


def medmnist(root: Path) -> Input:
    """MedMNIST's archive: grey, labels of shape (N, 1), validation images of its own."""
    images = rng.integers(0, 256, (TRAIN + TEST + 4, 28, 28), dtype=np.uint8)
    labels = (np.arange(len(images)) % K)[:, None].astype(np.uint8)
    named = {}
    for part, rows in (("train", slice(TRAIN)), ("val", slice(TRAIN, TRAIN + 4)), ("test", slice(TRAIN + 4, None))):
        named |= {f"{part}_images": images[rows], f"{part}_labels": labels[rows]}
    np.savez_compressed(root / "breastmnist.npz", **named)
    return Input(root / "breastmnist.npz", chw(images), labels[:, 0], val=4)


def keras(root: Path) -> Input:
    """What Keras downloads for its `mnist.load_data()`."""
    images = rng.integers(0, 256, (TRAIN + TEST, 28, 28), dtype=np.uint8)
    named = {"x_train": images[:TRAIN], "y_train": LABELS[:TRAIN].astype(np.uint8)}
    np.savez(root / "mnist.npz", **named, x_test=images[TRAIN:], y_test=LABELS[TRAIN:].astype(np.uint8))
    return Input(root / "mnist.npz", chw(images))


def scans(root: Path) -> Input:
    """Twelve bits in PNG files of sixteen, as DICOM is converted; the darkest number is in training, the brightest in testing."""
    values = rng.integers(40, 3001, (TRAIN + TEST, 9, 8)).astype(np.uint16)
    values[0, 0, 0], values[1, 0, 0], values[-1, 0, 0] = 20, 3000, 3070
    order = by_class(root / "ct", lambda path, i: Image.fromarray(values[i]).save(path), ".png")
    made = np.rint((values - 20.0) / 3050 * 255).astype(np.uint8)
    note = "note: …: 16 of 16 images have more than 8 bits and numbers from 20 to 3070: 20 … 3070 is black to white, in 256 levels"
    return Input(root / "ct", chw(made[order]), LABELS[order], notes=(note,))


def icons(root: Path) -> Input:
    """PNG files with a palette of which one colour is transparent."""
    made = np.empty((TRAIN + TEST, 9, 8, 3), dtype=np.uint8)

    def save(path: Path, i: int) -> None:
        image = Image.fromarray(colour()[0]).quantize(8)
        index = np.asarray(image)
        image.save(path, transparency=int(index[0, 0]))
        made[i] = np.where((index == index[0, 0])[..., None], 255, np.asarray(image.convert("RGB")))

    order = by_class(root / "icons", save, ".png")
    note = "warning: …: 16 of 16 images are transparent: laid on white ("
    return Input(root / "icons", chw(made[order]), LABELS[order], notes=(note,))


def prints(root: Path) -> Input:
    """JPEG files in CMYK with a colour profile, among others in RGB."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = np.empty((TRAIN + TEST, 16, 16, 3), dtype=np.uint8)

    def save(path: Path, i: int) -> None:
        image = Image.fromarray(np.repeat(np.repeat(colour(4, 4)[0], 4, 0), 4, 1))
        image = image.convert("CMYK") if i % 4 == 0 else image
        image.save(path, quality=95, icc_profile=profile)
        made[i] = np.asarray(Image.open(path).convert("RGB"))

    order = by_class(root / "prints", save, ".jpg")
    note = "warning: …: 4 of 16 images are in CMYK: converted to RGB without a colour profile ("
    return Input(root / "prints", chw(made[order]), LABELS[order], notes=(note,))


def microscope(root: Path) -> Input:
    """Floating-point TIFF files, some with several pages."""
    values = rng.normal(0, 200, (TRAIN + TEST, 9, 8)).astype(np.float32)
    low, high = float(values.min()), float(values.max())

    def save(path: Path, i: int) -> None:
        pages = [Image.fromarray(values[i]), Image.fromarray(values[0])]
        pages[0].save(path, save_all=True, append_images=pages[1:] if i == 5 else [])

    order = by_class(root / "cells", save, ".tif")
    made = np.rint((values - low) / (high - low) * 255).astype(np.uint8)
    notes = (
        f"note: …: 16 of 16 images have more than 8 bits and numbers from {low:.6g} to {high:.6g}: {low:.6g} … {high:.6g} is",
        "warning: …: 1 of 16 images is of several frames or pages: the first is taken (",
    )
    return Input(root / "cells", chw(made[order]), LABELS[order], notes=notes)


def spreadsheet(root: Path) -> Input:
    """A folder of photographs and a list that a spreadsheet has written: a mark in front, Windows' line ends, quoted names."""
    images, lines = colour(), ["Image_ID,Class,Split"]
    (root / "birds" / "photos").mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(root / "birds" / "photos" / f"vögel, {i:02}.png")
        lines.append(f'"vögel, {i:02}","{("tit, great", "Ärger")[LABELS[i]]}",{"train" if i < TRAIN else "Test"}')
    (root / "birds" / "labels.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    return Input(root / "birds", chw(images), classes=("tit, great", "Ärger"))


def image_folder(root: Path) -> Input:
    """The Hub's ImageFolder: `metadata.csv` in each split."""
    images = colour()
    for part, rows in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        (root / "hub" / part).mkdir(parents=True)
        lines = ["file_name,text,label"]
        for i in rows:
            Image.fromarray(images[i]).save(root / "hub" / part / f"{i:04}.png")
            lines.append(f"{i:04}.png,a picture,{('cat', 'dog')[LABELS[i]]}")
        (root / "hub" / part / "metadata.csv").write_text("\n".join(lines) + "\n")
    return Input(root / "hub", chw(images), classes=("cat", "dog"))


def web(root: Path) -> Input:
    """WebDataset shards whose fields have names."""
    images = colour()
    (root / "shards").mkdir()
    for part, rows in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        with tarfile.open(root / "shards" / f"{part}-000000.tar", "w") as file:
            for i in rows:
                Image.fromarray(images[i]).save(buffer := io.BytesIO(), "PNG")
                for field_name, content in (("input.png", buffer.getvalue()), ("output.cls", str(LABELS[i]).encode())):
                    info = tarfile.TarInfo(f"{i:06}.{field_name}")
                    info.size = len(content)
                    file.addfile(info, io.BytesIO(content))
    return Input(root / "shards", chw(images))


def from_one(root: Path) -> Input:
    """Labels that count from 1, as MATLAB does."""
    images = colour()
    named = {"X_train": images[:TRAIN], "y_train": LABELS[:TRAIN] + 1}
    np.savez(root / "matlab.npz", **named, X_test=images[TRAIN:], y_test=LABELS[TRAIN:] + 1)
    return Input(root / "matlab.npz", chw(images), classes=("1", "2"), notes=("note: …: labels count from 1 to 2: 1 is class 0",))


def floats(root: Path) -> Input:
    """A folder of .npy files with floats from 0 to 255."""
    images = colour()
    (root / "arrays").mkdir()
    named = {"x_train": images[:TRAIN].astype(np.float32), "x_test": images[TRAIN:].astype(np.float32)}
    for name, array in (named | {"y_train": LABELS[:TRAIN], "y_test": LABELS[TRAIN:]}).items():
        np.save(root / "arrays" / f"{name}.npy", array)
    refused = "which are no pixels in [0, 1]; divide by what white is, such as 255, or say what is white, data.range=255"
    note = "note: …: 16 of 16 images have more than 8 bits: 0 … 255 is black to white, as data.range says"
    return Input(root / "arrays", chw(images), keys=("data.range=255",), refused=refused, notes=(note,))


def cifar(root: Path) -> Input:
    """CIFAR-10 as it is distributed, in pickles."""
    images, folder = rng.integers(0, 256, (15 + TEST, 3, 32, 32), dtype=np.uint8), root / "cifar-10-batches-py"
    labels = np.arange(len(images)) % K
    folder.mkdir()
    for name, rows in [(f"data_batch_{i + 1}", slice(3 * i, 3 * i + 3)) for i in range(5)] + [("test_batch", slice(15, None))]:
        batch = {b"data": images[rows].reshape(-1, 3072), b"labels": labels[rows].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"airplane", b"automobile"]}))
    return Input(folder, images, labels, ("airplane", "automobile"))


INPUTS = (medmnist, keras, scans, icons, prints, microscope, spreadsheet, image_folder, web, from_one, floats, cifar)
