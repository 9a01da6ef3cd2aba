"""From images to an evaluated distilled set.

    data → experts → initial images and labels → outer loop → evaluation → DistilledSet

A run folder holds everything that the run did; `resume` goes on from what is there and ends with the same bits. Where there are
several ranks, this is what rank 0 does (`accompany.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

import torch

from limbeck.accuracy import Accuracy, StepSize
from limbeck.distilled.initial import content_of
from limbeck.distilled.read import STEP_SIZE
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import NamedSet, SmallSet
from limbeck.distilled.view_labels import VIEWS
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.results import SetResult
from limbeck.experts.blocks import BrokenFile
from limbeck.experts.store import TrajectoryStore
from limbeck.methods.health import GROWN, growth, sizes
from limbeck.methods.outer import OuterLoop
from limbeck.methods.registry import name_of
from limbeck.methods.snapshots import Callback
from limbeck.methods.state import OuterState
from limbeck.runs import common, coresets, feature_map
from limbeck.runs.accompany import Leader, Loop, accompany, same_number
from limbeck.runs.checks import check
from limbeck.runs.coresets import built
from limbeck.runs.data_card import DataCard
from limbeck.runs.decided import resolve
from limbeck.runs.feature_map import FeatureMap
from limbeck.runs.folder import RunFolder, alone
from limbeck.runs.needs import check_experts, check_images, check_run
from limbeck.runs.results import ExpertsUsed, RunResult
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.determinism import repeating, statement
from limbeck.runtime.devices import environment, repeatable, same_device
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.executor import Shard
from limbeck.runtime.fingerprint import encodable, plain
from limbeck.runtime.memory import reuse_freed_memory
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.room import check_place, vanished
from limbeck.tracking.libraries import check_sinks
from limbeck.tracking.settings import names_of
from limbeck.tracking.sink import About
from limbeck.tracking.tracker import Tracker, tracked

# What of a result goes into the set's metadata.
IN_METADATA = (
    *(
        "accuracy",
        "recovery_ratio",
        "doubts",
        "lossless",
        "compression",
        "gain",
        "coresets",
        "best_iteration",
        "protocol",
        "network",
        "networks",
    ),
    *("view_labels", "data", "returns", "grown"),
)


ENDING = 5.0  # seconds that a run may take to end which was just stopped


@dataclass(frozen=True)
class Eta:
    """How a set came by its η: what counts as its own where it is evaluated, and whether it was learned."""

    own: StepSize | None
    learned: bool = False

    @property
    def noted(self) -> dict[str, str]:
        """What the set's metadata say of one that was not learned; a protocol's own is no step size of the set."""
        if self.learned or self.own is None:
            return {}
        return {STEP_SIZE: "assumed" if self.own.origin in ("protocol", "assumed") else self.own.origin}


def train_experts(settings: DistillSettings, *, progress: Progress | None = None, shard: Shard = Shard()) -> TrajectoryStore:
    """The experts that `distill` would use, found in the cache or trained; or a share of them, for several processes to train."""
    with repeating(settings.engine.deterministic):
        workspace = Workspace(settings, progress or NoProgress())
        check(workspace)
        check_experts(workspace)
        return workspace.experts if shard == Shard() else workspace.train_experts(shard)


def distill(
    settings: DistillSettings,
    output: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    recipe: str | None = None,
    experts: TrajectoryStore | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunResult:
    """Distil, evaluate and save.

    Args:
        settings: of the run.
        output: the run folder, absent or empty unless `resume`.
        resume: go on with the run in `output`; where there is none, one begins, which is said.
        progress: where to report.
        recipe: the name of the recipe, noted in the result.
        experts: the experts, instead of those of the cache.
        callbacks: called at every evaluation of the outer loop.

    Raises:
        UsageError: for data, a network or an `ipc` that do not fit, or a run folder that is taken; nothing is written then.
        Failure: when an expert diverges.
        DiskFailure: when a disk is full, or has gone, while the run goes on.
    """
    leader = Leader()
    with repeating(settings.engine.deterministic):
        if not leader.ranks.first:
            return accompany(settings, Path(output), experts)
        with leader.leading():
            check_sinks(names_of(settings.track))
            found = _distill(settings, Path(output), resume, progress or NoProgress(), recipe, experts, callbacks, leader)
        return leader.end(found)


def _distill(
    settings: DistillSettings,
    output: Path,
    resume: bool,
    progress: Progress,
    recipe: str | None,
    experts: TrajectoryStore | None,
    callbacks: Sequence[Callback],
    leader: Leader,
) -> RunResult:
    ended = RunFolder(output, settings, resume).results_file.exists()  # refuses before the data are loaded
    if not ended:
        check_place(output, "output")
    workspace = Workspace(settings, progress, experts)
    for note in settings.notes():
        workspace.progress.say(note)
    check(workspace)
    if not ended:
        _check_checkpoints(workspace)
        coresets.check(workspace, workspace.decoder.real_images(settings.ipc))
        check_run(workspace, output)
    with alone(output, ENDING if resume else 0.0):
        folder = RunFolder(output, settings, resume, workspace.protocol_named)
        if resume and not folder.state_file.exists():
            progress.say(f"note: output: there is no run in {str(output)!r} to go on with; a new one begins")
        for note in folder.open(workspace.data.fingerprint, workspace.network):
            workspace.progress.say(note)
        if workspace.start is not None:
            folder.hold_start(content_of(workspace.start))
        resolved = same_number(folder.state.resolved, resolve(settings))
        folder.note(resolved=resolved)
        here, accepted = str(workspace.device), f"{resolved.device!r}, where the run was started"
        require(same_device(here, resolved.device), "engine.device", here, accepted)
        repeatable(workspace.device, tf32=settings.engine.precision == "tf32")
        if (found := folder.results(RunResult.from_dict, workspace.progress.say)) is not None:
            return found.at(run=str(output), distilled=str(output / "distilled"))  # wherever it was made
        leader.resolved = resolved
        torch.set_num_threads(resolved.threads)  # sums over threads round differently: a resumed run keeps the number
        about = About(output, output.resolve().name, "", encodable(settings))
        try:
            with tracked(names_of(settings.track), output, about, workspace.progress.say) as tracker:
                return _run(workspace, folder, recipe, callbacks, tracker, leader)
        except (OSError, UsageError) as error:
            if folder.state_file.exists():
                raise
            raise vanished(output) from error


def _check_checkpoints(workspace: Workspace) -> None:
    """Raise `UsageError` for a protocol that chooses among checkpoints where there are no images to choose on."""
    protocol = workspace.protocol
    chooses = workspace.method.kind == "objective" and protocol.best == "checkpoint"
    accepted = "one for a run without validation images: it chooses a checkpoint on them (data.val_fraction above 0)"
    require(not chooses or len(workspace.data.val) > 0, "eval.protocol", protocol.name, accepted)


def _run(
    workspace: Workspace,
    folder: RunFolder,
    recipe: str | None,
    callbacks: Sequence[Callback],
    tracker: Tracker,
    leader: Leader,
) -> RunResult:
    settings, evaluator = workspace.settings, workspace.evaluator().decided(workspace.ipc)
    reuse_freed_memory()
    DataCard.of(workspace.data, workspace.preprocessing, pictures=settings.features != "none").write(folder.path, folder.run_id)
    if workspace.method.kind != "objective":
        with folder.stage("build"):
            if str(workspace.method.make).startswith("limbeck."):
                made = leader.with_all(workspace, built, folder.path)
            else:  # of one's own: nothing is known of what it writes, or draws
                made = built(workspace, folder.path)
        chosen = leader.with_all(workspace, common.step_size, made.to("cpu"), settings.outer.syn_lr_init)
        start, small, eta, loop = None, replace(made, syn_lr=chosen.value), Eta(chosen), None
    else:
        start, small, eta, loop = _distilled(workspace, folder, evaluator, callbacks, tracker, leader)
    save = partial(_save, workspace, folder, recipe, eta)
    save(small)  # what is distilled is there whatever becomes of its evaluation
    if settings.view_labels.store:
        with folder.stage("label views"):
            stored = leader.with_all(workspace, common.view_labels, small.to("cpu"), folder.path / VIEWS)
        small = replace(small, views=stored)
    with folder.stage("evaluate"):
        measured = leader.with_all(workspace, common.measured, small.to("cpu"), eta.own, start and start.to("cpu"))
    if loop is not None and evaluator.protocol.best == "checkpoint":
        measured = _with_best(measured, folder.path / "metrics.jsonl")
    _keep_map(workspace, folder, evaluator, small, loop)
    state = folder.state
    result = RunResult(
        evaluation=measured,
        best_iteration=loop.best.iteration if loop and loop.best else None,
        skipped_share=loop.skipped / max(loop.iteration, 1) if loop else None,
        skipped=loop.health.causes if loop else {},
        returns=loop.health.returns if loop else (),
        grown=_grown(small, loop) if loop else {},
        seconds=state.stages,
        cpu_seconds=state.cpu_seconds,
        peak_memory=state.peak_memory,
        experts=_experts_used(workspace.experts, settings, workspace.progress) if workspace.needs_experts else None,
    ).at(run=str(folder.path), distilled=str(folder.path / "distilled"))
    if workspace.needs_experts:
        result = result.at(experts=workspace.experts.place)
    save(small, result)
    folder.write_results(result)
    if loop is None:
        tracker.picture(0, _named(workspace, small))
    tracker.result(loop.iteration if loop else 0, measured.accuracy)
    return result


def _keep_map(workspace: Workspace, folder: RunFolder, evaluator: Evaluator, small: SmallSet, loop: OuterState | None) -> None:
    """Keep what the report shows of the feature space, where it is asked for and the network has one."""
    asked = workspace.settings.features
    (folder.path / feature_map.FILE).unlink(missing_ok=True)
    if asked == "none":
        return
    with folder.stage("features"):
        best = loop.best.iteration if loop and loop.best else None
        looks = {} if best is None else feature_map.looked_at(folder.path, folder.run_id, best)
        try:
            made = FeatureMap.of(evaluator, small, looks, best, most="PCA" if asked == "pca" else "t-SNE")
        except UsageError as error:
            workspace.progress.say(f"note: features: the report will have no map of features: {error}")
            return
        made.write(folder.path, folder.run_id)


def _grown(small: SmallSet, loop: OuterState) -> dict[str, float]:
    """How many times as large as at the start X, Y and η are, those that have grown beyond what is usual."""
    eta = torch.tensor(small.syn_lr or 0.0)
    return {
        name: times for name, times in growth(loop.health.sizes, sizes(small.stored, small.labels, eta)).items() if times > GROWN
    }


def _distilled(
    workspace: Workspace,
    folder: RunFolder,
    evaluator: Evaluator,
    callbacks: Sequence[Callback],
    tracker: Tracker,
    leader: Leader,
) -> tuple[SmallSet, SmallSet, Eta, OuterState]:
    """The start, the set of the best evaluation, how its η was come by, and the loop's last state."""
    settings, engine = workspace.settings, None
    if workspace.needs_experts:
        with folder.stage("experts"):
            # Trained now, that their time counts here.
            store: TrajectoryStore = leader.with_all(workspace, attrgetter("experts"))
        folder.hold_experts(store.content)
    elif not leader.ranks.alone:
        leader.with_all(workspace, common.full_data)  # of the first of which maps are made
    with folder.stage("initial"):
        sharded = workspace.spread.sharded
        start = workspace.initial()
        if sharded and not workspace.spread.sharded:
            check_images(workspace)  # all of which every process now holds
    if workspace.method.steps:
        with folder.stage("compile"):
            resolved = folder.state.resolved
            step, adjoint, arrangement = workspace.engine(resolved.engine)
            folder.note(resolved=replace(resolved, engine=arrangement))
        engine = (step, adjoint)
    tracker.named = _named(workspace, replace(start, code=None))
    enhancement = workspace.enhancement(start.classes)
    place, resolved = workspace.experts.path if workspace.needs_experts else None, folder.state.resolved
    leader.enter(Loop(start.classes, start.kind, resolved, resolved.engine, place, workspace.protocol_named))
    loop = OuterLoop(
        objective=workspace.method(workspace, start.classes, engine),
        enhancement=enhancement,
        settings=settings.outer,
        evaluate=common.look(evaluator, start.classes, start.kind),
        every=settings.eval.every,
        match_norm=settings.match.match_norm,
        folder=folder.path,
        progress=workspace.progress,
        callbacks=(*callbacks, *tracker.callbacks),
        run_id=folder.run_id,
        heard=tracker.row if tracker.feeds else None,
        spread=workspace.spread,
        decoder=workspace.decoder,
    )
    with folder.stage("distil"):
        state = loop.run(start.stored, start.labels, workspace.syn_lr)
        leader.left()
        small = loop.best(state, start)
        if workspace.method.steps or settings.outer.lr_lr > 0:  # students were trained with it, or it was learned
            return start, small, Eta(evaluator.own_step_size(small, evaluator.network.name), True), state
        found = leader.with_all(workspace, common.step_size, replace(small, syn_lr=None).to("cpu"), workspace.syn_lr)
        return start, small if found.origin == "protocol" else replace(small, syn_lr=found.value), Eta(found), state


