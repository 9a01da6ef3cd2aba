import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from data.pictures import fill, load, picture, refused
from PIL import Image

from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError


def test_one_folder_is_split_class_by_class(tmp_path: Path) -> None:
    made = load(fill(tmp_path, cat=20, ant=5, bee=1, dog=2), val_fraction=0.25)
    assert made.class_names == ("ant", "bee", "cat", "dog")
    counts = [np.bincount(split.labels, minlength=4).tolist() for split in (made.train, made.val, made.test)]
    assert counts == [[3, 1, 12, 1], [1, 0, 4, 0], [1, 0, 4, 1]]
    assert not set(made.train.rows) & set(made.test.rows)
    other = load(tmp_path, val_fraction=0.25, seed=1)
    assert other.fingerprint != made.fingerprint
    assert load(tmp_path, val_fraction=0.25).fingerprint == made.fingerprint


def test_every_image_keeps_its_label(tmp_path: Path) -> None:
    root = tmp_path / "set"
    pixels = {}
    for part, count in (("train", 9), ("test", 4)):
        for label, name in enumerate(("a", "b", "c")):
            for i in range(count + label):
                pixels[picture(root / part / name / f"{i}.png").tobytes()] = (part, label)
    (root / "train" / "a" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    made = load(root, workers=3)
    assert (len(made.train) + len(made.val), len(made.test), made.shape) == (30, 15, (3, 10, 12))
    for split, part in ((made.train, "train"), (made.val, "train"), (made.test, "test")):
        found = split.images().permute(0, 2, 3, 1).contiguous().numpy()
        assert [pixels[image.tobytes()] for image in found] == [(part, label) for label in split.labels]


@pytest.mark.parametrize("name", ["test", "val"])
def test_either_name_is_the_test_split(tmp_path: Path, name: str) -> None:
    made = load(fill(tmp_path, train__a=4, train__b=4, **{f"{name}__a": 1, f"{name}__b": 2}))
    assert (len(made.train), len(made.val), len(made.test)) == (6, 2, 3)


def test_own_val_is_validated_on(tmp_path: Path) -> None:
    made = load(fill(tmp_path, train__a=4, train__b=4, val__a=1, val__b=2, test__a=2, test__b=3), per_class=3)
    assert (len(made.train), len(made.val), len(made.test)) == (6, 3, 5)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load(fill(tmp_path, train=5, bus=5)).class_names == ("bus", "train")


def test_images_may_lie_deeper(tmp_path: Path) -> None:
    made = load(fill(tmp_path, train__a__images=5, train__b__images=5, val__a=2, val__b=2))
    assert (len(made.train), len(made.val), len(made.test)) == (8, 2, 4)


def test_per_class_decodes_no_more_than_it_needs(tmp_path: Path) -> None:
    made = load(fill(tmp_path, train__a=30, train__b=4, test__a=3, test__b=3), per_class=5)
    assert np.bincount(np.concatenate([made.train.labels, made.val.labels])).tolist() == [5, 4]
    assert len(made.train.storage) == 15


def test_size_squashes(tmp_path: Path) -> None:
    fill(tmp_path, a=4, b=4)
    pixels = picture(tmp_path / "a" / "000.png", 33, 21)
    made = load(tmp_path, size=(16, 24))
    assert made.shape == (3, 16, 24)
    expected = np.asarray(Image.fromarray(pixels).resize((24, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert any(np.array_equal(image, expected) for image in made.train.storage)
    assert load(tmp_path, size=8).shape == (3, 8, 8)


def test_all_grey_is_one_channel_and_one_colour_image_makes_three(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(3):
            picture(tmp_path / name / f"{i}.png", mode="L")
    grey = load(tmp_path)
    assert grey.shape == (1, 10, 12)
    picture(tmp_path / "a" / "9.png")
    mixed = load(tmp_path)
    assert mixed.shape == (3, 10, 12)
    images = mixed.train.storage.astype(int)
    assert sum(bool((image == image[:1]).all()) for image in images) == 6


def test_mixed_sizes_need_data_size(tmp_path: Path) -> None:
    picture(fill(tmp_path, a=3, b=3) / "b" / "odd.png", 8, 9)
    message = refused(tmp_path)
    assert message.startswith("data.size: None does not bring images of several sizes together (")
    assert "b/odd.png' 8×9); give [height, width]" in message
    assert load(tmp_path, size=9).shape == (3, 9, 9)


def test_errors_of_the_layout(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    names = "scenes, scenes:easy|medium|hard, imagenet, imagenet:SUBSET, hf:NAME, package.module:Name"
    accepted = f"{names}, a folder of images and an .npz, .tar, .parquet or .csv file are accepted"
    assert refused(nothing) == f"data.source: '{nothing}' is not there; {accepted}"
    nothing.mkdir()
    assert refused(nothing) == f"data.source: '{nothing}' has no class folders"
    (tmp_path / "x.zip").write_bytes(b"")
    assert refused(tmp_path / "x.zip") == f"data.source: '{tmp_path / 'x.zip'}' is another kind of file; {accepted}"
    with pytest.raises(UsageError, match="data.source: '' is not there"):
        load_data(DataSettings(source=""))
    one = fill(tmp_path / "one", cats=3)
    assert refused(one) == f"data.source: '{one}' has one class folder, 'cats'; at least two classes are needed"
    (one / "dogs").mkdir()
    assert refused(one) == f"data.source: the class folder '{one / 'dogs'}' holds no images"
    alone = fill(tmp_path / "alone", train__a=2, train__b=2)
    assert refused(alone) == f"data.source: '{alone}' has train/ but neither test/ nor val/ beside it"
    fill(alone, test__a=1)
    assert refused(alone) == f"data.source: '{alone}' has the class 'b' in train/ but not in test/"
    fill(alone, test__b=1, test__c=1)
    assert refused(alone) == f"data.source: '{alone}' has the class 'c' in test/ but not in train/"
    single = fill(tmp_path / "single", a=1, b=1)
    assert refused(single) == f"data.source: '{single}' has one image in every class: none can be spared to test on"
    pair = fill(tmp_path / "pair", a=2, b=1)
    spared = "none can be spared to validate on; data.val_fraction=0 does without"
    assert refused(pair) == f"data.source: '{pair}' has one training image in every class: {spared}"


def test_a_class_name_that_no_file_can_hold_is_refused_at_once(tmp_path: Path, cache: Path) -> None:
    root = fill(tmp_path / "set", a=2, b=2)
    os.rename(root / "b", os.fsencode(root) + b"/caf\xe9")
    assert refused(root) == f"data.source: '{root}' has the class folder 'caf\\udce9', whose name is not UTF-8; rename it"
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("deeper", [False, True])
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deeper: bool
) -> None:
    root = fill(tmp_path, a=2, b=2, b__more=1)
    closed = str(root / "b" / "more" if deeper else root / "b")
    scandir = os.scandir

    def refusing(path: str | int) -> object:  # the tests may run as root, to whom no folder is closed
        if not isinstance(path, int) and os.fspath(path) == closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert refused(root) == f"data.source: cannot read the folder '{closed}': Permission denied"


def test_class_names_of_any_script_and_case(tmp_path: Path) -> None:
    names = ["Cat", "cat", "кошка", "猫", "قطة", "🐈", "a b", "ñandú", "İstanbul"]
    for name in names:
        fill(tmp_path / "set", **{f"train__{name}": 2, f"test__{name}": 1})
    made = load(tmp_path / "set", val_fraction=0)
    assert made.class_names == tuple(sorted(names))
    assert np.bincount(made.train.labels).tolist() == [2] * len(names)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("Cat", "cat"), (unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"))]
)
def test_class_names_that_only_look_alike_are_told_apart(tmp_path: Path, ours: str, theirs: str) -> None:
    fill(tmp_path, **{f"train__{ours}": 2, "train__x": 2, f"test__{theirs}": 1, "test__x": 1})
    message = refused(tmp_path)
    assert message.startswith(f"data.source: '{tmp_path}' has the class ")
    assert message.endswith(": the names must agree to the letter")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", a=3, more=2)
    root = fill(tmp_path / "set", b=2)
    (root / "a").symlink_to(store / "a")
    (root / "b" / "more").symlink_to(store / "more")
    (root / "b" / "again").symlink_to(store / "more")
    (root / "b" / "round").symlink_to(root / "b")
    (root / "b" / "up").symlink_to(root)
    picture(store / "one.png")
    (root / "b" / "linked.png").symlink_to(store / "one.png")
    made = load(root, val_fraction=0)
    counts = [np.bincount(split.labels, minlength=2).tolist() for split in (made.train, made.test)]
    assert np.sum(counts, axis=0).tolist() == [3, 2 + 2 + 1]


def test_suffixes_of_any_case_and_what_is_no_image(tmp_path: Path) -> None:
    root = fill(tmp_path, a=3, b=3)
    (root / "a" / "000.png").rename(root / "a" / "000.PNG")
    (root / "a" / "001.png").rename(root / "a" / "001.JPEG")  # of ImageNet's JPEGs one is a PNG
    for name in ("._000.png", "Thumbs.db", "notes.txt", "README"):
        (root / "a" / name).write_text("no image")
    made = load(root, val_fraction=0)
    assert len(made.train) + len(made.test) == 6


def test_one_image_per_class_is_enough_without_validation(tmp_path: Path) -> None:
    root = fill(tmp_path, train__a=1, train__b=1, test__a=1, test__b=1)
    made = load(root, val_fraction=0)
    assert (made.train.labels.tolist(), len(made.val), made.test.labels.tolist()) == ([0, 1], 0, [0, 1])
    assert made.val.images().shape == (0, 3, 10, 12)


def test_classes_are_chosen_by_index_name_and_wordnet_id(tmp_path: Path) -> None:
    root = fill(tmp_path, train__n01440764=3, train__cat=4, train__dog=5, test__n01440764=1, test__cat=2, test__dog=3)
    made = load(root, classes=("tench", 0), val_fraction=0)
    assert made.class_names == ("n01440764", "cat")
    assert np.bincount(made.train.labels).tolist() == [3, 4]
    assert np.bincount(made.test.labels).tolist() == [1, 2]
    assert load(root, classes=("n01440764", "cat"), val_fraction=0).fingerprint == made.fingerprint
    swapped = load(root, classes=("cat", "tench"), val_fraction=0)
    assert swapped.class_names == ("cat", "n01440764")
    assert np.bincount(swapped.train.labels).tolist() == [4, 3]
    assert refused(root, classes=("cat", "dgo")) == f"data.classes: 'dgo' is not a class of '{root}'; did you mean 'dog'?"


def test_a_centre_crop_keeps_the_aspect_ratio(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(2):
            pixels = picture(tmp_path / name / f"{i}.png", 20, 40)
    made = load(tmp_path, size=10, crop="centre", val_fraction=0)
    expected = np.asarray(Image.fromarray(pixels).resize((20, 10), Image.Resampling.BILINEAR))[:, 5:15].transpose(2, 0, 1)
    assert any(np.array_equal(image, expected) for image in made.train.storage)
    assert load(tmp_path, size=10, val_fraction=0).fingerprint != made.fingerprint


def test_an_archive_or_a_table_beside_class_folders_is_not_the_source(tmp_path: Path) -> None:
    root = fill(tmp_path, a=3, b=3)
    (root / "original.tar").write_bytes(b"")
    (root / "metadata.parquet").write_bytes(b"")
    assert load(root).class_names == ("a", "b")
