"""The house in figures: files, lines, dictionaries that functions return, public names, circles, length of functions, ways.

python benchmarks/house.py               # of this checkout
python benchmarks/house.py FOLDER        # of another one, but for its ways
python benchmarks/house.py --loose       # and which functions return dictionaries, which files are long or tiny

A way are the files whose functions have called each other when the first network takes its first step of training: what a reader
opens who follows a call from where it is made to where the work is done.
"""

import argparse
import ast
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from unittest import mock

HERE = Path(__file__).parents[1]
LOOSE, LONG, TINY = "dict[str, Any]", 400, 30


def texts_of(root: Path) -> dict[str, str]:
    """The text of every module by its dotted name."""
    paths = sorted((root / "limbeck").rglob("*.py"))
    names = (".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return {name: path.read_text(encoding="utf-8") for name, path in zip(names, paths, strict=True)}


def imports(tree: ast.AST, known: set[str]) -> set[str]:
    """The package's modules that are imported anywhere in a file, for type checkers too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {full if (full := f"{node.module}.{one.name}") in known else node.module for one in node.names}
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    return found & known


def circles(trees: Mapping[str, ast.AST]) -> str:
    """A circle of imports; `none` where there is none."""
    graph = {name: imports(tree, set(trees)) - {name, "limbeck"} for name, tree in trees.items() if name != "limbeck"}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return " → ".join(error.args[1])
    return "none"


def loose(trees: Mapping[str, ast.AST]) -> list[str]:
    """The functions whose result is or holds a dictionary of anything."""
    return [
        f"{name}:{node.lineno} {node.name} → {said}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.returns is not None and LOOSE in (said := ast.unparse(node.returns))
    ]


class Reached(BaseException):
    """The first network takes its first step."""


def way(call: Callable[[], object]) -> list[str]:
    """The files of the package whose functions have called each other from `call` to the first step of training."""
    found: list[str] = []

    def reached(*_: object, **__: object) -> None:
        frame, package = sys._getframe(1), str(HERE / "limbeck")
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(package) and file not in found:
                found.append(file)
            frame = frame.f_back  # type: ignore[assignment]
        raise Reached

    try:
        with mock.patch("limbeck.training.train._epoch", reached):
            call()
    except Reached:
        pass
    return [str(Path(file).relative_to(HERE / "limbeck")) for file in reversed(found)]


def ways() -> dict[str, list[str]]:
    """Those of the three calls that train most."""
    import torch

    import limbeck

    small = {"size": 16, "per_class": 12, "train_epochs": 3, "num_experts": 1, "compile": "no", "network": "ConvNetD2-w4"}
    data = limbeck.load_data("scenes:easy", size=16, per_class=12)
    held = limbeck.SmallSet.of_classes(torch.randn(10, 3, 16, 16), torch.arange(10), 10, syn_lr=0.01)
    methods = {"mtt": limbeck.methods.mtt(), "edf": limbeck.methods.edf()}
    fit = {"max_start_epoch": 1, "first_max_start_epoch": 1, "expert_epochs": 1}
    own = {key: value for key, value in small.items() if key not in ("size", "per_class")}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict("os.environ", LIMBECK_CACHE=folder):
        return {
            "train_experts": way(lambda: limbeck.train_experts(data, **own)),
            "evaluate": way(lambda: limbeck.evaluate(held, data, networks=["ConvNetD2-w4"], compile="no")),
            "compare": way(lambda: limbeck.compare(methods, data, ipc=1, seeds=range(2), output=f"{folder}/grid", **own, **fit)),
        }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE, help="of the checkout")
    parser.add_argument("--loose", action="store_true", help="name what stands out")
    given = parser.parse_args()
    texts = texts_of(given.folder)
    trees = {name: ast.parse(text) for name, text in texts.items()}
    lines = {name: len(text.splitlines()) for name, text in texts.items()}
    functions = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lengths = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions]
    aliases = {one.asname for node in ast.walk(trees["limbeck"]) if isinstance(node, ast.ImportFrom) for one in node.names}
    print(f"files {len(texts)}, lines {sum(lines.values())}, functions {len(functions)}")
    print(f"functions whose result is or holds {LOOSE} {len(loose(trees))}, public names {len(aliases - {None})}")
    print(f"circles {circles(trees)}; length of functions: median {statistics.median(lengths):g}, longest {max(lengths)}")
    if given.loose:
        print(*loose(trees), sep="\n")
        print(*(f"{name}: {count} lines" for name, count in lines.items() if count > LONG or 1 < count < TINY), sep="\n")
    if given.folder == HERE:
        for name, files in ways().items():
            print(f"{name} enters {len(files)} files: {' → '.join(files)}")


if __name__ == "__main__":
    main()
