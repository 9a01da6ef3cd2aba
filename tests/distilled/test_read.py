"""Sets, exports and folders of images are read to the same set; what does not fit, is broken or in doubt is refused in one line."""

import errno
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilled.foreign_files import (
    HARD,
    NORMALISE,
    PIXELS,
    PREPARED,
    close,
    image_set,
    read,
    refused,
    save_npz,
    save_pt,
    write_images,
)
from distilled.samples import NAMES, changed, sample_set
from PIL import Image

from limbeck.data.levels import Levels
from limbeck.data.preprocessing import Whiten, fit_normalise
from limbeck.distilled.export import export_folder, export_npz, export_research
from limbeck.distilled.foreign import ForeignOptions, check_needed
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.errors import UsageError

# Sets of Limbeck.


def test_a_saved_set_is_loaded_as_it_is(tmp_path: Path) -> None:
    held = sample_set(metadata={"method": "edf"})
    back = read(held.save(tmp_path / "set"), syn_lr=0.5, class_order=("a",), normalised="no")
    assert torch.equal(back.images, held.images) and torch.equal(back.labels, held.labels)
    assert (back.syn_lr, back.metadata) == (held.syn_lr, {"method": "edf"})


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("preprocessing", ["identity", "normalise", "whiten"])
def test_an_exported_npz_is_read_exactly(tmp_path: Path, preprocessing: str, hard: bool) -> None:
    held = sample_set(names=("newt", "owl", "猫"), preprocessing=preprocessing, hard=hard)
    path = export_npz(held, tmp_path / "set.npz")
    back = read(path)
    assert torch.equal(back.images, held.images) and torch.equal(back.labels, held.labels)
    assert torch.equal(back.classes, held.classes)
    assert (back.syn_lr, back.label_kind, back.class_names) == (held.syn_lr, held.label_kind, held.class_names)
    assert back.preprocessing.kind == preprocessing
    for name, tensor in held.preprocessing.tensors().items():
        assert torch.equal(back.preprocessing.tensors()[name], tensor)
    origin = {"name": "set.npz", "kind": ".npz export", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert back.metadata == {"method": None, "origin": origin, "assumed": []}


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_exported_folder_is_read_up_to_rounding(tmp_path: Path, channels: int, hard: bool) -> None:
    shape = (channels, 8, 10)
    held = sample_set(names=("zebra", "ant", "a/b"), ipc=12, shape=shape, hard=hard)  # folders are numbered, and 10.png < 2.png
    held = changed(held, classes=torch.arange(36) % 3, labels=held.labels if not hard else torch.eye(3).repeat(12, 1))
    data = image_set(shape, names=("ant", "a/b", "zebra"))
    back = read(export_folder(held, tmp_path / "out"), data, held.preprocessing)
    level = 0.5 / 255 / float(held.preprocessing.tensors()["std"].min())
    assert close(back, held.preprocessing.forward(held.to_pixels()), atol=level + 1e-5)
    assert torch.equal(back.labels, held.labels) and torch.equal(back.classes, held.classes)
    assert (back.syn_lr, back.label_kind, back.class_names) == (held.syn_lr, held.label_kind, ("zebra", "ant", "a/b"))
    assert back.metadata["origin"]["kind"] == "folder export"


def test_checksum_of_a_folder_is_that_of_sha256sum(tmp_path: Path) -> None:
    root = write_images(tmp_path / "set", PIXELS[::2], HARD[::2])
    files = ["owl/0.png", "mole/1.png", "newt/2.png"]
    lines = "".join(f"{hashlib.sha256((root / file).read_bytes()).hexdigest()}  {file}\n" for file in files)
    assert read(root).metadata["origin"] == {
        "name": "set",
        "kind": "folder of images",
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "classes.json").unlink(), "lacks the file 'classes.json'"),
        (lambda root: (root / "labels.npz").unlink(), "lacks the file 'labels.npz'"),
        (lambda root: (root / "mole" / "0.png").unlink(), "lacks the file 'mole/0.png'"),
        (
            lambda root: (root / "mole" / "9.png").write_bytes((root / "mole" / "0.png").read_bytes()),
            "holds 7 images in its folders",
        ),
        (lambda root: (root / "mole" / "0.png").write_bytes(b"GIF89a"), "holds 'mole/0.png', which cannot be read"),
        (lambda root: (root / "classes.json").write_text("[" * 100_000), "cannot be read as JSON"),
        (
            lambda root: (root / "classes.json").write_text('{"class_names": 3, "label_kind": "hard"}'),
            "holds int as class_names; a list of text",
        ),
        (lambda root: (root / "classes.json").write_text('{"class_names": ["a"]}'), "does not say class_names and label_kind"),
        (
            lambda root: (root / "classes.json").write_text('{"class_names": ["a"], "label_kind": "soft"}'),
            "is no sound set: kind 'soft' is not one of logits",
        ),
    ],
)
def test_a_changed_export_is_refused(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    root = export_folder(sample_set(names=("mole", "newt", "owl")), tmp_path / "out")
    change(root)
    refused(root, message)


@pytest.mark.parametrize("file", ["../secret.png", "/etc/passwd", "mole/link.png", "mole", "mole/\0.png"])
def test_files_outside_of_the_export_are_refused(tmp_path: Path, file: str) -> None:
    root = export_folder(sample_set(names=("mole", "newt", "owl")), tmp_path / "out")
    Image.new("RGB", (10, 8)).save(tmp_path / "secret.png")
    (root / "mole" / "link.png").symlink_to(tmp_path / "secret.png")
    with np.load(root / "labels.npz") as held:
        arrays = dict(held)
    save_npz(root / "labels.npz", **{**arrays, "files": np.array([file, *arrays["files"][1:]])})
    with pytest.raises(UsageError, match="leads out of it|lacks the file|leads nowhere"):
        read(root)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.float32(1), "holds images with shape (1,); (N, C, H, W) is accepted"),
        (np.zeros((6, 3, 8, 10), dtype=np.uint8), "holds images_float as torch.uint8; floats are accepted"),
    ],
)
def test_an_exported_npz_of_other_images_is_refused(tmp_path: Path, images: Any, message: str) -> None:
    path = export_npz(sample_set(), tmp_path / "set.npz")
    with np.load(path) as held:
        arrays = dict(held)
    refused(save_npz(path, **{**arrays, "images_float": images}), message)


