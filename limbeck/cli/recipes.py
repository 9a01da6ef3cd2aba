"""`limbeck recipes`: list the recipes, or ImageNet's published subsets, show one, or make one of a file of the research code."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import Command
from limbeck.runtime.errors import UsageError

if TYPE_CHECKING:
    from limbeck.data.registry import ClassSubset
    from limbeck.runs.settings import DistillSettings


@dataclass(frozen=True)
class Recipes:
    """What the recipes say of themselves, by name."""

    recipes: Mapping[str, str]


@dataclass(frozen=True)
class Subsets:
    """ImageNet's published subsets by name."""

    subsets: "Mapping[str, ClassSubset]"

    def __json__(self) -> Any:
        named = {
            name: {
                "classes": [asdict(entry) for entry in one.classes],
                "train_images": list(one.train_images),
                "val_images": one.val_images,
                "provenance": one.provenance,
                "note": one.note,
            }
            for name, one in self.subsets.items()
        }
        return {"subsets": named}


@dataclass(frozen=True)
class Shown:
    """A recipe."""

    name: str
    description: str
    settings: "DistillSettings"
    text: str


@dataclass(frozen=True)
class Imported:
    """A recipe made of a file of the research code, and its path where it was written."""

    method: str
    settings: "DistillSettings"
    notes: Sequence[str]
    dropped: Sequence[str]
    unknown: Sequence[str]
    text: str
    paths: Mapping[str, str]

    def __json__(self) -> Any:
        from limbeck.runtime.fingerprint import plain

        return {one.name: plain(value) for one in fields(self) if (value := getattr(self, one.name)) or one.name != "paths"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="show this recipe instead of the list")
    parser.add_argument("--full", action="store_true", help="show all its settings, the defaults included")
    parser.add_argument("--subsets", action="store_true", help="list ImageNet's published subsets: the sources imagenet:NAME")


def run(arguments: Namespace) -> Recipes | Subsets | Shown:
    name = arguments.name
    if arguments.subsets:
        if name or arguments.full:
            raise UsageError("--subsets: lists what there is, and takes no NAME and no --full")
        from limbeck.data.registry import subsets

        return Subsets(subsets())

    from limbeck.recipes import describe, load_recipe, recipe_names, recipe_text, settings_yaml

    if name is None:
        if arguments.full:
            raise UsageError("--full: needs the NAME of a recipe")
        return Recipes({name: describe(name) for name in recipe_names()})
    settings = load_recipe(name, imports=False)  # only to be looked at
    text = settings_yaml(settings) if arguments.full else recipe_text(name)
    return Shown(name, describe(name), settings, text)


def show(found: Recipes | Subsets | Shown) -> None:
    if isinstance(found, Shown):
        print(found.text, end="")
        return
    if isinstance(found, Subsets):
        listed: Mapping[str, str] = {name: _described(subset) for name, subset in found.subsets.items()}
    else:
        listed = found.recipes
    width = max(map(len, listed)) + 2
    columns = get_terminal_size().columns if sys.stdout.isatty() else 0
    for name, description in listed.items():
        # In a terminal, lines too long for it go on under the descriptions; in a pipe a recipe is a line.
        lines = wrap(description, columns - width) if columns > 2 * width else [description]
        print(f"{name:{width}}" + f"\n{' ' * width}".join(lines))


def _described(subset: "ClassSubset") -> str:
    least, most = subset.train_images
    note = f" ({subset.note})" if subset.note else ""
    images = f"{least} to {most} training and {subset.val_images} validation images"
    return f"{len(subset.classes)} classes, {images}; {subset.provenance}{note}"


def add_import_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a YAML file of MTT's, FTD's, TESLA's, DATM's, PAD's or EDF's code")
    parser.add_argument("--output", metavar="FILE", help="where to write the recipe (default: print it)")
    parser.add_argument("--method", metavar="NAME", help="which method the file is for (default: by its keys)")


def run_import(arguments: Namespace) -> Imported:
    from limbeck.recipes import load_recipe
    from limbeck.recipes_import.translate import import_recipe
    from limbeck.runtime.leftovers import passing_folder

    output = None if arguments.output is None else Path(arguments.output)
    if output is not None and (output.suffix not in (".yaml", ".yml") or output.exists()):
        raise UsageError(f"--output: {arguments.output!r} is not a new file that ends in .yaml")
    path = Path(arguments.file).expanduser()
    imported = import_recipe(path, arguments.method)
    text = imported.text(path.name)
    with passing_folder() as folder:
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")
        settings = load_recipe(str(folder / "recipe.yaml"))
    paths = {}
    if output is not None:
        from limbeck.runtime.files import write_text
        from limbeck.runtime.published import put_new
        from limbeck.runtime.urls import is_url

        def write(file: Path) -> Path:
            write_text(file, text)
            return file

        if is_url(arguments.output):
            put_new("--output", arguments.output, write)
        else:
            write(output)
        paths["recipe"] = str(arguments.output)
    return Imported(imported.method, settings, imported.notes, imported.dropped, imported.unknown, text, paths)


def show_import(found: Imported) -> None:
    if not found.paths:
        print(found.text, end="")
        return
    for note in found.notes:
        print(f"note: {note}")
    for kind, keys in (("unknown", found.unknown), ("dropped", found.dropped)):
        if keys:
            print(f"{kind}: {', '.join(keys)}")
    print(f"recipe: {found.paths['recipe']}")


COMMAND = Command(
    help="list the recipes, show one, or import one of the research code",
    add_arguments=add_arguments,
    run=run,
    show=show,
    keys={"recipe": "NAME"},
    examples={
        "limbeck recipes": "all names",
        "limbeck recipes scenes --full": "one, with every setting that there is",
        "limbeck recipes --subsets": "the published subsets of ImageNet",
    },
    actions={
        "import": Command(
            help="make a recipe of a file of the research code",
            add_arguments=add_import_arguments,
            run=run_import,
            show=show_import,
            examples={"limbeck recipes import ConvD3_IPC10.yaml --output mine.yaml": "a recipe that says the same, with notes"},
        )
    },
)
