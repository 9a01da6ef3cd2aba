"""Images that are objects in Python: the same set through every door, or refused in a line that says what to do."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from limbeck.data.imageset import ImageSet, load_object
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError

rng = np.random.default_rng(0)
X, Y = rng.integers(0, 256, (24, 9, 11, 3), dtype=np.uint8), np.arange(24) % 3
X_TEST, Y_TEST = X[:7].copy(), Y[:7].copy()
MADE = ImageSet.from_arrays(X, Y, X_TEST, Y_TEST, class_names=("ant", "bee", "cat"))


def image_set(data: Any, **keys: Any) -> ImageSet:
    return load_data(DataSettings(source=data, **keys)) if isinstance(data, str) else load_object(data, DataSettings(**keys))


class Pictures(Dataset):  # type: ignore[type-arg]
    """A data set of pairs, as torchvision's are."""

    classes = ["ant", "bee", "cat"]

    def __init__(self, x: Any, y: Any, make: Callable[[np.ndarray], Any] = Image.fromarray) -> None:
        self.x, self.y, self.make = x, y, make

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, number: int) -> Any:
        return self.make(self.x[number]), self.y[number]


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255


def dictionaries(x: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    return [{"image": image, "label": torch.tensor(label), "id": "?"} for image, label in zip(x, y, strict=True)]


def hub() -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cat"])})
    parts = {"train": (X, Y), "test": (X_TEST, Y_TEST)}
    rows = {part: {"img": [Image.fromarray(image) for image in x], "label": y.tolist()} for part, (x, y) in parts.items()}
    return datasets.DatasetDict({part: datasets.Dataset.from_dict(held, features=features) for part, held in rows.items()})


DOORS: dict[str, Callable[[], ImageSet]] = {
    "tensors": lambda: ImageSet.from_arrays(torch.tensor(X), torch.tensor(Y), X_TEST, Y_TEST, class_names=Pictures.classes),
    "channels first": lambda: ImageSet.from_arrays(
        X.transpose(0, 3, 1, 2), Y[:, None], X_TEST, Y_TEST.astype(np.uint8), class_names=Pictures.classes
    ),
    "floats": lambda: ImageSet.from_arrays(X / 255, np.eye(3)[Y], X_TEST / 255, Y_TEST, class_names=Pictures.classes),
    "text": lambda: ImageSet.from_arrays(X, np.array(Pictures.classes)[Y], X_TEST, [Pictures.classes[k] for k in Y_TEST]),
    "other numbers": lambda: ImageSet.from_arrays(X, 2 * Y + 5, X_TEST, 2 * Y_TEST + 5, class_names={5: "ant", 7: "bee", 9: "cat"}),
    "pictures": lambda: ImageSet.from_dataset(Pictures(X, Y), Pictures(X_TEST, Y_TEST)),
    "pairs of tensors": lambda: ImageSet.from_dataset(Pictures(X, Y.tolist(), tensor), Pictures(X_TEST, Y_TEST, tensor)),
    "pairs of arrays": lambda: ImageSet.from_dataset(Pictures(X, Y, np.asarray), Pictures(X_TEST, Y_TEST, np.asarray)),
    "dictionaries": lambda: ImageSet.from_dataset(dictionaries(X, Y), dictionaries(X_TEST, Y_TEST), class_names=Pictures.classes),
    "subset": lambda: ImageSet.from_dataset(Subset(Pictures(X, Y), range(24)), Subset(Pictures(X, Y), range(7))),
    "joined": lambda: ImageSet.from_dataset(
        ConcatDataset([Pictures(X[:9], Y[:9]), Pictures(X[9:], Y[9:])]), Pictures(X_TEST, Y_TEST)
    ),
    "hub": lambda: ImageSet.from_hub(hub()),
    "anything: arrays": lambda: replace(
        image_set((X, Y, X_TEST, Y_TEST)), class_names=MADE.class_names, fingerprint=MADE.fingerprint
    ),
    "anything: sets": lambda: image_set((Pictures(X, Y), Pictures(X_TEST, Y_TEST))),
    "anything: parts": lambda: image_set({"train": Pictures(X, Y), "test": Pictures(X_TEST, Y_TEST)}),
    "anything: hub": lambda: image_set(hub()),
    "anything: an image set": lambda: image_set(MADE),
}


@pytest.mark.parametrize("door", DOORS)
def test_the_same_images_through_every_door(door: str) -> None:
    made = DOORS[door]()
    assert made.fingerprint == MADE.fingerprint
    assert (made.class_names, made.shape) == (("ant", "bee", "cat"), (3, 9, 11))
    for part in ("train", "val", "test"):
        one, other = getattr(made, part), getattr(MADE, part)
        assert torch.equal(one.images(), other.images())
        assert one.labels.tolist() == other.labels.tolist()
        assert one.storage.dtype == np.uint8


def test_splits() -> None:
    assert (len(MADE.train), len(MADE.val), len(MADE.test)) == (21, 3, 7)
    np.testing.assert_array_equal(MADE.train.images().permute(0, 2, 3, 1), X[MADE.train.rows])
    own = ImageSet.from_arrays(X, Y, X_TEST, Y_TEST, x_val=X[:3], y_val=Y[:3])
    assert (len(own.train), own.val.labels.tolist()) == (24, [0, 1, 2])
    alone = ImageSet.from_arrays(X, Y, val_fraction=0)  # a fifth of each class is tested on
    assert (len(alone.train), len(alone.val), len(alone.test)) == (18, 0, 6)
    other = ImageSet.from_arrays(X, Y, X_TEST, Y_TEST, seed=1)
    assert other.val.rows.tolist() != MADE.val.rows.tolist()


def test_an_image_set_is_taken_as_it_is_but_for_what_is_held_out() -> None:
    joined = image_set(MADE, val_fraction=0)
    assert joined.train.rows.tolist() == list(range(24)) and len(joined.val) == 0
    assert (
        joined.fingerprint == ImageSet.from_arrays(X, Y, X_TEST, Y_TEST, class_names=Pictures.classes, val_fraction=0).fingerprint
    )
    with pytest.raises(UsageError, match="data.size: 16 is not null: an ImageSet is taken as it is"):
        image_set(MADE, size=16)


def test_what_the_user_changes_later_changes_nothing() -> None:
    x = X.copy()
    made = ImageSet.from_arrays(x, Y, X_TEST, Y_TEST)
    x[:] = 0
    assert torch.equal(made.train.images(), MADE.train.images())


def test_a_file_in_memory_stays_there(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.transpose(0, 3, 1, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    made = ImageSet.from_arrays(mapped, Y, X_TEST, Y_TEST, class_names=Pictures.classes)
    assert np.shares_memory(made.train.storage, mapped) and made.fingerprint == MADE.fingerprint


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.uint8, st.tuples(st.just(6), st.integers(4, 6), st.integers(4, 6), st.sampled_from([1, 3]))),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.booleans(),
)
def test_bytes_come_back_whatever_they_went_through(x: np.ndarray, dtype: Any, first: bool) -> None:
    y, wanted = np.arange(6) % 2, x.transpose(0, 3, 1, 2)
    floats = (x / 255).astype(dtype)
    given_as = torch.from_numpy(floats.transpose(0, 3, 1, 2).copy()) if first else floats
    made = ImageSet.from_arrays(given_as, y, x, y)
    np.testing.assert_array_equal(made.test.storage, wanted)
    np.testing.assert_array_equal(made.train.storage, wanted)
    items = ImageSet.from_dataset(TensorDataset(torch.from_numpy(floats.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y)))
    np.testing.assert_array_equal(items.train.storage, wanted)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(min_size=1, max_size=3), min_size=2, max_size=4, unique=True), st.data())
