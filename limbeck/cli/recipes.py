"""`limbeck recipes`: list the recipes, or show one."""

import sys
from argparse import ArgumentParser, Namespace
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

from limbeck.cli.command import Command
from limbeck.runtime.errors import UsageError


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="show this recipe instead of the list")
    parser.add_argument("--full", action="store_true", help="show all its settings, the defaults included")


def run(arguments: Namespace) -> dict[str, Any]:
    from limbeck.recipes import describe, load_recipe, recipe_names, recipe_text, settings_yaml
    from limbeck.runtime.fingerprint import plain

    if arguments.name is None:
        if arguments.full:
            raise UsageError("--full: needs the NAME of a recipe")
        return {"recipes": {name: describe(name) for name in recipe_names()}}
    settings = load_recipe(arguments.name)
    text = settings_yaml(settings) if arguments.full else recipe_text(arguments.name)
    return {"name": arguments.name, "description": describe(arguments.name), "settings": plain(settings), "text": text}


def show(results: dict[str, Any]) -> None:
    if "text" in results:
        print(results["text"], end="")
        return
    width = max(map(len, results["recipes"])) + 2
    columns = get_terminal_size().columns if sys.stdout.isatty() else 0
    for name, description in results["recipes"].items():
        # In a terminal, lines too long for it go on under the descriptions; in a pipe a recipe is a line.
        lines = wrap(description, columns - width) if columns > 2 * width else [description]
        print(f"{name:{width}}" + f"\n{' ' * width}".join(lines))


COMMAND = Command(help="list the recipes, or show one", add_arguments=add_arguments, run=run, show=show)
