"""`evaluate`: one small set or several, of our own or anybody's, measured under one protocol and compared on the same seeds.

A set is refused where its classes, its preprocessing or its labels do not fit the images to test on: a figure of chance would say
nothing about it. The ranks of a run share the networks, those of further measurements, too; what is written is the first one's.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count
from pathlib import Path

from limbeck.accuracy import Accuracies, StepSize
from limbeck.distilled.foreign import ForeignOptions, check_needed
from limbeck.distilled.initial import content_of
from limbeck.distilled.plausibility import check_fit, powerless, suspicious
from limbeck.distilled.read import STEP_SIZE, SYN_LR, read_set
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.distilled.view_labels import VIEWS, StoredViews
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.fitting import Network
from limbeck.evaluation.named import called, check_names, check_teacher
from limbeck.evaluation.results import Evaluation, SetResult
from limbeck.evaluation.scores import Doubt
from limbeck.evaluation.statistics import Looks
from limbeck.evaluation.view_labels import asks, check_storable
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.names import check_network_name
from limbeck.runs import coresets, measurements, verdicts
from limbeck.runs.measurements import FURTHER, Subject
from limbeck.runs.needs import check_full
from limbeck.runs.record import Measured, Rates, final_seeds, measure, networks_of, record
from limbeck.runs.set_notes import other_augmentation, other_levels, say_notes
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime import zoo
from limbeck.runtime.determinism import repeating
from limbeck.runtime.disk import why
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.kept import cache_root
from limbeck.runtime.locks import lock
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.ranks import Ranks

Entry = Path | str | DistilledSet | SmallSet  # a set to evaluate


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What an evaluation does beside the settings' protocol.

    Args:
        foreign: how sets of other programs are to be understood.
        looks: how many seeds to train until the sets can be told apart (one set: from random images); None trains `eval.seeds`.
        further: names of further measurements, of `FURTHER`.
        trust: whether a set whose labels look permuted is measured nevertheless.
        keep: whether the result is noted in the set's own metadata and card.
    """

    foreign: ForeignOptions = ForeignOptions()
    looks: Looks | None = None
    further: Sequence[str] = ()
    trust: bool = False
    keep: bool = True

    def __post_init__(self) -> None:
        for name in self.further:
            require(name in FURTHER, "further", name, f"one of {', '.join(FURTHER)}")


