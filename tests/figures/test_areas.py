"""The distribution of areas, their way, and the plane of features show the numbers they are given."""

import numpy as np
from matplotlib.colors import to_hex

from limbeck.figures import area_curve, area_distribution, feature_plane
from limbeck.figures.style import BLUE, DASHES, MUTED, ORANGE, PAPER, SERIES


def test_the_distribution_steps_at_every_image() -> None:
    figure = area_distribution({"first": np.array([0.5, 0.1, 0.1, 0.9]), "last": np.array([0.3])})
    one, marks, two, other, _ = figure.axes[0].get_lines()
    assert one.get_xydata().tolist() == [[0, 0], [10, 25], [10, 50], [50, 75], [90, 100], [100, 100]]
    assert two.get_xydata().tolist() == [[0, 0], [30, 100], [100, 100]]
    assert [to_hex(line.get_color()) for line in (one, marks, two, other)] == [BLUE, BLUE, ORANGE, ORANGE]
    assert marks.get_xdata().tolist() == [10, 10, 50, 90] and (marks.get_ydata() < 0).all()
    assert two.get_linestyle() == "--" and one.get_linestyle() == "-" and DASHES[ORANGE] != DASHES[BLUE]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "last"]


def test_the_curve_is_the_mean_within_the_middle_half() -> None:
    figure = area_curve([0, 100], [np.array([0.1, 0.2, 0.3, 0.4, 1.0]), np.array([0.5])])
    (line,), (band,) = figure.axes[0].get_lines(), figure.axes[0].collections
    np.testing.assert_allclose(line.get_xydata(), [[0, 40], [100, 50]])
    points = {(float(x), round(float(y), 6)) for x, y in band.get_paths()[0].vertices}
    assert points == {(0, 20), (0, 40), (100, 50)}


def test_classes_differ_in_colour_and_shape_and_paths_begin_at_rings() -> None:
    real, real_classes = np.arange(12.0).reshape(6, 2), np.array([0, 0, 1, 1, 7, 7])
    paths = np.stack([np.zeros((2, 2)), np.ones((2, 2))])
    figure = feature_plane(real, real_classes, paths, np.array([0, 7]), [f"c{k}" for k in range(8)])
    marks = figure.axes[0].collections
    known = [np.asarray(one.get_offsets()) for one in marks]
    np.testing.assert_array_equal(known[0], real[:2])
    ends = [one for one in marks if len(one.get_offsets()) == 1 and to_hex(one.get_facecolor()[0]) != PAPER]
    rings = [one for one in marks if len(one.get_offsets()) == 1 and to_hex(one.get_facecolor()[0]) == PAPER]
    assert [one.get_offsets().tolist() for one in ends] == [[[1, 1]]] * 2 and [one.get_offsets().tolist() for one in rings] == [
        [[0, 0]]
    ] * 2
    assert [to_hex(one.get_facecolor()[0]) for one in ends] == [SERIES[0], SERIES[7 % 6]]
    shapes = {handle.get_marker() for handle in figure.legends[0].legend_handles}
    assert len(shapes) == 8 and [text.get_text() for text in figure.legends[0].get_texts()] == [f"c{k}" for k in range(8)]


def test_many_classes_have_no_colours() -> None:
    figure = feature_plane(
        np.zeros((3, 2)), np.array([0, 5, 30]), np.zeros((1, 2, 2)), np.array([1, 2]), [f"c{k}" for k in range(40)]
    )
    assert not figure.legends
    assert [to_hex(one.get_facecolor()[0]) for one in figure.axes[0].collections] == [MUTED, BLUE]
