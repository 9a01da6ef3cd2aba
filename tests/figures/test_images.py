"""Grids show every pixel of the images they are given, and as many classes as have a place."""

from itertools import pairwise

import numpy as np
import pytest
from distilled.samples import sample_set

from limbeck.distilled.contrast import shown as contrasted
from limbeck.figures import Strip, image_grid, overlaid, strips_of
from limbeck.figures.images import SMALLEST, coloured, shown
from limbeck.figures.style import MARK

IMAGENETTE = (
    *("tench", "English springer", "cassette player", "chain saw", "church"),
    *("French horn", "garbage truck", "gas pump", "golf ball", "parachute"),
)


def picture_of(figure: object) -> np.ndarray:
    """The one picture of a grid, and inches of one of its dots."""
    (image,) = figure.axes[0].get_images()
    return np.asarray(image.get_array())


def strips(count: int, images: int, shape: tuple[int, int] = (8, 8)) -> list[Strip]:
    random = np.random.default_rng(1)
    return [Strip(f"class {k}", random.integers(0, 256, (images, *shape, 3), dtype=np.uint8)) for k in range(count)]


def tiles(picture: np.ndarray) -> list[np.ndarray]:
    """What lies between the clear gaps, row by row, one dot for every block of dots of one colour."""
    seen = picture[..., 3] > 0
    rows, columns = runs(seen.any(axis=1)), runs(seen.any(axis=0))
    return [picture[a:b, c:d, :3] for a, b in rows for c, d in columns if seen[a:b, c:d].all()]


def runs(filled: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.r_[0, filled.astype(int), 0]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@pytest.mark.parametrize(("count", "images", "shape"), [(3, 2, (8, 8)), (4, 1, (8, 8)), (2, 3, (6, 10))])
def test_every_pixel_is_a_square_of_dots(count: int, images: int, shape: tuple[int, int]) -> None:
    given = strips(count, images, shape)
    figure = image_grid(given)
    found = tiles(picture_of(figure))
    assert len(found) == count * images
    wanted = {one.tobytes() for strip in given for one in strip.images}
    for tile in found:
        factor = tile.shape[0] // shape[0]
        assert tile.shape == (shape[0] * factor, shape[1] * factor, 3) and factor >= 8
        small = tile[::factor, ::factor]
        np.testing.assert_array_equal(small.repeat(factor, axis=0).repeat(factor, axis=1), tile)
        wanted.remove(np.ascontiguousarray(small).tobytes())
    assert not wanted
    assert [text.get_text() for text in figure.axes[0].texts] == [strip.name for strip in given]


def test_images_of_a_set_have_its_contrast() -> None:
    held = sample_set(ipc=3)
    levels, _ = contrasted(held)
    found = strips_of(held, most=2)
    assert [strip.name for strip in found] == ["owl", "mole", "newt"]
    for k, strip in enumerate(found):
        np.testing.assert_array_equal(strip.images, levels[3 * k : 3 * k + 2])
    grey = np.array([[[[10, 20]]]], dtype=np.uint8)
    assert coloured(grey).tolist() == [[[[15, 15, 15]]]]


@pytest.mark.parametrize(("count", "images", "place"), [(10, 1, 10), (10, 10, 10), (100, 1, 100), (100, 10, 100), (1000, 1, 1000)])
def test_a_page_has_place_for(count: int, images: int, place: int) -> None:
    given = [Strip("n", np.zeros((images, 2, 2, 3), dtype=np.uint8))] * count
    assert shown(given) == place
    width, height = image_grid(given).get_size_inches()
    assert width <= 8.5 + 1e-6 and height <= 10.6


def test_what_has_no_place_is_left_out_and_counted() -> None:
    given = [Strip("a long name of a class", np.zeros((10, 2, 2, 3), dtype=np.uint8))] * 500
    place = shown(given)
    figure = image_grid(given)
    assert 40 < place < 500 and len(figure.axes[0].texts) == place
    assert figure.get_size_inches()[1] <= 10.6
    side = 10.5 / (place / round(place * SMALLEST * 1.06 / 10.5))
    assert side >= SMALLEST


def test_heads_stand_over_the_columns_and_names_are_drawable() -> None:
    given = [
        Strip("$x_{$ \U0010fffd", np.zeros((2, 4, 4, 3), dtype=np.uint8)),
        Strip("b" * 40, np.zeros((2, 4, 4, 3), dtype=np.uint8)),
    ]
    figure = image_grid(given, ("0", "400"), width=4.0)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == [f"$x_{{$ {MARK}", "b" * 23 + "…", "0", "400"]
    assert not any(text.get_parse_math() for text in figure.axes[0].texts)


@pytest.mark.parametrize(
    ("count", "images", "heads"),
    [(2, 10, IMAGENETTE), (3, 3, ("tench", "church", "gas pump")), (100, 6, ("0", "2000", "4000", "6000", "8000", "10000"))],
)
def test_heads_do_not_run_into_each_other(count: int, images: int, heads: tuple[str, ...]) -> None:
    figure = image_grid(strips(count, images), heads, blocks=1 if count < 100 else None)
    figure.canvas.draw()
    said = figure.axes[0].texts[count:]
    assert [text.get_text() for text in said[:: len(said) // images]] == list(heads), "whole words"
    boxes = sorted((text.get_window_extent() for text in said), key=lambda box: box.x0)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert all(box.y1 <= figure.bbox.y1 for box in boxes) and figure.get_size_inches()[1] <= 10.6
    assert {text.get_rotation() for text in said} == {0.0 if images == 3 else 90.0}


def test_maps_lie_over_grey() -> None:
    images = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    images[0, :2] = (30, 60, 90)  # 60 in grey
    mixed = overlaid(images, np.array([[[0.0, 1.0], [0.0, 1.0]]]))
    low, high = np.array([0.001462, 0.000466, 0.013866]), np.array([0.988362, 0.998364, 0.644924])  # the ends of inferno
    np.testing.assert_allclose(mixed[0, 0, 0], 0.4 * 60 + 0.6 * 255 * low, atol=0.5)
    np.testing.assert_allclose(mixed[0, 0, 3], 0.4 * 60 + 0.6 * 255 * high, atol=0.5)
    np.testing.assert_allclose(mixed[0, 3, 3], 0.6 * 255 * high, atol=0.5)
    assert (mixed[0, 0, 0] == mixed[0, 1, 1]).all()
