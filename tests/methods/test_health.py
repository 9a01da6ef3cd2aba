"""Whether the outer loop gets on: what is counted, and what is returned to, against the definitions."""

import dataclasses
import math

import pytest
import torch

from limbeck.methods.health import (
    FILTERED,
    FLOOR,
    GREW,
    LOSS,
    WEIGHTED,
    Health,
    Return,
    absurd,
    blamed,
    check_start,
    growth,
    sizes,
    told,
)
from limbeck.methods.settings import OuterSettings


def after(pattern: str, health: Health = Health()) -> Health:
    """After iterations that were lost (`x`) and not (`.`)."""
    for one in pattern:
        health = health.lost(LOSS, math.nan) if one == "x" else health.kept()
    return health


def test_an_iteration_that_is_kept_ends_the_row_and_says_that_something_moved() -> None:
    assert after("xx") == Health(in_a_row=2, recent="xx", causes={LOSS: 2})
    assert after("xx.") == Health(moved=True, recent="xx.", causes={LOSS: 2})
    assert after("xx.x") == Health(moved=True, in_a_row=1, recent="xx.x", causes={LOSS: 3})


def test_the_last_hundred_are_remembered() -> None:
    assert after("x" + 99 * ".").recent == "x" + 99 * "."
    assert after("x" + 100 * ".").recent == 100 * "."
    assert after("." + 99 * "x" + "x").recent == 100 * "x"


def test_twenty_in_a_row_or_fifty_one_of_a_hundred_are_too_many() -> None:
    assert after(19 * "x").too_many == ""
    assert after(20 * "x").too_many == "the last 20 iterations were lost"
    assert after(50 * "x.").too_many == ""
    assert after(49 * "x." + "xx").too_many == "51 of the last 100 iterations were lost"
    assert after(50 * ".x" + ".").too_many == ""


def test_a_state_is_sound_between_losses_of_which_there_are_at_most_twenty_five() -> None:
    assert after("").sound and after(25 * "x.").sound
    assert not after(26 * "x.").sound
    assert not after(".x").sound


def test_a_look_is_remembered_where_the_loop_is_sound() -> None:
    assert after("x.").looked(2) == Health(good=2, recent="x.", causes={LOSS: 1})
    lost = after("..x")
    assert lost.looked(3) is lost


def test_causes_are_counted_and_the_most_frequent_is_the_cause() -> None:
    health = Health()
    for cause, loss in ((FILTERED, 7.0), (LOSS, math.nan), (FILTERED, 6.0), (FILTERED, 9.0), (FLOOR, 0.5)):
        health = health.lost(cause, loss)
    assert health.causes == {FILTERED: 3, LOSS: 1, FLOOR: 1}
    assert health.cause == FILTERED
    assert health.least == 6.0  # of those that the filter took, not of all
    assert health.in_a_row == 5
    assert told(health.causes) == f"3 times {FILTERED}, 1 times {LOSS}, 1 times {FLOOR}"
    assert told({LOSS: 1, FLOOR: 2}) == f"2 times {FLOOR}, 1 times {LOSS}"


def test_a_return_begins_anew_with_a_quarter_of_the_step() -> None:
    assert Health().step == 1
    health = dataclasses.replace(after("." + 20 * "x"), sizes=(1.0, 2.0, 3.0), good=4, first=0.5)
    one = health.returned(21, 4, "why")
    assert one.returns == (Return(iteration=21, to=4, step=0.25, why="why"),)
    assert dataclasses.replace(one, returns=()) == Health(sizes=(1.0, 2.0, 3.0), good=4, causes={LOSS: 20}, first=0.5)
    two = one.returned(50, 0, "again")
    assert [found.step for found in two.returns] == [0.25, 0.0625] and two.step == 0.0625
    assert two.good == 0 and two.returns[1] == Return(iteration=50, to=0, step=0.0625, why="again")


def test_sizes_are_root_mean_squares_and_the_step_size() -> None:
    images, labels = torch.tensor([[3.0, 4.0, 0.0, 0.0]]), torch.tensor([[5.0, 12.0]])
    assert sizes(images, labels, torch.tensor(-0.25)) == pytest.approx((2.5, math.sqrt(169 / 2), 0.25))
    assert math.isnan(sizes(images * math.nan, labels, torch.tensor(1.0))[0])


def test_growth_is_by_the_start_or_by_one_where_that_was_smaller() -> None:
    start, now = (2.0, 0.5, 0.001), (6.0, 3.0, 0.05)
    assert growth(start, now) == pytest.approx({"X": 3.0, "Y": 3.0, "η": 5.0})
    assert growth((2.0, 4.0, 0.1), (1.0, 1.0, 0.3)) == pytest.approx({"X": 0.5, "Y": 0.25, "η": 3.0})


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ((100.0, 100.0, 10.0), ""),  # a thousand times the floor of η
        ((100.5, 1.0, 0.01), "X"),
        ((1.0, 100.5, 0.01), "Y"),
        ((1.0, 1.0, 10.1), "η"),
        ((101.0, 101.0, 10.1), "X"),
        ((1.0, math.nan, 0.01), "Y"),
        ((math.inf, 1.0, 0.01), "X"),
    ],
)
def test_absurd_is_a_hundred_times_the_start_and_a_thousand_of_a_step_size(now: tuple[float, ...], expected: str) -> None:
    assert absurd((1.0, 1.0, 0.01), now) == expected


def test_a_start_that_is_not_finite_is_named() -> None:
    good, bad = torch.zeros(3, 2), torch.tensor([[0.0, 0.0], [1.0, math.inf], [math.nan, 0.0]])
    check_start(good, good)
    with pytest.raises(ValueError, match="init: .*the image 1.* is not finite"):
        check_start(bad, good)
    with pytest.raises(ValueError, match="init: .*the label of image 1.* is not finite"):
        check_start(good, bad)


HEALTH = Health(sizes=(1.0, 1.0, 0.01), least=7.25)
SETTINGS = OuterSettings(lr_img=2.0, lr_label=0.0, lr_lr=0.5, max_match_loss=5.0)


def what(cause: str, now: tuple[float, ...] = (4.0, 2.0, 0.03), *, hint: str = "", stuck: bool = False) -> str:
    return blamed(cause, HEALTH, SETTINGS, now, hint=hint, stuck=stuck)


def test_what_is_blamed() -> None:
    grown = "(sizes, as parts of those at the start: X 4, Y 2, η 3)"
    assert what("the expert is broken", hint="a hint") == "the expert is broken"
    assert what(LOSS, hint="a hint") == "a hint"
    assert what(FILTERED, stuck=True) == "outer.max_match_loss (5) is too small: the least loss was 7.25"
    assert what(WEIGHTED, stuck=True) == "enhance.beta is too large"
    assert what(LOSS, stuck=True) == "step sizes have no part in it: the images, the experts or the network have"
    # What has grown most comes first, and a step size of zero has no part in it.
    assert what(LOSS) == f"outer.lr_img (2) or outer.lr_lr (0.5) is too large {grown}"
    assert what(LOSS, (1.0, 2.0, 0.03)).startswith("outer.lr_lr (0.5) or outer.lr_img (2) is too large")
    assert what(FLOOR) == f"outer.lr_lr (0.5) is too large {grown}"
    assert what(GREW["X"]) == f"outer.lr_img (2) is too large {grown}"
    assert what(GREW["Y"]) == f"a step size is too large {grown}"
    filtered = f"outer.lr_img (2) or outer.lr_lr (0.5) is too large, or outer.max_match_loss (5) too small {grown}"
    assert what(FILTERED) == filtered
