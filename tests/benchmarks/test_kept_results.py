"""Results that scripts of `benchmarks/` keep: what is there counts for what it was measured of, and nothing replaces it unasked."""

import importlib
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from reliability import kills

import limbeck
from limbeck.accuracy import Accuracies
from limbeck.cli.main import main
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.protocols import PROTOCOLS
from limbeck.evaluation.statistics import summarise
from limbeck.recipes import load_recipe
from limbeck.runtime.files import write_json
from limbeck.studies.cells import CELL, CellRecord

FOLDER = Path(__file__).parents[2] / "benchmarks"
SIZES = {"size": 16, "per_class": 12, "network": "ConvNetD2-w4", "epochs": 1, "full_epochs": 1, "random_lr": 0.05, "eval.seeds": 2}
Script = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls a script with some words; what it prints."""

    def asked(module: ModuleType, *words: object) -> str:
        monkeypatch.setattr("sys.argv", ["script.py", *map(str, words)])
        module.main()
        return capsys.readouterr().out

    return asked


def test_protocols_are_of_one_set(script: Script, ask: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocols, called = script("protocols"), list[str]()

    def run(words: list[str], **_: Any) -> Any:
        called.append(words[words.index("--protocol") + 1])
        with redirect_stdout(StringIO()) as said:
            status = main(words[3:])
        return SimpleNamespace(returncode=status, stdout=said.getvalue(), stderr="")

    monkeypatch.setattr(protocols, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(protocols, "PROTOCOLS", {"dd": PROTOCOLS["dd"]})
    run_folder, output = tmp_path / "run", tmp_path / "protocols.json"
    limbeck.distill("scenes:easy", "random", output=run_folder, features="none", **SIZES)
    words = (run_folder, "eval.epochs=1", "--output", output)
    said = ask(protocols, *words)
    row = json.loads(output.read_text())["dd"]
    assert f"| `dd` | {100 * row['accuracy']['random']['mean']:.1f} ± " in said and called == ["dd"]
    assert row["gain"]["n"] == 2 and row["seconds"] > 0 and row["words"] == ["eval.epochs=1"]
    assert ask(protocols, *words) == said and called == ["dd"]
    with pytest.raises(SystemExit, match="^--output: dd of .* was measured with other settings; name another file$"):
        ask(protocols, run_folder, "eval.epochs=2", "--output", output)
    write_json(output, {"dd": {**row, "protocol": {**row["protocol"], "version": 0}}})
    with pytest.raises(SystemExit, match="measured with another version of its protocol;"):
        ask(protocols, *words)
    write_json(output, {"dd": {key: value for key, value in row.items() if key != "of"}})
    with pytest.raises(SystemExit, match="measured of another set;"):
        ask(protocols, *words)
    write_json(output, {"dd": row})
    held = DistilledSet.load(run_folder / "distilled")
    replace(held, set=replace(held.set, images=held.images + 1)).save(run_folder / "distilled")
    with pytest.raises(SystemExit, match="measured of another set;"):
        ask(protocols, *words)
    assert called == ["dd"]


def test_labels_of_views_are_shown_as_they_were_measured(
    script: Script, ask: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view_labels, output = script("view_labels"), tmp_path / "view-labels.json"
    shutil.copy(FOLDER / "results" / "view-labels.json", output)
    monkeypatch.setattr(view_labels, "measure", None)
    before = output.read_bytes()
    said = ask(view_labels, "--output", output)
    assert "| fp32 | 40 |" in said and "kd-rded, version 1." in said and output.read_bytes() == before
    for words, keys in ((("--seeds", 3), "--seeds"), (("rded.factor=2",), "rded.factor")):
        with pytest.raises(SystemExit, match=f"other values of {keys}; name another file$"):
            ask(view_labels, *words, "--output", output)
    held = json.loads(before)
    del held["variants"]["bf16"]
    write_json(output, held)
    with pytest.raises(SystemExit, match="with version 1 of kd-rded and lacks bf16; name another file for version 2$"):
        ask(view_labels, "--output", output)
    write_json(output, {**held, "version": 2})
    measured = list[str]()
    monkeypatch.setattr(view_labels, "measure", lambda results, settings, names, place: measured.extend(names))
    with pytest.raises(KeyError):  # the stand-in measures nothing
        ask(view_labels, "--output", output)
    assert measured == ["bf16"]


def test_labels_of_views_are_measured_once(
    script: Script, ask: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view_labels, output = script("view_labels"), tmp_path / "view-labels.json"
    sizes = {
        key if "." in key else f"data.{key}": value for key, value in SIZES.items() if key in ("size", "per_class", "eval.seeds")
    }
    sizes |= {"data.source": "scenes:easy", "network": SIZES["network"], "eval.epochs": 2, "eval.full_epochs": 1}
    words = ("--ipc", 1, "--seeds", 2, *(f"{key}={value}" for key, value in sizes.items()), "--output", output)
    said = ask(view_labels, *words)
    held = json.loads(output.read_text())
    assert held["version"] == PROTOCOLS["kd-rded"].version and list(held["variants"]) == [view_labels.LIVE, *view_labels.VARIANTS]
    live, exact = (held["variants"][name]["accuracy"]["values"] for name in (view_labels.LIVE, "fp32"))
    assert live == exact and "0, the same networks" in said
    monkeypatch.setattr(view_labels, "measure", None)
    assert ask(view_labels, *words) == said


def test_of_settings_those_count_that_are_read(script: Script) -> None:
    view_labels, settings = script("view_labels"), load_recipe("scenes/rded-ipc1", {"eval.protocol": "kd-rded"})
    held = view_labels.encodable(settings)
    assert view_labels.others(held, settings) == []
    del (
        held["rded"],
        held["match"]["drop_side"],
    )  # keys that the tree did not have yet had their defaults, and experts are nothing to RDED
    assert view_labels.others({**held, "experts": {**held["experts"], "difficulty": "grand"}}, settings) == []
    changed = load_recipe("scenes/rded-ipc1", {"eval.protocol": "kd-rded", "rded.factor": "2", "match.syn_steps": "3"})
    assert view_labels.others(held, changed) == ["rded.factor"]


def test_a_file_of_other_settings_is_not_added_to(script: Script, ask: Callable[..., str], tmp_path: Path) -> None:
    decoupled, output = script("decoupled"), tmp_path / "decoupled.json"
    write_json(output, {"settings": {**decoupled.SETTINGS, "eval.epochs": "30"}, "environment": {}, "cells": {}})
    before = output.read_bytes()
    with pytest.raises(SystemExit, match="was measured with other settings; name another file$"):
        ask(decoupled, "--output", output)
    assert output.read_bytes() == before


def test_coresets_of_before_stay(script: Script, ask: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coresets, result = script("coresets"), tmp_path / "result.json"
    shutil.copy(coresets.RESULT, result)
    monkeypatch.setattr(coresets, "RESULT", result)
    before = json.loads(result.read_text())
    said = ask(coresets, "--show", "--ipc", "7", "--folder", tmp_path)
    assert said == f"{tmp_path / 'ipc7'}: holds no finished cell\n" and json.loads(result.read_text()) == before

    def finish(ipc: int, method: str, mean: float) -> None:
        found = Accuracies(distilled=summarise([mean, mean]))
        facts = {"method": method, "ipc": ipc, "seed": 0}
        record = CellRecord(facts=facts, accuracy=found, network=coresets.SETTINGS["network"], seconds={"evaluate": 1.0})
        write_json(tmp_path / f"ipc{ipc}" / "cells" / f"{method}-ipc{ipc}-seed0.json", record, CELL)

    finish(10, "random", 0.25)
    finish(1, "herding", 0.75)
    ask(coresets, "--show", "--folder", tmp_path)
    one, ten = json.loads(result.read_text())["comparisons"]
    assert (one["ipc"], ten["ipc"], list(ten["cells"])) == (1, 10, ["random-ipc10-seed0"])
    old = before["comparisons"][0]["cells"]
    assert list(one["cells"]) == list(old) and one["cells"]["herding-ipc1-seed0"]["accuracy"]["distilled"]["mean"] == 0.75
    assert all(one["cells"][name] == row for name, row in old.items() if name != "herding-ipc1-seed0")
    assert [row["method"] for row in one["tables"][0]["rows"]] == [row["facts"]["method"] for row in old.values()]
    assert FOLDER / "results" in coresets.CELLS.parents  # where a checkout brings them along


def test_leaks_are_kept_by_name(script: Script, ask: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaks, kept = script("leaks"), tmp_path / "leaks.json"
    kept.write_text('{"before": 1}')
    monkeypatch.setattr(leaks, "KEPT", kept)
    seen = [leaks.Sample(100 * number, 10**8, 9, 1, 0, 50) for number in range(12)]
    monkeypatch.setattr(leaks, "samples", lambda iterations, every: seen)
    ask(leaks)
    assert json.loads(kept.read_text()) == {"before": 1}
    ask(leaks, "--name", "now")
    assert json.loads(kept.read_text()).keys() == {"before", "now"}


def test_kills_go_on_with_their_own_seed(
    ask: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "kills.json"
    monkeypatch.setattr(kills, "run", lambda *given: given[-1]())
    ask(kills, "--stages", "evaluate", "--seed", "3", "--output", output)
    before = output.read_bytes()
    assert json.loads(before)["seed"] == 3
    with pytest.raises(SystemExit):
        ask(kills, "--stages", "evaluate", "--output", output)
    assert "--seed: 0 is not 3, with which " in capsys.readouterr().err and output.read_bytes() == before
