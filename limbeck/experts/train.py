"""Training the experts and keeping the checkpoints that will be read.

Any number of processes, on any number of machines that share a file system, may fill one store. Each takes the lock of an expert,
looks again at what is there, trains what is missing and gives the lock back; the lock of a process that dies is free. A `Shard`
only decides which experts a process takes. The ranks of a run are such processes, too.

Cazenavette et al., "Dataset Distillation by Matching Training Trajectories" (MTT), 2022, arXiv:2203.11932.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import torch

from limbeck.augmentation import Augmentation
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Preprocessing
from limbeck.experts.curriculum import WINDOWS, Scoring
from limbeck.experts.elsewhere import Elsewhere
from limbeck.experts.files import Job, Recorder
from limbeck.experts.notes import Want, want_of
from limbeck.experts.settings import ExpertSettings, unread
from limbeck.experts.store import FORMAT, TrajectoryStore, missing_jobs, say_lacking
from limbeck.experts.trainer import ExpertSetup, Trainer, optimiser_of, rate_of
from limbeck.losses import cross_entropy
from limbeck.networks.factory import is_foreign
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.names import same_network, usual_name
from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.executor import Shard
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.kept import cache_root
from limbeck.runtime.locks import Busy
from limbeck.runtime.plugins import library_of
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.ranks import Ranks
from limbeck.runtime.records import Record
from limbeck.runtime.remote import Remote
from limbeck.runtime.urls import is_url, local
from limbeck.training.compute import Compile, Compute
from limbeck.training.images import prepare_split
from limbeck.training.targets import Hard
from limbeck.training.train import RETURNS, Training

PATIENCE = 1.0  # seconds between two looks at experts that others train


@dataclass(frozen=True, kw_only=True)
class Identity(Record):
    """What determines the trajectories: whoever agrees in it shares a store. Settings alone know nothing of the images."""

    data: str | None = None
    preprocessing: str | None = None
    num_parameters: int | None = None
    structure: str | None = None
    network: str
    augment: Mapping[str, Any]
    experts: Mapping[str, Any]
    seed: int

    LEFT_OUT: ClassVar = ("data", "preprocessing", "num_parameters", "structure")


@dataclass(frozen=True)
class ExpertTask:
    """Everything that determines the experts.

    Args:
        data: the images; the training split is trained on, the validation split gives the accuracies.
        preprocessing: of the images.
        network: the network.
        settings: the keys `experts.*`.
        augment: the augmentation; its crop ratio is replaced by the experts' own.
        seed: of the draws.
        device: to train on.
        compile: whether training is compiled, as `engine.compile`.
    """

    data: ImageSet
    preprocessing: Preprocessing
    network: FlatNetwork
    settings: ExpertSettings
    augment: Augmentation
    seed: int
    device: torch.device
    compile: Compile = "auto"

    def identity(self) -> Identity:
        """What determines the trajectories."""
        return dataclasses.replace(
            made_with(usual_name(self.network.name), self.settings, self.augment, self.seed),
            data=self.data.fingerprint,
            preprocessing=self.preprocessing.identity,
            num_parameters=self.network.num_parameters,
            # One of ours, or of a library, is known by its name; not so what a folder holds.
            structure=None if library_of(self.network.name) not in (None, "transformers") else self.network.structure,
        )

    def check_store(self, store: TrajectoryStore, epochs: Sequence[int]) -> None:
        """Raise `UsageError` for experts of another network or images, or that lack one of the epochs that are read."""
        require(isinstance(store, TrajectoryStore), "experts", store, "a TrajectoryStore, as train_experts returns")
        wanted = {"network": self.network.name, "num_parameters": self.network.num_parameters}
        wanted |= {} if store.imported else {"data": self.data.fingerprint, "preprocessing": self.preprocessing.identity}
        structure = self.identity().structure
        wanted |= {} if structure is None or store.metadata.get("structure") is None else {"structure": structure}
        for key, value in wanted.items():
            held = store.metadata.get(key)
            alike = held == value or (key == "network" and same_network(str(held), self.network.name))
            require(alike, "experts", str(store.path), f"a store of {key} {value!r}: it has {held!r}")
        lacking = store.lacking(want_of(self.settings, epochs))
        require(not lacking, "experts", str(store.path), f"complete: it {say_lacking(lacking) if lacking else ''}")

    def find_store(self) -> TrajectoryStore | None:
        """The store of these experts; None where there is none yet.

        Raises:
            UsageError: when `experts.store` holds other experts, or something else.
        """
        identity, path, place = self.identity().to_dict(), self.path, self.settings.store
        elsewhere = self.elsewhere
        if elsewhere is not None:
            elsewhere.open()
        made = (path / "metadata.json").exists()
        if not made and place is not None and _is_of_others(path):
            made = (path / "metadata.json").exists()  # made meanwhile, by a process that shares the work
            require(made, "experts.store", place, "a store, an empty folder or a new one")
        if not made:
            return None
        held = TrajectoryStore(path, elsewhere=elsewhere)
        if same_network(str(held.metadata.get("network")), identity["network"]):
            identity["network"] = held.metadata["network"]
        if is_foreign(self.network.name) and held.metadata.get("structure") is None:  # of a version that did not note it
            identity["structure"] = None
        if held.imported:
            identity = {key: identity[key] for key in ("network", "num_parameters")}  # no more is known of how they were trained
        return TrajectoryStore(path, identity, elsewhere=elsewhere)

    def open_store(self) -> TrajectoryStore:
        """The same, made where there is none."""
        identity, about = self.identity().to_dict(), {"source": self.data.source}
        return self.find_store() or TrajectoryStore(self.path, identity, about, self.elsewhere)

    @property
    def path(self) -> Path:
        """Where the store of these experts is, or will be."""
        place = self.settings.store
        if self.elsewhere is not None:
            return self.elsewhere.folder
        return Path(local(place)).expanduser() if place else cache_root() / "experts" / fingerprint(FORMAT, self.identity())

    @property
    def elsewhere(self) -> Elsewhere | None:
        """Where the store is when `experts.store` is a URL."""
        place = self.settings.store
        return Elsewhere(Remote("experts.store", place)) if place and is_url(place) else None

    @property
    def augmentation(self) -> Augmentation:
        """The experts' augmentation."""
        return self.augment.cropping(self.settings.crop_ratio)


