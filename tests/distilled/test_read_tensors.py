"""Every form of tensors of research code is read to the same set; what does not fit or is in doubt is refused in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from distilled.foreign_files import DATA, HARD, LOGITS, NORMALISE, PIXELS, PREPARED, SHAPE, close, read, refused, save_npz, save_pt
from distilled.samples import NAMES
from torch import Tensor

from limbeck.data.preprocessing import Identity, fit_whiten
from limbeck.distilled.set import DistilledSet

# Files of tensors.


def forms(folder: Path, images: Tensor, labels: Tensor, rate: float) -> dict[str, Path]:
    """The same set in every form of research code."""
    best, named = save_best(folder / "best", images, labels, rate), save_best(folder / "named", images, labels, rate, "_seed3")
    average = save_best(folder / "ema", images, labels, rate, prefix="ema_")
    (folder / "run").mkdir()
    save_best(folder / "run" / "Normal", images, labels, rate)
    pair, lr = (images, labels), torch.tensor([rate])
    return {
        "tuple": save_pt(folder / "tuple.pt", (*pair, rate)),
        "list": save_pt(folder / "list.pth", [*pair, lr]),
        "dict": save_pt(folder / "dict.pt", {"images": images, "labels": labels, "lr": lr, "accuracy": 0.5}),
        "legacy": save_legacy(folder / "legacy.pt", (*pair, rate)),
        "parameter": save_pt(folder / "parameter.pt", (torch.nn.Parameter(images), labels, rate)),
        "best": best,
        "named": named,
        "the average of the images": average,
        "the file of the average": average / "ema_images_best.pt",
        "the file of the images": best / "images_best.pt",
        "the folder around it": folder / "run",
        "npz": save_npz(folder / "plain.npz", images=images, labels=labels, syn_lr=rate),
        "big-endian": save_npz(
            folder / "big.npz",
            images=images.numpy().astype(">f4"),
            labels=labels.numpy().astype(labels.numpy().dtype.newbyteorder(">")),
            lr=rate,
        ),
    }


def save_best(root: Path, images: Tensor, labels: Tensor, rate: float, ending: str = "", prefix: str = "") -> Path:
    root.mkdir()
    for name, value in (("images", images), ("labels", labels), ("lr", torch.tensor(rate))):
        save_pt(root / f"{prefix}{name}_best{ending}.pt", value)
    return root


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
        assert held.metadata["method"] is None
        origin = {"the file of the average": "ema", "the file of the images": "best", "the folder around it": "Normal"}
        assert held.metadata["origin"]["name"] == origin.get(name, path.name)
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
    assert [read(with_rate).metadata.get("step_size"), read(without).metadata["step_size"]] == [None, "assumed"]
    assert read(without, syn_lr=0.5).metadata["step_size"] == "given"
    assert read(without).syn_lr == 0.01
    assert "no file says the step size: it has none of its own" in read(without).metadata["assumed"]


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
    refused(path, "may be pixels or normalised: say --normalised yes")
    assert torch.equal(read(path, normalised="yes").images, images)


def test_what_cannot_be_pixels(tmp_path: Path) -> None:
    refused(save_pt(tmp_path / "set.pt", (PIXELS * 255, HARD)), "are no pixels in [0, 1], as --normalised no says", normalised="no")
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
        ((PIXELS * 999).long(), "holds images as torch.int64; uint8, whole numbers in 0 … 255 or floats are accepted"),
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
    refused(root, "holds 2 sets of images ('images_best_3.pt', 'images_best_4.pt'); give one of these files")
    assert torch.equal(read(root / "images_best_3.pt").images, PREPARED * 2)  # as it says
    (root / "images_best_3.pt").unlink()
    (root / "images_best_4.pt").rename(tmp_path / "outside.pt")
    (root / "images_best.pt").symlink_to(tmp_path / "outside.pt")
    refused(root, "holds 'images_best.pt', which leads out of it")


def test_averages_beside_the_images(tmp_path: Path) -> None:
    root = save_best(tmp_path / "Normal", PREPARED, HARD, 0.02)
    save_pt(root / "ema_images_best.pt", PREPARED * 2)
    held = read(root)
    assert torch.equal(held.images, PREPARED)
    assert "images_best.pt is taken, not the average in ema_images_best.pt" in held.metadata["assumed"]
    average = read(root / "ema_images_best.pt")  # with the labels and η of the images, where the average has none of its own
    assert torch.equal(average.images, PREPARED * 2) and average.syn_lr == pytest.approx(0.02, rel=1e-6)
    save_best(tmp_path / "ema", PREPARED * 2, HARD, 0.02, prefix="ema_")
    refused(tmp_path, "holds sets in 'Normal', 'ema'; give one of these folders")
    assert torch.equal(read(tmp_path / "ema").images, PREPARED * 2)
    (tmp_path / "ema" / "ema_labels_best.pt").unlink()
    refused(tmp_path / "ema", "holds ema_images_best.pt but not ema_labels_best.pt")


def test_a_file_that_holds_all_may_be_called_like_one_of_images(tmp_path: Path) -> None:
    assert torch.equal(read(save_pt(tmp_path / "images_best.pt", (PREPARED, HARD, 0.01))).images, PREPARED)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), "fast", [0.1], torch.tensor([0.1, 0.2]), True])
def test_step_sizes_that_are_refused(tmp_path: Path, rate: Any) -> None:
    refused(save_pt(tmp_path / "set.pt", (PREPARED, HARD, rate)), "holds the step size")


def test_a_step_size_beyond_double_precision_is_refused(tmp_path: Path) -> None:
    refused(save_pt(tmp_path / "set.pt", (PREPARED, HARD, 10**400)), "holds a step size beyond double precision")


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<u4", "<u8", "<i8", ">i4", "u1"])
def test_classes_are_whole_numbers_of_any_width(tmp_path: Path, kind: str) -> None:
    held = read(save_npz(tmp_path / "set.npz", images=PREPARED, labels=HARD.numpy().astype(kind)))
    assert held.classes.tolist() == HARD.tolist()
