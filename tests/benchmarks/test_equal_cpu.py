"""`benchmarks/equal_cpu.py` and what stands on it: whose timings count, what is shown, sets that are gone."""

import importlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from limbeck.accuracy import Accuracies
from limbeck.evaluation.results import Evaluation, SetResult
from limbeck.evaluation.statistics import summarise
from limbeck.studies.cells import CellFolder, CellRecord

FOLDER = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def equal_cpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("equal_cpu")


@pytest.fixture
def edf_plus(equal_cpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    script = importlib.import_module("edf_plus")
    monkeypatch.setattr(script, "KEPT", tmp_path / "kept")
    return script


class Commands:
    """Stands in for processes of `limbeck`: a tenth of a second of CPU an iteration, and an accuracy of a half."""

    def __init__(self) -> None:
        self.called: list[tuple[str, ...]] = []

    def __call__(self, *words: str, shown: bool = False) -> str:
        self.called.append(words)
        if words[0] == "distill":
            spent = 0.1 * yaml.safe_load(Path(words[1]).read_text())["outer"]["iterations"]
            run = Path(words[words.index("--output") + 1])
            run.mkdir()
            (run / "results.json").write_text(json.dumps({"cpu_seconds": {"distil": spent}}))
        return json.dumps(Evaluation(sets=(SetResult(accuracy=Accuracies(distilled=summarise([0.5, 0.5]))),)).to_dict())

    def of(self, command: str) -> list[tuple[str, ...]]:
        return [words for words in self.called if words[0] == command]


@pytest.fixture
def commands(equal_cpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Commands:
    stand_in = Commands()
    monkeypatch.setattr(equal_cpu, "limbeck", stand_in)
    return stand_in


def asked(script: ModuleType, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr("sys.argv", ["script.py", *words.split()])
    script.main()


@pytest.mark.parametrize(
    ("only", "timed", "pairs"),
    [
        ("edf,edf-x4+edf-norm", ["edf", "edf-x4"], ["--pairs=edf-x4+edf-norm:edf"]),
        ("datm", ["edf"], []),
        ("edf", ["edf"], []),
    ],
)
def test_a_timing_is_that_of_all_that_are_alike(
    edf_plus: ModuleType, commands: Commands, monkeypatch: pytest.MonkeyPatch, only: str, timed: list[str], pairs: list[str]
) -> None:
    asked(edf_plus, monkeypatch, f"scenes-medium --seeds 1 --only {only}")
    folder = edf_plus.KEPT / "scenes-medium-ipc3"
    known = json.loads((folder / "iterations.json").read_text())
    assert known == dict.fromkeys(timed, {"seconds": 0.1, "iterations": 10 * edf_plus.SECONDS})
    assert {path.stem for path in (folder / "recipes").iterdir()} == set(only.split(","))
    (compared,) = commands.of("compare")
    assert [word for word in compared if word.startswith("--pairs")] == pairs
    before = len(commands.of("distill"))
    asked(edf_plus, monkeypatch, f"scenes-medium --seeds 1 --only {only}")
    assert before == 3 * len(timed) == len(commands.of("distill"))


def test_candidates_that_are_none_are_refused(
    edf_plus: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        asked(edf_plus, monkeypatch, "cifar10 --only edf,edf-x4+edf-twice")
    assert "--only: edf-twice is not among edf, datm" in capsys.readouterr().err


Measured = Callable[[Path, Sequence[str], Sequence[str], int], list[str]]


@pytest.fixture
def measured(equal_cpu: ModuleType, edf_plus: ModuleType) -> Measured:
    """Leaves a comparison of which so many entrants have been timed, of which some have finished cells; its recipes."""

    def write(folder: Path, timed: Sequence[str], finished: Sequence[str], seeds: int) -> list[str]:
        known = {name: {"seconds": 1.0, "iterations": 20} for name in timed}
        recipes = [
            equal_cpu.write(folder / "recipes" / f"{name}.yaml", edf_plus.changed("scenes-medium", 1, name, 20))
            for name in finished
        ]
        (folder / "iterations.json").write_text(json.dumps(known))
        for number, cell in enumerate(equal_cpu.cells_under(recipes, seeds, "dd")):
            found = Accuracies(distilled=summarise([0.1 + number / 50] * 2))
            CellFolder(folder / "dd").write(cell, CellRecord(accuracy=found))
        return recipes

    return write


def content(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_showing_runs_and_writes_nothing(
    edf_plus: ModuleType,
    commands: Commands,
    measured: Measured,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked(edf_plus, monkeypatch, "scenes-medium --ipc 1 --show")
    assert "nothing is finished of edf, datm" in capsys.readouterr().out and not edf_plus.KEPT.exists()
    folder = edf_plus.KEPT / "scenes-medium-ipc1"
    measured(folder, ["edf", "edf-x4"], ["edf", "edf-norm"], 2)
    before = content(folder)
    asked(edf_plus, monkeypatch, "scenes-medium --ipc 1 --seeds 3 --show")
    said = capsys.readouterr().out
    # Means of seeds 0 and 1, which take turns; a candidate whose recipe was never written is left out, as are pairs with it.
    assert "edf-norm − edf: +2.0" in said and "12.0" in said and "14.0" in said
    assert "edf-x4" not in said and "cells to be run yet: 2" in said
    assert commands.called == [] and content(folder) == before


def test_cells_of_other_settings_are_refused_in_a_line(
    edf_plus: ModuleType, equal_cpu: ModuleType, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = edf_plus.KEPT / "scenes-medium-ipc1"
    measured(folder, ["edf"], ["edf"], 1)
    equal_cpu.write(folder / "recipes" / "edf.yaml", edf_plus.changed("scenes-medium", 1, "edf", 30))
    with pytest.raises(SystemExit, match="^output: .*edf-ipc1-seed0.json' was measured with "):
        asked(edf_plus, monkeypatch, "scenes-medium --ipc 1 --seeds 1 --show")


def test_sets_that_are_gone_are_said_and_the_others_evaluated(
    equal_cpu: ModuleType,
    edf_plus: ModuleType,
    commands: Commands,
    measured: Measured,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "compared"
    recipes = measured(folder, ["edf"], ["edf", "datm"], 1)
    edf, datm = equal_cpu.cells_under(recipes, 1, "dd")
    CellFolder(folder / "dd").run_folder(datm).mkdir(parents=True)
    entrants = {name: partial(edf_plus.changed, "scenes-medium", 1, name) for name in ("edf", "datm")}
    equal_cpu.compare(entrants, folder, 60, 1, ("dd", "none"), "edf:datm", {"datm": "edf"})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"{folder / 'none'}: lacks cells whose sets are gone; where these files are removed, they are distilled again: "
    )
    assert line.endswith(f" {CellFolder(folder / 'dd').result_file(edf)}")
    assert [Path(words[1]).name for words in commands.of("evaluate")] == ["datm-ipc1-seed0"]
    gone, there = (CellFolder(folder / "none").read(cell) for cell in equal_cpu.cells_under(recipes, 1, "none"))
    assert gone is None and there is not None and there.accuracy.distilled.mean == 0.5
    kept: Any = CellFolder(folder / "dd").read(datm)
    assert kept.accuracy.distilled.mean == pytest.approx(0.12)
