import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from limbeck.data.resize import resized

rng = np.random.default_rng(0)


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("height", "width"), [(64, 48), (48, 96), (60, 60)])
def test_centre_is_resize_and_then_crop(height: int, width: int) -> None:
    image = picture(height, width)
    scale = min(height, width) / 12
    whole = image.resize((round(width / scale), round(height / scale)), Image.Resampling.BILINEAR)
    top, left = (whole.height - 12) // 2, (whole.width - 12) // 2
    expected = np.asarray(whole)[top : top + 12, left : left + 12].transpose(2, 0, 1)
    np.testing.assert_array_equal(resized(image, 12, 12, "centre"), expected)


def test_squash_uses_all_pixels_and_centre_does_not() -> None:
    edges = np.zeros((20, 60), np.uint8)
    edges[:, :15] = edges[:, 45:] = 255
    assert resized(Image.fromarray(edges), 10, 10).max() == 255
    assert resized(Image.fromarray(edges), 10, 10, "centre").max() == 0


def test_an_image_of_the_wanted_size_is_left_alone() -> None:
    image = picture(9, 14)
    for crop in ("squash", "centre"):
        np.testing.assert_array_equal(resized(image, 9, 14, crop), np.asarray(image).transpose(2, 0, 1))


@given(*(st.integers(1, 90) for _ in range(4)))
@settings(max_examples=120, deadline=None)
def test_every_shape_is_reached(height: int, width: int, high: int, wide: int) -> None:
    level = resized(Image.new("L", (width, height), 130), high, wide, "centre")
    assert level.shape == (1, high, wide)
    assert (level == 130).all()
