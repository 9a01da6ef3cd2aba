"""Comparisons: entrants × seeds → cells → a `Table`; the same data, seeds and evaluation for all.

An entrant is a recipe with what replaces its own settings, run in processes of its own, or, from Python, anything that `distill`
takes as a method, run in this one.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from limbeck.methods.method import Method
from limbeck.methods.registry import METHODS, method_of
from limbeck.recipes import load_recipe, recipe_names
from limbeck.runs.api import loaded, settings_of
from limbeck.runs.identity import NONE, same_place
from limbeck.runs.settings import DistillSettings, check_keys, dotted, flat, value_of
from limbeck.runtime.devices import undisturbed
from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.executor import Executor
from limbeck.runtime.executor.current import executing
from limbeck.runtime.files import write_json, write_text
from limbeck.runtime.fingerprint import described
from limbeck.runtime.kept import elsewhere
from limbeck.runtime.leftovers import passing_folder
from limbeck.runtime.notices import gathered, logged
from limbeck.runtime.progress import LogProgress, Progress
from limbeck.runtime.published import Work, working
from limbeck.runtime.room import disks_told
from limbeck.studies.cells import Cell, doubts_of
from limbeck.studies.entrants import cell_name, file_name, file_names, said_of
from limbeck.studies.judging import Pair, checked_pairs
from limbeck.studies.matrix import Running, run_matrix
from limbeck.studies.table import COMPARISON, Table, tabulate
from limbeck.studies.versions import versions_said

# What must agree, or figures would answer different questions; and what should, or they answer one question more.
SAME, LIKE = ("data.", "eval."), ("network", "augment.", "experts.", "engine.precision")
MEASURED = ("augment.", "eval.")  # what presets may say of these gives way to the first method's
FREE = ("data.root", *NONE, "eval.networks", "eval.every", "eval.every_seeds")


@gathered(logged)
@disks_told()
@undisturbed()
def compare(
    methods: Mapping[str, Any],
    data: Any = None,
    *,
    ipc: int | Sequence[int] = 1,
    seeds: Iterable[int] = range(3),
    networks: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    pairs: Sequence[Pair] = (),
    output: str | Path | None = None,
    jobs: int | None = None,
    keep: bool = False,
    executor: Executor | str | None = None,
    progress: Progress | None = None,
    **keys: Any,
) -> Table:
    """Distil with several methods on the same data, seeds and evaluation, and put them side by side.

    Recipes are run in processes of their own, everything else in this one.

    Args:
        methods: by the name they are to have, the first with the others: what `limbeck.methods` gives, the name of a method or a
            recipe, or `DistillSettings`.
        data: as `distill` takes it; None takes that of the recipes or settings.
        ipc: images per class; of several each has a section of its own.
        seeds: of the distillations.
        networks: names of those to evaluate with beside the one distilled for.
        settings: for all, by dotted keys or their last words.
        pairs: methods (a, b) of whose difference a − b a verdict is asked for by itself.
        output: the folder of the grid, or its URL, where finished cells are kept and found again; None leaves nothing on disk.
        jobs: processes at a time, of recipes; None: one, or as many as a cluster has room for.
        keep: whether the run folders of finished distillations stay.
        executor: where distillations run: `local` for this machine, `ray` or a `limbeck.Ray` for a cluster.
        progress: where to report; None goes through `logging`.
        **keys: more settings for all.

    Raises:
        UsageError: when they cannot be compared; nothing is run then.
        Failure: when no distillation could be finished.

    Example:
        >>> tiny = {"data.size": 16, "data.per_class": 12, "network": "ConvNetD2-w4", "eval.epochs": 1, "eval.random_lr": 0.01}
        >>> quick = {"eval.full_epochs": 1, "eval.seeds": 2}
        >>> table = compare({"chance": "random", "centres": "k-center"}, "scenes:easy", seeds=range(2), settings={**tiny, **quick})
        >>> [row.method for row in table.rows], table.differences[0].n
        (['chance', 'centres'], 2)
    """
    require(isinstance(methods, Mapping) and all(isinstance(name, str) for name in methods), "methods", methods, "methods by name")
    require(isinstance(settings or {}, Mapping), "settings", settings, "values by key")
    named = isinstance(networks, Iterable) and all(isinstance(name, str) and len(name) > 1 for name in networks)
    require(named, "networks", networks, "a list of names")
    sizes, many = tuple(ipc) if isinstance(ipc, Iterable) else (ipc,), tuple(seeds) if isinstance(seeds, Iterable) else ()
    require(len(set(many)) == len(many) > 0, "seeds", seeds, "one seed or more, each once, such as range(3)")
    require(len(set(sizes)) == len(sizes) > 0, "ipc", ipc, "one number or more, each once")
    given = dotted({**(settings or {}), **keys, **({"eval.networks": ",".join(networks)} if networks else {})})
    if data is not None and not isinstance(data, (str, PathLike)):  # a setting is one object
        data, given = loaded(data, given)
    files, asked = file_names(methods), checked_pairs(pairs, methods)
    cells: list[Cell] = []
    said: dict[str, None] = {}
    for seed in many:
        for size in sizes:
            own, first = {**given, "ipc": size, "seed": seed}, len(cells)
            for name, method in methods.items():
                if len(cells) > first:
                    method, notes = _measured_as(cells[first], name, method, given)
                    said |= dict.fromkeys(notes)
                cells.append(_cell(name, files[name], method, data, own))
    require(bool(cells), "methods", list(methods), "one or more")
    source = cells[0].settings.data.source
    title = f"{', '.join(methods)} on {source if isinstance(source, str) else described(source)}"
    running = Running(jobs=jobs, keep=keep, progress=progress or LogProgress())
    with ExitStack() as stack:
        if output is None:
            work = Work(stack.enter_context(passing_folder()))
            stack.enter_context(elsewhere(work.folder / "cache"))
        else:
            work = stack.enter_context(working("output", output, shared=True))
        stack.enter_context(executing(executor))
        table = compare_cells(cells, work.folder, pairs=asked, title=title, running=running, notes=list(said))
    if not table.sections and table.failed:
        name, message = next(iter(table.failed.items()))
        raise Failure(f"no distillation could be finished; {name}: {message}")
    return replace(table, paths={} if output is None else {kind: work.named(path) for kind, path in table.paths.items()})


def _cell(name: str, file: str, method: Any, data: Any, keys: Mapping[str, Any]) -> Cell:
    """A cell of `compare`: of a recipe on data that a command line can name, or of objects."""
    ipc, seed = keys["ipc"], keys["seed"]
    facts = {"method": name, "ipc": ipc, "seed": seed}
    called = cell_name(file, ipc, seed)
    if isinstance(method, str) and (method in recipe_names() or method.endswith((".yaml", ".yml"))):
        named = {**keys, **({} if data is None else {"data.source": data})}
        if all(isinstance(value, (str, int, float)) for value in named.values()):
            words = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in named.items()}
            return Cell(called, method, words, load_recipe(method, words), facts)
        method = load_recipe(method)
    if not isinstance(method, DistillSettings):
        require(data is not None, "data", data, "images, which the method does not bring along")
        return Cell(called, None, {}, settings_of(data, method, keys), facts)
    return Cell(called, None, {}, _replaced(method, {**keys, **({} if data is None else {"data.source": data})}), facts)


def _replaced(settings: DistillSettings, given: Mapping[str, Any]) -> DistillSettings:
    """The settings with other values of dotted keys, which are looked at together once all are in their places.

    Raises:
        UsageError: for an unknown key, a value of the wrong type or out of range, or values that do not go together.
    """
    check_keys(keys := flat(given))
    groups: dict[str, dict[str, Any]] = {}
    for key, value in keys.items():
        group, _, word = key.rpartition(".")
        groups.setdefault(group, {})[word] = value
    alone = groups.pop("", {})
    return replace(settings, **alone, **{name: replace(getattr(settings, name), **own) for name, own in groups.items()})


def _measured_as(first: Cell, name: str, method: Any, given: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The method, augmented and evaluated as the first where only a preset says otherwise, and a note of each such key."""
    found = replace(METHODS[method], name=method) if isinstance(method, str) and method in METHODS else method
    if not isinstance(found, Method):
        return method, []
    presets = {**method_of(first.settings.method).preset, **found.preset}
    keys = [key for key in presets if key.startswith(MEASURED) and key not in {*given, *dotted(found.given)}]
    own = {key: found.preset.get(key, value_of(DistillSettings(), key)) for key in keys}
    other = {key: value for key in keys if (value := value_of(first.settings, key)) != own[key]}
    notes = [f"{key} {value!r} in {name} as in {first.facts['method']}; its own is {own[key]!r}" for key, value in other.items()]
    return (replace(found, given={**other, **found.given}), notes) if other else (method, [])


