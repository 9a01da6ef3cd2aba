"""Sets that do not fit the data are refused, by what they say and by what they show; sound ones and noise are not accused."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from distilled.foreign_files import save_npz, save_pt, write_images
from torch import Tensor, nn
from torch.nn.functional import one_hot

from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.imageset import ImageSet, whole
from limbeck.data.load import load_data
from limbeck.data.preprocessing import Identity, Normalise, Preprocessing, fit_normalise, fit_whiten
from limbeck.data.settings import DataSettings
from limbeck.distilled.fit import _derangements, _outside, check_fit, permutation, suspicious
from limbeck.distilled.foreign import ForeignOptions, read_set
from limbeck.distilled.initial import real_subset
from limbeck.distilled.set import DistilledSet
from limbeck.losses import cross_entropy
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator
from limbeck.training.images import prepare_split
from limbeck.training.optimisers import Sgd
from limbeck.training.train import Training, train

K = 10


class Scenes(NamedTuple):
    data: ImageSet
    preprocessing: Normalise
    network: nn.Module


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    """Scenes, and a network that was trained on them for a second."""
    data = load_data(DataSettings(source="scenes", size=16, per_class=60))
    preprocessing = fit_normalise(data.train)
    network = flat_network("ConvNetD2-w16", data.shape, K)
    plain = AugmentSettings(strategy="none")
    how = Training(optimiser=Sgd(0.05, 0.9, 0.0), loss=cross_entropy, epochs=8, batch_size=32, augment=plain)
    start, labels = network.initial(generator(0, "fit")), one_hot(torch.from_numpy(data.train.labels), K).float()
    images = prepare_split(data.train, preprocessing, torch.device("cpu"))
    theta = train(network, start, images, labels, how, seed=0, key=("fit",))
    return Scenes(data, preprocessing, network.with_parameters(theta))


def real(scenes: Scenes, ipc: int = 10, preprocessing: Preprocessing | None = None, **changes: Any) -> DistilledSet:
    """A sound set: real images, logits that favour their class."""
    index = real_subset(scenes.data.train, K, ipc, 0, "test")
    made = preprocessing or scenes.preprocessing
    classes = torch.arange(K).repeat_interleave(ipc)
    logits = 5 * one_hot(classes, K) + torch.randn(len(classes), K, generator=torch.Generator().manual_seed(0))
    parts = {
        "images": made.prepare(scenes.data.train.images(index.numpy())),
        "labels": logits,
        "label_kind": "logits",
        "classes": classes,
        "syn_lr": 0.01,
        "preprocessing": made,
        "class_names": scenes.data.class_names,
        "metadata": {"fingerprints": {"data": scenes.data.fingerprint}},
    }
    return DistilledSet(**(parts | changes))


def refused(held: DistilledSet, data: ImageSet, preprocessing: Preprocessing, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_fit(held, data, preprocessing)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


# Sound sets.


@pytest.mark.parametrize("ipc", [1, 2, 10, 50])
def test_sound_sets_pass_without_a_word(scenes: Scenes, ipc: int) -> None:
    for held in (real(scenes, ipc), real(scenes, ipc, label_kind="hard", labels=torch.eye(K).repeat_interleave(ipc, 0))):
        assert check_fit(held, scenes.data, scenes.preprocessing) == []
        assert suspicious(held, scenes.network) == []


@pytest.mark.parametrize("kind", ["identity", "normalise", "whiten"])
@pytest.mark.parametrize("ipc", [1, 10])
def test_noise_passes(scenes: Scenes, kind: str, ipc: int) -> None:
    preprocessing = {"identity": Identity(), "normalise": scenes.preprocessing, "whiten": fit_whiten(scenes.data.train)}[kind]
    for seed in range(5):
        draws = torch.Generator().manual_seed(seed)
        count, shape = K * ipc, scenes.data.shape
        pixels = torch.rand(count, *shape, generator=draws)
        gauss = torch.randn(count, *shape, generator=draws)
        labels = torch.randn(count, K, generator=draws)
        for images in [preprocessing.forward(pixels), *([gauss] if kind == "normalise" else [])]:
            held = real(scenes, ipc, preprocessing, images=images, labels=labels)
            assert all(note.startswith("labels: ") for note in check_fit(held, scenes.data, preprocessing))
            assert suspicious(held, scenes.network) == []


@pytest.mark.parametrize("values", [-0.5, 0.0, 0.5])
def test_blank_images_pass(scenes: Scenes, values: float) -> None:
    held = real(scenes, images=torch.full((100, *scenes.data.shape), values))
    notes = check_fit(held, scenes.data, scenes.preprocessing)
    assert len(notes) == 1 and "of the contrast of real ones" in notes[0]


@pytest.mark.parametrize("ipc", [1, 10])
@pytest.mark.parametrize("factor", [1.5, 3.0, 6.0])
def test_wildly_optimised_images_pass(scenes: Scenes, ipc: int, factor: float) -> None:
    """With one image a class, published step sizes lead that far from real images: most pixels are outside of [0, 1]."""
    held = real(scenes, ipc)
    noise = torch.randn(held.images.shape, generator=torch.Generator().manual_seed(0))
    wild = dataclasses.replace(held, images=factor * (0.5 * held.images + 0.8 * noise))
    assert check_fit(wild, scenes.data, scenes.preprocessing) == []
    one_channel = wild.images.clone()
    one_channel[:, 2] -= 1.2
    assert check_fit(dataclasses.replace(held, images=one_channel), scenes.data, scenes.preprocessing) == []


def dark() -> ImageSet:
    """A seventh of the pixels white, in patches that differ, the others black."""
    draws = torch.Generator().manual_seed(0)
    shares = 0.3 * torch.rand(100, 1, 1, 1, generator=draws)
    ink = torch.rand(100, 1, 8, 8, generator=draws) < shares
    split = whole((ink * 255).byte().numpy(), torch.arange(100).remainder(K).numpy())
    return ImageSet(split, split, split, tuple("0123456789"), "here", "0")


def test_dark_images() -> None:
    """Where most pixels are black, noise stands for many below it; normalised twice is still told apart."""
    data = dark()
    preprocessing, classes = fit_normalise(data.train), torch.arange(K)
    for seed in range(10):
        for factor in (1, 3):
            images = factor * torch.randn(K, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
            images = images - float(preprocessing.mean / preprocessing.std) * (seed % 2)  # half of them with the mean of the latter
            assert _outside(preprocessing.inverse(images)) > 0.3
            held = DistilledSet(
                images=images,
                labels=torch.eye(K),
                label_kind="hard",
                classes=classes,
                syn_lr=0.1,
                preprocessing=preprocessing,
                class_names=data.class_names,
            )
            assert check_fit(held, data, preprocessing) == []
    twice = preprocessing.forward(preprocessing.prepare(data.train.images()))
    for rows in (twice[:K], twice[K : 2 * K]):
        refused(dataclasses.replace(held, images=rows), data, preprocessing, "real ones that were normalised twice")


def test_few_images_may_be_bright_by_chance() -> None:
    """Where an image is black or white as a whole, two white ones are no offset; ten are."""
    levels = torch.arange(100).remainder(2).mul(255).byte().view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    split = whole(levels.numpy(), torch.arange(100).div(50, rounding_mode="floor").numpy())
    data = ImageSet(split, split, split, ("a", "b"), "here", "0")
    preprocessing = fit_normalise(split)
    for count, passes in ((2, True), (50, False)):
        held = DistilledSet(
            images=preprocessing.forward(torch.ones(count, 3, 8, 8)),
            labels=torch.eye(2).repeat(count // 2, 1),
            label_kind="hard",
            classes=torch.arange(2).repeat(count // 2),
            syn_lr=0.1,
            preprocessing=preprocessing,
            class_names=data.class_names,
        )
        if passes:
            check_fit(held, data, preprocessing)
        else:
            refused(held, data, preprocessing, "images: brightness is 1 standard deviations off")


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
    eleven = real(
        scenes, class_names=(*names, "ten"), labels=torch.eye(11)[torch.arange(K).repeat_interleave(10)], label_kind="hard"
    )
    refused(eleven, scenes.data, scenes.preprocessing, "classes: those of the set are not those of the data: 'scenes' lacks 'ten'")


def test_another_shape(scenes: Scenes) -> None:
    held = real(scenes, images=torch.zeros(100, 3, 16, 17))
    refused(held, scenes.data, scenes.preprocessing, "images: shape (3, 16, 17) of the set is not (3, 16, 16)")


def test_another_preprocessing(scenes: Scenes) -> None:
    whiten, mean, std = fit_whiten(scenes.data.train), scenes.preprocessing.mean, scenes.preprocessing.std
    refused(
        real(scenes, preprocessing=whiten),
        scenes.data,
        scenes.preprocessing,
        "preprocessing: whiten of the set is not normalise (mean 0.",
    )
    refused(real(scenes), scenes.data, whiten, "of the set is not whiten of the data: prepared images differ by up to")
    refused(real(scenes, preprocessing=Identity()), scenes.data, scenes.preprocessing, "preprocessing: identity of the set")
    imagenet = Normalise(torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
    refused(
        real(scenes, preprocessing=imagenet),
        scenes.data,
        scenes.preprocessing,
        "normalise (mean 0.485 0.456 0.406, std 0.229 0.224 0.225)",
    )
    flat = Normalise(mean, torch.zeros(3))
    refused(real(scenes, images=real(scenes).images, preprocessing=flat), scenes.data, scenes.preprocessing, "preprocessing: ")
    near = Normalise(mean * 1.005, std)
    (note,) = check_fit(real(scenes, preprocessing=near), scenes.data, scenes.preprocessing)
    assert note.startswith("preprocessing: normalise") and "makes a difference of 0.0" in note
    same = Normalise(mean * 1.0001, std * 1.0001)
    assert check_fit(real(scenes, preprocessing=same), scenes.data, scenes.preprocessing) == []


def test_another_fingerprint_is_told(scenes: Scenes) -> None:
    (note,) = check_fit(real(scenes, metadata={"fingerprints": {"data": "feed"}}), scenes.data, scenes.preprocessing)
    assert (
        note
        == f"data: the set was made from other images than those of 'scenes' now (fingerprint feed, not {scenes.data.fingerprint})"
    )
    for metadata in ({}, {"fingerprints": None}, {"fingerprints": ["data"]}, {"fingerprints": {}}):
        assert check_fit(real(scenes, metadata=metadata), scenes.data, scenes.preprocessing) == []


# What it shows.


def twice(x: Tensor, a: Preprocessing) -> Tensor:
    return a.forward(x)


def levels(x: Tensor, a: Preprocessing) -> Tensor:
    return a.inverse(x) * 255


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice, "standard deviations off: normalised twice, or not by normalise (mean 0."),
        (levels, "images: contrast is "),
        (lambda x, a: a.inverse(x), "nearly all values are in [0, 1]"),
        (lambda x, a: (a.inverse(x) + 0.02 * torch.sin(x)).clamp(-0.04, 1.04), "nearly all values are in [0, 1]"),
        (lambda x, a: x + 1.5, "images: brightness is 1."),
        (lambda x, a: x / 3 + 1.2, "images: brightness is 1."),
        (lambda x, a: x - 2, "images: "),
        (lambda x, a: a.inverse(x) / a.std.view(-1, 1, 1), "images: "),  # the mean was forgotten
    ],
)
@pytest.mark.parametrize("ipc", [1, 10])
def test_wrong_normalisation_is_seen(
    scenes: Scenes, change: Callable[[Tensor, Preprocessing], Tensor], message: str, ipc: int
) -> None:
    held = real(scenes, ipc)
    refused(dataclasses.replace(held, images=change(held.images, held.preprocessing)), scenes.data, scenes.preprocessing, message)


def test_normalisation_to_one_half_is_seen(scenes: Scenes) -> None:
    held = real(scenes, 20)
    pixels = held.preprocessing.inverse(held.images)
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    refused(dataclasses.replace(held, images=2 * pixels - 1), scenes.data, scenes.preprocessing, "all values are in [−1, 1]")


def test_wrong_whitening_is_seen(scenes: Scenes) -> None:
    whiten = fit_whiten(scenes.data.train)
    held = real(scenes, 10, whiten)
    assert check_fit(held, scenes.data, whiten) == []
    refused(dataclasses.replace(held, images=real(scenes).images), scenes.data, whiten, "images: ")
    for images in (held.to_pixels() * 255, held.to_pixels()):
        refused(dataclasses.replace(held, images=images), scenes.data, whiten, "images: ")


def permuted(order: Tensor) -> Callable[[DistilledSet], DistilledSet]:
    """Shows images of class k as those of class order[k], in labels and classes alike, as no metadata can tell."""

    def change(held: DistilledSet) -> DistilledSet:
        labels = torch.empty_like(held.labels)
        labels[:, order] = held.labels
        return dataclasses.replace(held, labels=labels, classes=order[held.classes])

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
    planted = dataclasses.replace(permuted(order)(held), classes=held.classes)
    refused(planted, scenes.data, scenes.preprocessing, "labels: they look permuted: class ")
    hard = dataclasses.replace(planted, label_kind="hard", labels=torch.eye(K)[planted.labels.argmax(1)])
    refused(hard, scenes.data, scenes.preprocessing, "hard labels are not the class that the image is said to be of")
    shuffled = dataclasses.replace(held, labels=held.labels[torch.randperm(100, generator=torch.Generator().manual_seed(0))])
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
