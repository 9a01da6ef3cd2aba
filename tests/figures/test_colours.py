"""The palettes tell series apart for people who do not see all colours, by day and by night."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import limbeck.report
from limbeck.figures.style import BLUE, DASHES, GREEN, MARKERS, ORANGE, PAPER, RED, SERIES, VARIABLES

# What is seen, in linear RGB, without one of the three kinds of cones: G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A
# physiologically-based model for simulation of color vision deficiency", IEEE TVCG 15 (2009), severity 1.
SEEN = {
    "everything": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
WHITE = np.array([0.95047, 1.0, 1.08883])
APART = 25  # in CIELAB, where 2.3 can just be told apart
CSS = Path(limbeck.report.__file__).parent / "templates" / "page.css.j2"


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB under D65."""
    t = XYZ @ np.clip(light, 0, 1) / WHITE
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) + 0.05 for colour in (one, other))
    return high / low


def nearest(colours: tuple[str, ...], seen: str) -> float:
    found = [lab(np.array(SEEN[seen]) @ linear(colour)) for colour in colours]
    return min(float(np.linalg.norm(a - b)) for a, b in combinations(found, 2))


def by_night() -> tuple[str, ...]:
    """The four colours of a dark page."""
    text = CSS.read_text(encoding="utf-8")
    values = [set(re.findall(rf"--figure-{name}: (#\w+)", text)) for name in ("blue", "orange", "green", "red")]
    by_day = (BLUE, ORANGE, GREEN, RED)
    assert all(day in found and len(found) == 2 for day, found in zip(by_day, values, strict=True)), "files are as a light page is"
    return tuple(next(iter(found - {day})) for day, found in zip(by_day, values, strict=True))


def test_the_distance_is_that_of_cielab() -> None:
    np.testing.assert_allclose(lab(linear("#ffffff")), [100, 0, 0], atol=0.02)
    np.testing.assert_allclose(lab(linear("#ff0000")), [53.24, 80.09, 67.20], atol=0.02)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_an_earlier_palette_was_not_told_apart() -> None:
    assert nearest(("#1a8055", "#c7354a"), "deuteranopia") < 17 < 80 < nearest(("#1a8055", "#c7354a"), "everything")


@pytest.mark.parametrize("seen", SEEN)
def test_all_series_are_told_apart_on_paper(seen: str) -> None:
    assert nearest(SERIES, seen) > APART


@pytest.mark.parametrize("seen", SEEN)
def test_all_colours_are_told_apart_by_night(seen: str) -> None:
    assert nearest(by_night(), seen) > APART


def test_every_series_stands_out_from_the_paper() -> None:
    assert all(contrast(colour, PAPER) > 3 for colour in SERIES)
    assert all(contrast(colour, "#1a1e24") > 4.5 for colour in by_night())


def test_every_colour_has_a_dash_and_a_marker_of_its_own() -> None:
    assert len(set(DASHES.values())) == len(set(MARKERS.values())) == len(SERIES) == len(DASHES) == len(MARKERS)
    assert set(DASHES) == set(MARKERS) == set(SERIES) <= set(VARIABLES)
