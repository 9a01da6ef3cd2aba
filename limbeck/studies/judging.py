"""Verdicts of a comparison: methods with each other, and with the best coreset beside them, over distillation seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from limbeck.accuracy import Accuracy, Comparison
from limbeck.evaluation.coresets import LEVEL
from limbeck.evaluation.statistics import compare, deciding_p, holm, over_seeds, seeds_needed
from limbeck.runtime.errors import require

if TYPE_CHECKING:
    from limbeck.studies.cells import CellRecord

Pair = tuple[str, str]
Held = Mapping[str, Mapping[int, "CellRecord"]]  # records by method and seed


def checked_pairs(pairs: Iterable[Pair], methods: Iterable[str]) -> list[Pair]:
    """The pairs that are asked for.

    Raises:
        UsageError: when one is no (A, B) of two different ones of the methods, or is given twice.
    """
    require(isinstance(pairs, Iterable), "pairs", pairs, "a list of pairs (A, B)")
    names, found = [*methods], list[Pair]()
    accepted = f"(A, B) with two different ones of {', '.join(names)}"
    for pair in pairs:
        two = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(name in names for name in pair)
        require(two and pair[0] != pair[1], "pairs", pair, accepted)
        require(tuple(pair) not in found, "pairs", pair, "a pair that is given once")
        found.append((pair[0], pair[1]))
    return found


def differences(pairs: Sequence[Pair], network: str, held: Held) -> tuple[Comparison, ...]:
    """a − b of every pair that shares a seed, with verdicts at a level that holds for all of them together."""
    shared = [(a, b, tuple(sorted(held[a].keys() & held[b].keys()))) for a, b in pairs]
    tests = sum(len(seeds) > 1 for _, _, seeds in shared)
    # The level that each of so many tests has by itself, in the worst case.
    level = LEVEL / max(tests, 1)
    return _adjusted([_difference(a, b, seeds, network, held, level) for a, b, seeds in shared if seeds])


def _adjusted(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The comparisons with p-values for their number, and judged."""
    # One seed has no p: it neither counts among the tests nor is decided.
    ps = [None if one.p is None else deciding_p(one) for one in found]
    adjusted = iter(holm([p for p in ps if p is not None]))
    return tuple(one if p is None else _judged(one, next(adjusted)) for one, p in zip(found, ps, strict=True))


def _difference(a: str, b: str, seeds: tuple[int, ...], network: str, held: Held, level: float) -> Comparison:
    """a − b on the seeds that both have, undecided, and how many would decide at that level."""
    one, other = ([held[name][seed].under(network).distilled.mean for seed in seeds] for name in (a, b))
    return _measured(a, b, seeds, one, other, level)


def _measured(a: str, b: str, seeds: tuple[int, ...], one: Sequence[float], other: Sequence[float], level: float) -> Comparison:
    found = compare(one, other)
    # Without any spread the t-test needs no more seeds, but it is not the one that decides then.
    needed = seeds_needed(one, other, level=level) if found.std else None
    return replace(found, a=a, b=b, seeds=seeds, verdict="undecided", seeds_needed=needed)


def _judged(found: Comparison, p: float) -> Comparison:
    if p > LEVEL:
        return replace(found, p_adjusted=p)
    return replace(found, p_adjusted=p, verdict="better" if found.mean > 0 else "worse", seeds_needed=None)


def coresets(network: str, cells: "Mapping[int, CellRecord]") -> dict[str, Accuracy]:
    """The accuracies of coresets over distillation seeds, of those that all cells of a method have."""
    found = [one for record in cells.values() if (one := record.coresets_under(network)) is not None]
    names = [name for name in found[0].rows if all(name in one.rows for one in found)] if found else []
    return {name: over_seeds([one.rows[name].accuracy for one in found]) for name in names}


def to_coresets(network: str, held: Held) -> tuple[Comparison, ...]:
    """a − c of every method to the best coreset beside it, with verdicts at a level that holds for all methods together."""
    asked = {
        method: {seed: one for seed in sorted(cells) if (one := cells[seed].coresets_under(network)) is not None}
        for method, cells in held.items()
    }
    level, found = LEVEL / max(sum(len(known) > 1 for known in asked.values()), 1), list[Comparison]()
    for method, known in asked.items():
        validation = {name: [one.rows[name].validation.mean for one in known.values()] for name in coresets(network, held[method])}
        sums = {name: total for name, values in validation.items() if math.isfinite(total := math.fsum(values))}
        if sums:
            best = max(sums, key=lambda name: sums[name])  # noqa: B023
            own = [held[method][seed].under(network).distilled.mean for seed in known]
            other = [one.rows[best].accuracy.mean for one in known.values()]
            found.append(_measured(method, f"coreset {best}", tuple(known), own, other, level))
    return _adjusted(found)
