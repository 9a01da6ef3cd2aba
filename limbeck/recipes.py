"""Recipes: YAML files that hold only differences from the defaults, and typed overrides, made into `DistillSettings`.

Everything passes through one narrow way: nested mappings are flattened to dotted keys (`match.drop_ratio`), each key is looked up
in the tree of the settings classes, text is read as that key's type (jsonargparse), and the classes check types and ranges.
Whatever is wrong ends in a `UsageError` of one line.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Union

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from limbeck.methods.method import Method
from limbeck.methods.registry import method_of, name_of
from limbeck.runs.settings import DEFAULT, DistillSettings, Keys, flat, settle, typed_keys, value_of
from limbeck.runs.settings import key_types as key_types
from limbeck.runs.strangers import code_in
from limbeck.runs.unread import idle_keys
from limbeck.runtime.bounded import read_text
from limbeck.runtime.checked import text_kinds
from limbeck.runtime.errors import UsageError, one_line
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.urls import is_url
from limbeck.runtime.yaml_text import MOST_YAML, yaml_of

FOLDER = Path(__file__).with_suffix("")
# What a method is measured on and by; teachers, because they go with the network.
MEASURED = ("data.", "network", "augment.", "eval.", "ipc", "seed", "output", "rded.teacher", "sre2l.teacher")
RATES = (
    "lr_img",
    "img_momentum",
    "img_optimiser",
    "img_betas",
    "img_weight_decay",
    "lr_label",
    "label_momentum",
    "lr_lr",
    "lr_momentum",
    "max_match_loss",
)
OF_THE_LOSS = tuple(f"outer.{name}" for name in RATES)


def recipe_names(folder: Path = FOLDER) -> list[str]:
    """The names of all recipes: their paths under `folder` without `.yaml`."""
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def recipe_path(recipe: str) -> Path:
    """The file of the recipe of that name, or the user's own file when `recipe` ends in `.yaml` or `.yml`.

    Raises:
        UsageError: when there is no such recipe or file.
    """
    names = recipe_names()
    if recipe in names:
        return FOLDER / f"{recipe}.yaml"
    if is_url(recipe):
        from limbeck.runtime.located import here

        recipe = here("recipe", recipe)
    path = Path(recipe).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"recipe: {recipe!r} is not a file that exists")
        return path
    near = [name for name in names if Path(name).name == recipe] or get_close_matches(recipe, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "`limbeck recipes` lists them"
    raise UsageError(f"recipe: {recipe!r} is neither the name of a recipe nor a file that ends in .yaml; {hint}")


def recipe_text(recipe: str) -> str:
    """The text of the recipe's file.

    Raises:
        UsageError: when there is no such recipe or its file cannot be read.
    """
    path = recipe_path(recipe)
    try:
        return read_text(path, MOST_YAML)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else reason
        raise UsageError(f"recipe {recipe} cannot be read: {reason}") from error


def describe(recipe: str) -> str:
    """What the recipe says about itself: the first line of its header comment; empty when it has none."""
    first = recipe_text(recipe).partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def load_recipe(
    recipe: str, overrides: Mapping[str, str] | None = None, *, trust: bool = False, imports: bool = True
) -> DistillSettings:
    """The settings of a recipe, given by name or by the path of a YAML file, under the overrides.

    Where these name another method than the recipe's:

        stays        data, network, augmentation, evaluation, images per class, seed; sizes of experts, matching and loop
        gives way    what either method stands for (its preset), and with another loss whatever is in units of the loss

    What gives way, and what the recipe does not say, is the method's own: as its recipe beside this one has it, where there is one
    (`scenes/dm-ipc1` beside `scenes`), because that is tuned, or else as its preset does.

    Args:
        recipe: such as `scenes`, or `mine.yaml`.
        overrides: dotted keys with the values as typed, such as {"match.drop_ratio": "0.25"}.
        trust: whether code that a file names may run: a recipe that somebody else wrote shall not choose what runs here.
        imports: False only looks: no code is run, nor refused, and no benchmark is read, so that the settings are not whole where
            a recipe names such.

    Raises:
        UsageError: for an unknown recipe or key, an unreadable file, a value of the wrong type or out of range, and for code that
            a file names and nobody has typed.
    """
    wanted, held = typed_overrides(overrides or {}), _said_in(recipe)
    if imports and not trust:
        # Of another method, too, what the recipe's own stands for would have to be known.
        untyped = {key: value for key, value in held.items() if key not in wanted or (key == "method" and wanted[key] != value)}
        _refuse_code(recipe, untyped)
    old = held.get("method", DEFAULT)
    if imports and (new := wanted.get("method", old)) != old:
        held = _switched(held, old, new, _beside(recipe, new, wanted.get("ipc", held.get("ipc", 1))))
    return settings_from_plain(held, overrides, origin=f"recipe {recipe}", imports=imports)


def _refuse_code(recipe: str, held: Mapping[str, Any]) -> None:
    for key, name in code_in(held).items():
        way = f"{key}={name} typed beside it, or --trust, runs it (in Python `trust` of load_recipe)"
        raise UsageError(f"{key}: {name!r} is code that the recipe {recipe} names, which may be somebody else's; {way}")


def remarks(recipe: str, overrides: Mapping[str, str], settings: DistillSettings) -> list[str]:
    """What a user should hear about keys that they gave, and that change nothing in the settings which `load_recipe` made of them.

    Recipes that come with Limbeck give nothing in this sense: several methods share theirs.
    """
    own = Keys() if recipe in recipe_names() else _said_in(recipe)
    others = [key for key in own if key not in overrides and not key.startswith("data.")]
    replaced = [key for key in others if own[key] != value_of(settings, key)]
    idle = [key for key in idle_keys(settings, own | overrides) if key not in replaced]
    said = [*_stays(recipe, overrides, settings)]
    if replaced:
        said.append(f"warning: {settings.method} has its own {', '.join(replaced)}, not the recipe's; key=value sets them")
    if idle:
        said.append(f"warning: {settings.method} does not read {', '.join(idle)}")
    return said


def _stays(recipe: str, overrides: Mapping[str, str], settings: DistillSettings) -> Iterator[str]:
    """Of the augmentation, which stays as the recipe's method has it, what the other method has otherwise by itself."""
    old = name_of(_said_in(recipe).get("method", DEFAULT))
    new = name_of(settings.method)
    for key, own in method_of(settings.method).preset.items() if new != old else ():
        if key.startswith("augment.") and key not in overrides and (held := value_of(settings, key)) != own:
            yield f"note: {key}={held} stays, by which {old} is distilled and evaluated here; {new}'s own is {own}"


