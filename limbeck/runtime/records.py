"""Results as frozen data classes that go to JSON and back."""

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from limbeck.runtime.fingerprint import plain


class Record:
    """What a data class of results derives from: its fields are the keys of a JSON object.

    `LEFT_OUT` names the fields that are no keys of the object while they are None or empty; `KEYS` has those whose keys are others.
    """

    __slots__ = ()
    LEFT_OUT: ClassVar[tuple[str, ...]] = ()
    KEYS: ClassVar[Mapping[str, str]] = {}

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        values = {one.name: plain(getattr(self, one.name)) for one in fields(self)}  # type: ignore[arg-type]
        return {self.KEYS.get(name, name): value for name, value in values.items() if not self._is_left_out(name, value)}

    def _is_left_out(self, name: str, value: Any) -> bool:
        return name in self.LEFT_OUT and value in (None, "", [], {})

    def __json__(self) -> Any:
        """For `plain`."""
        return self.to_dict()

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Self:
        """The result of a JSON object; keys that are no fields are left aside.

        Raises:
            TypeError: when a key that cannot be missing is.
        """
        hints, keys = get_type_hints(cls), {one.name: cls.KEYS.get(one.name, one.name) for one in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: _typed(hints[name], held[key]) for name, key in keys.items() if key in held})


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
