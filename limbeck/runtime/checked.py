"""Settings that are checked wherever they are made: type, names and range, said once, on the field.

    syn_steps: Count = 40                                          a whole number, at least 1
    drop_ratio: Annotated[float, within("[0, 1)")] = 0.0           a number, which is kept as a float, in that interval
    size: Annotated[int | None, Rule("even", lambda n: …)] = None  whatever else holds of one value, in words and as a test
    criterion: Named[Literal["loss", "none"]] = "loss"             one of these names, `package.module:Name`, or an object

True is no number, nan is in no range, lists become tuples, NumPy's numbers Python's, paths text. Whatever is wrong ends in a
`UsageError` of one line: "match.drop_ratio: 1.5 is not in [0, 1)". What several fields say together is checked by `check_together`.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from limbeck.runtime.errors import UsageError
from limbeck.runtime.plugins import FORM, is_foreign

T = TypeVar("T")
MANY: dict[Any, str] = {str: "names", int: "whole numbers", float: "numbers", tuple[str, float]: "names with numbers"}
MANY[tuple[float, ...]] = "lists of numbers"
_UNFIT = object()


@dataclass(frozen=True)
class Rule:
    """What holds of a value beyond its type.

    Args:
        words: what is accepted, such as "at least 1".
        holds: whether a value of that type is.
    """

    words: str
    holds: Callable[[Any], bool]


def at_least(least: float, more: str = "") -> Rule:
    """Numbers from `least` on; `more` is said behind that."""
    return Rule(f"at least {least}{more}", lambda value: value >= least)


def within(interval: str, before: str = "") -> Rule:
    """Numbers in an interval, such as "[0, 1)"; `before` is said in front of that."""
    left, low, high, right = re.fullmatch(r"([\[(])(.+), (.+)([\])])", interval).groups()  # type: ignore[union-attr]
    least, most = float(low), float(high)

    def holds(value: float) -> bool:
        return (least < value or (left == "[" and least == value)) and (value < most or (right == "]" and value == most))

    return Rule(f"{before}in {interval}", holds)


NUMBER = Rule("a number", lambda value: not math.isnan(value))
SEEDS = range(-(2**63), 2**64)  # what files and generators take
OF_SEEDS = "from −2⁶³ to 2⁶⁴ − 1"
Count = Annotated[int, at_least(1)]
Seed = Annotated[int, Rule(f"a whole number {OF_SEEDS}", lambda value: value in SEEDS)]
Share = Annotated[float, within("[0, 1)")]
Positive = Annotated[float, Rule("above 0 and finite", lambda value: 0 < value < math.inf)]
NotNegative = Annotated[float, Rule("at least 0 and finite", lambda value: 0 <= value < math.inf)]
FolderPath = Annotated[str, Rule("the path of a folder", lambda path: path != "")]


class _AlsoObjects:
    """Marks what `Named` is."""


# A key that names an object: one of its names, or `package.module:Name`, or the object itself, which Python alone can give.
Named = Annotated[T | Any, _AlsoObjects]


class Chosen(float):
    """A number that nobody gave: what was chosen instead. It may be chosen anew where the rest changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """The base of settings: a frozen data class whose fields are checked when it is made, also by `dataclasses.replace`.

    Fields that are left out of comparisons are no settings.
    """

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        owner: Any = type(self)
        kinds = kinds_of(owner)
        for name, value in self.items():
            object.__setattr__(self, name, checked(self.key(name), kinds[name], value))
        self.check_together()

    def items(self) -> Iterator[tuple[str, Any]]:
        """The settings with their names."""
        return ((field.name, getattr(self, field.name)) for field in fields(self) if field.compare)

    @classmethod
    def key(cls, name: str) -> str:
        """What a user calls the field."""
        return f"{cls.prefix}{name}"

    def check_together(self) -> None:
        """Raise `UsageError` where fields that are each right do not go together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Checked):
    """Settings that are given as options of a command."""

    @classmethod
    def key(cls, name: str) -> str:
        return f"--{name.replace('_', '-')}"


def check_fields(made: Any) -> None:
    """The same check for a frozen data class that is no setting: its fields are what they are declared to be."""
    owner: Any = type(made)
    for name, kind in kinds_of(owner).items():
        object.__setattr__(made, name, checked(name, kind, getattr(made, name)))


@cache
def kinds_of(owner: type) -> dict[str, Any]:
    """The settings of a class by name, with what is declared of them."""
    hints = get_type_hints(owner, include_extras=True)
    return {field.name: hints[field.name] for field in fields(owner) if field.compare}


def checked(key: str, kind: Any, value: Any) -> Any:
    """`value` as `kind`.

    Raises:
        UsageError: when it is not of that type, or out of range.
    """
    found, broken = _fitted(kind, value)
    if found is _UNFIT or broken:
        raise UsageError(f"{key}: {shown(value)} is not {broken or words(kind)}")
    return found


def typed(key: str, kind: Any, value: Any, given: Any, origin: str = "") -> Any:
    """`value` as the type of `kind`, in range or not; an error says what was `given`, and where (`origin`).

    Raises:
        UsageError: when it is not of that type.
    """
    found, broken = _fitted(kind, value)
    if found is _UNFIT:
        raise UsageError(f"{key}: {'null' if given is None else shown(given)} is not {broken or words(kind)}{origin}")
    return found


def is_data(value: Any) -> bool:
    """Whether a value is such as files hold, and no object nor a collection of objects."""
    if type(value) not in (list, tuple, set, dict):  # such as a dictionary of data sets
        return isinstance(value, (NoneType, Real, str, bytes))
    parts = value.values() if isinstance(value, dict) else value
    return all(isinstance(part, (NoneType, Real, str, bytes, list, tuple, set, dict)) for part in parts)


def shown(value: Any) -> str:
    """A value in an error message: in one line, which is not long."""
    text = repr(list(value) if isinstance(value, tuple) else value).replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:59]}…"


def words(kind: Any) -> str:
    """What a type accepts."""
    text = " or ".join(_word(option) for option, _ in options_of(kind))
    if named_by(kind):
        return "a name, or in Python the object itself" if text == "text" else f"{text}, or package.module:Name"
    return text


def text_kinds(kind: Any) -> list[Any]:
    """The types that text for `kind` may be read as; a name is a text."""
    return [str if named_by(kind) else option for option, _ in options_of(kind)]


def named_by(kind: Any) -> bool:
    """Whether `kind` is a key that names an object."""
    return _AlsoObjects in _marks(kind)[1]


def options_of(kind: Any) -> Iterator[tuple[Any, list[Rule]]]:
    """The types of a union, each with the rules that are its own."""
    bare, marks = _marks(kind)
    if get_origin(bare) in (Union, UnionType):
        for option in get_args(bare):
            if option is not Any:
                yield from options_of(option)
    else:
        yield bare, [mark for mark in marks if isinstance(mark, Rule)]


def _marks(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return (kind.__origin__, kind.__metadata__) if get_origin(kind) is Annotated else (kind, ())


def _fitted(kind: Any, value: Any) -> tuple[Any, str]:
    """The value as one of the types, or `_UNFIT`, and in words what is accepted where that is not the types alone."""
    bare, marks = _marks(kind)
    options, rules = list(options_of(kind)), [mark for mark in marks if isinstance(mark, Rule)]
    if named_by(kind):
        if not isinstance(value, (str, os.PathLike)):
            return (_UNFIT if is_data(value) else value), ""
        if isinstance(value, str) and is_foreign(value) and (rules or words(bare) != "text"):
            return (value, "") if FORM.fullmatch(value) else (_UNFIT, "of the form package.module:Name")
    fitting = [(found, own) for option, own in options if (found := _as(option, value)) is not _UNFIT]
    if not fitting:
        lone = isinstance(value, str) and unwritable(value) and any(option is str for option, _ in options)
        return _UNFIT, "UTF-8 text, which the files of a run hold" if lone else ""
    found, own = next(((one, own) for one, own in fitting if not _broken(own, one)), fitting[0])
    if text := _broken(own, found):
        names = [_word(option) for option, _ in options if get_origin(option) is Literal]
        return found, " or ".join([*names, text]) + (", or null" if (NoneType, []) in options and "null" not in text else "")
    return found, "" if len(options) == 1 and not named_by(kind) else _broken(rules, found)


def _broken(rules: list[Rule], value: Any) -> str:
    """What the first of the rules that the value breaks would accept."""
    rules = [*rules, NUMBER] if isinstance(value, float) else rules
    return next((rule.words for rule in rules if not rule.holds(value)), "")


def _as(kind: Any, value: Any) -> Any:
    """`value` as one type that is no union, or `_UNFIT`."""
    if kind is int:
        return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else _UNFIT
    if kind is float:
        return _number(value)
    if kind is str:
        text = os.fspath(value) if isinstance(value, os.PathLike) else value
        return text if isinstance(text, str) and not unwritable(text) else _UNFIT
    if get_origin(kind) is Literal:
        return next((known for known in get_args(kind) if type(known) is type(value) and known == value), _UNFIT)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value)
    return value if isinstance(value, kind) else _UNFIT


def _number(value: Any) -> Any:
    if not isinstance(value, Real) or isinstance(value, bool):
        return _UNFIT
    try:
        return value if isinstance(value, Chosen) else float(value)
    except OverflowError:
        return _UNFIT


def _tuple(parts: tuple[Any, ...], value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or (parts[-1] is not Ellipsis and len(value) != len(parts)):
        return _UNFIT
    kinds = parts if parts[-1] is not Ellipsis else (parts[0],) * len(value)
    found = [_fitted(kind, part) for kind, part in zip(kinds, value, strict=True)]
    return _UNFIT if any(part is _UNFIT or broken for part, broken in found) else tuple(part for part, _ in found)


def unwritable(text: str) -> bool:
    """Whether text cannot be written as UTF-8, as the files of a run are."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ("one of " if len(get_args(kind)) > 1 else "") + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        parts = " or ".join(MANY[option] for option, _ in options_of(first))
        return f"a list of {parts}" if others == [Ellipsis] else f"a list of {1 + len(others)} {parts}"
    if is_dataclass(kind):
        return f"a {kind.__name__}"  # type: ignore[union-attr]
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}[kind]
