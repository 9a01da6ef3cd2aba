"""What is compared: recipes with what replaces their settings, each with every combination of values, and the cells of all."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.methods.registry import EDFS, name_of
from limbeck.recipes import load_recipe, parse_overrides, recipe_names, remarks, typed_overrides
from limbeck.runs.settings import DistillSettings
from limbeck.runs.unread import idle_keys
from limbeck.runtime.errors import UsageError, require

if TYPE_CHECKING:
    from limbeck.studies.cells import Cell

MATCHED, MARK = " (norm matched)", "+matched"  # without a comma, so that --pairs can name it; in the names of files
OWN_KEYS = {"ipc": "--ipc", "seed": "--seeds", "output": "--output"}


@dataclass(frozen=True)
class Entrant:
    """What is compared: a name for it, the recipe, what replaces the recipe's own settings, and whether its code may run."""

    name: str
    recipe: str
    ipc: int
    overrides: Mapping[str, str]
    trust: bool = False

    def settings(self, overrides: Mapping[str, str]) -> DistillSettings:
        """Those of the recipe under these."""
        return load_recipe(self.recipe, overrides, trust=self.trust)


def grid(
    made: Sequence[Entrant],
    seeds: Sequence[int],
    overrides: Mapping[str, str],
    *,
    matched: bool | None = False,
    prefix: str = "",
    facts: Mapping[str, Any] | None = None,
) -> "list[Cell]":
    """The cells of a comparison, seed by seed, so that what is finished first can be compared.

    Args:
        made: what is compared.
        seeds: of the distillations.
        overrides: settings for all, as typed.
        matched: whether methods that change the gradient are run with its norm as if they did not, too; None: EDF is, where DATM,
            which is EDF without its parts, is compared at the same number of images.
        prefix: of the cells' names.
        facts: to be found beside every result, under `method`, `ipc` and `seed`.

    Raises:
        UsageError: for settings that cannot be, and where two are called alike.
    """
    beside_datm: set[int] = set()
    if matched is None:
        beside_datm = {one.ipc for one in made if one.settings({**one.overrides, **overrides}).method == "datm"}
    found = []
    for seed in seeds:
        for entrant in made:
            own = {**entrant.overrides, "ipc": str(entrant.ipc), "seed": str(seed), **overrides}
            settings = entrant.settings(own)
            ways = [("", "", own, settings)]
            wanted = matched if matched is not None else settings.method in EDFS and entrant.ipc in beside_datm
            if wanted and has_parts(settings) and not settings.match.match_norm:
                own = {**own, "match.match_norm": "true"}
                ways.append((MARK, MATCHED, own, entrant.settings(own)))
            found += [(entrant, seed, *way) for way in ways]
    files = file_names((one.name for one in made), {entrant.name for entrant, _, mark, *_ in found if mark})

    from limbeck.studies.cells import Cell  # and torch with it, which nobody waits for to hear of a name that is none

    cells: dict[tuple[str, int, int], Cell] = {}
    for entrant, seed, mark, said, given, settings in found:
        method, file = f"{entrant.name}{said}", f"{prefix}{files[entrant.name]}{mark}"
        if (method, entrant.ipc, seed) in cells:
            raise UsageError(f"RECIPE: {method!r} is what another one is called with its norm matched; rename the file")
        known = {**(facts or {}), "method": method, "ipc": entrant.ipc, "seed": seed}
        name = cell_name(file, entrant.ipc, seed)
        cells[method, entrant.ipc, seed] = Cell(name, entrant.recipe, given, settings, known, entrant.trust)
    return list(cells.values())


def said_of(cells: "Iterable[Cell]") -> list[str]:
    """What a user should hear about keys that they gave and that cells of recipes do not read, each sentence once."""
    given: dict[Any, tuple[str, Mapping[str, str], DistillSettings]] = {}
    for cell in cells:
        if cell.recipe is not None:  # for every seed the same
            keys = tuple((key, value) for key, value in cell.overrides.items() if key != "seed")
            given.setdefault((cell.recipe, keys), (cell.recipe, cell.overrides, cell.settings))
    return list(dict.fromkeys(said for one in given.values() for said in remarks(*one)))


def unread_of(cells: "Iterable[Cell]", given: Sequence[str]) -> list[str]:
    """The same of keys that were given for all cells of a grid which sets others itself, of each method one sentence."""
    idle: dict[str, list[str]] = {}
    for cell in cells:
        method, unread = name_of(cell.settings.method), idle_keys(cell.settings, given)
        idle[method] = [key for key in idle.get(method, unread) if key in unread]
    return [f"warning: {method} does not read {', '.join(keys)}" for method, keys in idle.items() if keys]