def test_labels_of_any_kind_are_the_same_classes(names: list[str], data: st.DataObject) -> None:
    names = sorted(name for name in names)
    if any("\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name) for name in names):
        return
    y = np.array([*range(len(names)), *data.draw(st.lists(st.integers(0, len(names) - 1), min_size=3, max_size=9))] * 2)
    x = np.arange(len(y) * 64, dtype=np.uint8).reshape(-1, 8, 8)
    by_number = ImageSet.from_arrays(x, y.astype(np.int8), x, y, class_names=names)
    by_text = ImageSet.from_arrays(x, np.array(names)[y], x, [names[k] for k in y])
    assert by_text.class_names == by_number.class_names == tuple(names)
    assert by_text.fingerprint == by_number.fingerprint


def refused(message: str, make: Callable[[], object]) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert str(caught.value).startswith(message), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X / 1.0}, "x: given with floats from 0 to 255, which are no pixels in [0, 1]; divide by what white is, such as 255"),
        ({"x": X / 255 - 0.5}, "x: given with floats from -0.5 to 0.5, which are no pixels in [0, 1]; leave the normalisation out"),
        ({"x": X / 255 * np.nan}, "x: given with numbers that are not finite"),
        ({"x": X * 1j}, "x: given as complex128; bytes, floats in [0, 1] and whole numbers are accepted"),
        (
            {"x": X.astype(np.int64) * 4},
            "x: given as int64 with numbers from 0 … 1020, and bytes elsewhere; range=255",
        ),
        (
            {"x_test": X_TEST[..., :2]},
            "x_test: given with shape (7, 9, 11, 2); (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3",
        ),
        (
            {"x": np.zeros((24, 3, 8, 3), np.uint8)},
            "x: given with shape (24, 3, 8, 3), which may be NCHW or NHWC: in Python, layout='NCHW'",
        ),
        ({"layout": "NCHW"}, "x: given with shape (24, 9, 11, 3); (N, C, H, W), C = 1 or 3, is accepted"),
        ({"layout": "HWC"}, "layout: 'HWC' is not auto, NCHW, NHWC or NHW"),
        (
            {"y": Y[:5]},
            "y: given as int64 with shape (5,); integers or text with shape (24,) or (24, 1), or one-hot rows, are accepted",
        ),
        ({"y": Y / 2}, "y: given as float64 with shape (24,)"),
        ({"y": np.full((24, 3), 1 / 3)}, "y: given with shape (24, 3) and other rows than one-hot ones; argmax(1) makes classes"),
        (
            {"y": Y + 1},
            "y: given without a training image of class 0; in Python, class_names={label: name, …} names the labels that there are",
        ),
        ({"y_test": Y_TEST + 1}, "y_test: given with labels from 1 to 3; 0 … 2 is accepted"),
        ({"y_test": np.array(["a"] * 7)}, "y_test: given with the label 'a'; 0 … 2 is accepted"),
        ({"y": Y * 0}, "y: given with one class; at least two are needed"),
        ({"x_test": None}, "x_test: None is not an array, beside y_test"),
        ({"y_val": Y}, "x_val: None is not an array, beside y_val"),
        ({"class_names": ["a", "b"]}, "y: given with labels from 0 to 2; 0 … 1 is accepted"),
        ({"class_names": ["a", "b", "c", "d"]}, "y: given without a training image of class 3 ('d')"),
        ({"class_names": {0: "a", 1: "b"}}, "y: given with labels from 0 to 2; 0 … 1 is accepted"),
        ({"class_names": ["a", "b", "a"]}, "class_names: 'a' names two classes"),
        ({"class_names": [1, 2, 3]}, "class_names: 1 is no text"),
        ({"val_fraction": 1.0}, "data.val_fraction: 1.0 is not in [0, 1)"),
    ],
)
def test_arrays_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    refused(message, lambda: ImageSet.from_arrays(**({"x": X, "y": Y, "x_test": X_TEST, "y_test": Y_TEST} | change)))