def test_whitening_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = export_npz(sample_set(preprocessing="whiten"), tmp_path / "set.npz")
    with np.load(path) as held:
        arrays = dict(held)
    small = {"mean": np.zeros(4), "matrix": np.eye(4), "inverse_matrix": np.eye(4)}
    save_npz(path, **{**arrays, **{f"preprocessing_{name}": array for name, array in small.items()}})
    refused(path, "holds what is no sound set")
    del arrays["preprocessing_matrix"]
    save_npz(path, **arrays)
    refused(path, "preprocessing: whiten lacks matrix")
    assert isinstance(sample_set(preprocessing="whiten").preprocessing, Whiten)


# Folders of images.


def test_class_folders_are_matched_by_name(tmp_path: Path) -> None:
    images = (PIXELS * 255).round() / 255
    held = read(write_images(tmp_path / "set", images, HARD))
    assert close(held, NORMALISE.forward(images), atol=1e-5)  # DATA's order owl, mole, newt is not that of the folders
    assert held.classes.tolist() == HARD.tolist() and held.class_names == NAMES
    assert held.label_kind == "hard" and torch.equal(held.labels, torch.eye(3)[HARD])
    assert (held.syn_lr, held.metadata["method"]) == (0.01, None)
    assert held.metadata["assumed"] == ["no file says the step size: it has none of its own"]
    assert read(tmp_path / "set", syn_lr=0.03).syn_lr == 0.03
    assert read(tmp_path / "set", syn_lr=0.03).metadata["assumed"] == []


