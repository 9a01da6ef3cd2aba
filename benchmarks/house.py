"""The house in figures: files, lines, dictionaries that functions return, public names, circles, length of functions.

python benchmarks/house.py [FOLDER]      # of this checkout, or of another one
"""

import ast
import statistics
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1])


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST, known: set[str]) -> set[str]:
    """The package's modules that are imported anywhere in a file, for type checkers too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {full if (full := f"{node.module}.{one.name}") in known else node.module for one in node.names}
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    return found & known


def main() -> None:
    """Print the figures."""
    paths = sorted((ROOT / "limbeck").rglob("*.py"))
    texts = {name_of(path): path.read_text(encoding="utf-8") for path in paths}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    functions = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lengths = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions]
    loose = sum(node.returns is not None and "dict[str, Any]" in ast.unparse(node.returns) for node in functions)
    graph = {name: imports(tree, set(trees)) - {name, "limbeck"} for name, tree in trees.items() if name != "limbeck"}
    try:
        tuple(TopologicalSorter(graph).static_order())
        circles = "none"
    except CycleError as error:
        circles = " → ".join(error.args[1])
    aliases = {one.asname for node in ast.walk(trees["limbeck"]) if isinstance(node, ast.ImportFrom) for one in node.names}
    print(f"files {len(paths)}, lines {sum(len(text.splitlines()) for text in texts.values())}, functions {len(functions)}")
    print(f"functions whose result is or holds dict[str, Any] {loose}, public names {len(aliases - {None})}, circles {circles}")
    print(f"length of functions: median {statistics.median(lengths):g}, longest {max(lengths)}")


if __name__ == "__main__":
    main()
