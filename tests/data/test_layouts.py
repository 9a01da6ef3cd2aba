"""How folders are understood: which are splits, which classes, what in them counts, and what is refused instead of guessed."""

import os
from pathlib import Path

import pytest
from data.pictures import Said, fill, load, picture, refused

from limbeck.data.folder import CALLED, SPLITS
from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings

TWO = {"train__a": 4, "train__b": 4}


def sizes(made: ImageSet) -> tuple[int, int, int]:
    return len(made.train), len(made.val), len(made.test)


def heard(source: Path, **keys: object) -> tuple[ImageSet, list[str]]:
    """The images and what was said about them."""
    said = Said()
    return load_data(DataSettings(source=str(source), **{"workers": 1} | keys), said), said.lines


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("training", "validation"), ("train", "valid"), ("train", "Val"), ("TRAIN", "test")]
)
def test_splits_in_any_case_and_word(tmp_path: Path, train: str, test: str) -> None:
    made = load(fill(tmp_path, **{f"{train}__a": 4, f"{train}__b": 4, f"{test}__a": 1, f"{test}__b": 2}))
    assert made.class_names == ("a", "b")
    assert sizes(made) == (6, 2, 3)


def test_folders_and_shards_know_the_same_words() -> None:
    from limbeck.data.shards import split_of

    assert all(split_of(Path(f"{word}/1.tar")) == split for word, split in SPLITS.items())


def test_own_validation_images_by_another_word(tmp_path: Path) -> None:
    made = load(fill(tmp_path, **TWO, Valid__a=1, Valid__b=1, TEST__a=2, TEST__b=3))
    assert sizes(made) == (8, 2, 5)


@pytest.mark.parametrize(("one", "other"), [("Train", "train"), ("train", "training"), ("val", "valid")])
def test_two_folders_for_one_split_are_refused(tmp_path: Path, one: str, other: str) -> None:
    names = {*(f"{part}__{name}" for part in ("train", "test", one, other) for name in ("a", "b"))}
    root = fill(tmp_path, **dict.fromkeys(names, 1))
    if len(list(root.iterdir())) < 3:
        pytest.skip("this disk does not tell names apart by case")
    assert refused(root) == f"data.source: '{root}' has {one}/ and {other}/, which name one split"


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (
            ("seg_train__a", "seg_train__b", "seg_test__a", "seg_test__b"),
            "seg_train/ and seg_test/, which hold folders of the same",
        ),
        (("seg_train__seg_train__a", "seg_test__seg_test__a", "seg_pred__seg_pred"), "seg_train/ and seg_test/; splits are called"),
        (("fold1__a", "fold1__b", "fold2__a", "fold2__b"), "fold1/ and fold2/, which hold folders of the same names such as 'a'"),
        (("test__a", "test__b", "val__a", "val__b"), "test/ and val/, which hold folders of the same names such as 'a'; splits"),
    ],
)
def test_splits_of_other_names_are_no_classes(tmp_path: Path, folders: tuple[str, ...], told: str) -> None:
    root = fill(tmp_path, **dict.fromkeys(folders, 2))
    message = refused(root)
    assert message.startswith(f"data.source: '{root}' has no classes but what seem to be splits, ")
    assert told in message
    assert message.endswith(CALLED)


def test_classes_whose_images_lie_deeper_are_classes(tmp_path: Path) -> None:
    assert load(fill(tmp_path / "one", a__images=5, b__images=5)).class_names == ("a", "b")
    assert load(fill(tmp_path / "two", a__x=2, a__y=2, b__x=2, b__y=2, c=4)).class_names == ("a", "b", "c")


def test_test_images_without_labels_are_left_out_and_said(tmp_path: Path) -> None:
    root = fill(tmp_path / "flat", **TWO, val__a=1, val__b=1, test=3)
    made, lines = heard(root)
    assert sizes(made) == (6, 2, 2)
    assert lines == [f"{root}: test/ has no folders of the classes and is left out"]
    root = fill(tmp_path / "unknown", **TWO, val__a=1, val__b=1, test__unknown=3)
    made, lines = heard(root)
    assert (sizes(made), len(lines)) == ((6, 2, 2), 1)
    root = fill(tmp_path / "alone", **TWO, test=3)
    assert refused(root) == f"data.source: '{root}' has train/ and test/, but no class folders in test/"


def test_test_images_of_some_classes_are_refused_though_there_are_validation_images(tmp_path: Path) -> None:
    root = fill(tmp_path, **TWO, val__a=1, val__b=1, test__a=3)
    assert refused(root) == f"data.source: '{root}' has the class 'b' in train/ but not in test/"
    fill(root, test__B=1)
    assert "has the class 'B' in test/ but not in train/, which has 'b'" in refused(root)


