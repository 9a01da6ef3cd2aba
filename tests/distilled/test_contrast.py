"""Images are shown as pixels with one contrast for a set, and what is cut off is told as it is."""

import numpy as np
import pytest
import torch
from distilled.samples import changed, sample_set

from limbeck.data.preprocessing import Identity, Normalise, Whiten
from limbeck.distilled.contrast import Contrast, shown, told
from limbeck.distilled.preview import preview, quantise


def test_what_a_camera_records_is_shown_as_it_is() -> None:
    pixels = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    contrast = Contrast.of(pixels)
    assert contrast == Contrast() and not contrast.reduced
    assert contrast.levels(pixels).flatten().tolist() == list(range(256))
    assert str(contrast) == "The contrast is the images' own: no value is darker than black or brighter than white."


def test_a_few_values_outside_are_cut_off_and_counted() -> None:
    pixels = torch.full((1, 1, 20, 50), 0.5)
    pixels.view(-1)[:10] = torch.tensor([-0.5, 1.5, -3, 9, 2, -1, 5, -2, 1 + 0.4 / 255, -0.4 / 255])
    contrast = Contrast.of(pixels)
    assert contrast == Contrast(0, 1, 0.008, 0.008)  # the last two are rounded, not cut off
    assert str(contrast).endswith("own: 0.8 % of the values are darker than black or brighter than white, and cut off.")
    assert np.array_equal(contrast.levels(pixels), quantise(pixels))


def test_of_many_values_outside_all_but_one_in_a_hundred_are_shown() -> None:
    values = torch.linspace(-1, 3, 4001, dtype=torch.float64)
    contrast = Contrast.of(values)
    assert contrast.low == pytest.approx(-0.98) and contrast.high == pytest.approx(2.98)
    # Outside: 999 values below 0 and 1999 above 1 by more than half a level, 0.00196; a value is 0.001 from the next.
    assert contrast.outside == pytest.approx((999 - 1 + 1999) / 4001, abs=1 / 4001)
    assert contrast.cut == pytest.approx((4001 - 3961 - 2 * 7) / 4001, abs=2 / 4001)
    assert str(contrast) == (
        f"{100 * contrast.outside:.1f} % of the values are darker than black (0) or brighter than white (1), so that all images of "
        f"the set are shown with less contrast, from −0.98 to 2.98; {100 * contrast.cut:.1f} % of the values are cut off."
    )


def test_contrast_is_never_raised_and_is_the_same_for_all_channels() -> None:
    pixels = torch.full((10, 3, 4, 4), 0.5)
    pixels[0, 1] = 2.0
    contrast = Contrast.of(pixels)
    assert (contrast.low, contrast.high) == (0, 2)
    levels = contrast.levels(pixels)
    assert levels.shape == (10, 4, 4, 3) and set(levels.flatten().tolist()) == {64, 255}
    assert Contrast.of(torch.full((1, 1, 2, 2), 0.4)) == Contrast()


@pytest.mark.parametrize("share", [1e-6, 0.0009])
def test_what_is_there_is_never_told_as_nothing(share: float) -> None:
    assert "less than 0.1 % of the values are" in str(Contrast(cut=share, outside=share))


def test_sets_are_shown_by_the_inverse_of_their_preprocessing() -> None:
    size, random = 3 * 8 * 8, torch.Generator().manual_seed(3)
    pixels = torch.rand(6, 3, 8, 8, generator=random) * 1.6 - 0.3
    root = torch.linalg.qr(torch.randn(size, size, generator=random, dtype=torch.float64)).Q
    matrix = (root * torch.linspace(0.5, 3, size, dtype=torch.float64)) @ root.T
    whiten = Whiten(torch.rand(size, generator=random), matrix.float(), matrix.inverse().float())
    expected = Contrast.of(pixels)
    assert expected.reduced
    for preprocessing, word in (
        (Normalise(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])), "normalised"),
        (whiten, "whitened"),
        (Identity(), ""),
    ):
        held = changed(sample_set(ipc=2, shape=(3, 8, 8), images=preprocessing.forward(pixels)), preprocessing=preprocessing)
        levels, contrast = shown(held)
        assert (contrast.low, contrast.high, contrast.outside) == pytest.approx(
            (expected.low, expected.high, expected.outside), abs=1e-4
        )
        exact = 255 * (pixels.double() - contrast.low) / (contrast.high - contrast.low)
        assert np.abs(levels - exact.clamp(0, 255).permute(0, 2, 3, 1).numpy()).max() < 0.51
        assert told(preprocessing, contrast).startswith(
            f"Networks take these images {word}; they are shown as pixels." if word else ""
        )


def test_previews_are_made_with_the_same_contrast() -> None:
    pixels = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 3 - 1
    held = changed(sample_set(shape=(3, 64, 64), images=pixels), preprocessing=Identity())
    levels, contrast = shown(held)
    sheet = np.array(preview(held))
    found = [left for left in range(sheet.shape[1] - 63) if np.array_equal(sheet[4:68, left : left + 64], levels[0])]
    assert contrast.reduced and len(found) == 1
