"""Further measurements of a small set, each by name: what `limbeck evaluate --also` takes.

All ranks of a run make them together, and share the networks that are trained for them.

ranking      DD-Ranking: hard-label recovery, improvement over random, the label-robust score
robustness   how far the figure under `dd` moves with the kind of labels and without augmentation, and DD-Ranking's
             augmentation-robust score
areas        what share of the images decides the class, against the initial images
distances    between classes in the features of a network trained on the full data
search       whether architectures rank on the set as on the full data
continual    learning classes one group after another from the set as a memory
membership   how well an attack tells which images a network was trained on

The last three train on labels as they are stored: where the evaluation's protocol does not, they take `dd`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.accuracy import StepSize, protocol_name
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation import architecture_search, areas, continual, distances, membership, scores
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.fitting import Cells, Network, ProtocolFit, Trained, training_images
from limbeck.evaluation.named import called
from limbeck.methods.snapshots import SNAPSHOT
from limbeck.networks.flat import flat_network
from limbeck.runs.build import cam_of
from limbeck.runs.record import Rates, final_seeds
from limbeck.runs.workspace import Workspace
from limbeck.runtime.files import read_tensors
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.kept import Kept, cache_root, if_possible
from limbeck.runtime.random import generator
from limbeck.runtime.ranks import Ranks
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import Damaged
from limbeck.training.images import Images, TensorImages, prepare_split


@dataclass(frozen=True, eq=False)
class Subject:
    """What a further measurement works from.

    Args:
        evaluator: of the first network.
        network: what that is made from: its name, a module, or a function that makes one.
        held: the set.
        small: the same, with η only where somebody has said it.
        path: its place.
        workspace: of the evaluation.
        rates: the step sizes of the set and of random images there.
        own: what counts as the set's own step size under an evaluator.
    """

    evaluator: Evaluator
    network: Network
    held: DistilledSet
    small: SmallSet
    path: Path | None
    workspace: Workspace
    rates: Rates
    own: Callable[[Evaluator], StepSize | None]

    @property
    def seeds(self) -> range:
        """Of the networks trained for it."""
        return final_seeds(self.evaluator.settings.seeds)

    def under(self, protocol: str) -> Evaluator:
        """The evaluator under another protocol; itself where that is its own."""
        other = replace(self.evaluator, settings=replace(self.evaluator.settings, protocol=protocol))
        return self.evaluator if other.protocol == self.evaluator.protocol else other

    def step(self, evaluator: Evaluator) -> float:
        """The step size on the set there."""
        same = evaluator is self.evaluator
        return (self.rates.distilled if same else evaluator.step_size(self.small, self.own(evaluator))).value

    def random_step(self, evaluator: Evaluator) -> float:
        """The step size on random images there."""
        same = evaluator is self.evaluator
        return (self.rates.random if same else evaluator.random_step_size(self.small.real_ipc, self.small.syn_lr)).value

    def accuracy(self, evaluator: Evaluator) -> float:
        """Mean accuracy of networks trained on the set."""
        return evaluator.distilled(replace(self.small, syn_lr=self.step(evaluator)), seeds=self.seeds).mean

    def random(self, evaluator: Evaluator) -> float:
        """Mean accuracy of networks trained on random images of as many bytes."""
        logits = evaluator.random_logits(self.small.real_ipc, self.random_step(evaluator), self.seeds)
        return evaluator.accuracies(logits).mean


def _ranking(material: Subject) -> scores.Ranking:
    """DD-Ranking's scores of label kinds."""
    evaluator, hard = material.evaluator, material.under("dd-hard")
    return scores.ranking(evaluator.full().mean, material.accuracy(hard), material.accuracy(evaluator), material.random(evaluator))


@dataclass(frozen=True, kw_only=True)
class LabelsAndAugmentation(Record):
    """Mean accuracies with `stored` and with `hard` labels, what augmentation does, and under which protocols."""

    labels: Mapping[str, float]
    augmentation: scores.Robustness
    protocols: Mapping[str, str]


def _robustness(material: Subject) -> LabelsAndAugmentation:
    """Accuracies under other labels and without augmentation, whatever the evaluation's protocol."""
    stored, hard, plain = material.under("dd"), material.under("dd-hard"), material.under("none")
    augmented = material.accuracy(stored), material.random(stored)
    labels = {"stored": augmented[0], "hard": material.accuracy(hard)}
    augmentation = scores.robustness(*augmented, material.accuracy(plain), material.random(plain))
    under = {"stored": stored, "hard": hard, "plain": plain}
    protocols = {name: protocol_name(evaluator.protocol.facts) for name, evaluator in under.items()}
    return LabelsAndAugmentation(labels=labels, augmentation=augmentation, protocols=protocols)


