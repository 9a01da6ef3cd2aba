"""From images to an evaluated distilled set.

    data → experts → initial images and labels → outer loop → evaluation → DistilledSet

A run folder holds everything that the run did; `resume` goes on from what is there and ends with the same bits.
"""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from torch import Tensor

from limbeck.distilled.initial import InitialSet
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.evaluate import Evaluator, recovery_ratio
from limbeck.experts.store import TrajectoryStore
from limbeck.methods.outer import OuterLoop
from limbeck.methods.registry import METHODS
from limbeck.methods.settings import DistillSettings
from limbeck.methods.workspace import Resolved, Workspace, resolve
from limbeck.runtime.cache import lock
from limbeck.runtime.devices import environment, repeatable
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import encodable, plain
from limbeck.runtime.progress import NoProgress, Progress

# Keys that no result before the final evaluation depends on: a resumed run may change them.
LATE_KEYS = {"output", "data.workers", "eval.seeds", "eval.random_lr"} | {
    f"eval.full_{name}" for name in ("epochs", "seeds", "lr", "batch_size")
}


class RunFolder:
    """The folder of one run: its settings, what was decided automatically, the seconds of each stage.

    Args:
        path: the folder, absent or empty unless `resume`.
        settings: of the run.
        resume: whether to go on with what is there.

    Raises:
        UsageError: when there is a run already and `resume` is not asked for, or its settings are others.
    """

    def __init__(self, path: Path, settings: DistillSettings, resume: bool) -> None:
        self.path, self.settings = path, settings
        self.settings_file, self.state_file, self.results_file = (
            path / f"{name}.json" for name in ("settings", "state", "results")
        )
        if self._begun():
            if not resume:
                raise UsageError(f"output: {str(path)!r} is not empty; go on with --resume, or name another with --output")
            self._refuse_other()

    def _begun(self) -> bool:
        """Whether there is anything in the folder beyond what a run writes before its first result."""
        if not self.path.exists():
            return False
        own = (self.settings_file.name, self.state_file.name)
        return not self.path.is_dir() or any(file.name not in own and not file.name.startswith(".") for file in self.path.iterdir())

    def _refuse_other(self) -> None:
        if not self.settings_file.exists():
            raise UsageError(f"output: {str(self.path)!r} is not the folder of a run that could be resumed")
        for key, asked, held in self._differences():
            if key not in LATE_KEYS:
                raise UsageError(f"{key}: {asked!r} is not {held!r}, which the run in {str(self.path)!r} was started with")

    def _differences(self) -> list[tuple[str, Any, Any]]:
        found, wanted = _flatten(_own_json(self.settings_file)), _flatten(encodable(self.settings))
        rows = [(key, wanted.get(key), found.get(key)) for key in sorted(found.keys() | wanted.keys())]
        return [row for row in rows if row[1] != row[2]]

    def open(self, data: str) -> None:
        """Write the settings and the decisions, or refuse to resume on images of another fingerprint than `data`."""
        if not self._begun():
            write_json(self.settings_file, self.settings)
            write_json(self.state_file, {"data": data, "resolved": resolve(self.settings), "stages": {}})
        elif self._differences():  # in keys that only the final evaluation reads: it is made again
            write_json(self.settings_file, self.settings)
            self.results_file.unlink(missing_ok=True)
        if self.state()["data"] != data:
            source = self.settings.data.source
            raise UsageError(f"data.source: the images of {source!r} have changed since the run in {str(self.path)!r} was started")

    def state(self) -> dict[str, Any]:
        """The content of `state.json`."""
        return _own_json(self.state_file)

    @property
    def resolved(self) -> Resolved:
        """What was decided automatically."""
        return Resolved(**self.state()["resolved"])

    def decide(self, **values: Any) -> None:
        """Change what was decided."""
        state = self.state()
        write_json(self.state_file, {**state, "resolved": {**state["resolved"], **values}})

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of every stage, over all starts of the run."""
        stages: dict[str, float] = self.state()["stages"]
        return stages

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's seconds to the stage of that name."""
        began = time.perf_counter()
        try:
            yield
        finally:
            state = self.state()
            state["stages"][name] = round(state["stages"].get(name, 0.0) + time.perf_counter() - began, 3)
            write_json(self.state_file, state)


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
        `paths` and `seconds` per stage.

    Raises:
        UsageError: for data, a network or an `ipc` that do not fit, or a run folder that is taken; nothing is written then.
        Failure: when an expert diverges.
    """
    output = Path(output)
    RunFolder(output, settings, resume)  # refuses before the data are loaded
    workspace = Workspace(settings, progress or NoProgress())
    workspace.check()
    with _alone(output):
        folder = RunFolder(output, settings, resume)
        folder.open(workspace.data.fingerprint)
        if str(workspace.device) != folder.resolved.device:
            raise UsageError(
                f"engine.device: {str(workspace.device)!r} is not {folder.resolved.device!r}, where the run was started"
            )
        repeatable(workspace.device)
        if folder.results_file.exists():
            return _own_json(folder.results_file)
        torch.set_num_threads(folder.resolved.threads)  # sums over threads round differently: a resumed run keeps the number
        return _run(workspace, folder, recipe)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold the run folder against other processes.

    Raises:
        UsageError: when another process holds it.
    """
    try:
        held = lock(output / ".run").acquire(timeout=0)
    except Timeout as error:
        raise UsageError(f"output: another process is running in {str(output)!r}") from error
    except OSError as error:
        raise UsageError(f"output: {str(output)!r} cannot be written: {error.strerror}") from error
    with held:
        yield


def _own_json(path: Path) -> dict[str, Any]:
    """The object in a file that the run wrote itself."""
    try:
        value: dict[str, Any] = read_json(path)
        return dict(value)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"output: {str(path)!r} is broken ({error}); start anew in another folder") from error


def _run(workspace: Workspace, folder: RunFolder, recipe: str | None) -> dict[str, Any]:
    settings, evaluator = workspace.settings, workspace.evaluator()
    with folder.stage("experts"):
        store = workspace.experts
    with folder.stage("initial"):
        start = workspace.initial()
    with folder.stage("compile"):
        step, compiled = workspace.student_step(folder.resolved.compiled)
        folder.decide(compiled=compiled)
    loop = OuterLoop(
        objective=METHODS[settings.method](workspace, step),
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


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for key, item in value.items():
        rows |= _flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return rows
