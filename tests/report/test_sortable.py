"""What cells say and sort by, where intervals are drawn, and what rows can be filtered by."""

import math

import pytest

from limbeck.accuracy import Accuracy, Comparison
from limbeck.report.collection import brief, common, gathered, listed
from limbeck.report.sortable import (
    Column,
    Row,
    SortableTable,
    Value,
    filters,
    of_accuracy,
    of_difference,
    of_number,
    of_share,
    of_words,
)

ACCURACY = Accuracy(mean=0.5, std=0.02, ci95=(0.4, 0.6), n=3)


def table(*values: Value, **column: bool) -> SortableTable:
    rows = tuple(Row((of_words(str(number)), value)) for number, value in enumerate(values))
    return SortableTable("t", "T", (Column("name", words=True), Column("value", **column)), rows)


def test_accuracies_are_in_percent() -> None:
    assert of_accuracy(ACCURACY) == Value("50.0 ± 10.0", 50.0, (40.0, 60.0))
    assert of_accuracy(Accuracy(mean=0.25)) == Value("25.0", 25.0)
    assert of_accuracy(Accuracy()).missing
    assert of_accuracy(Accuracy(mean=0.0, n=2, failed=2)) == Value("failed")


def test_intervals_end_where_accuracies_do_and_ratios_need_not() -> None:
    wide = Accuracy(mean=0.9, std=0.3, ci95=(-0.2, 2.0), n=2)
    assert of_accuracy(wide).ends == (0.0, 100.0)
    assert of_accuracy(wide, math.inf).ends == (0.0, 200.0)


def test_differences_are_in_points_with_a_true_minus() -> None:
    found = of_difference(Comparison(n=3, mean=-0.0123, ci95=(-0.02, 0.01)))
    assert (found.text, found.number, found.ends) == ("−1.2", pytest.approx(-1.23), (-2.0, 1.0))
    assert of_difference(None).missing


def test_numbers_and_words_may_be_missing() -> None:
    assert of_share(None).missing and of_share(math.nan).missing and of_number(None).missing and of_number(math.inf).missing
    assert of_words(None).missing and of_words("").missing and not of_words("edf").missing
    assert of_number(3, "d") == Value("3", 3.0) and of_share(0.1234) == Value("12.3", 12.34)


def test_means_and_intervals_lie_on_one_scale() -> None:
    held = table(Value("a", 20.0, (10.0, 30.0)), Value("b", 50.0), Value(), drawn=True)
    assert held.scale(1) == (8.0, 52.0)  # a twentieth of the range on either side
    first, second, third = (held.drawn(1, row.cells[1]) for row in held.rows)
    assert first is not None and (first.at, first.left, first.width) == (27.27, 4.55, 45.45)
    assert second is not None and (second.at, second.width) == (95.45, 0.0)
    assert third is None and held.zero(1) is None


def test_zero_is_on_the_scale_where_it_is_drawn() -> None:
    held = table(Value("a", -4.0, (-6.0, -2.0)), drawn=True, zero=True)
    assert held.scale(1) == pytest.approx((-6.3, 0.3))
    assert held.zero(1) == pytest.approx(100 * 6.3 / 6.6, abs=0.01)


def test_what_is_not_drawn_leaves_the_others_their_room() -> None:
    held = table(Value("a", 10.0, (8.0, 12.0)), Value("full", 90.0, drawn=False), drawn=True)
    assert held.scale(1) == pytest.approx((7.8, 12.2))
    assert held.drawn(1, held.rows[1].cells[1]) is None


@pytest.mark.parametrize("value", [Value("a", 5.0), Value("a", 0.0)])
def test_one_value_alone_has_a_scale(value: Value) -> None:
    low, high = table(value, drawn=True).scale(1) or (0, 0)
    assert low <= value.number < high  # type: ignore[operator]


def test_columns_of_words_have_no_scale() -> None:
    held = table(Value("a", 5.0))
    assert held.scales == (None, None) and held.drawn(1, held.rows[0].cells[1]) is None


def test_filters_are_what_differs_with_numbers_as_numbers() -> None:
    rows = [{"method": "mtt", "ipc": "10", "seed": "0"}, {"method": "edf", "ipc": "2"}, {"method": "mtt", "ipc": "1"}]
    assert filters(rows) == {"method": ["mtt", "edf"], "ipc": ["1", "2", "10"]}
    assert filters([{"other": "a"}, {"other": "b"}]) == {}


def test_columns_that_say_nothing_are_left_out() -> None:
    columns = (Column("name"), Column("nothing"), Column("same"), Column("kept"))
    rows = tuple(Row((of_words(name), Value(), of_words("x"), of_words("y"))) for name in "ab")
    held = brief(SortableTable("t", "T", columns, rows), "same")
    assert [column.title for column in held.columns] == ["name", "kept"]
    assert [cell.text for cell in held.rows[1].cells] == ["b", "y"]


def test_what_all_have_in_common_is_said_once() -> None:
    assert common([("network", "A"), ("source", "s"), ("network", "A"), ("source", None)]) == ("A",)
    assert gathered([("a", "it is so"), ("b", "it is not"), ("c", "it is so")]) == ["a, c: it is so", "b: it is not"]
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"
