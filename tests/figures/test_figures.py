"""Figures show the numbers they are given."""

import re

import numpy as np
import pytest
from distilled.samples import summary
from matplotlib.colors import to_hex

from limbeck.evaluation.statistics import summarise
from limbeck.figures import curves
from limbeck.figures.comparisons import BESIDE, accuracy_figure
from limbeck.figures.curves import kept_share
from limbeck.figures.dropped import dropped_map
from limbeck.figures.reproduction import item_figure
from limbeck.figures.style import BLUE, ORANGE, RED, VARIABLES, inline_svg, new_axes

ROWS = [
    {
        "iteration": 0,
        "loss": 0.9,
        "skipped": False,
        "syn_lr": 0.1,
        "grad_norm_images": 2.0,
        "grad_norm_labels": 0.0,
        "grad_lr": -0.5,
    },
    {
        "iteration": 1,
        "loss": 4.0,
        "skipped": True,
        "syn_lr": 0.1,
        "grad_norm_images": None,
        "grad_norm_labels": 0.2,
        "grad_lr": 0.25,
    },
    {
        "iteration": 2,
        "loss": None,
        "skipped": True,
        "syn_lr": 0.1,
        "grad_norm_images": 3.0,
        "grad_norm_labels": 0.3,
        "grad_lr": None,
    },
    {
        "iteration": 3,
        "loss": 0.7,
        "skipped": False,
        "syn_lr": 0.2,
        "grad_norm_images": 4.0,
        "grad_norm_labels": 0.4,
        "grad_lr": 0.0,
    },
]


def lines(figure: object, colour: str) -> list[list[list[float]]]:
    """The points of every line of that colour, without gaps."""
    found = [line.get_xydata() for line in figure.axes[0].get_lines() if to_hex(line.get_color()) == colour]
    return [points[np.isfinite(points).all(axis=1)].tolist() for points in found]


def test_loss_is_logarithmic_and_leaves_out_what_was_skipped() -> None:
    figure = curves.loss_curve(ROWS)
    assert figure.axes[0].get_yscale() == "log"
    assert lines(figure, BLUE)[0] == [[0.0, 0.9], [3.0, 0.7]]
    with_loss, without = lines(figure, RED)
    assert with_loss == [[1.0, 4.0]] and [point[0] for point in without] == [2.0]
    assert "skipped (2)" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_loss_of_nothing_but_nulls() -> None:
    rows = [{"iteration": k, "loss": None, "skipped": True} for k in range(3)]
    figure = curves.loss_curve(rows)
    assert figure.axes[0].get_yscale() == "linear"
    assert "<svg" in inline_svg(figure, "loss", "Loss")


def test_accuracy_in_percent_with_its_interval_and_the_best_ringed() -> None:
    rows = [{"iteration": 100 * k, "accuracy": summary(mean), "best": mean in (0.1, 0.3)} for k, mean in enumerate((0.1, 0.3, 0.2))]
    rows.append({"iteration": 300, "accuracy": {"mean": 0.25, "std": None, "ci95": None}, "best": False})
    figure = curves.accuracy_curve(rows)
    np.testing.assert_allclose(lines(figure, BLUE)[0], [[0, 10], [100, 30], [200, 20], [300, 25]])
    intervals, ring = figure.axes[0].collections
    spans = [segment[:, 1] for segment in intervals.get_segments()[:3]]  # the fourth is unknown
    np.testing.assert_allclose(spans, [[m - 1.488, m + 1.488] for m in (10, 30, 20)])
    np.testing.assert_allclose(ring.get_offsets(), [[100, 30]])
    assert curves.best_row(rows) == 1
    assert curves.best_row([{"accuracy": {"mean": 0.1}}, {"accuracy": {"mean": 0.4}}, {"accuracy": {"mean": 0.2}}]) == 1


def test_step_size_and_gradients() -> None:
    (points, _) = lines(curves.step_size_curve(ROWS), VARIABLE["green"])
    assert points == [[0.0, 0.1], [1.0, 0.1], [2.0, 0.1], [3.0, 0.2]]
    figure = curves.gradient_curves(ROWS)
    assert lines(figure, BLUE)[0] == [[0.0, 2.0], [2.0, 3.0], [3.0, 4.0]]
    assert lines(figure, ORANGE)[0] == [[1.0, 0.2], [2.0, 0.3], [3.0, 0.4]]  # a norm of 0 has no logarithm
    assert lines(figure, VARIABLE["green"])[0] == [[0.0, 0.5], [1.0, 0.25]]


VARIABLE = {name: colour for colour, name in VARIABLES.items()}


def test_comparison() -> None:
    rows = [{"iteration": 0, "cosine": 0.99, "norm_ratio": 1.1}, {"iteration": 50, "cosine": None, "norm_ratio": 1.2}]
    figure = curves.comparison_curves(rows)
    assert lines(figure, BLUE)[0] == [[0.0, 0.99]] and lines(figure, ORANGE)[0] == [[0.0, 1.1], [50.0, 1.2]]


