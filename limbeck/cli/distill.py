"""`limbeck distill`: experts (trained or reused) → distil → evaluate → report."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.cli.command import Command, add_recipe_arguments, overrides_from
from limbeck.runtime.errors import Failure

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
