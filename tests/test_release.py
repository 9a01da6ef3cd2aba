"""The version is said in one place, archives of one commit have the same bytes, and what a release needs is there."""

import io
import re
import subprocess
import sys
import tarfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from limbeck.runtime.version import VERSION

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def script(path: str) -> ModuleType:
    """A program of the repository, as a module."""
    spec = spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def names(listed: str) -> list[str]:
    return [re.split(r"[^\w.-]", one)[0] for one in re.findall(r'"(.*?)"', listed)]


def test_the_version_is_said_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert 'dynamic = ["version"]' in PROJECT and '{ attr = "limbeck.runtime.version.VERSION" }' in PROJECT
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[0] == VERSION, "the newest section of the changelog"
    upgrades = re.findall(r"^## From (\S+) to (\S+)$", (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert upgrades[0] == (sections[1], VERSION)


def test_every_dependency_has_a_lower_bound() -> None:
    """Which `nox -s lowest` tries."""
    listed = PROJECT.partition("\ndependencies = [")[2].partition("\n]")[0]
    bare = [one for one in re.findall(r'"(.*?)"', listed) if not re.search("[>=]=", one.partition(";")[0])]
    assert bare == []


def test_licences_of_all_that_is_named_are_listed() -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    listed = PROJECT.partition("\ndependencies = [")[2].partition("\n]")[0]
    extras = PROJECT.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    wanted = {name for line in [listed, *re.findall(r"= \[(.*)\]", extras)] for name in names(line)}
    assert {f"| {re.sub('[-_.]+', '-', name).lower()} |" for name in wanted} <= set(
        re.findall(r"^\| [\w-]+ \|", page, re.MULTILINE)
    )
    assert "GPL" not in page.replace("LGPL", ""), "under which nobody could give Limbeck away with it"


def tar_of(files: dict[str, bytes], when: int, owner: str) -> bytes:
    """A packed tar, as setuptools writes it: in any order, with the time and the owner of the day."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname, member.uid = len(content), when, owner, when % 1000
            member.mode = 0o600 if when % 2 else 0o644
            made.addfile(member, io.BytesIO(content))
    return held.getvalue()


def test_archives_do_not_depend_on_the_day(tmp_path: Path) -> None:
    rewritten = script("release/dist.py").rewritten
    files = {"a/b.py": b"x = 1\n", "a/c.txt": bytes(3000)}
    for number, packed in enumerate((tar_of(files, 1001, "one"), tar_of(dict(reversed(files.items())), 2002, "two"))):
        (tmp_path / f"{number}.tar.gz").write_bytes(packed)
        rewritten(tmp_path / f"{number}.tar.gz", 1_700_000_000)
    one, two = (tmp_path / f"{number}.tar.gz" for number in range(2))
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as held:
        assert {member.name: held.extractfile(member).read() for member in held.getmembers()} == files  # type: ignore[union-attr]
        assert {member.mtime for member in held.getmembers()} == {1_700_000_000}
    assert int.from_bytes(one.read_bytes()[4:8], "little") == 1_700_000_000, "the time in gzip's head"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the list of licences is made with tomllib")
def test_licences_are_those_that_packages_state() -> None:
    licences = script("release/licences.py")
    assert licences.stated("torch")[0] != "–" and licences.stated("no-such-package") == ("–", "not installed")
    assert {"numpy", "mpmath"} <= licences.with_needs(["torch", "numpy"])
    assert licences.name_of("PyYAML>=6.0; python_version > '3'") == "pyyaml"


def test_the_workflow_calls_targets_that_are_there() -> None:
    workflow = (ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = re.findall(r"- run: make ([a-z-]+)", workflow)
    assert {"test", "lint", "docs", "dist", "smoke", "legs"} <= set(called) <= targets
    legs = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE))
    legs = legs - {"tests", "pinned", "lowest_versions"} | {"lowest"}
    [listed] = re.findall(r"leg: \[(.*)\]", workflow)
    assert set(listed.split(", ")) | {"pythons"} == legs
    listed = re.findall(r'^    "(tests/[^"]+)",$', (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(listed) > 20 and all((ROOT / path).exists() for path in listed), "what they run"
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(f"`{leg}`" in contributing for leg in legs), "which of them have been run"


def test_hooks_fetch_nothing() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"repo: (\S+)", hooks) == ["local"]
    assert len(re.findall(r"\{id: ", hooks)) == len(re.findall(r"language: system", hooks)) == 4


def test_the_source_distribution_has_what_its_tests_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tracked = subprocess.run(("git", "ls-files"), cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode or not tracked.stdout:
        pytest.skip("this is no checkout")
    listed = pytest.importorskip("setuptools.command.egg_info").FileList()
    monkeypatch.chdir(ROOT)
    for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            listed.process_template_line(line)
    held = {Path(name).as_posix() for name in listed.files}
    beside = {name for name in tracked.stdout.splitlines() if name.partition("/")[0] not in ("limbeck", "zoo")}
    taken_anyway = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}
    assert beside - held == {*taken_anyway, ".gitignore"}
