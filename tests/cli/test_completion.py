"""What shells are offered when somebody presses Tab, and that bash, zsh and fish run the scripts."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.cli.completion import SHELLS, candidates, script_of
from limbeck.cli.main import COMMANDS
from limbeck.evaluation.protocols import PROTOCOLS
from limbeck.methods.registry import METHODS
from limbeck.runs.settings import key_types


def offered(line: str) -> list[str]:
    return candidates(line, COMMANDS)


def test_commands_and_their_actions() -> None:
    assert offered("limbeck ") == [*COMMANDS, "--help", "--version"]
    assert offered("limbeck comp") == ["compare", "comp-dd", "complexity", "completion"]
    assert offered("limbeck experts ")[:4] == ["show", "verify", "prune", "import"]
    assert "--dry-run" in offered("limbeck experts prune experts/ --")
    assert offered("limbeck distil scenes") == []


def test_options_and_what_they_take() -> None:
    assert offered("limbeck evaluate runs/a --re") == ["--recipe", "--resize"]
    assert offered("limbeck evaluate runs/a --executor ") == ["local", "ray"]
    assert set(offered("limbeck evaluate runs/a --protocol ")) == set(PROTOCOLS)
    assert offered("limbeck compare --methods edf,da") == ["edf,datm"]
    assert offered("limbeck export runs/a --output ") == [], "which is a file"


def test_recipes_and_settings() -> None:
    assert offered("limbeck distill scenes/dm") == ["scenes/dm-ipc1", "scenes/dm-ipc3"]
    assert offered("limbeck distill scenes match.drop_r") == ["match.drop_ratio="]
    assert len([found for found in offered("limbeck distill scenes ") if found.endswith("=")]) == len(key_types())
    assert offered("limbeck distill scenes method=") == [f"method={name}" for name in METHODS]
    assert offered("limbeck distill scenes data.skip_bad=") == ["data.skip_bad=true", "data.skip_bad=false"]
    assert offered("limbeck evaluate runs/a eval.view_labels=l") == ["eval.view_labels=live"]
    assert offered("limbeck report match.d") == [], "which takes no settings"


def test_it_needs_no_torch() -> None:
    """Whoever presses Tab waits for it: also behind commands whose options come from other rooms."""
    lines = [f"limbeck {name} -" for name in COMMANDS] + ["limbeck distill scenes method=", "limbeck evaluate a --protocol "]
    code = (
        "import sys\nfrom limbeck.cli.completion import candidates\nfrom limbeck.cli.main import COMMANDS, main\n"
        f"main(['completion', 'bash'])\nassert all(candidates(line, COMMANDS) for line in {lines!r})\n"
        "assert not {'torch', 'matplotlib', 'scipy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with a `limbeck` that is this one."""
    (tmp_path / "limbeck").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m limbeck "$@"\n')
    (tmp_path / "limbeck").chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


# Each sets what its shell sets when Tab is pressed, calls what the script has registered, and prints what is offered.
PRESSED = {
    "bash": 'COMP_LINE="{line}" COMP_POINT={length}; compopt() {{ :; }}; _limbeck; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "zsh": "compadd() {{ while [[ $1 != -- ]]; do shift; done; shift; print -l -- $@ }}; words=({line}) CURRENT=$#words; _limbeck",
    "fish": 'complete -C "{line}"',
}


@pytest.mark.parametrize(
    "shell", [pytest.param(name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"no {name} is here")) for name in SHELLS]
)
def test_shells_run_the_script(shell: str, path: str, tmp_path: Path) -> None:
    line = "limbeck distill scenes/dm"
    script = tmp_path / "script"
    before = "compdef() { : }\n" if shell == "zsh" else ""
    script.write_text(before + script_of(shell) + PRESSED[shell].format(line=line, length=len(line)) + "\n")
    env = {**os.environ, "PATH": path, "HOME": str(tmp_path)}
    done = subprocess.run([shell, str(script)], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stdout.split() == ["scenes/dm-ipc1", "scenes/dm-ipc3"], done.stderr
    if shell == "bash":  # which takes what stands behind = for a word of its own
        line += "-ipc1 method=herd"
        script.write_text(script_of(shell) + PRESSED[shell].format(line=line, length=len(line)) + "\n")
        done = subprocess.run([shell, str(script)], capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.stdout.split() == ["herding"], done.stderr
