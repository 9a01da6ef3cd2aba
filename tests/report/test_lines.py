"""Where curves and ticks lie, by hand."""

import numpy as np
import pytest

from limbeck.report.lines import HEIGHT, MOST_POINTS, WIDTH, Line, chart, points_of, ticks


def line(name: str, x: list[float], y: list[float], group: str = "") -> Line:
    return Line(name, group or name, {"method": name}, np.array(x, dtype=float), np.array(y, dtype=float))


def test_paths_span_the_plane() -> None:
    held = chart("c", "C", "y", [line("a", [0, 10, 20], [0.0, 1.0, 0.5])])
    assert held is not None
    low, high = HEIGHT * (1 - 0.05 / 1.1), HEIGHT * 0.05 / 1.1  # a margin of a twentieth of the range
    (a,) = held.curves
    assert a.d == f"M0.0 {low:.1f}L{WIDTH / 2:.1f} {high:.1f}L{WIDTH:.1f} {HEIGHT / 2:.1f}"
    assert a.last == "0.5 after 20 iterations"
    assert [(tick.at, tick.text) for tick in held.x_ticks] == [(0.0, "0"), (25.0, "5"), (50.0, "10"), (75.0, "15"), (100.0, "20")]


def test_groups_have_styles_of_their_own() -> None:
    held = chart("c", "C", "y", [line(f"r{k}", [0, 1], [k, k], group=f"g{k // 2}") for k in range(20)])
    assert held is not None
    assert held.legend[:3] == (("g0", 0, 0), ("g1", 1, 0), ("g2", 2, 0)) and held.legend[8] == ("g8", 0, 1)
    assert [(one.colour, one.dash) for one in held.curves[:3]] == [(0, 0), (0, 0), (1, 0)]
    assert len({(colour, dash) for _, colour, dash in held.legend}) == 10


def test_logarithms_leave_out_what_is_not_positive() -> None:
    held = chart("c", "C", "loss", [line("a", [0, 1, 2], [100.0, 0.0, 1.0]), line("b", [0], [-1.0])], log=True)
    assert held is not None
    assert [one.name for one in held.curves] == ["a"] and held.curves[0].d.count("L") == 1
    assert [tick.text for tick in held.y_ticks] == ["1", "2", "5", "10", "20", "50", "100"]
    assert held.y_ticks[3].at == pytest.approx(50)


def test_a_short_range_of_logarithms_has_round_ticks() -> None:
    held = chart("c", "C", "loss", [line("a", [0, 1], [160.0, 240.0])], log=True)
    assert held is not None and [tick.text for tick in held.y_ticks] == ["160", "180", "200", "220", "240"]


@pytest.mark.parametrize("ends", [(0.9991, 0.9998), (123.2, 124.8)])
def test_ticks_of_a_narrow_range_of_logarithms_are_told_apart(ends: tuple[float, float]) -> None:
    held = chart("c", "C", "loss", [line("a", [0, 1], list(ends))], log=True)
    assert held is not None
    said = [float(tick.text) for tick in held.y_ticks]
    assert len(set(said)) == len(said) >= 3 and all(ends[0] * 0.999 < value < ends[1] * 1.001 for value in said)


def test_constants_and_single_points_are_drawn() -> None:
    held = chart("c", "C", "y", [line("a", [5], [0.01])])
    assert held is not None
    point = f"{WIDTH / 2:.1f} {HEIGHT / 2:.1f}"
    assert held.curves[0].d == f"M{point}L{point}"
    assert all(0.009 <= float(tick.text) <= 0.011 for tick in held.y_ticks)


def test_nothing_to_draw_is_no_chart() -> None:
    assert chart("c", "C", "y", []) is None
    assert chart("c", "C", "y", [line("a", [0], [np.nan])]) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 60, [0, 10, 20, 30, 40, 50, 60]), (0.13, 0.31, [0.15, 0.2, 0.25, 0.3]), (-3, 3, [-3, -2, -1, 0, 1, 2, 3])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_long_curves_become_medians_of_blocks() -> None:
    rows = [{"iteration": k, "loss": 1000.0 if k % 10 == 3 else 1.0} for k in range(10 * MOST_POINTS)]
    x, y = points_of([*rows, {"iteration": 5, "loss": None}, {"iteration": None, "loss": 2.0}], "loss", 100)
    assert x.tolist() == list(range(10 * MOST_POINTS)) and set(y) == {100.0, 100_000.0}
    held = chart("c", "C", "loss", [line("a", x.tolist(), y.tolist())])
    assert held is not None
    (a,) = held.curves
    assert a.d.count("L") == MOST_POINTS - 1 and {place.split()[1] for place in a.d[1:].split("L")} == {f"{HEIGHT / 2:.1f}"}


@pytest.mark.parametrize("log", [False, True])
def test_a_long_curve_says_its_last_value(log: bool) -> None:
    held = chart("c", "C", "loss", [line("a", list(range(10_000)), [(k + 1) / 10 for k in range(10_000)])], log=log)
    assert held is not None and held.curves[0].last == "1000 after 9999 iterations"
