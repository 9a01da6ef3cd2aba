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
    for name in ("env", "timeout", "true"):
        os.symlink(str(shutil.which(name)), tmp_path / name)
    program(tmp_path, "id", "echo 0")
    return tmp_path


def test_a_browser_that_is_there_is_named(bare: Path) -> None:
    assert said(bare) == "browser: none, and no apt-get to install one with: the tests in a browser are skipped\n"
    assert said(program(bare, "chromium").parent) == f"browser: {bare / 'chromium'}\n"


def installs(bare: Path, before: str = "") -> None:
    """An apt-get that notes what it was asked, and brings a browser that starts."""
    brings = f'printf "#!{BASH}\\n" > {bare}/chromium; {shutil.which("chmod")} +x {bare}/chromium'
    program(bare, "apt-get", f'echo "$@" >> {bare}/asked\n{before}\ncase " $* " in *" install "*) {brings};; esac')


def test_one_is_installed_where_that_is_possible(bare: Path) -> None:
    installs(bare)
    assert said(bare) == f"browser: {bare / 'chromium'}, installed just now\n"
    update, install = (bare / "asked").read_text().splitlines()
    assert update.endswith(" update") and install.endswith(" install --yes --no-install-recommends chromium")
    assert all("DPkg::Lock::Timeout=60" in one and "Acquire::http::Timeout=20" in one for one in (update, install))
    (bare / "asked").unlink()
    assert said(bare) == f"browser: {bare / 'chromium'}\n" and not (bare / "asked").exists(), "it is there now"


def test_without_news_of_packages_what_is_known_of_them_may_do(bare: Path) -> None:
    installs(bare, 'case " $* " in *" update "*) exit 100;; esac')
    assert "installed just now" in said(bare)


def test_what_does_not_start_is_no_browser(bare: Path) -> None:
    """As the note that some systems have in the place of one."""
    program(bare, "chromium-browser", 'echo "install the snap" >&2; exit 1')
    assert said(bare) == "browser: none, and no apt-get to install one with: the tests in a browser are skipped\n"
    program(bare, "apt-get", "echo done")
    assert "could not install one (done)" in said(bare)
    installs(bare)
    assert said(bare) == f"browser: {bare / 'chromium'}, installed just now\n"


def test_what_cannot_be_installed_is_told(bare: Path) -> None:
    program(bare, "apt-get", 'echo "Reading package lists..."; echo "E: Unable to locate package chromium" >&2; exit 100')
    assert "could not install one (E: Unable to locate package chromium): the tests" in said(bare)
    program(bare, "sudo", "exit 1")
    program(bare, "id", "echo 1000")
    assert "no right to install one" in said(bare)
    (bare / "sudo").unlink()
    assert "no right to install one" in said(bare)
    program(bare, "sudo", 'shift; exec "$@"')
    installs(bare)
    assert "installed just now" in said(bare)