def test_hidden_folders_and_leftovers_in_classes_are_left_out(tmp_path: Path) -> None:
    root = fill(tmp_path, a=5, b=5)
    for name in (".thumbs", "__MACOSX", ".ipynb_checkpoints", ".thumbs/deeper"):
        picture(root / "a" / name / "copy.png")
    picture(root / "__MACOSX" / "a" / "x.png")
    made, lines = heard(root, val_fraction=0)
    assert (len(made.train.storage), lines) == (10, [])


def test_other_suffixes_of_jpeg(tmp_path: Path) -> None:
    root = fill(tmp_path, a=3, b=3)
    for suffix in (".jfif", ".JPE"):
        (root / "a" / f"more{suffix}").write_bytes((root / "b" / "000.png").read_bytes())
    assert len(load(root).train.storage) == 8


def test_images_of_kinds_that_are_not_read_are_said(tmp_path: Path) -> None:
    root = fill(tmp_path, a=3, b=3)
    for name in ("a/1.heic", "b/2.HEIC", "b/deep/3.jp2", "b/.4.heic", "b/notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    _, lines = heard(root)
    told = "2 .heic files and 1 .jp2 file in class folders are left out, for images of that kind are not read"
    assert lines == [f"{root}: {told}"]
    (root / "c").mkdir()
    (root / "c" / "1.heic").write_bytes(b"")
    assert refused(root) == f"data.source: the class folder '{root / 'c'}' holds no images but 1 .heic file, which are not read"


def test_a_class_that_is_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    root = fill(tmp_path, a=3, b=3)
    (root / "c").symlink_to(tmp_path / "gone")
    assert refused(root) == f"data.source: '{root / 'c'}' is a link to nowhere, where class folders lie"


def test_testing_on_the_training_folder_is_refused(tmp_path: Path) -> None:
    root = fill(tmp_path / "x", **TWO)
    (root / "test").symlink_to(root / "train")
    assert refused(root) == f"data.source: '{root / 'test'}' and '{root / 'train'}' in '{root}' are the same folder"
    (root / "test").unlink()
    fill(root, test__a=1)
    (root / "test" / "b").symlink_to(root / "train" / "b")
    assert refused(root).startswith(f"data.source: '{root / 'test' / 'b'}' and '{root / 'train' / 'b'}' in ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    root = fill(tmp_path, a=3, b=3)
    os.mkfifo(root / "a" / "pipe.png")
    assert refused(root) == (
        f"data.source: cannot read the image '{root / 'a' / 'pipe.png'}': it is no regular file; data.skip_bad=true leaves it out"
    )
    made = load(root, skip_bad=True, val_fraction=0)
    assert len(made.train) + len(made.test) == 6


@pytest.mark.parametrize("stray", ["train", "test"])
def test_a_stray_image_beside_class_folders_makes_no_classes_of_splits(tmp_path: Path, stray: str) -> None:
    root = fill(tmp_path, **TWO, test__a=1, test__b=2)
    before = load(root)
    picture(root / stray / "montage.png")
    made, lines = heard(root)
    assert made.fingerprint == before.fingerprint
    assert lines == [f"{root}: 1 image beside the class folders is left out ({stray}/montage.png)"]


def test_stray_images_beside_classes_are_said(tmp_path: Path) -> None:
    root = fill(tmp_path, a=3, b=3)
    before = load(root)
    for number in range(4):
        picture(root / f"{number}.png")
    made, lines = heard(root)
    assert made.fingerprint == before.fingerprint
    assert lines == [f"{root}: 4 images beside the class folders are left out (0.png, 1.png, 2.png, …)"]


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (("train", "train__a", "train__b", "test"), "train/ and test/, but no class folders in test/"),
        (
            ("train", "train__a", "train__b", "eval__a", "eval__b"),
            "has train/ but neither test/ nor val/ beside it",
        ),
        (("fold1", "fold1__a", "fold1__b", "fold2__a", "fold2__b"), "fold1/ and fold2/, which hold folders of the same names"),
        (
            ("seg_train", "seg_train__a", "seg_train__b", "seg_test__a", "seg_test__b"),
            "seg_train/ and seg_test/, which hold folders",
        ),
        (("train", "test__a", "test__b", "notes"), "train/ and test/, but no class folders in train/"),
        (("train", "test", "val"), "test/ and train/, but no class folders in test/"),
    ],
)
def test_splits_that_could_be_taken_for_classes_are_refused(tmp_path: Path, folders: tuple[str, ...], told: str) -> None:
    assert told in refused(fill(tmp_path, **dict.fromkeys(folders, 2)))


def test_a_class_that_is_called_train_may_hold_folders(tmp_path: Path) -> None:
    made, lines = heard(fill(tmp_path, train=5, train__more=2, bus=5), val_fraction=0)
    assert (made.class_names, sizes(made), lines) == (("bus", "train"), (10, 0, 2), [])
