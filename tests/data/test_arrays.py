import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError

rng = np.random.default_rng(0)
COLOUR = rng.integers(0, 256, (12, 9, 11, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2] * 4)


def save(folder: Path, **changes: Any) -> str:
    arrays = {"x_train": COLOUR, "y_train": LABELS, "x_test": COLOUR[:5], "y_test": LABELS[:5]} | changes
    path = folder / "images.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def refused(folder: Path, message: str, **changes: Any) -> None:
    with pytest.raises(UsageError) as caught:
        load_data(DataSettings(source=save(folder, **changes)))
    assert str(caught.value).startswith("data.source: ")
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_colour(tmp_path: Path, layout: str) -> None:
    order = (0, 1, 2, 3) if layout == "NHWC" else (0, 3, 1, 2)
    source = save(
        tmp_path, x_train=COLOUR.transpose(order), x_test=COLOUR[:5].transpose(order), class_names=np.array(["a", "b", "ç"])
    )
    made = load_data(DataSettings(source=source))
    assert made.shape == (3, 9, 11)
    assert made.class_names == ("a", "b", "ç")
    assert (len(made.train), len(made.val), len(made.test)) == (9, 3, 5)
    together = np.concatenate([made.train.images(), made.val.images()])
    rows = np.concatenate([made.train.rows, made.val.rows])
    np.testing.assert_array_equal(together, COLOUR[rows].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(np.concatenate([made.train.labels, made.val.labels]), LABELS[rows])
    np.testing.assert_array_equal(made.test.images(), COLOUR[:5].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(-1, 9, 11), (-1, 9, 11, 1), (-1, 1, 9, 11)])
def test_grey(tmp_path: Path, shape: tuple[int, ...]) -> None:
    source = save(tmp_path, x_train=COLOUR[..., 0].reshape(shape), x_test=COLOUR[:5, ..., 0].reshape(shape))
    made = load_data(DataSettings(source=source))
    assert made.shape == (1, 9, 11)
    assert made.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(made.test.images()[:, 0], COLOUR[:5, ..., 0])


