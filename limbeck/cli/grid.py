"""What the commands that run grids share: their options, how a method becomes a recipe, and how recipes become cells."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.runtime.errors import Failure, UsageError, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from limbeck.studies.cells import Cell
    from limbeck.studies.matrix import Matrix

OWN_KEYS = {"ipc": "--ipc", "seed": "--seeds", "output": "--output"}


@dataclass(frozen=True)
class Entrant:
    """What is compared: a name for it, the recipe, and what replaces the recipe's own settings."""

    name: str
    recipe: str
    ipc: int
    overrides: Mapping[str, str]


def add_matrix_arguments(parser: ArgumentParser) -> None:
    """The options of every command that runs a grid."""
    parser.add_argument("--jobs", metavar="N", default="1", help="distillations at a time, which share the cores (default: 1)")
    parser.add_argument("--shard", metavar="I/N", help="run only the I-th of N shares of the grid, beside other processes")
    parser.add_argument("--max-seconds", metavar="S", help="stop after that time; the same command goes on")
    parser.add_argument("--keep", action="store_true", help="keep the run folders of finished distillations")
    parser.add_argument("--show", action="store_true", help="run nothing; show what is finished")


def refuse_own_keys(overrides: Mapping[str, str], options: Mapping[str, str], what: str) -> None:
    """Refuse settings that are what the grid runs over.

    Args:
        overrides: as typed.
        options: what to use instead, by key.
        what: the grid, such as `a comparison`.

    Raises:
        UsageError: when one of the keys is set.
    """
    for key, option in options.items():
        if key in overrides:
            raise UsageError(f"{key}: is what {what} runs over; use {option}")


def method_recipe(method: str, source: str | None, ipc: int, base: str | None) -> Entrant:
    """The recipe of a method on some data: its own, of the nearest number of images per class, or else EDF's with its name.

    Args:
        method: its name.
        source: of the images; None takes those of `base`.
        ipc: images per class.
        base: what to start from instead; where it is EDF's, with the method's own settings in place of those.

    Raises:
        UsageError: when there is none to start from.
    """
    from limbeck.recipes import load_recipe, recipe_names

    data = {} if source is None else {"data.source": source}
    if base is not None:
        own = {} if load_recipe(base).method == method else {"method": method}
        return Entrant(method, base, ipc, {**own, **data})
    if source is None:
        raise UsageError("--data: is missing; --methods needs a source of images, or a recipe to start from (--base)")
    names = recipe_names()
    folder = data_folder(source, names)
    for wanted in (method, "edf"):
        sized = {int(found[1]): name for name in names if (found := re.fullmatch(rf"{folder}/{re.escape(wanted)}-ipc(\d+)", name))}
        if folder is not None and sized:
            return Entrant(method, sized[nearest(sized, ipc)], ipc, data if wanted == method else {"method": method, **data})
    raise UsageError(f"--data: there is no recipe for {method!r} on {source!r}; name one to start from with --base RECIPE")


def nearest(held: Mapping[int, Any], ipc: int) -> int:
    """The number of images per class that is nearest to `ipc`; of two the lower."""
    return min(held, key=lambda one: (abs(one - ipc), one))


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


