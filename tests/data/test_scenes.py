from dataclasses import replace

import numpy as np
import pytest
from reference.blending import blended

from limbeck.data import scenes
from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.scenes import LEVELS, backgrounds, draw, handwriting, inks, render
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError


@pytest.fixture(scope="module")
def easy() -> ImageSet:
    return load_data(DataSettings())


def test_counts_shape_and_classes(easy: ImageSet) -> None:
    assert easy.shape == (3, 32, 32)
    assert easy.class_names == tuple("0123456789")
    for split, count in ((easy.train, 270), (easy.val, 30), (easy.test, 100)):
        assert np.bincount(split.labels).tolist() == [count] * 10
        assert split.boxes is not None
        assert split.boxes.shape == (10 * count, 4)


def test_scenes_are_the_easy_ones(easy: ImageSet) -> None:
    named = load_data(DataSettings(source="scenes:easy", per_class=300))
    assert named.fingerprint == easy.fingerprint
    assert np.array_equal(named.test.storage, easy.test.storage)


def test_the_seed_draws_everything(easy: ImageSet) -> None:
    keys = {"per_class": 5, "size": 16}
    first, again, other = (load_data(DataSettings(seed=seed, **keys)) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    assert not np.array_equal(first.test.storage, other.test.storage)


@pytest.mark.parametrize("level", LEVELS)
def test_levels_differ_in_the_side_of_the_digit_alone(level: str) -> None:
    draws, easy = draw(0, "train", 40, LEVELS[level]), draw(0, "train", 40, LEVELS["easy"])
    low, high = LEVELS[level]
    assert low <= draws.side.min() < low + 0.02
    assert high - 0.02 < draws.side.max() <= high
    for name in ("labels", "digits", "place", "photographs", "crop_side", "crop_place", "colours"):
        assert np.array_equal(getattr(draws, name), getattr(easy, name))
    # A digit fills its square from top to bottom, but for the row or two that the scaling blurs.
    heights = np.ptp(inks(draws, 64, 64)[1][:, [0, 2]], axis=1)
    assert (heights <= np.rint(draws.side * 64)).all()
    assert (heights >= draws.side * 64 * 0.85 - 1).all()


def test_train_and_test_show_different_handwriting() -> None:
    train, test = draw(0, "train", 60, (0.5, 0.6)), draw(0, "test", 60, (0.5, 0.6))
    assert not set(train.digits) & set(test.digits)
    assert train.digits.max() < test.digits.min()  # the data set is ordered by writer
    from sklearn.datasets import load_digits

    target = load_digits().target
    assert np.array_equal(target[train.digits], train.labels)
    assert np.array_equal(target[test.digits], test.labels)
    written = [handwriting(part, k) for part in ("train", "test") for k in range(10)]
    assert sorted(np.concatenate(written)) == list(range(1797))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (24, 40), (50, 17)])
def test_boxes_hold_the_digit_tightly(height: int, width: int) -> None:
    draws = draw(3, "test", 15, LEVELS["hard"])
    images, boxes = render(draws, height, width)
    bare = backgrounds(draws, height, width).transpose(0, 3, 1, 2)
    ink, _ = inks(draws, height, width)
    for image, background, drawn, (top, left, bottom, right) in zip(images, bare, ink, boxes, strict=True):
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        outside = np.ones((height, width), dtype=bool)
        outside[top:bottom, left:right] = False
        assert np.array_equal(image[:, outside], background[:, outside])
        rows, columns = np.nonzero(drawn)
        assert (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1) == (top, left, bottom, right)
        assert np.abs(image.astype(int) - background)[:, top:bottom, left:right].max() > 60  # to be seen


def test_images_are_the_blend_pixel_by_pixel() -> None:
    draws = draw(1, "train", 1, LEVELS["medium"])
    images, _ = render(draws, 12, 14)
    ink, _ = inks(draws, 12, 14)
    for i, image in enumerate(images):
        expected = blended(backgrounds(draws, 12, 14)[i].astype(float), ink[i].astype(float), draws.colours[i], scenes.CONTRAST)
        assert np.abs(image - expected).max() <= 0.501  # rounded


def test_a_colour_stands_out_where_any_candidate_does() -> None:
    colours = np.array([[[0.5, 0.5, 0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]] * 3)
    under = np.array([[0.1] * 3, [0.55] * 3, [1.0] * 3])
    assert scenes.contrasting(colours, under).tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3]


def test_every_digit_leaves_ink_at_the_smallest_size() -> None:
    draws = draw(0, "train", 180, (0.35, 0.35))
    everything = replace(draws[slice(0, 1797)], digits=np.arange(1797))
    assert inks(everything, 8, 8)[0].max(axis=(1, 2)).min() > 0.2


def test_a_size_shows_the_same_scenes_larger() -> None:
    draws = draw(0, "train", 3, LEVELS["easy"])
    small, large = render(draws, 32, 32)[1] / 32, render(draws, 96, 96)[1] / 96
    assert np.abs(small - large).max() < 0.1


@pytest.mark.parametrize("source", ["scenes:", "scenes:simple", "scenes:easy:2"])
def test_unknown_level(source: str) -> None:
    with pytest.raises(UsageError, match=r"^data\.source: 'scenes:[^\n]*' is not scenes or scenes:easy\|medium\|hard$"):
        load_data(DataSettings(source=source))
