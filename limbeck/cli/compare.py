"""`limbeck compare`: methods or recipes on the same data, seeds and evaluation, in one table with intervals and significance."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import Command
from limbeck.cli.output import duration, print_paths
from limbeck.runtime.errors import Failure, UsageError, require

if TYPE_CHECKING:
    from limbeck.studies.cells import Cell

OWN_KEYS = {"ipc": "--ipc", "seed": "--seeds", "output": "--output"}


@dataclass(frozen=True)
class Entrant:
    """What is compared: a name for it, the recipe, and what replaces the recipe's own settings."""

    name: str
    recipe: str
    ipc: int
    overrides: Mapping[str, str]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "recipes",
        metavar="RECIPE",
        nargs="*",
        default=[],
        help="recipes to compare, the first with the others; settings for all of them, key=value, may stand anywhere",
    )
    parser.add_argument("--methods", metavar="NAME,…", help="compare these methods instead, such as edf,datm,mtt,random")
    parser.add_argument(
        "--data", metavar="SOURCE", help="the same as data.source=SOURCE; with --methods it also says which recipes"
    )
    parser.add_argument("--base", metavar="RECIPE", help="with --methods: take every method's settings from this recipe")
    parser.add_argument("--ipc", metavar="N,…", help="images per class (default: the recipe's; with --methods 1)")
    parser.add_argument("--seeds", metavar="N,…", default="0,1,2", help="distillation seeds (default: 0,1,2)")
    parser.add_argument(
        "--matched", action="store_true", help="also run every method that changes the gradient with its norm as if it did not"
    )
    parser.add_argument("--output", metavar="DIR", default="runs/compare", help="where results lie (default: runs/compare)")
    add_matrix_arguments(parser)


def add_matrix_arguments(parser: ArgumentParser) -> None:
    """The options of every command that runs a grid."""
    parser.add_argument("--jobs", metavar="N", default="1", help="distillations at a time, which share the cores (default: 1)")
    parser.add_argument("--shard", metavar="I/N", help="run only the I-th of N shares of the grid, beside other processes")
    parser.add_argument("--max-seconds", metavar="S", help="stop after that time; the same command goes on")
    parser.add_argument("--keep", action="store_true", help="keep the run folders of finished distillations")
    parser.add_argument("--show", action="store_true", help="run nothing; show what is finished")


def run(arguments: Namespace) -> dict[str, Any]:
    overrides, recipes = _split(arguments)
    made = entrants(arguments, recipes)
    seeds = numbers("--seeds", arguments.seeds, least=None)
    cells = grid(made, seeds, overrides, matched=arguments.matched)

    from limbeck.studies.compare import check_alike

    notes = check_alike(cells)
    matrix = run_grid(arguments, cells)

    from limbeck.runtime.files import write_json, write_text
    from limbeck.studies.compare import markdown, tabulate

    output = Path(arguments.output)
    source = cells[0].settings.data.source
    results = {
        "title": f"{', '.join(dict.fromkeys(entrant.name for entrant in made))} on {source}",
        "data": source,
        "seeds": seeds,
        "tables": tabulate(list(matrix.results.values())),
        "notes": notes,
        "failed": matrix.failed,
        "left": matrix.left,
        "paths": {"cells": str(output / "cells")},
    }
    if matrix.results:
        results["paths"] |= {name: str(output / f"comparison.{name}") for name in ("json", "md")}
        results["paths"] |= _draw(results["tables"], output)
        write_text(output / "comparison.md", markdown(results))
        write_json(output / "comparison.json", results)
    if matrix.failed:
        show(results)  # what others measured is not lost because one failed
        matrix.raise_failures()
    return results


