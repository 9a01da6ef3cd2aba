"""What a run will write and hold, estimated before it begins: at least so much, from sizes alone.

    output    two checkpoints (X, velocity, average, Y), the whole snapshots of the first and the best evaluation, parts of the
              others, the set twice (while one takes the other's place), a line of metrics an iteration, small pictures of real
              images, labels of views
    cache     the epochs that experts lack, and the networks of the full data that are not kept yet
    memory    X four times over, the graph of `unroll`, a block of an expert's checkpoints, an epoch of labels of views

A run that would fill the disk, or be ended by the system for want of memory, is refused with the setting to change.
"""

import math
from collections.abc import Iterable
from pathlib import Path

from limbeck.distilled.label_coding import TYPES
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.named import called
from limbeck.experts.estimate import estimate
from limbeck.experts.files import held_bytes
from limbeck.experts.notes import want_of
from limbeck.matching.adjoint import Unroll
from limbeck.matching.engine import unrolled_bytes
from limbeck.methods.snapshots import LOOKED_AT
from limbeck.runs import build, data_card, feature_map
from limbeck.runs.record import networks_of
from limbeck.runs.workspace import Workspace
from limbeck.runtime.kept import cache_root
from limbeck.runtime.memory import check_memory
from limbeck.runtime.room import Need, check_cache, check_place, check_room

LINE = 200  # bytes of metrics an iteration
DRAWN = 20  # bytes of how a view is seen: which image, and its box
HELD = 4  # times X: itself, its gradient and velocity, and what is evaluated or written; AdamW has second moments, too
CACHE = "LIMBECK_CACHE"


def check_run(workspace: Workspace, output: Path) -> None:
    """Raise `UsageError` where a run would want for room or memory, or the cache, which lacks something, cannot be written to."""
    check_held(workspace)
    experts, full = expert_needs(workspace), full_needs(_evaluators(workspace))
    _check_writable([*experts, *full])
    check_room([*output_needs(workspace, output), *experts, *full])


def check_experts(workspace: Workspace) -> None:
    """The same where only experts are trained."""
    _check_block(workspace)
    needs = expert_needs(workspace)
    _check_writable(needs)
    check_room(needs)


def check_full(evaluators: Iterable[Evaluator]) -> None:
    """The same where sets are evaluated."""
    needs = full_needs(evaluators)
    _check_writable(needs)
    check_room(needs)


def _check_writable(needs: Iterable[Need]) -> None:
    """Raise `UsageError` where something is needed of a place that cannot be written to; what is complete is only read."""
    for need in needs:
        if need.size > 0 and need.key == CACHE:
            check_cache()
        elif need.size > 0:
            check_place(need.folder, need.key)


def output_needs(workspace: Workspace, output: Path) -> list[Need]:
    """What the run folder will take beside what is in it."""
    s, data, method = workspace.settings, workspace.data, workspace.method
    channels, total = data.shape[0], workspace.ipc * data.num_classes
    x, y = 4 * total * math.prod(data.shape), 4 * total * data.num_classes
    p = 4 * s.ipc * data.num_classes * math.prod(workspace.decoder.slot_shape)  # X itself, where pixels are stored
    size = 2 * (p + y)
    if s.data.zca:
        size += 2 * 2 * 4 * math.prod(data.shape) ** 2  # two matrices, in the card and in the set
    if s.features != "none":
        near = feature_map.NEAR[0] * min(total, feature_map.ASKED)
        for count, budget in ((data_card.EXAMPLES * data.num_classes, data_card.BUDGET), (near, feature_map.PICTURES)):
            count = min(count, len(data.train))
            size += count * channels * math.prod(data_card.small(data.shape, count, budget))
    if method.kind == "objective":
        averaged, adamw = s.outer.ema_decay is not None, s.outer.adamw
        maps = x // channels
        decoded = 0 if workspace.decoder.trivial else x
        whole, looks = p + decoded + y + 2 * maps, math.ceil(s.outer.iterations / s.eval.every) + 1
        part = min(1.0, LOOKED_AT / x) * whole
        checkpoints = 4  # the last two, the best one's, and one that is being written
        size += checkpoints * ((2 + averaged + adamw) * p + 2 * y) + min(2, looks) * whole + int(max(0, looks - 2) * part)
        size += LINE * s.outer.iterations
    if s.view_labels.store:
        size += _epochs(workspace) * total * (_label_bytes(workspace) + DRAWN)
    there = sum(file.stat().st_size for file in output.rglob("*") if file.is_file()) if output.is_dir() else 0
    return [Need(output, max(0, size - there), "of results", "output")]