def _areas(material: Subject) -> areas.Carried:
    """Maps of the set's images under a network trained on the full data, beside the images it began as, or else random ones."""
    evaluator, held = material.evaluator, material.held
    module = evaluator.full_data.teacher(lambda: evaluator.images_of("test"))
    cam, device = cam_of(material.workspace.settings.enhance), evaluator.device
    before, kind = _initial(material)

    def of(images: Tensor) -> Tensor:
        return cam(module, images.to(device), held.classes.to(device), generator(0, "areas"))

    carried = areas.carries(of(held.images), of(before))
    result = replace(carried, compared_with=kind, network=f"{evaluator.network.name}, trained on the full data")
    boxes = evaluator.data.test.boxes
    if boxes is not None:
        count = min(len(evaluator.data.test), 500)
        index = torch.arange(count) * len(evaluator.data.test) // count
        x = evaluator.images_of("test").fetch(index)
        classes = evaluator.labels_of("test")[index].to(device)
        of_tests = areas.measure(module, x, classes, cam, generator(0, "areas"), boxes[index.numpy()])
        result = replace(result, test_images=of_tests)
    return result


def _distances(material: Subject) -> distances.Separation:
    """Between and within classes: of the images before, of the set, of as many random images and of test images."""
    evaluator, held = material.evaluator, material.held
    module = evaluator.full_data.teacher(lambda: evaluator.images_of("test"))
    before, kind = _initial(material)
    random = evaluator.random_subset(held.set.real_ipc, held.syn_lr, "distances")
    sets: dict[str, tuple[Images, Tensor]] = {
        kind: (TensorImages(before.to(evaluator.device)), held.classes),
        "distilled": (TensorImages(held.images.to(evaluator.device)), held.classes),
        "random": (TensorImages(random.images.to(evaluator.device)), random.classes),
        "test": (evaluator.images_of("test"), evaluator.labels_of("test")),
    }
    features = {
        name: (distances.features_in_parts(module, images, "further: 'distances'"), classes.cpu())
        for name, (images, classes) in sets.items()
    }
    name = f"{evaluator.network.name}, trained on the full data"
    return distances.separation(features, evaluator.data.num_classes, network=name)


@dataclass(frozen=True, eq=False)
class _Study:
    """What a study trains: networks on the set, with its step size there.

    Args:
        evaluator: under a protocol that trains on stored labels.
        small: the set with its step size.
        fit: the training.
        cells: finished trainings, kept in the cache, so that an interrupted study goes on.
    """

    evaluator: Evaluator
    small: SmallSet
    fit: ProtocolFit
    cells: Cells

    @classmethod
    def of(cls, material: Subject, name: str) -> "_Study":
        stored = material.evaluator.protocol.labels == "stored"
        evaluator = material.evaluator if stored else material.under("dd")
        small = replace(material.small, syn_lr=material.step(evaluator))
        fit = ProtocolFit(evaluator, material.random_step(evaluator))
        return cls(evaluator, small, fit, _cells(fit, small, name))

    @property
    def test(self) -> tuple[Images, Tensor]:
        """The test images and their classes."""
        return self.evaluator.images_of("test"), self.evaluator.labels_of("test")

    @property
    def trained(self) -> Trained:
        """How."""
        return self.fit.trained(self.small)


def _search(material: Subject) -> architecture_search.Search:
    """Do the architectures of a small space rank alike?"""
    study, evaluator = _Study.of(material, "search"), material.evaluator
    random = evaluator.random_subset(study.small.real_ipc, None, "search")
    sets = {"distilled": study.small, "random": random, "full": training_images(evaluator)}
    choose = (evaluator.images_of("val"), evaluator.labels_of("val")) if len(evaluator.data.val) else None
    depths = [depth for depth in (1, 2, 3) if min(evaluator.data.shape[1:]) >= 2**depth]
    names, seeds = architecture_search.search_space(depths=depths), list(material.seeds)[:2]
    found = architecture_search.search(study.fit, sets, names, seeds, *study.test, choose=choose, cells=study.cells)
    return replace(found, training=study.trained)