def evaluate(
    sets: Entry | Sequence[Entry],
    settings: DistillSettings,
    *,
    networks: Sequence[Network] = (),
    options: EvaluationOptions = EvaluationOptions(),
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate small sets on the test split of the data, beside random subsets of the same size and the full data.

    Args:
        sets: one or several: values, folders of a `DistilledSet` or of images, `.npz` files, `.pt` pairs (`read_set`).
        settings: usually those in a set's own metadata. With `view_labels.store` a set without labels of views gets them, where
            the protocol asks a teacher about views.
        networks: names, modules for these images, or functions (channels, height, width, classes) that build one; empty takes
            `eval.networks`, or the network distilled for. A name that is given again counts once.
        options: see there.
        progress: where to report.

    Raises:
        UsageError: when a set cannot be read or does not fit the data.
    """
    with repeating(settings.engine.deterministic):
        return _evaluate(sets, settings, networks, options, progress or NoProgress())


def _evaluate(
    sets: Entry | Sequence[Entry],
    settings: DistillSettings,
    networks: Sequence[Network],
    options: EvaluationOptions,
    progress: Progress,
) -> Evaluation:
    began = time.perf_counter()
    entries = [sets] if isinstance(sets, (str, Path, DistilledSet, SmallSet)) else list(sets)
    check_needed([entry for entry in entries if isinstance(entry, (str, Path))], options.foreign)
    check_names(settings.eval)
    workspace, sources = Workspace(settings, progress), _each_once(networks or networks_of(settings))
    with called("networks" if networks else "eval.networks" if settings.eval.networks else "network"):
        flat = _made(sources, workspace)
    under = [_Set.of(entry, f"set {number}", workspace, options) for number, entry in enumerate(entries, start=1)]
    say_notes({one.name: one.notes for one in under}, workspace.progress)
    for one in under:
        one.check_views(workspace)
        coresets.check(workspace, one.held.set.real_ipc)
    check_full(workspace.evaluator_of(network) for network in flat)
    check_teacher(settings.eval, workspace.protocol, workspace.network_of)
    first = flat[0].name
    for one in under:
        one.evaluators = {network.name: one.evaluator(workspace, network) for network in flat}
        measurements.check(options.further, one.evaluators[first], sources[0], one.small, workspace)
    for network in flat:
        for one in under:
            if not options.trust:
                one.refuse_permuted(network.name, workspace.progress)
    for one in under:
        one.label_views(first, workspace, options)
        one.choose_rates(first, workspace.progress)
    found = {network.name: _measured(under, network.name, len(flat), options, workspace) for network in flat}
    beside = {ipc: coresets.coresets(workspace, ipc) for ipc in dict.fromkeys(one.held.set.real_ipc for one in under)}
    results = [
        one.result({network: measured[number] for network, measured in found.items()}, workspace, beside[one.held.set.real_ipc])
        for number, one in enumerate(under)
    ]
    for one, result in zip(under, results, strict=True):  # what has been measured is not lost with what comes after it
        one.keep(result, options, workspace.progress)
    for number, one in enumerate(under):
        subject = one.subject(first, sources[0], workspace)
        for name in options.further:
            held = {**results[number].measurements, name: FURTHER[name](subject)}
            results[number] = replace(results[number], measurements=held)
            one.keep(results[number], options, workspace.progress)
    comparisons = verdicts.comparisons([one.name for one in under], results, options.looks)
    seconds = {"evaluate": round(time.perf_counter() - began, 3)}
    return Evaluation(sets=tuple(results), comparisons=comparisons, seconds=seconds)


def _each_once(networks: Sequence[Network]) -> list[Network]:
    """A name that is given again is the same network, and what is no name another one."""
    return [one for number, one in enumerate(networks) if not isinstance(one, str) or one not in networks[:number]]


def _made(sources: Sequence[Network], workspace: Workspace) -> list[FlatNetwork]:
    """The networks for these images, of different names, by which results are found."""
    names = [one for one in sources if isinstance(one, str)]
    for name in names:
        check_network_name(name)  # before the data, which may take long to load
    found = list[FlatNetwork]()
    for one in sources:
        found.append(network := workspace.network_of(one))
        if not isinstance(one, str):
            free = chain([network.name], (f"{network.name}-{number}" for number in count(2)))
            network.name = next(name for name in free if name not in names)
            names.append(network.name)
    return found


@dataclass(eq=False)
class _Set:
    """A set under evaluation.

    Args:
        name: what it is called.
        path: where it lies, if it does.
        held: the set; its η is a number even where nobody has said one.
        notes: what a reader must know.
        augmented_alike: whether it is evaluated with the augmentation that it was distilled with, as far as is known.
        evaluators: by network.
        rates: likewise, the step sizes of the set and of the random images beside it.
        unchecked: what could not be told of its labels, by network.
    """

    name: str
    path: Path | None
    held: DistilledSet
    notes: list[str]
    augmented_alike: bool
    evaluators: dict[str, Evaluator] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)
    unchecked: dict[str, Doubt] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Entry, name: str, workspace: Workspace, options: EvaluationOptions) -> "_Set":
        data, preprocessing, path = workspace.data, workspace.preprocessing, None
        if isinstance(entry, SmallSet):
            noted, held = ({}, entry) if entry.syn_lr else ({STEP_SIZE: "assumed"}, replace(entry, syn_lr=SYN_LR))
            entry = DistilledSet(set=held, preprocessing=preprocessing, class_names=data.class_names, metadata=noted)
        if not isinstance(entry, DistilledSet):
            path, name = Path(entry), str(entry)
            entry = read_set(path, data, preprocessing, options=options.foreign)
        levels = other_levels(entry, data)
        try:
            fit = check_fit(entry, data, preprocessing)
        except UsageError as error:
            raise UsageError("; ".join([str(error), *levels])) from error
        notes = [*(entry.metadata.get("assumed") or ()), *fit, *levels]
        other = other_augmentation(entry, workspace.settings)
        return cls(name, path, entry, [*notes, *other], not other)

    @property
    def origin(self) -> str:
        """How its η was come by: `own`, or what its metadata say instead."""
        return str(self.held.metadata.get(STEP_SIZE, "own"))

    @property
    def small(self) -> SmallSet:
        """The set, with η only where somebody has said it."""
        return replace(self.held.set, syn_lr=None) if self.origin == "assumed" else self.held.set

    def own(self, first: str, evaluator: Evaluator) -> StepSize | None:
        """What counts as its own there; where no metadata say for which network η was learned, it is the `first` one's."""
        known = self.held.metadata.get("evaluation") or {}, self.held.metadata.get("settings") or {}
        home = next((name for one in known if isinstance(name := one.get("network"), str) and name), first)
        return evaluator.own_step_size(self.small, home, self.origin) if self.augmented_alike else None

    def choose_rates(self, first: str, progress: Progress) -> None:
        """Find the step sizes."""
        for network, evaluator in self.evaluators.items():
            self.rates[network] = Rates.of(evaluator, self.small, self.own(first, evaluator), progress)

    def evaluator(self, workspace: Workspace, network: FlatNetwork) -> Evaluator:
        evaluator = workspace.evaluator_of(network)
        return replace(evaluator, preprocessing=self.held.preprocessing).decided(self.held.set.ipc)

    def check_views(self, workspace: Workspace) -> None:
        """Refuse labels of views that are not what was saved, or that are to be made but cannot be, before anything is trained."""
        s, protocol, views = workspace.settings, workspace.protocol, self.held.views
        if views is not None and asks(protocol):
            views.verify()
        check_storable(s.view_labels, protocol, workspace.data.num_classes)
        if not s.view_labels.store:
            return
        own = self.path is not None and DistilledSet.is_at(self.path)
        require(own, "view_labels.store", True, f"possible with {self.name!r}, which is no saved distilled set")
        if views is None:
            return
        for key in ("dtype", "top"):
            kept, wanted = getattr(views.about.coding, key), getattr(s.view_labels, key)
            require(kept == wanted, f"view_labels.{key}", wanted, f"{kept!r}, as in the labels that {self.name!r} has")
        all_of_them = s.view_labels.pool is None or s.view_labels.pool >= views.epochs
        same = all_of_them if views.pool is None else s.view_labels.pool == views.pool
        require(same, "view_labels.pool", s.view_labels.pool, f"{views.pool!r}, as in the labels that {self.name!r} has")

    def label_views(self, network: str, workspace: Workspace, options: EvaluationOptions) -> None:
        """Ask the teacher of that network about the views, where labels are to be stored and the set has none."""
        s, evaluator = workspace.settings, self.evaluators[network]
        if self.path is None or self.held.views is not None or not s.view_labels.store or not asks(evaluator.protocol):
            return
        views = self._labelled(workspace, evaluator, options)
        self.held = replace(self.held, set=replace(self.held.set, views=views))

    def _labelled(self, workspace: Workspace, evaluator: Evaluator, options: EvaluationOptions) -> StoredViews:
        """The labels of views, kept beside the set where that can be."""
        ranks, place = Ranks.sharing(), cache_root() / "views" / f"{content_of(self.held)}.safetensors"
        with ExitStack() as held:
            ranks.told(lambda: held.enter_context(lock(place)))  # what is wrong with its place all raise
            views = evaluator.label_views(self.held.set, place, workspace.settings.view_labels, workspace.progress)
            return ranks.told(lambda: self._beside(views, options, workspace.progress))

    def _beside(self, views: StoredViews, options: EvaluationOptions, progress: Progress) -> StoredViews:
        assert self.path is not None, "checked"
        if options.keep and not zoo.holds(self.path):
            try:
                DistilledSet.add_views(self.path, views)
                views.path.unlink()
                views = replace(views, path=self.path / VIEWS)
            except OSError as error:
                progress.say(f"warning: {_unwritable(self.path, error)}; labels of views lie in {views.path}")
        return views

    def refuse_permuted(self, network: str, progress: Progress) -> None:
        """Ask a network trained on the full data what it makes of the images, and note where it knows too little to tell."""
        evaluator = self.evaluators[network]
        module = evaluator.full_data.teacher(lambda: evaluator.images_of("test"), progress)
        if found := suspicious(self.held, module):
            way = "--trust, in Python the option trust, evaluates it nevertheless"
            raise UsageError(f"path: {self.name!r}: {'; '.join(found)} ({way})")
        if why := powerless(self.held, module):
            self.unchecked[network] = Doubt(kind="labels unchecked", text=f"not checked: whether labels are permuted, for {why}")

    def result(
        self,
        measured: Mapping[str, Measured],
        workspace: Workspace,
        beside: Mapping[str, SmallSet],
    ) -> SetResult:
        """The result of this set beside coresets: of the first network, the others beside it."""
        first, *others = (
            record(
                self.evaluators[network],
                self.held.set,
                found,
                workspace.progress,
                coresets.measured(self.evaluators[network], workspace, beside, self.small.syn_lr, found.seeds, workspace.progress),
            )
            for network, found in measured.items()
        )
        # One network that can tell is enough.
        unchecked = tuple(self.unchecked.values())[:1] if len(self.unchecked) == len(measured) else ()
        return replace(
            first,
            doubts=(*first.doubts, *unchecked),
            networks={one.network: one for one in others},
            paths={} if self.path is None else {"distilled": self.name},
            notes=tuple(self.notes),
        )

    def subject(self, first: str, source: Network, workspace: Workspace) -> Subject:
        """What further measurements with the first network, made from `source`, work from."""
        parts = (self.evaluators[first], source, self.held, self.small, self.path, workspace, self.rates[first])
        return Subject(*parts, partial(self.own, first))

    def keep(self, result: SetResult, options: EvaluationOptions, progress: Progress) -> None:
        """Note the result in the set's own metadata."""
        if self.path is None or not (options.keep and Ranks.sharing().first):
            return
        if not DistilledSet.is_at(self.path) or zoo.holds(self.path):  # whose sets stay as they are
            return
        kept = {key: value for key, value in result.to_dict().items() if key not in ("paths", "notes")}
        try:
            DistilledSet.append_evaluation(self.path, kept)
        except OSError as error:
            progress.say(f"warning: {_unwritable(self.path, error)}; the result is not noted there")


def _unwritable(path: Path, error: OSError) -> str:
    """Where nothing could be written: the set's folder, or that of the locks, in the cache."""
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else path
    place = named.parent if named.is_absolute() and named.is_relative_to(cache_root().absolute()) else path
    return f"{place} could not be written to ({why(error)})"


def _measured(
    sets: Sequence[_Set], network: str, networks: int, options: EvaluationOptions, workspace: Workspace
) -> list[Measured]:
    """The networks of every set, as many as asked for, or until the sets can be told apart under each of so many `networks`."""

    def train(seeds: range) -> list[Measured]:
        return [measure(one.evaluators[network], one.small, one.rates[network], seeds, workspace.progress) for one in sets]

    if options.looks is None:
        return train(final_seeds(workspace.settings.eval.seeds))
    looks = verdicts.shared(options.looks, len(sets), networks)
    found: list[Measured] = []
    for number in looks.at:
        more = train(final_seeds(number)[len(found[0].seeds) if found else 0 :])
        found = [before.joined(new) for before, new in zip(found, more, strict=True)] if found else more
        pairs = [(one.evaluators[network].accuracies, measured) for one, measured in zip(sets, found, strict=True)]
        if verdicts.all_decided([Accuracies(distilled=of(one.distilled), random=of(one.random)) for of, one in pairs], looks):
            break
    return found
