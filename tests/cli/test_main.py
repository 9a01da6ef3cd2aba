"""Dispatch, exit statuses and messages of the command."""

import os
import subprocess
import sys
from dataclasses import replace
from json import loads
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from limbeck.cli.main import COMMANDS, main
from limbeck.reproduction.results import Reproduction
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.version import VERSION
from limbeck.studies.recovery import Recovery
from limbeck.studies.table import Table

LONG = [f"ConvNetD3-w{width}" for width in range(8, 40)]  # a word that is no name of a file, which has 255 bytes at most
Outcome = tuple[int, str, str]


@pytest.fixture
def limbeck(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs the command in an empty folder: its exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIMBECK_DEBUG", raising=False)

    def run(*words: str) -> Outcome:
        try:
            status = main(list(words))
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the following arguments are required: COMMAND; see `limbeck --help`"),
        ("distil scenes", "invalid choice: 'distil'"),
        ("distill", "the following arguments are required: RECIPE; see `limbeck distill --help`"),
        ("distill scnes", "RECIPE: 'scnes' is neither the name of a recipe nor a file that ends in .yaml; did you mean scenes?"),
        ("distill mine.yaml", "RECIPE: 'mine.yaml' is not a file that exists"),
        ("distill scenes match.drop_rati=1", "match.drop_rati: is not a key; did you mean match.drop_ratio?"),
        ("distill scenes ipc=many", "ipc: 'many' is not a whole number"),
        ("distill scenes match.drop_ratio=1.5", "match.drop_ratio: 1.5 is not in [0, 1)"),
        ("distill scenes ipc=2 --json seed=x", "seed: 'x' is not a whole number"),
        ("distill scenes ipc", "'ipc' is not of the form key=value, such as ipc=10"),
        ("distill scenes --ipc=10", "unrecognized arguments: --ipc=10 (settings are given without dashes: key=value)"),
        ("distill scenes --out runs/a", "unrecognized arguments: --out"),
        ("experts scenes experts.num_experts=0", "experts.num_experts: 0 is not at least 1"),
        ("evaluate runs/a data.size=64", "PATH: 'runs/a' is not there"),
        ("export runs/a --to npz", "the following arguments are required: --output"),
        ("export runs/a --to tar --output a", "invalid choice: 'tar'"),
        ("recipes nope", "NAME: 'nope' is neither the name of a recipe"),
        ("recipes --full", "--full: needs the NAME of a recipe"),
        ("report runs/a", "PATH: 'runs/a' is not there; a run folder, a distilled set, or the folder of a comparison"),
        (f"evaluate a eval.networks={','.join(LONG)}", "PATH: 'a' is not there"),
        (f"report {'a' * 300}", "is not there; a run folder, a distilled set"),
        (f"evaluate {'a' * 300}", "PATH: 'aaa"),
        (f"export {'a' * 300} --to npz --output b", "too long"),
        (f"distill {'a' * 300}.yaml", "too long"),
        (f"tune scenes --output {'a' * 300}.yaml", "too long"),
        (f"experts import {'a' * 300} --network MLP --output b", "FILE: 'aaa"),
        (f"comp-dd --check {'a' * 300}", "holds no submission.json"),
        (f"comp-dd --methods random --data-root {'a' * 300}", "is not a folder that exists"),
        (f"comp-dd --scenes --methods random --reuse {'a' * 300}", "has no folder cells/"),
    ],
)
def test_usage_errors(limbeck: Any, line: str, message: str, tmp_path: Path) -> None:
    status, out, err = limbeck(*line.split())
    assert status == 2
    assert out == ""
    assert err.startswith("limbeck: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_command(limbeck: Any) -> None:
    status, out, err = limbeck("--help")
    assert (status, err) == (0, "")
    listed = " ".join(out.split())
    for name, command in COMMANDS.items():
        assert f" {name} {command.help}" in listed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(limbeck: Any, command: str) -> None:
    status, out, _ = limbeck(command, "--help")
    assert status == 0
    assert f"usage: limbeck {command}" in out
    assert "--json" in out


def test_version(limbeck: Any) -> None:
    assert limbeck("--version") == (0, f"limbeck {VERSION}\n", "")


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "limbeck.runs.distill", SimpleNamespace(distill=run, train_experts=run, evaluate=run))
    monkeypatch.setitem(sys.modules, "limbeck.report.html", SimpleNamespace(write_report=run))


