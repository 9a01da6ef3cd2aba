"""How large an item is run: which images, how many per class, which seeds and settings, and the cells that come of it.

    cpu     the built-in scenes, with the settings of their recipes: a cell takes some minutes on two cores
    gpu     subsets of ImageNet at 128×128 with fewer experts and iterations than published
    paper   the paper's subsets with its published settings

What two items ask for with equal settings is one cell: its name ends with a fingerprint of them, whatever the item calls its row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NoReturn

from limbeck.recipes import load_recipe, parse_overrides, recipe_names
from limbeck.reproduction.claims import Size, control_of
from limbeck.reproduction.item import Item, Places, Row
from limbeck.runs.identity import NONE
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.fingerprint import fingerprint
from limbeck.studies.cells import Cell
from limbeck.studies.comp_dd import Part, comp_dd, published_recipe, scenes
from limbeck.studies.entrants import Entrant, file_name, has_parts, method_recipe, nearest, refuse_own_keys

ALONE: tuple[Places, ...] = ("main", "parts", "easy")
PUBLISHED = ("imagenette", "imagewoof", "imagemeow", "imageyellow", "imagefruit", "imagesquawk")
OWN_KEYS = {"ipc": "another --scale", "seed": "--seeds", "output": "--output", "method": "another item", "data.source": "data="}


@dataclass(frozen=True)
class Scale:
    """How large items are.

    Args:
        name: as it is asked for.
        sizes: images per class, by what items call them.
        main: which of these most items run over.
        places: the sources, by what items call them: groups whose members differ in difficulty.
        base: a recipe that all methods start from on such places.
        overrides: settings for all cells, as typed.
        seeds: of the distillations.
        eye: the network that the images of different levels are seen by, as one ResNet-18 sees all of the paper's.
    """

    name: str
    sizes: Mapping[Size, int]
    main: tuple[Size, ...]
    places: Mapping[Places, tuple[tuple[Part, ...], ...]]
    base: Mapping[Places, str] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    eye: str = "ResNet18-batchnorm"

    def sizes_of(self, item: Item) -> list[int]:
        """The numbers of images per class that an item runs over, the lowest first."""
        return sorted(self.sizes[size] for size in item.sizes or self.main)

    def sizes_of_row(self, item: Item, row: Row) -> set[int]:
        """Those that one of its rows runs at."""
        own = {*(item.sizes or self.main), *(size for size in row.also if size in self.sizes)} - {*row.without}
        return {self.sizes[size] for size in own}

    def all_sizes_of(self, item: Item) -> list[int]:
        """Those that any of its rows runs at, the lowest first."""
        return sorted(set().union(*(self.sizes_of_row(item, row) for row in item.rows)))

    def on(self, source: str) -> "Scale":
        """The same on other images, which have no levels."""
        place = Part(file_name(Path(source).stem if "/" in source or "." in source else source), "", "", source)
        return replace(self, places=dict.fromkeys(ALONE, ((place,),)), base={})

    def from_recipe(self, base: str) -> "Scale":
        """The same with all methods started from that recipe, on all places."""
        return replace(self, base=dict.fromkeys(self.places, base))


@dataclass(frozen=True)
class Spot:
    """Where a cell stands in the grid of an item.

    Args:
        row: its label, with what marks a control.
        ipc: images per class.
        place: the source.
        seed: of the distillation.
        cell: what is run.
        control: the label of the row that it is the control of; empty where it is none.
    """

    row: str
    ipc: int
    place: Part
    seed: int
    cell: Cell
    control: str = ""


def _single(name: str, source: str) -> tuple[Part, ...]:
    return (Part(name, name, "", source),)


def _cpu() -> Scale:
    easy, medium, hard = scenes().parts
    return Scale(
        "cpu",
        {"small": 1, "middle": 3, "large": 10, "huge": 20},
        ("small", "middle"),
        {"main": ((medium,),), "parts": ((hard,),), "levels": ((easy, hard),), "easy": ((easy,),)},
        {"parts": "scenes/hard-edf-ipc3"},
        eye="ResNet18-w8-batchnorm",
    )


def _pairs(categories: Sequence[str]) -> tuple[tuple[Part, ...], ...]:
    """The subsets of Comp-DD by category, the easy one first."""
    return tuple(
        tuple(group) for category, group in groupby(comp_dd().parts, key=lambda one: one.category) if category in categories
    )


def _gpu() -> Scale:
    nette, woof = (_single(name, f"imagenet:{name}") for name in ("imagenette", "imagewoof"))
    return Scale(
        "gpu",
        {"small": 1, "middle": 10, "large": 50, "huge": 100},
        ("small", "middle"),
        {"main": (nette,), "parts": (woof,), "levels": _pairs(("bird",)), "easy": (nette,)},
        overrides={"experts.num_experts": "20", "outer.iterations": "2000", "schedule.iterations": "1000"},
    )


def _paper() -> Scale:
    all_six = tuple(_single(name, f"imagenet:{name}") for name in PUBLISHED)
    lossless = tuple(_single(name, f"imagenet:{name}") for name in ("imagemeow", "imageyellow"))
    return Scale(
        "paper",
        {"small": 1, "middle": 10, "large": 50, "huge": 200},
        ("small", "middle", "large"),
        {
            "main": all_six,
            "parts": all_six,
            "levels": _pairs(tuple(dict.fromkeys(one.category for one in comp_dd().parts))),
            "easy": lossless,
        },
        seeds=(0, 1, 2, 3, 4),
    )


SCALES = {"cpu": _cpu, "gpu": _gpu, "paper": _paper}


def scale_of(name: str) -> Scale:
    """The scale of that name.

    Raises:
        UsageError: when there is none.
    """
    require(name in SCALES, "--scale", name, f"one of {', '.join(SCALES)}")
    return SCALES[name]()


def overrides_of(words: Mapping[str, str]) -> dict[str, str]:
    """Settings for all cells.

    Raises:
        UsageError: for what a reproduction runs over itself.
    """
    overrides = parse_overrides(f"{key}={value}" for key, value in words.items())
    refuse_own_keys(overrides, OWN_KEYS, "a reproduction")
    return overrides


def spots(item: Item, scale: Scale, seeds: Sequence[int], overrides: Mapping[str, str] = {}) -> list[Spot]:
    """The grid of an item, seed by seed.

    Args:
        item: which.
        scale: how large.
        seeds: of the distillations.
        overrides: settings for all cells, as typed.

    Raises:
        UsageError: when the scale has no such places, or settings cannot be used, or are what the item's rows set.
    """
    _refuse_of_rows(item, overrides)
    if item.places not in scale.places:
        refuse_levels([item.name])
    found: list[Spot] = []
    sizes = {row.label: scale.sizes_of_row(item, row) for row in item.rows}
    for seed in seeds:
        for group in scale.places[item.places]:
            for place in group:
                for ipc in scale.all_sizes_of(item):
                    for row in item.rows:
                        found += _row(item, scale, place, ipc, row, seed, overrides) if ipc in sizes[row.label] else ()
    return found


def refuse_levels(names: Sequence[str]) -> NoReturn:
    """Items on images of different levels, where there are none.

    Raises:
        UsageError: always.
    """
    runs = "runs" if len(names) == 1 else "run"
    raise UsageError(f"--data: {', '.join(names)} {runs} over images of different levels, which the scale has; leave --data out")


def _refuse_of_rows(item: Item, overrides: Mapping[str, str]) -> None:
    """Rows are called by what they set: under another value their labels would lie."""
    set_by_rows = sorted({key for row in item.rows for key in row.overrides})
    for key in set_by_rows:
        said = f"accepted by {item.name}, whose rows set {', '.join(set_by_rows)} themselves; other keys are"
        require(key not in overrides, key, overrides.get(key), said)


def _row(item: Item, scale: Scale, place: Part, ipc: int, row: Row, seed: int, overrides: Mapping[str, str]) -> Iterator[Spot]:
    """A row's cell, and its control's."""
    recipe, own = _entrant(item.places in scale.base, scale.base.get(item.places, ""), place, row.method, ipc)
    keys = {**scale.overrides, **own, **row.overrides, "ipc": str(ipc), **overrides}
    made = _made(recipe, tuple(keys.items()))
    yield Spot(row.label, ipc, place, seed, _cell(recipe, keys, made, place, seed))
    if made.method == "edf" and has_parts(made) and not made.match.match_norm:
        keys = {**keys, "match.match_norm": "true"}
        matched = replace(made, match=replace(made.match, match_norm=True))
        yield Spot(control_of(row.label), ipc, place, seed, _cell(recipe, keys, matched, place, seed), row.label)


def _cell(recipe: str, keys: Mapping[str, str], made: DistillSettings, place: Part, seed: int) -> Cell:
    """The cell under the name that all items know it by."""
    matched = made.match.match_norm
    method = control_of(str(made.method)) if matched else made.method
    facts = {"method": method, "ipc": made.ipc, "seed": seed, "subset": place.name}
    found = Cell("of-a-grid", recipe, {**keys, "seed": str(seed)}, replace(made, seed=seed), facts)
    mark = fingerprint(found.changed.changed(NONE))[:10]
    called = f"{file_name(place.name)}-{file_name(str(made.method))}{'+matched' * matched}"
    return replace(found, name=f"{called}-ipc{made.ipc}-seed{seed}-{mark}")


@cache
def _made(recipe: str, keys: tuple[tuple[str, str], ...]) -> DistillSettings:
    """The settings of a recipe under these, of any seed."""
    return load_recipe(recipe, dict(keys))


@cache
def _entrant(based: bool, base: str, place: Part, method: str, ipc: int) -> tuple[str, Mapping[str, str]]:
    """The recipe of a method on a source, and what replaces its own settings.

    Raises:
        UsageError: when there is none.
    """
    found = _named(base if based else None, place, method, ipc)
    return found.recipe, found.overrides


def _named(base: str | None, place: Part, method: str, ipc: int) -> Entrant:
    name = place.source.removeprefix("imagenet:")
    if base is None and name.startswith("comp-dd/"):
        return published_recipe(place, method, ipc)
    if base is None and name != place.source:
        own = {int(one.rpartition("ipc")[2]): one for one in recipe_names() if one.startswith(f"{name}/ConvNetD5/edf-ipc")}
        base = own[nearest(own, ipc)]
    return method_recipe(method, place.source, ipc, base)