class Endless(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        yield X[0], 0


def broken(image: np.ndarray) -> Image.Image:
    if image is None:
        raise OSError("the disk is on fire")
    return Image.fromarray(image)


def test_datasets_that_do_not_fit() -> None:
    refused("train: a Endless has no items by number; a list of its pairs", lambda: ImageSet.from_dataset(Endless()))
    refused("data.source: a Endless has no items by number", lambda: image_set(Endless()))
    loader = DataLoader(Pictures(X, Y, tensor))
    refused("train: a DataLoader has no items by number; a list of its pairs (image, label)", lambda: ImageSet.from_dataset(loader))
    normalised = Pictures(X, Y, lambda image: tensor(image) - 0.5)
    refused("train: item 0: its image is given with floats from -0.5", lambda: ImageSet.from_dataset(normalised))
    uneven = Pictures([X[0], X[1, :8]], Y)
    refused("size: None does not bring images of several sizes together (train: 9×11, item 1 8×11)", lambda: image_set(uneven))
    assert ImageSet.from_dataset(Pictures([*X, X[1, :8]], [*Y, 0]), size=8).shape == (3, 8, 8)
    refused("train: item 0: keys: ['x', 'y'] is not with an `image` and a `label`", lambda: image_set([{"x": 1, "y": 2}] * 3))
    refused("train: item 0: type: 'int' is not a pair", lambda: ImageSet.from_dataset([1, 2]))
    refused("train: item 0: label: 0.5 is not a whole number or text", lambda: ImageSet.from_dataset([(X[0], 0.5)]))
    refused("train: item 0: image: 'str' is not a Pillow image", lambda: ImageSet.from_dataset([("a.png", 1)]))
    refused("train: 'list' is not a data set with items", lambda: ImageSet.from_dataset([]))
    refused("train: given without a training image of class 2 ('cat')", lambda: image_set(Subset(Pictures(X, Y), [0, 1, 3, 4])))
    refused("data.source: int is none of what is known; an ImageSet, arrays", lambda: image_set(7))
    refused("data.source: '3 arrays' is not x, y, x_test, y_test", lambda: image_set((X, Y, X)))
    bad = Pictures([*X, None], [*Y, 0], broken)
    refused(
        "train: item 24: the disk is on fire; data.skip_bad=true, in Python skip_bad=True, leaves it out",
        lambda: ImageSet.from_dataset(bad),
    )
    kept = ImageSet.from_dataset(bad, Pictures(X_TEST, Y_TEST), skip_bad=True)
    assert kept.fingerprint == MADE.fingerprint


def test_grey_and_colour_together() -> None:
    grey = Image.fromarray(X[0, ..., 0])
    items = [(grey, 0), (Image.fromarray(X[1]), 1), (grey, 0), (Image.fromarray(X[1]), 1)]
    made = ImageSet.from_dataset(items, [(grey, 0), (grey, 1)], val_fraction=0)
    assert made.shape == (3, 9, 11)
    np.testing.assert_array_equal(made.train.images()[0], np.repeat(X[0, ..., 0][None], 3, 0))
    assert ImageSet.from_dataset([(grey, k % 2) for k in range(6)], val_fraction=0).shape == (1, 9, 11)


def test_a_source_of_the_users_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_images.py").write_text(
        "import numpy as np\n"
        "def arrays():\n"
        "    x = np.arange(12 * 64, dtype=np.uint8).reshape(12, 8, 8)\n"
        "    return x, np.arange(12) % 2, x[:4], np.arange(4) % 2\n"
        "held = arrays()\n"
        "def broken():\n    raise KeyError('nothing here')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_images", raising=False)
    made, held = (load_data(DataSettings(source=f"my_images:{name}")) for name in ("arrays", "held"))
    assert made.fingerprint == held.fingerprint and made.shape == (1, 8, 8)
    assert made.source == "my_images:arrays"
    refused("data.source: 'my_images:broken' raised KeyError: 'nothing here'", lambda: image_set("my_images:broken"))
    refused("data.source: 'my_images:absent' cannot be imported: my_images has no 'absent'", lambda: image_set("my_images:absent"))
    refused("data.source: int is none of what is known", lambda: image_set("my_images:number"))
    refused("data.source: 'scense:easy' is not there; scenes, scenes:easy", lambda: image_set("scense:easy"))


