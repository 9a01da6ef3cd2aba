"""In which settings runs differ: those that are alike in all but what they are named by stand in one column."""

from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.report.setup import text
from limbeck.report.sortable import Facts
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.fingerprint import fingerprint
from limbeck.studies.cells import PLACES

NAMED_BY = ("method", "ipc", "seed", *PLACES)


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

    Args:
        settings: of each; where keys are missing they have their defaults.
        names: of each.
        facts: of each.
    """
    groups: dict[str, list[int]] = {}
    named_by = (*NAMED_BY, *(["data.source"] if all("subset" in row for row in facts) else []))
    shown = [one.changed(without=named_by) for one in settings]
    for number, one in enumerate(shown):
        groups.setdefault(fingerprint(one.keys), []).append(number)
    firsts = [shown[members[0]] for members in groups.values()]
    different = {key: None for one in firsts[1:] for key, *_ in one.differences(firsts[0])}
    defaults = FlatSettings.of(DistillSettings()).keys
    rows = tuple((key, tuple(text(one.keys.get(key, defaults.get(key))) for one in firsts)) for key in different)
    variants = []
    for members in groups.values():
        own = [facts[k] for k in members]
        variants.append(Variant(_called([names[k] for k in members], own), len(members), tuple(own)))
    return Differences(tuple(variants), rows)


def _called(names: Sequence[str], facts: Sequence[Facts]) -> str:
    """What runs with the same settings are called: one by its name, several by what is the same in them."""
    if len(names) == 1:
        return names[0]
    methods, sizes = (list(dict.fromkeys(row[key] for row in facts if key in row)) for key in ("method", "ipc"))
    ipc = f", IPC {' and '.join(sizes)}" if sizes else ""
    return f"{' and '.join(methods) or names[0]}{ipc} ({len(names)} runs)"