def compare_cells(
    cells: Sequence[Cell],
    output: Path,
    *,
    pairs: Sequence[Pair] = (),
    title: str = "",
    running: Running = Running(),
    notes: Sequence[str] = (),
) -> Table:
    """Run the cells of a comparison, and write what it has found so far to `comparison.json` and `comparison.md` in its folder.

    Args:
        cells: with the facts `method`, `ipc` and `seed`.
        output: the folder.
        pairs: see `tabulate`.
        title: what is compared.
        running: how.
        notes: what a reader must know besides, a sentence each.

    Raises:
        UsageError: when the cells cannot be compared, or the folder not be used; nothing is run then.
    """
    notes, source = [*notes, *check_alike(cells)], cells[0].settings.data.source
    for remark in said_of(cells):
        running.progress.say(remark)
    matrix = run_matrix(cells, output, running)
    paths = {"cells": str(output / "cells")}
    if matrix.results:
        paths |= {name: str(output / f"comparison.{name}") for name in ("json", "md")}
    table = Table(
        title=title,
        data=source if isinstance(source, str) else described(source),
        seeds=tuple(dict.fromkeys(cell.facts["seed"] for cell in cells)),
        sections=tabulate(list(matrix.results.values()), pairs),
        notes=(*notes, *versions_said(matrix.results.values())),
        doubts=doubts_of(matrix.results),
        failed=matrix.failed,
        left=tuple(matrix.left),
        paths=paths,
    )
    if matrix.results:
        write_text(output / "comparison.md", table.markdown)
        write_json(output / "comparison.json", table, COMPARISON)
    return table


