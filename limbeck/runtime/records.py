"""Results as frozen data classes that go to JSON and back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from typing_extensions import Self

from limbeck.runtime.errors import Misfit
from limbeck.runtime.fingerprint import plain

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # as `encodable` writes them


class Record:
    """What a data class of results derives from: its fields are the keys of a JSON object.

    `LEFT_OUT` names the fields that are no keys of the object while they are None or empty, `CALLED` those whose keys have another
    name, `AMONG` those, results or mappings, whose own keys lie among the rest.
    """

    __slots__ = ()
    LEFT_OUT: ClassVar[tuple[str, ...]] = ()
    CALLED: ClassVar[Mapping[str, str]] = {}
    AMONG: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        found: dict[str, Any] = {}
        for name in (one.name for one in fields(self)):  # type: ignore[arg-type]
            value = plain(getattr(self, name))
            if name in self.AMONG:
                found |= value
            elif not self._is_left_out(name, value):
                found[self.CALLED.get(name, name)] = value
        return found

    def _is_left_out(self, name: str, value: Any) -> bool:
        return name in self.LEFT_OUT and value in (None, "", [], {})

    def __json__(self) -> Any:
        """For `plain`."""
        return self.to_dict()

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Self:
        """The result of a JSON object; keys that are no fields are left aside.

        Raises:
            TypeError: when it is no object, lacks a key that cannot be missing, or has something else under one than it should.
        """
        if not isinstance(held, Mapping):
            raise Misfit(f"{held!r} is no object")
        hints = get_type_hints(cls)
        keys = {one.name: cls.CALLED.get(one.name, one.name) for one in fields(cls) if one.name not in cls.AMONG}  # type: ignore[arg-type]
        rest = {key: value for key, value in held.items() if key not in keys.values()}
        if missing := [keys[one.name] for one in fields(cls) if one.name in keys and _needed(one) and keys[one.name] not in held]:  # type: ignore[arg-type]
            raise Misfit(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
        given = {name: held[key] for name, key in keys.items() if key in held} | dict.fromkeys(cls.AMONG, rest)
        return cls(**{name: _field(name, hints[name], value) for name, value in given.items()})


def _needed(one: Field[Any]) -> bool:
    """Whether there is nothing that the field is by default."""
    return one.init and one.default is MISSING and one.default_factory is MISSING


def _field(name: str, hint: Any, value: Any) -> Any:
    try:
        return _typed(hint, value)
    except TypeError as error:
        raise Misfit(f"{name}: {error}") from None


def _typed(hint: Any, value: Any) -> Any:
    """What JSON holds as what the field is: objects as results, lists as tuples, words for numbers that JSON has none for.

    Raises:
        TypeError: when it is something else.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_dict(value)
    if origin in (Union, UnionType):
        return _one_of(arguments, value)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(map(_typed, kinds, value))
    elif origin in (list, Sequence) and isinstance(value, (list, tuple)):
        return [_typed(arguments[0], item) for item in value]
    elif origin in (Mapping, dict) and isinstance(value, Mapping):
        return {arguments[0](key): _typed(arguments[1], item) for key, item in value.items()}
    elif origin is Literal and any(type(one) is type(value) and one == value for one in arguments):
        return value
    elif hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        if not isinstance(value, str):
            return value
        if value in WORDS:
            return WORDS[value]
    elif hint in (int, str, bool, NoneType):
        if type(value) is hint:
            return value
    elif origin is None:
        return value  # what is no JSON is not checked here
    raise Misfit(f"{value!r:.60} is not {_word(hint)}")


def _one_of(kinds: tuple[Any, ...], value: Any) -> Any:
    """The value as the first of some types that it can be; null as nothing, though some results can be made of it, too."""
    if value is None and NoneType in kinds:
        return None
    reasons = []
    for kind in kinds:
        try:
            return _typed(kind, value)
        except (TypeError, ValueError, LookupError) as error:
            reasons.append(error)
    raise reasons[0] if len(kinds) == 2 and NoneType in kinds else Misfit(f"{value!r:.60} is of none of its types")


def _word(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}
    if hint in words:
        return words[hint]
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return "an object" if get_origin(hint) in (Mapping, dict) else "a list of the right length"
