"""What a folder is is seen from its files; what does not go together, and what is not ours, is refused in a line."""

import json
from pathlib import Path

import pytest
from distilled.samples import sample_set
from report.fake_run import make_run
from report.page import Page
from report.test_of_complexity import measured
from report.test_several import CIFAR, MEASURED, SCENES

from limbeck.cli.main import main
from limbeck.report.html import write_report as write_run
from limbeck.report.write import kind_of, write_report
from limbeck.runtime.errors import UsageError

SMALL = {"iterations": 20, "every": 10, "shape": (3, 8, 8)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_kind_is_known_by_its_files(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", **SMALL)
    found = {
        "a run": run,
        "a distilled set": run / "distilled",
        "a comparison": CIFAR,
        "a benchmark of comp-dd": SCENES,
        "a result of complexity": measured(tmp_path / "complexity", "x"),
    }
    assert {kind_of(path).name: path for path in found.values()} == found
    assert kind_of(MEASURED / "compare-scenes-precision").name == "a comparison", "by its cells alone"
    (tmp_path / "grid" / "cells").mkdir(parents=True)
    (tmp_path / "grid" / "cells" / "a.json").write_text(json.dumps({"facts": {"subset": "bird-easy"}}))
    assert kind_of(tmp_path / "grid").name == "a benchmark of comp-dd"


def test_one_run_has_the_report_it_always_had(here: Path) -> None:
    run = make_run(here / "run", **SMALL)
    assert write_report("run") == Path("run/report.html")
    written = (run / "report.html").read_bytes()
    assert write_report("run", output="elsewhere/a.html").read_bytes() == written == write_run(run).read_bytes()


def test_pages_of_several_lie_here_and_those_of_a_study_in_its_folder(here: Path) -> None:
    a, b = (make_run(here / name, **SMALL) for name in "ab")
    assert write_report(a, b) == Path("limbeck-report.html")
    assert write_report(measured(here / "c", "x")) == here / "c" / "report.html"
    files = set((a / "distilled").iterdir())
    assert write_report(a / "distilled") == Path("limbeck-report.html") and set((a / "distilled").iterdir()) == files
    assert Page(Path("limbeck-report.html").read_text(encoding="utf-8")).texts("h2")[0] == "Runs"


def test_a_page_of_ours_is_replaced_and_nothing_else(here: Path) -> None:
    a, b = (sample_set().save(here / name) for name in "ab")
    first = write_report(a, b).read_bytes()
    assert write_report(a, b).read_bytes() == first
    Path("limbeck-report.html").write_text("<title>My holidays</title>")
    with pytest.raises(UsageError, match="--output: 'limbeck-report.html' is there, and no page of Limbeck's; name another file"):
        write_report(a, b)
    assert Path("limbeck-report.html").read_text() == "<title>My holidays</title>"
    Path("old.html").write_text("<!doctype html><title>EDF · scenes – Limbeck</title>", encoding="utf-8")
    assert write_report(a, b, output="old.html").read_bytes() == first
    with pytest.raises(UsageError, match="--output: 'a' is not a file"):
        write_report(a, b, output="a")


def test_mixtures_and_what_is_none_of_these_are_refused(here: Path) -> None:
    run = make_run(here / "run", **SMALL)
    (here / "empty").mkdir()
    (here / "file").write_text("")
    cases = {
        (
            run,
            CIFAR,
        ): r"'.*run' is a run and '.*compare-cifar10-ipc1' is a comparison; only run folders and distilled sets go together",
        (CIFAR, SCENES): "is a comparison and .* is a benchmark of comp-dd",
        (
            CIFAR,
            MEASURED / "compare-scenes-medium",
        ): "compare-scenes-medium' is not possible beside another: a comparison has its own page",
        (run, run): "is given twice",
        (run, here / "empty" / ".." / "run"): "is given twice",
        (here / "empty",): "'.*empty' is not a run folder, a distilled set, or the folder of a comparison",
        (here / "file",): "'.*file' is not a run folder",
        (here / "nowhere",): "'.*nowhere' is not there",
        (): "PATH: None is not a run folder",
    }
    for paths, said in cases.items():
        with pytest.raises(UsageError, match=said) as caught:
            write_report(*paths)
        assert "\n" not in str(caught.value)
    assert not Path("limbeck-report.html").exists()


def test_a_run_and_a_set_go_together(here: Path) -> None:
    page = Page(write_report(make_run(here / "run", **SMALL), sample_set().save(here / "set")).read_text(encoding="utf-8"))
    assert page.texts("h1") == ["EDF · scenes"] and page.texts("th", scope="row")[:2] == ["run", "set"]


def test_the_command_writes_and_says_where(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        sample_set().save(here / name)
    assert main(["report", "a", "b", "--output", "both.html"]) == 0
    assert capsys.readouterr().out == "report: both.html\n" and Path("both.html").exists()
    assert main(["report", "a", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("limbeck: error: PATH: 'nowhere' is not there")
