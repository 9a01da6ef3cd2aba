"""What the distillation of a recipe will take, before it is started: a few steps of its own, timed, and multiplied.

    time = iterations · T · t_step + maps + comparisons + checkpoints + evaluations · (epochs · t_epoch + t_look) + compilation

Every part is timed for a moment, uncompiled and on as many images as that allows, so that a plan takes half a minute however
large its recipe is. Of images that were not decoded before only a few are, and the others are counted. In the place of experts
stand fresh networks that have taken a few random steps; what an iteration costs does not depend on them. What their own stage
takes, `experts/estimate.py` finds out; what several devices would take, `scaling.py` makes of it.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.split import Split, Wanted, cap
from limbeck.distilled.initial import check_ipc, real_subset
from limbeck.evaluation.protocols import resolve as resolve_protocol
from limbeck.experts.estimate import (
    COMPILED,
    COMPILING,
    Counts,
    Estimate,
    Forecast,
    estimate,
    few_of,
    forecast,
    seconds_of,
    step_seconds,
)
from limbeck.experts.notes import want_of
from limbeck.experts.store import TrajectoryStore
from limbeck.matching.engine import Arrangement, decide, kept_bytes, precision_of, within_budget
from limbeck.matching.steps import StudentStep
from limbeck.methods.objective import Objective
from limbeck.methods.outer import COMPARE_EVERY
from limbeck.methods.registry import METHODS
from limbeck.methods.state import OuterState
from limbeck.methods.trajectory import TrajectoryMatching
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.micro_batches import output_sizes
from limbeck.runs import build
from limbeck.runs.advice import advice_on
from limbeck.runs.checks import check
from limbeck.runs.computed import computed
from limbeck.runs.over_devices import counted, over_devices, work_of
from limbeck.runs.scaling import NUMBER, Memory, Scaling, World, timed_apart
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import STAND_IN_MEMORY, device_to_plan, has_values, repeatable
from limbeck.runtime.errors import require
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.leftovers import passing_folder
from limbeck.runtime.memory import peak_memory, reuse_freed_memory
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.random import generator
from limbeck.training.images import TensorImages, sample
from limbeck.training.targets import Labels
from limbeck.training.train import logits_of

FEW = 256  # images that are looked at
LOOKED_AT = 2**18  # numbers in images that are compared class by class, of one class at least
COMPARISON = 0.7  # of an iteration, which a second walk back takes
ENGINE_COMPILING = 30.0  # seconds
ASKING = 4 / 3  # what a step takes with a teacher, which passes images forward, over one without
PARTS, REPEATS = 4, 2  # into which a batch is cut to find what does not shrink with it, and how often both are timed
WORKING = 6  # copies of a step's activations that its product needs


@dataclass(frozen=True)
class Plan:
    """What `distill` will take for its stages `experts`, `compile` and `distil`.

    Args:
        experts: time and disk of the stage that fills the store with what it lacks; None where no experts are read.
        parts: seconds of the last two stages.
        seconds_per_iteration: of the outer loop; None, as `parts` are empty, for a GPU that is not here to be timed.
        peak_memory: of the process in them (on CUDA: of the device), bytes.
        engine: what is decided about it; None where no student steps are walked through.
        device: to compute on.
        advice: sentences on what would bring time and memory down.
        notes: sentences on what was estimated, not measured.
        scaling: what several devices would take; None where nobody asked.
        evaluation: seconds that one network of an evaluation takes; None for a GPU that is not here.
    """

    experts: tuple[Forecast, Estimate] | None
    parts: Mapping[str, float]
    seconds_per_iteration: float | None
    peak_memory: int
    engine: Arrangement | None
    device: str
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    scaling: Scaling | None = None
    evaluation: float | None = None

    @property
    def seconds(self) -> float | None:
        """All parts together; the experts come on top."""
        return sum(self.parts.values()) if self.parts else None

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        experts = None if self.experts is None else plain(self.experts[0]) | plain(self.experts[1])
        found = {**plain(self), "experts": experts, "seconds": self.seconds}
        return found if self.scaling else {key: value for key, value in found.items() if key != "scaling"}


class StandIn(TrajectoryStore):
    """Reads like a store of experts: a fresh network per expert, moved a little further with every epoch."""

    def __init__(self, network: FlatNetwork, seed: int) -> None:
        self.network, self.seed = network, seed

    def read(self, expert: int, epoch: int, device: torch.device | None = None) -> Tensor:
        draws = generator(self.seed, "stand-in", expert)
        theta = self.network.initial(draws)
        return (theta + 0.01 * epoch * torch.randn(theta.shape, generator=draws)).to(device or "cpu")


@dataclass
class Rehearsal(Workspace):
    """A workspace of few images, where nothing is trained: its experts and the network that makes maps are fresh ones.

    Args:
        settings, progress, store: as for a workspace.
        device: to compute on; None takes the one that the settings name.
    """

    device: torch.device = None  # type: ignore[assignment]  # said below, where the settings are there

    def __post_init__(self) -> None:
        self.device = self.device or device_to_plan(self.settings.engine.device)

    @cached_property
    def whole(self) -> ImageSet:
        """All images; where they are not in the cache, all of them share the few that are decoded."""
        data, validated = self.settings.data, resolve_protocol(self.settings.eval).validation
        wanted = Wanted(("train", "val", "test"), glimpse=FEW)
        return load_data(data if validated else dataclasses.replace(data, val_fraction=0.0), self.progress, wanted)

    @cached_property
    def data(self) -> ImageSet:
        per_slot = build.parametrisation_of(self.settings.parametrisation).images_per_slot
        return _few(self.whole, self.settings.ipc * per_slot)

    @cached_property
    def experts(self) -> TrajectoryStore:
        return StandIn(self.network, self.settings.seed)

    @cached_property
    def map_network(self) -> nn.Module:
        images = TensorImages(self.preprocessing.prepare(self.data.train.images(np.arange(2))).to(self.device))
        return self.network.with_parameters(self.experts.read(0, 1, self.device), lambda: sample(images))


def plan(settings: DistillSettings, *, progress: Progress | None = None, world: World | None = None) -> Plan:
    """Measure what `distill` will take; over a `world`, too, if there is one.

    Raises:
        UsageError: where `distill` would.
    """
    workspace = Rehearsal(settings, progress or NoProgress())
    whole = workspace.whole
    check_ipc(whole, settings.ipc, workspace.decoder.images_per_slot)
    counts, unseen = Counts(len(whole.train), len(whole.val)), len(whole.train.storage) < len(whole.train)
    check(workspace)
    repeatable(workspace.device, tf32=settings.engine.precision == "tf32")
    reuse_freed_memory()
    planned = ", ".join(name for name, method in METHODS.items() if method.kind == "objective")
    require(workspace.method.kind == "objective", "method", settings.method, f"one that has iterations to plan: {planned}")
    if not has_values(workspace.device):
        return _of_absent_gpu(workspace, counts, world)
    adjoint = build.adjoint_of(settings.engine)
    decided = decide(workspace.problem(), adjoint, settings.engine) if workspace.method.steps else None
    if decided is not None:
        decided = within_budget(workspace.problem(), adjoint, settings.engine, decided)
    compiled = decided is not None and decided.compiled
    parts, iteration, still = _loop(workspace, compiled, apart=world is not None)
    long, one = _evaluation(workspace, counts.val)
    seen = counts.val and resolve_protocol(settings.eval).validation  # without validation images nobody looks
    looks = settings.eval.every_seeds * _looks(settings) if seen else 0
    compiling = COMPILING * (long and looks > 0)
    parts = {"compile": ENGINE_COMPILING * compiled + compiling, **parts, "evaluations": one * looks}
    memory, work = _memory(workspace, decided), work_of(workspace, iteration, still)
    peak = memory.of(work, 1, False)
    notes = [f"{len(whole.train.storage)} of {counts.train + counts.val} images were decoded"] if unseen else []
    if compiled or compiling:
        notes.append(f"compiled steps are taken to need {100 * COMPILED:.0f} % of the time of those that were timed")
    looked_at = len(workspace.data.train) // workspace.data.num_classes
    if workspace.method.kind == "objective" and not workspace.method.steps and settings.real.batch > looked_at:
        notes.append(
            f"a batch has {looked_at} real images of a class here, in the place of real.batch={settings.real.batch}: it takes more"
        )
    return Plan(
        experts=_experts(workspace, counts, unseen) if workspace.needs_experts else None,
        parts=parts,
        seconds_per_iteration=iteration,
        peak_memory=peak,
        engine=decided,
        device=str(workspace.device),
        advice=tuple(advice_on(workspace, parts, decided is None or decided.compiled, peak)),
        notes=tuple(notes),
        scaling=over_devices(workspace, work, memory, parts, world) if world else None,
        evaluation=one,
    )


def _of_absent_gpu(workspace: Rehearsal, counts: Counts, world: World | None) -> Plan:
    """Memory alone, and what is sent: there is nothing to time."""
    found, work = computed(workspace, counts.val), work_of(workspace)
    notes = [
        "no CUDA device is here: tensors were counted, what libraries take within an operation comes on top; no time is foretold",
        *(f"{name}: {bytes / 2**20:.0f} MiB beside {found.held / 2**20:.0f} MiB" for name, bytes in found.stages.items()),
    ]
    if workspace.settings.engine.memory == "auto":
        notes.append(f"engine.memory=auto is that of a card of {STAND_IN_MEMORY / 2**30:.0f} GiB, of which it takes half")
    if not workspace.method.steps:
        notes.append("the real images of a batch are counted as far as the plan has looked at them")
    scaling = over_devices(workspace, work, counted(workspace, work, found), {}, world) if world else None
    return Plan(None, {}, None, found.peak, found.engine, "cuda", (), tuple(notes), scaling)


def _few(whole: ImageSet, ipc: int) -> ImageSet:
    """Some images of every class to train on, and some to look at."""

    def evenly(split: Split) -> Split:
        return split.take(np.arange(min(FEW, len(split))) * len(split) // max(1, min(FEW, len(split))))

    per_class = max(ipc, -(-FEW // whole.num_classes))
    train = whole.train.take(cap(whole.train.labels, per_class, 0))
    return dataclasses.replace(whole, train=train, val=evenly(whole.val), test=evenly(whole.test))


def _experts(workspace: Workspace, counts: Counts, unseen: bool) -> tuple[Forecast, Estimate]:
    """Time and disk of the experts' stage; experts of images that were never decoded cannot be there."""
    experts, task = workspace.settings.experts, workspace.expert_task
    want, store = want_of(experts, workspace.reachable_epochs), None if unseen else task.find_store()
    size = estimate(want, workspace.network.num_parameters, state=int(experts.momentum > 0), store=store)
    return forecast(task, want, store, counts), size


