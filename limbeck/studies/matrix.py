"""The one runner of grids: a cell is a process of its own, `limbeck distill … --resume`, whose crash costs one cell; one of
objects is made in this process. Finished cells are not run again; those that would wait for experts which another one trains come
after the others.
"""

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.executor import Cluster, Process, Shard, Tick, current
from limbeck.runtime.locks import Busy, Lock, lock
from limbeck.runtime.notices import kind_of
from limbeck.runtime.progress import NoProgress, Progress, Stage
from limbeck.runtime.room import check_place
from limbeck.studies.cells import Cell, CellFolder, CellRecord
from limbeck.studies.images import check_sources

LOOK_EVERY = 0.1  # seconds between two looks at the processes
GRACE = 7.0  # seconds that a process has to end when it is asked to; it takes fewer


def distill_command(cell: Cell, run: Path) -> list[str]:
    """The words of the process that distils a cell into the folder `run`."""
    assert cell.recipe is not None, "a cell of objects is made in this process"
    words = [sys.executable, "-m", "limbeck", "distill", cell.recipe, *cell.words]
    return [*words, *["--trust"] * cell.trust, "--output", str(run), "--resume", "--json"]


@dataclass(frozen=True, kw_only=True)
class Running:
    """How the cells of a grid are run.

    Args:
        jobs: processes at a time, which share the cores; None: one, or as many as a cluster has room for.
        shard: which of the cells to run; the others count as left until they are there.
        max_seconds: after which running cells are stopped, to go on at the next call; None takes as long as it takes, 0 only looks
            at what is finished.
        keep: whether the run folders of finished cells stay.
        progress: where to report.
        measure: what is called with a finished cell and its run folder before that goes; the cell counts as failed where it fails.
        checked: whether the sources of images that are no scenes were looked at before, so that it need not be done here.
        again: of a finished cell, whether it is to be distilled again all the same; what it measured stays until it is replaced.

    Raises:
        UsageError: for a number out of range.
    """

    jobs: int | None = None
    shard: Shard = Shard()
    max_seconds: float | None = None
    keep: bool = False
    progress: Progress = NoProgress()
    measure: Callable[[Cell, Path], object] | None = None
    checked: bool = False
    again: Callable[[Cell], bool] = lambda cell: False

    def __post_init__(self) -> None:
        require(self.jobs is None or self.jobs >= 1, "--jobs", self.jobs, "at least 1")
        require(self.max_seconds is None or self.max_seconds >= 0, "--max-seconds", self.max_seconds, "at least 0")


@dataclass(frozen=True)
class Matrix:
    """What became of a grid.

    Args:
        results: of finished cells by name, in the order of the cells.
        failed: the last words of those that failed.
        left: the names of those that are to be run yet.
    """

    results: dict[str, CellRecord]
    failed: dict[str, str]
    left: list[str]


def run_matrix(cells: Sequence[Cell], folder: Path, how: Running = Running()) -> Matrix:
    """Run the cells that are not finished.

    Args:
        cells: in the order of their importance; their names differ.
        folder: where results, run folders and logs lie.
        how: see there.

    Raises:
        UsageError: when a source of images is none, or the folder cannot be written to or holds a result of other settings or
            images; nothing is run then.
        KeyboardInterrupt: when interrupted; finished cells are there, and running ones go on at the next call.
    """
    assert len({cell.name for cell in cells}) == len(cells), "two cells of one name"
    held = CellFolder(Path(folder))
    only_looks = how.max_seconds == 0
    finished = {cell: found for cell in cells if (found := held.read(cell, opening=not only_looks)) is not None}
    held.check_one_source(finished)
    before = {cell.name: found for cell, found in finished.items()}
    results = {cell.name: before[cell.name] for cell in cells if cell.name in before and not how.again(cell)}
    mine = [cell for number, cell in enumerate(cells) if how.shard.takes(number)]
    open_cells = [cell for cell in mine if cell.name not in results]
    deadline = None if how.max_seconds is None else time.monotonic() + how.max_seconds
    failed: dict[str, str] = {}
    if open_cells and not only_looks:
        built_in_only = how.checked or isinstance(current(), Cluster)
        check_sources([cell.settings for cell in open_cells], how.progress, built_in_only=built_in_only)
        check_place(held.path, "output")
        with how.progress.stage("cells", len(mine), len(mine) - len(open_cells)) as stage:
            _Runner(held, how, stage, results, failed).run(open_cells, deadline)
    there = before | results
    ordered = {cell.name: there[cell.name] for cell in cells if cell.name in there}
    return Matrix(ordered, failed, [cell.name for cell in cells if cell.name not in results and cell.name not in failed])


@dataclass(eq=False)
class _Job:
    """A cell under way."""

    cell: Cell
    held: Lock
    process: Process


@dataclass(eq=False)
class _Runner:
    folder: CellFolder
    how: Running
    stage: Stage
    results: dict[str, CellRecord]
    failed: dict[str, str]
    running: list[_Job] = field(default_factory=list)
    trained: set[str] = field(default_factory=set)  # whose experts are in the cache

    def run(self, cells: Sequence[Cell], deadline: float | None) -> None:
        waiting, most = list(cells), current().commands(self.how.jobs, len(cells))
        try:
            while (waiting or self.running) and not (deadline is not None and time.monotonic() >= deadline):
                if waiting and len(self.running) < most and self._start_one(waiting):
                    continue
                self._look()
                if self.running or waiting:
                    time.sleep(LOOK_EVERY)
            self._look()
        finally:
            self._stop()

    def _start_one(self, waiting: list[Cell]) -> bool:
        """Start a cell that no other process is at, rather one that need not wait for experts another one is training."""
        training = {job.cell.experts for job in self.running if job.cell.needs_experts} - self.trained
        for cell in sorted(waiting, key=lambda cell: cell.needs_experts and cell.experts in training):
            if (found := self.folder.read(cell)) is not None and not self.how.again(
                cell
            ):  # another process has finished it meanwhile
                waiting.remove(cell)
                self._finished(cell, found)
                return True
            try:
                held = lock(self.folder.run_folder(cell) / ".cell").acquire(timeout=0)
            except (Busy, FileNotFoundError):  # another process is at it, or is just clearing up what it has left
                continue
            waiting.remove(cell)
            self._start(cell, held)
            return True
        return False

    def _start(self, cell: Cell, held: Lock) -> None:
        if self.folder.result_file(cell).exists() and not self.how.again(cell):  # finished between the look and the lock
            held.release()
            self._take_over(cell)
            return
        path, run, executor = self.folder.log_file(cell), self.folder.run_folder(cell), current()
        if cell.recipe is None and not isinstance(executor, Cluster):
            with held:
                self._make(cell)
            return
        if cell.recipe is None:
            assert isinstance(executor, Cluster), "others compute it, or it was made above"
            process = executor.apart(_make, (cell, run), path)
        else:
            process = executor.start(distill_command(cell, run), path, self.how.jobs or 1)
        self.running.append(_Job(cell, held, process))

    def _take_over(self, cell: Cell) -> None:
        """Take what another process has finished."""
        found = self.folder.read(cell)
        assert found is not None, "it was there"
        self._keep(cell, found)

    def _make(self, cell: Cell) -> None:
        """Distil a cell of objects in this process."""
        from limbeck.runs.distill import distill

        try:
            run = self.folder.run_folder(cell)
            distill(cell.settings, run, resume=run.exists(), progress=self.how.progress)
        except (Failure, UsageError) as error:
            self._failed(cell, error)
        else:
            self._take(cell)

    def _look(self) -> None:
        """Take in what has ended."""
        for job in list(self.running):
            if (status := job.process.poll()) is None:
                continue
            self.running.remove(job)
            if status:
                self._failed(job.cell, _last_words(status, self.folder.log_file(job.cell)))
            else:
                self._take(job.cell)
            job.held.release()

    def _take(self, cell: Cell) -> None:
        """Keep what a distillation has left."""
        try:
            found = self.folder.collect(cell)
        except Failure as error:
            self._failed(cell, error)
        else:
            self._keep(cell, found)

    def _keep(self, cell: Cell, found: CellRecord) -> None:
        """Measure what else is wanted of a finished cell, and clear what it has left."""
        run = self.folder.run_folder(cell)
        try:
            if self.how.measure is not None and (run / "settings.json").exists():
                self.how.measure(cell, run)
        except (Failure, UsageError) as error:
            self._failed(cell, error)
        else:
            self.folder.clear(cell, self.how.keep)
            self._finished(cell, found)

    def _failed(self, cell: Cell, why: object) -> None:
        known = {kind_of(said) for said in self.failed.values()}
        self.failed[cell.name] = str(why)
        if kind_of(str(why)) not in known:  # all of them are said at the end
            self.how.progress.say(f"{cell.name} failed: {why}")
        self.stage.advance(cell=cell.name)

    def _finished(self, cell: Cell, found: CellRecord) -> None:
        self.results[cell.name] = found
        if cell.needs_experts:
            self.trained.add(cell.experts)
        self.stage.advance(cell=cell.name, accuracy=found.accuracy.distilled.mean)

    def _stop(self) -> None:
        """End what is running; its checkpoints stay."""
        for job in self.running:
            if job.process.poll() is None:
                job.process.interrupt()
        last = time.monotonic() + GRACE
        for job in self.running:
            if not job.process.wait(max(0.0, last - time.monotonic())):
                job.process.kill()
            job.held.release()
        self.running.clear()


def _make(shared: None, made: tuple[Cell, Path], tick: Tick) -> int:
    """Distil a cell of objects in a process that is there for it."""
    from limbeck.runs.distill import distill

    distill(made[0].settings, made[1], resume=made[1].exists())
    return 0


def _last_words(status: int, log: Path) -> str:
    """Why a process ended with that status."""
    if status < 0:
        return f"its process was killed by {signal.Signals(-status).name}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    message = lines[-1].removeprefix("limbeck: ").removeprefix("error: ").removeprefix("failed: ") if lines else "no message"
    return f"{message[:300]} (status {status}; {log} has all it said)"
