"""Methods side by side: the same data, seeds and evaluation for all, one table for every number of images per class.

    a_s   accuracy at distillation seed s, itself the mean over the evaluation's seeds
    row   ā ± t_{0.975, n−1} · std(a) / √n over the n distillation seeds
    d_s   a_s − b_s to the first method, from the seeds that both have: interval, p of the paired t-test, adjusted by Holm for the
          number of differences in the table; where it does not decide, the number of seeds that would, at the level divided by that

Networks evaluated for one distilled set share that set, so that their spread says nothing about another run of the method: only
distillation seeds count as repetitions.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from limbeck.evaluation.statistics import compare, holm, seeds_needed, summarise
from limbeck.methods.registry import method_of
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import encodable
from limbeck.studies.cells import Cell, flatten

LEVEL = 0.05
MATCHED = " (norm matched)"  # without a comma, so that --pairs can name it
# What must agree, or figures would answer different questions; and what should, or they answer one question more.
SAME, LIKE = ("data.", "eval."), ("network", "augment.", "experts.", "engine.precision")
FREE = ("data.root", "data.workers", "eval.networks", "eval.every", "eval.every_seeds")

Record = Mapping[str, Any]
Pair = tuple[str, str]


def has_parts(settings: DistillSettings) -> bool:
    """Whether the gradient differs from the plain one by a criterion or by weights, so that its norm can be matched."""
    return (settings.match.criterion != "none" and settings.match.drop_ratio > 0) or settings.enhance.weighting != "none"


def check_alike(cells: Sequence[Cell]) -> list[str]:
    """What a reader must know of how the methods' settings differ, a sentence each.

    Raises:
        UsageError: when two methods would be measured on other data or under another evaluation.
    """
    notes: dict[str, None] = {}
    for _, group in _grouped(cells):
        first, base = group[0], flatten(encodable(group[0].settings))
        for cell in group[1:]:
            own = flatten(encodable(cell.settings))
            differing = [key for key in base if base[key] != own[key] and key not in FREE]
            for key in differing:
                a, b = (f"{key} {row[key]!r} in {one.facts['method']}" for row, one in ((own, cell), (base, first)))
                if key.startswith(SAME):
                    raise UsageError(f"{a} is not {b}; {key}=… sets it for all")
                # Only some methods read experts.
                read = not key.startswith("experts.") or all(method_of(one.settings.method).experts for one in (cell, first))
                if key.startswith(LIKE) and read:
                    notes[f"{a}, {b}"] = None
    return list(notes)


def tabulate(records: Sequence[Record], pairs: Sequence[Pair] = ()) -> list[dict[str, Any]]:
    """The tables: one for every number of images per class and every network that all cells of it were evaluated with.

    Args:
        records: of finished cells, with the facts `method`, `ipc` and `seed`; methods in the order of their first cells.
        pairs: methods (a, b) of whose difference a − b a verdict is asked for by itself, named before anything was seen.

    Returns:
        Of each table `ipc`, `network`, `rows` (of a method: `accuracy`, a summary over distillation seeds; `seeds`; `recipe`;
        `recovery_ratio`; `seconds` and `peak_memory`, see `cost`; `comparison` and `skipped_share`, means), `reference` (summaries
        of `random` real images and of the `full` data, from the first method's cells) and `differences` (of every other method to
        the first: `statistics.compare`, with `p_adjusted`, `verdict` and `seeds_needed`) and `pairs`, the same of those asked for,
        adjusted for their own number only.
    """
    tables = []
    for ipc in sorted({record["facts"]["ipc"] for record in records}):
        held: dict[str, dict[int, Record]] = {}
        for record in records:
            if record["facts"]["ipc"] == ipc:
                held.setdefault(record["facts"]["method"], {})[record["facts"]["seed"]] = record
        for network in _networks([record for cells in held.values() for record in cells.values()]):
            tables.append(_table(ipc, network, held, pairs))
    return tables


def cost(records: Sequence[Record]) -> dict[str, Any]:
    """Mean seconds and the peak memory of a method's cells.

    Returns:
        `seconds`: `distil` (everything between the experts and the evaluation), `distil_cpu` (the same of the process's CPU time,
        which other work on the machine does not lengthen; None where it was not noted), `evaluate`, and `experts`, that of the
        cell which trained them or at least longest waited for them. `peak_memory`: bytes until the end of distilling, and
        whether that is only a `bound`, because in every cell training the experts had taken more before.
    """
    spent = [record.get("seconds") or {} for record in records]
    busy = [noted for record in records if (noted := record.get("cpu_seconds"))]
    peaks = []
    for record in records:
        stages = {name: value for name, value in (record.get("peak_memory") or {}).items() if name != "evaluate"}
        if stages:
            most = max(stages.values())
            peaks.append((most, most <= stages.get("experts", 0)))
    own = [peak for peak, bound in peaks if not bound]
    memory = {"bytes": max(own), "bound": False} if own else {"bytes": min(peaks)[0], "bound": True} if peaks else None
    seconds = {
        "distil": _mean([_distilling(one) for one in spent]),
        "distil_cpu": _mean([_distilling(one) for one in busy]),
        "evaluate": _mean([one.get("evaluate", 0.0) for one in spent]),
        "experts": max((one.get("experts", 0.0) for one in spent), default=0.0),
    }
    return {"seconds": seconds, "peak_memory": memory}


def markdown(results: Mapping[str, Any]) -> str:
    """The tables as Markdown: `tables`, `notes`, `failed` and `left` of what `limbeck compare` stores."""
    lines = [f"# {results['title']}", ""]
    for table in results["tables"]:
        lines += [*_markdown_table(table), ""]
        lines += [f"- {pair_text(one)}" for one in table["pairs"]] + ([""] if table["pairs"] else [])
    lines += [*(f"- {note}" for note in results["notes"]), *([""] if results["notes"] else [])]
    lines += [f"- failed: {name}: {message}" for name, message in results["failed"].items()]
    if results["left"]:
        lines += [f"cells to be run yet ({len(results['left'])}): {', '.join(results['left'])}"]
    return "\n".join(lines).rstrip() + "\n"


def difference_text(difference: Mapping[str, Any]) -> str:
    """Points with their interval, such as +1.2 [−0.3, 2.7]."""
    ends = difference["ci95"]
    interval = "" if ends is None else f" [{_signed(ends[0])}, {_signed(ends[1])}]"
    return f"{_signed(difference['mean'])}{interval}"


def pair_text(difference: Mapping[str, Any]) -> str:
    """A difference in a line: what, how much, by how many seeds, the verdict."""
    p = "" if difference["p_adjusted"] is None else f", p {difference['p_adjusted']:.3g} (Holm)"
    seeds = f"{difference['n']} seed{'' if difference['n'] == 1 else 's'}"
    text = f"{difference['a']} − {difference['b']}: {difference_text(difference)} points, {seeds}{p}"
    return f"{text}: {verdict_text(difference)}"


def verdict_text(difference: Mapping[str, Any]) -> str:
    """The verdict, or how many seeds it would take."""
    if difference["verdict"] != "undecided":
        return str(difference["verdict"])
    needed = difference["seeds_needed"]
    return "undecided" + (f"; {needed} seeds would decide" if needed else "")


def accuracy_text(summary: Mapping[str, Any]) -> str:
    """Mean ± half the 95 % interval, in %."""
    if summary["ci95"] is None:
        return f"{100 * summary['mean']:.1f}"
    return f"{100 * summary['mean']:.1f} ± {50 * (summary['ci95'][1] - summary['ci95'][0]):.1f}"


def memory_text(memory: Mapping[str, Any] | None) -> str:
    """MiB; after ≤ where experts were trained in the same process."""
    return "–" if memory is None else f"{'≤ ' if memory['bound'] else ''}{memory['bytes'] / 2**20:.0f} MiB"


def time_text(row: Mapping[str, Any]) -> str:
    """Seconds from the experts to the evaluation, and how many of the CPU."""
    spent = row["seconds"]
    return f"{spent['distil']:.0f} s" + ("" if spent["distil_cpu"] is None else f" ({spent['distil_cpu']:.0f} s of CPU)")


def gradient_text(row: Mapping[str, Any]) -> str:
    """Cosine and norm beside the plain gradient."""
    found = row["comparison"]
    return f"{found['cosine']:.3f}, × {found['norm_ratio']:.2f}" if {"cosine", "norm_ratio"} <= found.keys() else "–"


def skipped_text(row: Mapping[str, Any]) -> str:
    """Share of the iterations that changed nothing."""
    return "–" if row["skipped_share"] is None else f"{100 * row['skipped_share']:.0f} %"


def _distilling(seconds: Mapping[str, float]) -> float:
    return sum(value for name, value in seconds.items() if name not in ("experts", "evaluate"))


def _table(ipc: int, network: str, held: Mapping[str, Mapping[int, Record]], pairs: Sequence[Pair]) -> dict[str, Any]:
    first = next(iter(held))
    rows = [_row(method, network, cells) for method, cells in held.items()]
    differences = _differences([(method, first) for method in held if method != first], network, held)
    asked = _differences([pair for pair in pairs if held.keys() >= set(pair)], network, held)
    beside = [_accuracy(record, network) for record in held[first].values()]
    reference = {}
    for kind in ("random", "full"):
        if values := [accuracy[kind]["mean"] for accuracy in beside if kind in accuracy]:
            # The networks of the full data are the same for all seeds: one measurement, however often it is read.
            reference[kind] = summarise(values if kind == "random" else list(dict.fromkeys(values))).to_dict()
    return {"ipc": ipc, "network": network, "rows": rows, "reference": reference, "differences": differences, "pairs": asked}


def _differences(pairs: Sequence[Pair], network: str, held: Mapping[str, Mapping[int, Record]]) -> list[dict[str, Any]]:
    """Of every pair that has seeds in common, adjusted for their number, with verdicts."""
    tests = sum(len(_shared(*pair, held)) > 1 for pair in pairs)
    # At the level that each of so many tests has by itself, in the worst case.
    level = LEVEL / max(tests, 1)
    found = [_difference(*pair, network, held, level) for pair in pairs if _shared(*pair, held)]
    # One seed has no p: it neither counts among the tests nor is decided. Differences that are all equal, as coarse accuracies can
    # be by chance, leave the t-test no doubt; the sign flips keep theirs.
    tested = [one for one in found if one["p"] is not None]
    for one, p in zip(tested, holm([one["p"] if one["std"] else one["p_exact"] for one in tested]), strict=True):
        one["p_adjusted"] = p
        if p <= LEVEL:
            one["verdict"] = "better" if one["mean"] > 0 else "worse"
            one["seeds_needed"] = None
    return found


def _row(method: str, network: str, cells: Mapping[int, Record]) -> dict[str, Any]:
    records = [cells[seed] for seed in sorted(cells)]
    shares = [record["skipped_share"] for record in records if record.get("skipped_share") is not None]
    accuracies = [_accuracy(record, network)["distilled"]["mean"] for record in records]
    full = [_accuracy(record, network).get("full", {}).get("mean") for record in records]
    ratios = [own / whole for own, whole in zip(accuracies, full, strict=True) if whole]
    return {
        "method": method,
        "recipe": records[0].get("recipe"),
        "accuracy": summarise(accuracies).to_dict(),
        "seeds": sorted(cells),
        "recovery_ratio": _mean(ratios),
        **cost(records),
        "comparison": _means([record.get("comparison") or {} for record in records]),
        "skipped_share": _mean(shares),
    }


def _shared(method: str, first: str, held: Mapping[str, Mapping[int, Record]]) -> list[int]:
    """The seeds that both have."""
    return sorted(held[method].keys() & held[first].keys())


def _difference(method: str, first: str, network: str, held: Mapping[str, Mapping[int, Record]], level: float) -> dict[str, Any]:
    """The method against the first on the seeds that both have, and how many would decide at that level."""
    seeds = _shared(method, first, held)
    a, b = ([_accuracy(held[name][seed], network)["distilled"]["mean"] for seed in seeds] for name in (method, first))
    found = compare(a, b).to_dict()
    # Without any spread the t-test needs no more seeds, but it is not the one that decides then.
    found["seeds_needed"] = seeds_needed(a, b, level=level) if found["std"] else None
    return {"a": method, "b": first, "seeds": seeds, "p_adjusted": None, "verdict": "undecided", **found}


def _networks(records: Sequence[Record]) -> list[str]:
    """The networks that every cell was evaluated with, the one most cells distilled for first."""
    own = [record.get("network", "") for record in records]
    named = [{record.get("network", ""), *(record.get("networks") or {})} for record in records]
    order = sorted(dict.fromkeys(own), key=own.count, reverse=True)
    order += [name for record in records for name in (record.get("networks") or {}) if name not in order]
    shared = [name for name in dict.fromkeys(order) if all(name in names for names in named)]
    # Methods that were evaluated with no network in common stand side by side all the same: each with its own.
    return shared or [""]


def _accuracy(record: Record, network: str) -> Mapping[str, Any]:
    """The accuracies under that network; under the cell's own where it is the empty name."""
    if network in ("", record.get("network", "")):
        own: Mapping[str, Any] = record["accuracy"]
        return own
    other: Mapping[str, Any] = record["networks"][network]["accuracy"]
    return other