def _is_of_others(path: Path) -> bool:
    """Whether something is there that is no store; one that another process is just making begins with a hidden file."""
    return path.exists() and not (path.is_dir() and all(file.name.startswith(".") for file in path.iterdir()))


def made_with(network: str, settings: ExpertSettings, augment: Augmentation, seed: int) -> Identity:
    """The part of the identity that settings decide.

    How many experts and epochs there are changes no trajectory, unless the step size depends on the number of epochs; nor does how
    exactly they are kept, nor where; nor what belongs to an optimiser, a change of the step size or a curriculum that is not used.
    """
    if settings.rate != "constant":
        settings = dataclasses.replace(settings, rate_epochs=settings.rate_epochs or settings.train_epochs)
    free = {"num_experts", "train_epochs", "label_experts", "dtype", "store", *unread(settings)}
    free |= {"rate"} if settings.rate == "constant" else set()  # so that stores older than rates are found
    own = {key: value for key, value in dataclasses.asdict(settings).items() if key not in free}
    return Identity(
        network=network,
        augment=augment.cropping(settings.crop_ratio).identity(),
        experts=own | ({"curriculum_windows": WINDOWS} if settings.curriculum != "none" else {}),
        seed=seed,
    )


def train_experts(
    task: ExpertTask, epochs: Sequence[int], progress: Progress | None = None, shard: Shard = Shard()
) -> TrajectoryStore:
    """A store that holds `epochs` of every expert and the last epoch of those that give labels: found, or filled by training.

    What is held already is not trained again; a run that was stopped goes on where it was. Other processes may fill the same
    store meanwhile. What is found broken is trained again, now or when it is read.

    Args:
        task: what determines the experts.
        epochs: that the schedule can reach.
        progress: where to report.
        shard: the share of the experts to train; the store is complete once all shares are.

    Raises:
        UsageError: when the store lacks something and cannot be written, or was imported.
        Failure: when an expert diverges.
    """
    want, here = want_of(task.settings, epochs), Ranks.sharing()
    here.told(lambda: str(task.open_store().path))  # made by one, then found by the others
    store = task.open_store()
    here.gathered(lambda: _fill(task, want, store, progress or NoProgress(), shard, here.count))
    if not store.imported:
        store.remake = partial(_fill, task, want, store, NoProgress(), Shard())
    return store


