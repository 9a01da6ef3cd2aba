"""`limbeck plan`: how long the experts and the distillation of a recipe will take, how much memory and disk, by calibration."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from limbeck.cli.command import Command, add_recipe_arguments, overrides_from
from limbeck.cli.output import duration


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(arguments: Namespace) -> dict[str, Any]:
    from limbeck.recipes import load_recipe

    settings = load_recipe(arguments.recipe, overrides_from(arguments))

    from limbeck.runs.plan import plan
    from limbeck.runtime.progress import default_progress

    return {"recipe": arguments.recipe, "stage": "distil", **plan(settings, progress=default_progress()).to_dict()}


def show(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(Column(Text("stage distil of " + results["recipe"])), "predicted")
    table.columns[1].justify = "right"
    for name, seconds in results["parts"].items():
        table.add_row(name, duration(seconds))
    table.add_row("in all", duration(results["seconds"]), style="bold")
    if experts := results["experts"]:
        table.add_row("the experts' stage before it", duration(experts["seconds"]))
    table.add_row("an iteration", f"{1000 * results['seconds_per_iteration']:.0f} ms")
    table.add_row("peak memory", f"{results['peak_memory'] / 2**20:.0f} MiB")
    console.print(table)
    if engine := results["engine"]:
        form = "compiled" if engine["compiled"] else "not compiled"
        batch = engine["micro_batch"] or "all"
        console.print(f"engine: {form}, on {results['device']}, {batch} images at a time, {engine['kept']} steps kept")
    if experts:
        told = f"{experts['disk'] / 2**20:.0f} MiB on disk in all ({100 * experts['share']:.0f} % of lists of all epochs)"
        console.print(f"experts: {_missing(experts)}; {told}")
        stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in experts["parts"].items() if seconds >= 0.05)
        if stages:
            console.print(f"experts' stage: {stages}")
    for sentence in results["notes"]:
        console.print(f"note: {sentence}", markup=False, emoji=False)
    for sentence in results["advice"]:
        console.print(f"advice: {sentence}", markup=False, emoji=False)
    console.print("initial labels and the final evaluation come on top")


def _missing(experts: Mapping[str, Any]) -> str:
    """What is to be trained."""
    if not experts["missing_experts"]:
        return "nothing is missing"
    more, at_once = experts["to_write"] / 2**20, experts["at_once"]
    beside = f", {at_once} at a time" if at_once > 1 else ""
    return f"{experts['epochs']} epochs of {experts['missing_experts']} are missing{beside}, {more:.0f} MiB to write"


COMMAND = Command(
    help="predict time, memory and disk of a recipe's experts and distillation, from a short calibration",
    add_arguments=add_arguments,
    run=run,
    show=show,
)
