"""The memory of a GPU that a distillation will take, computed without one: its tensors are counted on the stand-in.

    peak = P, Y, their velocities and average + the most of (an iteration, maps, an evaluation)

An iteration is counted with few steps; a walk back holds a θ for every one more, and other ways grow along a line. What a library
needs within one operation is not counted, nor the context of the driver; compiled passes hold less in between than the closed form
that is counted in their place.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from limbeck.evaluation.trials import Trial
from limbeck.matching.adjoint import WalkBack
from limbeck.matching.engine import Arrangement
from limbeck.methods.outer import COMPARE_EVERY, OuterLoop
from limbeck.methods.state import OuterState
from limbeck.methods.trajectory import TrajectoryMatching
from limbeck.runs import build
from limbeck.runs.workspace import Workspace
from limbeck.runtime.memory import measure
from limbeck.training.images import HELD_BYTES, TensorImages
from limbeck.training.targets import Labels

FEW_STEPS = 3
FEW_IMAGES = (32, 64)  # of maps, which are made of 32 images at a time
LOOKED_AT = 512


@dataclass(frozen=True)
class Computed:
    """What was counted.

    Args:
        engine: what is decided about the engine; None where no student steps are walked through.
        held: bytes of what lies on the device throughout.
        stages: bytes that `iterations`, `maps` and `evaluations` need beside that.
    """

    engine: Arrangement | None
    held: int
    stages: Mapping[str, int]

    @property
    def peak(self) -> int:
        """The most bytes at once."""
        return self.held + max(self.stages.values())


def computed(workspace: Workspace, validation_images: int = 0, arrangement: Arrangement | None = None) -> Computed:
    """Count the tensors of the outer loop of a workspace on the stand-in.

    Args:
        workspace: with experts and a map network that need no training.
        validation_images: how many images evaluations look at.
        arrangement: of the engine; None decides.
    """
    settings, data, device = workspace.settings, workspace.data, workspace.device
    total = workspace.ipc * data.num_classes
    classes, networks = torch.arange(data.num_classes).repeat_interleave(workspace.ipc), 8 * workspace.network.num_parameters
    engine = workspace.engine(arrangement) if workspace.method.steps else None
    objective = workspace.method(workspace, classes, engine and engine[:2])
    enhancement = workspace.enhancement(classes)
    loop = OuterLoop(
        objective=objective,
        enhancement=dataclasses.replace(enhancement, every=10**9),
        settings=settings.outer,
        evaluate=lambda *_: None,
        every=settings.eval.every,
        match_norm=settings.match.match_norm,
        folder=Path(),
        decoder=workspace.decoder,
    )
    x, y = (torch.empty(n, *shape, device=device) for n, shape in ((total, data.shape), (total, (data.num_classes,))))
    p = x if workspace.decoder.trivial else torch.empty(workspace.slots, *workspace.decoder.slot_shape, device=device)
    state, taken = measure(
        lambda: OuterState.start(p, y, workspace.syn_lr, objective.init(), workspace.decoder, adamw=settings.outer.adamw), device
    )
    state.iteration = COMPARE_EVERY  # where the plain gradient is computed, too

    def iteration(steps: int | None) -> int:
        short = objective
        if steps is not None and isinstance(short, TrajectoryMatching):
            short = dataclasses.replace(short, matching=dataclasses.replace(short.matching, syn_steps=steps))
            if isinstance(short.adjoint, WalkBack):
                short = dataclasses.replace(short, adjoint=dataclasses.replace(short.adjoint, kept=0))
        own = dataclasses.replace(loop, objective=short)

        def work() -> None:
            update, _, d_images = own.gradients(state)
            own.apply(state, update, d_images)

        return measure(work, device)[1].peak

    def weighed(few: int) -> int:
        return measure(lambda: dataclasses.replace(enhancement, classes=classes[:few]).weights(x[:few], 0), device)[1].peak

    batch = build.batch_of(settings.match, workspace.slots) or total
    few = max(FEW_STEPS, -(-total // min(batch, total)))  # with a smaller last batch, if there is one
    few = FEW_STEPS if engine and len(workspace.problem().batches) == 1 else few
    steps = settings.match.syn_steps
    if engine and isinstance(engine[1], WalkBack):
        more = 0 if engine[1].on_host else engine[1].steps_back(steps) - engine[1].steps_back(min(few, steps))
        iterations = iteration(min(few, steps)) + more * 4 * workspace.network.num_parameters
    else:
        iterations = _along(iteration, (few, 2 * few), steps) if engine else iteration(None)
    stages = {
        "iterations": iterations + _kept(workspace, engine[2] if engine else None),
        "maps": _along(weighed, FEW_IMAGES, total) if enhancement.active else 0,
        "evaluations": _evaluation(workspace, total) + min(HELD_BYTES, 4 * math.prod(data.shape) * validation_images),
    }
    return Computed(engine[2] if engine else None, taken.held + p.nbytes + y.nbytes + networks, stages)


def _along(bytes_of: Callable[[int], int], few: tuple[int, int], number: int) -> int:
    """The bytes at a number, by a line through those at two small ones."""
    low, high = few
    if number <= high:
        return bytes_of(number)
    first, second = bytes_of(low), bytes_of(high)
    return first + (second - first) * (number - low) // (high - low)


def _kept(workspace: Workspace, arrangement: Arrangement | None) -> int:
    """Bytes of the steps that are kept."""
    if arrangement is None or arrangement.kept == 0:
        return 0
    problem, (step, _, _) = workspace.problem(), workspace.engine(arrangement)
    theta, x, y, _ = problem.example(max(problem.batches))
    return arrangement.kept * measure(lambda: step.keep(theta, x, y), problem.device)[1].held


def _evaluation(workspace: Workspace, total: int) -> int:
    """Bytes of the training of one network on a batch, and of a look at some images."""
    evaluator, data = workspace.evaluator(), workspace.data
    how = evaluator.protocol.training(workspace.network, workspace.augmentation, workspace.syn_lr, workspace.ipc, workspace.kind)

    def some(count: int, *shape: int) -> Tensor:
        return torch.empty(count, *shape, device=workspace.device)

    batch = min(total, how.batch_size)
    images, looked_at = (TensorImages(some(count, *data.shape)) for count in (batch, LOOKED_AT))
    trial = Trial(images, Labels(some(batch, data.num_classes)), dataclasses.replace(how, epochs=1), ("computed",))

    def work() -> None:
        list(evaluator.trials.answers(trial, evaluator.trials.trained(trial), [looked_at]))

    return measure(work, workspace.device)[1].peak
