"""`limbeck recipes`: list the recipes, or ImageNet's published subsets, show one, or make one of a file of the research code."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

from limbeck.cli.command import Command
from limbeck.runtime.errors import UsageError


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="show this recipe instead of the list")
    parser.add_argument("--full", action="store_true", help="show all its settings, the defaults included")
    parser.add_argument("--subsets", action="store_true", help="list ImageNet's published subsets: the sources imagenet:NAME")


def run(arguments: Namespace) -> dict[str, Any]:
    name = arguments.name
    if arguments.subsets:
        if name or arguments.full:
            raise UsageError("--subsets: lists what there is, and takes no NAME and no --full")
        return {"subsets": _subsets()}

    from limbeck.recipes import describe, load_recipe, recipe_names, recipe_text, settings_yaml
    from limbeck.runtime.fingerprint import plain

    if name is None:
        if arguments.full:
            raise UsageError("--full: needs the NAME of a recipe")
        return {"recipes": {name: describe(name) for name in recipe_names()}}
    settings = load_recipe(name)
    text = settings_yaml(settings) if arguments.full else recipe_text(name)
    return {"name": name, "description": describe(name), "settings": plain(settings), "text": text}


def show(results: dict[str, Any]) -> None:
    if "text" in results:
        print(results["text"], end="")
        return
    if "subsets" in results:
        listed = {name: _described(subset) for name, subset in results["subsets"].items()}
    else:
        listed = results["recipes"]
    width = max(map(len, listed)) + 2
    columns = get_terminal_size().columns if sys.stdout.isatty() else 0
    for name, description in listed.items():
        # In a terminal, lines too long for it go on under the descriptions; in a pipe a recipe is a line.
        lines = wrap(description, columns - width) if columns > 2 * width else [description]
        print(f"{name:{width}}" + f"\n{' ' * width}".join(lines))


def _subsets() -> dict[str, dict[str, Any]]:
    from limbeck.data.registry import subsets

    return {
        name: {
            "classes": [{"wnid": entry.wnid, "index": entry.index, "name": entry.name} for entry in subset.classes],
            "train_images": list(subset.train_images),
            "val_images": subset.val_images,
            "provenance": subset.provenance,
            "note": subset.note,
        }
        for name, subset in subsets().items()
    }


def _described(subset: dict[str, Any]) -> str:
    least, most = subset["train_images"]
    note = f" ({subset['note']})" if subset["note"] else ""
    images = f"{least} to {most} training and {subset['val_images']} validation images"
    return f"{len(subset['classes'])} classes, {images}; {subset['provenance']}{note}"


def add_import_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a YAML file of MTT's, DATM's, PAD's or EDF's code")
    parser.add_argument("--output", metavar="FILE", help="where to write the recipe (default: print it)")
    parser.add_argument("--method", metavar="NAME", help="which method the file is for (default: by its keys)")


def run_import(arguments: Namespace) -> dict[str, Any]:
    from tempfile import TemporaryDirectory

    from limbeck.recipes import load_recipe
    from limbeck.recipes_import import import_recipe
    from limbeck.runtime.fingerprint import plain

    output = None if arguments.output is None else Path(arguments.output)
    if output is not None and (output.suffix not in (".yaml", ".yml") or output.exists()):
        raise UsageError(f"--output: {arguments.output!r} is not a new file that ends in .yaml")
    path = Path(arguments.file).expanduser()
    imported = import_recipe(path, arguments.method)
    text = imported.text(path.name)
    with TemporaryDirectory() as folder:
        (Path(folder) / "recipe.yaml").write_text(text, encoding="utf-8")
        settings = load_recipe(str(Path(folder) / "recipe.yaml"))
    results = {
        "method": imported.method,
        "settings": plain(settings),
        "notes": imported.notes,
        "dropped": imported.dropped,
        "unknown": imported.unknown,
        "text": text,
    }
    if output is not None:
        from limbeck.runtime.files import write_text

        write_text(output, text)
        results["paths"] = {"recipe": str(output)}
    return results


def show_import(results: dict[str, Any]) -> None:
    if "paths" not in results:
        print(results["text"], end="")
        return
    for note in results["notes"]:
        print(f"note: {note}")
    for kind in ("unknown", "dropped"):
        if results[kind]:
            print(f"{kind}: {', '.join(results[kind])}")
    print(f"recipe: {results['paths']['recipe']}")


COMMAND = Command(
    help="list the recipes, show one, or import one of the research code",
    add_arguments=add_arguments,
    run=run,
    show=show,
    actions={
        "import": Command(
            help="make a recipe of a file of the research code",
            add_arguments=add_import_arguments,
            run=run_import,
            show=show_import,
        )
    },
)
