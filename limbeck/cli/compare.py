"""`limbeck compare`: methods or recipes on the same data, seeds and evaluation, in one table with intervals and significance."""

import re
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.cli.command import Command, add_skip_bad, skipping
from limbeck.cli.grid import (
    OWN_KEYS,
    Entrant,
    add_matrix_arguments,
    conclude,
    grid,
    method_recipe,
    numbers,
    refuse_own_keys,
    run_grid,
    words,
    write_figure,
)
from limbeck.cli.output import print_paths
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.tables import duration


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
    add_skip_bad(parser)
    parser.add_argument("--base", metavar="RECIPE", help="with --methods: take every method's settings from this recipe")
    parser.add_argument("--ipc", metavar="N,…", help="images per class (default: the recipe's; with --methods 1)")
    parser.add_argument("--seeds", metavar="N,…", default="0,1,2", help="distillation seeds (default: 0,1,2)")
    parser.add_argument(
        "--vary",
        metavar="KEY=VALUE,…",
        action="append",
        default=[],
        help="run each with every one of these values, such as engine.precision=fp32,bf16; given again: with every combination",
    )
    parser.add_argument(
        "--matched",
        action=BooleanOptionalAction,
        default=None,
        help="also run every method that changes the gradient with its norm as if it did not (default: EDF, where there is DATM)",
    )
    parser.add_argument(
        "--pairs", metavar="A:B,…", help="also say whether A is better than B, such as mtt:dm, adjusted for these pairs alone"
    )
    parser.add_argument("--output", metavar="DIR", default="runs/compare", help="where results lie (default: runs/compare)")
    add_matrix_arguments(parser)


def run(arguments: Namespace) -> dict[str, Any]:
    overrides, recipes = _split(arguments)
    made = varied(entrants(arguments, recipes), arguments.vary, overrides)
    seeds = numbers("--seeds", arguments.seeds, least=None)
    cells = grid(made, seeds, overrides, matched=arguments.matched)
    pairs = pairs_of(arguments.pairs, list(dict.fromkeys(cell.facts["method"] for cell in cells)))

    from limbeck.studies.compare import check_alike

    notes = check_alike(cells)
    matrix = run_grid(arguments, cells, Path(arguments.output))

    from limbeck.studies.compare import markdown, tabulate

    output = Path(arguments.output)
    source = cells[0].settings.data.source
    results: dict[str, Any] = {
        "title": f"{', '.join(dict.fromkeys(entrant.name for entrant in made))} on {source}",
        "data": source,
        "seeds": seeds,
        "tables": tabulate(list(matrix.results.values()), pairs),
        "notes": notes,
    }
    return conclude(results, matrix, output / "comparison", markdown, lambda: _draw(results["tables"], output), show)


