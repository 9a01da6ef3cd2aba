"""What items will take here, before they are run: `limbeck plan`'s estimators for every kind of cell, and what finished cells took.

A kind of cell is what its time depends on: the network, the images, their size and classes, how many there are per class, steps,
iterations and the evaluation, not which parameters are dropped. Each is planned once, which is kept in the cache. Methods that
match trajectories count as EDF does, a method without iterations by its evaluation alone, which is said where it makes images. What
is measured of cells besides comes on top.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from limbeck.methods.registry import method_of
from limbeck.recipes import load_recipe
from limbeck.reproduction.claims import least_effect
from limbeck.reproduction.measures import Measurements
from limbeck.reproduction.reading import Grid as ItemGrid
from limbeck.reproduction.run import Asked, reusable, wanted
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.fingerprint import encodable, fingerprint
from limbeck.runtime.kept import Kept, place
from limbeck.runtime.located import here
from limbeck.runtime.progress import Progress
from limbeck.runtime.records import Record
from limbeck.runtime.tables import Grid, Page, duration
from limbeck.studies.cells import Cell, CellFolder, CellRecord
from limbeck.studies.cost import mean
from limbeck.studies.taken import to_take_over

AGAIN = 0.7  # of an iteration, which the plain gradient takes where the norm is matched
OF_ROWS = ("match.criterion", "match.drop", "match.match_norm", "enhance.")  # what rows differ in, and no time
SIDES = 2  # the set and random images, which are evaluated at the end


@dataclass(frozen=True, kw_only=True)
class Kind(Record):
    """What a kind of cell takes, in seconds.

    Args:
        iterations: of the outer loop.
        rest: of what else the loop does.
        evaluation: at the end.
        experts: of a seed, as far as they are not in the cache.
    """

    iterations: float
    rest: float
    evaluation: float
    experts: float

    def of(self, cell: Cell) -> float:
        """What a cell of this kind takes without its experts."""
        method = method_of(cell.settings.method)
        again = 1 + AGAIN * cell.settings.match.match_norm
        return self.evaluation + (self.iterations * again + self.rest if method.kind == "objective" else 0.0)


@dataclass(frozen=True, kw_only=True)
class Listed(Record):
    """An item, and what it will take.

    Args:
        item: its name.
        title: in a few words.
        claims: how many are judged.
        cells: of its grid.
        finished: of them, with all that is measured of them besides.
        seconds: that the others take, beside those of the items above; None where that cannot be foretold here.
        least_effect: with which as many seeds decide a claim, in standard deviations; None where they decide nothing.
    """

    item: str
    title: str
    claims: int
    cells: int
    finished: int
    seconds: float | None
    least_effect: float | None = None

    @property
    def effect(self) -> str:
        """The least effect in words."""
        return "–" if self.least_effect is None else f"{self.least_effect:.1f} sd"

    @property
    def left(self) -> str:
        """The time in words."""
        if self.seconds == 0:
            return "nothing" if self.finished == self.cells else "shared"
        return "–" if self.seconds is None else duration(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Listing(Record):
    """Items with their times.

    Args:
        scale: its name.
        items: in the paper's order.
        notes: on what was left out and what could not be foretold, a sentence each.
    """

    scale: str
    items: tuple[Listed, ...]
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> Mapping[str, str]:
        """Nothing is written."""
        return {}

    def lines(self) -> Iterator[str | Grid]:
        """What a terminal shows."""
        rows = [
            (
                one.item,
                one.title,
                str(one.claims),
                one.effect,
                f"{one.finished}/{one.cells}",
                one.left,
            )
            for one in self.items
        ]
        yield Grid.of([("item", "", "claims", "from", "cells", "left, about"), *rows], f"items at {self.scale} scale")
        known = [one.seconds for one in self.items if one.seconds is not None]
        yield "from: the least mean that these seeds decide a claim with, in standard deviations of the differences"
        yield "cells: those that are finished, of all"
        yield f"in all about {duration(math.fsum(known))}, one distillation at a time; shared cells count where they come first"
        yield from (f"note: {note}" for note in self.notes)

    def __str__(self) -> str:
        return str(Page(tuple(self.lines()), width=100))


def listing(asked: Asked, folder: Path, progress: Progress, *, reuse: Sequence[Path | str] = ()) -> Listing:
    """The items that are asked for, with their times.

    Args:
        asked: what to list.
        folder: of the reproduction, whose finished cells take no time any more.
        progress: where to report.
        reuse: folders of other grids, of which what would be taken counts as finished; nothing is written.

    Raises:
        UsageError: when a folder of those is not the folder of a grid.
    """
    grids = {item.name: asked.grid(item) for item in asked.items}
    held = CellFolder(folder)
    cells = {spot.cell.name: spot.cell for grid in grids.values() for spot in grid}
    measured = {name: found for name, cell in cells.items() if (found := held.read(cell)) is not None}
    needed = wanted(asked, asked.items)
    measurements = Measurements(folder, wanted=needed, needed=needed, eye=asked.scale.eye, progress=progress)
    for other in reuse:
        taken = to_take_over(reusable(list(cells.values()), measurements), Path(here("--reuse", str(other))), folder)
        measured = {cell.name: found for cell, found in taken.items()} | measured
    finished = {name for name in measured if not measurements.lacks(cells[name])}
    times = _Times(measured, cells, progress)
    rows, counted = [], {*finished}
    for item in asked.items:
        own = dict.fromkeys(spot.cell.name for spot in grids[item.name])
        new = [name for name in own if name not in counted]
        counted |= own.keys()
        seconds = times.of([cells[name] for name in new])
        done, claims = sum(name in finished for name in own), len(ItemGrid(asked.scale, item, grids[item.name]).claims)
        least = least_effect(len(asked.seeds), claims)
        facts = {"cells": len(own), "finished": done, "claims": claims}
        rows.append(Listed(item=item.name, title=item.title, **facts, seconds=seconds, least_effect=least))
    return Listing(scale=asked.scale.name, items=tuple(rows), notes=(*asked.notes, *times.notes))


class _Times:
    """What cells take: as long as finished ones of their kind, or else as planned."""

    def __init__(self, finished: Mapping[str, CellRecord], cells: Mapping[str, Cell], progress: Progress) -> None:
        self.progress = progress
        self.notes: dict[str, None] = {}
        self.kinds: dict[str, Kind | None] = {}
        self.experts: set[str] = set()
        took: dict[str, list[float]] = {}
        for name, record in finished.items():
            spent = sum(value for stage, value in record.seconds.items() if stage != "experts")
            took.setdefault(_as_finished(cells[name]), []).append(spent)
        self.took = {kind: mean(values) for kind, values in took.items()}

    def of(self, cells: Sequence[Cell]) -> float | None:
        """Seconds of cells one after another, with the experts of those that are the first to need them."""
        found = [self._one(cell) for cell in cells]
        known = [seconds for seconds in found if seconds is not None]
        return math.fsum(known) if len(known) == len(found) else None

    def _one(self, cell: Cell) -> float | None:
        seconds, kind = self.took.get(_as_finished(cell)), None
        first = cell.needs_experts and cell.experts not in self.experts
        self.experts |= {cell.experts} if first else set()
        if seconds is None or first:
            kind = self._kind(cell)
        if seconds is None and kind is not None:
            seconds = kind.of(cell)
            if method_of(cell.settings.method).kind == "images":
                self.notes[f"not foretold: how long {cell.settings.method} makes its images; only its evaluation is counted"] = None
        return None if seconds is None else seconds + (kind.experts if first and kind else 0.0)

    def _kind(self, cell: Cell) -> Kind | None:
        representative = _representative(cell)
        mark = fingerprint(encodable(_decisive(representative)))
        if mark not in self.kinds:
            try:
                kept = Kept.json(place("plans", mark)).get(lambda: _planned(representative, self.progress).to_dict())
                self.kinds[mark] = Kind.from_dict(kept)
            except (UsageError, Failure) as error:
                self.notes[f"not foretold: {error}"] = None
                self.kinds[mark] = None
        return self.kinds[mark]


def _representative(cell: Cell) -> DistillSettings:
    """The settings of which a cell's time is planned: EDF's, where a method matches trajectories or has no iterations."""
    method = method_of(cell.settings.method)
    if method.kind == "objective" and not method.experts:
        return cell.settings
    assert cell.recipe is not None, "cells of a reproduction have recipes"
    keys = {key: value for key, value in cell.overrides.items() if not key.startswith(OF_ROWS)}
    return load_recipe(cell.recipe, {**keys, "method": "edf"})


def _decisive(settings: DistillSettings) -> list[object]:
    """What the time of a distillation depends on."""
    s = settings
    # Scenes of all levels are equally many and large, and of other images it counts neither where they lie nor how they are split.
    source = "scenes" if str(s.data.source).partition(":")[0] == "scenes" else s.data.source
    of_images = replace(s.data, source=source, seed=0, root=None, workers=None)
    size = [s.network, of_images, s.ipc]
    loop = [s.method, s.match.syn_steps, s.match.batch_syn, s.outer.iterations, s.enhance.cam, s.engine]
    return [*size, *loop, s.experts, s.eval.every, s.eval.every_seeds, s.eval.seeds, s.eval.epochs, s.eval.protocol]


def _planned(settings: DistillSettings, progress: Progress) -> Kind:
    """By `limbeck plan`.

    Raises:
        Failure: for a GPU that is not here.
    """
    from limbeck.runs.plan import plan

    found = plan(settings, progress=progress)
    if found.seconds is None or found.evaluation is None:
        raise Failure("the GPU that it is for is not here")
    iterations = found.parts["iterations"]
    experts = found.experts[0].seconds if found.experts else 0.0
    return Kind(
        iterations=iterations,
        rest=found.seconds - iterations,
        evaluation=found.evaluation * settings.eval.seeds * SIDES,
        experts=experts,
    )


def _as_finished(cell: Cell) -> str:
    """The kind of a cell among those that are finished: that of its time, with the method."""
    s = cell.settings
    return fingerprint(encodable([_decisive(s), s.match.match_norm]))