def test_class_folders_may_be_called_as_exports_and_imagenet_call_them(tmp_path: Path) -> None:
    data = image_set(names=("tench", "golden retriever", "English springer"))
    write_images(tmp_path / "export", PIXELS, HARD, ("0-tench", "1-golden-retriever", "2-English-springer"))
    assert read(tmp_path / "export", data).classes.tolist() == HARD.tolist()
    plain = image_set(names=("n01440764", "n02102040", "n02979186"))
    known = ("tench", "English springer", "cassette player")
    write_images(tmp_path / "named", PIXELS, HARD, known)
    assert read(tmp_path / "named", plain).classes.tolist() == HARD.tolist()
    write_images(tmp_path / "wnids", PIXELS, HARD, plain.class_names)
    assert read(tmp_path / "wnids", image_set(names=known)).classes.tolist() == HARD.tolist()


def test_other_class_folders_need_an_order(tmp_path: Path) -> None:
    root = write_images(tmp_path / "set", PIXELS, HARD, ("00", "01", "02"))
    refused(root, "lacks the classes 'owl', 'mole', 'newt' of the data and has '00', '01', '02' besides")
    held = read(root, class_order=("newt", "owl", "mole"))
    assert held.classes.tolist() == [0, 0, 1, 1, 2, 2]
    assert close(held, NORMALISE.forward((PIXELS[[2, 3, 4, 5, 0, 1]] * 255).round() / 255), atol=1e-5)
    refused(root, "lacks the class 'mole' of the data and has 'moles' besides", class_order=("newt", "owl", "moles"))


def test_missing_and_extra_classes_are_listed(tmp_path: Path) -> None:
    root = write_images(tmp_path / "set", PIXELS[:4], HARD[:4])
    refused(root, "lacks the class 'newt' of the data")
    write_images(root, PIXELS, HARD)
    (root / "vole").mkdir()
    refused(root, "has the class 'vole', which the data have not")
    (root / "vole").rmdir()
    for file in (root / "mole").iterdir():
        file.unlink()
    refused(root, "has no images in 'mole'")


def test_other_sizes_are_refused_or_resized(tmp_path: Path) -> None:
    coarse = torch.rand(6, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    root = write_images(tmp_path / "set", coarse, HARD)
    refused(root, "holds images of 16×20 pixels, where the data have 8×10; --resize brings them to that size")
    held = read(root, resize=True)
    expected = [
        np.asarray(Image.open(path).resize((10, 8), Image.Resampling.BILINEAR))
        for name in NAMES
        for path in sorted((root / name).iterdir())
    ]
    pixels = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2).float() / 255
    assert close(held, NORMALISE.forward(pixels), atol=1e-5)
    assert "images of 16×20 pixels are resized to 8×10" in held.metadata["assumed"]


def test_grey_and_colour(tmp_path: Path) -> None:
    grey = image_set((1, 8, 10))
    preprocessing = fit_normalise(grey.train)
    pixels = (PIXELS[:, :1] * 255).round() / 255
    write_images(tmp_path / "grey", pixels, HARD)
    write_images(tmp_path / "equal", pixels.expand(-1, 3, -1, -1), HARD)
    write_images(tmp_path / "colour", PIXELS, HARD)
    for name in ("grey", "equal"):
        assert close(read(tmp_path / name, grey, preprocessing), preprocessing.forward(pixels), atol=1e-5)
    refused(tmp_path / "colour", "in colour, where the data are grey", grey, preprocessing)
    assert close(read(tmp_path / "grey"), NORMALISE.forward(pixels.expand(-1, 3, -1, -1)), atol=1e-5)


