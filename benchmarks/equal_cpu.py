"""Comparisons at equal CPU seconds: the images, the entrants' settings, and how many iterations each may make.

An entrant's iterations are as many as fit into the seconds of one core that it is given, by short runs of it which are timed
once and kept, so that a comparison can be made again with the same bits. A set is distilled once, by `limbeck compare` under the
first protocol, which also chooses the checkpoint, and evaluated under the others by `limbeck evaluate`; `limbeck compare --show`
makes the tables of both. Sets lie in the run folders beside the first protocol's cells, which no checkout brings along.
`cifar10.npz` and `imagenette/` lie in the working directory, the root of the repository.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from limbeck.runtime.errors import UsageError

if TYPE_CHECKING:
    from limbeck.studies.cells import Cell, CellRecord

Recipe = Callable[[int], dict[str, Any]]  # its settings by the number of iterations
TIMED = (10, 30)  # iterations of the two runs whose difference is timed

# What all methods have in common, as the recipes of `limbeck recipes` have it.
DATA: dict[str, dict[str, Any]] = {
    **{
        f"scenes-{level}": {
            "data": {"source": f"scenes:{level}"},
            "network": f"ConvNetD3-w{width}",
            "augment": {"strategy": "crop_scale", "crop_ratio": 0.125, "flip": False},
            "eval": {"full_epochs": 60, "full_lr": 0.1},
        }
        for level, width in (("medium", 16), ("hard", 32))
    },
    "cifar10": {
        "data": {"source": "cifar10.npz", "per_class": 500},
        "network": "ConvNetD3-w32",
        "augment": {"crop_ratio": 0.25},
        "eval": {"full_epochs": 30},
    },
    "imagenette": {
        "data": {"source": "imagenette", "size": 48, "per_class": 300},
        "network": "ConvNetD3-w32",
        "augment": {"crop_ratio": 0.25},
        "eval": {"full_epochs": 20},
    },
}
EXPERTS: dict[str, dict[str, Any]] = {
    "scenes-medium": {"num_experts": 6, "train_epochs": 6, "expert_lr": 0.1},
    "scenes-hard": {"num_experts": 3, "train_epochs": 12, "expert_lr": 0.1, "batch_size": 64},  # with less they are at chance
    "cifar10": {"num_experts": 5, "train_epochs": 10, "expert_lr": 0.1},
    "imagenette": {"num_experts": 3, "train_epochs": 8, "expert_lr": 0.1, "batch_size": 128},
}


# T and M, the highest first start epochs at one image per class and at more, lr_img at both, and the greatest loss of a match.
_MATCHING: dict[str, tuple[dict[str, int], tuple[tuple[int, int], tuple[int, int]], tuple[float, float], float]] = {
    "scenes-medium": ({"syn_steps": 30, "expert_epochs": 3}, ((1, 3), (2, 4)), (1500.0, 1500.0), 3.0),
    "scenes-hard": ({"syn_steps": 20, "expert_epochs": 1}, ((3, 6), (3, 6)), (2000.0, 2000.0), 2.0),
    "cifar10": ({"syn_steps": 20}, ((2, 5), (4, 8)), (5000.0, 2000.0), 2.0),
    "imagenette": ({"syn_steps": 20}, ((2, 6), (3, 6)), (5000.0, 2000.0), 2.0),
}


def trajectory(data: str, ipc: int, iterations: int) -> dict[str, Any]:
    """What the trajectory methods have in common."""
    match, starts, rates, most = _MATCHING[data]
    first, last = starts[ipc > 1]
    return {
        "engine": {"compile": "yes"},  # a short run would not, and be timed so
        "experts": EXPERTS[data],
        "match": {**match, **({"batch_syn": 50} if ipc > 3 else {})},
        "schedule": {"first_max_start_epoch": first, "max_start_epoch": last, "iterations": max(int(0.7 * iterations), 1)},
        "outer": {"lr_img": rates[ipc > 1], "syn_lr_init": 0.05, "max_match_loss": most},
    }


def common(data: str, ipc: int, iterations: int, epochs: int, networks: int) -> dict[str, Any]:
    """The images, and the evaluation of all: four looks on the way, and that many networks at the end."""
    looks = {"seeds": networks, "every_seeds": 2, "epochs": epochs, "every": max(iterations // 4, 1)}
    return {**DATA[data], "ipc": ipc, "eval": {**DATA[data]["eval"], **looks}}


def laid(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of which later ones lie over earlier ones."""
    found: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            found[key] = laid(found.get(key, {}), value) if isinstance(value, Mapping) else value
    return found


