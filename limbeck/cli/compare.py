"""`limbeck compare`: methods or recipes on the same data, seeds and evaluation, in one table with intervals and significance."""

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from limbeck.cli.command import (
    Command,
    Read,
    add_baselines,
    add_deterministic,
    add_grid_arguments,
    add_seeds,
    add_skip_bad,
    add_trust,
    ended,
    is_setting,
    names,
    numbers,
    overrides_from,
    running,
    words,
    write_figure,
)
from limbeck.cli.output import print_lines
from limbeck.runtime.errors import UsageError, require

if TYPE_CHECKING:
    from limbeck.studies.entrants import Entrant
    from limbeck.studies.table import Table


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "recipes",
        metavar="RECIPE",
        nargs="*",
        default=[],
        help="recipes to compare, the first with the others; settings for all of them, key=value, may stand anywhere",
    )
    instead = "compare these methods instead, such as edf,datm,mtt,random"
    parser.add_argument("--methods", metavar="NAME,…", action=Read, read=names, help=instead)
    parser.add_argument(
        "--data", metavar="SOURCE", help="the same as data.source=SOURCE; with --methods it also says which recipes"
    )
    add_skip_bad(parser)
    add_deterministic(parser)
    add_trust(parser)
    parser.add_argument("--base", metavar="RECIPE", help="with --methods: take every method's settings from this recipe")
    parser.add_argument(
        "--ipc", metavar="N,…", action=Read, read=numbers, help="images per class (default: the recipe's; with --methods 1)"
    )
    add_seeds(parser)
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
    add_baselines(parser)
    parser.add_argument("--output", metavar="DIR", default="runs/compare", help="where results lie (default: runs/compare)")
    add_grid_arguments(parser)


def run(arguments: Namespace) -> "Table":
    from limbeck.studies.entrants import grid, varied

    overrides, recipes = _split(arguments)
    made = [replace(one, trust=arguments.trust) for one in varied(entrants(arguments, recipes), arguments.vary, overrides)]
    cells = grid(made, arguments.seeds, overrides, matched=arguments.matched)
    pairs = pairs_of(arguments.pairs, list(dict.fromkeys(cell.facts["method"] for cell in cells)))
    title = f"{', '.join(dict.fromkeys(entrant.name for entrant in made))} on {cells[0].settings.data.source}"

    from limbeck.figures.comparisons import comparison_figure
    from limbeck.runtime.published import working
    from limbeck.studies.compare import compare_cells

    with working("output", arguments.output, shared=True) as work:
        table = compare_cells(cells, work.folder, pairs=pairs, title=title, running=running(arguments))
        figure = write_figure(comparison_figure(table.sections), work.folder / "comparison.png")
    paths = {name: work.named(path) for name, path in {**table.paths, **figure}.items()}
    return replace(table, paths=paths)


def entrants(arguments: Namespace, recipes: Sequence[str]) -> "list[Entrant]":
    """What the command line asks to compare, for every number of images per class.

    Raises:
        UsageError: when it asks for recipes and methods, or neither, or for one thing twice.
    """
    from limbeck.studies.entrants import method_recipe, recipe_entrants

    if bool(recipes) == (arguments.methods is not None):
        raise UsageError("RECIPE: give either recipes to compare, or --methods NAME,… with --data SOURCE")
    require(arguments.methods is not None or arguments.base is None, "--base", arguments.base, "accepted without --methods")
    if arguments.methods is None:
        made = recipe_entrants(recipes, arguments.ipc, arguments.data)
    else:
        named = [(name, ipc) for ipc in arguments.ipc or [1] for name in arguments.methods]
        made = [method_recipe(name, arguments.data, ipc, arguments.base) for name, ipc in named]
    keys = [(one.name, one.ipc) for one in made]
    if twice := [name for name, ipc in keys if keys.count((name, ipc)) > 1]:
        raise UsageError(f"RECIPE: {twice[0]!r} is given twice")
    return made


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
    from limbeck.studies.entrants import OWN_KEYS, refuse_own_keys

    arguments.overrides = [word for word in arguments.recipes if is_setting(word)]
    overrides = overrides_from(arguments)
    refuse_own_keys(overrides, OWN_KEYS if arguments.methods is None else {**OWN_KEYS, "method": "--methods"}, "a comparison")
    arguments.data = overrides.pop("data.source", None)  # with --methods it also says which recipes
    return overrides, [word for word in arguments.recipes if word not in arguments.overrides]


COMMAND = Command(
    help="run methods or recipes with the same data, seeds and evaluation, and compare them",
    add_arguments=add_arguments,
    run=run,
    show=print_lines,
    status=ended,
    keys={"recipe": "RECIPE", "output": "--output"},
    resume=(),  # finished cells are taken from the folder, others go on
    examples={
        "limbeck compare --methods edf,datm,random --data scenes": "methods on the same data",
        "limbeck compare scenes mine.yaml --seeds 0,1,2,3,4": "recipes, over five seeds",
        "limbeck compare scenes --vary enhance.beta=0,1,2": "values of a setting",
        "limbeck compare --methods edf,datm --data scenes --show": "what is finished so far",
    },
)