def test_blocks_hold_median_and_range() -> None:
    x, y = np.arange(12.0), np.array([5, 1, 3, np.nan, 2, 4, np.nan, np.nan, np.nan, 7, 7, 9.0])
    middle, median, low, high = curves.blocks(x, y, most=4)
    np.testing.assert_array_equal(middle, [1, 4, 7, 10])
    np.testing.assert_array_equal(median, [3, 3, np.nan, 7])
    np.testing.assert_array_equal(low, [1, 2, np.nan, 7])
    np.testing.assert_array_equal(high, [5, 4, np.nan, 9])
    assert curves.blocks(x, y, most=12)[1] is y


def test_long_curves_stay_short() -> None:
    rows = [{"iteration": k, "loss": 0.5 + 0.1 * (k % 2), "skipped": k % 3 == 0} for k in range(5000)]
    svg = inline_svg(curves.loss_curve(rows), "loss", "Loss")
    assert len(svg) < 80_000


def test_kept_shares_from_the_first_layer_down() -> None:
    figure = kept_share([{"a.weight": 0.5, "b.weight": 0.9}, {"a.weight": 0.7, "b.weight": 0.8}])
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([70, 80])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a.weight", "b.weight"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    np.testing.assert_allclose([segment[:, 0] for segment in axes.collections[0].get_segments()], [[50, 70], [80, 90]])
    assert not kept_share([{"a.weight": 1.0}]).axes[0].collections


def test_svg_takes_its_colours_from_the_page() -> None:
    figure, axes = new_axes()
    axes.plot([0, 1], [0, 1], color=BLUE)
    axes.set_title("a < b & c")
    svg = inline_svg(figure, "one", 'he said "x" <b>')
    assert svg.startswith('<svg class="figure" viewBox="0 0 ') and svg.rstrip().endswith("</svg>")
    assert f"var(--figure-blue, {BLUE})" in svg and not re.search(rf"(?<!, ){BLUE}", svg)
    assert 'aria-label="he said &quot;x&quot; &lt;b&gt;"' in svg and "a &lt; b &amp; c" in svg
    assert "font-family" not in svg and "<metadata" not in svg and "http" not in svg
    other = inline_svg(figure, "two", "")
    assert not set(re.findall(r'\bid="([^"]+)"', svg)) & set(re.findall(r'\bid="([^"]+)"', other))
    assert inline_svg(figure, "two", "") == other


def test_what_is_dropped_is_drawn_by_layer_and_iteration() -> None:
    shares = [{"first": 1.0, "last": 0.75}, {"first": 0.9, "last": 0.5}, {"last": 0.25}]
    figure = dropped_map([100, 200, 500], shares)
    (mesh,) = figure.axes[0].collections
    values = mesh.get_array()
    np.testing.assert_allclose(values.filled(-1), [[0, 10, -1], [25, 50, 75]])
    assert mesh.get_coordinates()[0, :, 0].tolist() == [50, 150, 350, 650]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["first", "last"]
    assert figure.axes[0].get_ylim() == (2, 0)  # the first layer above
    assert mesh.get_clim() == (0, 75)
    assert figure.axes[0].get_xticks().tolist() == [100, 200, 500]  # where the columns are


def test_a_long_run_has_few_columns_and_one_snapshot_has_one() -> None:
    (mesh,) = dropped_map(range(0, 3000, 10), [{"a": k / 300} for k in range(300)]).axes[0].collections
    assert mesh.get_array().shape == (1, 100)
    assert [mesh.get_array()[0, k] for k in (0, -1)] == pytest.approx([100, 100 / 300])
    (mesh,) = dropped_map([7], [{"a": 1.0}]).axes[0].collections
    assert mesh.get_coordinates()[0, :, 0].tolist() == [6.5, 7.5]


def test_rows_of_items_are_drawn_as_those_of_comparisons() -> None:
    """The mean, its interval and every run below it, at the same places and as large."""
    given = {"edf": summarise([0.4, 0.5, 0.45]), "datm": summarise([0.3])}
    item = item_figure(given, "accuracy, %", 100)
    assert item is not None
    (ours,), (theirs,) = item.axes, accuracy_figure(given, "accuracy, %").axes
    marks = [[(one.get_offsets().tolist(), list(one.get_sizes())) for one in axes.collections[::2]] for axes in (ours, theirs)]
    assert marks[0] == marks[1] and marks[0][0][0] == [[pytest.approx(x), pytest.approx(BESIDE)] for x in (40, 50, 45)]
    assert [axes.get_xlabel() for axes in (ours, theirs)] == ["accuracy, %"] * 2
    assert [[text.get_text() for text in axes.get_yticklabels()] for axes in (ours, theirs)] == [["edf", "datm"]] * 2
