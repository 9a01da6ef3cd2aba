"""What the distillation of a recipe will take, before it is started: a few of its own iterations, timed.

    time = iterations · t + maps + comparisons + checkpoints + evaluations · (a + b · epochs) + compilation

Everything but the experts is real: the images, the compiled step, the outer loop, the evaluation. In the place of experts
stand fresh networks that have taken a few random steps; what an iteration costs does not depend on them. What their own stage
takes, `experts/calibrate.py` finds out.
"""

import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck.distilled.initial import real_subset
from limbeck.distilled.small_set import SmallSet
from limbeck.experts.calibrate import forecast
from limbeck.experts.estimate import estimate
from limbeck.experts.store import want_of
from limbeck.methods.outer import COMPARE_EVERY, OuterLoop
from limbeck.methods.registry import METHODS
from limbeck.networks.flat import FlatNetwork
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import repeatable
from limbeck.runtime.errors import require
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.memory import free_memory, peak_memory, reuse_freed_memory, total_memory
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.random import generator

ITERATIONS = 20
SHORT, LONG = 5, 50  # epochs of the two evaluations from which all others are extrapolated


class StandIn:
    """Reads like a store of experts: a fresh network per expert, moved a little further with every epoch."""

    def __init__(self, network: FlatNetwork, seed: int) -> None:
        self.network, self.seed = network, seed

    def read(self, expert: int, epoch: int, device: torch.device) -> Tensor:
        """θ with shape (P,)."""
        draws = generator(self.seed, "stand-in", expert)
        theta = self.network.initial(draws)
        return (theta + 0.01 * epoch * torch.randn(theta.shape, generator=draws)).to(device)


