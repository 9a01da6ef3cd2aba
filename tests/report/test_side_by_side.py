"""Sets beside each other: every tile is its image, classes are the same by name, and a page stays within its bytes."""

import base64
import io

import numpy as np
import pytest
from distilled.samples import changed, sample_set
from PIL import Image

from limbeck.distilled.contrast import shown
from limbeck.distilled.preview import quantise
from limbeck.distilled.set import DistilledSet
from limbeck.report import side_by_side
from limbeck.report.side_by_side import Shelf, Shelves, shelves


def tile(shelf: Shelf, place: int) -> np.ndarray:
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(shelf.image.partition(",")[2]))))
    top, left = place // shelf.columns * shelf.height, place % shelf.columns * shelf.width
    return sheet[top : top + shelf.height, left : left + shelf.width]


def made(**sets: DistilledSet) -> Shelves:
    found = shelves([(name, {"method": name}, held) for name, held in sets.items()])
    assert found is not None
    return found


def test_every_tile_is_its_image_and_classes_go_by_name() -> None:
    a, b = sample_set(names=("owl", "mole", "newt"), ipc=2), sample_set(names=("newt", "owl", "toad"), ipc=3)
    found = made(a=a, b=b)
    assert found.classes == ("owl", "mole", "newt", "toad")
    for shelf, held in zip(found.shelves, (a, b), strict=True):
        levels, classes = quantise(held.to_pixels()), held.classes.tolist()
        for label, places in zip(found.classes, shelf.places, strict=True):
            own = [k for k, at in enumerate(classes) if held.class_names[at] == label]
            assert len(places) == len(own)
            for k, place in zip(own, places, strict=True):
                assert np.array_equal(tile(shelf, place), levels[k])
    assert found.shelves[0].places[3] == () and found.shelves[1].places[1] == () and found.note == ""


def test_a_contrast_of_its_own_is_said() -> None:
    held = sample_set()
    loud = changed(held, images=4 * held.images)
    found = made(a=held, b=loud)
    levels, contrast = shown(loud)
    assert contrast.reduced and [shelf.contrast for shelf in found.shelves] == ["", contrast.short]
    assert np.array_equal(tile(found.shelves[1], found.shelves[1].places[0][0]), levels[0])


def test_no_sets_no_shelves() -> None:
    assert shelves([]) is None


def test_large_images_are_reduced_and_many_left_out_within_the_budget() -> None:
    held = sample_set(ipc=8, shape=(3, 96, 96))
    found = made(**{f"s{k}": held for k in range(40)})
    shelf = found.shelves[0]
    assert (shelf.height, shelf.width) == (64, 64) and {len(row) for row in shelf.places} == {4}
    pixels = sum(3 * one.height * one.width * sum(map(len, one.places)) for one in found.shelves)
    assert pixels <= side_by_side.BUDGET < pixels * 5 / 4
    assert found.note == "Of a class the first 4 of up to 8 images are shown. Images are reduced to 64 pixels."


def test_a_hundred_classes_of_ten_sets() -> None:
    names = tuple(f"class {k}" for k in range(100))
    found = made(**{f"s{k}": sample_set(names=names, ipc=1, shape=(3, 32, 32)) for k in range(10)})
    assert len(found.classes) == 100 and found.first == 10
    assert {len(row) for shelf in found.shelves for row in shelf.places} == {1}
    assert (found.shelves[0].height, found.note) == (32, "")


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels_are_grey(channels: int) -> None:
    held = sample_set(shape=(channels, 8, 8))
    (shelf,) = made(a=held).shelves
    grey = quantise(held.to_pixels()).mean(axis=3).round()
    assert np.array_equal(tile(shelf, shelf.places[0][0]), grey[0])