def _loop(workspace: Workspace, compiled: bool, apart: bool) -> tuple[dict[str, float], float, float]:
    """Seconds of the outer loop's parts over all iterations, and of one; what share of that goes with no image, if asked."""
    settings, outer, data = workspace.settings, workspace.settings.outer, workspace.data
    index = real_subset(data.train, data.num_classes, workspace.ipc, settings.seed, "plan").numpy()
    count = len(index)
    if not workspace.method.steps:
        index = index[_few_classes(data.train.labels[index], math.prod(data.shape))]
    elif count > FEW:
        index = index[np.arange(FEW) * count // FEW]
    images = workspace.preprocessing.prepare(data.train.images(index)).to(workspace.device)
    labels = torch.full((len(index), data.num_classes), 1 / data.num_classes, device=workspace.device)
    classes = torch.from_numpy(data.train.labels[index])
    enhancement = workspace.enhancement(classes)
    engine = (
        StudentStep(workspace.network, build.loss_of(settings), precision=precision_of(workspace.device, settings.engine)),
        build.adjoint_of(settings.engine),
    )
    objective = workspace.method(workspace, classes, engine if workspace.method.steps else None)
    differs = objective.has_criterion or enhancement.active
    twice = settings.match.match_norm and differs
    iteration, whole = _iteration(objective, images, labels, outer.syn_lr_init, count, plain=twice, apart=apart)
    iteration *= COMPILED if compiled else 1.0

    def mapped(few: int) -> float:
        part = workspace.enhancement(classes[:few])
        return seconds_of(lambda: part.weights(images[:few], 0))

    few = few_of(mapped, len(images)) if enhancement.active else 1
    maps = mapped(few) * count / few if enhancement.active else 0.0
    state = OuterState.start(images, labels, outer.syn_lr_init, objective.init(), adamw=outer.adamw)
    with passing_folder() as folder:
        saving = seconds_of(lambda: state.save(folder / "checkpoint.safetensors")) * count / len(images)
        saving *= settings.ipc * math.prod(workspace.decoder.slot_shape) / (workspace.ipc * math.prod(data.shape))
    compared = COMPARISON * math.ceil(outer.iterations / COMPARE_EVERY) if differs and not settings.match.match_norm else 0.0
    parts = {
        "iterations": iteration * outer.iterations,
        "maps": maps * math.ceil(outer.iterations / settings.enhance.cam_every),
        "comparisons": compared * iteration,
        "checkpoints": saving * (math.ceil(outer.iterations / outer.checkpoint_every) + _looks(settings)),
    }
    return parts, iteration, whole


def _few_classes(labels: NDArray[np.integer[Any]], size: int) -> NDArray[np.bool_]:
    """Which images of that many numbers each to look at: those of whole classes, for a class takes what every other one takes."""
    names, counts = np.unique(labels, return_counts=True)
    within = max(1, int((counts.cumsum() * size <= LOOKED_AT).sum()))
    return np.isin(labels, names[:within])


def _iteration(
    objective: Objective, images: Tensor, labels: Tensor, syn_lr: float, count: int, *, plain: bool, apart: bool
) -> tuple[float, float]:
    """Seconds of the gradient by all `count` images, of which some are here; what share of them goes with no image, if asked."""
    eta = torch.tensor(syn_lr, device=images.device)
    if not isinstance(objective, TrajectoryMatching):
        seconds = seconds_of(lambda: objective.gradients(objective.init(), images, labels, eta, 1, plain=plain))
        return seconds * count / len(images), 0.0
    matching = objective.matching
    batch = min(count, matching.batch_syn or count)

    def of(few: int, steps: int = 1) -> float:
        shorter = dataclasses.replace(objective, matching=dataclasses.replace(matching, syn_steps=steps, batch_syn=None))
        return seconds_of(lambda: shorter.gradients({}, images[:few], labels[:few], eta, 1, plain=plain))

    def all_steps(few: int) -> float:
        one, more = of(few), min(matching.syn_steps, 6)
        step = min(one, max(0.0, (of(few, more) - one) / (more - 1))) if more > 1 and one < 1 else one
        return one + (matching.syn_steps - 1) * step

    few = few_of(of, min(batch, len(images)))
    seconds, sizes = all_steps(few), (max(1, few // PARTS), few)
    if not apart or few == 1:
        return seconds * batch / few, 0.0
    return seconds * batch / few, timed_apart(
        [(size, min(all_steps(size) for _ in range(REPEATS))) for size in sizes]
    ) * few / batch


def _evaluation(workspace: Workspace, count: int) -> tuple[bool, float]:
    """Whether networks of an evaluation are compiled, and seconds of each, which is asked about so many images."""
    data, evaluator = workspace.data, workspace.evaluator()
    protocol, total = evaluator.protocol, workspace.ipc * data.num_classes
    how = protocol.training(workspace.network, workspace.augmentation, workspace.syn_lr, workspace.ipc, workspace.kind)
    images = TensorImages(
        workspace.preprocessing.prepare(data.train.images(np.arange(min(FEW, len(data.train))))).to(workspace.device)
    )
    labels = Labels(torch.full((len(images), data.num_classes), 1 / data.num_classes, device=workspace.device))
    batch = min(total, how.batch_size)
    step = step_seconds(workspace.network, images, labels, how, batch) * (ASKING if protocol.labels == "teacher" else 1.0)
    module = workspace.map_network

    def seen(few: int) -> float:
        return seconds_of(lambda: logits_of(module, TensorImages(images.images[:few])))

    few = few_of(seen, len(images))
    compiled = evaluator.trials.compiles(how, total, data.shape)
    one = how.epochs * total / batch * step * (COMPILED if compiled else 1.0) + seen(few) * count / few
    return compiled, one


def _looks(settings: DistillSettings) -> int:
    """How often the outer loop evaluates."""
    return math.ceil(settings.outer.iterations / settings.eval.every) + 1


def _memory(workspace: Workspace, decided: Arrangement | None) -> Memory:
    """Bytes: what there is now, X with its gradient, moments and average, θ_0 … θ_T, and the work of one step."""
    settings, network = workspace.settings, workspace.network
    total = workspace.ipc * workspace.data.num_classes
    batch = min(total, build.batch_of(settings.match, workspace.slots) or total)
    thetas = (settings.match.syn_steps + 3 if decided else 3) * network.num_parameters
    return Memory(
        base=peak_memory(workspace.device),
        set=(4 + settings.outer.adamw) * NUMBER * total * math.prod(workspace.data.shape),
        trajectory=NUMBER * thetas,
        kept=decided.kept * kept_bytes(workspace.problem(), settings.engine) if decided and decided.kept else 0,
        image=NUMBER * WORKING * sum(output_sizes(network, workspace.data.shape)),
        at_once=min(batch, decided.lanes * (decided.micro_batch or batch)) if decided else batch,
    )
