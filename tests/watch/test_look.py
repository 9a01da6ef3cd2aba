"""What the list says of runs: those that go on, that have ended, that were killed, that are damaged or not there yet."""

from pathlib import Path

import pytest
from report.fake_run import make_run
from watch.runs import at_work, begins, goes_on, going, killed

from limbeck.runs.decided import Resolved, resolve
from limbeck.runs.folder import SETTINGS, STATE, RunFolder, State
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.files import read_json, write_json
from limbeck.watch import look as looking
from limbeck.watch.look import Line, Looks, Watched


def test_a_run_that_is_not_there_yet(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "run", "runs/run")
    assert watched.look() == Line("runs/run")
    assert watched.look().state == "not there yet" and watched.mark == "-----"
    (tmp_path / "run").mkdir()
    assert watched.look().state == "not there yet"
    with at_work(going(tmp_path / "run")):
        assert watched.look().state == "distilling"


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    path = going(tmp_path / "run")
    watched = Watched(path)
    with at_work(path):
        line = watched.look()
        assert (line.method, line.state, line.progress, line.share) == ("edf · scenes", "distilling", "20 of 100", 0.2)
        assert line.left == "about 24.0 s", "0.3 s each, and 80 are left"
        goes_on(path, kind="iteration", iteration=20, loss=0.12345678, skipped=False, skipped_share=0.25, seconds=2.7)
        goes_on(path, kind="evaluation", iteration=21, accuracy={"mean": 0.125, "std": 0.01}, best=False)
        line = watched.look()
    assert (line.progress, line.loss) == ("21 of 100", "0.1235")
    assert line.left == f"about {79 * (20 * 0.3 + 2.7) / 21:.1f} s"
    assert line.accuracy.startswith("12.5 % (best ")
    assert line.warnings == ("25.0 % of the iterations changed nothing",)


def test_stages_before_and_after_the_loop(tmp_path: Path) -> None:
    path = going(tmp_path / "run", total=20)
    watched = Watched(path)
    with at_work(path):
        assert (watched.look().state, watched.look().left) == ("final evaluation", "–")
        log = begins(path)
        assert (watched.look().state, watched.look().progress) == ("preparing", "–")
        log.append(kind="return", iteration=7, to=0, step=0.25, why="the loss was not finite")
        assert watched.look().warnings == ("after 7 iterations it went back to an earlier state: the loss was not finite",)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("experts", "experts"),
        ("initial", "initial images and labels"),
        ("compile", "compilation"),
        ("distil", "distilling"),
        ("build", "making the images"),
        ("label views", "labels of views"),
        ("evaluate", "final evaluation"),
        ("features", "map of features"),
        ("of another version", "of another version"),
    ],
)
def test_the_stage_is_told_that_it_is_in(tmp_path: Path, stage: str, said: str) -> None:
    """Of a method without a loop, too, of which there are no rows."""
    path = going(tmp_path / "run")
    begins(path)
    write_json(path / "state.json", State("", Resolved("cpu", 1), now=stage), STATE)
    with at_work(path):
        assert Watched(path).look().state == said
    assert Watched(path).look().state == "stopped"


def test_a_run_notes_its_stage_while_it_lasts(tmp_path: Path) -> None:
    path, settings = tmp_path / "run", DistillSettings.of(method="random")
    folder = RunFolder(path, settings, resume=False)
    write_json(path / "settings.json", settings, SETTINGS)
    write_json(path / "state.json", State("", resolve(settings)), STATE)
    watched = Watched(path)
    with at_work(path):
        assert watched.look().state == "preparing"
        with folder.stage("build"):
            assert watched.look().state == "making the images"
        with folder.stage("evaluate"):
            assert watched.look().state == "final evaluation"
        assert folder.state.now is None and list(folder.state.stages) == ["build", "evaluate"]


def test_a_run_that_has_ended(tmp_path: Path) -> None:
    line = Watched(make_run(tmp_path / "run", iterations=20, every=10, shape=(3, 8, 8))).look()
    assert (line.state, line.share, line.left, line.accuracy) == ("ended", 1.0, "–", "37.2 %")


