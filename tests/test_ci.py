"""`.ci/browser` installs a browser where it can, says what there is, and never fails."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "browser"
BASH = shutil.which("bash")


def program(folder: Path, name: str, text: str = "exit 0") -> Path:
    path = folder / name
    path.write_text(f"#!{BASH}\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def said(programs: Path) -> str:
    """What the script says where there are only these programs."""
    found = subprocess.run([str(BASH), str(SCRIPT)], env={"PATH": str(programs)}, capture_output=True, text=True)
    assert found.returncode == 0
    return found.stdout


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Programs as of a machine on which we are root, or may become it."""
    for name in ("env", "timeout"):
        os.symlink(str(shutil.which(name)), tmp_path / name)
    program(tmp_path, "id", "echo 0")
    return tmp_path


def test_a_browser_that_is_there_is_named(bare: Path) -> None:
    assert said(bare) == "browser: none, and no apt-get to install one with: the tests in a browser are skipped\n"
    assert said(program(bare, "chromium").parent) == f"browser: {bare / 'chromium'}\n"


def test_one_is_installed_where_that_is_possible(bare: Path) -> None:
    ends = f'if [ "$1" = install ]; then printf "#!{BASH}\\n" > {bare}/chromium; {shutil.which("chmod")} +x {bare}/chromium; fi'
    program(bare, "apt-get", ends)
    assert said(bare) == f"browser: {bare / 'chromium'}, installed just now\n"


def test_what_cannot_be_installed_is_told(bare: Path) -> None:
    program(bare, "apt-get", "exit 100")
    assert "could not install one" in said(bare)
    program(bare, "id", "echo 1000")
    program(bare, "sudo", "exit 1")
    assert "no right to install one" in said(bare)
