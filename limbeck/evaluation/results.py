"""What an evaluation finds, as values that show themselves: the text of a figure is made here and nowhere else.

`to_dict` gives the layout of the JSON files (results.json, metadata.json, comparison.json), `from_dict` reads it, also from files
of earlier versions, which lack some keys.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, cycle
from typing import Any, ClassVar

from limbeck.accuracy import MINUS, TITLES, Accuracies, Accuracy, Comparison, percent, protocol_name
from limbeck.distilled.view_labels import ViewsSummary
from limbeck.evaluation.coresets import Coresets
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.scores import Compression, Doubt, Lossless, joined, told
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.records import Record
from limbeck.runtime.tables import Grid, Page, duration, paths_text, tree, wrapped


@dataclass(frozen=True, kw_only=True)
class SetResult(Record):
    """What was measured of one small set under one protocol, with all that a reader needs to believe it.

    Args:
        accuracy: of networks trained on the set, on random images, on the full data, and where known on the initial images.
        recovery_ratio: accuracy of the set / of the full data; None where the latter is 0 or unknown.
        doubts: what speaks against the full data's accuracy as a measure, and checks that had no power.
        lossless: whether it is as good, to one standard deviation.
        compression: how much smaller the set is.
        gain: the set against random images, paired by seed.
        coresets: the set beside these, where they were asked for.
        predictions: per class, calibration.
        protocol: how networks were trained, `seeds`, and `full`, how those of the full data were; where networks are looked at on
            the way and there are no validation images, so that the last look counts, `chosen_on` is `none`.
        network: its name.
        data: source, fingerprint and split of the images measured on.
        environment: versions and device.
        view_labels: what the set holds of a teacher's labels, where it was trained on them.
        stored: what the images are decoded from, and how many random images take as many bytes; None of pixels.
        networks: accuracies, recovery ratio, losslessness, gain and coresets with other networks, by name.
        paths: where things lie.
        notes: what a reader must know.
        measurements: by name, what else was asked for.
    """

    accuracy: Accuracies = Accuracies()
    recovery_ratio: float | None = None
    doubts: tuple[Doubt, ...] = ()
    lossless: Lossless | None = None
    compression: Compression | None = None
    gain: Comparison | None = None
    coresets: Coresets | None = None
    predictions: Predictions | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    network: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    view_labels: ViewsSummary | None = None
    stored: str | None = None
    networks: Mapping[str, "SetResult"] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measurements: Mapping[str, Any] = field(default_factory=dict)

    LEFT_OUT: ClassVar = ("doubts", "coresets", "view_labels", "stored", "networks", "paths")
    CALLED: ClassVar = {"measurements": "further"}
    BRIEF: ClassVar = ("accuracy", "recovery_ratio", "doubts", "lossless", "gain", "coresets")

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, in which of other networks there are the figures alone."""
        found = super().to_dict()
        if "networks" in found:
            found["networks"] = {
                name: {key: row[key] for key in self.BRIEF if key in row} for name, row in found["networks"].items()
            }
        return found

    @property
    def by_network(self) -> dict[str, "SetResult"]:
        """This result, and those with other networks."""
        return {self.network or "–": self, **self.networks}

    @property
    def parts(self) -> tuple[str | Grid, ...]:
        """The accuracies, the protocol and the recovery ratio, to be shown."""
        held = [(TITLES[name], one) for name, one in self.accuracy.items()]
        if self.coresets is not None:
            held += [(f"Coreset: {name}", row.accuracy) for name, row in self.coresets.rows.items()]
        held = [pair for title, one in held for pair in _with_best(title, one)]
        rows = tuple((title, str(one), one.interval, str(one.n or "–")) for title, one in held)
        found: list[str | Grid] = [Grid(("images", "test accuracy", "95 % interval", "networks"), rows)]
        if self.protocol:
            found.append(f"protocol: {protocol_name(self.protocol)}, network {self.network or '–'}")
        if self.stored is not None:
            found.append(wrapped(f"stored: {self.stored}"))
        if self.recovery_ratio is not None:
            found.append(f"recovery ratio: {percent(self.recovery_ratio)} of the full data's accuracy")
        if said := self.accuracy.best_on_test:
            last = self.protocol.get("chosen_on") == "none"
            found.append(wrapped(f"{said}; above, {'the last one' if last else 'chosen on validation images'}"))
        if said := self.accuracy.step_sizes:
            found.append(wrapped(f"step sizes: {said}"))
        if self.coresets is not None:
            found += [wrapped(" ".join(pair)) for pair in self.coresets.verdicts]
        return (*found, *(wrapped(f"warning: {one}") for one in (*self.accuracy.failures, *told(self.doubts))))

    def measured(self, title: str = "") -> list[str]:
        """What else was measured, to be shown."""
        return [f"\n{name}{title}:\n" + "\n".join(tree(plain(value))) for name, value in self.measurements.items()]


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """One set or several, measured under one protocol on the same seeds.

    Of a single set everything that `SetResult` has can be asked of the evaluation itself: `evaluation.accuracy.distilled.mean`.

    Args:
        sets: in the order they were given.
        comparisons: of every pair of sets under every network, a and b their places; of a single set with random images, where
            seeds were added until they could be told apart.
        seconds: how long it took.

    Example:
        >>> Evaluation.from_dict({"sets": [{"accuracy": {"distilled": {"mean": 0.5, "n": 3}}}]}).accuracy.distilled.mean
        0.5
    """

    sets: tuple[SetResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the only set.

        Raises:
            AttributeError: when there are several, or sets have none of that name.
        """
        if name not in SetResult.__dataclass_fields__:
            raise AttributeError(f"an evaluation has no {name!r}")
        if len(self.sets) != 1:
            raise AttributeError(
                f"{name!r} of which of the {len(self.sets)} sets? `evaluation.sets[0].{name}` is that of the first"
            )
        return getattr(self.sets[0], name)

    def table(self) -> Page:
        """What the command prints; a notebook shows it as tables."""
        if len(self.sets) == 1:
            (only,) = self.sets
            parts: list[str | Grid] = [*(f"note: {note}" for note in only.notes), *only.parts, *self._compared, *self._time]
            parts += [paths_text(only.paths)] if only.paths else []
            others = only.networks.items()
            said = (*_best(others), *_step_sizes(others), *_verdicts(others), *_doubts(others))
            parts += [_networks(self.sets), *said] if only.networks else []
            return Page((*parts, *only.measured()))
        legend = []
        for letter, one in _lettered(self.sets):
            legend += [f"{letter}: {one.paths.get('distilled', '–')}", *(f"   note: {note}" for note in one.notes)]
        measured = [line for one in self.sets for line in one.measured(f" of {one.paths.get('distilled', '–')}")]
        each = [(f"{letter}, {name}", row) for letter, one in _lettered(self.sets) for name, row in one.by_network.items()]
        said = (*_best(each), *_step_sizes(each), *_verdicts(each), *_doubts(each))
        return Page((*legend, _networks(self.sets), *said, *self._compared, *self._time, *measured))

    @property
    def _compared(self) -> tuple[Grid, ...]:
        return (_compared(self.sets, self.comparisons),) if self.comparisons else ()

    @property
    def _time(self) -> tuple[str, ...]:
        return (f"time: {duration(sum(self.seconds.values()))}",) if self.seconds else ()

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _lettered(sets: Sequence[SetResult]) -> Iterator[tuple[str, SetResult]]:
    return ((chr(ord("A") + number), one) for number, one in enumerate(sets))


def _networks(sets: Sequence[SetResult]) -> Grid:
    """The accuracies under every network; of several sets, each by its letter."""
    rows = []
    for letter, one in _lettered(sets):
        for name, row in one.by_network.items():
            values = (str(row.accuracy[kind]).removesuffix(" %") for kind in ("distilled", "random", "full"))
            rows.append((letter, name, *values, percent(row.recovery_ratio)))
    columns = ("", "network", "distilled (%)", "random (%)", "full (%)", "recovery")
    several = len(sets) > 1
    return Grid(columns, tuple(rows), 2) if several else Grid(columns[1:], tuple(row[1:] for row in rows))


def _with_best(title: str, found: Accuracy) -> Iterator[tuple[str, Accuracy]]:
    """A row of the table, and one below it for what was best on the test images themselves."""
    yield title, found
    if found.best_on_test is not None:
        yield f"{title}, best on test", found.best_on_test


def _best(rows: Iterable[tuple[str, SetResult]]) -> Iterator[str]:
    """What was best on the test images themselves, a line for each that says so."""
    return (wrapped(f"{name}: {said}") for name, row in rows if (said := row.accuracy.best_on_test))


def _step_sizes(rows: Iterable[tuple[str, SetResult]]) -> Iterator[str]:
    """How the step sizes were come by, a line for all rows of which the same is to be said."""
    of: dict[str, list[str]] = {}
    for name, row in rows:
        if said := row.accuracy.step_sizes:
            of.setdefault(said, []).append(name)
    return (wrapped(f"step sizes ({'; '.join(names)}): {said}") for said, names in of.items())


def _verdicts(rows: Iterable[tuple[str, SetResult]]) -> Iterator[str]:
    """Whether each beats random images and the best coreset, where coresets were asked for."""
    asked = ((name, row.coresets) for name, row in rows if row.coresets is not None)
    return (wrapped(f"{name}: {' '.join(pair)}") for name, found in asked for pair in found.verdicts)


def _doubts(rows: Iterable[tuple[str, SetResult]]) -> Iterator[str]:
    """Doubts, a line for each kind."""
    return (wrapped(f"warning: {one}") for one in told(joined((name, row.doubts) for name, row in rows)))


def _compared(sets: Sequence[SetResult], comparisons: Sequence[Comparison]) -> Grid:
    # By their order: the same set may be given twice.
    alone, letters = len(sets) == 1, [letter for letter, _ in _lettered(sets)]
    pairs = [("set", "random")] if alone else combinations(letters, 2)
    judged = any(one.verdict is not None for one in comparisons)
    rows = []
    for one, (a, b) in zip(comparisons, cycle(pairs), strict=False):
        p = "–" if one.p_adjusted is None else f"{one.p_adjusted:.3g}"
        needed = f"{one.seeds_needed} seeds" if one.seeds_needed and (one.p_adjusted or 0.0) > 0.05 else ""
        said = {"a better": "better", "b better": "worse"} if alone else {"a better": f"{a} better", "b better": f"{b} better"}
        verdict = said.get(one.verdict or "", one.verdict)
        rows.append((f"{a} {MINUS} {b}", one.network or "–", one.points, p, str(one.n), verdict or needed))
    last = "verdict" if judged else "would decide"
    return Grid(("sets", "network", "points, 95 % interval", "p (Holm)", "seeds", last), tuple(rows), 2)