def check_alike(cells: Sequence[Cell]) -> list[str]:
    """What a reader must know of how the methods' settings differ, a sentence for each key.

    Raises:
        UsageError: when two methods would be measured on other data or under another evaluation.
    """
    notes: dict[tuple[str, str], dict[str, dict[str, None]]] = {}  # by key and what the first has: who has which other value
    groups: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.facts["ipc"], cell.facts["seed"]), []).append(cell)
    for group in groups.values():
        first = group[0]
        for cell in group[1:]:
            for key, *values in cell.all_settings.differences(first.all_settings):
                own, b = (f"{key} {value!r} in" for value in values)
                a, b = f"{own} {cell.facts['method']}", f"{b} {first.facts['method']}"
                if key.startswith(SAME) and key not in FREE and not same_place(*values):
                    raise UsageError(f"{a} is not {b}; {_advice(key, first, cell)}")
                if key.startswith(LIKE) and (not key.startswith("experts.") or (cell.needs_experts and first.needs_experts)):
                    notes.setdefault((key, b), {}).setdefault(own, {})[cell.facts["method"]] = None
    return [", ".join([*(f"{own} {' and '.join(who)}" for own, who in others.items()), b]) for (_, b), others in notes.items()]


def _advice(key: str, first: Cell, other: Cell) -> str:
    """What can be done about a key that must be the same: where each was given a value of its own, several comparisons."""
    text = first.overrides.get(key)
    if text is None or other.overrides.get(key) in (None, text):
        return f"{key}=… sets it for all"
    folder = f"runs/{file_name(key.rpartition('.')[2])}-{file_name(text)}"
    return f"a table has one for all: compare once for each value, such as {key}={text} --output {folder}"