def _beside(recipe: str, method: str, ipc: int) -> Keys:
    """What the method's own recipe in the folder of this one says, that of the nearest number of images per class; or nothing."""
    names = recipe_names()
    folder = recipe if "/" not in recipe else recipe.rpartition("/")[0]
    pattern = re.compile(rf"{re.escape(folder)}/{re.escape(method)}-ipc(\d+)")
    found = {int(one[1]): name for name in names if (one := pattern.fullmatch(name))}
    if recipe not in names or not found:
        return Keys()
    return _said_in(found[min(found, key=lambda size: (abs(size - ipc), size))])  # of two as near the smaller


def _switched(held: Mapping[str, Any], old: str, new: str, beside: Mapping[str, Any]) -> Keys:
    """What a recipe for `old` holds with the method `new`, of which a recipe `beside` may say more, to lie over its preset."""
    was, now = method_of(old), method_of(new)
    gone = {"method", *was.preset, *now.preset, *(() if _share_a_loss(was, now) else OF_THE_LOSS)}
    if now.kind != "objective":  # which makes pixels
        gone |= {key for key in held if key.startswith("parametrisation.")}
    # A preset may say how its method is evaluated: here everything is as it was.
    evaluation = [key for key in {*was.preset, *now.preset} if _is_measured(key)]
    measured = {key: was.preset.get(key, value_of(DistillSettings(), key)) for key in evaluation}
    lent = {key: value for key, value in beside.items() if not _is_measured(key)}
    kept = {key: value for key, value in held.items() if key not in gone or _is_measured(key)}
    if was.preset.get("schedule.kind") == "uniform" and "schedule.max_start_epoch" in kept:
        # A range that was whole from the start stays so, unless the method's own recipe widens it.
        lent.setdefault("schedule.first_max_start_epoch", kept["schedule.max_start_epoch"])
    return Keys({**measured, **lent, **kept, "method": new})


