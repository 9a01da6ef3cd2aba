"""Setting the engine up: size of micro-batches, compiled or not, how many steps are kept — within a budget of memory.

    X and its gradients + θ_0 … θ_T + kept steps + the work of one step ≤ budget

A kept step saves two or three of the eleven convolutions that a step and its product cost, and holds its activations until
the walk back has passed it. Where no budget is given, all steps are kept if they are small; within one, as many of the last as fit.
Nothing is decided by a timing, which would differ from one start to the next.
"""

import copy
import math
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, InnerLoop, Unroll, WalkBack
from limbeck.matching.closed_form import Staged
from limbeck.matching.derivatives import Derivatives
from limbeck.matching.settings import EngineSettings, Precision
from limbeck.matching.steps import StepDraw, StudentStep
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.micro_batches import automatic_lanes, automatic_micro_batch, largest_activation
from limbeck.runtime.ahead import made_side_by_side
from limbeck.runtime.devices import STAND_IN, WITHOUT_BF16, fast_bf16, has_values, on_gpu, resolve_device, slow_bf16
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.lanes import lanes
from limbeck.runtime.memory import free_memory, measure
from limbeck.runtime.progress import Progress
from limbeck.runtime.ranks import Ranks
from limbeck.runtime.records import Record
from limbeck.training.gradient import Loss

# Compiling costs about half a minute and saves some ten milliseconds a step: below so many steps it does not pay.
COMPILE_FROM_STEPS = 5000
# Bytes that kept steps may take where no budget is given: about as much as PyTorch itself.
SMALL = 256 * 2**20
FEW_STEPS = 2


