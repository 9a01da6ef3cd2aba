"""Tells the sinks of a run what `metrics.jsonl` and the snapshots say; one that breaks is left, with one warning.

What was told is noted beside the record, so that a run that goes on goes on with the same record: nothing twice, nothing left out.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch

from limbeck.accuracy import Accuracies
from limbeck.distilled.preview import preview
from limbeck.distilled.small_set import NamedSet, SmallSet
from limbeck.methods.snapshots import Callback, Snapshot
from limbeck.runtime.errors import UsageError, one_line
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.records import Record
from limbeck.tracking.libraries import make_sink, place_of
from limbeck.tracking.sink import About, Sink

Row = Mapping[str, Any]
MOST_CLASSES, MOST_OF_A_CLASS, LARGEST = 20, 10, 1600  # of a picture; the last in pixels
ROOM = 4096  # bytes of a note


@dataclass(frozen=True)
class Note(Record):
    """What is noted beside a record: what tells it from others, and the last iteration of each kind of rows that was told."""

    run: str = ""
    told: Mapping[str, int] = field(default_factory=dict)


class Feed:
    """One sink, and how far it was told.

    Args:
        name: of the sink.
        about: what it is told of the run; `first` is found here.
        say: where a warning goes.
    """

    def __init__(self, name: str, about: About, say: Callable[[str], None]) -> None:
        self.name, self.say = name, say
        self.note = about.folder.with_name(f"{about.folder.name}.json")
        self.sink: Sink | None = None
        noted = _noted(self.note)
        self.run, self.told = noted.run or token_hex(8), dict(noted.told)
        with self._kept():
            first = 1 + self.told.get("iteration", -1)
            about.folder.parent.mkdir(parents=True, exist_ok=True)
            self._write()
            self.sink = make_sink(name, replace(about, run=self.run, first=first))
            if self.sink.overwrites:
                self.told = {kind: min(last, first - 1) for kind, last in self.told.items()}

    def tell(self, kind: str, iteration: int, say: Callable[[Sink], None]) -> None:
        """Tell it something of a kind, unless it knows that of an earlier start."""
        if self.sink is None or iteration <= self.told.get(kind, -1):
            return
        with self._kept():
            say(self.sink)
            self.told[kind] = iteration
            if not self.sink.overwrites:  # what it was told stays told, however the run ends
                self._write()
        if kind == "iteration" and iteration == self.told.get("picture"):
            self.flush()  # not before: a record is cut between iterations, and this one's picture would be cut off with its row

    def flush(self) -> None:
        """See to it that what was told is kept."""
        if self.sink is not None:
            with self._kept():
                self.sink.flush()
                self._write()

    def close(self) -> None:
        """Let go of it."""
        self.flush()
        if (sink := self.sink) is not None:
            with self._kept():
                sink.close()
        self.sink = None

    def _write(self) -> None:
        # In place, in one piece: it is written for every row, and a process may be killed at any moment.
        with self.note.open("r+b" if self.note.exists() else "wb", buffering=0) as file:
            file.write(json.dumps(Note(self.run, self.told).to_dict()).encode().ljust(ROOM))

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Whatever is raised inside ends the sink and not the run."""
        try:
            yield
        except (Exception, SystemExit) as error:
            self.sink = None
            said = one_line(error, 200)
            what = type(error).__name__ + (f": {said}" if said else "")
            self.say(f"warning: track: {self.name} failed ({what}); the run goes on without it")


class Tracker:
    """All sinks of a run.

    Args:
        feeds: one for each.
        metrics: the file of the run's rows.

    Attributes:
        named: a set with the classes of the images that snapshots have, and their names; None as long as they are not known.
    """

    def __init__(self, feeds: list[Feed], metrics: Path) -> None:
        self.feeds, self.metrics = feeds, metrics
        self.named: NamedSet | None = None
        self._caught_up = False

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """What an outer loop is to call at its evaluations."""
        return (self.snapshot,) if self.feeds else ()

    def row(self, row: Row) -> None:
        """A row that was just written."""
        if not self._caught_up:
            self._caught_up = True
            with suppress(OSError, UsageError):
                for earlier in read_metrics(self.metrics)[:-1]:
                    self._tell(earlier)
        self._tell(row)

    def _tell(self, row: Row) -> None:
        kind, iteration, values = str(row.get("kind")), row.get("iteration"), scalars_of(row)
        if isinstance(iteration, int) and values:
            for feed in self.feeds:
                feed.tell(kind, iteration, lambda sink: sink.scalars(iteration, values))

    def snapshot(self, snapshot: Snapshot) -> None:
        """The images at an evaluation."""
        if self.named is not None:
            held = replace(self.named.set, images=snapshot.images)
            self.picture(snapshot.iteration, replace(self.named, set=held))

    def picture(self, iteration: int, held: NamedSet) -> None:
        """The images of a set, a few of each of the first classes."""
        if any(feed.sink for feed in self.feeds):
            image = preview(few(held))
            image.thumbnail((LARGEST, LARGEST))
            for feed in self.feeds:
                feed.tell("picture", iteration, lambda sink: sink.picture(iteration, "images", image))

    def result(self, iteration: int, accuracies: Accuracies) -> None:
        """What was measured in the end, also when it is measured again."""
        values = {f"result/{name}": found.mean for name, found in accuracies.items()}
        for feed in self.feeds:
            feed.told.pop("result", None)
            feed.tell("result", iteration, lambda sink: sink.scalars(iteration, values))

    def close(self) -> None:
        """Let go of all sinks."""
        for feed in self.feeds:
            feed.close()


@contextmanager
def tracked(names: tuple[str, ...], folder: Path, about: About, say: Callable[[str], None]) -> Iterator[Tracker]:
    """The tracker of the run in `folder` with the sinks of those names; they are closed however the block is left."""
    feeds = [Feed(name, replace(about, folder=place_of(name, folder)), say) for name in names]
    tracker = Tracker(feeds, folder / "metrics.jsonl")
    try:
        yield tracker
    finally:
        tracker.close()


def scalars_of(row: Row) -> dict[str, float]:
    """The numbers of a row by `kind/name`; of an accuracy its mean, of what is not finite nothing."""
    found = {}
    for name, value in row.items():
        value = value.get("mean") if isinstance(value, Mapping) else value
        if name != "iteration" and isinstance(value, (int, float)):
            found[f"{row.get('kind')}/{name}"] = float(value)
    return found


def few(held: NamedSet) -> NamedSet:
    """At most so many images of so many classes, as a picture has them."""
    small, shown = held.set, min(held.set.num_classes, MOST_CLASSES)
    index = torch.cat([(small.classes == k).nonzero().flatten()[:MOST_OF_A_CLASS] for k in range(shown)])
    there = index.to(small.images.device)
    few_of_it = SmallSet.of_classes(small.images[there], small.classes[index], shown, small.syn_lr)
    return NamedSet(set=few_of_it, preprocessing=held.preprocessing, class_names=held.class_names[:shown])


def _noted(path: Path) -> Note:
    """The note at that path; a new one where there is none, or none that can be read."""
    with suppress(OSError, ValueError, TypeError):
        return Note.from_dict(json.loads(path.read_bytes()[:ROOM]))
    return Note()