def test_names_and_paths_go_through_as_ever(tmp_path: Path) -> None:
    np.savez(tmp_path / "held.npz", x_train=X, y_train=Y, x_test=X_TEST, y_test=Y_TEST, class_names=np.array(Pictures.classes))
    assert image_set(str(tmp_path / "held.npz")).fingerprint == MADE.fingerprint
    assert image_set("scenes:easy", size=16, per_class=3).shape == (3, 16, 16)


def test_hub_data_sets_that_do_not_fit() -> None:
    held = hub()
    alone = ImageSet.from_hub(held["train"])
    assert (len(alone.test), alone.class_names) == (6, ("ant", "bee", "cat"))
    refused("dataset: an IterableDataset has no items by number", lambda: ImageSet.from_hub(held["train"].to_iterable_dataset()))
    refused("dataset: has no rows to train on", lambda: ImageSet.from_hub(held["train"].select([])))
    plain = held["train"].remove_columns("img").add_column("name", ["a"] * 24)
    refused("data.source: 'dataset' has no column of images; its columns are label, name", lambda: ImageSet.from_hub(plain))
    named = held["train"].rename_columns({"img": "photo", "label": "kind"})
    assert ImageSet.from_hub(named).fingerprint == alone.fingerprint
    unlabelled = held["test"].map(lambda row: {"label": -1})
    held["test"], held["validation"] = unlabelled, held["test"]
    assert ImageSet.from_hub(held).fingerprint == MADE.fingerprint  # validation is tested on where test has no labels


