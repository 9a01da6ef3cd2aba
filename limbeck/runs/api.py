"""What Python calls: objects in, typed results out. The command says the same by names (`runs/distill.py`, `runs/evaluate.py`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.augmentation import Augmentation
from limbeck.evaluation.protocols import Protocol
from limbeck.evaluation.results import Evaluation
from limbeck.experts.store import TrajectoryStore
from limbeck.matching.adjoint import Adjoint
from limbeck.matching.criteria import Criterion
from limbeck.matching.distances import Distance
from limbeck.matching.schedules import Schedule
from limbeck.methods.method import Method
from limbeck.methods.outer import Callback
from limbeck.networks.factory import Factory
from limbeck.runs import distill as running
from limbeck.runs.evaluate import EvaluationOptions, evaluate_sets
from limbeck.runs.results import RunResult
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.progress import LogProgress, Progress
from limbeck.saliency.maps import Cam
from limbeck.saliency.weights import Weighting

Network = str | nn.Module | Factory


def distill(
    data: Any,
    method: Method | str = "edf",
    *,
    network: Network = "ConvNetD3",
    ipc: int = 1,
    seed: int = 0,
    iterations: int | None = None,
    criterion: Criterion | str | None = None,
    distance: Distance | str | None = None,
    schedule: Schedule | str | None = None,
    weighting: Weighting | str | None = None,
    cam: Cam | str | None = None,
    adjoint: Adjoint | str | None = None,
    augmentation: Augmentation | str | None = None,
    init: Any = None,
    protocol: Protocol | str | None = None,
    experts: TrajectoryStore | None = None,
    output: Path | str | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    **settings: Any,
) -> RunResult:
    """Distil images, evaluate the set, and beside it random images and the full data.

    Args:
        data: an `ImageSet`, a path or name (`scenes:easy`), or whatever `ImageSet.of` takes.
        method: a name, or what a function of `limbeck.methods` gives; settings given here go before its own.
        network: to distil for: a name, a module, or a function of (channels, height, width, num_classes) or of (num_classes).
        ipc: synthetic images per class.
        seed: of every draw.
        iterations: of the outer loop.
        criterion: which parameters the matching loss keeps.
        distance: how it compares.
        schedule: the epochs of the experts that iterations start from.
        weighting: what becomes of activation maps on the pixel gradient.
        cam: what makes the maps.
        adjoint: the way to the gradient.
        augmentation: of student steps, experts and evaluation.
        init: what the loop starts from: `correct`, `real`, `noise`, `centre`, the path of a set, or a `DistilledSet`.
        protocol: of the evaluation.
        experts: what `train_experts` returned; None finds them in the cache or trains them.
        output: the run folder, which a stopped run goes on from (`resume=True`); None leaves nothing on disk: experts and networks of
            the full data, too, live only as long as this process.
        resume: go on with the run in `output`.
        callbacks: each is called with a `Snapshot` at every evaluation of the outer loop.
        progress: where to report; None goes through `logging`, as the logger `limbeck`.
        **settings: any other key, by its last word (`lr_img=100.0`, `syn_steps=20`) or in full (`**{"experts.momentum": 0.9}`).

    Raises:
        UsageError: for data, a network or settings that do not fit; nothing is trained or written then.
        Failure: when an expert diverges.

    Example:
        >>> import limbeck
        >>> tiny = {"size": 16, "per_class": 12, "num_experts": 1, "train_epochs": 2, "max_start_epoch": 1, "syn_steps": 2}
        >>> quick = {"first_max_start_epoch": 1, "expert_epochs": 1, "epochs": 1, "full_epochs": 1, "random_lr": 0.01}
        >>> run = limbeck.distill("scenes:easy", "mtt", network="ConvNetD2-w4", iterations=2, **tiny, **quick)
        >>> len(run.distilled), 0 <= run.accuracy.distilled.mean <= 1
        (10, True)
    """
    named = {
        "network": network,
        "ipc": ipc,
        "seed": seed,
        "iterations": iterations,
        "criterion": criterion,
        "distance": distance,
        "schedule": schedule,
        "weighting": weighting,
        "cam": cam,
        "adjoint": adjoint,
        "augmentation": augmentation,
        "init": init,
        "protocol": protocol,
    }
    made, images = _settings(data, method, {**named, **settings}, progress)
    with _folder(output) as folder:
        return running.distill(
            made,
            folder,
            resume=resume,
            progress=progress or LogProgress(),
            data=images,
            experts=experts,
            callbacks=callbacks,
            leaves=output is not None,
        )


def train_experts(
    data: Any,
    network: Network = "ConvNetD3",
    *,
    seed: int = 0,
    augmentation: Augmentation | str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> TrajectoryStore:
    """Trajectories of networks trained on the images, every epoch kept: found in the cache or trained.

    Args:
        data: as `distill` takes it.
        network: as `distill` takes it.
        seed: of the draws.
        augmentation: of the training images.
        progress: where to report; None goes through `logging`.
        **settings: keys of `experts.*` and `data.*` by their last word, such as `num_experts=10`, `train_epochs=50`.

    Raises:
        UsageError: for data, a network or settings that do not fit.
        Failure: when an expert diverges.

    Example:
        >>> import limbeck
        >>> store = limbeck.train_experts("scenes:easy", "ConvNetD2-w4", num_experts=1, train_epochs=2, size=16, per_class=12)
        >>> store.read(0, 2).shape
        torch.Size([1226])
    """
    given = {"network": network, "seed": seed, "augmentation": augmentation, "min_start_epoch": 0, **settings}
    epochs = int(settings.get("train_epochs", DistillSettings().experts.train_epochs))
    given |= {"expert_epochs": 1, "schedule": "uniform", "max_start_epoch": epochs}
    made, images = _settings(data, "datm", given, progress)
    return running.train_experts(made, progress=progress or LogProgress(), data=images)


def evaluate(
    sets: Any,
    data: Any,
    *,
    networks: Sequence[Network] = (),
    protocol: Protocol | str | None = None,
    seeds: int | None = None,
    augmentation: Augmentation | str | None = None,
    options: EvaluationOptions = EvaluationOptions(keep=False),
    progress: Progress | None = None,
    **settings: Any,
) -> Evaluation:
    """Train fresh networks on small sets and measure them on the test images, beside random images and the full data.

    Args:
        sets: one or several: a `DistilledSet`, what `distill` returned, or a path (`limbeck evaluate` lists the kinds).
        data: as `distill` takes it.
        networks: as `distill` takes one; empty takes that which the first set was distilled for.
        protocol: a name, a `Protocol` or a file; None takes that of the first set's run.
        seeds: networks trained for each.
        augmentation: None takes that of the first set's run.
        options: what else is measured, and what is kept.
        progress: where to report; None goes through `logging`.
        **settings: keys of `eval.*` by their last word, such as `epochs=300`.

    Raises:
        UsageError: for a set that cannot be read or does not fit the data.

    Example:
        >>> import limbeck
        >>> data = limbeck.load_data("scenes:easy", size=16, per_class=12)
        >>> random = limbeck.distill(data, "random", network="ConvNetD2-w4", epochs=1, full_epochs=1, random_lr=0.01)
        >>> found = limbeck.evaluate(random.distilled, data, networks=["ConvNetD2-w4"], epochs=1, full_epochs=1, random_lr=0.01)
        >>> found.accuracy.distilled.n
        3
    """
    several = isinstance(sets, Sequence) and not isinstance(sets, (str, Path))
    wanted = [one.distilled if isinstance(one, RunResult) else one for one in (sets if several else [sets])]
    named = {"protocol": protocol, "eval.seeds": seeds, "augmentation": augmentation}
    base = _settings_of(wanted[0])
    made, images = _settings(data, "edf", {**base, **named, **settings}, progress)
    return evaluate_sets(wanted, made, networks=networks, options=options, progress=progress or LogProgress(), data=images)


