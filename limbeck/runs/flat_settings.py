"""Settings by dotted keys, in JSON's types: what files hold of them, and in which keys two runs differ."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

from typing_extensions import Self

from limbeck.data.constants import spelled
from limbeck.runs.settings import DistillSettings, flat
from limbeck.runtime.fingerprint import encodable
from limbeck.runtime.records import Record


@dataclass(frozen=True)
class FlatSettings(Record):
    """Settings by dotted keys, in JSON's types; a key that is missing has its default."""

    keys: Mapping[str, Any] = field(default_factory=dict)

    AMONG: ClassVar = ("keys",)

    def __post_init__(self) -> None:
        if isinstance(said := self.keys.get("data.normalise"), bool):  # as files of before have it
            object.__setattr__(self, "keys", {**self.keys, "data.normalise": spelled(said)})

    @classmethod
    def of(cls, settings: DistillSettings) -> Self:
        """All of them."""
        return cls(flat(encodable(settings)))

    def changed(self, without: Collection[str] = ()) -> Self:
        """Those that are not the defaults, apart from some."""
        defaults = _defaults().keys
        return type(self)({key: value for key, value in self.keys.items() if value != defaults.get(key) and key not in without})

    def differences(self, other: "FlatSettings") -> Iterator[tuple[str, Any, Any]]:
        """The keys, in order, whose values are not the same, with the two values."""
        for key in [*_defaults().keys, *sorted((self.keys.keys() | other.keys.keys()) - _defaults().keys.keys())]:
            a, b = (one.keys.get(key, _defaults().keys.get(key)) for one in (self, other))
            if a != b:
                yield key, a, b


@cache
def _defaults() -> FlatSettings:
    return FlatSettings.of(DistillSettings())
