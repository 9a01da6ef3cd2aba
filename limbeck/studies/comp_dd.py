"""Benchmarks of subsets by difficulty: Comp-DD's, which are published, and the built-in scenes'.

Comp-DD (Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios", 2025, arXiv:2410.17193):
of each of eight categories of ImageNet the ten classes of lowest and the ten of highest complexity. Settings of EDF are published
for three of them; the others take those of the category whose published complexities are nearest at the same level.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from limbeck.data.registry import COMP_DD, subsets
from limbeck.data.scenes import LEVELS as SCENES
from limbeck.runtime.errors import UsageError

PREFIX = "comp-dd/"
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
class Part:
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
    """

    name: str
    levels: tuple[str, ...]
    parts: tuple[Part, ...]

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
    return Benchmark("Comp-DD", levels, tuple(sorted(parts, key=lambda one: (order.index(one.category), levels.index(one.level)))))


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
