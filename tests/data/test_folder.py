import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limbeck.data import image_cache
from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError

rng = np.random.default_rng(0)


def picture(path: Path, height: int = 10, width: int = 12, mode: str = "RGB") -> np.ndarray:
    """A random image, written losslessly; its pixels are returned."""
    pixels = rng.integers(0, 256, (height, width, 3) if mode == "RGB" else (height, width), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def fill(root: Path, **counts: int) -> Path:
    """Folders (`a__b` is a/b) with that many images each."""
    for name, count in counts.items():
        for i in range(count):
            picture(root / name.replace("__", "/") / f"{i:03}.png")
    return root


def load(root: Path, **keys: object) -> ImageSet:
    return load_data(DataSettings(source=str(root), **{"workers": 1} | keys))


def refused(root: Path, **keys: object) -> str:
    with pytest.raises(UsageError) as caught:
        load(root, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    accepted = "scenes, scenes:easy|medium|hard, a folder of images and an .npz file are accepted"
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
    assert refused(pair) == f"data.source: '{pair}' has one training image in every class: none can be spared to validate on"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_image_is_named_and_nothing_is_left(tmp_path: Path, cache: Path, workers: int) -> None:
    root = fill(tmp_path, a=70, b=70)
    broken = root / "b" / "001.png"
    whole = broken.read_bytes()
    for damage, reason in ((b"no image", "it holds no image of a known format"), (whole[: len(whole) // 2], "truncated")):
        broken.write_bytes(damage)
        message = refused(root, workers=workers)
        assert message.startswith(f"data.source: cannot read the image '{broken}': ")
        assert reason in message
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    broken.unlink()
    broken.symlink_to(root / "gone.png")
    assert refused(root) == f"data.source: cannot read the image '{broken}': No such file or directory"


def test_the_cache_is_used_again_and_follows_the_files(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "set", a=5, b=5)
    decoded = []
    original = image_cache.decode_into
    monkeypatch.setattr(
        image_cache, "decode_into", lambda storage, piece: decoded.append(len(piece[1])) or original(storage, piece)
    )
    first = load(root)
    assert isinstance(first.train.storage, np.memmap)
    assert not first.train.storage.flags.writeable
    again = load(root)
    assert decoded == [10]
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.train.images(), first.train.images())

    load(root, size=8)
    assert decoded == [10, 10]  # another size is another array
    shutil.copytree(root, tmp_path / "copy")
    assert load(tmp_path / "copy").fingerprint == first.fingerprint  # the fingerprint is of the content, wherever it lies
    assert decoded == [10] * 3

    state = (root / "a" / "000.png").stat()
    os.utime(root / "a" / "000.png", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert load(root).fingerprint == first.fingerprint
    picture(root / "a" / "000.png")
    assert load(root).fingerprint != first.fingerprint
    assert decoded == [10] * 5


def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache: Path) -> None:
    root = fill(tmp_path / "set", a=5, b=5)
    first = load(root)
    before = first.test.images()
    (storage,) = cache.rglob("images.npy")
    for damage in (storage.read_bytes()[:-50], b""):
        storage.write_bytes(damage)
        again = load(root)
        assert again.fingerprint == first.fingerprint
        np.testing.assert_array_equal(again.test.images(), before)
    (storage.parent / "content.json").unlink()
    assert load(root).fingerprint == first.fingerprint


def test_several_processes_decode_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "set", a=150, b=10)
    alone = load(root, workers=1)
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "other"))
    assert load(root, workers=3).fingerprint == alone.fingerprint


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

    def refusing(path: str) -> object:  # the tests may run as root, to whom no folder is closed
        if os.fspath(path) == closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert refused(root) == f"data.source: cannot read the folder '{closed}': Permission denied"


def test_a_cache_of_another_shape_is_made_anew(tmp_path: Path, cache: Path) -> None:
    root = fill(tmp_path / "set", a=5, b=5)
    before = load(root).test.images()
    (storage,) = cache.rglob("images.npy")
    for foreign in (np.zeros((10, 3)), np.zeros((10, 3, 10, 12))):
        np.save(storage, foreign)
        np.testing.assert_array_equal(load(root).test.images(), before)
