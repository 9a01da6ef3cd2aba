"""Benchmarks of subsets by difficulty: the built-in scenes', and Comp-DD's (Wang et al., "Emphasizing Discriminative Features
for Dataset Distillation in Complex Scenarios", 2025, arXiv:2410.17193), which has EDF's settings for three of its eight
categories.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.data.annotations import LISTS, find_list
from limbeck.data.folder import subfolders
from limbeck.data.imagenet import INSIDE, VARIABLE
from limbeck.data.registry import COMP_DD, find_subset, subsets, wnids
from limbeck.data.scenes import LEVELS as SCENES
from limbeck.recipes import load_recipe, recipe_names
from limbeck.runtime.errors import UsageError
from limbeck.runtime.records import Record
from limbeck.studies.cells import Cell
from limbeck.studies.compare import check_alike
from limbeck.studies.entrants import Entrant, grid, method_recipe, nearest

PREFIX = "comp-dd/"
SHOWN = 5  # missing folders that are named
# Published complexities in % of the easy and of the hard subset.
COMPLEXITY: Mapping[str, tuple[float, float]] = {
    "bird": (66.0, 74.5),
    "car": (57.4, 64.4),
    "snake": (64.3, 70.8),
    "dog": (64.8, 70.8),
    "fish": (60.4, 66.4),
    "insect": (67.9, 73.0),
    "round": (64.6, 69.3),
    "music": (64.1, 68.7),
}


@dataclass(frozen=True, slots=True)
class Part(Record):
    """A subset of a benchmark.

    Args:
        name: for tables and files, such as `bird-hard`.
        category: `bird`; subsets of one category are compared.
        level: `hard`.
        source: `data.source` of its images.
        note: what a reader must know of it; empty for most.
    """

    name: str
    category: str
    level: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Benchmark:
    """Subsets by category and level.

    Args:
        name: of the benchmark.
        levels: from the easiest.
        parts: category by category, each from the easiest level.
        published: whether its recipes are the published ones, and its images ImageNet's.
    """

    name: str
    levels: tuple[str, ...]
    parts: tuple[Part, ...]
    published: bool = False

    def choose(self, words: Sequence[str] | None) -> list[Part]:
        """The subsets that are called so, in the benchmark's order; None takes all.

        Args:
            words: names of subsets (`bird-hard`, `comp-dd/bird-hard`, `scenes:hard`) or categories, which stand for all their
                levels; where there is one category alone, also levels.

        Raises:
            UsageError: when there are none, or one is unknown.
        """
        if words is None:
            return list(self.parts)
        found = {part.name for word in words for part in self._called(word)}
        if not found:
            raise UsageError(f"--subsets: names none; some of {self._names} are accepted, joined by commas")
        return [part for part in self.parts if part.name in found]

    def _called(self, word: str) -> list[Part]:
        sought = word.lower().removeprefix(PREFIX)
        alone = len({part.category for part in self.parts}) == 1
        called = [
            part for part in self.parts if sought in (part.name, part.source, part.category, *([part.level] if alone else []))
        ]
        if not called:
            raise UsageError(f"--subsets: {word!r} is not in {self.name}, which has {self._names}")
        return called

    @property
    def _names(self) -> str:
        return ", ".join(part.name for part in self.parts)


def comp_dd() -> Benchmark:
    """The sixteen subsets of Comp-DD, as the registry has them."""
    levels, parts = ("easy", "hard"), []
    for name, subset in subsets().items():
        if subset.provenance == COMP_DD:
            short = name.removeprefix(PREFIX)
            category, _, level = short.rpartition("-")
            parts.append(Part(short, category, level, f"imagenet:{name}", subset.note))
    order = list(dict.fromkeys(part.category for part in parts))
    return Benchmark(
        "Comp-DD", levels, tuple(sorted(parts, key=lambda one: (order.index(one.category), levels.index(one.level)))), True
    )


def scenes() -> Benchmark:
    """The built-in scenes: the same in seconds and on a CPU, with three levels."""
    return Benchmark(
        "scenes", tuple(SCENES), tuple(Part(f"scenes-{level}", "scenes", level, f"scenes:{level}") for level in SCENES)
    )


def settings_from(part: Part, published: Iterable[str]) -> str:
    """The subset of Comp-DD whose published settings `part` takes: its own, or those of the nearest complexity at its level.

    Args:
        part: of Comp-DD.
        published: names of the subsets that have settings, such as `bird-hard`.
    """
    held = set(published)
    if part.name in held:
        return part.name
    level = ("easy", "hard").index(part.level)
    own = COMPLEXITY[part.category][level]
    near = {name: abs(COMPLEXITY[name.rpartition("-")[0]][level] - own) for name in held if name.endswith(f"-{part.level}")}
    return min(near, key=lambda name: (near[name], name))


def plan(
    benchmark: Benchmark,
    parts: Sequence[Part],
    methods: Sequence[str],
    ipcs: Sequence[int],
    seeds: Sequence[int],
    overrides: Mapping[str, str],
) -> tuple[list[Cell], list[str]]:
    """The cells of the grid, seed by seed, and what a reader must know of their settings.

    Args:
        benchmark: which.
        parts: its subsets to run.
        methods: by name.
        ipcs: numbers of images per class.
        seeds: of the distillations.
        overrides: settings for all cells, as typed.

    Raises:
        UsageError: when what is asked for cannot be run.
    """
    recipe = published_recipe if benchmark.published else scenes_recipe
    made = {part: [recipe(part, method, ipc) for ipc in ipcs for method in methods] for part in parts}
    notes = [f"{part.name}: {part.note}" for part in parts if part.note]
    notes += _notes_of_recipes(made)
    cells = []
    for part, entrants in made.items():
        facts = {"subset": part.name, "category": part.category, "level": part.level}
        found = grid(entrants, seeds, overrides, prefix=f"{part.name}-", facts=facts)
        notes += [note for note in check_alike(found) if note not in notes]
        cells += found
    return sorted(cells, key=lambda cell: seeds.index(cell.facts["seed"])), notes


def published_recipe(part: Part, method: str, ipc: int) -> Entrant:
    """EDF's published settings for a subset of Comp-DD, or the nearest ones; of another method, with what makes it that one.

    Raises:
        UsageError: when there is no such method.
    """
    held: dict[str, dict[int, str]] = {}
    for name in recipe_names():
        if found := re.fullmatch(r"comp-dd/([^/]+)/[^/]+/edf-ipc(\d+)", name):
            held.setdefault(found[1], {})[int(found[2])] = name
    own = held[settings_from(part, held)]
    recipe = own[nearest(own, ipc)]
    settings = load_recipe(recipe)
    source = {} if settings.data.source == part.source else {"data.source": part.source}
    return Entrant(method, recipe, ipc, {**source, **({} if settings.method == method else {"method": method})})


def scenes_recipe(part: Part, method: str, ipc: int) -> Entrant:
    """The recipe of a method on a level of the scenes; the same settings on every level, as `limbeck compare` has them."""
    return method_recipe(method, part.source, ipc, None)


def _notes_of_recipes(made: Mapping[Part, Sequence[Entrant]]) -> list[str]:
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


def check_root(parts: Sequence[Part], root: str | None) -> None:
    """Raise `UsageError`, a line, unless the copy of ImageNet has folders for all classes of the subsets.

    Args:
        parts: subsets of Comp-DD.
        root: `data.root`; None takes $LIMBECK_IMAGENET. `hf:NAME` is not looked at.
    """
    named, key = root or os.environ.get(VARIABLE), "data.root" if root else f"${VARIABLE}"
    if not named:
        raise UsageError(
            "data.root: is missing; the subsets of Comp-DD need the folder that holds ImageNet's train/ and val/: "
            f"--data-root DIR, data.root=DIR or the environment variable {VARIABLE}"
        )
    if named.startswith("hf:"):
        return
    top = Path(named).expanduser()
    found = next((top / inside for inside in INSIDE if os.path.isdir(top / inside / "train")), None)
    if found is None:
        what = "has no folder train/ with a folder of images per class" if os.path.isdir(top) else "is not a folder that exists"
        raise UsageError(f"{key}: {named!r} {what}")
    val = next((found / name for name in ("val", "validation") if (found / name).is_dir()), None)
    if val is None:
        raise UsageError(f"{key}: '{found}' has train/ but no val/ beside it")
    _check_folder(found / "train", set(subfolders(found / "train")), parts, key)
    tested = set(subfolders(val))
    if tested & set(wnids()):
        _check_folder(val, tested, parts, key)
    elif find_list(found, val) is None:
        raise UsageError(f"{key}: the images in '{val}' are not in class folders, and none of {', '.join(LISTS)} is there")


def _check_folder(folder: Path, present: set[str], parts: Sequence[Part], key: str) -> None:
    lacking = {part.name: [one.wnid for one in find_subset(part.name).classes if one.wnid not in present] for part in parts}
    said = [f"{wnid} ({name})" for name, missing in lacking.items() for wnid in missing]
    if said:
        more = f" and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
        raise UsageError(f"{key}: '{folder}' has no folder {', '.join(said[:SHOWN])}{more}")
