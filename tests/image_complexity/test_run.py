"""Images for a network that is there already: nothing is held out, only what is measured is decoded, at the network's size."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data import fake_hub
from image_complexity.material import image_set, tiny_judge
from PIL import Image

from limbeck.cli.main import main
from limbeck.data import hub, image_cache
from limbeck.data.benchmarks import load_benchmark
from limbeck.data.image_cache import decoded
from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.registry import find_subset
from limbeck.data.settings import DataSettings
from limbeck.image_complexity.build import build_benchmark
from limbeck.image_complexity.run import SUMMARY, Complexity, complexity, measure_complexity
from limbeck.image_complexity.settings import BuildSettings, ComplexitySettings
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json
from limbeck.runtime.located import here
from limbeck.runtime.progress import NoProgress


class Said(NoProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def folder_of(root: Path, *counts: int) -> None:
    """Class folders a, b, … with so many images, of two sizes."""
    rng = np.random.default_rng(1)
    for name, count in zip("abcdefgh", counts, strict=False):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (20 + i % 2, 30, 3), dtype=np.uint8)).save(root / name / f"{i}.png")


def measured(root: Path, said: NoProgress = NoProgress(), data: dict[str, Any] | None = None, **settings: Any) -> Complexity:
    look = ComplexitySettings(**{"classes": "predicted", "layer": "pool", "workers": 1, **settings})
    source = DistillSettings(data=DataSettings(source=str(root), workers=1, **(data or {})))
    found = measure_complexity(look, source, network=tiny_judge(("x", "y"), size=16), progress=said)
    assert found is not None
    return found


@pytest.mark.parametrize("only_train", [False, True])
@pytest.mark.parametrize("split", ["train", "all"])
def test_one_image_of_each_class_and_nobody_to_test(only_train: bool, split: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "train" if only_train else tmp_path, 1, 1, 1)
    found = measured(tmp_path, split=split)
    assert found.measurement.pictures.labels.tolist() == [0, 1, 2]
    assert [row.images for row in found.results.classes] == [1, 1, 1]


def test_one_image_of_each_class_of_a_dataset_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
    features = {"image": fake_hub.Image(), "label": fake_hub.ClassLabel(["a", "b", "c"])}
    rows = [{"image": {"bytes": buffer.getvalue(), "path": None}, "label": k} for k in range(3)]
    monkeypatch.setattr(hub, "_library", lambda: fake_hub.Library(parts={"train": fake_hub.Part(rows, features)}))
    assert measured(Path("hf:ones")).measurement.pictures.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("split", ["train", "test"])
def test_imagenet_needs_the_split_that_is_measured(split: str, tmp_path: Path) -> None:
    entries = find_subset("imagenette").classes
    for entry in entries:
        folder_of(tmp_path / "train" / entry.wnid, 1)
    asked = {"data": {"root": str(tmp_path)}, "split": split}
    if split == "train":
        found = measured(Path("imagenet:imagenette"), **asked)
        assert found.measurement.pictures.class_names == tuple(entry.name for entry in entries)
        assert (len(found.measurement.pictures), found.data.size) == (10, (16, 16))
    else:
        with pytest.raises(UsageError, match="no val/ beside it"):
            measured(Path("imagenet:imagenette"), **asked)


def test_a_folder_of_training_images_is_measured_whole(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 5, 5)
    assert measured(tmp_path).results.images == 10
    with pytest.raises(UsageError, match="^data.source: '.*' has no test images$"):
        measured(tmp_path, split="test")


def test_the_command_with_a_network_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of(Path("photos"), 3, 3)
    folder_of(Path("ones"), 1, 1)
    words = ["data.workers=1", "--workers", "1", "--classes", "predicted"]
    small = ["--network", "ConvNetD1-w4", "data.size=16", "eval.full_epochs=1"]
    assert main(["complexity", "photos", *words, *small]) == 0
    assert main(["complexity", "ones", *words, "--network", "runs/complexity-photos/network", "--split", "all"]) == 0
    assert len(Path("runs/complexity-ones/images.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("split", "parts", "total"), [("train", ["train"], 12), ("test", ["test"], 3), ("all", ["train", "test"], 15)]
)
def test_only_what_is_measured_is_decoded(
    split: str, parts: list[str], total: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path, 5, 5, 5)
    asked: list[list[Any]] = []
    monkeypatch.setattr(image_cache, "decoded", lambda items, *rest, **more: asked.append(items) or decoded(items, *rest, **more))
    whole, some, again, other = (
        measured(tmp_path, split=split, **more) for more in ({}, {"per_class": 1}, {"per_class": 1}, {"per_class": 1, "seed": 1})
    )
    assert [len(items) for items in asked] == [total, 3, 3, 3]
    assert asked[1] == asked[2] and set(asked[1]) <= set(asked[0])
    assert (asked[1] == asked[3]) == (split == "test")  # one test image of each class: there is no choice
    assert sorted(some.measurement.pictures.labels) == [0, 1, 2]
    assert list(whole.measurement.pictures.splits) == parts
    assert some.results.complexity == again.results.complexity
    assert len(other.measurement.pictures) == 3


def test_held_out_images_are_those_of_a_network_that_is_trained_on_the_rest(tmp_path: Path) -> None:
    folder_of(tmp_path, 5, 6)
    settings = DataSettings(source=str(tmp_path), size=16, workers=1)
    found = measured(tmp_path, split="test", data={"size": 16}).measurement.pictures
    assert (found.images(np.arange(len(found))) == load_data(settings).test.images()).all()


def test_files_come_at_the_networks_size_and_enlarging_is_said(tmp_path: Path) -> None:
    folder_of(tmp_path / "a", 3, 3, 3, 3)
    said = Said()
    found = measured(tmp_path / "a", said, {"crop": "centre"})
    assert found.measurement.pictures.splits["train"].storage.shape[1:] == (3, 16, 16)
    assert not any("enlarged" in line for line in said.lines)
    measured(tmp_path / "a", said, {"size": 12})
    assert any("images of 12×12 pixels are enlarged to the 16×16 that tiny takes" in line for line in said.lines)
    groups = {"all": [0, 1, 2, 3]}
    build_benchmark(found, groups, found.data, tmp_path / "made", BuildSettings(categories="x", classes_per_subset=2, least=2))
    inner = load_benchmark(DataSettings(source=f"benchmark:{tmp_path / 'made'}:all-easy"))
    assert (inner.size, inner.crop, inner.val_fraction) == ((16, 16), "centre", 0.1)
    subset = measured(Path(f"benchmark:{tmp_path / 'made'}:all-easy"))
    assert subset.measurement.pictures.splits["train"].storage.shape[1:] == (3, 16, 16)


def test_images_that_have_a_size_of_their_own_keep_it(tmp_path: Path) -> None:
    said = Said()
    found = measured(Path("scenes:easy"), said, {"per_class": 2, "size": None}, per_class=1, split="train")
    assert found.measurement.pictures.splits["train"].storage.shape[1:] == (3, 32, 32)
    assert not any("enlarged" in line for line in said.lines)
    assert found.data.size is None


def test_from_python_on_images_in_memory() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8), np.tile(np.arange(2), 12)
    data = ImageSet.from_arrays(images, labels, images[:8], labels[:8], class_names=("<x>", "y"))
    found = complexity(data, network=tiny_judge(("<x>", "y"), size=16), layer="pool", workers=1, per_class=5, thresholds=(0.4,))
    assert found.measurement.pictures.labels.tolist().count(0) == 5
    assert found.classes.keys() == {"<x>", "y"} and found.mean == found.results.to_dict()["complexity"]
    assert f"complexity: {found.mean:.1f} % at 0.4" in str(found)
    assert "<td>&lt;x&gt;</td>" in found._repr_html_() and str(found.table()) == str(found)
    with pytest.raises(UsageError, match="^cam"):
        complexity(data, cam="magic")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "given"),
    [
        ("size", 64, True),
        ("size", 64, False),
        ("normalise", "imagenet", True),
        ("normalise", "imagenet", False),
        ("layer", "head", True),
        ("layer", "none", False),
        ("classes", "true", True),
        ("split", "test", True),
        ("network", "none", False),
        ("per_class", 0, True),
        ("thresholds", (2.0,), True),
    ],
)
def test_errors_in_python_name_its_arguments(key: str, value: Any, given: bool) -> None:
    whole = image_set(size=16)
    data = replace(whole, test=whole.test.take(np.arange(0)))
    network = tiny_judge(("x", "y", "z"), size=16) if given else "ConvNetD1-w2"
    asked = {"network": network, "layer": "pool" if given else "last", "classes": "predicted", "workers": 1, key: value}
    with pytest.raises(UsageError, match=f"^{key}: ") as raised:
        complexity(data, **asked)
    assert "\n" not in str(raised.value)


def test_results_come_to_a_url(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"network": tiny_judge(size=16), "layer": "pool", "workers": 1}
    found = complexity(image_set(size=16), output=f"{bucket}/seen", **asked)
    assert found.paths["results"] == f"{bucket}/seen/complexity.json"
    written = read_json(Path(here("results", f"{bucket}/seen")) / "complexity.json", SUMMARY)
    assert written["complexity"] == found.mean and list(tmp_path.glob("s3*")) == []
