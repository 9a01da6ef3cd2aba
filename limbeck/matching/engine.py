"""Setting the engine up: size of micro-batches, compiled or not, how many steps are kept — within a budget of memory.

    X and its gradients + θ_0 … θ_T + kept steps + the work of one step ≤ budget

A kept step saves two or three of the eleven convolutions that a step and its product cost, and holds its activations until
the walk back has passed it. Both ways are timed once; if keeping is faster, as many of the last steps are kept as fit.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, WalkBack
from limbeck.matching.settings import EngineSettings, Precision
from limbeck.matching.steps import StudentStep
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.micro_batches import automatic_micro_batch, largest_activation
from limbeck.runtime.compiling import keep_compiled_code
from limbeck.runtime.devices import SLOW_BF16, fast_bf16, has_values, on_gpu, resolve_device, synchronize
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.memory import free_memory, measure
from limbeck.runtime.progress import Progress
from limbeck.runtime.records import Record
from limbeck.training.gradient import Loss

# Compiling costs about half a minute and saves some ten milliseconds a step: below so many steps it does not pay.
COMPILE_FROM_STEPS = 5000
# To find out whether keeping pays takes two more compilations.
KEEP_FROM_STEPS = 40_000
LEAST_GAIN = 0.03
WITHOUT = "which has no instructions for bf16"


@dataclass(frozen=True, slots=True)
class Arrangement(Record):
    """What was decided: whether the step is compiled, images per micro-batch (None: all), steps kept, θ_n on the host.

    `precision` is what `auto` has come to; None where the settings name one.
    """

    compiled: bool
    micro_batch: int | None = None
    kept: int = 0
    on_host: bool = False
    precision: Precision | None = None


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
    """

    network: FlatNetwork
    shape: tuple[int, int, int, int]
    num_classes: int
    batches: Sequence[int]
    steps: int
    iterations: int
    loss: Loss = soft_cross_entropy

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


def check_engine(settings: EngineSettings, network: FlatNetwork, device: torch.device) -> list[str]:
    """What a user should hear about the settings; raises `UsageError` for those that do not fit the network or the device."""
    require(settings.precision != "tf32" or on_gpu(device), "engine.precision", settings.precision, "fp32 or bf16 on a CPU")
    pure = not network.has_dropout
    require(pure, "network", network.name, "a network without dropout, whose student steps are functions of their input alone")
    whole = settings.micro_batch == "auto" or not network.has_batch_norm
    accepted = f"auto: batch norm takes its statistics from the whole batch, and {network.name} has it"
    require(whole, "engine.micro_batch", settings.micro_batch, accepted)
    if settings.precision != "bf16" or fast_bf16(device):
        return []
    return [f"warning: engine.precision=bf16: its convolutions take {SLOW_BF16} as long as fp32's on this processor, {WITHOUT}"]


def check_recipe(recipe: str, settings: EngineSettings) -> None:
    """Raise `UsageError` where a recipe asks for bf16 on a device that has no instructions for it, and the user does not."""
    if settings.precision == "bf16" and not fast_bf16(resolve_device(settings.device)):
        slow = f"fp32: recipe {recipe} asks for it, and here bf16 takes {SLOW_BF16} as long, on a processor {WITHOUT}"
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
        decided = arrangement or replace(decide(problem, settings), compiled=False, micro_batch=None)
        return _step(problem, settings, decided), adjoint, decided
    decided = arrangement or decide(problem, settings)
    step = _step(problem, settings, decided)
    if decided.compiled and not _compile(problem, adjoint, step, progress, decided.kept > 0):
        decided = replace(decided, compiled=False, kept=0)
        step = _step(problem, settings, decided)
    if arrangement is None:
        decided = _fitted(problem, adjoint, settings, decided, progress)
        step = step if decided.micro_batch == step.micro_batch else _step(problem, settings, decided)
    return step, replace(adjoint, kept=decided.kept, on_host=decided.on_host), decided


def decide(problem: Problem, settings: EngineSettings) -> Arrangement:
    """Whether the step is compiled, and its micro-batches."""
    worth = problem.steps * problem.iterations >= COMPILE_FROM_STEPS
    compiled = {"yes": True, "no": False, "auto": worth}[settings.compile]
    precision = precision_of(problem.device, settings)
    decided = Arrangement(compiled, precision=precision if settings.precision == "auto" else None)
    if settings.micro_batch != "auto":
        return replace(decided, micro_batch=settings.micro_batch)
    cached = automatic_micro_batch(problem.network, problem.shape[1:], problem.device, 2 if precision == "bf16" else 4)
    micro_batch = cached if compiled else None
    return replace(decided, micro_batch=None if micro_batch is None or micro_batch >= max(problem.batches) else micro_batch)


def _step(problem: Problem, settings: EngineSettings, decided: Arrangement) -> StudentStep:
    precision = precision_of(problem.device, settings, decided)
    return StudentStep(problem.network, problem.loss, decided.compiled, precision, decided.micro_batch)


