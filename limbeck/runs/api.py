"""What Python calls: objects in, typed results out. The command says the same by names (`runs/distill.py`, `runs/evaluate.py`)."""

import atexit
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, cast

from torch import nn

from limbeck.augmentation import Augmentation, Dsa
from limbeck.data import load as loading
from limbeck.data.imageset import ImageSet, load_object
from limbeck.data.settings import DataSettings
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.protocols import Protocol
from limbeck.evaluation.results import Evaluation
from limbeck.evaluation.settings import under_another
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.store import TrajectoryStore
from limbeck.matching.adjoint import Adjoint
from limbeck.matching.criteria import Criterion
from limbeck.matching.distances import Distance
from limbeck.matching.schedules import Schedule
from limbeck.methods.method import Method
from limbeck.methods.presets import PARTS
from limbeck.methods.registry import METHODS
from limbeck.methods.snapshots import Callback
from limbeck.networks.factory import Factory
from limbeck.parametrisations.parametrisation import Parametrisation
from limbeck.runs import distill as running
from limbeck.runs.evaluate import EvaluationOptions
from limbeck.runs.evaluate import evaluate as evaluate_sets
from limbeck.runs.results import RunResult
from limbeck.runs.settings import DistillSettings, Keys, check_keys, dotted, flat
from limbeck.runs.strangers import beyond
from limbeck.runs.tuning import Tuned
from limbeck.runs.tuning import tune as find_settings
from limbeck.runtime.checked import Checked, FolderPath, checked, shown
from limbeck.runtime.devices import undisturbed
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.executor import Executor
from limbeck.runtime.executor.current import executing
from limbeck.runtime.kept import elsewhere
from limbeck.runtime.leftovers import new_passing_folder, passing_folder, remove
from limbeck.runtime.located import here
from limbeck.runtime.notices import gathered, logged
from limbeck.runtime.plugins import is_foreign
from limbeck.runtime.progress import LogProgress, Progress
from limbeck.runtime.published import Work, working
from limbeck.runtime.ranks import Ranks, leaving
from limbeck.runtime.room import disks_told
from limbeck.saliency.maps import Cam
from limbeck.saliency.weights import Weighting

Network = str | nn.Module | Factory