@dataclass(frozen=True, slots=True)
class Arrangement(Record):
    """What was decided: whether the step is compiled, images per micro-batch (None: all), steps kept, θ_n on the host.

    `precision` is what `auto` has come to; None where the settings name one. `lanes` are the micro-batches computed at once, and
    `ranks` the processes that it was decided for.
    """

    compiled: bool
    micro_batch: int | None = None
    kept: int = 0
    on_host: bool = False
    precision: Precision | None = None
    lanes: int = 1
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """What the engine is set up for.

    Args:
        network: f, on the device that computes.
        shape: of X, (N, C, H, W).
        num_classes: K.
        batches: the sizes of mini-batches that occur.
        steps: T.
        iterations: of the outer loop.
        loss: ℓ(logits, y) of a student step.
        even: whether these sizes are all that occur; a rank that holds a shard of X has of each batch as many as it happens to.
    """

    network: FlatNetwork
    shape: tuple[int, int, int, int]
    num_classes: int
    batches: Sequence[int]
    steps: int
    iterations: int
    loss: Loss = soft_cross_entropy
    even: bool = True

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.module.parameters()).device

    def example(self, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Some θ, x, y and λ of a batch."""
        generator = torch.Generator().manual_seed(0)
        theta = self.network.initial(generator)
        x = torch.randn(batch, *self.shape[1:], generator=generator)
        y = torch.randn(batch, self.num_classes, generator=generator)
        direction = torch.randn(theta.shape, generator=generator)
        return theta.to(self.device), x.to(self.device), y.to(self.device), direction.to(self.device)


def check_engine(settings: EngineSettings, network: FlatNetwork, device: torch.device, *, steps: bool = True) -> list[str]:
    """What a user should hear about the settings; raises `UsageError` for those that do not fit the network or the device.

    What is asked of student steps alone is not of a method without `steps`.
    """
    require(settings.precision != "tf32" or on_gpu(device), "engine.precision", settings.precision, "fp32 or bf16 on a CPU")
    pure = not (steps and network.has_dropout)
    require(pure, "network", network.name, "a network without dropout, whose student steps are functions of their input alone")
    whole = settings.micro_batch == "auto" or not (steps and network.has_batch_norm)
    accepted = f"auto: batch norm takes its statistics from the whole batch, and {network.name} has it"
    require(whole, "engine.micro_batch", settings.micro_batch, accepted)
    if settings.precision != "bf16" or not (taken := slow_bf16(device)):
        return []
    return [f"warning: engine.precision=bf16: its convolutions take {taken} as long as fp32's on this processor"]


def check_recipe(recipe: str, settings: EngineSettings) -> None:
    """Raise `UsageError` where a recipe asks for bf16 on a device that has no instructions for it, and the user does not."""
    if settings.precision == "bf16" and slow_bf16(resolve_device(settings.device)) == WITHOUT_BF16:
        without = "on a processor which has no instructions for bf16"
        slow = f"fp32: recipe {recipe} asks for it, and here bf16 takes {WITHOUT_BF16} as long, {without}"
        raise UsageError(f"engine.precision: 'bf16' is not {slow}; engine.precision=fp32, or =bf16 for all that, says which")


def precision_of(device: torch.device, settings: EngineSettings, decided: Arrangement | None = None) -> Precision:
    """The one that the settings name, or that was decided for `auto`."""
    if settings.precision != "auto":
        return settings.precision
    return (decided and decided.precision) or ("bf16" if fast_bf16(device) else "fp32")


def prepare(
    problem: Problem, adjoint: Adjoint, settings: EngineSettings, progress: Progress, arrangement: Arrangement | None = None
) -> tuple[StudentStep, Adjoint, Arrangement]:
    """The step, compiled before it is used, the way to the gradient, and what was decided.

    Args:
        problem: what to set up for.
        adjoint: the way to the gradient; one that does not walk back, such as `Unroll`, is left as it is, and its step uncompiled.
        settings: memory, micro-batches, precision and compilation: the keys `engine.*` but for its kind.
        progress: where to report.
        arrangement: what an earlier call decided, to be repeated; None decides.

    Raises:
        UsageError: when the budget is too small for micro-batches of one image, naming what would do.
    """
    if not isinstance(adjoint, WalkBack):
        decided = arrangement or decide(problem, adjoint, settings)
        return _step(problem, settings, decided), adjoint, decided
    decided = arrangement or decide(problem, adjoint, settings)
    decided = _compiled(problem, adjoint, settings, decided, progress)
    if arrangement is None:
        decided = _fitted(problem, adjoint, settings, decided, progress)
    return _step(problem, settings, decided), replace(adjoint, kept=decided.kept, on_host=decided.on_host), decided


def decide(problem: Problem, adjoint: Adjoint, settings: EngineSettings) -> Arrangement:
    """Whether the step is compiled, its micro-batches, how many of them are computed at once, and whether all steps are kept."""
    worth = problem.even and problem.steps * problem.iterations >= COMPILE_FROM_STEPS  # each size is a compilation
    precision = precision_of(problem.device, settings)
    plain = Arrangement(False, precision=precision if settings.precision == "auto" else None)
    if not isinstance(adjoint, WalkBack):
        return plain
    batch, place = max(problem.batches), (problem.network, problem.shape[1:], problem.device)
    given = None if settings.micro_batch == "auto" else settings.micro_batch
    if not {"yes": True, "no": False, "auto": worth}[settings.compile]:
        return replace(plain, micro_batch=given)
    lanes = automatic_lanes(*place, batch)
    if settings.micro_batch == "auto":
        cached = automatic_micro_batch(*place, 2 if precision == "bf16" else 4)
        given = cached and min(cached, -(-batch // lanes))
    lanes = min(lanes, -(-batch // (given or batch)))
    decided = replace(plain, compiled=True, micro_batch=None if given is None or given >= batch else given, lanes=lanes)
    able = settings.memory == "auto" and adjoint.by_theta and _step(problem, settings, decided).functions.keeps_tensors
    steps = adjoint.steps_back(problem.steps)
    return replace(decided, kept=steps) if able and steps * kept_bytes(problem, settings) <= SMALL else decided


def within_budget(problem: Problem, adjoint: Adjoint, settings: EngineSettings, decided: Arrangement) -> Arrangement:
    """The same with as many kept steps as a budget that is named has room for, by count: what is tried when the engine is made."""
    budget = settings.budget()
    if budget is None or not decided.compiled or not isinstance(adjoint, WalkBack) or not adjoint.by_theta:
        return decided
    if not _step(problem, settings, decided).functions.keeps_tensors:
        return decided
    walked = adjoint.steps_back(problem.steps)
    room = budget - _fixed(problem) - 4 * problem.network.num_parameters * (walked + 1) - _guess(problem, decided)
    return replace(decided, kept=min(walked, max(0, room) // kept_bytes(problem, settings)))


def _step(problem: Problem, settings: EngineSettings, decided: Arrangement) -> StudentStep:
    precision = precision_of(problem.device, settings, decided)
    parts = (problem.network, problem.loss, decided.compiled, precision, decided.micro_batch, decided.lanes)
    return _student(*parts) if isinstance(problem.loss, Hashable) else StudentStep(*parts)


@lru_cache(maxsize=4)
def _student(*parts: Any) -> StudentStep:
    """The same step for the same parts, which is compiled once while it is set up and used."""
    return StudentStep(*parts)


def _compiled(
    problem: Problem, adjoint: WalkBack, settings: EngineSettings, decided: Arrangement, progress: Progress
) -> Arrangement:
    """The same, compiled as far as it can be: not every compiler does without Python's lock, and there may be none."""
    while decided.compiled:
        then = "is compiled for one micro-batch after the other" if decided.lanes > 1 else "runs uncompiled"
        said = f"the step could not be compiled and {then}"
        if _compile(problem, adjoint, _step(problem, settings, decided), progress, decided.kept, said):
            break
        decided = replace(decided, lanes=1) if decided.lanes > 1 else replace(decided, compiled=False, kept=0)
    return decided


def _compile(problem: Problem, adjoint: WalkBack, step: StudentStep, progress: Progress, kept: int, said: str) -> bool:
    """Call every function that the walk will use once for every size of a micro-batch; else it is `said`."""
    if not has_values(problem.device):
        return True  # nothing runs there that could be compiled
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # its limit on recompilations counts over all networks of a process
    sizes = sorted({size for batch in problem.batches for size in step.sizes(batch)})
    walked = adjoint.steps_back(problem.steps)
    plain, again = problem.steps > kept, walked > kept
    with progress.stage("compile", len(sizes) * (plain + again + 2 * (kept > 0))) as stage:

        def call(advance: int) -> None:
            """Every function once."""
            for size in sizes:
                theta, x, y, direction = problem.example(size)
                if plain:
                    step.gradient(theta, x, y)
                    stage.advance(advance)
                if again:
                    step.pullback(theta, x, y, direction, by_theta=adjoint.by_theta)
                    stage.advance(advance)
                if kept:
                    held = step.keep(theta, x, y)[1]
                    stage.advance(advance)
                    step.pullback(theta, x, y, direction, held)
                    stage.advance(advance)

        try:
            with made_side_by_side():
                call(advance=0)
            call(advance=1)
        except Exception as error:  # noqa: BLE001 (a compiler fails in many ways, and none may stop the run)
            progress.say(f"warning: {said} ({type(error).__name__})")
            return False
    return True


def _fitted(problem: Problem, adjoint: WalkBack, settings: EngineSettings, decided: Arrangement, progress: Progress) -> Arrangement:
    """The same within the budget: micro-batches that fit, θ_n on the host where they take much, kept steps if they pay."""
    budget = settings.budget() or _half(problem)
    walked = adjoint.steps_back(problem.steps)
    thetas = 4 * problem.network.num_parameters * (walked + 1)
    on_host = on_gpu(problem.device) and thetas > budget // 4
    fixed = _fixed(problem) + (0 if on_host else thetas)
    decided = replace(decided, on_host=on_host)
    if settings.memory == "auto" and fixed + _guess(problem, decided) < budget // 2:
        work = _guess(problem, decided)
    else:
        decided, work = _that_fits(problem, adjoint, settings, decided, budget - fixed, progress)
        if work > budget - fixed and on_gpu(problem.device) and not on_host:
            fixed, decided = fixed - thetas, replace(decided, on_host=True)
            decided, work = _that_fits(problem, adjoint, settings, decided, budget - fixed, progress)
        if work > budget - fixed:
            accepted = f"at least {math.ceil((fixed + work) / 2**20)}MiB for this problem"
            held = " with engine.micro_batch as it is" if settings.micro_batch != "auto" else ""
            raise UsageError(f"engine.memory: {settings.memory!r} is not {accepted}{held}")
    if not adjoint.by_theta or settings.memory == "auto":
        return decided
    return replace(decided, kept=_steps_to_keep(problem, adjoint, settings, decided, budget - fixed - work, progress))


def _half(problem: Problem) -> int:
    """Bytes: half of what is free, of the memory of a CPU this process's part of it."""
    return free_memory(problem.device) // 2 // (1 if on_gpu(problem.device) else Ranks.here().on_this_machine)


def _that_fits(
    problem: Problem, adjoint: WalkBack, settings: EngineSettings, decided: Arrangement, room: int, progress: Progress
) -> tuple[Arrangement, int]:
    """The arrangement with micro-batches, and as many at once, as fit `room` bytes by their work, and that work.

    It is more where not even the least fits: one image in one lane, or what the settings ask for.
    """
    while True:
        step = _step(problem, settings, decided)
        work = _work(problem, adjoint, step)
        if work <= room:
            return decided, work
        largest = max(step.sizes(_dearest(problem, step)))
        if largest > 1 and settings.micro_batch == "auto" and not problem.network.has_batch_norm:
            # In proportion, and a little less: part of the work does not shrink.
            decided = replace(decided, micro_batch=max(1, min(largest - 1, int(0.8 * largest * max(room, 0) / work))))
        elif decided.lanes > 1:
            decided = replace(decided, lanes=decided.lanes // 2)
        else:
            return decided, work
        decided = _compiled(problem, adjoint, settings, decided, progress)


def _steps_to_keep(
    problem: Problem, adjoint: WalkBack, settings: EngineSettings, decided: Arrangement, room: int, progress: Progress
) -> int:
    """How many steps to keep in `room` bytes."""
    step = _step(problem, settings, decided)
    if not step.functions.keeps_tensors:
        return 0
    most = min(adjoint.steps_back(problem.steps), max(0, room) // kept_bytes(problem, settings))
    said = "the steps to keep could not be compiled and are computed again on the way back"
    return most if most and _compile(problem, adjoint, step, progress, most, said) else 0


def kept_bytes(problem: Problem, settings: EngineSettings) -> int:
    """Bytes that a step keeps, by count."""
    stages = problem.network.stages(torch.bfloat16 if precision_of(problem.device, settings) == "bf16" else None)
    assert stages is not None
    with torch.no_grad():
        kept = Staged(problem.network, stages, problem.loss).keep(*problem.example(1)[:3])[1]
    return max(problem.batches) * sum(tensor.nbytes for tensor in (*kept.z, *kept.gx))


def unrolled_bytes(problem: Problem) -> int:
    """Bytes of the graph of all steps that `Unroll` keeps, counted without values: every step adds as much as the one before.

    0 where a module of somebody's own cannot be computed without values.
    """

    def of(steps: int) -> int:
        network = copy.deepcopy(problem.network).to(STAND_IN)
        x, y, theta, eta = (torch.empty(shape, device=STAND_IN) for shape in shapes)
        draws = [StepDraw(torch.arange(batch), lambda images: images)] * steps
        inner = InnerLoop(StudentStep(network, problem.loss), theta, draws)
        return measure(lambda: Unroll()(inner, x, y, eta, lambda end: end.square().sum()), STAND_IN)[1].peak

    batch = max(problem.batches)
    shapes = (problem.shape, (problem.shape[0], problem.num_classes), (problem.network.num_parameters,), ())
    try:
        first, second = of(FEW_STEPS), of(FEW_STEPS + 1)
    except Exception:  # noqa: BLE001 (modules raise whatever they like where tensors have no values)
        return 0
    return first + (second - first) * max(0, problem.steps - FEW_STEPS)


def _work(problem: Problem, adjoint: WalkBack, step: StudentStep) -> int:
    """Bytes that one step and its product take beside their inputs, measured."""

    def most(does: StudentStep | Derivatives, size: int) -> int:
        theta, x, y, direction = problem.example(size)

        def work() -> None:
            does.gradient(theta, x, y)
            (does.pullback if adjoint.by_theta else does.pullback_data)(theta, x, y, direction)

        work()
        return measure(work, problem.device)[1].peak

    batch = _dearest(problem, step)
    if step.lanes == 1:
        return int(1.1 * most(step, batch))
    # What a thread holds is seen in that thread alone.
    return int(1.1 * step.lanes * lanes(step.lanes).map(partial(most, step.functions), [max(step.sizes(batch))])[0])


def _dearest(problem: Problem, step: StudentStep) -> int:
    """Of the sizes of batches the one with the largest micro-batches, which need not be the greatest: 116 go by 15, 128 by 8."""
    return max(problem.batches, key=lambda batch: (max(step.sizes(batch)), batch))


def _guess(problem: Problem, decided: Arrangement) -> int:
    """Bytes that one step takes, from its largest activation: on the safe side."""
    images = min(decided.lanes * (decided.micro_batch or max(problem.batches)), max(problem.batches))
    return 16 * images * largest_activation(problem.network, problem.shape[1:])


def _fixed(problem: Problem) -> int:
    """Bytes of X with its gradient and momentum, of a batch with its gradient, and of λ with two products."""
    image = 4 * torch.Size(problem.shape[1:]).numel()
    return image * (4 * problem.shape[0] + 4 * max(problem.batches)) + 4 * 4 * problem.network.num_parameters
