from pathlib import Path

import numpy as np
import pytest
from data.pictures import load, png
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data.imageset import ImageSet
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split, cap, divide, evenly, hold_out, whole
from limbeck.runtime.errors import UsageError

label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=200).map(np.array)


def split_of(labels: list[int]) -> Split:
    images = np.arange(len(labels) * 3 * 4 * 5, dtype=np.uint64).astype(np.uint8).reshape(len(labels), 3, 4, 5)
    return whole(images, np.array(labels))


def image_set(train: list[int], test: list[int] | None = None, names: tuple[str, ...] = ("a", "b"), **keys: object) -> ImageSet:
    return made_of(split_of(train), split_of(test or [0, 1]), names, **keys)


def made_of(train: Split, test: Split, names: tuple[str, ...] = ("a", "b"), **keys: object) -> ImageSet:
    return ImageSet.of(*divide(DataSettings(source="s", **keys), train, test), names, "s")


@given(label_lists, st.floats(0.01, 0.99), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_hold_out_is_a_stratified_partition(labels: np.ndarray, share: float, seed: int) -> None:
    kept, held = hold_out(labels, share, seed, "val")
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
    for k in set(labels.tolist()):
        total, out = int((labels == k).sum()), int((labels[held] == k).sum())
        assert out < total
        assert (out == 0) == (total == 1)
        assert out <= 1 or out == total - 1 or abs(out - share * total) <= 0.5


@pytest.mark.parametrize(
    ("total", "share", "out"), [(1, 0.1, 0), (2, 0.1, 1), (10, 0.1, 1), (14, 0.1, 1), (15, 0.1, 2), (300, 0.1, 30), (3, 0.9, 2)]
)
def test_hold_out_counts(total: int, share: float, out: int) -> None:
    assert len(hold_out(np.zeros(total), share, 0, "val")[1]) == out


def test_a_share_of_nothing_holds_nothing_out() -> None:
    kept, held = hold_out(np.array([0, 0, 1, 1, 1]), 0, 0, "val")
    assert (kept.tolist(), held.tolist()) == ([0, 1, 2, 3, 4], [])


def test_no_validation_split() -> None:
    made = image_set([0] * 5 + [1], val_fraction=0)
    assert (len(made.train), len(made.val)) == (6, 0)
    assert made.val.images().shape == (0, 3, 4, 5)
    assert made.val.of_class(0).tolist() == []
    assert made.fingerprint != image_set([0] * 5 + [1], val_fraction=0.1).fingerprint
    own = split_of([0, 1])
    assert divide(DataSettings(val_fraction=0), split_of([0, 1]), split_of([0, 1]), own)[1] is own


def test_hold_out_depends_on_seed_and_key_but_not_on_other_classes() -> None:
    labels = np.array([0] * 40 + [1] * 40)
    held = hold_out(labels, 0.25, 0, "val")[1]
    assert held.tolist() == hold_out(labels, 0.25, 0, "val")[1].tolist()
    assert held.tolist() != hold_out(labels, 0.25, 1, "val")[1].tolist()
    assert held.tolist() != hold_out(labels, 0.25, 0, "test")[1].tolist()
    more = hold_out(np.concatenate([labels, [1] * 7]), 0.25, 0, "val")[1]
    assert more[more < 40].tolist() == held[held < 40].tolist()


@given(label_lists, st.integers(2, 20), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_cap(labels: np.ndarray, per_class: int, seed: int) -> None:
    positions = cap(labels, per_class, seed)
    assert (np.diff(positions) > 0).all()
    for k in set(labels.tolist()):
        assert (labels[positions] == k).sum() == min(per_class, (labels == k).sum())
    assert cap(labels[positions], per_class, seed + 1).tolist() == list(range(len(positions)))
    assert cap(labels, None, seed).tolist() == list(range(len(labels)))


def test_cap_is_drawn_by_the_seed() -> None:
    labels = np.zeros(100)
    assert cap(labels, 10, 0).tolist() != cap(labels, 10, 1).tolist()
    assert cap(labels, 10, 0).tolist() != list(range(10))


def test_divide_caps_first_and_shares_the_storage() -> None:
    made = image_set([0] * 50 + [1] * 7, per_class=20, val_fraction=0.25)
    assert [len(made.train.of_class(k)) for k in (0, 1)] == [15, 5]
    assert [len(made.val.of_class(k)) for k in (0, 1)] == [5, 2]
    assert not set(made.train.rows) & set(made.val.rows)
    assert made.train.storage is made.val.storage
    assert (made.num_classes, made.shape, made.source) == (2, (3, 4, 5), "s")


def test_classes_of_one_image_keep_it() -> None:
    made = image_set([0, 1, 1])
    assert (made.train.labels.tolist(), made.val.labels.tolist()) == ([0, 1], [1])


def test_nothing_to_validate_on() -> None:
    with pytest.raises(UsageError, match=r"^data\.source: 's' has one training image in every class: none can be spared[^\n]*$"):
        image_set([0, 1])


def test_own_validation_images_leave_train_whole() -> None:
    val = split_of([0, 1])
    train, kept, _ = divide(DataSettings(), split_of([0, 0, 1, 1]), split_of([0, 1]), val)
    assert len(train) == 4
    assert kept is val


def test_images_are_the_rows_asked_for() -> None:
    split = split_of([0, 1, 0, 1, 1]).take(np.array([4, 1, 2]))
    assert split.rows.tolist() == [4, 1, 2]
    assert split.labels.tolist() == [1, 1, 0]
    assert split.of_class(1).tolist() == [0, 1]
    np.testing.assert_array_equal(split.images().numpy(), split.storage[[4, 1, 2]])
    np.testing.assert_array_equal(split.images(np.array([2, 0])).numpy(), split.storage[[2, 4]])
    assert split.images(np.array([], dtype=np.int64)).shape == (0, 3, 4, 5)


def test_images_are_a_copy() -> None:
    split = split_of([0, 1])
    before = split.storage.copy()
    split.images().zero_()
    np.testing.assert_array_equal(split.storage, before)


def test_boxes_follow_their_images() -> None:
    boxes = np.arange(12).reshape(3, 4)
    split = whole(np.zeros((3, 1, 8, 8), np.uint8), np.array([0, 1, 0]), boxes).take(np.array([2, 0]))
    assert split.boxes is not None
    assert split.boxes.tolist() == boxes[[2, 0]].tolist()


def test_fingerprint_covers_content_names_and_split() -> None:
    labels = [0] * 20 + [1] * 20
    base = image_set(labels)
    assert image_set(labels).fingerprint == base.fingerprint
    others = [
        image_set(labels, names=("a", "c")),
        image_set(labels, val_fraction=0.3),
        image_set(labels, seed=1),
        image_set([1] * 20 + [0] * 20),
        image_set(labels, test=[1, 0]),
        image_set(labels, per_class=10),
    ]
    train = split_of(labels)
    train.storage[3, 1, 2, 2] ^= 1
    others.append(made_of(train, split_of([0, 1])))
    test = split_of([0, 1])
    test.storage[1, 0, 0, 0] ^= 1
    others.append(made_of(split_of(labels), test))
    assert len({made.fingerprint for made in (base, *others)}) == 9


@pytest.mark.parametrize(
    ("keys", "accepted"),
    [
        ({"val_fraction": 1}, "data.val_fraction: 1 is not in [0, 1)"),
        ({"val_fraction": float("nan")}, "data.val_fraction: nan is not in [0, 1)"),
        ({"val_fraction": -0.1}, "data.val_fraction: -0.1 is not in [0, 1)"),
        ({"per_class": 1}, "data.per_class: 1 is not at least 2"),
        ({"per_class": 0, "val_fraction": 0}, "data.per_class: 0 is not at least 1"),
        ({"classes": ("cat",)}, "data.classes: ['cat'] is not null or at least two classes"),
        ({"root": ""}, "data.root: '' is not the path of a folder, or null"),
        ({"crop": "center"}, "data.crop: 'center' is not one of squash, centre"),
        ({"size": (32, 7)}, "data.size: [32, 7] is not a side, or [height, width], of at least 8 pixels"),
    ],
)
def test_settings_name_the_key_and_what_is_accepted(keys: dict[str, object], accepted: str) -> None:
    with pytest.raises(UsageError) as caught:
        DataSettings(**keys)
    assert str(caught.value) == accepted


def test_one_image_per_class_may_be_asked_for_without_validation() -> None:
    assert image_set([0] * 5 + [1] * 5, per_class=1, val_fraction=0).train.labels.tolist() == [0, 1]


# From the first version on: experts and accuracies in users' caches, and resumed runs, rest on them.
@pytest.mark.parametrize(
    ("source", "keys", "fingerprint"),
    [
        ("x.npz", {}, "ea4b7e5147f63f55"),
        ("x.npz", {"seed": 3}, "13ed2b07d62a8ca5"),
        ("set", {}, "cad5458ade12cf60"),
        ("set", {"per_class": 5, "val_fraction": 0.3}, "196ed6ddfbe6acd2"),
    ],
)
def test_fingerprints_stay(tmp_path: Path, source: str, keys: dict[str, object], fingerprint: str) -> None:
    images = (np.arange(40 * 9 * 8 * 3) * 7 % 251).astype(np.uint8).reshape(40, 9, 8, 3)
    labels = {"y_train": np.arange(30) % 3, "y_test": np.arange(10) % 3}
    np.savez(tmp_path / "x.npz", x_train=images[:30], x_test=images[30:], **labels)
    for i, image in enumerate(images):
        folder = tmp_path / "set" / "abc"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:02}.png").write_bytes(png(image))
    assert load(tmp_path / source, **keys).fingerprint == fingerprint


@pytest.mark.parametrize(
    ("labels", "most", "expected"),
    [
        ([0, 0, 0, 0, 1, 1, 1, 1], 4, [0, 2, 4, 6]),
        ([0, 1] * 5, 2, [0, 1]),
        ([0, 0, 0, 0, 0, 0, 1], 4, [0, 3, 6]),
        ([2, 5, 7, 9], 2, [0, 2]),
        ([0, 0, 0], 9, [0, 1, 2]),
        ([], 3, []),
    ],
)
def test_evenly_takes_as_many_of_every_class_from_all_over_it(labels: list[int], most: int, expected: list[int]) -> None:
    assert evenly(np.array(labels, dtype=np.int64), most).tolist() == expected
