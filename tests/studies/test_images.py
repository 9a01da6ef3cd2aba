"""Cells of other images are never mixed in, and a source that is none is found out before anything runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies.fake_cells import command, results, starts
from studies.test_compare_command import parsed

from limbeck.cli import compare as cli
from limbeck.cli.main import main
from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.progress import NoProgress
from limbeck.studies import matrix
from limbeck.studies.cells import CELL, Cell
from limbeck.studies.entrants import Entrant, grid
from limbeck.studies.images import SourceImages
from limbeck.studies.taken import take_over

WORDS = ("--methods", "random,k-center", "--base", "scenes/random-ipc1", "--data", "photos.npz", "--output", "cmp")


def write_photos(seed: int, path: str = "photos.npz") -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), np.tile(np.arange(3), 20)
    np.savez(path, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])


def content(cell: Cell) -> str:
    return Workspace(cell.settings, NoProgress()).data.fingerprint


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where cells note themselves that say which images they were measured on; `photos.npz` is here."""
    monkeypatch.chdir(tmp_path)
    write_photos(0)
    started = tmp_path / "started.jsonl"
    made = command(started, result=lambda cell: results(0.5, data={"fingerprint": content(cell)}))
    monkeypatch.setattr(matrix, "distill_command", made)
    return started


@pytest.fixture
def compared(started: Path) -> Callable[..., Any]:
    return lambda seeds, *more: cli.run(parsed(*WORDS, "--seeds", seeds, *more))


def test_a_comparison_does_not_go_on_with_other_images(started: Path, compared: Callable[..., Any]) -> None:
    compared("0,1")
    assert [row.accuracy.n for row in compared("0,1").rows] == [2, 2] and len(starts(started)) == 4
    write_photos(1)
    with pytest.raises(UsageError) as caught:
        compared("0,1,2")
    assert str(caught.value) == (
        "output: 'cmp/cells/random-ipc1-seed0.json' was measured on other images than 'photos.npz' holds now; "
        "name another folder with --output, or delete the file"
    )
    assert len(starts(started)) == 4
    with pytest.raises(UsageError, match="was measured on other images"):  # all is finished, and would be shown as today's
        compared("0,1")
    write_photos(0)
    assert [row.accuracy.n for row in compared("0,1,2").rows] == [3, 3]


def test_who_only_looks_opens_no_images_and_sees_none_mixed(
    started: Path, compared: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared("0,1")
    with monkeypatch.context() as patched:
        patched.setattr(SourceImages, "fingerprint", lambda *_: pytest.fail("opened"))
        assert len(compared("0,1", "--show").rows) == 2
    file = Path("cmp/cells/k-center-ipc1-seed1.json")
    held = read_json(file, CELL)
    write_json(file, {**held, "data": {"fingerprint": "another"}}, CELL)
    first = "cmp/cells/random-ipc1-seed0.json"
    with pytest.raises(UsageError, match=f"^output: '{file}' was measured on other images than '{first}'; name another"):
        compared("0,1", "--show")
    write_json(file, {**held, "data": {}}, CELL)  # of an earlier version
    assert len(compared("0,1", "--show").rows) == len(compared("0,1").rows) == 2


def test_what_is_finished_is_shown_when_its_images_are_gone(compared: Callable[..., Any]) -> None:
    compared("0")
    Path("photos.npz").unlink()
    assert len(compared("0").rows) == len(compared("0", "--show").rows) == 2
    with pytest.raises(UsageError, match=r"^data.source: 'photos.npz' is not there"):
        compared("0,1")
    with pytest.raises(UsageError, match=r"was measured with data.source 'photos.npz', not './photos.npz'"):
        cli.run(parsed(*(word.replace("photos.npz", "./photos.npz") for word in WORDS), "--seeds", "0"))


def test_of_two_unknown_contents_none_is_the_other(compared: Callable[..., Any]) -> None:
    compared("0")
    for file in Path("cmp/cells").iterdir():
        write_json(file, {**read_json(file, CELL), "data": {}}, CELL)
    with pytest.raises(UsageError, match=r"was measured with data.source 'photos.npz', not 'nowhere.npz'"):
        cli.run(parsed(*(word.replace("photos", "nowhere") for word in WORDS), "--seeds", "0"))


def test_cells_of_other_images_are_not_taken_over(compared: Callable[..., Any], tmp_path: Path) -> None:
    compared("0")
    entrant = Entrant("random", "scenes/random-ipc1", 1, {"data.source": "photos.npz"})
    cells = grid([entrant], [0], {})
    write_photos(1)
    assert take_over(cells, Path("cmp"), tmp_path / "others") == {}
    Path("photos.npz").unlink()
    assert take_over(cells, Path("cmp"), tmp_path / "nowhere") == {}
    write_photos(0)
    assert [*take_over(cells, Path("cmp"), tmp_path / "same")] == ["random-ipc1-seed0"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("scenes:impossible", "data.source: 'scenes:impossible' is not scenes or scenes:easy|medium|hard"),
        ("nowhere.npz", "data.source: 'nowhere.npz' is not there; "),
    ],
)
def test_a_source_that_is_none_costs_nothing(started: Path, capsys: pytest.CaptureFixture[str], source: str, says: str) -> None:
    words = ["--methods", "random,k-center", "--base", "scenes/random-ipc1", "--data", source, "--seeds", "0", "--output", "o3"]
    assert main(["compare", *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].removeprefix("limbeck: ").removeprefix("error: ").startswith(says)
    assert starts(started) == [] and not Path("o3").exists()


def test_images_are_looked_at_once_for_all_cells(
    started: Path, monkeypatch: pytest.MonkeyPatch, compared: Callable[..., Any]
) -> None:
    opened: list[Any] = []

    def counted(settings: DataSettings, *more: Any) -> ImageSet:
        opened.append(settings.source)
        return load_data(settings, *more)

    monkeypatch.setattr("limbeck.data.load.load_data", counted)
    compared("0,1")
    assert opened == ["photos.npz"]