def _grouped(cells: Sequence[Cell]) -> Iterable[tuple[tuple[int, int], list[Cell]]]:
    groups: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.facts["ipc"], cell.facts["seed"]), []).append(cell)
    return groups.items()


def _markdown_table(table: Mapping[str, Any]) -> list[str]:
    network = f", {table['network']}" if table["network"] else ""
    plural = "image" if table["ipc"] == 1 else "images"
    to_first = {one["a"]: one for one in table["differences"]}
    lines = [
        f"## {table['ipc']} {plural} per class{network}",
        "",
        "| method | accuracy, % | seeds | to the first, points | p (Holm) | | cosine, norm | skipped | distil | memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        one = to_first.get(row["method"])
        p = "–" if one is None or one["p_adjusted"] is None else f"{one['p_adjusted']:.3g}"
        against = ("–", "–", "") if one is None else (difference_text(one), p, verdict_text(one))
        cost_ = (time_text(row), memory_text(row["peak_memory"]))
        columns = (row["method"], accuracy_text(row["accuracy"]), str(row["accuracy"]["n"]), *against)
        lines.append(f"| {' | '.join((*columns, gradient_text(row), skipped_text(row), *cost_))} |")
    for kind, summary in table["reference"].items():
        title = {"random": "random real images", "full": "full data"}[kind]
        lines.append(f"| {title} | {accuracy_text(summary)} | {summary['n']} | | | | | | | |")
    return lines


def _signed(share: float) -> str:
    """Points with their sign; −0.0 is 0.0."""
    points = round(100 * share, 1) + 0.0
    return f"{points:+.1f}".replace("-", "−") if points else "0.0"


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The means of `cosine` and `norm_ratio` over the rows that have them."""
    values = {name: [row[name] for row in rows if name in row] for name in ("cosine", "norm_ratio")}
    return {name: math.fsum(found) / len(found) for name, found in values.items() if found}
