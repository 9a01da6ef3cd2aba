"""Every script of `benchmarks/` finds what it takes from the package, also what it imports where it is needed only."""

import ast
import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def imported(path: Path) -> list[tuple[str, str]]:
    """The modules of the package that a file names anywhere, each with what is taken of it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "limbeck":
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "__name__") for alias in node.names if alias.name.partition(".")[0] == "limbeck"]
    return found


def is_there(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}") is not None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "limbeck":
            raise
        return False


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_can_be_imported_and_names_what_is_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])  # its head, which scripts may take away, is where they lie
    called = f"script_{path.stem}"
    spec = importlib.util.spec_from_file_location(called, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, called, module)
    try:
        spec.loader.exec_module(module)
        missing = [f"{module}.{name}" for module, name in imported(path) if not is_there(module, name)]
    except ModuleNotFoundError as error:
        name = (error.name or "limbeck").partition(".")[0]
        if name == "limbeck" or (FOLDER / f"{name}.py").exists() or (FOLDER.parent / "tests" / name).exists():
            raise
        pytest.skip(f"{name} is not installed")
    assert missing == []


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        "import limbeck.nothing\n\ndef f():\n    from limbeck.studies.compare import recipe_entrants, tabulate\n"
        "    from limbeck.studies import entrants\n"
    )
    assert [one for one in imported(path) if not is_there(*one)] == [
        ("limbeck.nothing", "__name__"),
        ("limbeck.studies.compare", "recipe_entrants"),
    ]