def _fill(task: ExpertTask, want: Want, store: TrajectoryStore, progress: Progress, shard: Shard, processes: int = 1) -> None:
    """Have the store complete, beside so many processes − 1 that begin with the same at the same time."""
    if not store.to_train(want, shard):
        return
    left = sum(job.stop - job.start for jobs in missing_jobs(want, store, shard).values() for job in jobs)
    lacking = store.to_train(want, shard)  # with what files held that are found broken when training is to go on from them
    _write(store, lacking, lambda: store.note(want))
    total = sum(want.of(expert)[-1] for expert in shard.of(want.num_experts))
    material = material_of(task)
    if task.settings.curriculum == "pad":
        scoring = scoring_of(task, material)
        curriculum = scoring.curriculum(progress)
        _write(store, lacking, lambda: store.note_difficulty(curriculum.statistics(task.data.class_names, scoring.measure)))
        material = dataclasses.replace(material, pool=curriculum.positions)
    done, own = max(0, total - left), -(-left // processes)
    with progress.stage("experts", done + own, done) as stage:
        trainer = Trainer(material, lambda job: Recorder(store.shelf(job.expert), job, want.coding), stage.advance, store.path)
        fill(store, want, trainer.train, shard=shard, group=min(trainer.group, -(-len(lacking) // processes)))


def _write(store: TrajectoryStore, lacking: Mapping[int, Sequence[int]], write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        said = f"{str(store.path)!r} {say_lacking(lacking)} and cannot be written ({error.strerror})"
        raise UsageError(f"experts: {said}") from error


def fill(
    store: TrajectoryStore,
    want: Want,
    train: Callable[[Sequence[Job]], None],
    *,
    shard: Shard = Shard(),
    group: int = 1,
) -> None:
    """Have trained what the store lacks, also as its files are broken, and wait for what others train meanwhile.

    Args:
        store: to fill.
        want: what is needed.
        train: trains the experts of some jobs of equal start and stop, and records them.
        shard: the share of the experts to train; others are neither trained nor waited for.
        group: how many experts to take at once.

    Raises:
        Failure: when training leaves missing what it was to write.
    """

    def missing(expert: int) -> list[int]:
        return store.sound(lambda: store.shelf(expert).missing(want.of(expert), want.coding))

    def next_job(expert: int) -> Job | None:
        return store.sound(lambda: store.shelf(expert).job(want.of(expert), want.coding))

    left = shard.of(want.num_experts)
    while left := [expert for expert in left if missing(expert)]:
        with _claimed(store, left, group) as experts:
            jobs = [job for expert in experts if (job := next_job(expert))]
            for _, same in groupby(sorted(jobs, key=_span), key=_span):
                train(list(same))
            for job in jobs:
                store.shelf(job.expert).publish()
        for job in jobs:
            store.shelf(job.expert).look()
            if set(job.keep) & set(missing(job.expert)):
                raise Failure(f"expert {job.expert} was trained to epoch {job.stop}, but not all of it is in {str(store.path)!r}")


def _span(job: Job) -> tuple[int, int]:
    return job.start, job.stop


@contextmanager
def _claimed(store: TrajectoryStore, experts: Sequence[int], most: int) -> Iterator[list[int]]:
    """The first `most` of the experts that nobody holds, held and looked at anew; none, after a while, when all are taken."""
    with ExitStack() as held:
        taken: list[int] = []
        for expert in experts:
            if len(taken) == most:
                break
            try:
                held.enter_context(store.shelf(expert).lock().acquire(timeout=0))
            except Busy:
                continue
            except OSError as error:
                raise UsageError(f"experts: {str(store.path)!r} lacks experts and cannot be written ({error.strerror})") from error
            taken.append(expert)
        if not taken:
            with suppress(Busy), store.shelf(experts[0]).lock().acquire(timeout=PATIENCE):
                pass  # it is free, or a moment has passed
        for expert in experts:
            store.shelf(expert).look()
        for expert in taken:
            store.shelf(expert).tidy()
        yield taken


def material_of(task: ExpertTask) -> ExpertSetup:
    """What the experts of a task are trained with, all images prepared; without a curriculum."""
    settings, data = task.settings, task.data
    return ExpertSetup(
        compute=Compute(task.network, task.device, task.compile),
        images=prepare_split(data.train, task.preprocessing, task.device),
        labels=Hard(torch.from_numpy(data.train.labels).to(task.device), data.num_classes),
        held_out=prepare_split(data.val, task.preprocessing, task.device) if len(data.val) else None,
        held_out_labels=torch.from_numpy(data.val.labels),
        settings=settings,
        how=Training(
            optimiser=optimiser_of(settings),
            loss=cross_entropy,
            epochs=settings.rate_epochs or settings.train_epochs,
            batch_size=settings.batch_size,
            augment=task.augmentation,
            rate=rate_of(settings),
            returns=RETURNS,
        ),
        seed=task.seed,
    )


def scoring_of(task: ExpertTask, material: ExpertSetup) -> Scoring:
    """How difficult the images are to the network of a task."""
    return Scoring(
        network=task.network,
        images=material.images,
        labels=material.labels,
        measure=task.settings.difficulty,
        lr=task.settings.expert_lr,
        batch_size=task.settings.batch_size,
        augment=task.augmentation,
        identity={"data": task.data.fingerprint, "preprocessing": task.preprocessing.identity},
        seed=task.seed,
    )
