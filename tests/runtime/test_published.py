"""Folders in a store of objects: versions that are whole or absent, and two writers of which one is told."""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from buckets import files, forget_all

from limbeck.runtime import remote
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.kept import cache_root
from limbeck.runtime.located import change, here, origin
from limbeck.runtime.published import Overtaken, Published, Version, Work, noted, put_file, put_folder, working
from limbeck.runtime.remote import Remote


def _write(folder: Path, content: dict[str, str]) -> Path:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def _read(folder: Path | str) -> dict[str, str]:
    root = Path(folder)
    return {path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def _at(url: str) -> dict[str, str]:
    remote.forget(url)
    return _read(here("path", url))


Killed = Callable[..., Work]
BOTH = pytest.mark.parametrize("place", ["s3", "memory"], indirect=True)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Killed:
    """Begins work which ends as by SIGKILL: nothing is published at the end, and nobody holds its lock."""
    blocks, free = [], type("Free", (), {"acquire": lambda self, timeout: nullcontext()})

    def begin(place: str, **how: bool) -> Work:
        blocks.append(working("output", place, **how))
        monkeypatch.setattr("limbeck.runtime.published.lock", lambda path: free())
        return blocks[-1].__enter__()

    return begin


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """A folder in a store: in the memory of this process, or in a bucket."""
    if getattr(request, "param", "memory") == "s3":
        return f"{request.getfixturevalue('bucket')}/folder"
    pytest.importorskip("fsspec")
    forget_all()
    return f"memory://{request.getfixturevalue('tmp_path').name}/folder"  # of a test alone


@BOTH
def test_what_is_published_is_read_again(place: str, tmp_path: Path) -> None:
    published, content = Published(Remote("output", place)), {"a": "1", "b/c": "2", "b/d": "1"}
    version = published.publish(_write(tmp_path / "it", content | {".hidden": "no", "x.lock": "no"}), Version())
    assert version.number == 1 and published.newest() == version
    assert _at(place) == content
    assert _read(here("path", f"{place}/b")) == {"c": "2", "d": "1"} and Path(here("path", f"{place}/b/c")).read_text() == "2"


@BOTH
def test_nothing_is_there_before_the_list_is(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after each of its requests, a writer leaves the version before, whole; another one goes on from there."""
    published, before = Published(Remote("output", place)), {"a": "1", "b": "2"}
    first = published.publish(_write(tmp_path / "one", before), Version())
    second, put = _write(tmp_path / "two", {"a": "3", "b": "4"}), Remote.put_file
    for allowed in range(2):
        left = [allowed]

        def some(self: Remote, source: Path, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            put(self, source)

        monkeypatch.setattr(Remote, "put_file", some)
        with pytest.raises(KeyboardInterrupt):
            published.publish(second, first)
        assert _at(place) == before
    monkeypatch.setattr(Remote, "put_file", put)
    published.publish(second, first)
    assert _at(place) == {"a": "3", "b": "4"}


@BOTH
@pytest.mark.parametrize("times", [1, 4])
def test_of_two_writers_one_is_told(times: int, place: str, tmp_path: Path) -> None:
    """However often the other one has written since, whose first versions are removed by then."""
    one, two, version = Published(Remote("output", place)), Published(Remote("output", place)), Version()
    for _ in range(times):
        version = one.publish(_write(tmp_path / "one", {"a": "1"}), version)
    with pytest.raises(Overtaken, match=f"^output: another process has written to '{place}' meanwhile$"):
        two.publish(_write(tmp_path / "two", {"a": "2", "b": "2"}), Version())
    assert _at(place) == {"a": "1"}


def test_what_has_not_changed_is_not_sent_again(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published, folder = Published(Remote("output", place)), _write(tmp_path / "it", {"a": "1", "b": "2"})
    first = published.publish(folder, Version())
    sent, put = [], Remote.put_file
    monkeypatch.setattr(Remote, "put_file", lambda self, source: (sent.append(source.name), put(self, source)))
    published.publish(_write(folder, {"b": "3"}), first)
    assert sent == ["b"]


@BOTH
def test_pieces_of_old_versions_go(place: str, tmp_path: Path) -> None:
    published, folder, version = Published(Remote("output", place)), tmp_path / "it", Version()
    for number in range(5):
        version = published.publish(_write(folder, {"same": "always", "checkpoint": str(number)}), version)
    held = published.remote.files()
    assert len([name for name in held if name.startswith("pieces/")]) == 3  # the last two checkpoints, and what is the same
    assert sorted(name for name in held if not name.startswith("pieces/")) == ["limbeck-00000004.json", "limbeck-00000005.json"]


@BOTH
def test_a_reader_meanwhile_gets_one_version_or_the_other(place: str, tmp_path: Path) -> None:
    published, folder, version = Published(Remote("output", place)), tmp_path / "it", Version()
    version = published.publish(_write(folder, {"a": "0", "b": "0"}), version)
    seen, over = list[dict[str, str]](), threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.append(_at(place))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 8):
            version = published.publish(_write(folder, {"a": str(number), "b": str(number)}), version)
    finally:
        over.set()
        reader.join()
    assert seen and all(found["a"] == found["b"] for found in seen)


def test_a_piece_that_has_changed_is_not_taken(place: str, tmp_path: Path) -> None:
    published = Published(Remote("output", place))
    version = published.publish(_write(tmp_path / "it", {"a": "1"}), Version())
    (published.remote / version.files["a"].at).put(b"2")
    with pytest.raises(UsageError, match="is not what was written: its checksum is another one"):
        _at(place)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": {"../../x": ["a", 1, ""]}, "limbeck": "published folder 1"}'])
def test_a_list_that_is_none_is_refused(place: str, content: str) -> None:
    Remote("output", f"{place}/limbeck-00000001.json").put(content.encode())
    with pytest.raises(UsageError, match="limbeck-00000001.json' is broken"):
        _at(place)


def test_a_list_cannot_lead_out_of_its_folder(place: str, tmp_path: Path) -> None:
    import json

    from limbeck.runtime.published import VERSION
    from limbeck.runtime.sealed import sealed

    for name, at in (("../x", "pieces/a"), ("x", "../../other"), ("/etc/x", "a")):
        held = sealed({"files": {name: [at, 1, ""]}}, VERSION)
        Remote("output", f"{place}/limbeck-00000001.json").put(json.dumps(held).encode())
        with pytest.raises(UsageError, match="names files outside of its folder"):
            _at(place)


def test_files_that_somebody_copied_there_are_read_as_they_are(place: str) -> None:
    for name in ("a", "b/c"):
        Remote("data", f"{place}/{name}").put(name.encode())
    assert _at(place) == {"a": "a", "b/c": "b/c"}


@BOTH
def test_everything_is_fetched_once(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Remote("data", f"{place}/a").put(b"1")
    first, fetched = here("data", place), []
    real = Remote.fetch
    monkeypatch.setattr(Remote, "fetch", lambda self, *rest: (fetched.append(self.url), real(self, *rest)))
    remote.forget(place)
    assert here("data", place) == first and not fetched
    Remote("data", f"{place}/a").put(b"2")
    assert _at(place) == {"a": "2"} and len(fetched) == 1


@BOTH
def test_nothing_is_said_to_be_there_where_nothing_is(place: str) -> None:
    with pytest.raises(UsageError, match=f"^path: nothing is at '{place}/none'$"):
        here("path", f"{place}/none")


def test_a_copy_knows_where_it_is_from(place: str, tmp_path: Path) -> None:
    Published(Remote("output", place)).publish(_write(tmp_path / "it", {"a/b": "1"}), Version())
    copy = Path(here("path", place))
    assert origin(copy) == place and origin(copy / "a" / "b") == f"{place}/a/b" and origin(tmp_path) is None


@BOTH
def test_changes_by_several_are_all_there(place: str, tmp_path: Path) -> None:
    put_folder("output", place, lambda folder: _write(folder, {"set/notes": ""}))

    def add(word: str) -> None:
        change("path", f"{place}/set", lambda folder: _write(folder, {"notes": (folder / "notes").read_text() + word}))

    threads = [threading.Thread(target=add, args=(word,)) for word in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(_at(place)["set/notes"]) == ["a", "b", "c"]


def test_a_file_is_put_once(place: str, tmp_path: Path) -> None:
    page = _write(tmp_path, {"page": "1"}) / "page"
    put_file("--output", f"{place}.html", page)
    with pytest.raises(UsageError, match="--output: .* is not a new place; something is there"):
        put_file("--output", f"{place}.html", page)


def test_a_path_is_worked_in_itself(tmp_path: Path) -> None:
    with working("output", str(tmp_path / "a")) as work:
        assert work.folder == tmp_path / "a" and work.named("x") == "x"
        work.publish()
    with working("output", f"file://{tmp_path}/b") as work:
        assert work.folder == tmp_path / "b"


def test_work_is_published_at_the_end_and_not_begun_twice(place: str) -> None:
    with working("output", place) as work:
        _write(work.folder, {"a": "1"})
        assert work.named(str(work.folder / "a")) == f"{place}/a"
    assert _at(place) == {"a": "1"}
    with pytest.raises(UsageError, match="is not empty; go on with --resume"), working("output", place):
        pass


@BOTH
def test_what_a_stopped_process_has_made_goes_on_elsewhere(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), working("output", place) as work:
        _write(work.folder, {"checkpoint": "1"})
        raise KeyboardInterrupt
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "another machine"))
    with working("output", place, resume=True) as work:
        assert _read(work.folder).items() >= {"checkpoint": "1"}.items() and work.folder.is_relative_to(tmp_path)
        _write(work.folder, {"result": "2"})
    assert _at(place) == {"checkpoint": "1", "result": "2"}


def test_what_was_made_since_it_was_published_stays_on_the_machine(place: str, killed: Killed) -> None:
    work = killed(place)
    _write(work.folder, {"checkpoint": "1"})
    work.publish()
    _write(work.folder, {"checkpoint": "2"})
    assert not noted(work.folder)[1]
    with working("output", place, resume=True) as again:
        assert (again.folder / "checkpoint").read_text() == "2"
    assert noted(work.folder)[1]


@pytest.mark.parametrize("how", [{"shared": True}, {"resume": True}])
def test_what_was_never_published_stays_on_the_machine(place: str, how: dict[str, bool], killed: Killed) -> None:
    _write(killed(place, **how).folder, {"cells/a": "1"})
    for number in "23":
        work = killed(place, **how)
        assert (work.folder / "cells" / "a").read_text() == "1"
        _write(work.folder, {f"cells/{number}": number})
    with working("output", place, **how):
        pass
    assert _at(place) == {"cells/a": "1", "cells/2": "2", "cells/3": "3"}


def test_nothing_is_removed_that_a_run_which_is_not_gone_on_with_has_left(place: str, killed: Killed) -> None:
    _write(killed(place).folder, {"checkpoint": "1"})
    with working("output", place) as work:
        assert (work.folder / "checkpoint").exists()  # which `distill` refuses


@pytest.mark.parametrize("begun", [False, True])
def test_a_killed_grid_keeps_what_it_has_finished_when_others_have_published(
    begun: bool, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: Killed
) -> None:
    """What both have changed is theirs, and what they have not stays as it was made here."""
    if begun:
        with working("output", place, shared=True) as work:
            _write(work.folder, {"runs/mine": "begun", "runs/theirs": "begun", "table": "0"})
    work = killed(place, shared=True)
    _write(work.folder, {"cells/a": "1", "runs/mine": "further", "runs/theirs": "further"})
    with monkeypatch.context() as other:
        other.setenv("LIMBECK_CACHE", str(tmp_path / "another machine"))
        with working("output", place, shared=True) as two:
            _write(two.folder, {"cells/b": "2", "runs/theirs": "ended", "table": "b"})
    with working("output", place, shared=True) as again:
        pass
    expected = {"cells/a": "1", "cells/b": "2", "runs/mine": "further", "runs/theirs": "ended", "table": "b"}
    assert _at(place) == expected == {name: _read(again.folder)[name] for name in expected}


@pytest.mark.parametrize("how", [{"shared": True}, {"resume": True}])
def test_of_what_was_published_as_a_whole_that_counts_which_is_there(
    how: dict[str, bool], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working("output", place, **how) as work:
        _write(work.folder, {"cells/a": "1", "cells/b": "1"})
    with monkeypatch.context() as other:
        other.setenv("LIMBECK_CACHE", str(tmp_path / "another machine"))
        with working("output", place, **how) as theirs:
            (theirs.folder / "cells" / "a").unlink()
            _write(theirs.folder, {"cells/b": "2"})
    with working("output", place, **how) as again:
        assert not (again.folder / "cells" / "a").exists() and (again.folder / "cells" / "b").read_text() == "2"


def test_a_killed_run_that_was_taken_over_goes_on_from_there(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: Killed
) -> None:
    _write(killed(place).folder, {"checkpoint": "1", "more": "1"})
    with monkeypatch.context() as other:
        other.setenv("LIMBECK_CACHE", str(tmp_path / "another machine"))
        with working("output", place, resume=True) as theirs:
            _write(theirs.folder, {"checkpoint": "2"})
    with working("output", place, resume=True):
        pass
    assert _at(place) == {"checkpoint": "2"}


@BOTH
def test_whoever_goes_on_takes_the_place_over(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "^output: another process has written to .* meanwhile; what was made is in "
    with pytest.raises(Failure, match=told), working("output", place) as work:
        _write(work.folder, {"a": "1"})
        work.publish()
        with monkeypatch.context() as other:
            other.setenv("LIMBECK_CACHE", str(tmp_path / "another machine"))
            with working("output", place, resume=True) as theirs:
                _write(theirs.folder, {"a": "2"})
        _write(work.folder, {"a": "3"})
        work.publish()
    assert _at(place) == {"a": "2"}


def test_processes_that_are_no_ranks_of_one_run_are_not_started_together(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="is not a folder where torchrun starts the command"), working("output", place):
        pass


def test_two_processes_of_a_machine_do_not_write_to_one_place(place: str) -> None:
    with working("output", place), pytest.raises(UsageError, match="another process is writing"), working("output", place):
        pass


def test_work_that_came_to_nothing_leaves_nothing(place: str) -> None:
    with pytest.raises(UsageError, match="no good"), working("output", place):
        raise UsageError("no good")
    assert Remote("output", place).files() == {}


def test_shares_of_a_grid_come_together(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with working("output", place, shared=True) as one:
        with monkeypatch.context() as other:
            other.setenv("LIMBECK_CACHE", str(tmp_path / "another machine"))
            with working("output", place, shared=True) as two:
                _write(two.folder, {"cells/b": "2", "cells/same": "theirs", "table": "b"})
        _write(one.folder, {"cells/a": "1", "cells/same": "mine", "table": "a"})
    assert _at(place) == {"cells/a": "1", "cells/b": "2", "cells/same": "theirs", "table": "a"}
    with working("output", place, shared=True) as again:
        assert (again.folder / "cells" / "b").exists()
        (again.folder / "cells" / "a").unlink()
    assert "cells/a" not in _at(place)


def test_work_that_cannot_be_published_is_kept_here(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Remote, source: Path) -> None:
        raise remote.Unreachable(f"output: {self.url!r} cannot be written: its server does not answer in time")

    block = working("output", place)
    work = block.__enter__()
    _write(work.folder, {"a": "1"})
    monkeypatch.setattr(Remote, "put_file", refuse)
    with pytest.raises(UsageError, match="does not answer in time; what was made is in ") as error:
        block.__exit__(None, None, None)
    assert str(work.folder) in str(error.value) and work.folder.is_relative_to(cache_root())
    assert _read(work.folder)["a"] == "1"


def test_the_store_is_not_asked_for_buckets(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in a bucket may be millions of objects: a name that is not there is not looked for among all."""
    listed, find = [], files().find
    monkeypatch.setattr(files(), "find", lambda path, **more: (listed.append(path), find(path, **more))[1])
    with pytest.raises(UsageError, match="nothing is at"):
        here("path", f"{bucket}/x")
    assert bucket.removeprefix("s3://") not in listed