def test_size_and_per_class(tmp_path: Path) -> None:
    made = load_data(DataSettings(source=save(tmp_path), size=(8, 20), per_class=3))
    assert made.shape == (3, 8, 20)
    assert np.bincount(np.concatenate([made.train.labels, made.val.labels])).tolist() == [3, 3, 3]
    expected = Image.fromarray(COLOUR[4]).resize((20, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(made.test.images()[4].permute(1, 2, 0), np.asarray(expected))


def test_size_brings_different_sizes_together(tmp_path: Path) -> None:
    source = save(tmp_path, x_test=COLOUR[:5, :8])
    with pytest.raises(UsageError, match=r"^data\.size: None does not .* \(x_train 9×11 and x_test 8×11\)"):
        load_data(DataSettings(source=source))
    assert load_data(DataSettings(source=source, size=(9, 11))).shape == (3, 9, 11)


def test_fingerprint_does_not_depend_on_layout(tmp_path: Path) -> None:
    first = load_data(DataSettings(source=save(tmp_path)))
    other = {
        "x_train": COLOUR.transpose(0, 3, 1, 2),
        "x_test": COLOUR[:5].transpose(0, 3, 1, 2),
        "y_train": LABELS.astype(np.uint8),
    }
    assert load_data(DataSettings(source=save(tmp_path, **other))).fingerprint == first.fingerprint


FLOATS = COLOUR / 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None, "y_test": None}, "lacks x_test, y_test"),
        (
            {"x_train": FLOATS * 255},
            "holds x_train with floats from 0 to 255, which are no pixels in [0, 1]; divide by what white is",
        ),
        (
            {"x_test": COLOUR[:5].astype(np.int32) * 2 - 1},
            "holds x_test as int32 with numbers from -1 … 509, and bytes elsewhere; data.range=255",
        ),
        ({"x_test": COLOUR[:5] * 1j}, "holds x_test as complex128; bytes, floats in [0, 1] and whole numbers are accepted"),
        ({"x_train": COLOUR[..., :2]}, "holds x_train with shape (12, 9, 11, 2)"),
        ({"x_train": COLOUR[0, 0]}, "holds x_train with shape (11, 3)"),
        ({"x_test": COLOUR[:0], "y_test": LABELS[:0]}, "holds x_test with shape (0, 3, 9, 11), which is empty"),
        ({"x_test": COLOUR[:5, ..., 0]}, "different numbers of channels: x_train 3 and x_test 1"),
        ({"y_train": LABELS[:7]}, "holds y_train as int64 with shape (7,); integers or text with shape (12,)"),
        ({"y_train": LABELS[:, None] + np.eye(3, dtype=int)[LABELS]}, "with shape (12, 3) and other rows than one-hot ones"),
        ({"y_train": LABELS * 1.0}, "holds y_train as float64"),
        ({"y_test": np.array([0, 1, 2, 3, 0])}, "holds y_test with labels from 0 to 3; 0 … 2 is accepted"),
        ({"y_train": LABELS - 1}, "holds y_train with labels from -1 to 1"),
        ({"y_train": LABELS - 9}, "holds y_train with labels from -9 to -7; 0 and up is accepted"),
        ({"y_train": np.where(LABELS == 1, 2, LABELS)}, "holds y_train without a training image of class 1"),
        ({"y_train": LABELS * 10**15}, "holds y_train without a training image of class 1"),
        ({"y_train": LABELS.astype(np.uint64) + 2**63}, "holds y_train with labels from 9223372036854775808 to"),
        ({"y_train": LABELS * 0, "y_test": LABELS[:5] * 0}, "holds y_train with one class; at least two are needed"),
        ({"class_names": np.array(["a", "b", "c", "d"])}, "holds y_train without a training image of class 3 ('d')"),
        ({"class_names": np.array(["a", "b"])}, "holds y_train with labels from 0 to 2; 0 … 1 is accepted"),
        ({"class_names": np.array(["a", "b", "a"])}, "holds class_names: 'a' names two classes"),
        ({"class_names": np.array([1, 2, 3])}, "holds class_names as int64"),
        ({"class_names": np.array([], dtype=str)}, "holds 0 class_names; at least two are needed"),
        ({"class_names": np.array(["a", "\ud800b", "c"])}, "holds class_names: '\\ud800b' is no Unicode text"),
        ({"class_names": np.array(["a", "b", "c"], dtype=object)}, "cannot be read: Object arrays cannot be loaded"),
        ({"x_train": np.array([{}] * 12)}, "cannot be read: Object arrays cannot be loaded"),
        ({"y_train": np.array([0, 1] * 1), "x_train": COLOUR[:2]}, "one training image in every class"),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    if message == "one training image in every class":
        changes = changes | {"y_test": np.array([0, 1, 0, 1, 0])}
    refused(tmp_path, message, **changes)


def test_pickles_and_lone_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for write in (lambda: np.array([{}]).dump(path), lambda: path.write_bytes(b""), lambda: path.write_bytes(b"PK\x03\x04 no zip")):
        write()
        with pytest.raises(UsageError, match=r"^data\.source: '.*' is no \.npz archive of arrays, as numpy\.savez writes one$"):
            load_data(DataSettings(source=str(path)))
    with path.open("wb") as file:
        np.save(file, COLOUR)
    with pytest.raises(UsageError, match="is no .npz archive of arrays"):
        load_data(DataSettings(source=str(path)))


@pytest.mark.parametrize("suffix", ["", ".npy"])
def test_an_archive_of_something_else_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(name + suffix, "no array")
    with pytest.raises(UsageError) as caught:
        load_data(DataSettings(source=str(path)))
    assert str(caught.value) == f"data.source: '{path}' holds x_train as something else than an array"


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    path = Path(save(tmp_path, x_train=COLOUR[:, :2, :2], x_test=COLOUR[:5, :2, :2], class_names=np.array(["a", "b", "c"])))
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        assert load_data(DataSettings(source=str(path))).num_classes == 3
    except UsageError as error:
        assert "\n" not in str(error)
