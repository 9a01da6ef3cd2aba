"""What each image is called: the way back from a row of results to the file."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.fake_hub import ClassLabel, Image, Library, Part
from data.pictures import load, picture, png
from data.test_shards import samples, shard

from limbeck.data import hub
from limbeck.data.files import called
from limbeck.data.imageset import ImageSet
from limbeck.data.split import Split, encoded

rng = np.random.default_rng(0)


def found(split: Split) -> dict[str | None, bytes]:
    """The pixels of every image by its name."""
    return {split.name(i): image.tobytes() for i, image in enumerate(split.images().permute(0, 2, 3, 1).contiguous().numpy())}


def test_files_by_their_paths_in_the_source(tmp_path: Path) -> None:
    pixels = {}
    for part in ("train", "test"):
        for name in ("猫", "b"):
            for i in range(4):
                inside = f"{part}/{name}/deep/{i}.png"
                pixels[inside] = picture(tmp_path / "set" / inside).tobytes()
    (tmp_path / "set" / "train" / "b" / "bad.png").write_bytes(b"no image")
    made = load(tmp_path / "set", skip_bad=True, val_fraction=0.25, classes=("b", "猫"))
    assert found(made.train) | found(made.val) | found(made.test) == pixels
    assert made.train.take(np.array([3])).name(0) == made.train.name(3)
    assert fingerprint_without_names(made) == made.fingerprint


def fingerprint_without_names(made: ImageSet) -> str:
    train, val, test = (Split(split.storage, split.rows, split.labels) for split in (made.train, made.val, made.test))
    return ImageSet.of(train, val, test, made.class_names, "").fingerprint


def test_members_by_their_shards(tmp_path: Path) -> None:
    shard(tmp_path / "set" / "train" / "0.tar", samples(range(12)))
    shard(tmp_path / "set" / "val" / "0.tar", samples(range(12, 15)))
    made = load(tmp_path / "set", val_fraction=0)
    assert [made.train.name(i) for i in range(12)] == [f"train/0.tar: {i:04}.png" for i in range(12)]
    assert made.test.name(0) == "val/0.tar: 0012.png"


def test_rows_by_their_place_in_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    images = rng.integers(0, 256, (90, 8, 9, 3), dtype=np.uint8)
    held: list[dict[str, Any]] = [{"image": {"bytes": png(images[i]), "path": None}, "label": i % 3} for i in range(90)]
    features = {"image": Image(), "label": ClassLabel(["a", "b", "c"])}
    library = Library({"train": Part(held[:70], features), "test": Part(held[70:], features)})
    monkeypatch.setattr(hub, "_library", lambda: library)
    made = load("hf:x", classes=("c", "a"), val_fraction=0)
    for split, first, part in ((made.train, 0, "train"), (made.test, 70, "test")):
        for name, pixels in found(split).items():
            assert name is not None
            assert name.split()[0] == part
            assert images[first + int(name.split()[1])].tobytes() == pixels


def test_sources_without_files_have_no_names() -> None:
    assert load("scenes", per_class=2, size=16, val_fraction=0).train.name(0) is None


def test_names_that_are_no_text() -> None:
    names = encoded(["caf\udce9", "", "猫"])
    assert [names.of(row) for row in range(3)] == ["caf\\udce9", "", "猫"]
    assert called(Path("/a/b.png"), Path("/c")) == "/a/b.png"
    assert called(Path("/a/b.png"), None) == "/a/b.png"


def test_one_long_name_makes_no_room_for_others() -> None:
    given = ["a", "b" * 10**6, *map(str, range(10**5))]
    names = encoded(given)
    assert len(pickle.dumps(names)) < 4 * 10**6
    assert [names.of(row) for row in (0, 1, 2, 10**5 + 1)] == ["a", "b" * 10**6, "0", "99999"]
