"""`limbeck doctor`: what it finds, what is wrong with it, and that it removes what it is asked to and nothing else."""

import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from buckets import forget_all
from safetensors.torch import save_file

import limbeck
from limbeck.cli.main import main
from limbeck.runs import doctor
from limbeck.runtime import cleaning, disk
from limbeck.runtime.locks import lock
from limbeck.runtime.published import working


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without compiling, which has a test of its own."""
    monkeypatch.setattr(doctor, "compiled_deviation", lambda: 2e-7)


def found(capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, Any]:
    assert main(["doctor", "--json"]) == status
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def fill(cache: Path) -> None:
    """Something of every kind, and something that is none of ours."""
    for number, kind in enumerate([*cleaning.KINDS, "letters"], start=1):
        (cache / kind / "deep").mkdir(parents=True)
        (cache / kind / "deep" / "file").write_bytes(bytes(1000 * number))
    save_file({"x": torch.ones(2)}, cache / "full" / "a.safetensors")
    (cache / "full" / "a.safetensors.lock").touch()


@pytest.mark.usefixtures("quick")
def test_all_is_said_and_nothing_is_wrong(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(cache)
    result = found(capsys)
    assert result["problems"] == []
    assert {"limbeck", "torch", "python", "system"} <= result["versions"].keys()
    assert result["cores"] >= 1 and 0 < result["memory"]["free"] <= result["memory"]["total"]
    assert result["cache"] == str(cache)
    assert {kind["name"]: kind["bytes"] for kind in result["kinds"]}["images"] == 1000
    assert [place["what"] for place in result["places"]][:3] == ["cache", "current folder", "passing files"]
    assert all(place["free"] > 0 and place["reason"] == "" for place in result["places"])
    exact = result["tests"][0]
    assert exact["name"] == "exact against unroll"
    assert 0 < exact["deviation"] < 1e-12
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "nothing is wrong"
    assert "decoded images" in said


@pytest.mark.slow
def test_a_compiled_step_is_the_plain_one() -> None:
    if doctor.compiler() is None:
        pytest.skip("no C++ compiler is here")
    test = doctor.self_test("compiled against plain", doctor.compiled_deviation, doctor.COMPILED)
    assert test.good and test.deviation is not None and test.deviation < 1e-5


@pytest.mark.usefixtures("quick")
def test_a_gradient_that_is_wrong_is_a_problem(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gradients, pulled = doctor.Exact.__call__, list[bool]()

    def wrong(self: Any, *given: Any) -> Any:
        found = gradients(self, *given)
        pulled.append(True)
        found[0].images[0, 0, 0, 0] *= 1.001
        return found

    monkeypatch.setattr(doctor.Exact, "__call__", wrong)
    (problem,) = found(capsys, 1)["problems"]
    assert pulled
    assert problem.startswith("exact against unroll: ")
    assert problem.endswith("which is more than rounding (1e-09)")
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 problems"


def test_a_compiler_that_fails_is_a_problem_and_none_is_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> float:
        raise RuntimeError("g++: internal\nerror")

    monkeypatch.setattr(doctor, "compiler", lambda: "/usr/bin/g++")
    monkeypatch.setattr(doctor, "compiled_deviation", broken)
    said = "compiled against plain: it could not be computed (RuntimeError: g++: internal error)"
    assert found(capsys, 1)["problems"] == [said]
    monkeypatch.setattr(doctor, "compiler", lambda: None)
    if not torch.cuda.is_available():
        result = found(capsys)
        assert result["compiler"] is None and len(result["tests"]) == 1
        assert result["notes"][0].startswith("no C++ compiler was found: everything runs uncompiled")


@pytest.mark.usefixtures("quick")
def test_places_that_cannot_be_written_and_what_is_missing_are_problems(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = disk.try_folder

    def try_folder(folder: Path) -> None:
        if folder == cache:
            raise OSError(errno.EROFS, "Read-only file system")
        tried(folder)

    monkeypatch.setattr(disk, "try_folder", try_folder)
    monkeypatch.setattr(disk, "free", lambda place: 10**6)
    monkeypatch.setattr(doctor, "PACKAGES", ("limbeck", "no-such-package"))
    monkeypatch.setattr(doctor, "memory_left", lambda: (10**9, 4 * 10**9))
    result = found(capsys, 1)
    assert result["problems"] == [
        "no-such-package is not installed",
        f"nothing can be written in {cache} (cache): the file system is read-only",
    ]
    assert f"1.0 MB are free in {Path.cwd()} (current folder)" in result["notes"]
    assert "this process may take 4.0 GB of memory, of which 1.0 GB are left (cgroup)" in result["notes"]


def test_cleaning_removes_what_is_named(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(cache)
    assert main(["doctor", "--clean", "images,full", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["removed"].keys() == {"images", "full"} and result["busy"] == []
    assert result["removed"]["images"] == 1000
    left = {kind.name for kind in cleaning.held() if kind.files}
    assert left == cleaning.KINDS.keys() - {"images", "full"}
    assert main(["doctor", "--clean", "all"]) == 0
    assert "removed 2.0 kB of trajectories of experts (experts)" in capsys.readouterr().out
    assert not [kind for kind in cleaning.held() if kind.files]
    assert (cache / "letters" / "deep" / "file").is_file()  # a cache may lie among other things
    assert main(["doctor", "--clean", "all"]) == 0
    assert capsys.readouterr().out == "there was nothing to remove\n"


def test_what_is_being_made_stays(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "experts" / "store" / "expert-0000").mkdir(parents=True)
    (cache / "experts" / "store" / "expert-0000" / "epochs").write_bytes(bytes(10))
    (cache / "experts" / "other").mkdir()
    (cache / "experts" / "other" / "epochs").write_bytes(bytes(20))
    (cache / "images" / ".photos.part").mkdir(parents=True)
    (cache / "images" / ".photos.part" / "images.npy").write_bytes(bytes(30))
    with lock(cache / "experts" / "store" / "expert-0000"), lock(cache / "images" / "photos"):
        assert main(["doctor", "--clean", "experts,images", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["removed"] == {"experts": 20}
    assert result["busy"] == [str(cache / "experts" / "store"), str(cache / "images" / ".photos.part")]
    assert main(["doctor", "--clean", "experts,images", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == {"experts": 10, "images": 30}


def test_cleaning_asks_where_somebody_is_there(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(cache)
    assert main(["doctor", "--clean"]) == 2
    assert "nobody is there to be asked" in capsys.readouterr().err
    assert main(["doctor", "--clean", "pictures"]) == 2
    assert "--clean: 'pictures' is not one of images, experts, " in capsys.readouterr().err
    answer = io.StringIO("shards, views\n")
    monkeypatch.setattr(answer, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", answer)
    assert main(["doctor", "--clean"]) == 0
    out, err = capsys.readouterr()
    assert "remove which (names joined by commas, or all; none: nothing)? " in err
    assert "  decoded images" in err
    assert out.count("removed ") == 2
    assert sorted(os.listdir(cache / "images")) == ["deep"]


def test_work_that_is_not_at_its_url_goes_by_its_name_alone(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fsspec")
    forget_all()
    done, killed = (f"memory://{cache.name}/{name}" for name in ("done", "killed"))
    with working("output", done) as work:
        (work.folder / "a").write_bytes(bytes(3000))
    block = working("output", killed)
    left = block.__enter__().folder
    (left / "a").write_bytes(bytes(5000))
    assert main(["doctor", "--clean", "all", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["removed"].keys() == {"work"} and list(result["unpublished"]) == [str(left)]
    assert not work.folder.exists() and (left / "a").exists()
    (kind,) = [kind for kind in cleaning.held() if kind.name == "work"]
    assert kind.what == "what was made for URLs, 5.1 kB of it not there yet" and kind.bytes > 5000
    assert main(["doctor", "--clean", "all"]) == 0
    said = f"{left} stays: it has 5.1 kB, and not all of it is at its URL; `limbeck doctor --clean work` removes it\n"
    assert capsys.readouterr().out == said
    assert main(["doctor", "--clean", "work"]) == 0
    assert capsys.readouterr().out == f"{left.parent} stays: a process is making it\n"
    block.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)  # which publishes it
    assert main(["doctor", "--clean", "all"]) == 0
    assert "of what was made for URLs (work)" in capsys.readouterr().out and not left.exists()
    with working("output", killed, resume=True) as again:  # fetched
        assert (again.folder / "a").stat().st_size == 5000


def test_killed_work_is_removed_when_it_is_named(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = cache / "work" / "0123" / "run.d"
    left.mkdir(parents=True)
    (left / "checkpoint").write_bytes(bytes(2000))
    for words, stays in (("all", True), ("images", True), ("all,work", False)):
        assert main(["doctor", "--clean", words]) == 0
        assert left.exists() is stays
    assert "removed 2.0 kB of what was made for URLs (work)" in capsys.readouterr().out


def test_many_locks_are_more_than_a_process_may_have_open(cache: Path) -> None:
    folder = cache / "compiled" / "locks"
    folder.mkdir(parents=True)
    for number in range(100):
        (folder / f"{number}.lock").touch()
    code = "import resource as r, limbeck.runtime.cleaning as it; r.setrlimit(r.RLIMIT_NOFILE, (64, 64)); it.clean(['compiled'])"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not folder.exists()


def test_all_that_is_kept_can_be_emptied() -> None:
    """But locks."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in Path(limbeck.__file__).parent.rglob("*.py"))
    kept = set(re.findall(r'cache_root\(\) / "(\w+)"', sources)) | set(re.findall(r'Kept\.\w+\(place\("(\w+)"', sources))
    assert kept - {"locks"} == set(cleaning.KINDS) and len(kept) > 10
