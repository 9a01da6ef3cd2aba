"""Further measurements of a small set, each by name: what `limbeck evaluate --also` takes.

All ranks of a run make them together, and share the networks that are trained for them.

ranking      DD-Ranking: hard-label recovery, improvement over random, the label-robust score
robustness   how far the figure moves with the kind of labels and without augmentation, and DD-Ranking's augmentation-robust score
areas        what share of the images decides the class, against the initial images
distances    between classes in the features of a network trained on the full data
search       whether architectures rank on the set as on the full data
continual    learning classes one group after another from the set as a memory
membership   how well an attack tells which images a network was trained on
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.accuracy import StepSize
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation import architecture_search, areas, continual, distances, membership, scores
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.fitting import Cells, ProtocolFit, training_images
from limbeck.methods.snapshots import SNAPSHOT
from limbeck.runs.build import cam_of
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
    """What a further measurement works from: the evaluator of the first network, the set, its place, the workspace.

    `step` is what networks are trained with on the set there; in another way the set and random images both choose theirs.
    """

    evaluator: Evaluator
    held: DistilledSet
    path: Path | None
    workspace: Workspace
    step: StepSize

    @property
    def small(self) -> SmallSet:
        """The set with that step size."""
        return replace(self.held.set, syn_lr=self.step.value)

    @property
    def seeds(self) -> range:
        """Of the networks trained for it."""
        return range(1000, 1000 + self.evaluator.settings.seeds)

    def under(self, protocol: str, **changes: Any) -> Evaluator:
        """The evaluator under another protocol."""
        return replace(self.evaluator, settings=replace(self.evaluator.settings, protocol=protocol, **changes))

    def accuracy(self, evaluator: Evaluator) -> float:
        """Mean accuracy of networks trained on the set."""
        own = self.step if evaluator is self.evaluator else None
        step = evaluator.step_size(self.small, own)
        return evaluator.accuracies(evaluator.logits(replace(self.small, syn_lr=step.value), self.seeds)).mean

    def random(self, evaluator: Evaluator) -> float:
        """Mean accuracy of networks trained on random images of as many bytes."""
        step = evaluator.random_step_size(self.small.real_ipc, self.small.syn_lr)
        return evaluator.accuracies(evaluator.random_logits(self.small.real_ipc, step.value, self.seeds)).mean


def _ranking(material: Subject) -> scores.Ranking:
    """DD-Ranking's scores of label kinds."""
    evaluator, hard = material.evaluator, material.under("dd-hard")
    return scores.ranking(evaluator.full().mean, material.accuracy(hard), material.accuracy(evaluator), material.random(evaluator))


@dataclass(frozen=True, kw_only=True)
class LabelsAndAugmentation(Record):
    """Mean accuracies with `stored` and with `hard` labels, and what augmentation does."""

    labels: Mapping[str, float]
    augmentation: scores.Robustness


def _robustness(material: Subject) -> LabelsAndAugmentation:
    """Accuracies under other labels and without augmentation."""
    evaluator, plain = material.evaluator, material.under("none")
    augmented = material.accuracy(evaluator), material.random(evaluator)
    labels = {"stored": augmented[0], "hard": material.accuracy(material.under("dd-hard"))}
    augmentation = scores.robustness(*augmented, material.accuracy(plain), material.random(plain))
    return LabelsAndAugmentation(labels=labels, augmentation=augmentation)


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
        name: (distances.features_in_parts(module, images, "--also: 'distances'"), classes.cpu())
        for name, (images, classes) in sets.items()
    }
    name = f"{evaluator.network.name}, trained on the full data"
    return distances.separation(features, evaluator.data.num_classes, network=name)


def _search(material: Subject) -> architecture_search.Search:
    """Do the architectures of a small space rank alike?"""
    evaluator, small = material.evaluator, material.small
    random = evaluator.random_subset(small.real_ipc, None, "search")
    sets = {"distilled": small, "random": random, "full": training_images(evaluator)}
    choose = (evaluator.images_of("val"), evaluator.labels_of("val")) if len(evaluator.data.val) else None
    depths = [depth for depth in (1, 2, 3) if min(evaluator.data.shape[1:]) >= 2**depth]
    names = architecture_search.search_space(depths=depths)
    test = evaluator.images_of("test"), evaluator.labels_of("test")
    fit, cells, seeds = _fit(material), _cells(material, "search"), list(material.seeds)[:2]
    return architecture_search.search(fit, sets, names, seeds, *test, choose=choose, cells=cells)


def _continual(material: Subject) -> continual.Continual:
    """Five groups of classes, one after another (fewer where there are fewer classes)."""
    evaluator, small = material.evaluator, material.small
    seeds = list(material.seeds)
    memories = {"distilled": [small]}
    memories["random"] = [evaluator.random_subset(small.real_ipc, None, f"continual {seed}") for seed in seeds]
    test = evaluator.images_of("test"), evaluator.labels_of("test")
    steps = min(5, evaluator.data.num_classes)
    fit, cells = _fit(material), _cells(material, "continual")
    return continual.continual(fit, evaluator.network.name, memories, *test, steps=steps, seeds=seeds, cells=cells)


def _membership(material: Subject) -> dict[str, membership.Attacks]:
    """The attack on three networks a seed."""
    evaluator, small = material.evaluator, material.small
    train = prepare_split(evaluator.data.train, evaluator.preprocessing, evaluator.device)
    labels = torch.from_numpy(evaluator.data.train.labels)
    seeds = list(material.seeds)
    subsets = [evaluator.random_index(small.real_ipc, f"membership {seed}") for seed in seeds]
    test = evaluator.images_of("test"), evaluator.labels_of("test")
    fit, cells = _fit(material), _cells(material, "membership")
    return membership.membership(fit, evaluator.network.name, small, subsets, train, labels, *test, seeds=seeds, cells=cells)


def _fit(material: Subject) -> ProtocolFit:
    evaluator, small = material.evaluator, material.small
    return ProtocolFit(evaluator, evaluator.random_step_size(small.real_ipc, small.syn_lr).value)


def _cells(material: Subject, study: str) -> Cells:
    """Finished trainings of a study, kept in the cache, so that an interrupted one goes on."""
    evaluator, small = material.evaluator, material.small
    key = fingerprint(
        study,
        array_fingerprint(small.images.cpu().numpy(), small.labels.cpu().numpy()),
        [small.syn_lr, evaluator.seed, evaluator.network.name, evaluator.compile],
        [evaluator.protocol, evaluator.augment, evaluator.full_data.made_with],
        _fit(material).random_lr,
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
