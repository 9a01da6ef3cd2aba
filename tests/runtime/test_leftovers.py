"""What is written for a while bears its owner's name, goes with it, and is removed by the next one after a kill."""

import os
import signal
import time
from pathlib import Path

import pytest
from runtime.test_locks import child, status

from limbeck.runtime import leftovers
from limbeck.runtime.files import new_folder, write_bytes, write_text
from limbeck.runtime.leftovers import part, passing_folder, remove_all, tidy, tidy_once
from limbeck.runtime.owner import Owner


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leave(folder: Path) -> None:
    with new_folder(folder / "set") as made, part(folder / "a.json") as half:
        half.write_text("{")
        write_text(made / "b", "b")
        with passing_folder(folder) as passing:
            (passing / "c").touch()
            os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_has_left_is_removed_by_the_next_that_writes_there(tmp_path: Path) -> None:
    assert status(child(leave, tmp_path)) == -signal.SIGKILL
    assert len(names(tmp_path)) == 3
    with part(tmp_path / "other") as own:  # not what others are writing now
        own.touch()
        assert names(tmp_path) == [own.name]
        assert status(child(write_bytes, tmp_path / "d", b"")) == 0
        assert names(tmp_path) == [own.name, "d"]
    assert names(tmp_path) == ["d"]


def test_of_other_machines_only_what_is_old_goes(tmp_path: Path) -> None:
    mark = "0" * 8 + Owner.here().mark[8:]
    new, old = (tmp_path / f".{name}.{mark}-01234567.part" for name in ("new", "old"))
    for path, ago in ((new, 1.0), (old, 1.1)):
        path.touch()
        os.utime(path, (time.time() - (ago - 0.05) * leftovers.FOREIGN,) * 2)
    (tmp_path / ".images.part").mkdir()  # which is gone on with
    (tmp_path / ".distilled.abc0_xyz.part").mkdir()
    tidy(tmp_path)
    assert names(tmp_path) == sorted([".distilled.abc0_xyz.part", ".images.part", new.name])
    tidy(tmp_path, alone=True)
    assert names(tmp_path) == sorted([".images.part", new.name])


def test_a_process_that_ends_at_once_takes_its_own_with_it(tmp_path: Path) -> None:
    with part(tmp_path / "parents") as kept:
        kept.touch()

        def end() -> None:
            with part(tmp_path / "a") as half, passing_folder(tmp_path) as passing:
                half.touch()
                (passing / "b").touch()
                remove_all()
                os._exit(0)

        assert status(child(end)) == 0
        assert names(tmp_path) == [kept.name]


def test_names_may_be_as_long_as_they_can(tmp_path: Path) -> None:
    name = "ä" * 120
    write_bytes(tmp_path / name, b"a")
    assert names(tmp_path) == [name]


def test_folders_that_cannot_be_read_are_left(tmp_path: Path) -> None:
    tidy_once(tmp_path / "absent")
    tidy(tmp_path / "absent", alone=True)


@pytest.mark.parametrize("content", [b"", b"a"])
def test_files_have_the_usual_permissions(tmp_path: Path, content: bytes) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", content)
        with new_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "b")] == [0o640, 0o750]