def _compile(problem: Problem, adjoint: WalkBack, step: StudentStep, progress: Progress, keeping: bool) -> bool:
    """Call every function once for every size of a micro-batch; whether that went well."""
    if not has_values(problem.device):
        return True  # nothing runs there that could be compiled
    keep_compiled_code()
    torch.compiler.reset()  # its limit on recompilations counts over all networks of a process
    sizes = sorted({size for batch in problem.batches for size in step.sizes(batch)})
    by_theta = adjoint.by_theta
    with progress.stage("compile", len(sizes) * (3 if keeping else 2)) as stage:
        try:
            for size in sizes:
                theta, x, y, direction = problem.example(size)
                step.gradient(theta, x, y)
                stage.advance()
                step.pullback(theta, x, y, direction, by_theta=by_theta)
                stage.advance()
                if keeping:
                    step.pullback(theta, x, y, direction, step.keep(theta, x, y)[1])
                    stage.advance()
        except Exception as error:  # noqa: BLE001 (a compiler fails in many ways, and none may stop the run)
            warnings.warn(f"the step could not be compiled and runs uncompiled: {type(error).__name__}", stacklevel=2)
            progress.say(f"warning: the step could not be compiled and runs uncompiled ({type(error).__name__})")
            return False
    return True


def _fitted(problem: Problem, adjoint: WalkBack, settings: EngineSettings, decided: Arrangement, progress: Progress) -> Arrangement:
    """The same within the budget: micro-batches that fit, θ_n on the host where they take much, kept steps if they pay."""
    budget = settings.budget() or free_memory(problem.device) // 2
    walked = adjoint.steps_back(problem.steps)
    thetas = 4 * problem.network.num_parameters * (walked + 1)
    on_host = on_gpu(problem.device) and thetas > budget // 4
    fixed = _fixed(problem) + (0 if on_host else thetas)
    decided = replace(decided, on_host=on_host)
    if settings.memory == "auto" and fixed + _guess(problem, decided) < budget // 2:
        work = _guess(problem, decided)
    else:
        decided, work = _micro_batch_that_fits(problem, adjoint, settings, decided, budget - fixed, progress)
    worth = settings.memory != "auto" or problem.steps * problem.iterations >= KEEP_FROM_STEPS
    if not adjoint.by_theta or not worth:
        return decided
    return replace(decided, kept=_steps_to_keep(problem, adjoint, settings, decided, budget - fixed - work, progress))


def _micro_batch_that_fits(
    problem: Problem, adjoint: WalkBack, settings: EngineSettings, decided: Arrangement, room: int, progress: Progress
) -> tuple[Arrangement, int]:
    """The arrangement with micro-batches whose work fits `room` bytes, and that work."""
    while True:
        step = _step(problem, settings, decided)
        work = _work(problem, adjoint, step)
        if work <= room:
            return decided, work
        largest = max(step.sizes(_dearest(problem, step)))
        fixed = settings.micro_batch != "auto" or problem.network.has_batch_norm
        if largest == 1 or fixed:
            least = (settings.budget() or free_memory(problem.device) // 2) - room + work
            accepted = f"at least {least / 2**20:.0f}MiB for this problem" + (
                " with engine.micro_batch as it is" if settings.micro_batch != "auto" else ""
            )
            raise UsageError(f"engine.memory: {settings.memory!r} is not {accepted}")
        # In proportion, and a little less: part of the work does not shrink.
        decided = replace(decided, micro_batch=max(1, min(largest - 1, int(0.8 * largest * max(room, 0) / work))))
        if decided.compiled:
            _compile(problem, adjoint, _step(problem, settings, decided), progress, False)


def _steps_to_keep(
    problem: Problem, adjoint: WalkBack, settings: EngineSettings, decided: Arrangement, room: int, progress: Progress
) -> int:
    """How many steps to keep in `room` bytes: none where keeping is not faster."""
    step, batch = _step(problem, settings, decided), max(problem.batches)
    example = problem.example(batch)
    if not step.functions.keeps_tensors or room <= 0:
        return 0
    if not _compile(problem, adjoint, step, progress, True):
        return 0
    _, taken = measure(lambda: step.keep(*example[:3]), problem.device)
    most = min(adjoint.steps_back(problem.steps), room // max(taken.held, 1))
    if most == 0:
        return 0

    def again() -> None:
        step.gradient(*example[:3])
        step.pullback(*example)

    def kept() -> None:
        step.pullback(*example, step.keep(*example[:3])[1])

    if not has_values(problem.device):  # no time to compare: two convolutions of eleven are saved
        return int(most)
    faster = _seconds(kept, problem.device) < (1 - LEAST_GAIN) * _seconds(again, problem.device)
    return int(most) if faster else 0


def _work(problem: Problem, adjoint: WalkBack, step: StudentStep) -> int:
    """Bytes that one step and its product take beside their inputs, measured."""
    example = problem.example(_dearest(problem, step))
    by_theta = adjoint.by_theta

    def work() -> None:
        step.gradient(*example[:3])
        step.pullback(*example, by_theta=by_theta)

    work()
    return int(1.1 * measure(work, problem.device)[1].peak)


def _dearest(problem: Problem, step: StudentStep) -> int:
    """Of the sizes of batches the one with the largest micro-batches, which need not be the greatest: 116 go by 15, 128 by 8."""
    return max(problem.batches, key=lambda batch: (max(step.sizes(batch)), batch))


def _guess(problem: Problem, decided: Arrangement) -> int:
    """Bytes that one step takes, from its largest activation: on the safe side."""
    images = min(decided.micro_batch or max(problem.batches), max(problem.batches))
    return 16 * images * largest_activation(problem.network, problem.shape[1:])


def _fixed(problem: Problem) -> int:
    """Bytes of X with its gradient and momentum, of a batch with its gradient, and of λ with two products."""
    image = 4 * torch.Size(problem.shape[1:]).numel()
    return image * (4 * problem.shape[0] + 4 * max(problem.batches)) + 4 * 4 * problem.network.num_parameters


def _seconds(work: Callable[[], None], device: torch.device, repeats: int = 5) -> float:
    taken = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])