def limbeck(*words: str, shown: bool = False) -> str:
    """Run the command on one core, and give its standard output back where it is not `shown`; end with it where it fails."""
    where = None if shown else subprocess.PIPE
    done = subprocess.run(
        [sys.executable, "-m", "limbeck", *words], stdout=where, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def write(path: Path, settings: Mapping[str, Any]) -> str:
    """The settings as a recipe's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(laid(settings), sort_keys=False))
    return str(path)


def iterations_of(entrants: Mapping[str, Recipe], seconds: float, kept: Path, alike: Mapping[str, str]) -> dict[str, int]:
    """How many iterations of each entrant take those seconds of CPU, timed where they have not been.

    Those that are `alike` make as many as the one that is named, and are timed in its name where it has not been: what they do
    besides is nothing to the noise of a timing.
    """
    known = timings(kept)
    for name, recipe in entrants.items():
        if alike.get(name, name) in known:
            continue
        spent = []
        for count in (TIMED[0], *TIMED):  # the first finds nothing compiled
            with tempfile.TemporaryDirectory() as folder:
                short = {"eval": {"seeds": 2, "epochs": 1, "every": 1000, "full_epochs": 1}}
                limbeck("distill", write(Path(folder) / "timed.yaml", laid(recipe(count), short)), "--output", f"{folder}/run")
                results = json.loads((Path(folder) / "run" / "results.json").read_text())
                spent.append(results["cpu_seconds"]["distil"])
        each = (spent[2] - spent[1]) / (TIMED[1] - TIMED[0])
        known[alike.get(name, name)] = {"seconds": round(each, 4), "iterations": max(round(seconds / each), 1)}
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(known, indent=1) + "\n")
    return {name: known[alike.get(name, name)]["iterations"] for name in entrants}


def timings(kept: Path) -> dict[str, Any]:
    """Seconds of an iteration, and how many are made, by entrant, as far as they have been timed."""
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    return found


def cells_under(recipes: Sequence[str], seeds: int, protocol: str) -> "list[Cell]":
    """The cells that `limbeck compare` makes of the recipes under a protocol."""
    from limbeck.studies.entrants import grid, recipe_entrants

    return grid(recipe_entrants(recipes, None, None), range(seeds), {"eval.protocol": protocol})


def to_evaluate(recipes: Sequence[str], seeds: int, first: Path, place: Path) -> "Iterator[tuple[CellRecord, Path, Cell]]":
    """What was measured in `first` and is not in `place` yet, with its run folder, which may be gone, and its cell there."""
    from limbeck.studies.cells import CellFolder

    before, there = CellFolder(first), CellFolder(place)
    pairs = zip(*(cells_under(recipes, seeds, protocol) for protocol in (first.name, place.name)), strict=True)
    for measured, cell in pairs:
        record = before.read(measured)
        if record is not None and there.read(cell) is None:
            yield record, before.run_folder(measured), cell


def evaluate_kept(recipes: Sequence[str], seeds: int, first: Path, place: Path) -> None:
    """Cells in `place` of the sets whose runs lie in `first`: as they were measured there, with accuracies under its protocol."""
    from limbeck.evaluation.results import Evaluation
    from limbeck.studies.cells import CellFolder

    for record, run, cell in to_evaluate(recipes, seeds, first, place):
        if not run.is_dir():
            continue
        found = Evaluation.from_dict(json.loads(limbeck("evaluate", str(run), "--protocol", place.name, "--no-record", "--json")))
        CellFolder(place).write(cell, replace(record, accuracy=found.accuracy, doubts=found.doubts))


def tell_lost(recipes: Sequence[str], seeds: int, first: Path, place: Path) -> None:
    """Say which finished cells have no set any more that could be evaluated under another protocol."""
    lost = [first / "cells" / f"{run.name}.json" for _, run, _ in to_evaluate(recipes, seeds, first, place) if not run.is_dir()]
    if lost:
        said = f"{place}: lacks cells whose sets are gone; where these files are removed, they are distilled again"
        print(f"{said}: {' '.join(map(str, lost))}", file=sys.stderr, flush=True)


def show_kept(recipes: Sequence[str], seeds: int, place: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Print the table of the finished cells in `place`, as `limbeck compare --show` does, and leave its files as they are."""
    from limbeck.studies.cells import doubts_of
    from limbeck.studies.compare import check_alike
    from limbeck.studies.matrix import Running, run_matrix
    from limbeck.studies.table import Table, tabulate

    cells = cells_under(recipes, seeds, place.name)
    found = run_matrix(cells, place, Running(max_seconds=0))
    sections, doubts = tabulate(list(found.results.values()), pairs), doubts_of(found.results)
    notes, left = tuple(check_alike(cells)), tuple(found.left)
    print(f"{place}:", Table(title=str(place), data="", sections=sections, notes=notes, doubts=doubts, left=left), sep="\n")


def both_among(names: Iterable[str], pairs: str) -> list[tuple[str, str]]:
    """Of the pairs A:B,… those of two of these."""
    return [(a, b) for a, _, b in (word.partition(":") for word in pairs.split(",")) if {a, b} <= {*names}]


@contextmanager
def in_one_line() -> Iterator[None]:
    """End with the message of what cells of other settings, or files that are none, are refused with."""
    try:
        yield
    except UsageError as error:
        sys.exit(str(error))


@in_one_line()
def compare(
    entrants: Mapping[str, Recipe],
    folder: Path,
    seconds: float,
    seeds: int,
    protocols: Sequence[str],
    pairs: str,
    alike: Mapping[str, str],
    show: bool = False,
) -> None:
    """A comparison for each protocol in `folder`, seed after seed, so that what there is is balanced.

    `show` runs and writes nothing: it takes the entrants that have been timed, by the recipes that were kept of them.
    """
    paths = {name: folder / "recipes" / f"{name}.yaml" for name in entrants}
    first, *others = (folder / protocol for protocol in protocols)
    if show:
        known = timings(folder / "iterations.json")
        held = {name: str(path) for name, path in paths.items() if alike.get(name, name) in known and path.exists()}
        for place in (first, *others) if held else ():
            show_kept([*held.values()], seeds, place, both_among(held, pairs))
        if not held:
            print(f"{folder}: nothing is finished of {', '.join(entrants)}")
        return
    counts = iterations_of(entrants, seconds, folder / "iterations.json", alike)
    recipes = [write(paths[name], recipe(counts[name])) for name, recipe in entrants.items()]
    asked = ",".join(map(":".join, both_among(entrants, pairs)))
    for place in others:
        tell_lost(recipes, seeds, first, place)
    for count in range(1, seeds + 1):
        words = ["compare", *recipes, "--no-matched", *([f"--pairs={asked}"] if asked else [])]
        words += ["--seeds", ",".join(map(str, range(count)))]
        limbeck(*words, f"eval.protocol={first.name}", "--output", str(first), *["--keep"] * bool(others), shown=True)
        for place in others:
            evaluate_kept(recipes, count, first, place)
            limbeck(*words, f"eval.protocol={place.name}", "--output", str(place), "--show", shown=True)
