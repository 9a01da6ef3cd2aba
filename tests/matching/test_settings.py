"""Settings that are each right and do not go together; bytes of memory."""

import pytest

from limbeck.matching.settings import EngineSettings, ScheduleSettings
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


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("512", 512), ("4GiB", 2**32), ("1.5GB", 1_500_000_000), ("800 MB", 8 * 10**8), ("2Ki", 2048), ("3k", 3000)],
)
def test_bytes_of_memory(text, size):
    assert EngineSettings(memory=text).budget() == size


@pytest.mark.parametrize("memory", ["", "0", "-1GB", "GiB", "nan", "1e9", "4 PB", "99999999TiB"])
def test_nonsense_for_memory_is_refused(memory):
    with pytest.raises(UsageError, match=r"^engine\.memory: "):
        EngineSettings(memory=memory)