def grid(
    made: Sequence[Entrant],
    seeds: Sequence[int],
    overrides: Mapping[str, str],
    *,
    matched: bool | None = False,
    prefix: str = "",
    facts: Mapping[str, Any] | None = None,
) -> list["Cell"]:
    """The cells of a comparison, seed by seed, so that what is finished first can be compared.

    Args:
        made: what is compared.
        seeds: of the distillations.
        overrides: settings for all, as typed.
        matched: whether methods that change the gradient are run with its norm as if they did not, too; None: EDF is, where DATM,
            which is EDF without its parts, is compared at the same number of images.
        prefix: of the cells' names.
        facts: to be found beside every result, under `method`, `ipc` and `seed`.
    """
    from limbeck.recipes import load_recipe
    from limbeck.studies.cells import Cell
    from limbeck.studies.compare import MATCHED, has_parts

    beside_datm: set[int] = set()
    if matched is None:
        beside_datm = {one.ipc for one in made if load_recipe(one.recipe, {**one.overrides, **overrides}).method == "datm"}
    cells = []
    for seed in seeds:
        for entrant in made:
            own = {**entrant.overrides, "ipc": str(entrant.ipc), "seed": str(seed), **overrides}
            settings = load_recipe(entrant.recipe, own)
            ways = [("", "", own, settings)]
            wanted = matched if matched is not None else settings.method == "edf" and entrant.ipc in beside_datm
            if wanted and has_parts(settings) and not settings.match.match_norm:
                own = {**own, "match.match_norm": "true"}
                ways.append(("+matched", MATCHED, own, load_recipe(entrant.recipe, own)))
            for mark, said, given, made_of in ways:
                name = f"{prefix}{re.sub(r'[^A-Za-z0-9_.+-]+', '-', entrant.name).lstrip('.')}{mark}-ipc{entrant.ipc}-seed{seed}"
                known = {**(facts or {}), "method": f"{entrant.name}{said}", "ipc": entrant.ipc, "seed": seed}
                cells.append(Cell(name, entrant.recipe, given, made_of, known))
    return cells


def run_grid(arguments: Namespace, cells: Sequence["Cell"], output: Path) -> "Matrix":
    """Run the cells in the folder `output`, as the options of `add_matrix_arguments` say."""
    from limbeck.runtime.executor import Shard
    from limbeck.runtime.progress import default_progress
    from limbeck.studies.matrix import run_matrix

    jobs = numbers("--jobs", arguments.jobs)
    require(len(jobs) == 1, "--jobs", arguments.jobs, "one whole number")
    limit = None if arguments.max_seconds is None else _seconds(arguments.max_seconds)
    shard = Shard() if arguments.shard is None else Shard.parse(arguments.shard)
    return run_matrix(
        cells,
        output,
        jobs=jobs[0],
        shard=shard,
        max_seconds=0.0 if arguments.show else limit,
        keep=arguments.keep,
        progress=default_progress(),
    )


def conclude(
    results: dict[str, Any],
    matrix: "Matrix",
    stem: Path,
    markdown: Callable[[Mapping[str, Any]], str],
    more: Callable[[], Mapping[str, str]],
    show: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Write what a grid has found so far, if that is anything.

    Args:
        results: changed: `failed`, `left` and `paths` are added.
        matrix: the grid that was run.
        stem: of the files that are written, `.json` and `.md`, in the folder of the grid.
        markdown: the results as text.
        more: writes what else there is, such as a figure; the paths by name.
        show: prints results; called where cells have failed, because what others measured is not lost with them.

    Returns:
        The results.

    Raises:
        Failure: when cells have failed; everything is written before.
    """
    from limbeck.runtime.files import write_json, write_text

    results |= {"failed": matrix.failed, "left": matrix.left, "paths": {"cells": str(stem.parent / "cells")}}
    if matrix.results:
        files = {name: stem.with_name(f"{stem.name}.{name}") for name in ("json", "md")}
        results["paths"] |= {name: str(path) for name, path in files.items()}
        results["paths"] |= more()
        write_text(files["md"], markdown(results))
        write_json(files["json"], results)
    if matrix.failed:
        show(results)
        matrix.raise_failures()
    return results


def write_figure(figure: "Figure", path: Path, cells: Path) -> str:
    """Write the figure as PNG; its path.

    Raises:
        Failure: when it cannot be written; the message says that finished cells lie in `cells`.
    """
    from limbeck.figures.style import png
    from limbeck.runtime.files import write_bytes

    try:
        write_bytes(path, png(figure))
    except OSError as error:
        raise Failure(f"the figure could not be written ({error}); finished cells are in {cells}") from error
    return str(path)


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


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--max-seconds: {text!r} is not a number of seconds") from None
