"""Results as frozen data classes that go to JSON and back."""

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from typing_extensions import Self

from limbeck.runtime.fingerprint import plain


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
            TypeError: when it is no object, or lacks a key that cannot be missing.
        """
        if not isinstance(held, Mapping):
            raise TypeError(f"{held!r} is no object")
        hints = get_type_hints(cls)
        keys = {one.name: cls.CALLED.get(one.name, one.name) for one in fields(cls) if one.name not in cls.AMONG}  # type: ignore[arg-type]
        rest = {key: value for key, value in held.items() if key not in keys.values()}
        given = {name: held[key] for name, key in keys.items() if key in held} | dict.fromkeys(cls.AMONG, rest)
        return cls(**{name: _typed(hints[name], value) for name, value in given.items()})


def _typed(hint: Any, value: Any) -> Any:
    """What JSON holds as what the field is: objects as results, lists as tuples."""
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_dict(value)
    if value is None:
        return None
    if origin in (Union, UnionType):
        listed = isinstance(value, (list, tuple))
        return _typed(next((one for one in arguments if (get_origin(one) is tuple) == listed), arguments[0]), value)
    if origin is tuple:
        return tuple(_typed(arguments[0], item) for item in value)
    if origin is Mapping:
        return {arguments[0](key): _typed(arguments[1], item) for key, item in value.items()}
    return value