def _continual(material: Subject) -> continual.Continual:
    """Groups of classes, one after another."""
    study, seeds = _Study.of(material, "continual"), list(material.seeds)
    drawn = [material.evaluator.random_subset(study.small.real_ipc, None, f"continual {seed}") for seed in seeds]
    memories = {"distilled": [study.small], "random": drawn}
    steps = _tasks(material.small)
    found = continual.continual(study.fit, material.network, memories, *study.test, steps=steps, seeds=seeds, cells=study.cells)
    return replace(found, training=study.trained)


def _tasks(small: SmallSet) -> int:
    """Five groups of classes, fewer where there are fewer classes."""
    return min(5, small.num_classes)


def _membership(material: Subject) -> dict[str, membership.Attacks | Trained]:
    """The attack on three networks a seed, and how these were trained."""
    study, evaluator, seeds = _Study.of(material, "membership"), material.evaluator, list(material.seeds)
    train = prepare_split(evaluator.data.train, evaluator.preprocessing, evaluator.device)
    labels = torch.from_numpy(evaluator.data.train.labels)
    subsets = [evaluator.random_index(study.small.real_ipc, f"membership {seed}") for seed in seeds]
    sets = (study.small, subsets, train, labels, *study.test)
    found = membership.membership(study.fit, material.network, *sets, seeds=seeds, cells=study.cells)
    return {**found, "training": study.trained}


def _cells(fit: ProtocolFit, small: SmallSet, study: str) -> Cells:
    """Finished trainings of a study, by all that they depend on."""
    evaluator = fit.evaluator
    key = fingerprint(
        study,
        array_fingerprint(*(one.cpu().numpy() for one in (small.images, small.labels, small.classes))),
        [small.syn_lr, small.kind, small.real_ipc, evaluator.seed, evaluator.network.name, evaluator.compile],
        [evaluator.protocol, evaluator.augment, evaluator.full_data.made_with],
        fit.random_lr,
    )
    kept, here = Kept.json(cache_root() / "further" / f"{study}-{key}.json"), Ranks.sharing()
    done = here.told(lambda: kept.held() or {})

    def after(name: str, cell: dict[str, Any]) -> None:
        done[name] = cell
        if here.first:
            with if_possible(kept.path):
                kept.write(kept.path, done)

    return Cells(dict(done), after)


def _initial(material: Subject) -> tuple[Tensor, str]:
    """The images that the set began as, where its run folder still has them; else random real ones of the same classes."""
    held, evaluator = material.held, material.evaluator
    path = material.path or Path()
    first = path.parent / "snapshots" / "iteration-000000.safetensors"
    if path.name == "distilled" and first.is_file():
        with suppress(OSError, Damaged, LookupError):  # then random ones stand beside, which is said
            images = read_tensors(first, kind=SNAPSHOT)[0]["X"]
            if images.shape == held.images.shape:
                return images, "initial"
    drawn = evaluator.random_subset(held.ipc, held.syn_lr, "areas")
    of_class = [torch.nonzero(drawn.classes == k).flatten() for k in range(held.num_classes)]
    # Where a class has fewer images than the set, they come again.
    counts = torch.bincount(held.classes, minlength=held.num_classes).tolist()
    rows = [own[torch.arange(n) % max(len(own), 1)] for own, n in zip(of_class, counts, strict=True)]
    return drawn.images.cpu()[torch.cat(rows)[torch.argsort(torch.argsort(held.classes, stable=True), stable=True)]], "random"


FURTHER: Mapping[str, Callable[[Subject], Any]] = {
    "ranking": _ranking,
    "robustness": _robustness,
    "areas": lambda material: Ranks.sharing().told(lambda: _areas(material)),
    "distances": lambda material: Ranks.sharing().told(lambda: _distances(material)),
    "search": _search,
    "continual": _continual,
    "membership": _membership,
}


def check(names: Sequence[str], evaluator: Evaluator, network: Network, small: SmallSet, workspace: Workspace) -> None:
    """Raise `UsageError` where one of these cannot be measured, before anything is trained; arguments as those of `Subject`."""
    image = torch.zeros(1, *evaluator.data.shape, device=evaluator.device)
    if "areas" in names:
        cam_of(workspace.settings.enhance).check(evaluator.network.module, image)
    if "distances" in names:
        distances.features_of(evaluator.network.module, image)
    if "continual" in names:
        test = evaluator.images_of("test"), evaluator.labels_of("test")
        continual.check({"distilled": [small]}, *test, [0])
        first = len(continual.class_tasks(small.num_classes, _tasks(small), 0)[0])
        with called(f"further: 'continual' is not possible with a network that is not made for {first} classes, too"):
            flat_network(network, evaluator.data.shape, first)
