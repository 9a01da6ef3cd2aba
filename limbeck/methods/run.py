"""From images to an evaluated distilled set.

    data → experts → initial images and labels → outer loop → evaluation → DistilledSet

A run folder holds everything that the run did; `resume` goes on from what is there and ends with the same bits.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.distilled.initial import InitialSet
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.evaluate import Evaluator, recovery_ratio
from limbeck.experts.store import TrajectoryStore
from limbeck.methods.folder import RunFolder, alone, own_json
from limbeck.methods.outer import OuterLoop
from limbeck.methods.registry import METHODS
from limbeck.methods.settings import DistillSettings
from limbeck.methods.workspace import Workspace
from limbeck.runtime.devices import environment, repeatable
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import write_json
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.memory import reuse_freed_memory
from limbeck.runtime.progress import NoProgress, Progress


def train_experts(settings: DistillSettings, *, progress: Progress | None = None) -> TrajectoryStore:
    """The experts that `distill` would use: found in the cache, or trained."""
    workspace = Workspace(settings, progress or NoProgress())
    workspace.check()
    return workspace.experts


def distill(
    settings: DistillSettings, output: Path, *, resume: bool = False, progress: Progress | None = None, recipe: str | None = None
) -> dict[str, Any]:
    """Distil, evaluate and save.

    Args:
        settings: of the run.
        output: the run folder, absent or empty unless `resume`.
        resume: go on with the run in `output`.
        progress: where to report.
        recipe: the name of the recipe, noted in the result.

    Returns:
        The content of `results.json`: accuracies in [0, 1] of `distilled`, `initial`, `random` and `full`, `recovery_ratio`,
        `paths`, and `seconds` and `peak_memory` (bytes, so far) per stage.

    Raises:
        UsageError: for data, a network or an `ipc` that do not fit, or a run folder that is taken; nothing is written then.
        Failure: when an expert diverges.
    """
    output = Path(output)
    RunFolder(output, settings, resume)  # refuses before the data are loaded
    workspace = Workspace(settings, progress or NoProgress())
    workspace.check()
    with alone(output):
        folder = RunFolder(output, settings, resume)
        folder.open(workspace.data.fingerprint)
        if str(workspace.device) != folder.resolved.device:
            raise UsageError(
                f"engine.device: {str(workspace.device)!r} is not {folder.resolved.device!r}, where the run was started"
            )
        repeatable(workspace.device, tf32=settings.engine.precision == "tf32")
        if folder.results_file.exists():
            return own_json(folder.results_file)
        torch.set_num_threads(folder.resolved.threads)  # sums over threads round differently: a resumed run keeps the number
        return _run(workspace, folder, recipe)


def _run(workspace: Workspace, folder: RunFolder, recipe: str | None) -> dict[str, Any]:
    settings, evaluator = workspace.settings, workspace.evaluator()
    reuse_freed_memory()
    with folder.stage("experts"):
        store = workspace.experts
    with folder.stage("initial"):
        start = workspace.initial()
    with folder.stage("compile"):
        step, adjoint, arrangement = workspace.engine(folder.resolved.engine)
        folder.decide(engine=arrangement)
    loop = OuterLoop(
        objective=METHODS[settings.method](workspace, step, adjoint),
        enhancement=workspace.enhancement(start.classes),
        settings=settings.outer,
        evaluate=lambda x, y, eta: evaluator.distilled(x, y, eta, seeds=range(settings.eval.every_seeds), split="val"),
        every=settings.eval.every,
        match_norm=settings.match.match_norm,
        folder=folder.path,
        progress=workspace.progress,
    )
    with folder.stage("distil"):
        state = loop.run(start.images, start.labels, settings.outer.syn_lr_init)
    result = loop.best(state)
    save = partial(_save, workspace, folder, result, start.classes, recipe)
    save({"environment": environment(workspace.device)})  # what is distilled is there whatever becomes of its evaluation
    with folder.stage("evaluate"):
        accuracy = _accuracies(evaluator, settings, result, start, workspace.progress)
    results = {
        "accuracy": accuracy,
        "recovery_ratio": recovery_ratio(accuracy["distilled"], accuracy["full"]),
        "best_iteration": state.best["iteration"],
        "skipped_share": state.skipped / max(state.iteration, 1),
        "paths": {"run": str(folder.path), "distilled": str(folder.path / "distilled"), "experts": str(store.path)},
        "seconds": folder.seconds,
        "peak_memory": folder.peak_memory,
        "protocol": plain(settings.eval),
        "experts": {"num_experts": settings.experts.num_experts, "last_epoch_accuracy": _last_accuracies(store, settings)},
        "environment": environment(workspace.device),
    }
    save(results)
    write_json(folder.results_file, results)
    return results


def _accuracies(
    evaluator: Evaluator, settings: DistillSettings, result: tuple[Tensor, Tensor, float], start: InitialSet, progress: Progress
) -> dict[str, Any]:
    seeds = range(1000, 1000 + settings.eval.seeds)  # not those that chose the checkpoint
    return {
        "distilled": evaluator.distilled(*result, seeds=seeds, progress=progress),
        "initial": evaluator.distilled(start.images, start.labels, settings.outer.syn_lr_init, seeds=seeds, progress=progress),
        "random": evaluator.random(settings.ipc, result[2], progress),
        "full": evaluator.full(progress),
    }


def _last_accuracies(store: TrajectoryStore, settings: DistillSettings) -> list[float]:
    return [store.log(expert)["val_accuracy"][-1] for expert in range(settings.experts.num_experts)]


def _save(
    workspace: Workspace,
    folder: RunFolder,
    result: tuple[Tensor, Tensor, float],
    classes: Tensor,
    recipe: str | None,
    results: dict[str, Any],
) -> None:
    settings = workspace.settings
    metadata = {
        "method": settings.method,
        "recipe": recipe,
        "settings": plain(settings),
        "resolved": plain(folder.resolved),
        "seeds": {"seed": settings.seed, "data": settings.data.seed},
        "versions": results["environment"],
        "fingerprints": workspace.record(),
        "evaluation": {key: results[key] for key in ("accuracy", "recovery_ratio", "best_iteration", "protocol") if key in results},
    }
    images, labels, syn_lr = result
    DistilledSet(
        images=images.cpu(),
        labels=labels.cpu(),
        label_kind="logits",
        classes=classes.cpu(),
        syn_lr=syn_lr,
        preprocessing=workspace.preprocessing,
        class_names=workspace.data.class_names,
        metadata=metadata,
    ).save(folder.path / "distilled")


def evaluate(path: Path, settings: DistillSettings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Evaluate a saved set on the test split of `settings.data`, beside a random subset and the full data.

    Args:
        path: the folder of a `DistilledSet`.
        settings: usually those in the set's own metadata.
        progress: where to report.

    Returns:
        `accuracy` of `distilled`, `random` and `full`, `recovery_ratio`, `paths` and `seconds`.

    Raises:
        UsageError: when the set cannot be read, or has other classes or another image shape than the data.
    """
    began = time.perf_counter()
    held = DistilledSet.load(path)
    progress = progress or NoProgress()
    workspace = Workspace(dataclasses.replace(settings, ipc=held.ipc), progress)
    _refuse_misfit(held, workspace)
    workspace.preprocessing = held.preprocessing
    evaluator = workspace.evaluator()
    hard = held.label_kind == "hard"
    seeds = range(1000, 1000 + settings.eval.seeds)
    accuracy = {
        "distilled": evaluator.distilled(held.images, held.labels, held.syn_lr, seeds=seeds, hard=hard, progress=progress),
        "random": evaluator.random(held.ipc, held.syn_lr, progress),
        "full": evaluator.full(progress),
    }
    return {
        "accuracy": accuracy,
        "recovery_ratio": recovery_ratio(accuracy["distilled"], accuracy["full"]),
        "paths": {"distilled": str(path)},
        "protocol": plain(settings.eval),
        "seconds": {"evaluate": round(time.perf_counter() - began, 3)},
    }


def _refuse_misfit(held: DistilledSet, workspace: Workspace) -> None:
    data = workspace.data
    if tuple(held.class_names) != tuple(data.class_names):
        found, wanted = list(data.class_names), list(held.class_names)
        raise UsageError(f"data.source: {data.source!r} has the classes {found}, not {wanted} in this order as the set has")
    if tuple(held.images.shape[1:]) != data.shape:
        shape = tuple(held.images.shape[1:])
        raise UsageError(f"data.source: {data.source!r} has images of shape {data.shape}, not {shape} as the set has")
    workspace.check()
