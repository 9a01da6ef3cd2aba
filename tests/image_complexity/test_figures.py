"""Figures show the numbers they are given."""

import warnings
from collections.abc import Sequence

import numpy as np
import pytest

from limbeck.accuracy import Accuracy
from limbeck.figures.complexity import MOST_CLASSES, Picture, class_distribution, class_ranking, extreme_images, map_statistics
from limbeck.figures.style import png
from limbeck.image_complexity.results import ClassRow, Look, Looked, Summary
from limbeck.image_complexity.settings import ComplexitySettings


def results(values: list[float | None], names: Sequence[str] = ()) -> Summary:
    classes = [
        ClassRow(
            index=k,
            name=names[k] if names else f"class {k}",
            images=1,
            complexities={"complexity_0.5": value, "complexity_0.1": value and value / 2},
            ci95=None if k else (0.0, 120.0),
        )
        for k, value in enumerate(values)
    ]
    histogram = [0] * 50
    histogram[10], histogram[20] = 3, 1
    return Summary(
        complexity=50.0,
        spread=Accuracy(),
        by_threshold={"0.5": 50.0, "0.1": 25.0},
        classes=tuple(classes),
        histograms={"mean_activation": tuple(histogram), "area": tuple(histogram)},
        mean_activation=23.0,
        area=23.0,
        images=4,
        network=Look(name="tiny", layers=("pool",)),
        data=Looked(fingerprint="", splits=("train",), source="photos"),
        settings=ComplexitySettings(),
        environment={},
    )


def test_a_dash_for_every_class_and_threshold() -> None:
    axes = class_distribution(results([10.0, 60.0, None, 60.0])).axes[0]
    dashes = [line.get_xdata().tolist() for line in axes.get_lines() if line.get_marker() == "|"]
    assert dashes == [[5.0, 30.0, 30.0], [10.0, 60.0, 60.0]]
    steps = [line for line in axes.get_lines() if line.get_drawstyle() == "steps-post"]
    assert [line.get_label() for line in steps] == ["activation ≥ 0.1", "activation ≥ 0.5"]
    assert [line.get_ydata().sum() for line in steps] == [3, 3]


@pytest.mark.parametrize("values", [[50.0], [None, None], [30.0] * 3])
def test_one_class_none_and_equal_ones(values: list[float | None]) -> None:
    class_distribution(results(values)).canvas.draw()
    class_ranking(results(values)).canvas.draw()


def test_ranking_shows_both_ends_of_many() -> None:
    values = np.random.default_rng(0).permutation(np.linspace(10, 90, 100)).tolist()
    axes = class_ranking(results(values)).axes[0]
    shown = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "o"]
    half = MOST_CLASSES // 2
    assert shown == pytest.approx(sorted(values)[:half] + sorted(values)[-half:])
    assert "60 between them" in axes.get_xlabel()


def test_names_are_as_they_are_written() -> None:
    found = results([10.0, 20.0, 30.0], ("$x_{$", "cost $5 and $6_", "\U0010fffd"))
    figure = class_ranking(found)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["$x_{$", "cost $5 and $6_", "class 2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png(figure)
        statistics = map_statistics({"$x_{$": found, "_b": found})
        png(statistics)
    assert [text.get_text().strip() for text in statistics.legends[0].get_texts()] == ["$x_{$", "_b"]


def test_statistics_are_shares_of_the_images() -> None:
    figure = map_statistics({"one": results([50.0]), "other": results([50.0])})
    for axes in figure.axes[:2]:
        steps = [line for line in axes.get_lines() if line.get_drawstyle() == "steps-post"]
        assert [line.get_ydata().max() for line in steps] == [75, 75]


def test_extremes_draw_image_map_and_outline() -> None:
    image, grey = np.zeros((3, 8, 8), dtype=np.uint8), np.zeros((1, 8, 8), dtype=np.uint8)
    active = np.linspace(0, 1, 64).reshape(8, 8)
    rows = {
        "easiest": [Picture(image, active, "20 %")],
        "hardest": [Picture(grey, 0 * active, "")],
    }
    figure = extreme_images(rows, 0.5)
    assert len(figure.axes) == 4
    assert [len(axes.get_images()) for axes in figure.axes] == [1, 2, 1, 2]
    assert [len(axes.collections) for axes in figure.axes] == [0, 1, 0, 0]
    extreme_images({"easiest": [], "hardest": []}, 0.5).canvas.draw()
