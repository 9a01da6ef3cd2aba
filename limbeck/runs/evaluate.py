"""`evaluate`: one small set or several, of our own or anybody's, measured under one protocol and compared on the same seeds.

A set is refused where its classes, its preprocessing or its labels do not fit the images to test on: a figure of chance would say
nothing about it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.distilled.plausibility import check_fit, suspicious
from limbeck.distilled.read import ForeignOptions, read_set
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.view_labels import VIEWS
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.protocols import resolve as resolve_protocol
from limbeck.evaluation.statistics import Looks, compare, decide, differences, holm, seeds_needed
from limbeck.evaluation.view_labels import asks, check_storable
from limbeck.networks.flat import FlatNetwork
from limbeck.runs.measurements import FURTHER, Subject
from limbeck.runs.record import Measured, final_seeds, measure, networks_of, record
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.kept import cache_root, lock
from limbeck.runtime.progress import NoProgress, Progress

Factory = Callable[[int, int, int, int], nn.Module]


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
            require(name in FURTHER, "--also", name, f"one of {', '.join(FURTHER)}")


def evaluate(
    paths: Path | str | Sequence[Path | str],
    settings: DistillSettings,
    *,
    networks: Sequence[str | nn.Module | Factory] = (),
    options: EvaluationOptions = EvaluationOptions(),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate small sets on the test split of `settings.data`, beside random subsets of the same size and the full data.

    Args:
        paths: one or several: folders of a `DistilledSet` or of images, `.npz` files, `.pt` pairs (`read_set`).
        settings: usually those in a set's own metadata. With `view_labels.store` a set without labels of views gets them, where
            the protocol asks a teacher about views.
        networks: names, modules for these images, or functions (channels, height, width, classes) that build one; empty takes
            `eval.networks`, or the network distilled for.
        options: see there.
        progress: where to report.

    Returns:
        Of one set the record of `runs.record.record`, with `networks` (the same of further ones), `further`, `notes`,
        `paths` and `seconds`; of several `sets`, a list of these, and `comparisons`, pair by pair and network by network.

    Raises:
        UsageError: when a set cannot be read or does not fit the data.
    """
    began = time.perf_counter()
    several = not isinstance(paths, (str, Path))
    places = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    workspace = Workspace(settings, progress or NoProgress())
    flat = [_flat(workspace, network) for network in networks or networks_of(settings)]
    sets = [_Set.read(path, workspace, options) for path in places]
    for one in sets:
        one.check_views(workspace)
    for network in flat:
        for one in sets:
            one.evaluators[network.name] = one.evaluator(workspace, network)
            if not options.trust:
                one.refuse_permuted(network.name, workspace.progress)
    for one in sets:
        one.label_views(flat[0].name, workspace, options)
    found = {network.name: _measured(sets, network.name, options, workspace) for network in flat}
    results = [one.result(found, options, workspace) for one in sets]
    if options.keep:
        for one, result in zip(sets, results, strict=True):
            one.keep(result, workspace.progress)
    seconds = {"evaluate": round(time.perf_counter() - began, 3)}
    if not several and len(results) == 1:
        return results[0] | {"seconds": seconds}
    comparisons = _comparisons(sets, results, found, options.looks)
    return {"sets": results, "comparisons": comparisons, "seconds": seconds}


@dataclass(eq=False)
class _Set:
    """A set under evaluation."""

    path: Path
    held: DistilledSet
    notes: list[str]
    evaluators: dict[str, Evaluator]

    @classmethod
    def read(cls, path: Path, workspace: Workspace, options: EvaluationOptions) -> "_Set":
        data = workspace.data
        held = read_set(path, data, workspace.preprocessing, options=options.foreign)
        notes = [*held.metadata.get("assumed", ()), *check_fit(held, data, workspace.preprocessing)]
        for note in notes:
            workspace.progress.say(f"note: {path}: {note}")
        return cls(path, held, notes, {})

    def evaluator(self, workspace: Workspace, network: FlatNetwork) -> Evaluator:
        evaluator = workspace.evaluator_of(network)
        return replace(evaluator, preprocessing=self.held.preprocessing).decided(self.held.set.ipc)

    def check_views(self, workspace: Workspace) -> None:
        """Refuse labels of views that are not what was saved, or that are to be made but cannot be, before anything is trained."""
        s, protocol, views = workspace.settings, resolve_protocol(workspace.settings.eval), self.held.views
        if views is not None and asks(protocol):
            views.verify()
        check_storable(s.view_labels, protocol, workspace.data.num_classes)
        if not s.view_labels.store:
            return
        own = DistilledSet.is_at(self.path)
        require(own, "view_labels.store", True, f"possible with {str(self.path)!r}, which is no saved distilled set")
        if views is None:
            return
        for key in ("dtype", "top"):
            kept, wanted = views.about["coding"][key], getattr(s.view_labels, key)
            require(kept == wanted, f"view_labels.{key}", wanted, f"{kept!r}, as in the labels that {str(self.path)!r} has")

    def label_views(self, network: str, workspace: Workspace, options: EvaluationOptions) -> None:
        """Ask the teacher of that network about the views, where labels are to be stored and the set has none."""
        s, evaluator = workspace.settings, self.evaluators[network]
        if self.held.views is not None or not s.view_labels.store or not asks(evaluator.protocol):
            return
        place = cache_root() / "views" / f"{fingerprint(str(self.path.resolve()))}.safetensors"
        with lock(place):
            views = evaluator.label_views(self.held.set, place, s.view_labels, workspace.progress)
            if options.keep:
                try:
                    DistilledSet.add_views(self.path, views)
                    place.unlink()
                    views = replace(views, path=self.path / VIEWS)
                except OSError as error:
                    message = f"warning: {self.path} could not be written to ({error.strerror}); labels of views lie in {place}"
                    workspace.progress.say(message)
        self.held = replace(self.held, set=replace(self.held.set, views=views))

    def refuse_permuted(self, network: str, progress: Progress) -> None:
        """Ask a network trained on the full data what it makes of the images."""
        evaluator = self.evaluators[network]
        module = evaluator.full_data.teacher(lambda: evaluator.images_of("test"), progress)
        if found := suspicious(self.held, module):
            raise UsageError(f"path: {str(self.path)!r}: {'; '.join(found)} (--trust evaluates it nevertheless)")

    def result(
        self, found: dict[str, list[tuple["_Set", Measured, range]]], options: EvaluationOptions, workspace: Workspace
    ) -> dict[str, Any]:
        """The record of this set: of the first network, the others beside it."""
        records = {}
        for network, rows in found.items():
            measured, seeds = next((measured, seeds) for one, measured, seeds in rows if one is self)
            records[network] = record(self.evaluators[network], self.held.set, measured, seeds, workspace.progress)
        first, *others = records
        result: dict[str, Any] = records[first] | {"paths": {"distilled": str(self.path)}, "notes": self.notes}
        if others:
            result["networks"] = {name: {key: records[name][key] for key in _BRIEF} for name in others}
        material = Subject(self.evaluators[first], self.held, self.path, workspace)
        result["further"] = {name: FURTHER[name](material) for name in options.further}
        return result

    def keep(self, result: dict[str, Any], progress: Progress) -> None:
        """Note the result in the set's own metadata."""
        if not DistilledSet.is_at(self.path):
            return
        kept = {key: value for key, value in result.items() if key not in ("paths", "notes")}
        try:
            DistilledSet.append_evaluation(self.path, kept)
        except OSError as error:
            progress.say(f"warning: {self.path} could not be written to ({error.strerror}); the result is not noted there")