def test_a_run_without_a_loop_that_has_ended_is_done(tmp_path: Path) -> None:
    """Though its settings say of how many iterations a loop would be."""
    path = make_run(tmp_path / "run", iterations=20, every=10, shape=(3, 8, 8))
    settings = read_json(path / "settings.json", SETTINGS)
    write_json(path / "settings.json", settings | {"method": "random"}, SETTINGS)
    begins(path)
    line = Watched(path).look()
    assert settings["outer"]["iterations"] > 0
    assert (line.state, line.progress, line.share) == ("ended", "–", 1.0)


def test_a_run_that_was_killed(tmp_path: Path) -> None:
    path = going(tmp_path / "run")
    assert Watched(path).look().state == "stopped"
    killed(path)
    line = Watched(path).look()
    assert (line.state, line.progress, line.left) == ("stopped", "20 of 100", "–")
    assert (path / ".run.lock").stat().st_size > 0, "looking takes no lock"


def test_runs_of_which_files_are_damaged(tmp_path: Path) -> None:
    path = going(tmp_path / "run")
    watched = Watched(path)
    good = (path / "settings.json").read_bytes()
    (path / "settings.json").write_text("{")
    line = watched.look()
    assert line.state == "damaged" and line.warnings[0].startswith("settings.json cannot be read: ")
    (path / "settings.json").write_bytes(good)
    assert (watched.look().state, watched.look().warnings) == ("stopped", ())
    goes_on(path, kind="evaluation", iteration=30, accuracy="high", best=[])
    goes_on(path, kind="iteration", iteration=[], loss={}, seconds="long")
    assert watched.look().progress == "20 of 100"
    with (path / "metrics.jsonl").open("a") as file:
        file.write("no JSON\n")
    assert watched.look().warnings[0].startswith("metrics.jsonl cannot be read: ")
    for name in ("results.json", "settings.json"):
        for value in ([], {"accuracy": 3}, {"outer": [], "data": "x", "method": {}}):
            write_json(path / name, value)
            assert isinstance(watched.look(), Line)


def test_what_comes_before_a_damaged_row_is_told(tmp_path: Path) -> None:
    path = going(tmp_path / "run", total=10)
    log = begins(path)
    for k in range(5):
        log.append(kind="iteration", iteration=k, loss=1.0)
    with (path / "metrics.jsonl").open("a") as file:
        file.write("oops\n")
    watched = Watched(path)
    for _ in range(2):
        line = watched.look()
        assert (line.progress, line.loss) == ("5 of 10", "1")
        assert len(line.warnings) == 1 and line.warnings[0].startswith("metrics.jsonl cannot be read: ")


def test_a_folder_that_nothing_can_be_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "look", lambda self: 1 / 0)
    line = Looks((Watched(tmp_path, "x"),)).line(0)
    assert (line.state, line.warnings) == ("damaged", ("it holds something else than it should",))


def test_files_are_read_again_only_when_they_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = make_run(tmp_path / "run", iterations=20, every=10, shape=(3, 8, 8)), list[str]()

    def counted(file: Path, *rest: object) -> object:
        read.append(file.name)
        return read_json(file, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(looking, "read_json", counted)
    watched = Watched(path)
    for _ in range(3):
        watched.look()
    assert read == ["settings.json", "state.json", "results.json"]
    write_json(path / "results.json", {})
    watched.look()
    assert read == ["settings.json", "state.json", "results.json", "results.json"]


def test_all_who_ask_at_once_are_told_the_same_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()
    monkeypatch.setattr(Watched, "look", lambda self: (seen.append(1), Line("a"))[1])
    looks = Looks((Watched(tmp_path),), fresh=3600)
    assert [looks.line(0).name for _ in range(3)] == ["a"] * 3 and len(seen) == 1


def test_the_mark_changes_with_what_a_page_shows(tmp_path: Path) -> None:
    path = going(tmp_path / "run")
    watched = Watched(path)
    before = watched.mark
    goes_on(path, kind="iteration", iteration=20, loss=0.1)
    assert watched.mark == before, "single rows come by the line on top"
    (path / "snapshots" / "iteration-000030.safetensors").write_bytes(b"x")
    after = watched.mark
    assert after != before
    (path / "results.json").write_text("{}")
    assert watched.mark not in (before, after)
