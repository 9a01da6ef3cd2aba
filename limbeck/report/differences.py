"""In which settings runs differ: those that are alike in all but what they are named by stand in one column."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from limbeck.methods.registry import known
from limbeck.recipes import settings_from_plain
from limbeck.report.setup import text
from limbeck.report.sortable import Facts
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.settings import DistillSettings
from limbeck.runs.unread import idle_keys
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import fingerprint
from limbeck.studies.cells import PLACES

NAMED_BY = ("method", "ipc", "seed", *PLACES)
SEEDS = ("seed", *PLACES)
UNREAD = "–"
LIMITS = {"Infinity": "∞", "-Infinity": "−∞"}  # as JSON has them


@dataclass(frozen=True)
class Variant:
    """Runs with the same settings: what to call them, their number, and their facts."""

    name: str
    count: int
    facts: tuple[Facts, ...]


@dataclass(frozen=True)
class Differences:
    """Settings that are not the same in all: the kinds of runs, and by key the value in each of them."""

    variants: tuple[Variant, ...] = ()
    rows: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def same(self) -> bool:
        """Whether there is one kind of settings alone."""
        return len(self.variants) == 1


def differences(settings: Sequence[FlatSettings], names: Sequence[str], facts: Sequence[Facts]) -> Differences:
    """Where the settings of runs differ, apart from method, images per class and seed, which the runs' table has.

    What the method of a run never reads is neither the same nor another.

    Args:
        settings: of each; where keys are missing they have their defaults.
        names: of each.
        facts: of each.
    """
    named_by = (*NAMED_BY, *(["data.source"] if all("subset" in row for row in facts) else []))
    alike: dict[str, list[int]] = {}
    for number, one in enumerate(settings):
        alike.setdefault(fingerprint(one.changed(without=SEEDS).keys), []).append(number)
    firsts = [settings[members[0]] for members in alike.values()]
    unread = [_unread(one) for one in firsts]
    keys = [key for key in _of_any(firsts) if key not in named_by]
    said = {
        key: [UNREAD if key in idle else _told(_value(one, key)) for one, idle in zip(firsts, unread, strict=True)] for key in keys
    }
    shown = {key: row for key, row in said.items() if len({*row} - {UNREAD}) > 1}
    groups: dict[tuple[str, ...], list[int]] = {}
    for column, members in zip(zip(*shown.values(), strict=True) if shown else [()] * len(alike), alike.values(), strict=True):
        groups.setdefault(column, []).extend(members)
    variants = []
    for members in map(sorted, groups.values()):
        own = [facts[k] for k in members]
        variants.append(Variant(_called([names[k] for k in members], own), len(members), tuple(own)))
    rows = tuple(zip(shown, zip(*groups, strict=True), strict=True)) if shown else ()
    return Differences(tuple(variants), rows)


def _of_any(settings: Sequence[FlatSettings]) -> Iterator[str]:
    """The keys in which any of them differs from the first, in the order of all keys."""
    different = {key for one in settings[1:] for key, *_ in one.differences(settings[0])}
    order = [*_defaults()]
    yield from sorted(different, key=lambda key: (order.index(key) if key in order else len(order), key))


def _told(value: Any) -> str:
    return LIMITS.get(value, value) if isinstance(value, str) else text(value)


def _value(one: FlatSettings, key: str) -> Any:
    return one.keys.get(key, _defaults().get(key))


@cache
def _defaults() -> Mapping[str, Any]:
    return FlatSettings.of(DistillSettings()).keys


def _unread(one: FlatSettings) -> frozenset[str]:
    """The keys that change nothing under these settings; none where they are not all known here."""
    whole = {**_defaults(), **one.keys}
    try:  # no code is run that settings name
        method = known(whole["method"])
        said = {*one.changed().keys, *(() if method is None else method.preset)}  # the others are what they are by themselves
        return frozenset(idle_keys(settings_from_plain({key: whole[key] for key in said}, imports=False), whole))
    except (UsageError, TypeError, ValueError, LookupError):
        return frozenset()


def _called(names: Sequence[str], facts: Sequence[Facts]) -> str:
    """What runs with the same settings are called: one by its name, several by what is the same in them."""
    if len(names) == 1:
        return names[0]
    methods, sizes = (list(dict.fromkeys(row[key] for row in facts if key in row)) for key in ("method", "ipc"))
    ipc = f", IPC {' and '.join(sizes)}" if sizes else ""
    return f"{' and '.join(methods) or names[0]}{ipc} ({len(names)} runs)"
