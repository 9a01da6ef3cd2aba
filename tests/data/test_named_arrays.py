"""Arrays that are called as the field calls them, in .npz files, folders of .npy files and dictionaries."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.pictures import Said, load, refused
from sklearn.datasets import load_digits

from limbeck.data.imageset import ImageSet, load_object
from limbeck.data.load import load_data
from limbeck.data.named_arrays import role
from limbeck.data.settings import DataSettings
from limbeck.runtime.disk import in_words

rng = np.random.default_rng(0)
X = rng.integers(0, 256, (30, 9, 8), dtype=np.uint8)
Y = np.arange(30, dtype=np.uint8)[:, None] % 3


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


@pytest.mark.parametrize(
    ("name", "part", "kind"),
    [
        ("x_train", "train", "images"),
        ("X_train", "train", "images"),
        ("Xtrain", "train", "images"),
        ("trainX", "train", "images"),
        ("train_images", "train", "images"),
        ("images_training", "train", "images"),
        ("valid_labels", "val", "labels"),
        ("yval", "val", "labels"),
        ("y_validation", "val", "labels"),
        ("test_targets", "test", "labels"),
        ("TestData", "test", "images"),
        ("data", "", "images"),
        ("target", "", "labels"),
        ("images", "", "images"),
        ("train", "", ""),
        ("fine_labels", "", ""),
        ("arr_0", "", ""),
        ("", "", ""),
    ],
)
def test_what_names_mean(name: str, part: str, kind: str) -> None:
    assert role(name, DataSettings()) == (part, kind)


def test_all_names_of_the_same_arrays_give_the_same_set(tmp_path: Path) -> None:
    expected = ImageSet.from_arrays(X[:20], Y[:20], X[20:], Y[20:]).fingerprint
    for form in ("x_train y_train x_test y_test", "train_images train_labels test_images test_labels", "data label x_test y_test"):
        named = dict(zip(form.split(), (X[:20], Y[:20], X[20:], Y[20:]), strict=True))
        assert load(saved(tmp_path, **named)).fingerprint == expected
        assert load_object(named, DataSettings()).fingerprint == expected
        folder = tmp_path / form.split()[0]
        folder.mkdir()
        for name, array in named.items():
            np.save(folder / f"{name}.npy", array)
        assert load(folder).fingerprint == expected
    assert load_object(((X[:20], Y[:20]), (X[20:], Y[20:])), DataSettings()).fingerprint == expected
    assert load_object([[X[:20], Y[:20]], [X[20:], Y[20:]]], DataSettings()).fingerprint == expected


def test_bytes_in_npy_files_stay_on_the_disk(tmp_path: Path) -> None:
    named = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
    for name, array in named.items():
        np.save(tmp_path / f"{name}.npy", array)
    archive = saved(tmp_path, **named)
    for chosen in (None, (2, 0)):
        made, same = (load(source, classes=chosen) for source in (tmp_path, archive))
        assert isinstance(made.train.storage, np.memmap)
        assert made.class_names == same.class_names
        for split, other in ((made.train, same.train), (made.val, same.val), (made.test, same.test)):
            np.testing.assert_array_equal(split.images(), other.images())
            np.testing.assert_array_equal(split.labels, other.labels)
    made, same = (load(source, classes=(2, 0), size=8) for source in (tmp_path, archive))
    assert made.fingerprint == same.fingerprint


@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_what_npy_files_hold_in_wider_numbers_needs_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    wide = (X / 255 if kind is np.float32 else X).astype(kind)
    for name, array in {"x_train": wide, "y_train": Y, "x_test": X, "y_test": Y}.items():
        np.save(tmp_path / f"{name}.npy", array)
    monkeypatch.setattr("limbeck.data.arrays.free_memory", lambda device: X.size - 1)
    said = refused(tmp_path)
    assert f"holds x_train with shape {(len(X), 1, *X.shape[1:])}, which needs {in_words(X.size)} of memory, where" in said
    assert said.endswith(" are free; uint8 in a folder of .npy files stays on the disk")


def test_validation_images_are_validated_on_and_tested_on_where_there_are_no_others(tmp_path: Path) -> None:
    named = {"train_images": X[:20], "train_labels": Y[:20], "val_images": X[20:26], "val_labels": Y[20:26]}
    made = load(saved(tmp_path, **named))
    assert (len(made.train), len(made.val), len(made.test)) == (17, 3, 6)
    np.testing.assert_array_equal(made.test.images()[:, 0], X[20:26])
    made = load(saved(tmp_path, **named, test_images=X[26:], test_labels=Y[26:]))
    assert (len(made.train), len(made.val), len(made.test)) == (20, 6, 4)
    np.testing.assert_array_equal(made.val.images()[:, 0], X[20:26])


def test_images_without_labels_are_left_out_and_said(tmp_path: Path) -> None:
    said = Said()
    source = saved(tmp_path, x_train=X, y_train=Y, x_val=X[:6], y_val=Y[:6], x_test=X[:3])
    assert len(load_data(DataSettings(source=str(source)), said).test) == 6
    assert said.lines == [f"{source}: x_test is left out, for it has no labels"]


def test_what_has_no_split_is_divided(tmp_path: Path) -> None:
    made = load(saved(tmp_path, data=X, targets=Y), val_fraction=0)
    assert (len(made.train), len(made.test)) == (24, 6)
    digits = load_digits()  # the same images in rows beside them
    made = load_object(digits, DataSettings(range=16))
    assert made.shape == (1, 8, 8)
    assert np.isin(made.train.images(), np.rint(np.arange(17) / 16 * 255)).all()


def test_labels_from_one_are_counted_from_nought_and_noted(tmp_path: Path) -> None:
    said = Said()
    source = saved(tmp_path, x_train=X[:20], y_train=Y[:20] + 1, x_test=X[20:], y_test=Y[20:] + 1)
    made = load_data(DataSettings(source=str(source), val_fraction=0), said)
    assert made.class_names == ("1", "2", "3")
    np.testing.assert_array_equal(made.train.labels, Y[:20, 0])
    np.testing.assert_array_equal(made.test.labels, Y[20:, 0])
    assert said.lines == [f"note: {source}: labels count from 1 to 3: 1 is class 0"]
    named = load(saved(tmp_path, x_train=X, y_train=Y + 1, x_test=X, y_test=Y + 1, class_names=np.array(["a", "b", "c"])))
    assert named.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(named.test.labels, Y[:, 0])


def test_labels_that_only_seem_to_count_from_one(tmp_path: Path) -> None:
    mixed = refused(saved(tmp_path, x_train=X, y_train=Y + 1, x_test=X, y_test=Y))
    assert "holds y_train without a training image of class 0" in mixed
    more = refused(saved(tmp_path, x_train=X, y_train=Y + 1, x_test=X, y_test=Y + 2))
    assert "holds y_train without a training image of class 0" in more
    names = np.array(["a", "b", "c", "d"])
    assert "class 0 ('a')" in refused(saved(tmp_path, x_train=X, y_train=Y + 1, x_test=X, y_test=Y + 1, class_names=names))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": X, "arr_1": Y}, "lacks images and labels; it holds arr_0 30×9×8 uint8, arr_1 30×1 uint8; x_train and y_train,"),
        ({"a": np.float32(3)}, "it holds a one float32;"),
        ({f"a{i}": X for i in range(14)}, "a11 30×9×8 uint8 and 2 more;"),
        ({"train_images": X}, "lacks labels to train on; it holds train_images 30×9×8 uint8;"),
        ({"train_images": X, "train_labels": Y}, "lacks test_images, test_labels; it holds"),
        ({"x_test": X, "y_test": Y}, "lacks images and labels to train on"),
        ({"images": X, "img": X, "y": Y}, "has images and img, which could both be the images; data.image_field=img takes one"),
    ],
)
def test_a_message_names_what_there_is(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    assert message in refused(saved(tmp_path, **arrays))


def test_the_ways_that_messages_name(tmp_path: Path) -> None:
    expected = load(saved(tmp_path, data=X, label=Y)).fingerprint
    assert load(saved(tmp_path, arr_0=X, arr_1=Y), image_field="arr_0", label_field="arr_1").fingerprint == expected
    assert load(saved(tmp_path, images=X, img=X[::-1], y=Y), image_field="images").fingerprint == expected
    (tmp_path / "single").mkdir()
    for name, array in {"pics": X, "kinds": Y}.items():
        np.save(tmp_path / "single" / f"{name}.npy", array)
    assert load(tmp_path / "single", image_field="pics", label_field="kinds").fingerprint == expected
    coarse = Y // 3
    two = load(saved(tmp_path, x_train=X, train_coarse=coarse + Y, train_y=coarse, x_test=X, test_coarse=Y), label_field="coarse")
    np.testing.assert_array_equal(two.test.labels, Y[:, 0])


def test_a_lone_array_says_what_is_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    assert "is one array, images or labels; its folder is accepted, where x_train.npy," in refused(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.array([{}]))
    assert "y.npy" in refused(tmp_path)
    (tmp_path / "y.npy").write_bytes(b"")
    assert refused(tmp_path) == f"data.source: '{tmp_path}' holds y as something else than an array"