def plan(settings: DistillSettings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Measure what `distill` will take for its stages `experts`, `compile` and `distil`.

    Returns:
        `seconds` in all of the last two and `parts`, seconds of each; `peak_memory` of the process in them (on CUDA: of the
        device), bytes; `experts`, the `seconds` that the stage before them takes to fill the store with what it lacks, 0 where
        that is nothing, and its disk (`experts.calibrate.forecast` and `experts.estimate`), None where no experts are read;
        `seconds_per_iteration`; `engine`, what was decided; `advice`, sentences on what would bring them down.

    Raises:
        UsageError: where `distill` would.
    """
    workspace = Workspace(settings, progress or NoProgress())
    workspace.check()
    repeatable(workspace.device, tf32=settings.engine.precision == "tf32")
    reuse_freed_memory()
    planned = ", ".join(name for name, method in METHODS.items() if method.kind == "objective")
    require(workspace.method.kind == "objective", "method", settings.method, f"one that has iterations to plan: {planned}")
    if workspace.needs_experts:
        workspace.__dict__["experts"] = StandIn(workspace.network, settings.seed)  # in the place of the cached property
    began = time.perf_counter()
    engine = workspace.engine() if workspace.method.steps else None
    compiling = time.perf_counter() - began
    parts, iteration = _loop(workspace, engine)
    parts = {"compile": compiling, **parts, "evaluations": _evaluations(workspace)}
    found = {
        "seconds": sum(parts.values()),
        "parts": parts,
        "seconds_per_iteration": iteration,
        "peak_memory": peak_memory(workspace.device),
        "engine": plain(engine[2]) if engine else None,
        "device": str(workspace.device),
        "advice": _advice(workspace, parts, engine is None or engine[2].compiled),
    }
    # Last, because preparing all training images takes memory that the other stages do not.
    return {"experts": _experts(workspace) if workspace.needs_experts else None, **found}


def _experts(workspace: Workspace) -> dict[str, Any]:
    """Time and disk of the experts' stage."""
    experts, task = workspace.settings.experts, workspace.expert_task
    want, store = want_of(experts, workspace.reachable_epochs), task.find_store()
    size = estimate(want, workspace.network.num_parameters, state=int(experts.momentum > 0), store=store)
    return {**forecast(task, want, store), **dataclasses.asdict(size)}


def _loop(workspace: Workspace, engine: Any) -> tuple[dict[str, float], float]:
    """Seconds of the outer loop's parts over all iterations, and of one plain iteration."""
    settings, device = workspace.settings, workspace.device
    index = real_subset(workspace.data.train, workspace.data.num_classes, settings.ipc, settings.seed, "plan").numpy()
    images = workspace.preprocessing.prepare(workspace.data.train.images(index)).to(device)
    classes = torch.from_numpy(workspace.data.train.labels[index]).to(device)
    labels = torch.randn(len(index), workspace.data.num_classes, generator=generator(0, "plan")).to(device)
    labels = labels if workspace.kind == "logits" else one_hot(classes, workspace.data.num_classes).float()
    enhancement = workspace.enhancement(classes)
    outer = settings.outer
    count = min(ITERATIONS, outer.iterations)
    with tempfile.TemporaryDirectory() as folder:
        loop = OuterLoop(
            objective=workspace.method(workspace, classes.cpu(), engine and engine[:2]),
            enhancement=enhancement,
            settings=dataclasses.replace(outer, iterations=count, checkpoint_every=10**9, lr_img=0.0, lr_label=0.0, lr_lr=0.0),
            evaluate=lambda x, y, eta: {"mean": 0.0},
            every=10**9,
            match_norm=settings.match.match_norm,
            folder=Path(folder),
            progress=workspace.progress,
        )
        state = loop.run(images, labels, outer.syn_lr_init)
        rows = [row["seconds"] for row in read_metrics(loop.folder / "metrics.jsonl") if row["kind"] == "iteration"]
        iteration = statistics.median(rows[1:] or rows)
        maps = _seconds(lambda: enhancement.weights(state.images, 0)) if enhancement.active else 0.0
        saving = _seconds(lambda: state.save(loop.checkpoint))
    first = max(0.0, rows[0] - iteration - maps)  # the comparison with the plain gradient, made in the first iteration
    looks = math.ceil(outer.iterations / settings.eval.every) + 1
    parts = {
        "iterations": iteration * outer.iterations,
        "maps": maps * math.ceil(outer.iterations / settings.enhance.cam_every),
        "comparisons": 0.0 if settings.match.match_norm else first * math.ceil(outer.iterations / COMPARE_EVERY),
        "checkpoints": saving * (math.ceil(outer.iterations / outer.checkpoint_every) + looks),
    }
    return parts, iteration


def _evaluations(workspace: Workspace) -> float:
    """Seconds of all evaluations within the outer loop."""
    settings = workspace.settings
    index = real_subset(workspace.data.train, workspace.data.num_classes, settings.ipc, settings.seed, "plan").numpy()
    images = workspace.preprocessing.prepare(workspace.data.train.images(index))
    small = SmallSet.of_classes(images, torch.from_numpy(workspace.data.train.labels[index]), workspace.data.num_classes, 0.01)

    def of(epochs: int) -> float:
        shorter = dataclasses.replace(settings.eval, epochs=epochs)
        evaluator = dataclasses.replace(workspace.evaluator().decided(settings.ipc), settings=shorter)
        evaluator.distilled(small, seeds=(0,), split="val")  # prepares the images that it measures on
        return _seconds(lambda: evaluator.distilled(small, seeds=(0,), split="val"), 2)

    short, long = of(SHORT), of(LONG)
    per_epoch = max(0.0, long - short) / (LONG - SHORT)
    one = max(0.0, short - SHORT * per_epoch) + per_epoch * workspace.evaluator().protocol.epochs
    looks = math.ceil(settings.outer.iterations / settings.eval.every) + 1
    return one * settings.eval.every_seeds * looks


def _seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _advice(workspace: Workspace, parts: dict[str, float], compiled: bool) -> list[str]:
    """What would bring time and memory down."""
    settings, total, advice = workspace.settings, sum(parts.values()), []
    if not compiled and settings.engine.compile != "no" and parts["iterations"] > 120:
        advice.append("engine.compile=yes would make an iteration faster, once the compilation of about half a minute is done")
    if settings.engine.precision == "fp32" and parts["iterations"] > 0.5 * total and _has_bf16(workspace.device):
        advice.append(
            "engine.precision=bf16 would take about two thirds of the time of an iteration; docs/performance.md has its error"
        )
    if parts["evaluations"] > 0.3 * total:
        share = 100 * parts["evaluations"] / total
        advice.append(f"evaluations take {share:.0f} % of the time: raise eval.every ({settings.eval.every}) or lower eval.epochs")
    peak, free = peak_memory(workspace.device), free_memory(workspace.device)
    if peak > 0.8 * min(free + peak, total_memory(workspace.device)):
        advice.append("memory is short: set engine.memory, such as engine.memory=2GiB, or lower match.batch_syn")
    return advice


def _has_bf16(device: torch.device) -> bool:
    """Whether products in bf16 are faster than in single precision here."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return bool(torch.cpu._is_avx512_bf16_supported()) if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
