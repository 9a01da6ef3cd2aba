"""Every form that others may bring is read to the same set; what does not fit, is broken or in doubt is refused in one line."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilled.foreign_files import save_npz, save_pt, write_images
from distilled.samples import NAMES, sample_set
from PIL import Image
from torch import Tensor

from limbeck.data.imageset import ImageSet, whole
from limbeck.data.preprocessing import Identity, Preprocessing, Whiten, fit_normalise, fit_whiten
from limbeck.distilled.export import export_folder, export_npz
from limbeck.distilled.foreign import ForeignOptions, read_set
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.errors import UsageError

SHAPE = (3, 8, 10)
rng = np.random.default_rng(1)


def image_set(shape: tuple[int, int, int] = SHAPE, names: tuple[str, ...] = NAMES) -> ImageSet:
    """Twelve random images, each split all of them."""
    split = whole(rng.integers(0, 256, (12, *shape), dtype=np.uint8), np.arange(12) % len(names))
    return ImageSet(split, split, split, names, "here", "0123456789abcdef")


DATA = image_set()
NORMALISE = fit_normalise(DATA.train)
PIXELS = torch.from_numpy(rng.random((6, *SHAPE), dtype=np.float32))
PREPARED = NORMALISE.forward(PIXELS)
HARD = torch.tensor([0, 0, 1, 1, 2, 2])
LOGITS = torch.nn.functional.one_hot(HARD, 3) * 4.0 + torch.from_numpy(rng.normal(size=(6, 3))).float()


def read(path: Path, data: ImageSet = DATA, preprocessing: Preprocessing = NORMALISE, **options: Any) -> DistilledSet:
    return read_set(path, data, preprocessing, options=ForeignOptions(**options))


def refused(path: Path, message: str, data: ImageSet = DATA, preprocessing: Preprocessing = NORMALISE, **options: Any) -> None:
    with pytest.raises(UsageError) as caught:
        read(path, data, preprocessing, **options)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


def close(held: DistilledSet, images: Tensor, atol: float = 1e-6) -> bool:
    return held.images.shape == images.shape and torch.allclose(held.images, images, atol=atol)


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
    held = dataclasses.replace(held, classes=torch.arange(36) % 3, labels=held.labels if not hard else torch.eye(3).repeat(12, 1))
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
        (lambda root: (root / "classes.json").write_text("[" * 100_000), "does not say class_names and label_kind"),
        (lambda root: (root / "classes.json").write_text('{"class_names": 3, "label_kind": "hard"}'), "does not say class_names"),
        (
            lambda root: (root / "classes.json").write_text('{"class_names": ["a"], "label_kind": "soft"}'),
            "is no sound set: labels",
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


# Folders of images.


def test_class_folders_are_matched_by_name(tmp_path: Path) -> None:
    images = (PIXELS * 255).round() / 255
    held = read(write_images(tmp_path / "set", images, HARD))
    assert close(held, NORMALISE.forward(images), atol=1e-5)  # DATA's order owl, mole, newt is not that of the folders
    assert held.classes.tolist() == HARD.tolist() and held.class_names == NAMES
    assert held.label_kind == "hard" and torch.equal(held.labels, torch.eye(3)[HARD])
    assert (held.syn_lr, held.metadata["method"]) == (0.01, None)
    assert held.metadata["assumed"] == ["the step size is taken to be 0.01: no file says it"]
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


# Files of tensors.


def forms(folder: Path, images: Tensor, labels: Tensor, rate: float) -> dict[str, Path]:
    """The same set in every form of research code."""
    best, named = folder / "best", folder / "named"
    for root, ending in ((best, ""), (named, "_seed3")):
        root.mkdir()
        for name, value in (("images", images), ("labels", labels), ("lr", torch.tensor(rate))):
            save_pt(root / f"{name}_best{ending}.pt", value)
    pair, lr = (images, labels), torch.tensor([rate])
    return {
        "tuple": save_pt(folder / "tuple.pt", (*pair, rate)),
        "list": save_pt(folder / "list.pth", [*pair, lr]),
        "dict": save_pt(folder / "dict.pt", {"images": images, "labels": labels, "lr": lr, "accuracy": 0.5}),
        "legacy": save_legacy(folder / "legacy.pt", (*pair, rate)),
        "parameter": save_pt(folder / "parameter.pt", (torch.nn.Parameter(images), labels, rate)),
        "best": best,
        "named": named,
        "npz": save_npz(folder / "plain.npz", images=images, labels=labels, syn_lr=rate),
        "big-endian": save_npz(
            folder / "big.npz",
            images=images.numpy().astype(">f4"),
            labels=labels.numpy().astype(labels.numpy().dtype.newbyteorder(">")),
            lr=rate,
        ),
    }


def save_legacy(path: Path, content: Any) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("soft", [False, True])
def test_every_form_of_tensors_gives_the_same_set(tmp_path: Path, soft: bool) -> None:
    for name, path in forms(tmp_path, PREPARED, LOGITS if soft else HARD, 0.0125).items():
        held = read(path)
        assert torch.equal(held.images, PREPARED), name
        assert torch.equal(held.labels, LOGITS if soft else torch.eye(3)[HARD]), name
        assert held.label_kind == ("logits" if soft else "hard"), name
        assert torch.equal(held.classes, HARD), name
        assert held.syn_lr == pytest.approx(0.0125, rel=1e-6), name
        assert (held.class_names, held.preprocessing) == (NAMES, NORMALISE)
        assert held.metadata["method"] is None and held.metadata["origin"]["name"] == path.name
        assert len(held.metadata["origin"]["sha256"]) == 64
        assert held.metadata["assumed"][0].startswith("images have values") and "prepared" in held.metadata["assumed"][0]
        saved = DistilledSet.load(held.save(tmp_path / "saved"))
        assert saved.metadata == held.metadata


def test_results_of_several_experiments(tmp_path: Path) -> None:
    one = save_pt(tmp_path / "one.pt", {"data": [PREPARED, HARD], "accs": {"ConvNet": [0.5]}})
    several = save_pt(tmp_path / "several.pt", {"data": [[PREPARED, HARD], [PREPARED * 2, HARD]]})
    assert torch.equal(read(one).images, PREPARED)
    held = read(several)
    assert torch.equal(held.images, PREPARED) and held.syn_lr == 0.01
    assert "the first of the 2 sets in the file is taken" in held.metadata["assumed"]


def test_step_size_of_the_file_goes_before(tmp_path: Path) -> None:
    with_rate, without = save_pt(tmp_path / "a.pt", (PREPARED, HARD, 0.02)), save_pt(tmp_path / "b.pt", (PREPARED, HARD))
    held = read(with_rate, syn_lr=0.5)
    assert held.syn_lr == 0.02
    assert "the step size 0.02 in the file is taken, not the 0.5 that was given" in held.metadata["assumed"]
    assert read(without, syn_lr=0.5).syn_lr == 0.5
    assert read(without).syn_lr == 0.01
    assert "the step size is taken to be 0.01: no file says it" in read(without).metadata["assumed"]


def test_pixels_are_prepared_and_prepared_images_taken_as_they_are(tmp_path: Path) -> None:
    levels = (PIXELS * 255).round().byte()
    for name, images in (("first", levels), ("last", levels.permute(0, 2, 3, 1))):
        for path in (
            save_npz(tmp_path / f"{name}.npz", images=images, labels=HARD),
            save_pt(tmp_path / f"{name}.pt", (images, HARD)),
        ):
            assert close(read(path, normalised="yes"), NORMALISE.forward(levels.float() / 255))
    floats = save_pt(tmp_path / "floats.pt", (PIXELS.double(), HARD))
    assert close(read(floats), PREPARED)
    assert torch.equal(read(floats, normalised="yes").images, PIXELS)
    assert torch.equal(read(floats, preprocessing=Identity()).images, PIXELS)
    whiten = fit_whiten(DATA.train)
    assert close(read(floats, preprocessing=whiten), whiten.forward(PIXELS))
    half = save_pt(tmp_path / "half.pt", (PREPARED.half(), HARD))
    assert close(read(half), PREPARED, atol=2e-3)


@pytest.mark.parametrize("images", [PIXELS * 1.2, PIXELS * 2 - 1, PIXELS - 0.01])
def test_doubt_about_normalisation_is_asked_about(tmp_path: Path, images: Tensor) -> None:
    path = save_pt(tmp_path / "set.pt", (images, HARD))
    refused(path, "may be pixels or normalised: say normalised=yes or no")
    assert torch.equal(read(path, normalised="yes").images, images)


def test_what_cannot_be_pixels(tmp_path: Path) -> None:
    refused(save_pt(tmp_path / "set.pt", (PIXELS * 255, HARD)), "are no pixels in [0, 1], as normalised=no says", normalised="no")
    slightly = save_pt(tmp_path / "slightly.pt", (PIXELS * 1.1 - 0.05, HARD))
    assert close(read(slightly, normalised="no"), NORMALISE.forward(PIXELS * 1.1 - 0.05))


def test_tensors_of_another_size(tmp_path: Path) -> None:
    coarse = PIXELS.repeat_interleave(2, 2).repeat_interleave(2, 3)
    pixels = save_pt(tmp_path / "pixels.pt", (coarse, HARD))
    prepared = save_pt(tmp_path / "prepared.pt", (NORMALISE.forward(coarse), HARD))
    whitened = save_pt(tmp_path / "whitened.pt", (coarse * 9 - 4, HARD))
    refused(pixels, "holds images of 16×20 pixels, where the data have 8×10; --resize")
    assert close(read(prepared, resize=True), read(pixels, resize=True).images, atol=1e-4)
    assert "images of 16×20 pixels are resized to 8×10" in read(pixels, resize=True).metadata["assumed"]
    constant = save_pt(tmp_path / "constant.pt", (torch.full((6, 3, 16, 20), 0.25), HARD))
    assert close(read(constant, resize=True), NORMALISE.forward(torch.full((6, *SHAPE), 0.25)))
    refused(whitened, "whitened images of 16×20 pixels, which cannot be resized", preprocessing=fit_whiten(DATA.train), resize=True)


def test_probabilities_become_logits_of_the_same_softmax(tmp_path: Path) -> None:
    shares = LOGITS.softmax(1)
    shares[0] = torch.tensor([1.0, 0.0, 0.0])
    path = save_pt(tmp_path / "set.pt", (PREPARED, shares))
    held = read(path)
    assert held.label_kind == "logits"
    torch.testing.assert_close(held.probabilities(), shares, atol=1e-6, rtol=1e-5)
    assert "labels are taken for probabilities" in held.metadata["assumed"]
    assert torch.equal(read(path, labels="logits").labels, shares)
    one_hot = save_pt(tmp_path / "hard.pt", (PREPARED, torch.eye(3)[HARD]))
    assert (read(one_hot).label_kind, read(one_hot, labels="probabilities").label_kind) == ("hard", "logits")
    torch.testing.assert_close(read(one_hot, labels="probabilities").probabilities(), torch.eye(3)[HARD], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (LOGITS, {"labels": "probabilities"}, "labels that are no probabilities"),
        (LOGITS, {"labels": "hard"}, "labels that are not hard"),
        (HARD, {"labels": "logits"}, "which are no logits"),
        (HARD.float(), {}, "holds labels as torch.float32 with shape (6,), which are no class numbers"),
        (HARD + 1, {}, "holds labels from 1 to 3; 0 … 2 is accepted"),
        (HARD - 1, {}, "holds labels from -1 to 1; 0 … 2 is accepted"),
        (HARD[:5], {}, "holds labels with shape (5,); (6,) or (6, 3) is accepted for 6 images and 3 classes"),
        (torch.randn(6, 10), {}, "holds labels with shape (6, 10)"),
        (torch.full((6, 3), float("nan")), {}, "labels with numbers that are not finite"),
        (torch.full((6, 3), 1e300, dtype=torch.float64), {}, "labels with numbers that are not finite"),
        (HARD > 0, {}, "holds labels as a tensor of torch.bool"),
        (HARD.cfloat(), {}, "holds labels as a tensor of torch.complex64"),
        ("six", {}, "holds str as labels; a tensor is accepted"),
    ],
)
def test_labels_that_are_refused(tmp_path: Path, labels: Any, options: dict[str, Any], message: str) -> None:
    refused(save_pt(tmp_path / "set.pt", (PREPARED, labels)), message, **options)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (PREPARED[:0], "holds no images: their shape is (0, 3, 8, 10)"),
        (torch.where(PREPARED > 1, float("nan"), PREPARED), "images with numbers that are not finite"),
        (PREPARED.double() * 1e300, "images with numbers that are not finite"),
        (PREPARED[0], "holds images with shape (3, 8, 10); (N, 3, H, W) or (N, H, W, 3) is accepted"),
        (PREPARED[:, :2], "holds images with shape (6, 2, 8, 10)"),
        ((PIXELS * 255).long(), "holds images as torch.int64; uint8 or floats are accepted"),
        (PREPARED.to_sparse(), "dense floats or integers are accepted"),
        (PREPARED.to("meta"), "dense floats or integers are accepted"),
        (torch.zeros(1).expand(10**9, 10**6, 3, 8), "GB of memory, where"),
        (torch.zeros(1).expand(10**9, 3, 8, 10), "GB of memory, where"),
        (None, "holds NoneType as images"),
    ],
)
def test_images_that_are_refused(tmp_path: Path, images: Any, message: str) -> None:
    refused(save_pt(tmp_path / "set.pt", (images, HARD)), message)


def test_class_order_says_what_labels_count(tmp_path: Path) -> None:
    order = ("newt", "owl", "mole")
    for labels in (HARD, LOGITS):
        path = save_pt(tmp_path / "set.pt", (PREPARED, labels))
        held = read(path, class_order=order)
        named = save_pt(tmp_path / "named.pt", {"images": PREPARED, "labels": labels, "class_names": list(order)})
        array = save_npz(tmp_path / "named.npz", images=PREPARED, labels=labels, class_names=order)
        rows = torch.eye(3)[HARD] if labels is HARD else LOGITS
        expected = rows[:, [1, 2, 0]]  # owl, mole, newt
        for one in (held, read(named), read(array)):
            assert torch.equal(one.labels, expected) and one.class_names == NAMES
            assert torch.equal(one.classes, expected.argmax(1))
        assert "labels are taken to count the classes in the order of the data" in read(path).metadata["assumed"]
        assert "labels are taken to count the classes in the order of the data" not in held.metadata["assumed"]
        assert (
            "the order of classes in the file is taken, not the one that was given"
            in read(named, class_order=NAMES).metadata["assumed"]
        )
    refused(path, "lacks the class 'owl' of the data and has 'yak' besides", class_order=("newt", "yak", "mole"))
    refused(path, "lacks the classes 'owl', 'mole', 'newt' of the data", class_order=())
    refused(path, "names 4 classes, where the data have 3", class_order=("newt", "owl", "mole", "owl"))


def test_classes_of_soft_labels(tmp_path: Path) -> None:
    rows = LOGITS.repeat_interleave(2, 0)  # four images of each class
    rows[0] = torch.tensor([0.0, 0.0, 9.0])
    images = PREPARED.repeat_interleave(2, 0)
    blocks = torch.arange(3).repeat_interleave(4)

    def classes(labels: Tensor, reason: str) -> list[int]:
        held = read(save_pt(tmp_path / "set.pt", (images[: len(labels)], labels)))
        assert any(reason in note for note in held.metadata["assumed"])
        return held.classes.tolist()

    assert classes(rows, "class by class") == blocks.tolist()
    assert classes(rows[:, [2, 0, 1]], "class by class") == ((blocks + 1) % 3).tolist()  # an order of classes of their own
    twins = rows.clone()
    twins[4:8] = rows[8:]  # two blocks of one class
    assert classes(twins, "its label favours") == [2, *twins[1:].argmax(1).tolist()]
    rows[1] = rows[0]  # half of a block is no majority
    assert classes(rows, "its label favours") == [2, 2, *blocks[2:].tolist()]
    assert classes(rows[:5], "its label favours") == rows[:5].argmax(1).tolist()
    assert classes(rows[[0, 4, 8, 3, 5, 6]], "its label favours") == [2, 1, 2, 0, 1, 1]


# Folders of research code.


def test_folders_of_research_code_that_leave_a_doubt(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    save_pt(root / "images_best.pt", PREPARED)
    refused(root, "holds images_best.pt but not labels_best.pt")
    save_pt(root / "labels_best_3.pt", HARD)
    assert len(read(root)) == 6  # the only ones
    save_pt(root / "labels_best_4.pt", HARD)
    refused(root, "lacks labels_best.pt and holds 'labels_best_3.pt', 'labels_best_4.pt' instead")
    save_pt(root / "labels_best.pt", HARD)
    save_pt(root / "images_best_3.pt", PREPARED * 2)
    assert torch.equal(read(root).images, PREPARED)
    (root / "images_best.pt").rename(root / "images_best_4.pt")
    refused(root, "holds 2 sets of images ('images_best_3.pt', 'images_best_4.pt')")
    (root / "images_best_3.pt").unlink()
    (root / "images_best_4.pt").rename(tmp_path / "outside.pt")
    (root / "images_best.pt").symlink_to(tmp_path / "outside.pt")
    refused(root, "holds 'images_best.pt', which leads out of it")


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), "fast", [0.1], torch.tensor([0.1, 0.2]), True])
def test_step_sizes_that_are_refused(tmp_path: Path, rate: Any) -> None:
    refused(save_pt(tmp_path / "set.pt", (PREPARED, HARD, rate)), "holds the step size")


def test_other_paths(tmp_path: Path) -> None:
    refused(tmp_path / "none", "is not there; a saved distilled set, a folder of images or with images_best.pt, an .npz and a .pt")
    (tmp_path / "set.txt").write_text("x")
    refused(tmp_path / "set.txt", "is another kind of file")
    refused(tmp_path, "holds neither a set nor class folders")
    refused(Path("a\0b"), "is not there")
    (tmp_path / "link").symlink_to(save_pt(tmp_path / "set.pt", (PREPARED, HARD)))
    (tmp_path / "linked.pt").symlink_to(tmp_path / "set.pt")
    assert len(read(tmp_path / "linked.pt")) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalised": "maybe"}, "normalised: 'maybe' is not auto, yes or no"),
        ({"labels": "soft"}, "labels: 'soft' is not one of auto"),
        ({"class_order": "owl"}, "class_order: 'owl' is not a list of names"),
        ({"syn_lr": 0.0}, "syn_lr: 0.0 is not above 0 and finite"),
        ({"syn_lr": float("nan")}, "syn_lr: nan is not"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ForeignOptions(**options)


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
