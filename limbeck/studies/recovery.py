"""Accuracies and recovery ratios over levels of difficulty, and whether the ratio falls from level to level.

    a_s   accuracy of one method on one subset at distillation seed s        f   that of the full data of the subset
    r_s   = a_s / f, the recovery ratio
    cell  ā ± t_{0.975, n−1} · std(a) / √n over the n distillation seeds; the same of r
    step  r of a level − r of the next harder one of the same category: the paired t-test where at least two seeds are shared,
          else Welch's test
    order p = max over its steps, all of which must hold (R. L. Berger, "Multiparameter hypothesis testing and acceptance
          sampling", 1982), 1 where they point both ways; adjusted by Holm for the number of orders in a table

At p ≤ 0.05 an order `holds` or, downwards, is `reversed`; else it is `undecided`. f is measured once for each subset, by several
networks: its error is common to all seeds and in no interval.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from limbeck.evaluation.statistics import compare, compare_unpaired, holm, seeds_needed, summarise
from limbeck.studies.compare import LEVEL, Record

Cells = Mapping[str, Mapping[int, Record]]  # records by subset and seed


def tabulate(levels: Sequence[str], records: Sequence[Record]) -> list[dict[str, Any]]:
    """A table for every number of images per class.

    Args:
        levels: from the easiest.
        records: of finished cells, with the facts `subset`, `category`, `level`, `method`, `ipc` and `seed`.

    Returns:
        Of each table `ipc`; `columns` (of a subset: `subset`, `category`, `level`, and `full` and `random`, {mean, std, n} over the
        networks trained on the full data and means over random real images, None where unknown); `rows` (of a method: `method` and,
        by subset, `cells` with `seeds`, `accuracy` and `recovery_ratio`, summaries over distillation seeds); `verdicts`, see
        `verdicts`. Columns, rows and categories are in the order of the records, levels in their own.
    """
    tables = []
    for ipc in sorted({record["facts"]["ipc"] for record in records}):
        held: dict[str, dict[str, dict[int, Record]]] = {}
        places: dict[str, tuple[str, str]] = {}
        for record in records:
            facts = record["facts"]
            if facts["ipc"] == ipc:
                held.setdefault(facts["method"], {}).setdefault(facts["subset"], {})[facts["seed"]] = record
                places[facts["subset"]] = (facts["category"], facts["level"])
        categories = list(dict.fromkeys(category for category, _ in places.values()))
        order = sorted(places, key=lambda name: (categories.index(places[name][0]), levels.index(places[name][1])))
        columns = [_column(name, *places[name], held) for name in order]
        rows = [
            {"method": method, "cells": {name: _cell(cells[name]) for name in order if name in cells}}
            for method, cells in held.items()
        ]
        tables.append({"ipc": ipc, "columns": columns, "rows": rows, "verdicts": verdicts(columns, rows)})
    return tables


def verdicts(columns: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whether the recovery ratio falls from level to level: one for every category with at least two levels, and every method.

    Returns:
        Of each `category`, `method`, `levels`, `means` by level, `p`, `p_adjusted`, `verdict`, and `steps`: of two neighbouring
        levels `a` (the easier) and `b`, `paired`, `n` (seeds, of both where they are not paired), `mean`, `std`, `ci95`, `p`,
        `p_exact` and `seeds_needed`, at the level that each of so many orders has by itself in the worst case.
    """
    found, ratios_of = [], []
    for category in dict.fromkeys(column["category"] for column in columns):
        for row in rows:
            names = {one["level"]: one["subset"] for one in columns if one["category"] == category}
            cells = {level: row["cells"][name] for level, name in names.items() if name in row["cells"]}
            ratios = {level: _by_seed(cell) for level, cell in cells.items() if cell["recovery_ratio"] is not None}
            if len(ratios) >= 2:
                means = {level: cells[level]["recovery_ratio"]["mean"] for level in ratios}
                found.append({"category": category, "method": row["method"], "levels": list(ratios), "means": means})
                ratios_of.append(ratios)
    tests = sum(all(_testable(a, b) for a, b in pairwise(ratios.values())) for ratios in ratios_of)
    for one, ratios in zip(found, ratios_of, strict=True):
        one["steps"] = [_step(a, b, ratios[a], ratios[b], LEVEL / max(tests, 1)) for a, b in pairwise(ratios)]
        one.update(p=_order(one["steps"]), p_adjusted=None, verdict="undecided")
    tested = [one for one in found if one["p"] is not None]
    for one, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["p_adjusted"] = p
        if p <= LEVEL:
            one["verdict"] = "holds" if one["steps"][0]["mean"] > 0 else "reversed"
    return found


