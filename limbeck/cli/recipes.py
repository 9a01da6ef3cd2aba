"""`limbeck recipes`: list the recipes, or show one."""

from argparse import ArgumentParser, Namespace
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
    for name, description in results["recipes"].items():
        print(f"{name:{width}}{description}")


COMMAND = Command(help="list the recipes, or show one", add_arguments=add_arguments, run=run, show=show)