@gathered(logged)
@disks_told()
@undisturbed()
@leaving()
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
    parametrisation: Parametrisation | str | None = None,
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
        data: an `ImageSet`, a path or name (`scenes:easy`), a torch `Dataset`, a `datasets.Dataset` or a tuple of arrays.
        method: a name, or what a function of `limbeck.methods` gives; settings given here go before its own.
        network: to distil for: a name, a module, or a function of (channels, height, width, num_classes) or of (num_classes).
        ipc: synthetic images per class; slots, where a parametrisation decodes several from each.
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
        parametrisation: what the set stores of its images: `pixels`, `multi`, `dct`, or such as `limbeck.MultiFormation(2)`.
        protocol: of the evaluation.
        experts: what `train_experts` returned; None finds them in the cache or trains them.
        output: the run folder, or a URL such as `s3://bucket/run`, which a stopped run goes on from (`resume=True`); None leaves
            nothing on disk: experts and networks of the full data, too, live only as long as this process.
        resume: go on with the run in `output`; where there is none, one begins, which is said.
        callbacks: each is called with a `Snapshot` at every evaluation of the outer loop.
        progress: where to report; None goes through `logging`, as the logger `limbeck`.
        **settings: any other key, by its last word (`lr_img=100.0`, `syn_steps=20`) or in full (`**{"experts.momentum": 0.9}`).

    Raises:
        UsageError: for data, a network or settings that do not fit; nothing is trained or written then.
        Failure: when an expert diverges.
        DiskFailure: when a disk is full, or has gone, meanwhile; with `output`, `resume=True` goes on once it is as it was.

    Example:
        >>> import limbeck
        >>> tiny = {"size": 16, "per_class": 12, "num_experts": 1, "train_epochs": 2, "max_start_epoch": 1, "syn_steps": 2}
        >>> quick = {"first_max_start_epoch": 1, "expert_epochs": 1, "epochs": 1, "full_epochs": 1, "random_lr": 0.01}
        >>> run = limbeck.distill("scenes:easy", "mtt", network="ConvNetD2-w4", iterations=2, **tiny, **quick)
        >>> len(run.distilled), 0 <= run.accuracy.distilled.mean <= 1
        (10, True)
    """
    parts = zip(PARTS, (criterion, distance, schedule, weighting, cam, adjoint, augmentation, init, parametrisation), strict=True)
    named = {"network": network, "ipc": ipc, "seed": seed, "iterations": iterations, **dict(parts), "protocol": protocol}
    made, place = settings_of(data, method, {**named, **settings}), checked("output", FolderPath | None, output)
    require(place is not None or not resume, "resume", resume, "possible without output, the folder of the run to go on with")
    called = isinstance(callbacks, Sequence) and all(map(callable, callbacks))
    require(called, "callbacks", callbacks, "a list of functions of a Snapshot")
    with _folder(place, resume) as work:
        calls = [*callbacks, work.publish] if work.published else callbacks
        result = running.distill(made, work.folder, resume=resume, progress=_reporting(progress), experts=experts, callbacks=calls)
        if place is not None:
            return result.at(**{name: work.named(path) for name, path in result.paths.items()})
        # The set is taken along before its folder goes, which for several ranks is rank 0's.
        held = result.distilled
        Ranks.here().wait()
        return replace(result, held=held, evaluation=replace(result.evaluation, paths={}))


@gathered(logged)
@disks_told()
def load_data(source: Any, *, progress: Progress | None = None, **settings: Any) -> ImageSet:
    """The images that a path or a name means, or whatever else `distill` takes for data.

    Args:
        source: such as `photos/`, `scenes:easy`, `hf:NAME`; `docs/data.md` lists all kinds.
        progress: where to report; None goes through `logging`.
        **settings: keys of `data.*` by their last word, such as `size=64`.

    Raises:
        UsageError: when there is nothing, or it cannot be used as it is.

    Example:
        >>> import limbeck
        >>> limbeck.load_data("scenes:easy", size=16, per_class=12).shape
        (3, 16, 16)
    """
    keys = {f"data.{word.removeprefix('data.')}": value for word, value in settings.items()}
    check_keys(keys)
    about = DataSettings(**{key.removeprefix("data."): value for key, value in keys.items()})
    if isinstance(source, (str, PathLike)):
        return loading.load_data(replace(about, source=source), _reporting(progress))
    return load_object(source, about, _reporting(progress))


@gathered(logged)
@disks_told()
@undisturbed()
def train_experts(
    data: Any,
    network: Network = "ConvNetD3",
    *,
    seed: int = 0,
    augmentation: Augmentation | str | None = None,
    executor: Executor | str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> TrajectoryStore:
    """Trajectories of networks trained on the images, every epoch kept: found in the cache or trained.

    Args:
        data: as `distill` takes it.
        network: as `distill` takes it.
        seed: of the draws.
        augmentation: of the training images.
        executor: where jobs run: `local` for processes of this machine, `ray` or a `limbeck.Ray` for a cluster.
        progress: where to report; None goes through `logging`.
        **settings: keys of `experts.*` and `data.*` by their last word, such as `num_experts=10`, `train_epochs=50`.

    Raises:
        UsageError: for data, a network or settings that do not fit.
        Failure: when an expert diverges.

    Example:
        >>> import limbeck
        >>> store = limbeck.train_experts("scenes:easy", "ConvNetD2-w4", num_experts=1, train_epochs=2, size=16, per_class=12)
        >>> store.read(0, 2).shape
        torch.Size([926])
    """
    given = {"network": network, "seed": seed, "augmentation": augmentation, "min_start_epoch": 0, **settings}
    own = _typed(settings)
    epochs = ExpertSettings(**{key: own[f"experts.{key}"] for key in ["train_epochs"] if f"experts.{key}" in own}).train_epochs
    given |= {"expert_epochs": 1, "schedule": "uniform", "max_start_epoch": epochs}
    made = settings_of(data, "datm", given)
    with executing(executor):
        return running.train_experts(made, progress=_reporting(progress))


@gathered(logged)
@disks_told()
@undisturbed()
def tune(
    data: Any,
    method: Method | str = "edf",
    *,
    network: Network = "ConvNetD3",
    ipc: int = 1,
    seed: int = 0,
    experts: TrajectoryStore | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Tuned:
    """Settings of trajectory matching for these images, read from experts and start images: T, M, start epochs and step sizes.

    Nothing is tried, and no validation or test image is looked at; `limbeck.distill(…, **found.keys)` takes what is found.

    Args:
        data: as `distill` takes it.
        method: one that matches trajectories.
        network: as `distill` takes it.
        ipc: synthetic images per class.
        seed: of the draws.
        experts: what `train_experts` returned; None finds them in the cache or trains them.
        progress: where to report; None goes through `logging`.
        **settings: any other key, as `distill` takes it.

    Raises:
        UsageError: for data, a network, a method or settings that do not fit, and for experts of fewer than three epochs.
        Failure: when experts or students do not move, or diverge.

    Example:
        >>> import limbeck
        >>> tiny = {"size": 16, "per_class": 12, "num_experts": 1, "train_epochs": 3}
        >>> found = limbeck.tune("scenes:easy", "mtt", network="ConvNetD2-w4", **tiny)
        >>> found.keys["match.syn_steps"], found.keys["outer.lr_img"] > 0
        (20, True)
    """
    looked_for = {"expert_epochs": 1, "first_max_start_epoch": 1, "max_start_epoch": 1}  # that fit experts of any length
    given = {key.rpartition(".")[2] for key in _typed(settings)}
    looked_for = {key: value for key, value in looked_for.items() if key not in given}
    made = settings_of(data, method, {"network": network, "ipc": ipc, "seed": seed, **looked_for, **settings})
    return find_settings(made, progress=_reporting(progress), store=experts)


@gathered(logged)
@disks_told()
@undisturbed()
def evaluate(
    sets: Any,
    data: Any,
    *,
    networks: Sequence[Network] = (),
    protocol: Protocol | str | None = None,
    seeds: int | None = None,
    augmentation: Augmentation | str | None = None,
    options: EvaluationOptions = EvaluationOptions(keep=False),
    executor: Executor | str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Evaluation:
    """Train fresh networks on small sets and measure them on the test images, beside random images and the full data.

    Args:
        sets: one or several: a `DistilledSet`, what `distill` returned, or a path (`limbeck evaluate` lists the kinds).
        data: as `distill` takes it.
        networks: as `distill` takes one; empty takes that which the first set was distilled for.
        protocol: a name, a `Protocol` or a file; None takes that of the first set's run, with its epochs and batch size.
        seeds: networks trained for each.
        augmentation: None takes that of the first set's run.
        options: what else is measured, and what is kept.
        executor: where jobs run: `local` for processes of this machine, `ray` or a `limbeck.Ray` for a cluster.
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
        5
    """
    several = isinstance(sets, Iterable) and not isinstance(sets, (str, Path, SmallSet, DistilledSet))
    wanted = [one.distilled if isinstance(one, RunResult) else one for one in (sets if several else [sets])]
    wanted = [here("sets", one) if isinstance(one, str) else one for one in wanted]
    known = all(isinstance(one, (str, PathLike, SmallSet, DistilledSet)) for one in wanted)
    require(
        bool(wanted) and known, "sets", [type(one).__name__ for one in wanted], "one or more of DistilledSet, RunResult and path"
    )
    require(isinstance(options, EvaluationOptions), "options", options, "EvaluationOptions")
    alone = isinstance(networks, (str, nn.Module)) or callable(networks)
    networks = [cast(Network, networks)] if alone else list(networks)
    named, typed = {"protocol": protocol, "eval.seeds": seeds, "augmentation": augmentation}, _typed(settings)
    under = _said_by(wanted[0], another=protocol is not None or "eval.protocol" in typed)
    # What its metadata describe as somebody's object or code is not run for that, nor a file opened; the call must give it.
    called: dict[str, tuple[str, Any]] = {
        "eval.protocol": ("protocol", protocol),
        "augment.strategy": ("augmentation", augmentation),
        "network": ("networks", networks or None),
        "eval.networks": ("networks", networks or None),
    }
    refused = dict(beyond(under))
    for key, what in refused.items():
        word, given = called.get(key, (key.rpartition(".")[2], typed.get(key)))
        if given is None and typed.get(key) is None:
            said = f"the set was made with {shown(under[key])}, which its metadata only describe" if is_foreign(what) else what
            raise UsageError(f"{word}: is missing; {said}")
    under = Keys((key, value) for key, value in under.items() if key not in refused)
    made = settings_of(data, "edf", {**named, **settings}, under)
    with executing(executor):
        return evaluate_sets(wanted, made, networks=networks, options=options, progress=_reporting(progress))


def settings_of(data: Any, method: Method | str, given: Mapping[str, Any], under: Mapping[str, Any] = {}) -> DistillSettings:
    """The settings of a call over those `under` it; what is None is left as the method has it."""
    own = method.given if isinstance(method, Method) else {}
    name = method.name if isinstance(method, Method) and method.name in METHODS else method
    words = dotted({key: value for key, value in given.items() if value is not None})
    whole = {key: value for key, value in words.items() if isinstance(value, Checked)}  # groups, of which nothing else counts
    below = Keys((key, value) for key, value in (Keys(under) | flat(dotted(own))).items() if key.partition(".")[0] not in whole)
    keys = below | flat({key: value for key, value in words.items() if key not in whole}) | whole
    if isinstance(dsa := keys.get("augment.strategy"), Dsa):  # as settings, so that whoever reads them later can make it again
        keys |= Keys((f"augment.{key}", value) for key, value in dsa.identity().items())
    if isinstance(data, (tuple, list, Mapping)):  # a setting is one object
        data, keys = loaded(data, keys)
    return DistillSettings.of({**keys, "data.source": data, "method": name})


def loaded(data: Any, keys: Mapping[str, Any]) -> tuple[ImageSet, Keys]:
    """The images that an object is under the keys `data.*`, and the keys that are left to say of them."""
    check_keys(keys)
    about = {key.removeprefix("data."): value for key, value in keys.items() if key.startswith("data.")}
    rest = Keys((key, value) for key, value in keys.items() if not key.startswith("data.") or key == "data.val_fraction")
    return load_object(data, DataSettings(**about)), rest


def _reporting(progress: Progress | None) -> Progress:
    """Where to report."""
    require(progress is None or isinstance(progress, Progress), "progress", progress, "a limbeck.Progress, nor None")
    return progress or LogProgress()


def _typed(settings: Mapping[str, Any]) -> Keys:
    """The keys that a call gives, in full, groups among them taken apart."""
    return flat(dotted({key: value for key, value in settings.items() if value is not None}))


def _said_by(found: Any, another: bool) -> Keys:
    """What its metadata say of how a set was made and measured, by `another` protocol too, as far as that is settings of today."""
    held = found if isinstance(found, DistilledSet) else None
    if held is None and isinstance(found, (str, Path)) and DistilledSet.is_at(found):
        held = DistilledSet.load(found)
    stored = (held.metadata.get("settings") or {}) if held is not None else {}
    stored = under_another(stored) if another else stored
    groups = {group: stored[group] for group in ("augment", "eval") if isinstance(stored.get(group), Mapping)}
    network = {"network": stored["network"]} if isinstance(stored.get("network"), str) else {}
    return flat(groups) | network


@contextmanager
def _folder(output: str | None, resume: bool) -> Iterator[Work]:
    """The run folder; a temporary one, and a cache that ends with the process, where nothing is to be left on disk."""
    if output is not None:
        with working("output", output, resume=resume, ranks=Ranks.here()) as work:
            yield work
        return
    with passing_folder() as folder, elsewhere(_passing()):
        yield Work(folder / "run")


@cache
def _passing() -> Path:
    """A cache that ends with the process."""
    folder = new_passing_folder()
    atexit.register(remove, folder)
    return folder