def _order(steps: Sequence[Mapping[str, Any]]) -> float | None:
    """p of the claim that all steps point the way they do; None where one of them cannot be tested."""
    # Differences that are all equal, as coarse accuracies can be by chance, leave the t-test no doubt; the sign flips keep theirs.
    ps = [step["p_exact"] if step["std"] == 0 else step["p"] for step in steps]
    if None in ps:
        return None
    one_way = all(step["mean"] > 0 for step in steps) or all(step["mean"] < 0 for step in steps)
    return float(max(ps)) if one_way else 1.0


def _column(name: str, category: str, level: str, held: Mapping[str, Cells]) -> dict[str, Any]:
    """A subset with what stands beside the methods, from the first record of every seed."""
    first: dict[int, Record] = {}
    for cells in held.values():
        for seed, record in cells.get(name, {}).items():
            first.setdefault(seed, record)
    full = [found for record in first.values() if (found := record["accuracy"].get("full"))]
    random = [found["mean"] for record in first.values() if (found := record["accuracy"].get("random"))]
    return {
        "subset": name,
        "category": category,
        "level": level,
        "full": {key: full[0].get(key) for key in ("mean", "std", "n")} if full else None,
        "random": summarise(random).to_dict() if random else None,
    }


def _cell(cells: Mapping[int, Record]) -> dict[str, Any]:
    """Accuracy and recovery ratio over the seeds; no ratio where the full data's accuracy is not known for every one."""
    seeds = sorted(cells)
    own = [float(cells[seed]["accuracy"]["distilled"]["mean"]) for seed in seeds]
    full = [(cells[seed]["accuracy"].get("full") or {}).get("mean") for seed in seeds]
    ratios = [a / f for a, f in zip(own, full, strict=True) if f]
    whole = summarise(ratios).to_dict() if len(ratios) == len(own) else None
    return {"seeds": seeds, "accuracy": summarise(own).to_dict(), "recovery_ratio": whole}


def _by_seed(cell: Mapping[str, Any]) -> dict[int, float]:
    return dict(zip(cell["seeds"], cell["recovery_ratio"]["values"], strict=True))


def _testable(easier: Mapping[int, float], harder: Mapping[int, float]) -> bool:
    return len(easier.keys() & harder.keys()) >= 2 or min(len(easier), len(harder)) >= 2


def _step(a: str, b: str, easier: Mapping[int, float], harder: Mapping[int, float], level: float) -> dict[str, Any]:
    """The difference of two levels, and how many seeds would decide at `level`; `std` and `p_exact` are None without pairs."""
    shared = sorted(easier.keys() & harder.keys())
    step: dict[str, Any] = {"a": a, "b": b, "paired": True}
    kept = ("n", "mean", "std", "ci95", "p", "p_exact")
    if len(shared) < 2 and min(len(easier), len(harder)) >= 2:
        found = compare_unpaired(list(easier.values()), list(harder.values())).to_dict()
        # Without any spread it knows no doubt, which two accuracies are no reason for.
        p = None if found["degrees_of_freedom"] is None else found["p"]
        return {**step, "paired": False, **{key: found.get(key) for key in kept}, "p": p, "seeds_needed": None}
    if not shared:
        means = [sum(one.values()) / len(one) for one in (easier, harder)]
        nothing: dict[str, Any] = dict.fromkeys(kept)
        return {
            **step,
            "paired": False,
            **nothing,
            "n": [len(easier), len(harder)],
            "mean": means[0] - means[1],
            "seeds_needed": None,
        }
    one, other = ([values[seed] for seed in shared] for values in (easier, harder))
    found = compare(one, other).to_dict()
    needed = seeds_needed(one, other, level=level) if found["std"] else None
    return {**step, **{key: found[key] for key in kept}, "seeds_needed": needed}
