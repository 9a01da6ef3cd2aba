"""`limbeck comp-dd`: methods on Comp-DD's easy and hard subsets, or on the built-in scenes, as tables, figure and submission."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import Command, add_overrides
from limbeck.cli.grid import (
    OWN_KEYS,
    Entrant,
    add_matrix_arguments,
    conclude,
    grid,
    method_recipe,
    nearest,
    numbers,
    refuse_own_keys,
    run_grid,
    words,
    write_figure,
)
from limbeck.cli.output import print_paths
from limbeck.runtime.errors import UsageError, require

if TYPE_CHECKING:
    from limbeck.studies.cells import Cell
    from limbeck.studies.comp_dd import Part

KEYS = {**OWN_KEYS, "method": "--methods", "data.source": "--subsets"}
OUTPUT = "runs/comp-dd"


def add_arguments(parser: ArgumentParser) -> None:
    add_overrides(parser, "settings for all distillations, such as data.root=/data/imagenet eval.full_seeds=5")
    parser.add_argument("--methods", metavar="NAME,…", help="what to run, such as edf,datm,random")
    parser.add_argument("--ipc", metavar="N,…", default="1", help="images per class; 1, 10 and 50 are published (default: 1)")
    parser.add_argument("--subsets", metavar="NAME,…", help="subsets, such as bird-easy, or whole categories (default: all)")
    parser.add_argument("--scenes", action="store_true", help="run on the built-in scenes instead: easy, medium and hard")
    parser.add_argument("--data-root", metavar="DIR", help="the same as data.root=DIR: the folder with ImageNet's train/ and val/")
    parser.add_argument("--seeds", metavar="N,…", default="0,1,2", help="distillation seeds (default: 0,1,2)")
    parser.add_argument("--reuse", metavar="DIR", help="first take what another grid in DIR has measured under equal settings")
    parser.add_argument("--output", metavar="DIR", help=f"where results lie (default: {OUTPUT}, {OUTPUT}-scenes)")
    parser.add_argument(
        "--check", metavar="DIR", help="run nothing; read the submission in DIR and say whether it agrees with itself"
    )
    add_matrix_arguments(parser)


def run(arguments: Namespace) -> dict[str, Any]:
    from limbeck.studies.comp_dd import comp_dd, scenes

    if arguments.check is not None:
        return _checked(Path(arguments.check))
    benchmark = scenes() if arguments.scenes else comp_dd()
    overrides = _overrides(arguments)
    parts = benchmark.choose(None if arguments.subsets is None else words(arguments.subsets))
    cells, notes = plan(arguments, parts, overrides)
    root = cells[0].settings.data.root
    if not arguments.scenes and not arguments.show:
        from limbeck.studies.imagenet_root import check_root

        check_root(parts, root)
    output = Path(arguments.output or (f"{OUTPUT}-scenes" if arguments.scenes else OUTPUT))
    if arguments.reuse is not None:
        from limbeck.runtime.progress import default_progress
        from limbeck.studies.reuse import take_over

        taken = take_over(cells, Path(arguments.reuse), output)
        default_progress().say(f"{len(taken)} cells taken from {arguments.reuse}")
    matrix = run_grid(arguments, cells, output)

    from limbeck.studies.recovery import tabulate
    from limbeck.studies.recovery_text import markdown
    from limbeck.studies.submission import write_submission

    results: dict[str, Any] = {
        "title": f"{benchmark.name}: {', '.join(dict.fromkeys(cell.facts['method'] for cell in cells))}",
        "benchmark": benchmark.name,
        "levels": list(benchmark.levels),
        "seeds": sorted({cell.facts["seed"] for cell in cells}),
        "tables": tabulate(benchmark.levels, list(matrix.results.values())),
        "notes": notes,
    }

    def more() -> dict[str, str]:
        paths = _draw(results, output)
        if matrix.failed or matrix.left:
            return paths
        write_submission(output / "submission", benchmark, parts, cells, matrix.results, notes)
        return {**paths, "submission": str(output / "submission")}

    return conclude(results, matrix, output / "comp-dd", markdown, more, show)


def plan(arguments: Namespace, parts: Sequence["Part"], overrides: Mapping[str, str]) -> tuple[list["Cell"], list[str]]:
    """The cells of the grid, seed by seed, and what a reader must know of their settings.

    Raises:
        UsageError: when what the options ask for cannot be run.
    """
    from limbeck.studies.compare import check_alike

    if arguments.methods is None:
        raise UsageError("--methods: is missing; name one or more, such as edf,datm,random")
    methods = words(arguments.methods)
    require(bool(methods), "--methods", arguments.methods, "one or more methods, joined by commas")
    if twice := [name for name in methods if methods.count(name) > 1]:
        raise UsageError(f"--methods: {twice[0]!r} is given twice")
    ipcs, seeds = numbers("--ipc", arguments.ipc), numbers("--seeds", arguments.seeds, least=None)
    recipe = scenes_recipe if arguments.scenes else published_recipe
    made = {part: [recipe(part, method, ipc) for ipc in ipcs for method in methods] for part in parts}
    notes = [f"{part.name}: {part.note}" for part in parts if part.note]
    notes += _notes_of_recipes(made)
    cells = {}
    for part, entrants in made.items():
        facts = {"subset": part.name, "category": part.category, "level": part.level}
        cells[part] = grid(entrants, seeds, overrides, prefix=f"{part.name}-", facts=facts)
        notes += [note for note in check_alike(cells[part]) if note not in notes]
    ordered = [cell for found in cells.values() for cell in found]
    return sorted(ordered, key=lambda cell: seeds.index(cell.facts["seed"])), notes


def published_recipe(part: "Part", method: str, ipc: int) -> Entrant:
    """EDF's published settings for a subset of Comp-DD, or the nearest ones; of another method, with what makes it that one.

    Raises:
        UsageError: when there is no such method.
    """
    from limbeck.recipes import load_recipe, recipe_names
    from limbeck.studies.comp_dd import settings_from

    held: dict[str, dict[int, str]] = {}
    for name in recipe_names():
        if found := re.fullmatch(r"comp-dd/([^/]+)/[^/]+/edf-ipc(\d+)", name):
            held.setdefault(found[1], {})[int(found[2])] = name
    own = held[settings_from(part, held)]
    recipe = own[nearest(own, ipc)]
    settings = load_recipe(recipe)
    source = {} if settings.data.source == part.source else {"data.source": part.source}
    return Entrant(method, recipe, ipc, {**source, **({} if settings.method == method else {"method": method})})


def scenes_recipe(part: "Part", method: str, ipc: int) -> Entrant:
    """The recipe of a method on a level of the scenes; the same settings on every level, as `limbeck compare` has them."""
    return method_recipe(method, part.source, ipc, None)


def show(results: dict[str, Any]) -> None:
    from rich.console import Console

    from limbeck.studies.recovery_text import verdict_text

    console = Console(highlight=False, emoji=False)
    for table in results["tables"]:
        for shown in _shown(table):
            console.print(shown)
        for one in table["verdicts"]:
            console.print(verdict_text(one), markup=False, soft_wrap=True)
    for note in results["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for name, message in results.get("failed", {}).items():
        console.print(f"failed: {name}: {message}", markup=False, soft_wrap=True)
    if results.get("left"):
        console.print(f"cells to be run yet: {len(results['left'])}; the same command goes on")
    if "checked" in results:
        console.print(results["checked"], markup=False, soft_wrap=True)
    print_paths(results)


def _checked(folder: Path) -> dict[str, Any]:
    from limbeck.studies.comp_dd import comp_dd, scenes
    from limbeck.studies.submission import read_submission

    held = read_submission(folder, (comp_dd(), scenes()))
    title = f"{held['benchmark']}: {', '.join(held['methods'])}"
    said = f"the submission agrees with itself: {len(held['cells'])} cells, checksum {held['checksum'][:16]}…"
    return {"title": title, "checked": said, **held, "paths": {"submission": str(folder)}}


def _overrides(arguments: Namespace) -> dict[str, str]:
    """Settings for all cells, as typed."""
    from limbeck.recipes import parse_overrides

    overrides = parse_overrides(arguments.overrides)
    refuse_own_keys(overrides, KEYS, "the benchmark")
    if arguments.data_root is None:
        return overrides
    require(not arguments.scenes, "--data-root", arguments.data_root, "an option with --scenes, which are built in")
    if "data.root" in overrides:
        raise UsageError("data.root: is given twice, once as --data-root")
    return {**overrides, "data.root": arguments.data_root}


def _notes_of_recipes(made: Mapping["Part", Sequence[Entrant]]) -> list[str]:
    """Where settings are not those of the subset, the number of images per class or the method, a sentence each."""
    lent: dict[str, dict[str, None]] = {}
    sizes: dict[str, None] = {}
    methods: dict[str, None] = {}
    for part, entrants in made.items():
        for one in entrants:
            found = re.fullmatch(r"(?:comp-dd/([^/]+)/[^/]+|[^/]+)/(.+)-ipc(\d+)", one.recipe)
            assert found is not None, one.recipe
            if found[1] not in (None, part.name):
                lent.setdefault(found[1], {})[part.name] = None
            if int(found[3]) != one.ipc:
                sizes[f"{one.ipc} images per class: settings of {found[3]}"] = None
            if found[2] != one.name:
                methods[one.name] = None
    notes = [f"{', '.join(names)}: no settings are published; those of {lender}" for lender, names in lent.items()]
    others = [f"{', '.join(methods)}: EDF's settings, with those that make the method"] if methods else []
    return [*notes, *sizes, *others]


def _draw(results: Mapping[str, Any], output: Path) -> dict[str, str]:
    """Write the figure; its path by name."""
    from limbeck.figures.comparisons import recovery_figure

    figure = recovery_figure(results["tables"], results["levels"])
    return {} if figure is None else {"figure": write_figure(figure, output / "recovery.png", output / "cells")}


def _shown(table: Mapping[str, Any]) -> list[Any]:
    """Titles and tables of at most 80 columns, as long as a category fits."""
    from rich.table import Column, Table
    from rich.text import Text

    from limbeck.studies.recovery_text import WHAT, blocks, images_text

    made: list[Any] = []
    for what, title in WHAT.items():
        made.append(f"{images_text(table['ipc'])}: {title}")  # a table's own title would be broken to its width
        for head, *rows in blocks(table, what):
            shown = Table(*(Column(Text(name)) for name in head))
            for row in rows:
                shown.add_row(*map(Text, row))
            made.append(shown)
    return made


COMMAND = Command(
    help="run methods on Comp-DD's easy and hard subsets, or the same on the built-in scenes",
    add_arguments=add_arguments,
    run=run,
    show=show,
    resume=(),  # finished cells are taken from the folder, others go on
)
