"""Python's warnings as one line a kind, from this process and others; errors, and whoever sets filters, see what they would."""

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limbeck.data.decode import decode_into
from limbeck.runtime.executor import side_by_side, spread
from limbeck.runtime.notices import Notice, gathered, logged

BROKEN_EXIF = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"


class Odd(UserWarning):
    """A library's own."""


Odd.__module__ = "oddlib.deep"


def warn(number: int) -> int:
    warnings.warn(f"piece {number} of '/tmp/{number}.png'\n  is odd", Odd, stacklevel=2)
    return number


def broken_exif(folder: Path, count: int) -> list[Path]:
    """JPEGs whose block of EXIF ends before it should, of which Pillow warns."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path, exif=BROKEN_EXIF)
    return paths


def test_a_kind_is_one_line_with_a_count(recwarn: pytest.WarningsRecorder) -> None:
    said: list[str] = []
    with gathered(said.append):
        for number in range(5):
            warn(number)
        warnings.warn("something else", UserWarning, stacklevel=1)
        warnings.warn("gone in version 9", FutureWarning, stacklevel=1)
        warnings.warn("Detected call of `lr_scheduler.step()` before `optimizer.step()`", UserWarning, stacklevel=1)
        assert said == []
    assert said == ["warning: piece 0 of '/tmp/0.png' is odd (oddlib, 5 times)", "warning: something else (test_notices)"]
    assert not recwarn.list


def test_they_are_said_when_the_block_fails_and_only_by_the_outer_block() -> None:
    said: list[str] = []
    with pytest.raises(ValueError, match="no"), gathered(said.append), gathered(lambda line: said.append("inner")):
        warn(1)
        raise ValueError("no")
    assert said == ["warning: piece 1 of '/tmp/1.png' is odd (oddlib)"]


@pytest.mark.parametrize("how", ["forked", "loky"])
def test_other_processes_hand_theirs_over(how: str, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    with gathered(said.append):
        if how == "forked":
            with spread(warn, range(6), 2) as found:
                assert list(found) == list(range(6))
        else:
            assert list(side_by_side(warn, list(range(6)), 2)) == list(range(6))
    assert len(said) == 1
    assert said[0].endswith("is odd (oddlib, 6 times)")
    assert "Odd" not in capfd.readouterr().err


def test_what_is_an_error_stays_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Odd)
        with pytest.raises(Odd), gathered(lambda line: None):
            warn(1)


def test_filters_and_what_shows_warnings_are_as_before() -> None:
    before, shown = list(warnings.filters), warnings.showwarning
    with gathered(lambda line: None):
        assert warnings.showwarning is not shown
    assert list(warnings.filters) == before
    assert warnings.showwarning is shown


def test_who_has_set_filters_sees_what_python_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["always"])
    said: list[str] = []
    with pytest.warns(Odd), gathered(said.append):
        warn(1)
    assert said == []


def test_images_are_named(tmp_path: Path) -> None:
    paths, storage = broken_exif(tmp_path, 3), tmp_path / "rows.npy"
    np.save(storage, np.zeros((3, 3, 8, 8), np.uint8))
    said: list[str] = []
    with gathered(said.append):
        assert decode_into(storage, "squash", None, (0, paths)).bad == []
    (line,) = said
    assert line.startswith("warning: Corrupt EXIF data")
    assert line.endswith(f" (PIL, 3 times: {paths[0]}, {paths[1]}, …)")


def test_calls_from_python_say_them_by_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "limbeck"), gathered(logged):
        warn(7)
    assert [record.getMessage() for record in caplog.records] == ["piece 7 of '/tmp/7.png' is odd (oddlib)"]


def test_a_line_names_no_more_than_two_examples() -> None:
    one = Notice("odd", "", "UserWarning", 1, ("a",))
    assert str(one) == "warning: odd (a)"
    assert str(one.joined(Notice("odd", "", "UserWarning", 1, ("b",)))) == "warning: odd (2 times: a, b)"
    assert str(Notice("odd", "", "UserWarning")) == "warning: odd"


def test_the_command_shows_one_line_from_its_workers(tmp_path: Path) -> None:
    """Photographs with a broken block of EXIF, and large ones: no path, no category and no line of source."""
    for name in ("cats", "dogs"):
        broken_exif(tmp_path / "photos" / name, 40)
        Image.new("1", (9500, 9500)).save(tmp_path / "photos" / name / "large.png")
    words = ["plan", "scenes", "--data", str(tmp_path / "photos"), "data.size=16", "network=ConvNetD2-w4", "data.workers=2"]
    tiny = ["ipc=1", "match.syn_steps=2", "outer.iterations=2", "engine.compile=no"]
    script = "import PIL.Image; from limbeck.cli.main import main; raise SystemExit(main())"
    environment = {**os.environ, "LIMBECK_CACHE": str(tmp_path / "cache")}
    ran = subprocess.run(
        [sys.executable, "-c", script, *words, *tiny], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stderr.splitlines() if "warning" in line.lower()]
    assert sorted(line.split()[1] for line in lines) == ["Corrupt", "Image"], ran.stderr
    assert all(line.startswith("warning: ") and "(PIL, " in line and "times" in line for line in lines), lines
    assert ".py" not in ran.stderr
