"""Exports hold the same values, under names that every file system bears."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from distilled.samples import changed, sample_set
from PIL import Image

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity
from limbeck.data.split import whole
from limbeck.distilled.export import export_folder, export_npz, export_research, folder_names
from limbeck.distilled.read import read_set
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.errors import UsageError

HOSTILE = ("a/b", "a\\b", "..", ".", "", "CON", "Owl", "owl", "<script>", "猫", "naïve", "nai\u0308ve", "x" * 300, "tab\there", "-")


@pytest.mark.parametrize("shape", [(3, 8, 10), (1, 9, 8)])
@pytest.mark.parametrize("hard", [False, True])
def test_folder_holds_the_images_and_the_labels(tmp_path: Path, shape: tuple[int, int, int], hard: bool) -> None:
    held = sample_set(names=("mole", "newt", "owl"), ipc=2, shape=shape, hard=hard)
    root = export_folder(held, tmp_path / "out")
    assert sorted(path.name for path in root.iterdir()) == ["classes.json", "labels.npz", "mole", "newt", "owl"]
    with np.load(root / "labels.npz", allow_pickle=False) as labels:
        assert np.array_equal(labels["labels"], held.labels.numpy()) and labels["labels"].dtype == np.float32
        assert np.array_equal(labels["classes"], held.classes.numpy())
        assert np.array_equal(labels["probabilities"], held.probabilities().numpy())
        assert labels["syn_lr"].item() == held.syn_lr
        files = labels["files"].tolist()
    assert files == ["mole/0.png", "mole/1.png", "newt/0.png", "newt/1.png", "owl/0.png", "owl/1.png"]
    for file, pixels in zip(files, held.to_pixels().double().numpy(), strict=True):
        with Image.open(root / file) as image:
            read = np.asarray(image)
        expected = np.rint(pixels * 255).astype(np.uint8)
        assert np.array_equal(read if shape[0] == 3 else read[:, :, None], expected.transpose(1, 2, 0))
    names = json.loads((root / "classes.json").read_text(encoding="utf-8"))
    assert names["class_names"] == ["mole", "newt", "owl"] == names["folders"]
    assert names["label_kind"] == held.label_kind


def test_folders_of_any_names_are_safe_distinct_and_in_order(tmp_path: Path) -> None:
    folders = folder_names(HOSTILE)
    assert len({name.casefold() for name in folders}) == len(HOSTILE)
    assert folders == sorted(folders)
    for name in folders:
        assert not set(name) & set('/\\<>:"|?*.\t\n') and 0 < len(name.encode()) <= 100 and name.strip() == name
    assert folders[9] == "09-猫" and folders[4] == "04"
    root = export_folder(sample_set(names=HOSTILE, ipc=1), tmp_path / "out")
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == folders
    assert sum(1 for _ in root.rglob("*.png")) == len(HOSTILE)
    assert json.loads((root / "classes.json").read_text(encoding="utf-8"))["class_names"] == list(HOSTILE)


def test_names_are_kept_where_they_serve() -> None:
    assert folder_names(("cat", "golden retriever", "猫")) == ["cat", "golden-retriever", "猫"]
    assert folder_names(("10", "2")) == ["10", "2"]
    assert folder_names(("2", "10")) == ["0-2", "1-10"]
    assert folder_names(("Cat", "cat")) == ["0-Cat", "1-cat"]
    assert folder_names(("test", "train")) == ["0-test", "1-train"]
    assert folder_names(tuple(str(k) for k in range(11)))[9:] == ["09-9", "10-10"]


@pytest.mark.parametrize("preprocessing", ["identity", "normalise", "whiten"])
def test_npz_holds_the_same_values(tmp_path: Path, preprocessing: str) -> None:
    held = sample_set(names=("owl", "<script>", "猫"), preprocessing=preprocessing)
    path = export_npz(held, tmp_path / "set.npz")
    with np.load(path, allow_pickle=False) as archive:
        content = {name: archive[name] for name in archive.files}
    assert content["images"].shape == (6, 8, 10, 3) and content["images"].dtype == np.uint8
    expected = np.rint(held.to_pixels().double().numpy() * 255).astype(np.uint8)
    assert np.array_equal(content["images"], expected.transpose(0, 2, 3, 1))
    assert np.array_equal(content["images_float"], held.images.numpy())
    assert np.array_equal(content["labels"], held.labels.numpy())
    assert np.array_equal(content["classes"], held.classes.numpy())
    assert content["class_names"].tolist() == ["owl", "<script>", "猫"]
    assert content["syn_lr"].item() == held.syn_lr
    assert (content["label_kind"].item(), content["preprocessing"].item()) == ("logits", preprocessing)
    for name, tensor in held.preprocessing.tensors().items():
        assert np.array_equal(content[f"preprocessing_{name}"], tensor.numpy())


def test_existing_targets_are_refused_and_untouched(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file.npz"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    file.write_bytes(b"mine")
    for export, target in (
        (export_folder, folder),
        (export_folder, file),
        (export_research, folder),
        (export_research, file),
        (export_npz, file),
        (export_npz, folder),
    ):
        with pytest.raises(UsageError, match="--output: ") as caught:
            export(sample_set(), target)
        assert str(target) in str(caught.value) and "\n" not in str(caught.value)
    assert file.read_bytes() == b"mine" and (folder / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.npz", "folder"]


def test_empty_targets_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.npz").touch()
    assert (export_folder(sample_set(), tmp_path / "empty") / "labels.npz").exists()
    assert export_npz(sample_set(), tmp_path / "empty.npz").stat().st_size > 0
    assert export_npz(sample_set(), tmp_path / "new" / "deep" / "set.npz").exists()


@pytest.mark.parametrize("export", [export_folder, export_npz, export_research])
def test_nothing_is_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: Callable[[DistilledSet, Path], Path]
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("limbeck.distilled.export._archive", fail)
    monkeypatch.setattr("limbeck.distilled.export._about", fail)
    with pytest.raises(OSError, match="disk full"):
        export(sample_set(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_channels_that_no_image_file_has(tmp_path: Path) -> None:
    held = sample_set(shape=(4, 8, 8), images=torch.zeros(6, 4, 8, 8))
    with pytest.raises(UsageError, match="4 channels; use npz"):
        export_folder(held, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export_npz(held, tmp_path / "set.npz")


def plain(path: Path) -> object:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("preprocessing", ["identity", "normalise", "whiten"])
@pytest.mark.parametrize("hard", [False, True])
def test_research_code_finds_its_files_and_they_are_read_back_exactly(tmp_path: Path, hard: bool, preprocessing: str) -> None:
    held = sample_set(ipc=3, preprocessing=preprocessing, hard=hard, metadata={"method": "dc"})
    if not hard:
        held = changed(held, labels=held.labels + 9 * torch.eye(3)[held.classes])
    root = export_research(held, tmp_path / "out")
    matrices, res = ["preprocessing.pt"] * (preprocessing == "whiten"), ["res_dc_3ipc.pt"] * hard
    files = sorted(["about.json", "images_best.pt", "labels_best.pt", "lr_best.pt", *matrices, *res])
    assert sorted(path.name for path in root.iterdir()) == files
    images, labels, rate = (plain(root / f"{name}_best.pt") for name in ("images", "labels", "lr"))
    assert torch.equal(images, held.images) and images.dtype == torch.float32
    assert torch.equal(labels, held.classes if hard else held.labels) and labels.dtype == (torch.int64 if hard else torch.float32)
    assert (rate.shape, rate.dtype, rate.item()) == ((), torch.float32, pytest.approx(held.syn_lr, rel=1e-7))
    if hard:
        ((x, y),) = plain(root / "res_dc_3ipc.pt")["data"]
        assert torch.equal(x, held.images) and torch.equal(y, held.classes)
    about = json.loads((root / "about.json").read_text(encoding="utf-8"))
    assert (about["syn_lr"], about["class_names"], about["classes"]) == (
        held.syn_lr,
        ["owl", "mole", "newt"],
        held.classes.tolist(),
    )
    # The description is enough to come back to pixels.
    if preprocessing == "normalise":
        mean, std = (torch.tensor(about[name])[:, None, None] for name in ("mean", "std"))
        pixels = images * std + mean
    elif preprocessing == "whiten":
        parts = plain(root / "preprocessing.pt")
        pixels = (images.flatten(1) @ parts["inverse_matrix"] + parts["mean"]).view_as(images)
    else:
        pixels = images
    # A product of 240 terms rounds otherwise elsewhere in memory.
    torch.testing.assert_close(pixels, held.preprocessing.inverse(held.images), rtol=0, atol=1e-5)
    for described in (True, False):
        # What about.json says counts, not the preprocessing of the data; without it that of the data is all there is.
        back = read_set(root, data_of(held), Identity() if described else held.preprocessing)
        for name in ("images", "labels", "classes"):
            assert torch.equal(getattr(back, name), getattr(held, name)), name
        assert (back.label_kind, back.syn_lr) == (held.label_kind, held.syn_lr if described else torch.tensor(held.syn_lr).item())
        assert back.preprocessing.kind == preprocessing
        for name, tensor in held.preprocessing.tensors().items():
            assert torch.equal(back.preprocessing.tensors()[name], tensor), name
        (root / "about.json").unlink(missing_ok=True)


def data_of(held: DistilledSet) -> ImageSet:
    split = whole(np.zeros((3, *held.shape), dtype=np.uint8), np.arange(3))
    return ImageSet(split, split, split, held.class_names, "here", "f")


def test_what_research_code_wrote_anew_is_read_by_the_description(tmp_path: Path) -> None:
    held = sample_set(ipc=3)
    root = export_research(held, tmp_path / "out")
    torch.save(held.images + 1, root / "images_best.pt")
    torch.save(torch.tensor(0.5), root / "lr_best.pt")
    back = read_set(root, data_of(held), Identity())
    assert torch.equal(back.images, held.images + 1) and torch.equal(back.classes, held.classes) and back.syn_lr == 0.5
    assert back.metadata["assumed"] == ["the step size 0.5 of lr_best.pt is taken, not the 0.0123457 of about.json"]


def test_a_description_of_somebody_elses_is_left_aside_and_said(tmp_path: Path) -> None:
    held = sample_set(ipc=3)
    root = export_research(held, tmp_path / "out")
    for other in ({"note": "of something else"}, {"format": "NCHW"}, {}):
        (root / "about.json").write_text(json.dumps(other))
        metadata = read_set(root, data_of(held), held.preprocessing).metadata
        assert metadata["origin"]["kind"] == "folder of .pt files"
        assert "about.json is of another kind and left aside" in metadata["assumed"]


def test_exports_from_before_the_format_was_named_are_read(tmp_path: Path) -> None:
    held = sample_set()
    root = export_research(held, tmp_path / "out")
    described = json.loads((root / "about.json").read_text())
    assert described.pop("format") == "limbeck-research-1"
    (root / "about.json").write_text(json.dumps(described))
    back = read_set(root, data_of(held), Identity())
    assert torch.equal(back.images, held.images) and back.preprocessing.kind == "normalise" and back.metadata["assumed"] == []


def refused(root: Path, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_set(root, data_of(sample_set()), Identity())
    assert message in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as JSON; without this file"),
        ('{"format": "limbeck-research-1", "label', "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("1" * 5000, "about.json"),  # whether such a number is one, Python's versions do not agree on
        (b"\xff\xfe", "cannot be read as JSON"),
        ('["format"]', "is no JSON object"),
        ('{"format": "limbeck-research-1"}', "lacks label_kind, classes, class_names, syn_lr, preprocessing, which an export says"),
        ('{"format": "limbeck-research-2"}', "is of the format 'limbeck-research-2'; 'limbeck-research-1' is accepted"),
        ('{"classes": [0]}', "lacks label_kind, class_names, syn_lr, preprocessing, which an export says"),
    ],
)
def test_a_description_that_is_damaged_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    root = export_research(sample_set(), tmp_path / "out")
    (root / "about.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(root, message)


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("key", ["label_kind", "classes", "class_names", "syn_lr", "preprocessing"])
def test_a_description_that_lacks_something_is_refused(tmp_path: Path, key: str, marked: bool) -> None:
    root = export_research(sample_set(), tmp_path / "out")
    described = json.loads((root / "about.json").read_text())
    kept = {name: value for name, value in described.items() if name != key and (marked or name != "format")}
    (root / "about.json").write_text(json.dumps(kept))
    refused(root, f"lacks {key}, which an export says; without this file")


def test_a_description_that_lies_elsewhere_or_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = export_research(sample_set(), tmp_path / "out")
    about = (root / "about.json").rename(tmp_path / "about.json")
    (root / "about.json").symlink_to(about)
    refused(root, "holds 'about.json', which leads out of it")
    (root / "about.json").unlink()
    (root / "about.json").symlink_to("nowhere")
    refused(root, "lacks the file 'about.json'")
    (root / "about.json").unlink()
    (root / "about.json").symlink_to("about.json")
    refused(root, "'about.json'")
    (root / "about.json").unlink()
    (root / "about.json").mkdir()
    refused(root, "lacks the file 'about.json'")
    (root / "about.json").rmdir()
    about.rename(root / "about.json")
    read_set(root, data_of(sample_set()), Identity())
    monkeypatch.setattr("limbeck.distilled.formats.MOST_JSON", 100)
    refused(root, "about.json' has 0 MB; at most 0 MB are accepted")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("images", torch.tensor(1.0), "holds images with shape (); (N, C, H, W) is accepted"),
        ("images", torch.zeros(6, 3, 80), "holds images with shape (6, 3, 80)"),
        ("images", torch.zeros(0, 3, 8, 10), "holds what is no sound set: images must be"),
        ("images", torch.zeros(5, 3, 8, 10), "holds what is no sound set: labels must be"),
        ("images", torch.full((6, 3, 8, 10), 1e300, dtype=torch.float64), "images and labels must be finite"),
        ("images", torch.zeros(6, 3, 8, 10, dtype=torch.uint8), "holds images as torch.uint8, where about.json says"),
        ("images", torch.zeros(6, 3, 8, 10, dtype=torch.int64), "holds images as torch.int64, where about.json says"),
        ("labels", torch.tensor(1.0), "holds what is no sound set: labels must be"),
        ("lr", torch.zeros(2), "holds the step size 2 numbers"),
    ],
)
def test_tensors_that_the_description_does_not_fit(tmp_path: Path, name: str, tensor: torch.Tensor, message: str) -> None:
    root = export_research(sample_set(), tmp_path / "out")
    torch.save(tensor, root / f"{name}_best.pt")
    refused(root, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": [0, 0, 1, 1, 2, 3]}, "does not say the classes, their names, the kind"),
        ({"classes": [0, 1, 2]}, "holds what is no sound set"),
        ({"class_names": "owl"}, "does not say the classes, their names, the kind"),
        ({"class_names": [1, 2, 3]}, "class_names"),
        ({"label_kind": "soft"}, "does not say the classes, their names, the kind"),
        ({"label_kind": "hard"}, "holds no class numbers below 3, where about.json says hard labels"),
        ({"syn_lr": -1}, "holds the step size -1"),
        ({"syn_lr": "fast"}, "holds the step size fast"),
        ({"syn_lr": 10**400}, "cannot be read as JSON"),
        ({"syn_lr": float("nan")}, "holds the step size nan"),
        ({"syn_lr": None}, "holds the step size None"),
        ({"syn_lr": True}, "holds the step size True"),
        ({"mean": [10**400] * 3}, "cannot be read as JSON"),
        ({"mean": [float("inf")] * 3}, "holds what is no preprocessing: preprocessing: 'normalise' is not finite everywhere"),
        ({"class_names": ["owl", "mole", "\ud800"]}, "which is no Unicode text"),
        ({"mean": "0.5"}, "does not say mean and std as lists of numbers"),
        ({"mean": [0.5]}, "holds what is no preprocessing: preprocessing: "),
        ({"std": [0, 0, 0]}, "holds what is no preprocessing: preprocessing: 'normalise' is not of deviations above 0"),
        ({"preprocessing": "cubist"}, "holds what is no preprocessing: preprocessing: 'cubist' is not one of"),
        ({"preprocessing": "whiten"}, "lacks the file 'preprocessing.pt'"),
    ],
)
def test_a_description_that_is_broken_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    root = export_research(sample_set(), tmp_path / "out")
    described = json.loads((root / "about.json").read_text())
    (root / "about.json").write_text(json.dumps({**described, **changes}))
    refused(root, message)


def test_matrices_are_compared_with_the_free_memory(tmp_path: Path) -> None:
    """One number, which a tensor may repeat as often as it says, fills no memory until it is computed with."""
    root = export_research(sample_set(preprocessing="whiten"), tmp_path / "out")
    one, side = torch.zeros(1), 10**8
    torch.save(
        {"mean": one.expand(side), "matrix": (endless := one.expand(side, side)), "inverse_matrix": endless},
        root / "preprocessing.pt",
    )
    assert (root / "preprocessing.pt").stat().st_size < 3000
    refused(root, f"path: {str(root / 'preprocessing.pt')!r} needs 80000000.4 GB of memory, where ")


def test_research_files_hold_no_more_than_they_say(tmp_path: Path) -> None:
    held = sample_set(metadata={"method": "../../x y"}, hard=True)
    view = torch.zeros(1000, *held.images.shape)[7].copy_(held.images)  # of a storage a thousand times as large
    held = changed(held, images=view)
    root = export_research(held, tmp_path / "out")
    assert (root / "images_best.pt").stat().st_size < held.images.numel() * 4 + 4000
    assert (root / "res_x-y_2ipc.pt").exists()
    for rate in (1e-60, 1e60):
        with pytest.raises(UsageError, match=r"^--to: 'research' is not possible for the step size 1e"):
            export_research(changed(held, syn_lr=rate), tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("hard", "said"), [(False, "logits Y; softmax(Y) are the probabilities"), (True, "the number of the class")]
)
def test_about_says_what_labels_are(tmp_path: Path, hard: bool, said: str) -> None:
    about = json.loads((export_research(sample_set(hard=hard), tmp_path / "files") / "about.json").read_text(encoding="utf-8"))
    assert about["labels"] == said and about["label_kind"] == ("hard" if hard else "logits")
