"""Hugging Face datasets: on a stand-in for the library everywhere, and on the library itself where it is installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.fake_hub import ClassLabel, Image, Library, Part
from data.pictures import Said, load, png, refused

from limbeck.data import hub
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import Failure

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (120, 8, 9, 3), dtype=np.uint8)
LABELS = np.arange(120) % 3
NAMES = ["ant", "bee", "猫"]


def rows(begin: int, end: int, **columns: Callable[[int], Any]) -> list[dict[str, Any]]:
    """Rows of images and classes, with more columns or others."""
    made = []
    for i in range(begin, end):
        row: dict[str, Any] = {"image": {"bytes": png(IMAGES[i]), "path": None}, "label": int(LABELS[i])}
        made.append(row | {name: value(i) for name, value in columns.items()})
    return made


def library(**changes: Any) -> Library:
    features = {"image": Image(), "label": ClassLabel(NAMES)}
    parts = {"train": Part(rows(0, 90), features), "test": Part(rows(90, 120), features)}
    return Library(**{"parts": parts} | changes)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Library], Library]:
    """Makes the stand-in what is imported."""

    def make(made: Library) -> Library:
        monkeypatch.setattr(hub, "_library", lambda: made)
        return made

    return make


Install = Callable[[Library], Library]


def test_a_dataset_by_name(install: Install) -> None:
    made_of = install(library())
    made = load("hf:user/name:config", val_fraction=0)
    assert made_of.calls == [("user/name", "config")]
    assert made.class_names == tuple(NAMES)
    np.testing.assert_array_equal(made.train.images(), IMAGES[:90].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(made.test.images(), IMAGES[90:].transpose(0, 3, 1, 2))
    assert made.train.labels.tolist() == LABELS[:90].tolist()


def test_columns_that_are_called_otherwise_are_named(install: Install) -> None:
    whole = load("hf:x", val_fraction=0) if install(library()) else None
    held = [
        {"scan": row["image"], "grade": row["label"], "label": 0, "image": {"bytes": png(IMAGES[0]), "path": None}}
        for row in rows(0, 90)
    ]
    other = [
        {"scan": row["image"], "grade": row["label"], "label": 0, "image": {"bytes": b"", "path": None}} for row in rows(90, 120)
    ]
    install(Library(parts={"train": Part(held, None), "test": Part(other, None)}))
    made = load("hf:y", val_fraction=0, image_field="scan", label_field="grade")
    assert whole is not None
    np.testing.assert_array_equal(made.test.images(), whole.test.images())
    np.testing.assert_array_equal(made.train.labels, whole.train.labels)
    assert refused("hf:y", label_field="x") == (
        "data.label_field: 'x' is not a column of 'hf:y', which has scan, grade, label, image"
    )


def test_a_second_run_streams_nothing_and_a_new_version_everything(install: Install) -> None:
    first = install(library())
    before = load("hf:x")
    for part in first.parts.values():
        part.asked.clear()
    assert load("hf:x").fingerprint == before.fingerprint
    assert sum(len(part.asked) for part in first.parts.values()) <= 4  # the first rows, for columns and labels
    install(library(hash="newer")).parts["train"].rows[0]["image"]["bytes"] = png(IMAGES[1])
    assert load("hf:x").fingerprint != before.fingerprint


def test_offline_what_was_decoded_before_is_taken(install: Install) -> None:
    install(library())
    before = load("hf:x", classes=(1, "ant"))
    install(library(error=ConnectionError("Couldn't reach 'x' on the Hub")))
    said = Said()
    again = load_data(DataSettings(source="hf:x", classes=(1, "ant"), workers=1), said)
    assert again.fingerprint == before.fingerprint
    assert "hf:x: the Hub cannot be reached; taking the images that were decoded before" in said.lines
    with pytest.raises(Failure, match="'hf:x' has not been decoded at this size yet, and the Hub cannot be reached"):
        load("hf:x", classes=(1, "ant"), size=16)
    assert refused("hf:y") == "data.source: 'hf:y' cannot be opened: Couldn't reach 'x' on the Hub"


def test_only_the_chosen_classes_are_decoded(install: Install, cache: Path) -> None:
    install(library())
    made = load("hf:x", classes=("猫", 0), val_fraction=0)
    assert made.class_names == ("猫", "ant")
    kept = np.flatnonzero(LABELS[:90] != 1)
    np.testing.assert_array_equal(made.train.images(), IMAGES[kept].transpose(0, 3, 1, 2))
    assert made.train.labels.tolist() == [{2: 0, 0: 1}[k] for k in LABELS[kept].tolist()]
    assert len(made.train.storage) == 80


def test_a_test_split_without_the_chosen_classes_is_not_replaced(install: Install) -> None:
    made_of = install(library())
    made_of.parts["test"] = Part(rows(90, 120, label=lambda i: 1), made_of.parts["train"].features)
    assert refused("hf:x", classes=("ant", 2)) == "data.source: 'hf:x' has no image of the chosen classes to test on"


def test_a_stream_that_breaks_off_is_gone_on_with(install: Install) -> None:
    broken = library()
    sound = broken.parts["train"].rows[80]
    broken.parts["train"].rows[80] = OSError("reset by peer")  # type: ignore[call-overload]
    install(broken)
    with pytest.raises(Failure, match=r"the stream of 'hf:x' broke off \(reset by peer\); what has arrived is kept: run it again"):
        load("hf:x")
    broken.parts["train"].rows[80] = sound
    broken.parts["train"].asked.clear()
    made = load("hf:x", val_fraction=0)
    assert [i for i in broken.parts["train"].asked if i > 1] == list(range(64, 90))
    np.testing.assert_array_equal(made.train.images(), IMAGES[:90].transpose(0, 3, 1, 2))


def test_test_rows_without_labels_leave_the_task_to_validation(install: Install) -> None:
    made_of = library()
    features = made_of.parts["train"].features
    made_of.parts["test"] = Part(rows(90, 100, label=lambda i: -1), features)
    made_of.parts["validation"] = Part(rows(100, 120), features)
    install(made_of)
    made = load("hf:x")
    assert (len(made.train) + len(made.val), len(made.test)) == (90, 20)
    made_of.parts["test"] = Part(rows(90, 100), features)
    made_of.hash = "labelled"
    made = load("hf:x")
    assert (len(made.train), len(made.val), len(made.test)) == (90, 20, 10)


@pytest.mark.parametrize(
    ("columns", "features", "names"),
    [
        ({"label": lambda i: NAMES[i % 3]}, None, ("ant", "bee", "猫")),
        ({"label": lambda i: [4, 7, 10][i % 3]}, None, ("4", "7", "10")),
        ({"label": lambda i: {"label": i % 3, "width": 9}}, None, ("0", "1", "2")),
        ({"image": lambda i: png(IMAGES[i])}, None, ("0", "1", "2")),
        ({"coarse_label": lambda i: 0, "fine_label": lambda i: i % 3}, "cifar100", ("ant", "bee", "猫")),
    ],
)
def test_columns_of_other_kinds(install: Install, columns: dict[str, Any], features: Any, names: tuple[str, ...]) -> None:
    held = rows(0, 120, **columns)
    if features == "cifar100":
        held = [{"img": row["image"], "coarse_label": 0, "fine_label": row["fine_label"]} for row in held]
        features = {"img": Image(), "coarse_label": ClassLabel(["thing", "stuff"]), "fine_label": ClassLabel(NAMES)}
    install(library(parts={"train": Part(held, features)}))
    made = load("hf:x", val_fraction=0)
    assert made.class_names == names
    expected = LABELS[made.train.rows].tolist()
    assert made.train.labels.tolist() == expected


def test_images_that_lie_elsewhere_are_fetched(install: Install, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")

    def lying(i: int) -> dict[str, Any]:
        (tmp_path / f"{i}.png").write_bytes(png(IMAGES[i]))
        return {"bytes": None, "path": str(tmp_path / f"{i}.png")}

    install(library(parts={"train": Part(rows(0, 30, image=lying), None)}))
    assert len(load("hf:x", val_fraction=0).train) == 24


def test_imagenet_from_the_hub(install: Install) -> None:
    labels = [953, 954, 0, 949]
    held = rows(0, 40, label=lambda i: labels[i % 4])
    features = {"image": Image(), "label": ClassLabel([f"class {k}" for k in range(1000)])}
    install(library(parts={"train": Part(held, features), "validation": Part(held[:8], features)}))
    keys = {"root": "hf:ILSVRC/imagenet-1k", "val_fraction": 0}
    made = load("imagenet:imagefruit", classes=("banana", "n07753275"), **keys)
    assert made.class_names == ("banana", "pineapple")
    assert np.bincount(made.train.labels).tolist() == [10, 10]
    np.testing.assert_array_equal(made.train.images(made.train.of_class(1))[0], IMAGES[0].transpose(2, 0, 1))
    assert refused("imagenet:imagefruit", **keys).endswith("has no training image that can be read of class 3 ('orange')")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"a": Part(rows(0, 3), None), "b": Part(rows(0, 3), None)}, "has the splits a, b, and none is called train"),
        ({"train": Part([], None)}, "has no rows to train on"),
        ({"train": Part([{"text": "x", "label": 0}], None)}, "has no column of images; its columns are text, label"),
        ({"train": Part([{"image": b"x", "caption": "x"}], None)}, "has no column of classes; its columns are image, caption"),
        ({"train": Part(rows(0, 9, label=lambda i: -1), None)}, "has no labels in its training rows"),
        ({"train": Part(rows(0, 9, label=lambda i: 0), None)}, "has one class, '0'; at least two are needed"),
        ({"train": Part(rows(0, 9, label=lambda i: i if i < 5 else 2.5), None)}, "has the label 2.5; whole numbers and text"),
        ({"train": Part(rows(0, 9, image=lambda i: {"bytes": None, "path": ""}), None)}, "holds dict, not image files"),
        ({"train": Part(rows(0, 9, image=lambda i: {"bytes": None, "path": None}), None)}, "('train 0': its image is null)"),
        ({"train": Part(rows(0, 9), {"image": Image(), "label": ClassLabel(["a", "b"])})}, "has labels from 0 to 2 for 2 classes"),
    ],
)
def test_refusals(install: Install, parts: dict[str, Part], told: str) -> None:
    install(library(parts=parts))
    assert told in refused("hf:x")


NULL_IMAGE, NULL_LABEL = (0, 7, 95), (20, 21, 90)


@pytest.mark.parametrize("features", [{"image": Image(), "label": ClassLabel(NAMES)}, None])
def test_rows_with_nulls_are_listed_and_may_be_skipped(install: Install, features: Any) -> None:
    held = rows(0, 120)
    for i in NULL_IMAGE:
        held[i]["image"] = None if i else {"bytes": None, "path": None}
    for i in NULL_LABEL:
        held[i]["label"] = None
    install(library(parts={"train": Part(held[:90], features), "test": Part(held[90:], features)}))
    message = refused("hf:x")
    assert message.startswith(
        "data.source: cannot read 6 of 120 images ('train 0': its image is null; 'train 7': its image is null; "
    )
    assert "'train 20': its label is null" in message
    made = load("hf:x", skip_bad=True, val_fraction=0)
    for split, first, end in ((made.train, 0, 90), (made.test, 90, 120)):
        kept = [i for i in range(first, end) if i not in (*NULL_IMAGE, *NULL_LABEL)]
        np.testing.assert_array_equal(split.images(), IMAGES[kept].transpose(0, 3, 1, 2))
        assert split.labels.tolist() == LABELS[kept].tolist()


def test_nulls_among_chosen_classes(install: Install) -> None:
    held = rows(0, 40, label=lambda i: [953, 0, None, 949][i % 4])
    features = {"image": Image(), "label": ClassLabel([f"class {k}" for k in range(1000)])}
    install(library(parts={"train": Part(held, features), "validation": Part(held[:8], features)}))
    keys = {"root": "hf:ILSVRC/imagenet-1k", "val_fraction": 0, "classes": ("strawberry", "pineapple"), "skip_bad": True}
    made = load("imagenet:imagefruit", **keys)
    assert np.bincount(made.train.labels).tolist() == [10, 10]
    np.testing.assert_array_equal(made.train.images(made.train.of_class(1))[1], IMAGES[4].transpose(2, 0, 1))


def test_a_configuration_that_is_missing_is_asked_for(install: Install) -> None:
    install(library(error=ValueError("Config name is missing.\nPlease pick one among the available configs: ['a', 'b']")))
    assert refused("hf:user/x").endswith("available configs: ['a', 'b']; hf:user/x:CONFIG chooses one")


def converted(root: Path, *configs: str) -> Path:
    """Empty files, laid out as the Hub converts datasets."""
    for config in configs:
        for split in ("train", "test"):
            (root / config / split).mkdir(parents=True)
            for number in range(2):
                (root / config / split / f"{number:04}.parquet").write_bytes(b"")
    return root


def test_the_layout_of_the_hubs_conversion(install: Install, tmp_path: Path) -> None:
    made_of = install(library())
    root = converted(tmp_path / "one", "default")
    assert len(load(root, val_fraction=0).train) == 90
    files = {split: [str(root / "default" / split / f"{number:04}.parquet") for number in range(2)] for split in ("test", "train")}
    assert made_of.calls == [("parquet", ("data_files", files))]
    root = converted(tmp_path / "two", "large", "small")
    assert refused(root) == f"data.source: '{root}' has the configurations large, small; hf:{root}:large takes one of them"
    load(f"hf:{root}:small")
    assert made_of.calls[-1][1][1]["train"][0] == str(root / "small" / "train" / "0000.parquet")
    assert (
        refused(f"hf:{root}:tiny") == f"data.source: 'hf:{root}:tiny' names the configuration 'tiny', where there are large, small"
    )


def test_what_the_library_cannot_open_is_one_line(install: Install) -> None:
    install(library(error=FileNotFoundError("Dataset 'x' doesn't exist on the Hub\nor cannot be accessed.")))
    message = "Dataset 'x' doesn't exist on the Hub or cannot be accessed."
    assert refused("hf:x") == f"data.source: 'hf:x' cannot be opened as a Hugging Face dataset: {message}"


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(hub, "import_module", absent)
    message = "data.source: Hugging Face datasets and parquet files need the extra hub: pip install 'limbeck[hub]'"
    assert refused("hf:x") == message


def test_local_paths(install: Install, tmp_path: Path) -> None:
    made_of = install(library())
    (tmp_path / "set" / "data").mkdir(parents=True)
    (tmp_path / "set" / "data" / "train-0.parquet").write_bytes(b"1")
    first = load(tmp_path / "set")
    assert load(f"hf:{tmp_path / 'set'}").fingerprint == first.fingerprint
    load(tmp_path / "set" / "data" / "train-0.parquet")
    (tmp_path / "set" / "dataset_dict.json").write_text("{}")
    load(tmp_path / "set")
    assert made_of.calls == [
        (str(tmp_path / "set"),),
        (str(tmp_path / "set"),),
        ("parquet", ("data_files", str(tmp_path / "set" / "data" / "train-0.parquet"))),
        ("load_from_disk", str(tmp_path / "set")),
    ]


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library itself, with a cache of its own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    return datasets


def real_dataset(real: Any, count: int, begin: int = 0) -> Any:
    features = real.Features({"image": real.Image(), "label": real.ClassLabel(names=NAMES)})
    held = rows(begin, begin + count)
    return real.Dataset.from_dict({name: [row[name] for row in held] for name in ("image", "label")}, features=features)


def expect_real(made: Any) -> None:
    assert made.class_names == tuple(NAMES)
    np.testing.assert_array_equal(made.train.images(), IMAGES[:90].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(made.test.images(), IMAGES[90:].transpose(0, 3, 1, 2))
    assert made.test.labels.tolist() == LABELS[90:].tolist()


def test_real_parquet(real: Any, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for part, begin, count in (("train", 0, 90), ("test", 90, 30)):
        (root / "data").mkdir(parents=True, exist_ok=True)
        real_dataset(real, count, begin).to_parquet(str(root / "data" / f"{part}-00000-of-00001.parquet"))
    expect_real(load(root, val_fraction=0))
    chosen = load(root, val_fraction=0, classes=("猫", "ant"))
    assert np.bincount(chosen.train.labels).tolist() == [30, 30]
    one = load(root / "data" / "train-00000-of-00001.parquet", val_fraction=0)
    assert len(one.train) + len(one.test) == 90


def test_real_parquet_with_nulls_in_the_layout_of_the_conversion(real: Any, tmp_path: Path) -> None:
    features = real.Features({"image": real.Image(), "label": real.ClassLabel(names=NAMES)})
    held = rows(0, 60)
    held[0]["image"] = held[5]["label"] = None
    for part in ("train", "validation"):
        (tmp_path / "set" / "default" / part).mkdir(parents=True)
        made = real.Dataset.from_dict({name: [row[name] for row in held] for name in ("image", "label")}, features=features)
        made.to_parquet(str(tmp_path / "set" / "default" / part / "0000.parquet"))
    told = (
        "cannot read 4 of 120 images ('train 0': its image is null; 'train 5': its label is null; 'test 0': its image is null; …)"
    )
    assert told in refused(tmp_path / "set")
    found = load(tmp_path / "set", skip_bad=True, val_fraction=0)
    kept = [i for i in range(60) if i not in (0, 5)]
    np.testing.assert_array_equal(found.test.images(), IMAGES[kept].transpose(0, 3, 1, 2))


def test_real_saved_dataset(real: Any, tmp_path: Path) -> None:
    parts = {"train": real_dataset(real, 90), "test": real_dataset(real, 30, 90)}
    real.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    expect_real(load(tmp_path / "saved", val_fraction=0))


def test_real_image_folder(real: Any, tmp_path: Path) -> None:
    for part, begin, end in (("train", 0, 90), ("test", 90, 120)):
        for i in range(begin, end):
            folder = tmp_path / "set" / part / NAMES[LABELS[i]]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:03}.png").write_bytes(png(IMAGES[i]))
    made = load(f"hf:{tmp_path / 'set'}", val_fraction=0)
    own = load(tmp_path / "set", val_fraction=0)
    assert made.class_names == own.class_names
    assert sorted(image.tobytes() for image in made.test.images().numpy()) == sorted(
        image.tobytes() for image in own.test.images().numpy()
    )


@pytest.mark.parametrize("split", ["all", "test", "validation", "dev"])
def test_a_lone_split_is_divided_whatever_it_is_called(install: Install, split: str) -> None:
    install(library(parts={split: Part(rows(0, 120), {"image": Image(), "label": ClassLabel(NAMES)})}))
    made = load("hf:x", val_fraction=0)
    assert (np.bincount(made.train.labels).tolist(), np.bincount(made.test.labels).tolist()) == ([32] * 3, [8] * 3)
    assert not set(made.train.rows) & set(made.test.rows)


def test_splits_of_which_nothing_is_taken_are_said(install: Install) -> None:
    made_of = install(library())
    features = made_of.parts["train"].features
    made_of.parts |= {"extra": Part(rows(0, 9), features), "validation": Part(rows(0, 9, label=lambda i: -1), features)}
    said = Said()
    load_data(DataSettings(source="hf:x", workers=1), said)
    assert "hf:x: of the splits extra, validation no image is taken" in said.lines
    said.lines.clear()
    made_of.parts = {name: made_of.parts[name] for name in ("train", "test")}
    load_data(DataSettings(source="hf:x", workers=1), said)
    assert not any("no image is taken" in line for line in said.lines)