def test_images_of_more_than_eight_bits_are_read_as_those_of_the_data(tmp_path: Path) -> None:
    deep = (PIXELS[:, 0] * 4000).round().numpy().astype(np.uint16)
    for number, (image, k) in enumerate(zip(deep, HARD.tolist(), strict=True)):
        (tmp_path / "set" / NAMES[k]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "set" / NAMES[k] / f"{number}.png")
    grey = image_set((1, 8, 10))
    preprocessing = fit_normalise(grey.train)
    for levels in (Levels(0, 4095), None):
        black, white = levels or (deep.min(), deep.max())
        held = read(tmp_path / "set", replace(grey, levels=levels), preprocessing)
        pixels = torch.from_numpy(np.rint((deep - float(black)) / (white - float(black)) * 255) / 255)[:, None].float()
        assert close(held, preprocessing.forward(pixels), atol=1e-5)
        assert any(note.startswith("6 of 6 images have more than 8 bits") for note in held.metadata["assumed"])


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    elsewhere = write_images(tmp_path / "elsewhere", PIXELS, HARD)
    root = write_images(tmp_path / "set", PIXELS, HARD)
    (root / "owl" / "more.png").symlink_to(elsewhere / "owl" / "0.png")
    refused(root, "holds 'owl/more.png', which leads out of it")
    (root / "owl" / "more.png").unlink()
    (root / "owl" / "more").symlink_to(elsewhere)
    refused(root, "holds the link 'more'")
    (root / "owl" / "more").unlink()
    (root / "extra").symlink_to("/")
    refused(root, "holds the link 'extra'")
    (root / "extra").unlink()
    (root / "owl" / "circle.png").symlink_to("circle.png")
    refused(root, "'owl/circle.png'")
    (root / "owl" / "circle.png").unlink()
    assert len(read(root)) == 6


# Paths and options.


def test_other_paths(tmp_path: Path) -> None:
    refused(tmp_path / "none", "is not there; a saved distilled set, a folder of images or with images_best.pt, an .npz and a .pt")
    (tmp_path / "set.txt").write_text("x")
    refused(tmp_path / "set.txt", "is another kind of file")
    refused(tmp_path, "holds neither a set nor class folders")
    refused(Path("a\0b"), "is not there")
    (tmp_path / "link").symlink_to(save_pt(tmp_path / "set.pt", (PREPARED, HARD)))
    (tmp_path / "linked.pt").symlink_to(tmp_path / "set.pt")
    assert len(read(tmp_path / "linked.pt")) == 6


def test_places_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(Path("~nosuchuser/x"), "path: '~nosuchuser/x' is not there")
    with pytest.raises(UsageError, match="^path: '~nosuchuser/x' is not a folder"):
        DistilledSet.load("~nosuchuser/x")
    check_needed(["~nosuchuser/x"], ForeignOptions(syn_lr=0.1))
    for error in (PermissionError(errno.EACCES, "Permission denied"), OSError(errno.ENAMETOOLONG, "File name too long")):
        monkeypatch.setattr(Path, "is_dir", lambda path, error=error: (_ for _ in ()).throw(error))
        monkeypatch.setattr(Path, "is_file", lambda path, error=error: (_ for _ in ()).throw(error))
        said = f"path: {str(tmp_path / 'x')!r} cannot be read: {error.strerror}"
        refused(tmp_path / "x", said)
        for look in (DistilledSet.load, DistilledSet.is_at, lambda path: check_needed([path], ForeignOptions(syn_lr=0.1))):
            with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
                look(tmp_path / "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalised": "maybe"}, "normalised: 'maybe' is not one of auto, yes, no"),
        ({"labels": "soft"}, "labels: 'soft' is not one of auto"),
        ({"class_order": "owl"}, "class_order: 'owl' is not a list of names"),
        ({"syn_lr": 0.0}, "syn_lr: 0.0 is not above 0 and finite"),
        ({"syn_lr": float("nan")}, "syn_lr: nan is not"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ForeignOptions(**options)


@pytest.mark.parametrize("form", ["npz", "folder", "research"])
def test_what_an_export_says_itself_need_not_be_given_which_is_noted(tmp_path: Path, form: str) -> None:
    held = sample_set()
    path = {"npz": export_npz, "folder": export_folder, "research": export_research}[form](held, tmp_path / f"set.{form}")
    assert not [line for line in read(path).metadata["assumed"] if "is not needed" in line]
    found = read(path, syn_lr=0.7, labels="hard")
    assert found.syn_lr == pytest.approx(held.syn_lr) and found.label_kind == held.label_kind
    assert {"syn_lr is not needed: the files say it", "labels is not needed: the files say it"} <= set(found.metadata["assumed"])
