"""What a plan has found of one device, as `scaling.py` wants it for several."""

import math
from collections.abc import Mapping

import torch

from limbeck.matching.adjoint import Adjoint, Unroll, WalkBack
from limbeck.methods.registry import name_of
from limbeck.runs import build
from limbeck.runs.computed import Computed
from limbeck.runs.scaling import NUMBER, Memory, Planner, Scaling, Work, World
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import on_gpu
from limbeck.runtime.executor import cores

TRAINED = ("dc", "dsa")  # whose networks are trained between two iterations


def work_of(workspace: Workspace, seconds: float | None = None, whole: float = 0.0) -> Work:
    """An iteration, and what several processes would sum up in it.

    Args:
        workspace: of the plan.
        seconds: of it.
        whole: the share of them that goes with no image.
    """
    settings, shape, classes = workspace.settings, workspace.data.shape, workspace.data.num_classes
    match, real, total, steps = settings.match, settings.real, workspace.ipc * classes, workspace.method.steps
    sums, ends, fetched = 0.0, 0, 0
    if steps:
        adjoint = build.adjoint_of(settings.engine)
        ends = 2 if match.match_norm and match.criterion != "none" else 1
        sums, whole = sums_of(adjoint, match.syn_steps, ends), whole if isinstance(adjoint, (WalkBack, Unroll)) else 1.0
    elif name_of(settings.method) in TRAINED:
        (outer, inner), batches = real.loops(workspace.ipc), math.ceil(total / real.network_batch)
        sums, fetched = inner * batches * (outer - 1) / outer, total * math.prod(shape) // batches
    return Work(
        parameters=workspace.network.num_parameters,
        sums=sums,
        ends=ends,
        set_numbers=total * (math.prod(shape) + classes * steps),
        fetched=fetched,
        images=total if steps else classes,
        batch=min(total, build.batch_of(match, workspace.slots) or total) if steps else classes,
        whole=None if seconds is None else whole * seconds,
        spread=None if seconds is None else (1 - whole) * seconds,
    )


def sums_of(adjoint: Adjoint, steps: int, losses: int) -> float:
    """How often P numbers are summed over processes in an iteration; by an adjoint of the user's never, all compute all.

    Args:
        adjoint: the way to the gradient.
        steps: T.
        losses: that are walked back from.
    """
    if isinstance(adjoint, Unroll):
        return steps * (1 + losses)
    return steps + losses * adjoint.by_theta * (adjoint.steps_back(steps) - 1) if isinstance(adjoint, WalkBack) else 0


def counted(workspace: Workspace, work: Work, found: Computed) -> Memory:
    """The memory that was counted: what an iteration needs beside X and θ_0 … θ_T is the work on a batch."""
    steps = workspace.settings.match.syn_steps + 3 if workspace.method.steps else 3
    total, iteration = workspace.ipc * workspace.data.num_classes, found.stages["iterations"]
    held = min(4 * NUMBER * total * math.prod(workspace.data.shape), found.held)
    image = max(0, iteration - NUMBER * steps * work.parameters) // work.batch
    return Memory(
        base=found.held - held,
        set=held,
        trajectory=iteration - image * work.batch,
        kept=0,
        image=image,
        at_once=work.batch,
        beside=max(bytes for stage, bytes in found.stages.items() if stage != "iterations"),
    )


def over_devices(workspace: Workspace, work: Work, memory: Memory, parts: Mapping[str, float], world: World) -> Scaling:
    """What the devices of a world would take.

    Args:
        workspace: of the plan.
        work, memory: of one device.
        parts: seconds of all there is to do on it.
        world: the devices.
    """
    return Planner(
        work=work,
        memory=memory,
        parts=parts,
        world=world,
        gpu=on_gpu(workspace.device),
        threads=torch.get_num_threads(),
        cores=world.cores or cores(),
        sharded=workspace.shards,
        whole=bool(workspace.must_hold_all),
    ).plan()
