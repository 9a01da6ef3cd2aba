"""Settings that are each right and do not go together."""

import pytest

from limbeck.matching.settings import ScheduleSettings
from limbeck.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"min_start_epoch": 4, "max_start_epoch": 4, "kind": "uniform"},
            "schedule.max_start_epoch: 4 is not above schedule.min_start_epoch (4)",
        ),
        (
            {"min_start_epoch": 2, "first_max_start_epoch": 2, "max_start_epoch": 6},
            "schedule.first_max_start_epoch: 2 is not above schedule.min_start_epoch (2) and at most schedule.max_start_epoch (6)",
        ),
        (
            {"first_max_start_epoch": 7, "max_start_epoch": 6},
            "schedule.first_max_start_epoch: 7 is not above schedule.min_start_epoch (0) and at most schedule.max_start_epoch (6)",
        ),
    ],
)
def test_ranges_of_start_epochs_are_in_order(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        ScheduleSettings(**given)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_the_first_upper_end_is_the_sequential_schedules_alone() -> None:
    ScheduleSettings(kind="uniform", first_max_start_epoch=7, max_start_epoch=6)
    ScheduleSettings(first_max_start_epoch=6, max_start_epoch=6)