def test_failures_are_one_line(limbeck: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, RuntimeError("out of memory\nand a long tale"))
    assert limbeck("distill", "scenes/mtt-ipc1") == (
        1,
        "",
        "limbeck: failed: RuntimeError: out of memory (LIMBECK_DEBUG=1 shows where)\n",
    )
    fail_with(monkeypatch, Failure("expert 3 diverged"))
    assert limbeck("experts", "scenes", "--json") == (1, "", "limbeck: failed: expert 3 diverged\n")
    fail_with(monkeypatch, UsageError("data.source: 'x' is not there"))
    assert limbeck("distill", "scenes/mtt-ipc1") == (2, "", "limbeck: error: data.source: 'x' is not there\n")


@pytest.mark.parametrize("json", [[], ["--json"]])
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("compare a b", Table(title="edf", data="scenes", sections=(), failed={"edf-ipc1-seed0": "the disk has gone"})),
        ("comp-dd", Recovery(title="edf", benchmark="scenes", tables=(), failed={"edf-ipc1-seed0": "the disk has gone"})),
        ("reproduce", Reproduction(scale="cpu", seeds=(0,), items=(), failed={"edf-ipc1-seed0": "the disk has gone"})),
    ],
)
def test_what_a_grid_has_found_is_not_lost_with_cells_that_failed(
    limbeck: Any, monkeypatch: pytest.MonkeyPatch, line: str, found: Any, json: list[str]
) -> None:
    name, *rest = line.split()
    monkeypatch.setitem(COMMANDS, name, replace(COMMANDS[name], run=lambda arguments: found))
    status, out, err = limbeck(name, *rest, *json)
    assert (status, err) == (1, "limbeck: failed: 1 cell failed: edf-ipc1-seed0: the disk has gone\n")
    assert not json or type(found).from_dict(loads(out)) == found
    assert "the disk has gone" in out


def test_traceback_where_it_is_wanted(limbeck: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, RuntimeError("out of memory"))
    monkeypatch.setenv("LIMBECK_DEBUG", "1")
    status, _, err = limbeck("distill", "scenes/mtt-ipc1")
    assert status == 1
    assert err.startswith("Traceback")
    assert "raise error\nRuntimeError: out of memory\nlimbeck: failed: RuntimeError: out of memory" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("distill scenes/mtt-ipc1 ipc=2", "interrupted; continue with: limbeck distill scenes/mtt-ipc1 ipc=2 --resume"),
        ("distill scenes/mtt-ipc1 --resume", "interrupted; continue with: limbeck distill scenes/mtt-ipc1 --resume"),
        ("experts scenes", "interrupted; continue with: limbeck experts scenes"),
    ],
)
def test_interruption_says_how_to_go_on(limbeck: Any, monkeypatch: pytest.MonkeyPatch, line: str, message: str) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert limbeck(*line.split()) == (130, "", f"limbeck: {message}\n")


def test_the_installed_command_exits_with_the_status() -> None:
    done = subprocess.run([sys.executable, "-m", "limbeck", "recipes", "nope"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("limbeck: error: NAME: 'nope'")


def test_a_reader_that_goes_away_is_no_failure_to_talk_about() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "limbeck", "recipes", "scenes"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_unless_told_otherwise(given: str | None, expected: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | (
        {} if given is None else {"OMP_WAIT_POLICY": given}
    )
    code = "import os, sys\nfrom limbeck.cli.main import main\nassert 'torch' not in sys.modules\nmain(['recipes', 'nothing'])\n"
    code += "print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.split() == [expected]
