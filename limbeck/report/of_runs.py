"""Several run folders and distilled sets on one page: figures, curves, images and settings side by side."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.accuracy import Accuracies, Accuracy
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.results import SetResult
from limbeck.evaluation.scores import told
from limbeck.report.collection import Collection, Verdict, brief, common, gathered, listed
from limbeck.report.contents import Run, read_run
from limbeck.report.differences import NAMED_BY, differences
from limbeck.report.lines import Chart, Line, chart, points_of
from limbeck.report.side_by_side import shelves
from limbeck.report.sortable import Column, Facts, Row, SortableTable, of_accuracy, of_number, of_share, of_whole, of_words
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.identity import NONE
from limbeck.runs.results import RunResult
from limbeck.runs.settings import flat
from limbeck.runtime.errors import reason
from limbeck.runtime.fingerprint import encodable, fingerprint
from limbeck.studies.cells import KEPT, CellRecord
from limbeck.studies.table import Section, images_text, tabulate

MOST_ROWS = 2000
IPC = "Images per class"
BEST = "Best on test (optimistic), %"
COMMON: Mapping[str, Callable[[str], str]] = {"ipc": lambda ipc: images_text(int(ipc)) if ipc.isdecimal() else ipc, "network": str}
UNEQUAL = "Runs of one method differ in their settings: they are no repetitions, and no method is compared with another."
NOT_COMPARED = "their accuracies answer different questions"


@dataclass(frozen=True)
class Entry:
    """A run or a set.

    Args:
        name: another for each.
        settings: as far as they are known.
        result: of the last evaluation.
        run: the folder's contents; None of a set alone.
        held: the set, where it is sound.
        notes: what could not be read.
    """

    name: str
    settings: Mapping[str, Any]
    result: SetResult | None
    run: Run | None
    held: DistilledSet | None
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> Facts:
        """That it is filtered by."""
        held = self.settings
        data = held.get("data")
        source = data.get("source") if isinstance(data, Mapping) else None
        named = {"source": Path(source).name if isinstance(source, str) else None, "network": held.get("network")}
        known = {key: held.get(key) for key in ("method", "ipc", "seed")} | named
        if known["ipc"] is None and self.held is not None:
            known["ipc"] = self.held.set.slots
        return {key: str(value) for key, value in known.items() if value is not None}

    @property
    def flat(self) -> FlatSettings:
        """The settings by dotted keys."""
        return FlatSettings(dict(flat(self.settings)))


def runs(paths: Sequence[Path]) -> Collection:
    """The page of run folders and distilled sets.

    Raises:
        UsageError: when one is neither.
    """
    return collect([entry(path, name) for path, name in zip(paths, names(paths), strict=True)])


def entry(path: Path, name: str) -> Entry:
    """What a run folder or a distilled set holds.

    Raises:
        UsageError: when it is neither, or a set that is not sound.
    """
    if DistilledSet.is_at(path):
        held = DistilledSet.load(path)
        later, settings = held.metadata.get("evaluations"), held.metadata.get("settings")
        said = held.metadata.get("evaluation") or (later[-1] if isinstance(later, list) and later else None)
        settings = dict(settings) if isinstance(settings, Mapping) else {}
        settings |= {"method": held.metadata["method"]} if held.metadata.get("method") else {}
        try:
            result = SetResult.from_dict(said) if isinstance(said, Mapping) else None
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            return Entry(name, settings, None, None, held, (f"its evaluation could not be read ({reason(error)})",))
        return Entry(name, settings, result, None, held)
    run = read_run(path, snapshots=False)
    result = None if run.result is None else run.result.evaluation
    return Entry(name, run.settings, result, run, run.distilled, tuple(run.notes))


def names(paths: Sequence[Path]) -> list[str]:
    """The names of folders; of one that another has too, and of `distilled`, with as much of what is above as tells it apart."""
    parts = [path.resolve().parts for path in paths]
    found = []
    for own in parts:
        alone = (d for d in range(1, len(own)) if own[-d] != "distilled" and sum(part[-d:] == own[-d:] for part in parts) == 1)
        found.append(os.sep.join(own[-next(alone, len(own)) :]).strip(os.sep))
    return found


def collect(entries: Sequence[Entry], title: str = "") -> Collection:
    """The page of those."""
    facts = [one.facts for one in entries]
    sets = [(one.name, one.facts, one.held) for one in entries if one.held is not None]
    settings = [(one.flat, one.name, one.facts) for one in entries if one.settings]
    return Collection(
        title=title or " · ".join(_distinct(facts, "method", str.upper) + _distinct(facts, "source")) or "Distilled sets",
        facts=(
            f"{len(entries)} {'runs' if any(one.run for one in entries) else 'distilled sets'}",
            *common((key, row.get(key) and form(row[key])) for key, form in COMMON.items() for row in facts),
        ),
        warnings=(*unlike(entries), *gathered(_doubts(entries))),
        verdicts=tuple(one for section in compared(entries) for one in differences_told(section)),
        tables=tuple(table for table in (figures(entries), networks(entries), classes(entries)) if table.rows),
        charts=tuple(curves(entries)),
        sets=shelves(sets),
        notes=(UNEQUAL,) if len({row.get("method") for row in facts}) > 1 and unequal(entries) else (),
        settings=differences(*map(list, zip(*settings, strict=True))) if len(settings) > 1 else differences([], [], []),
    )


def figures(entries: Sequence[Entry]) -> SortableTable:
    """A row for every run or set."""
    columns = (
        *(Column("Run", words=True), Column("Method", words=True), Column(IPC), Column("Seed")),
        *(Column("Images", words=True), Column("Network", words=True)),
        *(Column("Accuracy, %", drawn=True), Column(BEST), Column("Random real images, %"), Column("Initial images, %")),
        *(Column("Full data, %"), Column("Recovered, %"), Column("Best iteration"), Column("Iterations skipped, %")),
        *(Column("Time, s"), Column("Memory, MiB")),
    )
    rows = []
    for one in entries:
        facts, found = one.facts, one.result.accuracy if one.result else Accuracies()
        loop = one.run.result if one.run is not None and one.run.result is not None else RunResult(evaluation=SetResult())
        sums = sum(loop.seconds.values()) if loop.seconds else None
        peak = max(loop.peak_memory.values()) / 2**20 if loop.peak_memory else None
        cells = (
            *(of_words(one.name), of_words(facts.get("method")), of_whole(facts.get("ipc")), of_whole(facts.get("seed"))),
            *(of_words(facts.get("source")), of_words(facts.get("network"))),
            *(of_accuracy(found.distilled), of_share(found.distilled.test_mean)),
            *(of_share(kind.mean) for kind in (found.random, found.initial, found.full)),
            of_share(one.result.recovery_ratio if one.result else None),
            *(of_number(loop.best_iteration, "d"), of_share(loop.skipped_share)),
            *(of_number(sums, ".0f"), of_number(peak, ".0f")),
        )
        rows.append(Row(cells, facts))
    caption = (
        "Accuracies are means over networks that were trained on the set; ± and the line are their 95 % interval, which says "
        "nothing about another run of the same method."
    )
    return brief(SortableTable("runs", "Runs", columns, tuple(rows), caption), "Images", "Network", IPC)


def networks(entries: Sequence[Entry]) -> SortableTable:
    """Accuracies with other networks than the one distilled for."""
    columns = (
        *(Column("Run", words=True), Column("Trained network", words=True), Column("Accuracy, %", drawn=True), Column(BEST)),
        *(Column("Random real images, %"), Column("Full data, %"), Column("Recovered, %")),
    )
    rows = []
    for one in entries:
        for name, result in (one.result.networks if one.result else {}).items():
            found = result.accuracy
            own = (of_accuracy(found.distilled), of_share(found.distilled.test_mean), of_share(found.random.mean))
            rest = (of_share(found.full.mean), of_share(result.recovery_ratio))
            rows.append(Row((of_words(one.name), of_words(name), *own, *rest), one.facts))
    return brief(SortableTable("networks", "With other networks", columns, tuple(rows)))


def classes(entries: Sequence[Entry]) -> SortableTable:
    """Accuracies by class of the test images: a row for every class of every run or, where these are too many, for every class."""
    found: dict[str, list[tuple[Entry, Accuracy]]] = {}
    for one in entries:
        said = one.result.predictions if one.result else None
        for name, accuracy in zip(one.held.class_names, said.per_class, strict=False) if said and one.held else ():
            if accuracy is not None:
                found.setdefault(name, []).append((one, accuracy))
    if sum(map(len, found.values())) > MOST_ROWS:
        return _classes_of_all(found)
    columns = (Column("Class", words=True), Column("Run", words=True), Column("Accuracy, %", drawn=True))
    rows = tuple(
        Row((of_words(name), of_words(one.name), of_accuracy(accuracy)), one.facts)
        for name, held in found.items()
        for one, accuracy in held
    )
    return SortableTable("classes", "Accuracy by class", columns, rows, "Of its test images.")


def _classes_of_all(found: Mapping[str, Sequence[tuple[Entry, Accuracy]]]) -> SortableTable:
    """A row for every class, of as many as there is room for: the mean over the runs, and the run that does worst and best."""
    columns = (
        *(Column("Class", words=True), Column("Runs"), Column("Mean accuracy, %", drawn=True), Column("Lowest, %")),
        *(Column("of", words=True), Column("Highest, %"), Column("of which", words=True)),
    )
    rows = []
    for name, held in list(found.items())[:MOST_ROWS]:
        means = [accuracy.mean for _, accuracy in held]
        (worst, low), (best, high) = (pick(held, key=lambda one: one[1].mean) for pick in (min, max))
        cells = (
            *(of_words(name), of_number(len(held), "d"), of_share(math.fsum(means) / len(means))),
            *(of_share(low.mean), of_words(worst.name), of_share(high.mean), of_words(best.name)),
        )
        rows.append(Row(cells))
    left = f" The first {MOST_ROWS} of {len(found)} classes." if len(found) > MOST_ROWS else ""
    caption = f"Of its test images, over all runs, whichever are chosen above: a row for each run would be too many.{left}"
    return SortableTable("classes", "Accuracy by class", columns, tuple(rows), caption)


def curves(entries: Sequence[Entry]) -> list[Chart]:
    """Validation accuracy, matching loss and step size of all runs over the iterations."""
    found = [(one, one.run.metrics) for one in entries if one.run is not None]
    groups = dict(zip([one.name for one, _ in found], _groups([one for one, _ in found]), strict=True))
    kinds = {"accuracy": [], "loss": [], "step-size": []}  # type: dict[str, list[Line]]
    for one, metrics in found:
        rows, said = metrics.get("iteration", []), metrics.get("evaluation", [])
        means = [
            {"iteration": row["iteration"], "accuracy": row["accuracy"].get("mean")}
            for row in said
            if isinstance(row.get("accuracy"), Mapping)
        ]
        drawn = {"accuracy": points_of(means, "accuracy", 100), "loss": points_of(rows, "loss")}
        drawn["step-size"] = points_of(rows, "syn_lr")
        for kind, (x, y) in drawn.items():
            kinds[kind].append(Line(one.name, groups[one.name], one.facts, np.asarray(x), np.asarray(y)))
    several = len({line.facts.get("method") for line in kinds["loss"] if len(line.x)}) > 1
    alike = "Losses of different methods measure different things, and do not compare." if several else ""
    made = (
        chart("accuracy", "Validation accuracy", "accuracy (%)", kinds["accuracy"], "On images kept apart from training."),
        chart("loss", "Loss", "loss", kinds["loss"], alike, log=True),
        chart("step-size", "Learned step size η", "step size", kinds["step-size"]),
    )
    return [one for one in made if one is not None]


def compared(entries: Sequence[Entry]) -> tuple[Section, ...]:
    """Methods with as many images per class, paired by seed; none where runs do not compare, or one cannot be told from another."""
    keys = [tuple(one.facts.get(key) for key in ("method", "ipc", "seed")) for one in entries]
    known = all(one.run is not None and one.run.result is not None for one in entries)
    if not known or any(None in key for key in keys) or len(set(keys)) < len(keys) or len({key[0] for key in keys}) < 2:
        return ()
    if any(unlike(entries)) or unequal(entries):
        return ()
    records = []
    for one in entries:
        assert one.run is not None and one.run.result is not None, "just asked"
        held = one.run.result.to_dict()
        facts = {"method": one.facts["method"], "ipc": int(one.facts["ipc"]), "seed": int(one.facts["seed"])}
        records.append(CellRecord.from_dict({**{key: held[key] for key in KEPT if key in held}, "facts": facts}))
    return tabulate(records)


def unequal(entries: Sequence[Entry]) -> bool:
    """Whether runs of one method and as many images per class have other settings than their seeds, and are no repetitions."""
    found: dict[tuple[str | None, str | None], str] = {}
    for one in entries:
        key, settings = (one.facts.get("method"), one.facts.get("ipc")), fingerprint(one.flat.changed((*NAMED_BY, *NONE)).keys)
        if found.setdefault(key, settings) != settings:
            return True
    return False


def differences_told(section: Section) -> list[Verdict]:
    """A sentence on every difference to the first method."""
    ipc = str(section.ipc)
    return [Verdict(str(one), section.title, {"ipc": ipc, **({"method": one.a} if one.a else {})}) for one in section.differences]


def unlike(entries: Sequence[Entry]) -> list[str]:
    """Why accuracies do not compare, a sentence for each reason."""
    measured = [(one.name, one.result) for one in entries if one.result is not None and one.result.accuracy.distilled.known]
    said = []
    for what, key in (
        ("on different test images", _images),
        ("by different protocols", _protocol),
        ("with different networks", _network),
    ):
        groups: dict[str, list[str]] = {}
        for name, result in measured:
            groups.setdefault(key(result), []).append(name)
        if len(groups) > 1:
            apart = "; ".join(listed(own) for own in groups.values())
            said.append(f"These were measured {what} ({apart}): {NOT_COMPARED}.")
    return said


def _images(result: SetResult) -> str:
    return str(result.data.get("fingerprint"))


def _protocol(result: SetResult) -> str:
    """All that it says but which seeds the networks had, and how those of the full data were trained."""
    return fingerprint(encodable({key: value for key, value in result.protocol.items() if key not in ("seeds", "full")}))


def _network(result: SetResult) -> str:
    return result.network


def _doubts(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """What speaks against each, by name."""
    said = []
    for one in entries:
        found = [*one.notes]
        if one.run is not None and one.run.result is None:
            found.append("this run has not ended; what is shown is what there is so far")
        if one.run is not None and one.run.result is not None:
            found += one.run.result.warnings
        if one.result is not None:
            found += [*one.result.accuracy.failures, *told(one.result.doubts)]
        said += [(one.name, sentence) for sentence in found]
    return said


def _groups(entries: Sequence[Entry]) -> list[str]:
    """What curves have one style by: the method and images per class, where several runs share them, and else the run."""
    keys = [tuple(one.facts.get(key) for key in ("method", "ipc")) for one in entries]
    if len(set(keys)) < 2 or any(key[0] is None for key in keys):
        return [one.name for one in entries]
    sizes = {key[1] for key in keys}
    return [f"{method}" + (f", IPC {ipc}" if len(sizes) > 1 else "") for method, ipc in keys]


def _distinct(facts: Sequence[Facts], key: str, form: Any = str, most: int = 4) -> list[str]:
    """The values of a fact, in a few words; nothing where it is unknown."""
    values = list(dict.fromkeys(form(row[key]) for row in facts if key in row))
    return [listed(values, most)] if values else []