def _named(workspace: Workspace, small: SmallSet) -> NamedSet:
    return NamedSet(set=small, preprocessing=workspace.preprocessing, class_names=workspace.data.class_names)


def _with_best(measured: SetResult, metrics: Path) -> SetResult:
    """The result with the best test accuracy of all checkpoints that were looked at, the final figure among them."""
    looks = [row["accuracy"] for row in read_metrics(metrics) if row.get("kind") == "evaluation"]
    tested = [Accuracy.from_dict(one["best_on_test"]) for one in looks if isinstance(one, Mapping) and "best_on_test" in one]
    own = measured.accuracy.distilled
    best = max([*tested, own], key=lambda one: one.mean)
    return replace(measured, accuracy=replace(measured.accuracy, distilled=replace(own, best_on_test=best)))


def _experts_used(store: TrajectoryStore, settings: DistillSettings, progress: Progress) -> ExpertsUsed:
    """How good those were that were trained to the last epoch, which are those that give labels."""
    epochs, labels = settings.experts.train_epochs, settings.experts.label_experts or settings.experts.num_experts
    curves: list[Sequence[float | None]] = []
    for expert in range(labels):
        try:
            curves.append(store.accuracies(expert))
        except BrokenFile as error:  # no reason to lose what was distilled
            progress.say(f"warning: {error}")
            curves.append([])
    last = tuple(curve[epochs - 1] if len(curve) >= epochs else None for curve in curves)
    return ExpertsUsed(num_experts=settings.experts.num_experts, last_epoch_accuracy=last)


def _save(
    workspace: Workspace, folder: RunFolder, recipe: str | None, eta: Eta, small: SmallSet, result: RunResult | None = None
) -> None:
    settings, found = workspace.settings, {} if result is None else result.to_dict()
    levels = workspace.data.levels  # what was black and white stays so for whatever images the set is measured on
    metadata = {
        "method": name_of(settings.method),
        "recipe": recipe,
        "settings": plain(replace(settings, data=replace(settings.data, range=levels)) if levels else settings),
        **eta.noted,
        "resolved": folder.state.resolved.to_dict(),
        "seeds": {"seed": settings.seed, "data": settings.data.seed},
        "versions": {key: value for key, value in environment(workspace.device).items() if key != "determinism"},
        "determinism": statement(workspace.device, folder.state.resolved.engine),
        "fingerprints": workspace.record().to_dict(),
        "evaluation": {key: found[key] for key in IN_METADATA if key in found},
    }
    DistilledSet(
        set=small.to("cpu"),
        preprocessing=workspace.preprocessing,
        class_names=workspace.data.class_names,
        metadata=metadata,
    ).save(folder.path / "distilled")
