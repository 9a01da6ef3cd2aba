"""As much of the library `datasets` as the package touches, for environments that lack it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass
class Image:
    """The feature of a column of images."""

    decode: bool = True


@dataclass
class ClassLabel:
    """The feature of a column of classes."""

    names: list[str]


@dataclass
class Value:
    """The feature of any other column."""

    dtype: str


class Part:
    """An iterable dataset: rows of values, with images as {"bytes", "path"}."""

    def __init__(self, rows: list[dict[str, Any]], features: Mapping[str, Any] | None, begin: int = 0) -> None:
        self.rows, self.features, self.begin = rows, features, begin
        self.asked: list[int] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for i in range(self.begin, len(self.rows)):
            self.asked.append(i)
            if isinstance(self.rows[i], Exception):
                raise self.rows[i]
            row = dict(self.rows[i])
            for name, feature in (self.features or {}).items():
                if isinstance(feature, Image) and feature.decode:
                    raise AssertionError(f"{name} would be decoded in the main process")
            yield row

    def skip(self, count: int) -> "Part":
        other = Part(self.rows, self.features, self.begin + count)
        other.asked = self.asked
        return other

    def cast_column(self, name: str, feature: Any) -> "Part":
        assert self.features is not None
        other = Part(self.rows, {**self.features, name: feature}, self.begin)
        other.asked = self.asked
        return other


@dataclass
class Library:
    """What `import datasets` gives."""

    parts: dict[str, Part]
    hash: str = "commit"
    error: Exception | None = None
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    Image: Any = Image

    def load_dataset_builder(self, *names: Any, **keys: Any) -> Any:
        self.calls.append((*names, *keys.items()))
        if self.error:
            raise self.error
        splits = {name: SimpleNamespace(num_examples=len(part.rows)) for name, part in self.parts.items()}
        info = SimpleNamespace(splits=splits)
        return SimpleNamespace(hash=self.hash, info=info, as_streaming_dataset=lambda: self.parts)

    def load_from_disk(self, path: str) -> Any:
        self.calls.append(("load_from_disk", path))
        return self.parts
