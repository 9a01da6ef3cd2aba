"""`data.image_field` and `data.label_field` of dictionaries, and where they are not read, which is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.pictures import Said, fill
from data.test_cifar import binary_hundred, binary_ten
from data.test_idx import write as write_idx
from data.test_tiny import tiny  # noqa: F401 (a fixture)

from limbeck.data.imageset import ImageSet, load_object
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (24, 8, 9, 3), dtype=np.uint8)
LABELS = np.arange(24) % 4
BOTH = {"image_field": "scan", "label_field": "fine"}


def unread(source: str, *keys: str) -> list[str]:
    return [f"data.{key}_field: is not read, for {source!r} has no fields with names" for key in keys or ("image", "label")]


class Items(list[dict[str, Any]]):
    """Each has two images and two labels, of which the usual ones have names."""

    classes = ("even", "odd")

    def __init__(self) -> None:
        super().__init__({"image": 255 - IMAGES[i], "scan": IMAGES[i], "label": i % 2, "fine": i % 4} for i in range(24))


def taken(source: Any, **keys: Any) -> tuple[ImageSet, list[str]]:
    said = Said()
    return load_object(source, DataSettings(val_fraction=0, **keys), said), said.lines


def test_dictionaries_are_read_by_the_keys_that_are_named() -> None:
    made, lines = taken((Items(), Items()), **BOTH)
    np.testing.assert_array_equal(made.test.images(), IMAGES.transpose(0, 3, 1, 2))
    assert (made.test.labels.tolist(), made.class_names, lines) == (LABELS.tolist(), tuple("0123"), [])
    usual, _ = taken((Items(), Items()))
    assert (usual.test.labels.tolist(), usual.class_names) == ((LABELS % 2).tolist(), Items.classes)
    assert taken((Items(), Items()), label_field="label")[0].fingerprint == usual.fingerprint


@pytest.mark.parametrize("key", ["image_field", "label_field"])
def test_a_key_that_dictionaries_lack_is_refused(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        taken(Items(), **{key: "nonsense"})
    told = f"data.{key}: 'nonsense' is not a key that has a value, of fine, image, label, scan"
    assert str(caught.value) == f"train: item 0: {told}"


@pytest.mark.parametrize(
    ("source", "called"),
    [
        ([(IMAGES[i], i % 2) for i in range(24)], "list"),
        ((IMAGES, LABELS), "arrays"),
    ],
)
def test_objects_without_names(source: Any, called: str) -> None:
    made, lines = taken(source, **BOTH)
    assert (made.fingerprint, lines) == (taken(source)[0].fingerprint, unread(called))


def test_a_data_set_of_the_hub_that_is_an_object() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "scan": datasets.Image(), "label": datasets.Value("int64")})
    features["fine"] = datasets.ClassLabel(names=list("abcd"))
    held = datasets.Dataset.from_list([dict(item) for item in Items()], features=features)
    made, lines = taken(datasets.DatasetDict(train=held, test=held), **BOTH)
    np.testing.assert_array_equal(made.test.images(), IMAGES.transpose(0, 3, 1, 2))
    assert (made.test.labels.tolist(), made.class_names, lines) == (LABELS.tolist(), tuple("abcd"), [])


def heard(source: Path | str, **keys: Any) -> list[str]:
    said = Said()
    load_data(DataSettings(source=str(source), workers=1, **BOTH | keys), said)
    return said.lines


def test_sources_without_names(tmp_path: Path, tiny: Path, imagenet: Path) -> None:  # noqa: F811 (a fixture)
    folders, digits, ten = fill(tmp_path / "folders", a=4, b=4), write_idx(tmp_path / "digits"), binary_ten(tmp_path / "ten")
    for source in (folders, digits, ten, tiny):
        assert heard(source) == unread(str(source))
    assert heard("scenes", per_class=2, size=8) == unread("scenes")
    fruit = "imagenet:imagefruit"
    assert heard(fruit, root=str(imagenet)) == unread(fruit)
    hundred = binary_hundred(tmp_path / "hundred")
    assert heard(hundred, label_field="fine_labels") == unread(str(hundred), "image")
