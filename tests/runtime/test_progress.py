"""What stages say of themselves: how long they will take, in a terminal of 80 columns and in a log of days."""

import re
import sys
from io import StringIO
from typing import Any

import pytest

from limbeck.runtime import progress
from limbeck.runtime.progress import Pace, PlainProgress, RichProgress, fitted


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_the_time_left_is_that_of_the_steps_made_here(clock: Clock) -> None:
    pace = Pace(total=100, done=60)
    assert pace.left is None, "what an earlier process has done says nothing of this one"
    clock.now += 6
    pace.done += 4  # 1.5 s each, and 36 are left
    assert (pace.passed, pace.left) == (6, 54)
    pace.done = 101
    assert pace.left == 0


def test_a_log_has_a_line_every_ten_seconds_and_rarer_ones_later(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with PlainProgress().stage("distil", 40_000, 10_000) as stage:
        for _ in range(30_000):
            clock.now += 1
            stage.advance(loss=0.93126, accuracy="37.3 %", skipped=2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "distil: 10010/40000, 8:19:50 left, loss 0.9313, accuracy 37.3 %, skipped 2"
    assert lines[1].startswith("distil: 10020/40000, 8:19:40 left")
    assert lines[-1] == "distil: 40000/40000 in 8:20:00, loss 0.9313, accuracy 37.3 %, skipped 2"
    assert 250 < len(lines) < 350, "sixty lines in the first ten minutes, then sixty whenever the time has grown by a factor of e"


def test_what_has_no_room_is_left_out_from_the_end() -> None:
    parts = ["12/40", "0:07 left", "", "accuracy 37.3 %", "loss 0.93"]
    assert fitted(parts, 80) == "12/40  0:07 left  accuracy 37.3 %  loss 0.93"
    assert fitted(parts, 43) == "12/40  0:07 left  accuracy 37.3 %"
    assert fitted(parts, 44) == "12/40  0:07 left  accuracy 37.3 %  loss 0.93"
    assert fitted(parts, 3) == "12/40"


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def frames(clock: Clock, monkeypatch: pytest.MonkeyPatch, columns: int, **facts: Any) -> list[str]:
    """What a stage draws in a terminal of that many columns, without colours and movements."""
    out: Any = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    with RichProgress().stage("distil", 20_000, 12_000) as stage:
        clock.now += 40
        stage.advance(10, **facts)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (120, "12010/20000  8:52:40 left  accuracy 37.3 %  loss 0.9313  skipped 12  0:40 so far"),
        (80, "12010/20000  8:52:40 left  accuracy 37.3 %  loss 0.9313"),
        (60, "12010/20000  8:52:40 left"),
    ],
)
def test_a_bar_keeps_within_its_line(clock: Clock, monkeypatch: pytest.MonkeyPatch, columns: int, told: str) -> None:
    found = frames(clock, monkeypatch, columns, accuracy="37.3 %", loss=0.93126, skipped=12)
    assert found[-1] == f"distil {found[-1].split()[1]} {told}"
    assert max(map(len, found)) <= columns
