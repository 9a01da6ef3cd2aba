from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data.classes import Classes, classes_of, relabelled
from limbeck.data.columns import label_of
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress

CLASSES = Classes(("crane", "Cat", "cat", "7"), (("n1", "bird"), ("n2",), ("n3",), ("n4", "crane", "bird")))


def test_each_way_to_name_a_class() -> None:
    assert CLASSES.choose((3, "n1"), "s").tolist() == [3, 0]
    assert CLASSES.choose(("cat", "Cat"), "s").tolist() == [2, 1]
    assert CLASSES.choose(("7", 0), "s").tolist() == [3, 0]
    assert CLASSES.choose(("crane", "n4"), "s").tolist() == [0, 3]  # a name goes before what else a class is called
    assert CLASSES.choose(None, "s").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ((0, 4), "data.classes: 4 is not an index of the 4 classes of 's', 0 … 3"),
        ((0, -1), "data.classes: -1 is not an index of the 4 classes of 's', 0 … 3"),
        (("cat", "n3"), "data.classes: 'n3' names a class for the second time"),
        (("bird", 1), "data.classes: 'bird' could be 0 (crane, n1) or 3 (7, n4) of 's'; give an index"),
        (("CRANES", 1), "data.classes: 'CRANES' is not a class of 's'; did you mean 'crane'?"),
        (("dog", 1), "data.classes: 'dog' is not a class of 's', which has 'crane', 'Cat', 'cat', '7'"),
    ],
)
def test_refusals(wanted: tuple[int | str, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        CLASSES.choose(wanted, "s")
    assert str(caught.value) == message


def test_a_long_list_is_not_shown_whole() -> None:
    with pytest.raises(UsageError, match=r"'class 9' and 90 more$"):
        Classes(tuple(f"class {k}" for k in range(100))).choose(("zzzzz", 0), "s")


def test_take_keeps_what_classes_are_called() -> None:
    assert CLASSES.take(np.array([2, 0])) == Classes(("cat", "crane"), (("n3",), ("n1", "bird")))
    assert Classes(("a", "b", "c")).take(np.array([2, 0])) == Classes(("c", "a"))


@given(
    st.lists(st.integers(0, 6), max_size=40), st.permutations(range(9)).flatmap(lambda p: st.integers(1, 9).map(lambda n: p[:n]))
)
@settings(max_examples=80, deadline=None)
def test_relabelled(labels: list[int], chosen: list[int]) -> None:
    positions, counted = relabelled(np.array(labels, dtype=np.int64), np.array(chosen))
    assert positions.tolist() == [i for i, k in enumerate(labels) if k in chosen]
    assert counted.tolist() == [chosen.index(labels[i]) for i in positions]


def test_labels_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    for label in ("\ud800", {"label": "\ud800"}):
        with pytest.raises(UsageError, match=r"^data\.source: 's' has the label '\\ud800', which is no Unicode text$"):
            label_of(label, "s")
    with pytest.raises(UsageError, match=r"^data\.source: 's' has the label '\\ud800', which is no Unicode text$"):
        classes_of({"train": ["cat", "\ud800"]}, tmp_path, "s", NoProgress())


def test_scenes_are_the_same_whichever_classes_are_taken() -> None:
    keys = {"per_class": 4, "size": 16, "val_fraction": 0}
    whole, some = load_data(DataSettings(**keys)), load_data(DataSettings(classes=(7, "2"), **keys))
    assert some.class_names == ("7", "2")
    for split, part in ((whole.train, some.train), (whole.test, some.test)):
        kept = np.flatnonzero(np.isin(split.labels, [7, 2]))
        assert part.labels.tolist() == [{7: 0, 2: 1}[k] for k in split.labels[kept].tolist()]
        assert (part.images() == split.images(kept)).all()
        assert part.boxes is not None and split.boxes is not None
        np.testing.assert_array_equal(part.boxes, split.boxes[kept])
