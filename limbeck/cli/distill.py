"""`limbeck distill`: experts (trained or reused) → distil → evaluate → report.

`limbeck plan` foretells its time, memory and disk; `limbeck report` writes the report again, from nothing but the run's files.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import Command, add_recipe_arguments, overrides_from
from limbeck.cli.output import print_paths
from limbeck.runtime.errors import Failure
from limbeck.runtime.tables import duration

if TYPE_CHECKING:
    from limbeck.runs.results import RunResult


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--output", metavar="DIR", help="the run folder (default: runs/RECIPE); the same as output=DIR")
    parser.add_argument("--resume", action="store_true", help="continue the run in that folder")


def run(arguments: Namespace) -> "RunResult":
    from limbeck.recipes import load_recipe, remarks

    overrides = overrides_from(arguments, output=arguments.output)
    settings = load_recipe(arguments.recipe, overrides)
    output = Path(settings.output or default_output(arguments.recipe))

    from limbeck.report.html import write_report
    from limbeck.runs.distill import distill
    from limbeck.runtime.progress import default_progress

    progress = default_progress()
    for remark in remarks(arguments.recipe, overrides, settings):
        progress.say(remark)
    result = distill(settings, output, resume=arguments.resume, progress=progress, recipe=arguments.recipe)
    try:
        report = write_report(output)
    except Exception as error:
        raise Failure(f"the report could not be written ({error}); the distilled set and its results are in {output}") from error
    return result.at(report=str(report))


def default_output(recipe: str) -> Path:
    """`runs/` and the recipe's name, its folders joined by dashes; of a user's own file its stem."""
    path = Path(recipe)
    return Path("runs") / (path.stem if path.suffix in (".yaml", ".yml") else recipe.replace("/", "-"))


COMMAND = Command(
    help="distil a data set after a recipe, evaluate the result and write a report",
    add_arguments=add_arguments,
    run=run,
    show=print,
    resume=("--resume",),
)


def plan(arguments: Namespace) -> dict[str, Any]:
    from limbeck.recipes import load_recipe

    settings = load_recipe(arguments.recipe, overrides_from(arguments))

    from limbeck.runs import plan as planning
    from limbeck.runtime.progress import default_progress

    return {"recipe": arguments.recipe, "stage": "distil", **planning.plan(settings, progress=default_progress()).to_dict()}


def show_plan(results: dict[str, Any]) -> None:
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


PLAN = Command(
    help="predict time, memory and disk of a recipe's experts and distillation, from a short calibration",
    add_arguments=add_recipe_arguments,
    run=plan,
    show=show_plan,
)


def add_report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run folder, such as runs/scenes")


def report(arguments: Namespace) -> dict[str, Any]:
    from limbeck.report.html import write_report

    return {"paths": {"report": str(write_report(Path(arguments.run)))}}


REPORT = Command(help="write the report of a run again", add_arguments=add_report_arguments, run=report, show=print_paths)