def test_validation_images_of_the_sources_own_are_never_trained_on(tmp_path: Path) -> None:
    """Nor where they lie in one storage with the others, as those of a folder do."""
    for part, count in {"train": 4, "val": 2, "test": 2}.items():
        for name in ("ant", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / part / name / f"{i}.png")
    by_path = image_set(str(tmp_path), val_fraction=0, workers=1)
    held = image_set(image_set(str(tmp_path), workers=1), val_fraction=0)
    assert (len(held.train), len(held.val), len(held.test)) == (8, 4, 4)
    assert held.fingerprint == by_path.fingerprint
    own = ImageSet.from_arrays(X, Y, X_TEST, Y_TEST, x_val=X[:3], y_val=Y[:3])
    assert own.without_validation() is own


@pytest.mark.parametrize("array", [np.asarray, tensor], ids=["array", "tensor"])
def test_a_list_of_pairs_is_one_of_items_however_long_it_is(array: Callable[[Any], Any]) -> None:
    made = image_set([(array(image), int(label)) for image, label in zip(X, Y, strict=True)], val_fraction=0)
    assert made.train.images().shape == (18, 3, 9, 11)
    np.testing.assert_array_equal(made.test.images(), X[made.test.rows].transpose(0, 3, 1, 2))
    with pytest.raises(UsageError, match="has one image in every class: none can be spared"):
        image_set([(array(X[i]), i) for i in range(2)])


def test_own_validation_images_of_other_classes_alone_are_none() -> None:
    named = {"x_train": X, "y_train": Y, "x_test": X_TEST, "y_test": Y_TEST, "x_val": X[2:3], "y_val": Y[2:3]}
    made = image_set(named, classes=(0, 1))
    assert (len(made.val), len(made.train)) == (2, 14)