def expert_needs(workspace: Workspace) -> list[Need]:
    """What the store of the experts will take beside what it holds."""
    if not workspace.needs_experts or workspace.store is not None:
        return []
    task, settings = workspace.expert_task, workspace.settings.experts
    want, store = want_of(settings, workspace.reachable_epochs), task.find_store()
    size = estimate(want, workspace.network.num_parameters, state=int(settings.momentum > 0), store=store)
    return [Need(task.path, size.to_write, "of experts", "experts.store" if settings.store else CACHE)]


def full_needs(evaluators: Iterable[Evaluator]) -> list[Need]:
    """What the networks of the full data will take that are not kept yet."""
    size = 0
    for evaluator in evaluators:
        if not evaluator.full_data.complete():
            answers = evaluator.settings.full_seeds * len(evaluator.data.test) * evaluator.data.num_classes
            size += 4 * (evaluator.network.num_parameters + answers)
    return [Need(cache_root() / "full", size, "of networks of the full data", CACHE)]


def _evaluators(workspace: Workspace) -> Iterable[Evaluator]:
    yield workspace.evaluator()
    for network in networks_of(workspace.settings):
        if network is not workspace.settings.network and network != workspace.settings.network:
            with called("eval.networks"):
                made = workspace.network_of(network)
            yield workspace.evaluator_of(made)


def check_held(workspace: Workspace) -> None:
    """Raise `UsageError` where something that will be held at once is more than the memory that is free."""
    s, data, device = workspace.settings, workspace.data, workspace.device
    total = workspace.ipc * data.num_classes
    check_images(workspace)
    if workspace.method.steps and isinstance(build.adjoint_of(s.engine), Unroll):
        what = f"the graph of {s.match.syn_steps} student steps"
        less = "engine.kind=exact takes that of one step for the same gradient, a lower match.syn_steps or match.batch_syn less"
        check_memory(unrolled_bytes(workspace.problem()), device, "engine.kind: 'unroll'", what, less)
    if workspace.needs_experts and workspace.store is None:
        _check_block(workspace)
    if s.view_labels.store:
        size = 3 * total * _label_bytes(workspace)  # batch by batch, joined, and as bytes
        less = "view_labels.top=10 takes less"
        check_memory(size, device, f"view_labels.top: {s.view_labels.top}", "an epoch of labels of views", less)


def check_images(workspace: Workspace) -> None:
    """Raise `UsageError` where X, with what belongs to it, is more than the memory that is free."""
    s, data, spread = workspace.settings, workspace.data, workspace.spread
    total = workspace.ipc * data.num_classes
    rows = 4 * (math.prod(data.shape) + data.num_classes)
    held = HELD + s.outer.adamw
    size = (held * len(range(total)[spread.rows]) + (total if spread.sharded else 0)) * rows  # rank 0 has the start of all images
    less = "a lower ipc or a smaller data.size takes less"
    check_memory(size, workspace.device, f"ipc: {s.ipc}", f"distilling {total} images", less)


def _check_block(workspace: Workspace) -> None:
    """The checkpoints of an expert are kept until a block of them is written."""
    settings, parameters = workspace.settings.experts, workspace.network.num_parameters
    size = held_bytes(parameters, settings.train_epochs)
    what = f"training an expert of {parameters} parameters, of which a block of checkpoints is held,"
    check_memory(size, workspace.device, f"network: {workspace.network.name!r}", what, "a smaller network takes less")


def _epochs(workspace: Workspace) -> int:
    """Of which views are labelled."""
    epochs = workspace.protocol.epochs
    return min(epochs, workspace.settings.view_labels.pool or epochs)


def _label_bytes(workspace: Workspace) -> int:
    """Of what a teacher says of a view."""
    settings, classes = workspace.settings.view_labels, workspace.data.num_classes
    kept = classes if settings.top is None else settings.top + 1
    return kept * TYPES[settings.dtype].itemsize + (0 if settings.top is None else settings.top)