def _share_a_loss(was: Method, now: Method) -> bool:
    """Whether step sizes of one are such of the other; what has no loop reads none."""
    return now.kind != "objective" or (was.steps and now.steps)


def _is_measured(key: str) -> bool:
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in MEASURED)


def _said_in(recipe: str) -> Keys:
    """What the recipe's file says, by dotted keys, as the types of the keys."""
    return _given(_read_yaml(recipe), f"recipe {recipe}")


def _given(values: Any, origin: str) -> Keys:
    if not isinstance(values, Mapping):
        raise UsageError(f"{origin} {_kind_of(values)}, not keys with values")
    return typed_keys(flat(values), f" (in {origin})", _read)


def settings_from_plain(
    values: Any, overrides: Mapping[str, str] | None = None, *, origin: str = "settings", imports: bool = True
) -> DistillSettings:
    """The settings that were written as JSON or YAML, under the overrides: the inverse of `runtime.fingerprint.encodable`.

    Args:
        values: a mapping, nested or with dotted keys; absent keys take the defaults.
        overrides: dotted keys with the values as typed.
        origin: where the values come from, said where an error is.
        imports: as for `runs.settings.settle`.

    Raises:
        UsageError: when `values` is no mapping; for an unknown key, a value of the wrong type or out of range.
    """
    return settle(_given(values, origin) | typed_overrides(overrides or {}), imports=imports)


def settings_yaml(settings: DistillSettings) -> str:
    """All settings as the text of a recipe."""
    return str(yaml.safe_dump(plain(settings), sort_keys=False, allow_unicode=True))


def parse_overrides(words: Iterable[str]) -> dict[str, str]:
    """`["ipc=10", …]` as {"ipc": "10", …}; of a key given twice the last counts.

    Raises:
        UsageError: when a word has no `=` or no key before it.
    """
    overrides = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"{word!r} is not of the form key=value, such as ipc=10")
        overrides[key] = value
    return overrides


def typed_overrides(overrides: Mapping[str, str]) -> Keys:
    """What was typed, as the types of its keys.

    Raises:
        UsageError: for an unknown key or a value of the wrong type.
    """
    return typed_keys(overrides, read=_read)


def _read(kind: Any, value: Any) -> Any:
    """Text as one of the types of `kind`; as it is where it is none of them, and what is no text."""
    if not isinstance(value, str) or (options := text_kinds(kind)) == [str]:
        return value
    if float in options and re.fullmatch(r"[-+]?\.?inf(inity)?", value.strip().lower()):
        return -math.inf if value.strip().startswith("-") else math.inf
    try:
        return _parser(tuple(options), repr(options)).parse_object({"value": value}, defaults=False).value
    except ArgumentError:
        return value


@cache
def _parser(options: tuple[Any, ...], in_order: str) -> ArgumentParser:
    """Plain `argparse` abbreviates and exits; this parser knows one key and is asked for one value of some types.

    Unions that are equal may have their types in another order, in which they are tried: `in_order` tells them apart.
    """
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_argument("--value", type=Union[options])  # noqa: UP007
    return parser


def _read_yaml(recipe: str) -> Any:
    """What the recipe's file holds; an empty file holds no keys."""
    text = recipe_text(recipe)
    try:
        values = yaml_of(text)
    except ValueError as error:
        said = str(error)
        raise UsageError(f"recipe {recipe}{', ' if said.startswith('line ') else ': '}{said}") from error
    return {} if values is None else values


def _kind_of(value: Any) -> str:
    return "holds a list" if isinstance(value, list) else f"holds {value!r}"
