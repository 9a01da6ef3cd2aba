"""A module imports only from the rows above its own, and there is no cycle anywhere; functions are short, and all is used.

Imports inside functions count too, and imports for type checkers alone (`if TYPE_CHECKING:`).
"""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import limbeck

# From the ground up; `accuracy`, `augmentation`, `losses` and `views` share a row but not a room.
ROWS = (
    {"runtime"},
    {"data"},
    {"networks"},
    {"accuracy", "augmentation", "losses", "views"},
    {"training"},
    {"saliency"},
    {"matching"},
    {"experts"},
    {"parametrisations"},
    {"distilled"},
    {"evaluation"},
    {"methods"},
    {"tracking"},
    {"runs"},
    {"recipes"},
    {"image_complexity"},
    {"studies"},
    {"figures"},
    {"reproduction"},
    {"report"},
    {"watch"},
    {"cli"},
)
ROW = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
PACKAGE = Path(limbeck.__file__).parent


@cache
def tree_of(path: Path) -> ast.Module:
    """A module's syntax, read once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def modules_of(package: Path) -> dict[str, Path]:
    """Every module under `package` by its dotted name."""
    names = {}
    for path in package.rglob("*.py"):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(name: str, path: Path, known: set[str]) -> set[str]:
    """The modules of the same package that the file imports, anywhere in it; of `from a import b` a.b where that is a module."""
    package = name.partition(".")[0]
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            above = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source for alias in node.names}
    return {module for module in found if module.partition(".")[0] == package} - {name}


def room_of(module: str) -> str:
    """`limbeck.data.load` lives in `data`, `augmentation_settings` in `augmentation`, `recipes_import` in `recipes`."""
    return module.split(".")[1].removesuffix("_settings").removesuffix("_import")


def violations(package: Path) -> list[str]:
    """What breaks the order, one sentence each; the package's own `__init__` (the façade) may import all, nobody it."""
    modules = modules_of(package)
    facade = {package.name, f"{package.name}.__main__"}
    graph = {name: imports_of(name, path, set(modules)) for name, path in modules.items() if name not in facade}
    wrong = []
    for name, imported in sorted(graph.items()):
        if room_of(name) not in ROW:
            wrong.append(f"{name} is in no row")
            continue
        for other in sorted(imported):
            if other in facade:
                wrong.append(f"{name} imports the façade {other}")
            elif room_of(other) != room_of(name) and ROW.get(room_of(other), len(ROWS)) >= ROW[room_of(name)]:
                wrong.append(f"{name} imports {other}, which is not above it")
    return wrong + [f"cycle: {' → '.join(cycle)}" for cycle in cycles(graph)]


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The cycles that a depth-first walk runs into; empty exactly when there are none."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append([*trail[trail.index(name) :], name])
        elif name not in done:
            for other in sorted(graph.get(name, ())):
                walk(other, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        walk(name, [])
    return found


def write_package(root: Path, files: dict[str, str]) -> Path:
    package = root / "limbeck"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def test_limbeck_keeps_its_rows() -> None:
    assert len(modules_of(PACKAGE)) > 20
    assert violations(PACKAGE) == []


def test_rooms_hold_only_a_docstring() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        if path.parent.name in ("figures", "methods"):
            continue  # `limbeck.methods.edf` and `limbeck.figures.save` are what people write
        body = tree_of(path).body
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path
        assert isinstance(body[0].value, ast.Constant), path


def test_a_good_package_passes(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from limbeck.cli.main import main",
        "runtime/errors.py": "",
        "data/load.py": "import numpy\nfrom limbeck.runtime.errors import require\nfrom . import settings",
        "data/settings.py": "from ..runtime import errors",
        "augmentation.py": "from limbeck.augmentation_settings import AugmentSettings",
        "augmentation_settings.py": "",
        "matching/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from limbeck.matching.b import x",
        "matching/b.py": "from limbeck.augmentation import x",
        "cli/main.py": "def main():\n    from limbeck.data import load",
    }
    assert violations(write_package(tmp_path, files)) == []


def test_each_wrong_import_is_found(tmp_path: Path) -> None:
    files = {
        "__init__.py": "",
        "runtime/files.py": "def f():\n    from limbeck.data.load import load_data",
        "runtime/random.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from limbeck.data import load",
        "data/load.py": "from ..networks import names",
        "networks/names.py": "import limbeck",
        "losses.py": "from limbeck.augmentation import draw",
        "augmentation.py": "",
        "attic/old.py": "",
        "training/a.py": "from limbeck.training.b import x",
        "training/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import x",
        "training/c.py": "def f():\n    import limbeck.training.a",
    }
    assert violations(write_package(tmp_path, files)) == [
        "limbeck.attic.old is in no row",
        "limbeck.data.load imports limbeck.networks.names, which is not above it",
        "limbeck.losses imports limbeck.augmentation, which is not above it",
        "limbeck.networks.names imports the façade limbeck",
        "limbeck.runtime.files imports limbeck.data.load, which is not above it",
        "limbeck.runtime.random imports limbeck.data.load, which is not above it",
        "cycle: limbeck.training.a → limbeck.training.b → limbeck.training.c → limbeck.training.a",
    ]


def test_no_name_of_a_package_is_one_of_its_modules_too() -> None:
    """What a package gives by a module's name would be the module as soon as anybody has imported that."""
    for init in PACKAGE.rglob("__init__.py"):
        inside = {path.stem for path in init.parent.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        package = ".".join(("limbeck", *init.parent.relative_to(PACKAGE).parts))
        given = {
            alias.asname or alias.name
            for node in ast.walk(tree_of(init))
            if isinstance(node, ast.ImportFrom) and node.module != package
            for alias in node.names
            if node.module != f"{package}.{alias.name}"  # which is imported by then, and so is not bound again
        }
        assert not given & inside, (package, given & inside)


LINES = 60
# What others call by these names: Python's and PyYAML's own machinery, Jupyter, Ray's packing, and users.
FOR_OTHERS = {"find_class", "persistent_load", "yaml_implicit_resolvers", "_repr_png_", "emit", "from_hub", "stored_error"}


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Its lines, those of its docstring left out."""
    first = function.body[0]
    text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    said = (first.end_lineno or 0) - first.lineno + 1 if text else 0
    return (function.end_lineno or 0) - function.lineno + 1 - said


def test_functions_are_short() -> None:
    long = {
        f"{name}: {node.name}": length(node)
        for name, path in modules_of(PACKAGE).items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and length(node) > LINES
    }
    assert long == {}


def test_nothing_is_there_that_nobody_names() -> None:
    """A function, class or constant whose name stands nowhere else in the package, nor in its templates, is not used."""
    files = [path for kind in ("*.py", "*.j2") for path in PACKAGE.rglob(kind)]
    counts = Counter(word for path in files for word in re.findall(r"\b[^\W\d]\w*\b", path.read_text(encoding="utf-8")))
    named = {
        name: module for module, path in modules_of(PACKAGE).items() for node in ast.walk(tree_of(path)) for name in _given(node)
    }
    unused = {name: module for name, module in named.items() if counts[name] == 1 and not re.fullmatch("__.*__", name)}
    assert unused.keys() == FOR_OTHERS, unused


def _given(node: ast.AST) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign) and node.col_offset == 0:
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []
