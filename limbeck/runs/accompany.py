"""One run on several ranks: rank 0 leads it, from the images to the report, and the others accompany it through the outer loop.

    rank 0     data ─┬─► experts ─┬─► start, engine ─┬─► outer loop ─┬─┬─► evaluation ─┬─► DistilledSet
    others     wait  └─► experts ─┘   wait           └─► outer loop ─┘ └─► evaluation ─┘   wait

Experts, teachers and networks of evaluations are spread over all of them (`Leader.with_all`), in the loop by the loop itself.

What is decided automatically rank 0 decides, and tells the others; they write nothing, and say nothing. They wait as long as it
takes, and raise what rank 0 raises while they do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from limbeck.distilled.small_set import Kind
from limbeck.evaluation.protocols import Protocol
from limbeck.experts.store import TrajectoryStore
from limbeck.matching.engine import Arrangement
from limbeck.methods.enhance import Enhancement
from limbeck.methods.outer import OuterLoop
from limbeck.runs import build, common
from limbeck.runs.decided import Resolved
from limbeck.runs.results import RunResult
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import repeatable
from limbeck.runtime.progress import NoProgress
from limbeck.runtime.ranks import Ranks, together

T = TypeVar("T")


@dataclass(frozen=True)
class Loop:
    """What the others have to know in order to enter the loop.

    Args:
        classes: of the images, int64 with shape (N,).
        kind: what their labels are.
        resolved: what was decided automatically.
        engine: how the engine works, where there is one.
        experts: where they lie, where any are read.
        protocol: as rank 0 has read it.
    """

    classes: Tensor
    kind: Kind
    resolved: Resolved
    engine: Arrangement | None
    experts: Path | None
    protocol: Protocol


@dataclass(frozen=True)
class Common:
    """What all ranks do together: `work(workspace, *arguments)`, a function of a module, and what can be pickled.

    Args:
        work, arguments: these.
        protocol: as rank 0 has read it, whose file may say something else by now.
        resolved: what was decided automatically, once it is.
    """

    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    protocol: Protocol
    resolved: Resolved | None = None

    def __call__(self, workspace: Workspace) -> Any:
        workspace.protocol_named = self.protocol
        if self.resolved is not None:
            _compute_alike(workspace, self.resolved)
        with together():
            return self.work(workspace, *self.arguments)


@dataclass
class Leader:
    """Rank 0's side: what it tells, once each."""

    ranks: Ranks = field(default_factory=Ranks.here)
    waiting: bool = True  # whether the others wait to be told something, and are not in the loop
    entered: bool = False
    resolved: Resolved | None = None  # what all compute by, once it is decided

    def enter(self, loop: Loop) -> None:
        """Have the others enter the loop."""
        self.ranks.told(lambda: loop)
        self.waiting, self.entered = False, True

    def with_all(self, workspace: Workspace, work: Callable[..., T], *arguments: Any) -> T:
        """What `work(workspace, *arguments)` returns, called on all ranks, each with a workspace of its own."""
        common = Common(work, arguments, workspace.protocol_named, self.resolved)
        if not self.ranks.alone:
            self.ranks.told(lambda: common)
        waiting, self.waiting = self.waiting, False  # what goes wrong now, they see by themselves
        found: T = common(workspace)
        self.waiting = waiting
        return found

    def left(self) -> None:
        """Note that all have left the loop."""
        self.waiting = True

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Inside the block the others wait; what is raised while they do they raise, too."""
        try:
            yield
        except Exception as error:
            if self.waiting and not self.ranks.alone:
                self.ranks.told(partial(_raise, error))
            raise

    def end(self, result: RunResult) -> RunResult:
        """Let the others go, with the result."""
        if not self.entered:
            self.ranks.told(lambda: None)
        return self.ranks.told(lambda: result)


def accompany(settings: DistillSettings, output: Path, store: TrajectoryStore | None) -> RunResult:
    """What a rank other than 0 does of the run in `output`."""
    ranks, workspace = Ranks.here(), Workspace(settings, NoProgress(), store)
    loop = _asked(ranks, workspace)
    if loop is not None:
        workspace.protocol_named = loop.protocol
        workspace.lay_out(loop.classes)
        _compute_alike(workspace, loop.resolved)
        if loop.experts is not None and store is None:
            workspace.store = TrajectoryStore(loop.experts)
        engine = workspace.engine(loop.engine)[:2] if workspace.method.steps else None
        one = OuterLoop(
            objective=workspace.method(workspace, loop.classes, engine),
            enhancement=_enhancement(workspace, loop.classes),
            settings=settings.outer,
            evaluate=common.look(workspace.evaluator().decided(workspace.ipc), loop.classes, loop.kind),
            every=settings.eval.every,
            match_norm=settings.match.match_norm,
            folder=output,
            spread=workspace.spread,
            decoder=workspace.decoder,
        )
        nothing = torch.empty(0, device=workspace.device)
        one.run(nothing, nothing, 0.0)
    result: RunResult = _asked(ranks, workspace)
    return result


def _compute_alike(workspace: Workspace, resolved: Resolved) -> None:
    """Have this process compute as rank 0 does."""
    torch.set_num_threads(resolved.threads)
    repeatable(workspace.device, tf32=workspace.settings.engine.precision == "tf32")


def _asked(ranks: Ranks, workspace: Workspace) -> Any:
    """What rank 0 tells, once everything is done that it asks for before."""
    while isinstance(told := ranks.told(_not_here), Common):
        told(workspace)
    return told


def same_number(resolved: Resolved, fresh: Resolved) -> Resolved:
    """What was decided, or where it was for another number of ranks what is decided now, in the same precision."""
    if resolved.ranks == fresh.ranks:
        return resolved
    return replace(fresh, engine=resolved.engine)


def _enhancement(workspace: Workspace, classes: Tensor) -> Enhancement:
    """Maps and weights of the images that this rank holds; where it holds all, rank 0 makes them, and no network is asked for."""
    if workspace.spread.sharded:
        return workspace.enhancement(classes)
    s = workspace.settings.enhance
    return Enhancement(nn.Identity(), classes, workspace.seed, build.cam_of(s), build.weighting_of(s), s.cam_every)


def _not_here() -> Any:
    raise AssertionError("rank 0 is told nothing")


def _raise(error: Exception) -> None:
    raise error
