"""`reproduce`: the cells of all items that are asked for, as one grid; then the table, the verdicts and the files of each.

    cells/     what every distillation measured, whichever items it belongs to
    measured/  what was measured of it besides
    ITEM.json, ITEM.md, ITEM.png, ITEM.parquet, reproduction.json

A cell that several items share is run once, and everything that any item of the scale wants of it is measured while its run folder
is there, so that an item that is asked for later finds it.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from limbeck.reproduction.claims import Judged, judge, with_control
from limbeck.reproduction.item import Item
from limbeck.reproduction.items import ITEMS, chosen
from limbeck.reproduction.measures import Measurements
from limbeck.reproduction.published import published
from limbeck.reproduction.reading import Grid, Read
from limbeck.reproduction.results import ItemResult, Reproduction
from limbeck.reproduction.scales import Scale, Spot, overrides_of, refuse_levels, scale_of, spots
from limbeck.reproduction.write import write
from limbeck.runtime.devices import undisturbed
from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.executor import Executor
from limbeck.runtime.executor.current import executing
from limbeck.runtime.located import here
from limbeck.runtime.notices import gathered, kind_of, logged
from limbeck.runtime.progress import LogProgress, Progress
from limbeck.runtime.room import disks_told
from limbeck.studies.cells import Cell, CellFolder
from limbeck.studies.compare import check_alike
from limbeck.studies.entrants import unread_of
from limbeck.studies.matrix import Matrix, Running, run_matrix
from limbeck.studies.taken import take_over, taken_said
from limbeck.studies.versions import versions_said


@dataclass(frozen=True)
class Asked:
    """What is to be reproduced.

    Args:
        items: in the paper's order.
        scale: how large.
        seeds: of the distillations.
        overrides: settings for all cells, as typed.
        data: what replaces the scale's images; None keeps them.
        base: the recipe that all methods start from; None leaves that to the scale.
        left_out: items that `all` stands for and these images have no levels for.
    """

    items: tuple[Item, ...]
    scale: Scale
    seeds: tuple[int, ...]
    overrides: Mapping[str, str]
    data: str | None = None
    base: str | None = None
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        items: Sequence[str],
        scale: str | Scale = "cpu",
        *,
        seeds: Iterable[int] | None = None,
        data: str | None = None,
        base: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> "Asked":
        """From words.

        Raises:
            UsageError: for an unknown item or scale, an item that is named and needs levels which the images do not have, or
                settings that a reproduction runs over itself.
        """
        found = scale if isinstance(scale, Scale) else scale_of(scale)
        found = found if data is None else found.on(data)
        found = found if base is None else found.from_recipe(base)
        many = found.seeds if seeds is None else tuple(seeds)
        require(len(set(many)) == len(many) > 0, "--seeds", list(many), "one seed or more, each once")
        made = chosen(items)
        without = tuple(one.name for one in made if one.places not in found.places)
        if named := [one for one in without if one in items]:
            refuse_levels(named)
        made = [one for one in made if one.name not in without]
        return cls(tuple(made), found, many, overrides_of(settings or {}), data, base, without)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not asked that was, a sentence each."""
        if not self.left_out:
            return ()
        return (f"left out, for these images have no levels of difficulty: {', '.join(self.left_out)}",)

    def grid(self, item: Item) -> list[Spot]:
        """That of an item."""
        return spots(item, self.scale, self.seeds, self.overrides)

    def command(self, item: str) -> str:
        """The words that run one of them."""
        seeds = [] if self.seeds == self.scale.seeds else ["--seeds", ",".join(map(str, self.seeds))]
        data = [] if self.data is None else ["--data", self.data]
        base = [] if self.base is None else ["--base", self.base]
        words = [f"{key}={value}" for key, value in self.overrides.items()]
        return shlex.join(["limbeck", "reproduce", item, "--scale", self.scale.name, *data, *base, *seeds, *words])


