"""`limbeck experts`: train the expert trajectories of a recipe, or find that they are there."""

from argparse import ArgumentParser, Namespace
from typing import Any

from limbeck.cli.command import Command, add_recipe_arguments, overrides_from
from limbeck.cli.output import print_paths


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(arguments: Namespace) -> dict[str, Any]:
    from limbeck.recipes import load_recipe

    settings = load_recipe(arguments.recipe, overrides_from(arguments))

    from limbeck.methods.run import train_experts
    from limbeck.runtime.progress import default_progress

    store = train_experts(settings, progress=default_progress())
    held = {name: value for name, value in store.summary().items() if name != "path"}
    return {"experts": held, "paths": {"experts": str(store.path)}}


def show(results: dict[str, Any]) -> None:
    for name, value in results["experts"].items():
        print(f"{name}: {value}")
    print_paths(results)


COMMAND = Command(
    help="train the experts that a recipe needs, and keep them for later runs",
    add_arguments=add_arguments,
    run=run,
    show=show,
    resume=(),
)
