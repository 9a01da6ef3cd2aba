"""The pages `docs/add-a-*.md` as they stand: their files lie in a folder, their tests pass, their commands and Python lines run."""

import importlib
import inspect
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from studies.here import without_pages

import limbeck
from limbeck.cli.main import main
from limbeck.distilled.set import DistilledSet
from limbeck.recipes import parse_overrides, settings_from_plain
from limbeck.runs.distill import distill

PAGES = {page.stem: page.read_text(encoding="utf-8") for page in (Path(__file__).parents[1] / "docs").glob("add-a-*.md")}
BLOCK = r"```\w+\n(.*?)^```$"
QUICK = """
    data.size=16 data.per_class=12 network=ConvNetD2-w8 experts.num_experts=2 experts.train_epochs=3 experts.batch_size=32
    match.syn_steps=2 match.expert_epochs=1 schedule.min_start_epoch=0 schedule.first_max_start_epoch=1 schedule.max_start_epoch=2
    outer.iterations=3 engine.compile=no eval.every=3 eval.every_seeds=1 eval.epochs=1 eval.seeds=2 eval.full_epochs=1
    eval.full_seeds=2 eval.random_lr=0.01 features=none
"""
SMALL = parse_overrides(QUICK.split())


def files(page: str) -> dict[str, str]:
    """The files of a page: blocks that follow a line with their name."""
    return dict(re.findall(rf"^`([\w.-]+)`:\n\n{BLOCK}", PAGES[page], re.MULTILINE | re.DOTALL))


def commands(page: str) -> list[str]:
    """`limbeck distill …`, wherever it is said."""
    return [" ".join(line.split()) for line in re.findall(r"`(limbeck distill [^`]*)`", PAGES[page])]


def lines_of_python(page: str) -> list[str]:
    """What is said to do the same in Python."""
    return re.findall(rf"in Python:\n\n{BLOCK}", PAGES[page], re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files of the page in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in files(request.getfixturevalue("page")).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    return tmp_path


def test_there_is_a_page_for_each_of_these() -> None:
    assert PAGES.keys() == {f"add-a-{name}" for name in ("criterion", "data-source", "distance", "map", "method")}
    assert all(len(PAGES[f"add-a-{name}"].splitlines()) <= 60 for name in ("criterion", "distance", "map"))


@pytest.mark.parametrize("page", PAGES)
def test_the_test_of_a_page_passes(page: str, folder: Path) -> None:
    (test,) = (name for name in files(page) if name.startswith("test_"))
    functions = [one for name, one in vars(importlib.import_module(Path(test).stem)).items() if name.startswith("test_")]
    assert functions
    for function in functions:
        function(**({"tmp_path": folder} if inspect.signature(function).parameters else {}))


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_and_python_does_the_same(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_pages(monkeypatch)
    assert commands(page)
    for number, command in enumerate(commands(page)):
        words = shlex.split(command)[1:]
        assert main([*words, *small(words), "--output", f"run-{number}"]) == 0, capsys.readouterr().err
    for block in lines_of_python(page):
        asked = list[tuple[str, Any]]()
        monkeypatch.setattr(limbeck, "distill", lambda data, method: asked.append((data, method)))  # noqa: B023 (used at once)
        exec(block, {})  # noqa: S102
        (data, method), words = asked[0], [word for word in shlex.split(commands(page)[0]) if "=" in word]
        made = []
        for name, given in (("objects", []), ("names", words)):
            values = {"data.source": data, "method": method if name == "objects" else "edf"}
            distill(settings_from_plain(values, parse_overrides([*small(words), *given])), folder / name)
            made.append(DistilledSet.load(folder / name / "distilled").images)
        assert torch.equal(*made)


def small(words: list[str]) -> list[str]:
    """What makes a run quick, but for the keys that are given."""
    given = {word.partition("=")[0] for word in words}
    return [f"{key}={value}" for key, value in SMALL.items() if key not in given]