def file_name(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).lstrip(".")


def file_names(names: Iterable[str], marked: Iterable[str] = ()) -> dict[str, str]:
    """Different names as parts of files', numbered where they differ in letters only that files cannot have.

    Args:
        names: in order.
        marked: those that there are with `MARK` behind them, too.
    """
    files = {name: file_name(name) for name in names}
    used = [*files.values(), *(f"{files[name]}{MARK}" for name in marked)]
    if len({*used, ""}) > len(used):
        return files
    return {name: f"{number}-{file}".rstrip("-") for number, (name, file) in enumerate(files.items(), start=1)}


def cell_name(name: str, ipc: int, seed: int) -> str:
    """What a cell is called."""
    return f"{name}-ipc{ipc}-seed{seed}"


def varied(made: Sequence[Entrant], vary: Sequence[str], overrides: Mapping[str, str]) -> list[Entrant]:
    """Each of them with every combination of values.

    Args:
        made: what is compared.
        vary: of the form `key=value,…`, as typed; the first values first.
        overrides: settings for all.

    Raises:
        UsageError: for a key that is set otherwise too, or a value given twice.
    """
    found = list(made)
    for number, word in enumerate(vary):
        ((key, text),) = parse_overrides([word]).items()
        refuse_own_keys({key: text}, {**OWN_KEYS, "method": "--methods"}, "a comparison")
        others = {*overrides, *parse_overrides(vary[:number])}
        require(key not in others, "--vary", word, f"of a key that is set once; {key} is set elsewhere too")
        values = values_of(text)
        meant = [typed_overrides({key: value})[key] for value in values]
        good = bool(values) and all(one not in meant[:place] for place, one in enumerate(meant))
        require(good, "--vary", word, "of the form key=value,… with different values")
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


def recipe_entrants(recipes: Sequence[str], ipcs: Sequence[int] | None, source: str | None) -> list[Entrant]:
    """Recipes as they are, or with other numbers of images per class, or images."""
    data = {} if source is None else {"data.source": source}
    made = []
    for recipe, name in recipe_titles(recipes).items():
        made += [Entrant(name, recipe, ipc, data) for ipc in ipcs or [load_recipe(recipe, imports=False).ipc]]
    # `scenes/edf-ipc1` and `scenes/edf-ipc3` are one method at two sizes, unless both are asked for at the same size.
    short = [(re.sub(r"-ipc\d+$", "", one.name), one.ipc) for one in made]
    if len(set(short)) < len(short):
        return made
    return [replace(one, name=name) for (name, _), one in zip(short, made, strict=True)]


def recipe_titles(recipes: Sequence[str]) -> dict[str, str]:
    """What recipes are called: by their names; files by theirs, with as many of their folders as tell different ones apart.

    Raises:
        UsageError: when one is given twice.
    """
    is_file = {one: Path(one).suffix in (".yaml", ".yml") for one in recipes}
    places = [Path(one).resolve() if is_file[one] else one for one in recipes]
    if twice := [one for one, place in zip(recipes, places, strict=True) if places.count(place) > 1]:
        raise UsageError(f"RECIPE: {twice[0]!r} is given twice")
    parts = {one: Path(one).with_suffix("").parts if is_file[one] else (one,) for one in recipes}
    taken, alike, titles = dict.fromkeys(parts, 1), [*parts], dict[str, str]()
    for _ in range(max(map(len, parts.values()), default=0)):
        titles |= {one: Path(*parts[one][-taken[one] :]).as_posix() for one in alike}
        alike = [one for one, title in titles.items() if list(titles.values()).count(title) > 1]
        taken |= {one: taken[one] + 1 for one in alike}
    return titles | {one: one for one in alike}  # a file that is called as a recipe


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
    data = {} if source is None else {"data.source": source}
    if base is not None:
        try:
            own = {} if load_recipe(base, imports=False).method == method else {"method": method}
        except UsageError as error:
            raise UsageError(re.sub("^recipe:", "--base:", str(error))) from error
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


def has_parts(settings: DistillSettings) -> bool:
    """Whether the gradient differs from the plain one by a criterion or by weights, so that its norm can be matched."""
    return (settings.match.criterion != "none" and settings.match.drop_ratio > 0) or settings.enhance.weighting != "none"
