"""`limbeck plan`: how long the distillation of a recipe will take and how much memory, from a short calibration."""

from argparse import ArgumentParser, Namespace
from typing import Any

from limbeck.cli.command import Command, add_recipe_arguments, overrides_from
from limbeck.cli.output import duration


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(arguments: Namespace) -> dict[str, Any]:
    from limbeck.recipes import load_recipe

    settings = load_recipe(arguments.recipe, overrides_from(arguments))

    from limbeck.methods.plan import plan
    from limbeck.runtime.progress import default_progress

    return {"recipe": arguments.recipe, "stage": "distil", **plan(settings, progress=default_progress())}


def show(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("stage distil of " + results["recipe"], "predicted")
    table.columns[1].justify = "right"
    for name, seconds in results["parts"].items():
        table.add_row(name, duration(seconds))
    table.add_row("in all", duration(results["seconds"]), style="bold")
    table.add_row("an iteration", f"{1000 * results['seconds_per_iteration']:.0f} ms")
    table.add_row("peak memory", f"{results['peak_memory'] / 2**20:.0f} MiB")
    console.print(table)
    if engine := results["engine"]:
        form = "compiled" if engine["compiled"] else "not compiled"
        batch = engine["micro_batch"] or "all"
        console.print(f"engine: {form}, on {results['device']}, {batch} images at a time, {engine['kept']} steps kept")
    if experts := results["experts"]:
        size, share = experts["disk"] / 2**20, 100 * experts["share"]
        told = f"{size:.0f} MiB on disk ({share:.0f} % of lists of all epochs), {experts['epochs']} epochs of training in all"
        console.print(f"experts, from nothing: {told}")
    for sentence in results["advice"]:
        console.print(f"advice: {sentence}")
    console.print("experts, initial labels and the final evaluation come on top")


COMMAND = Command(
    help="predict the time and memory of a recipe's distillation, from a short calibration",
    add_arguments=add_arguments,
    run=run,
    show=show,
)
