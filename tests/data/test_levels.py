"""Which numbers are black and white in images of more than eight bits."""

import logging
from pathlib import Path

import numpy as np
import pytest
from data.pictures import Said, load
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from limbeck.data import image_cache
from limbeck.data.imageset import ImageSet, load_object
from limbeck.data.levels import Levels, Span, found_levels, shares, span_of, told
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.data.split import Wanted
from limbeck.runtime.errors import UsageError

DEEP = np.random.default_rng(0).integers(100, 4001, (24, 8, 9), dtype=np.uint16)
DEEP[3, 0, 0], DEEP[20, 0, 0] = 90, 4050  # the least is in one part of the set, the greatest in another
LABELS = np.arange(24) % 3


@pytest.mark.parametrize(
    ("spans", "levels"),
    [
        ([Span(0, 4095, False)], (0, 4095)),
        ([Span(12, 3071, False), Span(-1024, 900, False)], (-1024, 3071)),
        ([Span(0, 255, False)], (0, 255)),
        ([Span(3, 128, False)], (0, 255)),
        ([Span(3, 127, False)], (3, 127)),
        ([Span(-1, 200, False)], (-1, 200)),
        ([Span(0.2, 0.3, True)], (0, 1)),
        ([Span(0.0, 1.0 + 1e-7, True)], (0, 1)),
        ([Span(0.0, 254.9, True)], (0, 255)),
        ([Span(-2.0, 2.0, True)], (-2, 2)),
        ([Span(7, 7, False)], (7, 8)),
    ],
)
def test_what_is_found(spans: list[Span], levels: tuple[float, float]) -> None:
    assert found_levels(spans) == levels


def test_floats_and_whole_numbers_have_no_range_in_common() -> None:
    with pytest.raises(UsageError, match=r"^data\.range: null finds no range .*; data\.range=4000 would"):
        found_levels([Span(0, 4000, False), Span(0, 1, True)])


@given(st.integers(-(2**15), 2**16), st.integers(1, 2**16), st.integers(0, 2**32))
def test_bytes_are_the_nearest_and_keep_their_order(black: int, width: int, seed: int) -> None:
    levels = Levels(black, black + width)
    values = np.sort(np.random.default_rng(seed).integers(black, black + width + 1, 50))
    made = np.rint(shares(values, levels) * 255)
    assert (np.abs(made - (values - black) / width * 255) <= 0.5 + 1e-9).all()
    assert (np.diff(made) >= 0).all()
    assert (np.rint(shares(np.array([black - 5, black, black + width, black + width + 5]), levels) * 255) == [0, 0, 255, 255]).all()
    if width <= 255:  # then none falls together with another
        assert len(np.unique(made)) == len(np.unique(values))


def test_spans_are_of_finite_numbers() -> None:
    assert span_of(np.array([3, 9], dtype=np.uint16)) == (3, 9, False)
    assert span_of(np.array([-1.5, 2], dtype=np.float32)) == (-1.5, 2, True)
    with pytest.raises(ValueError, match="not finite"):
        span_of(np.array([1, np.nan]))


def test_few_levels_and_cut_numbers_are_warned_of() -> None:
    usual = [Span(100, 4000, False)] * 9
    assert told(usual, Levels(100, 4000), 12, False)[0].startswith("note: 9 of 12 images have more than 8 bits and")
    (outlier,) = told([*usual, Span(0, 65535, False)], Levels(0, 65535), 10, False)
    assert outlier.startswith("warning: ")
    assert outlier.endswith("a typical image has no more than 15; data.range=[100,4000] gives it all of them")
    (cut,) = told([*usual, Span(0, 65535, False)], Levels(100, 4000), 10, True)
    assert cut.startswith("warning: ")
    assert "1 of them have numbers outside, from 0 to 65535" in cut
    constant = told([Span(700, 700, False)] * 3, Levels(700, 701), 3, False)[0]
    assert constant.endswith("of which a typical image has no more than 1")  # no range would help
    assert told(usual, Levels(0, 4095), 9, True)[0].startswith("note: ")
    assert told([Span(0, 200, False)], Levels(0, 255), 1, False) == []
    assert told([Span(0, 200, True)], Levels(0, 255), 1, False)


def arrays(path: Path, **changes: np.ndarray) -> Path:
    named = {"x_train": DEEP[:18], "y_train": LABELS[:18], "x_test": DEEP[18:], "y_test": LABELS[18:]} | changes
    np.savez(path / "deep.npz", **named)
    return path / "deep.npz"


