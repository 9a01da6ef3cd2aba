"""Permuted classes are seen in what sets say, in their labels and by a network; chance and confusion accuse nobody."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from distilled.foreign_files import save_npz, save_pt, write_images
from distilled.plausible_scenes import K, Scenes, real, refused, trained_scenes
from distilled.samples import changed
from torch import Tensor, nn
from torch.nn.functional import one_hot

from limbeck.distilled.foreign import ForeignOptions
from limbeck.distilled.plausibility import _derangements, check_fit, permutation, powerless, suspicious
from limbeck.distilled.read import read_set
from limbeck.distilled.set import DistilledSet


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return trained_scenes()


# What the set says.


def test_other_classes_and_another_order(scenes: Scenes) -> None:
    names = scenes.data.class_names
    swapped = (*names[:3], names[4], names[3], *names[5:])
    refused(
        real(scenes, class_names=swapped),
        scenes.data,
        scenes.preprocessing,
        "classes: their order in the set is not that of 'scenes': at position 3 the set has '4', the data '3'; 2 of 10 are else",
    )
    other = ("zero", *names[1:])
    refused(real(scenes, class_names=other), scenes.data, scenes.preprocessing, "the set lacks '0'; 'scenes' lacks 'zero'")
    eleven = real(scenes, class_names=(*names, "ten"), labels=torch.eye(11)[torch.arange(K).repeat_interleave(10)], kind="hard")
    refused(eleven, scenes.data, scenes.preprocessing, "classes: those of the set are not those of the data: 'scenes' lacks 'ten'")


# What it shows.


def permuted(order: Tensor) -> Callable[[DistilledSet], DistilledSet]:
    """Shows images of class k as those of class order[k], in labels and classes alike, as no metadata can tell."""

    def change(held: DistilledSet) -> DistilledSet:
        labels = torch.empty_like(held.labels)
        labels[:, order] = held.labels
        return changed(held, labels=labels, classes=order[held.classes])

    return change


ROLLED = torch.arange(K).roll(1)
SWAPPED = torch.tensor([0, 1, 2, 8, 4, 5, 6, 7, 3, 9])


@pytest.mark.parametrize("ipc", [10, 50])
@pytest.mark.parametrize("order", [ROLLED, SWAPPED, torch.arange(K).flip(0)])
def test_permuted_classes_are_seen_by_a_network(scenes: Scenes, order: Tensor, ipc: int) -> None:
    held = permuted(order)(real(scenes, ipc))
    assert check_fit(held, scenes.data, scenes.preprocessing) == []
    (sentence,) = suspicious(held, scenes.network)
    if order is SWAPPED:
        assert sentence == "labels look permuted: class '3' shows '8', class '8' shows '3'"
    else:
        assert sentence.startswith("labels look permuted: class '0' shows '")
        assert sentence.endswith(", class '4' shows '5' and 5 more") or order is ROLLED


def test_one_image_of_each_class_is_little_evidence(scenes: Scenes) -> None:
    held = real(scenes, 1)
    logits = scenes.network(held.images)
    assert (logits.argmax(1) == held.classes).all()
    assert suspicious(permuted(ROLLED)(held), scenes.network)  # ten of ten
    assert suspicious(permuted(SWAPPED)(held), scenes.network) == []  # two images


@pytest.mark.parametrize("order", [ROLLED, SWAPPED])
def test_permuted_labels_are_seen_without_a_network(scenes: Scenes, order: Tensor) -> None:
    held = real(scenes)
    planted = changed(permuted(order)(held), classes=held.classes)
    refused(planted, scenes.data, scenes.preprocessing, "labels: they look permuted: class ")
    hard = changed(planted, kind="hard", labels=torch.eye(K)[planted.labels.argmax(1)])
    refused(hard, scenes.data, scenes.preprocessing, "hard labels are not the class that the image is said to be of")
    shuffled = changed(held, labels=held.labels[torch.randperm(100, generator=torch.Generator().manual_seed(0))])
    (note,) = check_fit(shuffled, scenes.data, scenes.preprocessing)
    assert note.endswith("of 100 favour another class than the image is said to be of")


@pytest.mark.parametrize("form", ["pt", "soft pt", "npz", "folder"])
def test_faults_of_foreign_sets_are_seen(scenes: Scenes, tmp_path: Path, form: str) -> None:
    """Swapped classes and images normalised twice, in what others write."""
    sound, wrong = real(scenes), permuted(SWAPPED)(real(scenes))

    def written(name: str, held: DistilledSet, images: Tensor) -> Path:
        if form == "pt":
            return save_pt(tmp_path / f"{name}.pt", (images, held.classes))
        if form == "soft pt":
            return save_pt(tmp_path / f"{name}.pt", {"images": images, "labels": held.labels, "lr": 0.01})
        if form == "npz":
            return save_npz(tmp_path / f"{name}.npz", images=images, labels=held.probabilities())
        return write_images(tmp_path / name, held.to_pixels(), held.classes, scenes.data.class_names)

    def read(path: Path) -> DistilledSet:
        return read_set(path, scenes.data, scenes.preprocessing, options=ForeignOptions())

    held = read(written("sound", sound, sound.images))
    assert check_fit(held, scenes.data, scenes.preprocessing) == [] and suspicious(held, scenes.network) == []
    held = read(written("wrong", wrong, wrong.images))
    assert check_fit(held, scenes.data, scenes.preprocessing) == []
    assert suspicious(held, scenes.network) == ["labels look permuted: class '3' shows '8', class '8' shows '3'"]
    if form != "folder":
        held = read(written("twice", sound, scenes.preprocessing.forward(sound.images)))
        refused(held, scenes.data, scenes.preprocessing, "normalised twice, or not by normalise")


class Constant(nn.Module):
    """The same logits for every image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