def show(results: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for table in results["tables"]:
        console.print(_shown(table))
        for difference in table["differences"]:
            _say_difference(console, difference)
    for note in results["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for name, message in results["failed"].items():
        console.print(f"failed: {name}: {message}", markup=False, soft_wrap=True)
    if results["left"]:
        console.print(f"{len(results['left'])} cells are to be run yet; the same command goes on")
    print_paths(results)


def entrants(arguments: Namespace, recipes: Sequence[str]) -> list[Entrant]:
    """What the command line asks to compare, for every number of images per class.

    Raises:
        UsageError: when it asks for recipes and methods, or neither, or for one thing twice.
    """
    if bool(recipes) == (arguments.methods is not None):
        raise UsageError("RECIPE: give either recipes to compare, or --methods NAME,… with --data SOURCE")
    require(arguments.methods is not None or arguments.base is None, "--base", arguments.base, "an option without --methods")
    ipcs = None if arguments.ipc is None else numbers("--ipc", arguments.ipc)
    if arguments.methods is None:
        made = _of_recipes(recipes, ipcs, arguments.data)
    else:
        named = [(name, ipc) for ipc in ipcs or [1] for name in words(arguments.methods)]
        require(bool(named), "--methods", arguments.methods, "one or more methods, joined by commas")
        made = [method_recipe(name, arguments.data, ipc, arguments.base) for name, ipc in named]
    keys = [(one.name, one.ipc) for one in made]
    if twice := [name for name, ipc in keys if keys.count((name, ipc)) > 1]:
        raise UsageError(f"{'RECIPE' if arguments.methods is None else '--methods'}: {twice[0]!r} is given twice")
    return made


def method_recipe(method: str, source: str | None, ipc: int, base: str | None) -> Entrant:
    """The recipe of a method on some data: its own, of the nearest number of images per class, or else EDF's with its name.

    Raises:
        UsageError: when there is none to start from.
    """
    from limbeck.recipes import recipe_names

    data = {} if source is None else {"data.source": source}
    if base is not None:
        return Entrant(method, base, ipc, {"method": method, **data})
    if source is None:
        raise UsageError("--data: is missing; --methods needs a source of images, or a recipe to start from (--base)")
    names = recipe_names()
    folder = data_folder(source, names)
    for wanted in (method, "edf"):
        own = {int(found[1]): name for name in names if (found := re.fullmatch(rf"{folder}/{re.escape(wanted)}-ipc(\d+)", name))}
        if folder is not None and own:
            near = min(own, key=lambda held: (abs(held - ipc), held))
            return Entrant(method, own[near], ipc, data if wanted == method else {"method": method, **data})
    raise UsageError(f"--data: there is no recipe for {method!r} on {source!r}; name one to start from with --base RECIPE")


def data_folder(source: str, names: Sequence[str]) -> str | None:
    """The folder of recipes for a source of images, by its name: `scenes` for scenes:hard, `imagenette` for imagenette2-160/."""
    folders = {name.split("/")[0] for name in names if re.fullmatch(r"[^/]+/[^/]+-ipc\d+", name)}
    for part in reversed(re.split(r"[/\\:]+", source.rstrip("/\\"))):
        word = re.sub(r"[^a-z0-9]", "", part.lower())
        for folder in sorted(folders, key=len, reverse=True):
            rest = word.removeprefix(folder)
            # cifar100 is not cifar10.
            if word.startswith(folder) and not (folder[-1].isdigit() and rest[:1].isdigit()):
                return folder
    return None


def grid(made: Sequence[Entrant], seeds: Sequence[int], overrides: Mapping[str, str], *, matched: bool = False) -> list["Cell"]:
    """The cells of a comparison, seed by seed, so that what is finished first can be compared."""
    from limbeck.recipes import load_recipe
    from limbeck.studies.cells import Cell
    from limbeck.studies.compare import MATCHED, has_parts

    cells = []
    for seed in seeds:
        for entrant in made:
            own = {**entrant.overrides, "ipc": str(entrant.ipc), "seed": str(seed), **overrides}
            settings = load_recipe(entrant.recipe, own)
            ways = [("", "", own, settings)]
            if matched and has_parts(settings) and not settings.match.match_norm:
                own = {**own, "match.match_norm": "true"}
                ways.append(("+matched", MATCHED, own, load_recipe(entrant.recipe, own)))
            for mark, said, given, made_of in ways:
                name = f"{re.sub(r'[^A-Za-z0-9_+-]+', '-', entrant.name)}{mark}-ipc{entrant.ipc}-seed{seed}"
                facts = {"method": f"{entrant.name}{said}", "ipc": entrant.ipc, "seed": seed}
                cells.append(Cell(name, entrant.recipe, given, made_of, facts))
    return cells


def run_grid(arguments: Namespace, cells: Sequence["Cell"]) -> Any:
    """Run the cells as the options of `add_matrix_arguments` and `--output` say; a `studies.matrix.Matrix`."""
    from limbeck.experts.fill import Shard
    from limbeck.runtime.progress import default_progress
    from limbeck.studies.matrix import run_matrix

    jobs = numbers("--jobs", arguments.jobs)
    require(len(jobs) == 1, "--jobs", arguments.jobs, "one whole number")
    limit = None if arguments.max_seconds is None else _seconds(arguments.max_seconds)
    shard = Shard() if arguments.shard is None else Shard.parse(arguments.shard)
    return run_matrix(
        cells,
        Path(arguments.output),
        jobs=jobs[0],
        shard=shard,
        max_seconds=0.0 if arguments.show else limit,
        keep=arguments.keep,
        progress=default_progress(),
    )


def words(text: str) -> list[str]:
    """The words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(option: str, text: str, least: int | None = 1) -> list[int]:
    """Different whole numbers, joined by commas.

    Raises:
        UsageError: for anything else.
    """
    accepted = "one or more different whole numbers" + ("" if least is None else f" from {least}") + ", joined by commas"
    try:
        found = [int(word) for word in words(text)]
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not {accepted}") from None
    good = 0 < len(set(found)) == len(found) and (least is None or min(found) >= least)
    require(good, option, text, accepted)
    return found


def _split(arguments: Namespace) -> tuple[dict[str, str], list[str]]:
    """The overrides, and the recipes among the positional words."""
    from limbeck.recipes import parse_overrides

    settings = [word for word in arguments.recipes if "=" in word and not Path(word).is_file()]
    overrides = parse_overrides(settings)
    for key, option in OWN_KEYS.items():
        if key in overrides:
            raise UsageError(f"{key}: is what a comparison runs over; use {option}")
    if "method" in overrides and arguments.methods is not None:
        raise UsageError("method: is what a comparison runs over; use --methods")
    if arguments.data is not None and "data.source" in overrides:
        raise UsageError("data.source: is given twice, once as --data")
    return overrides, [word for word in arguments.recipes if word not in settings]


def _of_recipes(recipes: Sequence[str], ipcs: Sequence[int] | None, source: str | None) -> list[Entrant]:
    from limbeck.recipes import load_recipe

    data = {} if source is None else {"data.source": source}
    made = []
    for recipe in recipes:
        path = Path(recipe)
        name = path.stem if path.suffix in (".yaml", ".yml") else recipe
        made += [Entrant(name, recipe, ipc, data) for ipc in ipcs or [load_recipe(recipe).ipc]]
    # `scenes/edf-ipc1` and `scenes/edf-ipc3` are one method at two sizes, unless both are asked for at the same size.
    short = [(re.sub(r"-ipc\d+$", "", one.name), one.ipc) for one in made]
    if len(set(short)) < len(short):
        return made
    return [Entrant(name, one.recipe, one.ipc, one.overrides) for (name, _), one in zip(short, made, strict=True)]


def _draw(tables: Sequence[Mapping[str, Any]], output: Path) -> dict[str, str]:
    """Write the figure; its path by name."""
    from limbeck.figures.compare import comparison_figure
    from limbeck.figures.engine import png
    from limbeck.runtime.files import write_bytes

    figure = comparison_figure(tables)
    if figure is None:
        return {}
    try:
        write_bytes(output / "comparison.png", png(figure))
    except OSError as error:
        raise Failure(f"the figure could not be written ({error}); finished cells are in {output / 'cells'}") from error
    return {"figure": str(output / "comparison.png")}


def _shown(table: Mapping[str, Any]) -> Any:
    from rich.table import Table

    from limbeck.studies.compare import accuracy_text, gradient_text, memory_text, skipped_text

    plural = "" if table["ipc"] == 1 else "s"
    title = f"{table['ipc']} image{plural} per class{', ' + table['network'] if table['network'] else ''}"
    columns = ("method", "accuracy, %", "seeds", "cosine, norm", "skipped", "time", "memory")
    shown = Table(*columns, title=title, title_justify="left")
    for row in table["rows"]:
        time, memory = duration(row["seconds"]["distil"] or 0.0), memory_text(row["peak_memory"])
        accuracy, gradient = row["accuracy"], gradient_text(row)
        shown.add_row(row["method"], accuracy_text(accuracy), str(accuracy["n"]), gradient, skipped_text(row), time, memory)
    for kind, summary in table["reference"].items():
        shown.add_row(f"({kind})", accuracy_text(summary), str(summary["n"]), "", "", "", "")
    return shown


def _say_difference(console: Any, difference: Mapping[str, Any]) -> None:
    from limbeck.studies.compare import difference_text, verdict_text

    p = "" if difference["p_adjusted"] is None else f", p {difference['p_adjusted']:.3g} (Holm)"
    seeds = f"{difference['n']} seed{'' if difference['n'] == 1 else 's'}"
    text = f"{difference['a']} − {difference['b']}: {difference_text(difference)} points, {seeds}{p}"
    console.print(f"{text}: {verdict_text(difference)}", markup=False, soft_wrap=True)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--max-seconds: {text!r} is not a number of seconds") from None


COMMAND = Command(
    help="run methods or recipes with the same data, seeds and evaluation, and compare them",
    add_arguments=add_arguments,
    run=run,
    show=show,
    resume=(),  # finished cells are taken from the folder, others go on
)