@gathered(logged)
@disks_told()
@undisturbed()
def reproduce(
    *items: str,
    scale: str | Scale = "cpu",
    output: Path | str | None = None,
    seeds: Iterable[int] | None = None,
    data: str | None = None,
    base: str | None = None,
    settings: Mapping[str, object] | None = None,
    reuse: Sequence[Path | str] = (),
    jobs: int | None = None,
    max_seconds: float | None = None,
    executor: Executor | str | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Run items of the paper and judge its claims; finished cells are found again.

    Args:
        *items: such as `table4`; `all` is all of them.
        scale: `cpu`, `gpu` or `paper`; or a `Scale`.
        output: the folder; None takes `runs/reproduction-SCALE`.
        seeds: of the distillations; None takes the scale's.
        data: a source of images in the place of the scale's; items on levels of difficulty cannot be run then.
        base: a recipe that all methods take their settings from, where there is none for the images.
        settings: for all distillations, by dotted keys.
        reuse: folders of other grids, from which what was measured under equal settings is taken first.
        jobs: distillations at a time; None: one, or as many as a cluster has room for.
        max_seconds: after which running cells are stopped; 0 only looks at what is finished.
        executor: where distillations run, as for `compare`.
        progress: where to report; None goes through `logging`.

    Raises:
        UsageError: for an unknown item or scale, and when a cell cannot be run as it is asked for.

    Example:
        >>> found = reproduce("table4", output="reproduction", max_seconds=0)
        >>> [one.verdict for one in found.findings], len(found.left)
        (['undecided', 'undecided', 'undecided'], 21)
    """
    words = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in (settings or {}).items()}
    asked = Asked.of(items, scale, seeds=seeds, data=data, base=base, settings=words)
    how = Running(jobs=jobs, max_seconds=max_seconds, progress=progress or LogProgress())
    with ExitStack() as stack:
        stack.enter_context(executing(executor))
        return run(asked, Path(output or default_output(asked.scale)), running=how, reuse=reuse)


def default_output(scale: Scale) -> Path:
    """Where a reproduction lies that is not said another place."""
    return Path("runs") / f"reproduction-{scale.name}"


def run(asked: Asked, folder: Path, *, running: Running = Running(), reuse: Sequence[Path | str] = ()) -> Reproduction:
    """Run the cells of what is asked for, and write what was found so far.

    Args:
        asked: the items.
        folder: of the reproduction.
        running: how.
        reuse: folders of other grids.

    Raises:
        UsageError: when cells cannot be run as they are asked for; nothing is run then.
    """
    grids = {item.name: asked.grid(item) for item in asked.items}
    cells = _unique(grids.values())
    for remark in unread_of(cells, list(asked.overrides)):
        running.progress.say(remark)
    measurements = Measurements(
        folder,
        wanted=wanted(asked, ITEMS.values()),
        needed=wanted(asked, asked.items),
        beside=compared(asked, ITEMS.values()),
        eye=asked.scale.eye,
        progress=running.progress,
    )
    for place in reuse:
        running.progress.say(taken_said(take_over(reusable(cells, measurements), Path(here("--reuse", str(place))), folder), place))
    unmeasured = _caught_up(cells, measurements) if running.max_seconds != 0 else {}  # who only looks computes nothing
    # What could not be measured on a run folder would not be on another.
    again = lambda cell: cell.name not in unmeasured and measurements.lacks(cell)  # noqa: E731
    matrix = run_matrix(cells, folder, replace(running, measure=measurements.take, again=again))
    matrix = replace(matrix, failed={**unmeasured, **matrix.failed})
    found = tuple(_found(asked, item, grids[item.name], matrix, measurements) for item in asked.items)
    whole = Reproduction(
        scale=asked.scale.name,
        seeds=asked.seeds,
        items=found,
        cells=len(cells),
        failed=matrix.failed,
        left=tuple(matrix.left),
        notes=asked.notes,
        data=asked.data,
        base=asked.base,
        overrides=asked.overrides,
    )
    return write(whole, _with_earlier(whole, asked, folder), folder)


def reusable(cells: Sequence[Cell], measurements: Measurements) -> list[Cell]:
    """Those that may be taken from another grid: of the others more is measured, on run folders that are not there."""
    return [cell for cell in cells if cell.name not in measurements.needed]


def _with_earlier(found: Reproduction, asked: Asked, folder: Path) -> Reproduction:
    """With the items that the folder has from before, where they were asked for alike: its file tells of the whole folder."""
    try:
        before = Reproduction.read(folder)
    except UsageError:  # there is none, or it is broken, and this is what writes it anew
        return found
    said = ((one.scale, one.seeds, one.data, one.base, dict(one.overrides)) for one in (before, found))
    mine = {one.item for one in found.items}
    earlier = [one for one in before.items if one.item in ITEMS and one.item not in mine]
    if next(said) != next(said) or not earlier:
        return found
    own = {cell.name for cell in _unique(asked.grid(ITEMS[one]) for one in mine)}
    others = [cell for cell in _unique(asked.grid(ITEMS[one.item]) for one in earlier) if cell.name not in own]
    held = CellFolder(folder)
    open_ones = [cell.name for cell in others if not held.result_file(cell).exists()]
    failed = {name: said for name, said in before.failed.items() if name in open_ones}
    return replace(
        found,
        items=tuple(sorted((*earlier, *found.items), key=lambda one: [*ITEMS].index(one.item))),
        cells=found.cells + len(others),
        failed={**failed, **found.failed},
        left=(*found.left, *(name for name in open_ones if name not in failed)),
    )


def _caught_up(cells: Sequence[Cell], measurements: Measurements) -> dict[str, str]:
    """Measure what is missing of finished cells; why that failed, by the cells' names. Each kind of failure is said once."""
    failed: dict[str, str] = {}
    for cell in cells:
        try:
            measurements.catch_up(cell)
        except (Failure, UsageError) as error:  # one cell is no reason to keep the others from being found
            known = {kind_of(said) for said in failed.values()}
            failed[cell.name] = str(error)
            if kind_of(str(error)) not in known:
                measurements.progress.say(f"{cell.name} could not be measured: {error}")
    return failed


def _unique(grids: Iterable[Sequence[Spot]]) -> list[Cell]:
    """The cells of all grids, each once, seed by seed."""
    cells = {spot.cell.name: spot.cell for grid in grids for spot in grid}
    order = {seed: number for number, seed in enumerate(dict.fromkeys(cell.facts["seed"] for cell in cells.values()))}
    return sorted(cells.values(), key=lambda cell: order[cell.facts["seed"]])


def wanted(asked: Asked, items: Iterable[Item]) -> dict[str, frozenset[str]]:
    """The measurements that items want of a cell, by its name."""
    found: dict[str, frozenset[str]] = {}
    for item, grid in _measured_grids(asked, items):
        for spot in grid:
            found[spot.cell.name] = found.get(spot.cell.name, frozenset()) | {*item.measures}
    return found


def compared(asked: Asked, items: Iterable[Item]) -> dict[str, tuple[Cell, ...]]:
    """The cells of items that are measured and differ from a cell by the level of their images alone, by its name."""
    found: dict[str, tuple[Cell, ...]] = {}
    for _, grid in _measured_grids(asked, (item for item in items if item.places == "levels")):
        together: dict[tuple[object, ...], list[Cell]] = {}
        for spot in grid:
            together.setdefault((spot.row, spot.ipc, spot.seed, spot.place.category), []).append(spot.cell)
        found |= {cell.name: tuple(cells) for cells in together.values() for cell in cells}
    return found


def _measured_grids(asked: Asked, items: Iterable[Item]) -> Iterator[tuple[Item, list[Spot]]]:
    """Those of the items of whose cells more is measured than their accuracy."""
    for item in items:
        if item.measures and item.places in asked.scale.places:
            with suppress(UsageError):  # settings that this item cannot be run with; it is not asked for, or has said so
                yield item, asked.grid(item)


def _found(asked: Asked, item: Item, grid: Sequence[Spot], matrix: Matrix, measurements: Measurements) -> ItemResult:
    """The table and the verdicts of an item."""
    own = {spot.cell.name for spot in grid}
    results = {spot.cell.name: matrix.results[spot.cell.name] for spot in grid if spot.cell.name in matrix.results}
    measured = {name: measurements.of(name) for name in results}
    read = Read(Grid(asked.scale, item, grid), results, measured)
    claims = [(claim, read.sums(claim)) for claim in read.grid.claims]
    rows = {spot.control: spot.row for spot in grid if spot.control}
    controls = [(claim, read.sums(claim)) for one in read.grid.claims if (claim := with_control(one, rows)) is not None]
    full = {
        spot.place.name: result.accuracy.full.mean
        for spot in grid
        if (result := results.get(spot.cell.name)) and result.accuracy.full.known
    }
    return ItemResult(
        item=item.name,
        title=item.title,
        scale=asked.scale.name,
        shown=item.shown,
        lines=tuple(read.lines()),
        findings=(*judge(claims, doubts=_doubts(read, claims)), *judge(controls, control=True, doubts=_doubts(read, controls))),
        full=full,
        series=read.series(),
        published=published(item.name),
        notes=(*_notes(grid), *versions_said(results.values())),
        doubts=read.doubts,
        failures=tuple(read.failures()),
        left=len(own & {*matrix.left} | own - results.keys()),
        failed={name: said for name, said in matrix.failed.items() if name in own},
        command=asked.command(item.name),
    )


def _doubts(read: Read, claims: Iterable[Judged]) -> dict[str, str]:
    """Why claims rest on no measure, by their names."""
    return {claim.name: said for claim, _ in claims if (said := read.doubt(claim))}


def _notes(grid: Sequence[Spot]) -> list[str]:
    """How settings of rows differ that should not, and what is known of the sources, a sentence each."""
    notes: dict[str, None] = {}
    for place in dict.fromkeys(spot.place.name for spot in grid):
        here = [spot for spot in grid if spot.place.name == place]
        cells = [replace(spot.cell, facts={"method": spot.row, "ipc": spot.ipc, "seed": spot.seed}) for spot in here]
        notes |= dict.fromkeys([f"{place}: {here[0].place.note}"] if here[0].place.note else [])
        notes |= dict.fromkeys(check_alike(cells))
    return list(notes)