def test_arrays_share_the_range_that_is_found(tmp_path: Path) -> None:
    said = Said()
    source = str(arrays(tmp_path))
    made = load_data(DataSettings(source=source, val_fraction=0), said)
    assert made.levels == (90, 4050)
    assert len([line for line in said.lines if "24 of 24 images have more than 8 bits" in line]) == 1
    expected = np.rint((DEEP - 90.0) / 3960 * 255)
    np.testing.assert_array_equal(made.train.images()[:, 0], expected[:18])
    np.testing.assert_array_equal(made.test.images()[:, 0], expected[18:])
    again = load(source, val_fraction=0, range=[90, 4050])
    assert (again.fingerprint, again.levels) == (made.fingerprint, made.levels)
    assert load(source, range=4095).levels == (0, 4095)


def folders(root: Path, kind: type = np.uint16) -> Path:
    """The same as class folders."""
    for part, rows in (("train", range(18)), ("test", range(18, 24))):
        for row in rows:
            path = root / part / str(LABELS[row]) / f"{row:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(DEEP[row].astype(kind)).save(path)
    return root


def test_the_range_is_that_of_the_source_whatever_is_taken_of_it(tmp_path: Path) -> None:
    root, source = folders(tmp_path / "set"), arrays(tmp_path)
    taken: list[dict[str, object]] = [{"per_class": 3}, {"per_class": 2, "seed": 4}, {"classes": ("2", "1")}, {}]
    for keys in taken:
        made, same = load(root, val_fraction=0, **keys), load(source, val_fraction=0, **keys)
        assert made.levels == same.levels == (90, 4050)
        for split, other in ((made.train, same.train), (made.test, same.test)):
            assert sorted(image.tobytes() for image in split.images().numpy()) == sorted(
                image.tobytes() for image in other.images().numpy()
            )
    for wanted in (Wanted(("train",)), Wanted(("test",), 1), Wanted(("train", "val", "test"), 1, seed=3)):
        assert load_data(DataSettings(source=str(root), workers=1), wanted=wanted).levels == (90, 4050)


def test_images_that_are_not_taken_are_looked_at_only_where_that_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, original = list[int](), image_cache._spans_of
    monkeypatch.setattr(image_cache, "_spans_of", lambda items, *rest: asked.append(len(items)) or original(items, *rest))
    load(folders(tmp_path / "bytes", np.uint8), per_class=2)
    root = folders(tmp_path / "set")
    load(root, per_class=2, range=4095)
    assert asked == []
    (root / "train" / "0" / "bad.png").write_bytes(b"no image")
    first = load(root, per_class=2, seed=1, skip_bad=True)
    again = load(root, per_class=2, seed=1, skip_bad=True)
    assert (first.levels, again.fingerprint, asked) == ((90, 4050), first.fingerprint, [13])
    assert load(root, per_class=2, seed=1, range=(90, 4050), skip_bad=True).fingerprint == first.fingerprint
    Image.fromarray(DEEP[0] + np.uint16(60000)).save(root / "train" / "2" / "new.png")
    assert load(root, per_class=2, seed=1, skip_bad=True).levels == (90, int(DEEP[0].max()) + 60000)


def test_bytes_in_wider_numbers_are_bytes(tmp_path: Path) -> None:
    small = (DEEP % 256).astype(np.uint8)
    parts = [small[:18], LABELS[:18], small[18:], LABELS[18:]]
    expected = ImageSet.from_arrays(*parts)
    for kind in (np.int64, np.uint16, np.int32):
        parts[0] = small[:18].astype(kind)
        made = ImageSet.from_arrays(*parts)
        assert made.fingerprint == expected.fingerprint
    floats = ImageSet.from_arrays(small[:18].astype(np.float32), parts[1], small[18:].astype(np.float64), parts[3], range=255)
    assert (floats.fingerprint, floats.levels) == (expected.fingerprint, (0, 255))


def test_two_values_are_black_and_white_without_a_word() -> None:
    said = Said()
    made = load_object((DEEP > 2000, LABELS.astype(bytes)), DataSettings(), said)
    assert np.isin(made.train.images(), (0, 255)).all()
    assert (made.class_names, said.lines) == (("0", "1", "2"), [])


def test_python_hears_of_it_through_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "limbeck"):
        ImageSet.from_arrays(DEEP, LABELS + 1)
    assert "arrays: 24 of 24 images have more than 8 bits and numbers from 90 to 4050" in caplog.text
    assert "labels count from 1 to 3: 1 is class 0" in caplog.text


def test_a_range_that_nothing_has_a_use_for_is_said(tmp_path: Path) -> None:
    said = Said()
    source = str(arrays(tmp_path, x_train=(DEEP[:18] % 256).astype(np.uint8), x_test=(DEEP[18:] % 256).astype(np.uint8)))
    assert load_data(DataSettings(source=source, range=4095), said).levels is None
    assert said.lines == ["data.range: is not read, for no image has more than 8 bits"]


@pytest.mark.parametrize("value", [0, -1, [5, 5], [5, 4], [0, float("inf")], float("nan"), [1], "white"])
def test_ranges_that_are_none(value: object) -> None:
    with pytest.raises(UsageError, match=r"^data\.range: "):
        DataSettings(range=value)