def show(results: dict[str, Any]) -> None:
    from rich.console import Console

    from limbeck.studies.compare import pair_text

    console = Console(highlight=False, emoji=False)
    for table in results["tables"]:
        console.print(_shown(table))
        for difference in table["differences"]:
            console.print(pair_text(difference), markup=False, soft_wrap=True)
        for difference in table["pairs"]:
            console.print(f"asked for: {pair_text(difference)}", markup=False, soft_wrap=True)
    for note in results["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for name, message in results["failed"].items():
        console.print(f"failed: {name}: {message}", markup=False, soft_wrap=True)
    if results["left"]:
        console.print(f"cells to be run yet: {len(results['left'])}; the same command goes on")
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


def varied(made: Sequence[Entrant], vary: Sequence[str], overrides: Mapping[str, str]) -> list[Entrant]:
    """Each of them with every combination of values.

    Args:
        made: what is compared.
        vary: of the form `key=value,…`, as typed; the first values first.
        overrides: settings for all.

    Raises:
        UsageError: for a key that is set otherwise too, or a value given twice.
    """
    from limbeck.recipes import parse_overrides

    found = list(made)
    for number, word in enumerate(vary):
        ((key, text),) = parse_overrides([word]).items()
        refuse_own_keys({key: text}, {**OWN_KEYS, "method": "--methods"}, "a comparison")
        others = {*overrides, *parse_overrides(vary[:number])}
        require(key not in others, "--vary", word, f"of a key that is set once; {key} is set elsewhere too")
        values = values_of(text)
        require(0 < len(set(values)) == len(values), "--vary", word, "of the form key=value,… with different values")
        ways = [(f"{key.rpartition('.')[2]}={value}", {key: value}) for value in values]
        # What all have in common need not be said.
        told = number > 0 or len({one.name for one in found}) > 1
        found = [
            replace(one, name=f"{one.name} {name}" if told else name, overrides={**one.overrides, **way})
            for one in found
            for name, way in ways
        ]
    return found


def values_of(text: str) -> list[str]:
    """The values between commas, of which those inside of brackets or quotes belong to a value: `[0,1],[2,3]` are two."""
    found = re.findall(r"""(?:\[[^\]]*\]|"[^"]*"|'[^']*'|[^,])+""", text)
    return [value.strip() for value in found if value.strip()]


def pairs_of(text: str | None, methods: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of methods that `--pairs` names.

    Args:
        text: as typed; None names none.
        methods: what is compared.

    Raises:
        UsageError: when it is not A:B,… of two different ones of these, each pair once.
    """
    pairs = []
    for word in words(text or ""):
        a, _, b = word.partition(":")
        accepted = f"A:B,… with two different ones of {', '.join(methods)}"
        require(a != b and {a, b} <= set(methods), "--pairs", word, accepted)
        require((a, b) not in pairs, "--pairs", word, "a pair that is given once")
        pairs.append((a, b))
    require(text is None or bool(pairs), "--pairs", text, "one or more pairs A:B, joined by commas")
    return pairs


def _split(arguments: Namespace) -> tuple[dict[str, str], list[str]]:
    """The overrides, and the recipes among the positional words."""
    from limbeck.recipes import parse_overrides

    settings = [word for word in arguments.recipes if "=" in word and not Path(word).is_file()]
    overrides = parse_overrides(settings) | skipping(arguments)
    refuse_own_keys(overrides, OWN_KEYS if arguments.methods is None else {**OWN_KEYS, "method": "--methods"}, "a comparison")
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
    from limbeck.figures.comparisons import comparison_figure

    figure = comparison_figure(tables)
    return {} if figure is None else {"figure": write_figure(figure, output / "comparison.png", output / "cells")}


def _shown(table: Mapping[str, Any]) -> Any:
    from rich.table import Column, Table
    from rich.text import Text

    from limbeck.studies.compare import accuracy_text, gradient_text, memory_text, skipped_text

    plural = "" if table["ipc"] == 1 else "s"
    title = f"{table['ipc']} image{plural} per class{', ' + table['network'] if table['network'] else ''}"
    columns = (Column("method", overflow="fold"), "accuracy, %", "seeds", "cosine, norm", "skipped", "time", "memory")
    shown = Table(*columns, title=Text(title, "table.title"), title_justify="left")
    for row in table["rows"]:
        time, memory = duration(row["seconds"]["distil"] or 0.0), memory_text(row["peak_memory"])
        accuracy, gradient = row["accuracy"], gradient_text(row).replace(", ", "\n")
        shown.add_row(Text(row["method"]), accuracy_text(accuracy), str(accuracy["n"]), gradient, skipped_text(row), time, memory)
    for kind, summary in table["reference"].items():
        shown.add_row(f"({kind})", accuracy_text(summary), str(summary["n"]), "", "", "", "")
    return shown


COMMAND = Command(
    help="run methods or recipes with the same data, seeds and evaluation, and compare them",
    add_arguments=add_arguments,
    run=run,
    show=show,
    resume=(),  # finished cells are taken from the folder, others go on
)
