"""Sets whose networks have the same seeds, compared: each with each, or a single one with the random images beside it.

tests       pairs · networks; all together err with at most the level of the looks
verdict     of the first look with p ≤ level / (looks · tests), see `statistics.decide`
p (Holm)    adjusted for the tests, of p · looks (Bonferroni): looked at again and again, a p says so much less
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from limbeck.accuracy import Accuracies, Comparison
from limbeck.evaluation.results import SetResult
from limbeck.evaluation.statistics import Looks, compare, decide, deciding_p, differences, holm, seeds_needed

RANDOM = "random images"


def shared(looks: Looks, sets: int, networks: int) -> Looks:
    """The looks of each pair of sets under each network, which share the level."""
    return replace(looks, level=looks.level / (max(1, sets * (sets - 1) // 2) * networks))


def all_decided(found: Sequence[Accuracies], looks: Looks) -> bool:
    """Whether every pair is decided or has no looks left, of sets that were measured under one network."""
    return all(decide(differences(a, b), looks) is not None for a, b in combinations(_sides(found), 2))


def comparisons(names: Sequence[str], results: Sequence[SetResult], looks: Looks | None) -> tuple[Comparison, ...]:
    """Every pair of sets under every network; of a single set and random images where the looks were to tell these apart.

    Args:
        names: of the sets.
        results: of each.
        looks: as they were planned; None where a number of seeds was given, after which nobody judges.
    """
    if len(results) == 1 and looks is None:
        return ()
    networks, rows = list(results[0].by_network), list[Comparison]()
    planned = None if looks is None else shared(looks, len(results), len(networks))
    for network in networks:
        values = _sides([result.by_network[network].accuracy for result in results])
        for (a, of_a), (b, of_b) in combinations(zip([*names, RANDOM], values, strict=False), 2):
            verdict = None if planned is None else decide(differences(of_a, of_b), planned) or "undecided"
            found = replace(compare(of_a, of_b), a=a, b=b, network=network, verdict=verdict)
            # Without any spread the t-test needs no more seeds, but it is not the one that decides then.
            rows.append(replace(found, seeds_needed=seeds_needed(of_a, of_b) if found.std else None))
    times = 1 if looks is None else len(looks.at)
    adjusted = holm([min(1.0, times * deciding_p(one)) for one in rows])
    return tuple(replace(one, p_adjusted=p) for one, p in zip(rows, adjusted, strict=True))


def _sides(found: Sequence[Accuracies]) -> list[tuple[float, ...]]:
    """What is compared under a network: the accuracies of every set, of a single one those of random images besides."""
    sets = [one.distilled.values for one in found]
    return sets if len(sets) > 1 else [*sets, found[0].random.values]