def test_useless_networks_accuse_nobody(scenes: Scenes) -> None:
    for logits in (torch.zeros(K), one_hot(torch.tensor(3), K).float(), torch.full((K,), math.nan)):
        assert suspicious(real(scenes), Constant(logits)) == []


# The rule.


def test_derangements_are_those_that_can_be_listed() -> None:
    from itertools import permutations

    for size in range(1, 8):
        listed = sum(all(k != j for k, j in enumerate(order)) for order in permutations(range(size)))
        assert _derangements(size) == listed


@pytest.mark.parametrize(("num_classes", "ipc"), [(2, 10), (3, 2), (5, 10), (10, 1), (10, 2), (10, 10)])
@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_random_guesses_are_accused_less_than_once_in_a_hundred(num_classes: int, ipc: int, skew: float) -> None:
    draws = torch.Generator().manual_seed(num_classes)
    classes = torch.arange(num_classes).repeat_interleave(ipc)
    alarms = 0
    for _ in range(300):
        shares = (skew * torch.randn(num_classes, generator=draws)).softmax(0)
        guesses = torch.multinomial(shares, len(classes), replacement=True, generator=draws)
        alarms += bool(permutation(classes, guesses, num_classes))
    assert alarms <= 5  # of 300; were it one in a hundred, more than 5 would come once in twelve times


@pytest.mark.parametrize(("num_classes", "found"), [(7, False), (8, True)])
def test_the_bound_of_one_image_a_class(num_classes: int, found: bool) -> None:
    """All images one class further: p = K · D_K / K^K."""
    bound = num_classes * _derangements(num_classes) / num_classes**num_classes
    assert (bound < 0.01) == found
    classes = torch.arange(num_classes)
    assert bool(permutation(classes, (classes + 1) % num_classes, num_classes)) == found


@pytest.mark.parametrize(("num_classes", "ipc", "right"), [(10, 1, 1.0), (10, 10, 0.7), (100, 10, 0.6)])
def test_permutations_are_found_though_many_guesses_are_wrong(num_classes: int, ipc: int, right: float) -> None:
    draws = torch.Generator().manual_seed(0)
    classes = torch.arange(num_classes).repeat_interleave(ipc)
    shifted = (classes + 1) % num_classes
    kept = torch.rand(len(classes), generator=draws) < right
    guesses = torch.where(kept, shifted, torch.randint(num_classes, shifted.shape, generator=draws))
    told = permutation(classes, guesses, num_classes)
    assert told and all(j == (k + 1) % num_classes for k, j in told.items())
    assert permutation(classes, torch.where(kept, classes, guesses), num_classes) == {}


def test_confusions_that_go_one_way_are_no_permutation() -> None:
    classes = torch.arange(K).repeat_interleave(10)
    one_way = torch.where(classes == 4, 9, classes)  # all 4 look like 9, and 9 like 9
    assert permutation(classes, one_way, K) == {}
    weak = classes.clone()
    weak[40:46], weak[90:96] = 9, 4  # six of ten, but four still look like what they are
    assert permutation(classes, weak, K) == {}
    strong = classes.clone()
    strong[40:49], strong[90:99] = 9, 4
    assert permutation(classes, strong, K) == {4: 9, 9: 4}
    many = torch.arange(K).repeat_interleave(50)
    for share, found in ((20, {}), (30, {4: 9, 9: 4})):  # of 50; the others look like classes that are neither
        mixed = many.clone()
        mixed[200:250], mixed[450:500] = torch.arange(50) % 4, torch.arange(50) % 4
        mixed[200 : 200 + share], mixed[450 : 450 + share] = 9, 4
        assert permutation(many, mixed, K) == found
    assert permutation(torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.int64), 2) == {}


def test_finding_nothing_says_something_only_where_it_could_have_been_found(scenes: Scenes) -> None:
    held = real(scenes)
    assert suspicious(held, scenes.network) == []
    assert powerless(held, scenes.network) == ""

    class Says(nn.Module):
        def __init__(self, right: int) -> None:
            super().__init__()
            guesses = held.classes.clone()
            guesses[right:] = 0
            self.answers = one_hot(guesses, K).float()

        def forward(self, x: Tensor) -> Tensor:
            return self.answers[: len(x)]

    assert powerless(held, Says(len(held))) == ""
    said = powerless(held, Says(0))
    ten = int((held.classes == 0).sum())
    assert (
        said
        == f"the network trained on the full data takes {ten} of {len(held)} images for their class, which is too little to tell"
    )

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), K), torch.nan)

    assert powerless(held, Broken()) == "the network trained on the full data gives logits that are not finite"
