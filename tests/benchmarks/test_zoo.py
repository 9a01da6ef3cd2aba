"""The zoo: sets with figures that an evaluation finds again, to the bit or within the interval, and leaves as they are."""

import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import limbeck
from limbeck.cli.main import main
from limbeck.distilled.card import FIGURE, Figure
from limbeck.distilled.set import DistilledSet
from limbeck.runtime import zoo
from limbeck.runtime.errors import UsageError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "zoo.py"
SIZES = {"size": 16, "per_class": 12, "network": "ConvNetD2-w4", "epochs": 2, "full_epochs": 1, "random_lr": 0.05, "eval.seeds": 2}


@pytest.fixture(scope="module")
def cache_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(cache_of_the_module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks of the full data are trained once."""
    monkeypatch.setenv("LIMBECK_CACHE", str(cache_of_the_module))


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("zoo_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    here = SimpleNamespace(run=run_here, PIPE=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "subprocess", here)
        yield module


def run_here(words: Sequence[str], **_: Any) -> Any:
    """Stands in for a process of `limbeck`, which would import torch anew."""
    assert words[1:3] == ["-m", "limbeck"]
    said = io.StringIO()
    with redirect_stdout(said):
        status = main(list(words[3:]))
    return SimpleNamespace(returncode=status, stdout=said.getvalue())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache_of_the_module: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "random"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(cache_of_the_module))
        limbeck.distill("scenes:easy", "random", output=folder, features="none", **SIZES)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "zoo").mkdir()
    monkeypatch.setenv("LIMBECK_ZOO", str(tmp_path / "zoo"))
    return tmp_path / "zoo"


@pytest.fixture
def command(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def called(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["zoo.py", *words])
        status: int = script.main()
        return status

    return called


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_set_has_the_figure_of_its_card(
    command: Callable[..., int], script: ModuleType, run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("add", str(run), "scenes-random", "--licence", "made by a program", "eval.seeds=3") == 0
    held = DistilledSet.load(place / "scenes-random")
    known = Figure.from_dict(held.metadata[FIGURE])
    assert known.command == "limbeck evaluate zoo:scenes-random eval.seeds=3" and known.accuracy.n == 3
    assert known.processor == script.processor() and known.processor.keys() >= {"name", "instructions", "torch"}
    card = (place / "scenes-random" / "README.md").read_text(encoding="utf-8")
    assert f"**{known.accuracy}**" in card and "`limbeck evaluate zoo:scenes-random eval.seeds=3`" in card
    assert f"instructions {known.processor['instructions']}".replace("_", r"\_") in card
    assert "| Licence | made by a program |" in card

    before = content(place / "scenes-random")
    capsys.readouterr()
    assert main(["evaluate", "zoo:scenes-random", "eval.seeds=3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["sets"][0]
    assert tuple(found["accuracy"]["distilled"]["values"]) == known.accuracy.values
    assert found["environment"]["determinism"]["asked"] is True
    assert content(place / "scenes-random") == before  # nothing is noted in it

    assert command("check") == 0
    assert "the same bits" in capsys.readouterr().out
    moved = replace(known.accuracy, values=(*known.accuracy.values[:-1], 0.999))
    wrong = replace(known, accuracy=moved)
    replace(held, metadata={**held.metadata, FIGURE: wrong.to_dict()}).save(place / "scenes-random")
    assert command("check", "scenes-random") == 1
    assert "OTHER BITS" in capsys.readouterr().out


def test_a_verdict_is_said_as_it_comes(
    command: Callable[..., int],
    script: ModuleType,
    run: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    held, accuracy = DistilledSet.load(run / "distilled"), limbeck.Accuracy(mean=0.5, n=1, values=(0.5,))
    figure = Figure(accuracy=accuracy, command="limbeck evaluate zoo:x", processor=script.processor())
    for name in ("one", "two"):
        replace(held, metadata={**held.metadata, FIGURE: figure.to_dict()}).save(place / name)

    def evaluated(name: str, keys: list[str]) -> limbeck.Accuracy:
        if name == "two":
            raise SystemExit(capsys.readouterr().out)
        return accuracy

    monkeypatch.setattr(script, "evaluated", evaluated)
    with pytest.raises(SystemExit, match=r"^one: 50.0 % \(–\) on its card, now 50.0 %: the same bits"):
        command("check", "one", "two")


def test_elsewhere_the_interval_counts(script: ModuleType) -> None:
    accuracy = limbeck.Accuracy(mean=0.5, std=0.01, ci95=(0.48, 0.52), n=3, values=(0.49, 0.5, 0.51))
    known = Figure(accuracy=accuracy, command="limbeck evaluate zoo:x", processor={"name": "a", "torch": "2"})
    other = {"name": "b", "torch": "2"}
    assert script.verdict(known, replace(accuracy, mean=0.519, values=(0.5,)), other) == (
        True,
        "within the interval, on another kind of processor",
    )
    assert script.verdict(known, replace(accuracy, mean=0.521), other)[0] is False
    assert script.verdict(known, replace(accuracy, values=(0.49, 0.5, 0.52)), {"name": "a", "torch": "2"})[0] is False


def test_what_cannot_be_added_is_said(
    command: Callable[..., int], run: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("add", str(tmp_path / "none"), "a", "--licence", "x") == 2
    assert command("add", str(run), "../a", "--licence", "x") == 2
    (place / "taken").mkdir()
    assert command("add", str(run), "taken", "--licence", "x") == 2
    with pytest.raises(SystemExit, match="status 2"):
        command("add", str(run), "b", "--licence", "x", "data.source=nowhere")
    assert [path.name for path in place.iterdir()] == ["taken"]
    assert command("check", "b") == 2
    assert "'b' is not in the zoo, which holds nothing yet" in capsys.readouterr().err


def test_sets_of_the_zoo_are_found_wherever_a_set_is_read(
    run: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = DistilledSet.load(run / "distilled")
    held.save(place / "one")
    assert len(DistilledSet.load("zoo:one")) == len(held)
    assert main(["export", "zoo:one", "--to", "npz", "--output", str(tmp_path / "one.npz")]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["report", "zoo:one"]) == 0
    assert [path.name for path in place.iterdir()] == ["one"] and "report.html" not in content(place / "one")
    capsys.readouterr()
    assert main(["zoo", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["sets"].items()
    assert listed[0] == "one" and (listed[1]["method"], listed[1]["images"], listed[1]["licence"]) == ("random", 10, "unknown")
    assert main(["zoo"]) == 0
    shown = capsys.readouterr().out
    assert "one" in shown and "scenes:easy" in shown and max(map(len, shown.splitlines())) <= 80
    licence = "of a length that would leave a column of a table no room for anything else beside it"
    replace(held, metadata={**held.metadata, "licence": licence}).save(place / "another-of-ten-classes")
    assert main(["zoo"]) == 0
    shown = capsys.readouterr().out
    assert any("another-of-ten-classes" in line and "scenes:easy" in line for line in shown.splitlines())  # in one row
    assert "licence of one: unknown" in shown and licence in " ".join(shown.split())


def test_an_empty_zoo_is_said_to_be_empty(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    assert capsys.readouterr().out == "the zoo holds nothing yet\n"


def test_where_there_is_no_zoo_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIMBECK_ZOO", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="path: there is no zoo here: it comes with a checkout .* LIMBECK_ZOO names .*gone"):
        DistilledSet.load("zoo:one")
    monkeypatch.delenv("LIMBECK_ZOO")
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "site-packages" / "limbeck" / "runtime" / "zoo.py"))
    with pytest.raises(UsageError, match="it comes with a checkout of Limbeck's repository .in zoo/., or LIMBECK_ZOO names"):
        zoo.names()
    (tmp_path / "site-packages" / "zoo" / "a").mkdir(parents=True)  # beside the package
    (tmp_path / "site-packages" / "zoo" / "a" / "metadata.json").touch()
    assert zoo.names() == ["a"]
    assert zoo.holds(tmp_path / "site-packages" / "zoo" / "a") and not zoo.holds(tmp_path)
    assert main(["zoo"]) == 1  # what is in it is no set
