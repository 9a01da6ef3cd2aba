"""The scripts of examples/ run, with `--small`, as they stand."""

import ast
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import limbeck

SCRIPTS = {path.stem: path for path in (Path(__file__).parents[1] / "examples").glob("*.py")}
# What each prints and leaves.
SAYS = {
    "quickstart": r"distilled[\s\S]*train any network on images \(10, 3, 16, 16\) and probabilities \(10, 10\)",
    "own_data": r"distilled \d+\.\d ± .* %, random images .*\none network of a plain loop: \d+\.\d%",
    "compare": r"herding[\s\S]*points",
    "own_method": r"DistilledSet\(10 images 3×16×16, hard of 10 classes, .*'means'\)\ndistilled \d",
    "continual_learning": r"10 images of 768 bytes in either memory[\s\S]*distilled − random: .* points over 2 seeds\nverdict: \w+",
}
LEAVES = {"quickstart": ["runs"], "own_data": ["digits"], "compare": ["runs"], "own_method": [], "continual_learning": []}


def test_every_script_is_tried_and_says_what_it_shows_and_how_long_it_takes() -> None:
    assert SCRIPTS.keys() == SAYS.keys() == LEAVES.keys()
    for name, path in SCRIPTS.items():
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert f"python examples/{name}.py [--small]" in said
        assert re.search(r"[Tt]akes (about )?\w+ minutes?", " ".join(said.split())), name


@pytest.mark.parametrize("name", SAYS)
def test_a_script_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS[name]), "--small"])
    runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(SAYS[name], said), said
    assert sorted(path.name for path in tmp_path.iterdir()) == LEAVES[name]
    if LEAVES[name] == ["runs"]:  # the full size has a folder of its own, and finds nothing of the small one there
        assert [path.name.endswith("-small") for path in tmp_path.glob("runs/*")] == [True]
        runpy.run_path(str(SCRIPTS[name]), run_name="__main__")  # what is there counts


def test_the_verdict_on_a_memory_is_that_of_the_interval() -> None:
    tree = ast.parse(SCRIPTS["continual_learning"].read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names: dict[str, Any] = {"limbeck": limbeck}
    exec(ast.unparse(function), names)  # noqa: S102
    said = [names["verdict"](limbeck.Comparison(n=5, mean=0.0, ci95=ends)) for ends in ((0.01, 0.1), (-0.1, -0.01), (-0.1, 0.1))]
    assert [words.split()[0] for words in said] == ["distilled", "random", "undecided:"]