_BRIEF = ("accuracy", "recovery_ratio", "lossless", "gain")


def _flat(workspace: Workspace, network: str | nn.Module | Factory) -> FlatNetwork:
    if isinstance(network, str):
        return workspace.network_of(network)
    module = network if isinstance(network, nn.Module) else network(*workspace.data.shape, workspace.data.num_classes)
    require(isinstance(module, nn.Module), "networks", type(module).__name__, "a torch module or a function that builds one")
    return FlatNetwork(module, type(module).__name__).to(workspace.device)


def _measured(
    sets: Sequence[_Set], network: str, options: EvaluationOptions, workspace: Workspace
) -> list[tuple[_Set, Measured, range]]:
    """The networks of every set, as many as asked for, or until the sets can be told apart."""
    if options.looks is None:
        seeds = final_seeds(workspace.settings.eval.seeds)
        return [(one, measure(one.evaluators[network], one.held.set, seeds, workspace.progress), seeds) for one in sets]
    found: dict[int, Measured] = {}
    done, looks = 0, _shared(options.looks, len(sets))
    for count in looks.at:
        new = final_seeds(count)[done:]
        for number, one in enumerate(sets):
            part = measure(one.evaluators[network], one.held.set, new, workspace.progress)
            before = found.get(number)
            found[number] = part if before is None else before.joined(part)
        done = count
        if all(decide(found_so_far, looks) is not None for found_so_far in _differences(sets, network, found)):
            break
    return [(one, found[number], final_seeds(done)) for number, one in enumerate(sets)]


def _differences(sets: Sequence[_Set], network: str, found: dict[int, Measured]) -> list[list[float]]:
    """Accuracy differences seed by seed: of every pair of sets, or of the only one and random images."""

    def values(number: int, random: bool = False) -> Sequence[float]:
        measured = found[number]
        return sets[number].evaluators[network].accuracies(measured.random if random else measured.distilled).values

    if len(sets) == 1:
        return [differences(values(0), values(0, True))]
    return [differences(values(i), values(j)) for i, j in combinations(range(len(sets)), 2)]


def _shared(looks: Looks, sets: int) -> Looks:
    """The looks of each pair of sets, which share the level, so that any wrong verdict is as unlikely as with one pair."""
    return replace(looks, level=looks.level / max(1, sets * (sets - 1) // 2))


def _comparisons(
    sets: Sequence[_Set], results: Sequence[dict[str, Any]], found: dict[str, Any], looks: Looks | None
) -> list[dict[str, Any]]:
    """Every pair of sets under every network, with p-values as they are, and adjusted for their number (Holm) and for the looks."""
    rows = []
    for network in found:
        accuracies = [
            result["accuracy"] if network == result["network"] else result["networks"][network]["accuracy"] for result in results
        ]
        values = [accuracy["distilled"]["values"] for accuracy in accuracies]
        for i, j in combinations(range(len(sets)), 2):
            row = {"a": str(sets[i].path), "b": str(sets[j].path), "network": network, **compare(values[i], values[j]).to_dict()}
            row["seeds_needed"] = seeds_needed(values[i], values[j])
            if looks is not None:
                row["verdict"] = decide(differences(values[i], values[j]), _shared(looks, len(sets))) or "undecided"
            rows.append(row)
    # Looked at again and again, a p says as much as one that is so many times as large (Bonferroni).
    times = 1 if looks is None else len(looks.at)
    for row, p in zip(rows, holm([min(1.0, times * row["p"]) for row in rows]), strict=True):
        row["p_adjusted"] = p
    return rows
