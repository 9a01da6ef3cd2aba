"""What all ranks of a run do together, each with a workspace of its own (`Leader.with_all`): functions that are sent by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from limbeck.accuracy import Accuracy, StepSize
from limbeck.distilled.read import STEP_SIZE
from limbeck.distilled.small_set import Kind, SmallSet
from limbeck.distilled.view_labels import StoredViews
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.results import SetResult
from limbeck.runs import coresets
from limbeck.runs.record import Rates, across, final_seeds, measure, networks_of, record
from limbeck.runs.workspace import Workspace


def full_data(workspace: Workspace) -> None:
    """Have the networks of the full data trained."""
    evaluator = workspace.evaluator()
    evaluator.full_data.found(lambda: evaluator.images_of("test"), workspace.progress)


def view_labels(workspace: Workspace, small: SmallSet, path: Path) -> StoredViews:
    """What the teacher of the evaluation says of the views of all epochs, kept in that file."""
    evaluator = workspace.evaluator().decided(workspace.ipc)
    return evaluator.label_views(small, path, workspace.settings.view_labels, workspace.progress)


def step_size(workspace: Workspace, small: SmallSet, also: float) -> StepSize:
    """The step size to train with on a set that has learned none."""
    return workspace.evaluator().decided(workspace.ipc).step_size(small, None, workspace.progress, (also,))


def look(evaluator: Evaluator, classes: Tensor, kind: Kind) -> Callable[[Tensor, Tensor, float], Accuracy] | None:
    """Gives the accuracy of (X, Y, η) on the way, where there are images to choose a checkpoint on."""
    protocol, seeds = evaluator.protocol, range(evaluator.settings.every_seeds)
    if not (protocol.validation and len(evaluator.data.val)):  # a source may have validation images of its own
        return None

    def found(x: Tensor, y: Tensor, eta: float) -> Accuracy:
        small = SmallSet(x, y, classes, eta, kind)
        if protocol.best == "checkpoint":
            return evaluator.looked_at(small, seeds)
        return evaluator.distilled(small, seeds=seeds, split="val")

    return found


def measured(workspace: Workspace, small: SmallSet, step: StepSize | None, start: SmallSet | None) -> SetResult:
    """The final evaluation, beside it the initial images, where there are any, and other networks.

    Args:
        workspace: of the run.
        small: the set.
        step: its own step size, where it has one there.
        start: what it began as.
    """
    settings, progress = workspace.settings, workspace.progress
    evaluator = workspace.evaluator().decided(workspace.ipc)
    seeds = final_seeds(settings.eval.seeds)
    rates = Rates.of(evaluator, small, step, progress)
    sets = coresets.coresets(workspace, small.real_ipc)
    rows = coresets.measured(evaluator, workspace, sets, small.syn_lr, seeds, progress)
    found = record(evaluator, small, measure(evaluator, small, rates, seeds, progress), progress, rows)
    if start is not None:
        initial = _initial(workspace, evaluator, small, start, seeds)
        found = replace(found, accuracy=replace(found.accuracy, initial=initial))
    others = [network for network in networks_of(settings) if network is not settings.network and network != settings.network]
    return replace(found, networks=across(workspace, small, others, seeds, sets))


def _initial(workspace: Workspace, evaluator: Evaluator, small: SmallSet, start: SmallSet, seeds: range) -> Accuracy:
    """That of the images that the set began as, which have learned no step size unless they are a set that has."""
    progress, held = workspace.progress, workspace.start
    own = None if held is None or STEP_SIZE in held.metadata else evaluator.own_step_size(start, evaluator.network.name)
    also = [rate for rate in (start.syn_lr, small.syn_lr) if rate is not None]
    step = evaluator.step_size(replace(start, syn_lr=None), own, progress, also)
    logits = evaluator.logits(replace(start, syn_lr=step.value), seeds, progress=progress, name="initial images")
    return evaluator.accuracies(logits).at(step)
