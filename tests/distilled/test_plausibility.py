"""Sets whose images or preprocessing do not fit the data are refused; sound ones, noise and wild ones are not accused."""

from collections.abc import Callable

import pytest
import torch
from distilled.plausible_scenes import K, Scenes, real, refused, trained_scenes
from distilled.samples import changed
from torch import Tensor

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity, Normalise, Preprocessing, fit_normalise, fit_whiten
from limbeck.data.split import whole
from limbeck.distilled.plausibility import _outside, check_fit, suspicious
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet

IMAGENET = (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return trained_scenes()


# Sound sets.


@pytest.mark.parametrize("ipc", [1, 2, 10, 50])
def test_sound_sets_pass_without_a_word(scenes: Scenes, ipc: int) -> None:
    for held in (real(scenes, ipc), real(scenes, ipc, kind="hard", labels=torch.eye(K).repeat_interleave(ipc, 0))):
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
    wild = changed(held, images=factor * (0.5 * held.images + 0.8 * noise))
    assert check_fit(wild, scenes.data, scenes.preprocessing) == []
    one_channel = wild.images.clone()
    one_channel[:, 2] -= 1.2
    assert check_fit(changed(held, images=one_channel), scenes.data, scenes.preprocessing) == []


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
                set=SmallSet(images, torch.eye(K), classes, 0.1, "hard"),
                preprocessing=preprocessing,
                class_names=data.class_names,
            )
            assert check_fit(held, data, preprocessing) == []
    twice = preprocessing.forward(preprocessing.prepare(data.train.images()))
    for rows in (twice[:K], twice[K : 2 * K]):
        refused(changed(held, images=rows), data, preprocessing, "real ones that were normalised twice")


def test_few_images_may_be_bright_by_chance() -> None:
    """Where an image is black or white as a whole, two white ones are no offset; ten are."""
    levels = torch.arange(100).remainder(2).mul(255).byte().view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    split = whole(levels.numpy(), torch.arange(100).div(50, rounding_mode="floor").numpy())
    data = ImageSet(split, split, split, ("a", "b"), "here", "0")
    preprocessing = fit_normalise(split)
    for count, passes in ((2, True), (50, False)):
        held = DistilledSet(
            set=SmallSet(
                preprocessing.forward(torch.ones(count, 3, 8, 8)),
                torch.eye(2).repeat(count // 2, 1),
                torch.arange(2).repeat(count // 2),
                0.1,
                "hard",
            ),
            preprocessing=preprocessing,
            class_names=data.class_names,
        )
        if passes:
            check_fit(held, data, preprocessing)
        else:
            refused(held, data, preprocessing, "images: brightness is 1 standard deviations off")


# What the set says.


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
    other = Normalise(torch.tensor([0.5, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
    told = "normalise (mean 0.5 0.456 0.406, std 0.229 0.224 0.225)"
    refused(real(scenes, preprocessing=other), scenes.data, scenes.preprocessing, told)
    for known, metadata in ((Normalise(*IMAGENET), {}), (other, {"settings": {"data": {"normalise": [[0.5], [0.2]]}}})):
        (note,) = check_fit(real(scenes, preprocessing=known, metadata=metadata), scenes.data, scenes.preprocessing)
        assert note.startswith("preprocessing: normalise (mean 0.") and "is measured under its own" in note
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
    refused(changed(held, images=change(held.images, held.preprocessing)), scenes.data, scenes.preprocessing, message)


def test_normalisation_to_one_half_is_seen(scenes: Scenes) -> None:
    held = real(scenes, 20)
    pixels = held.preprocessing.inverse(held.images)
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    refused(changed(held, images=2 * pixels - 1), scenes.data, scenes.preprocessing, "all values are in [−1, 1]")


def test_wrong_whitening_is_seen(scenes: Scenes) -> None:
    whiten = fit_whiten(scenes.data.train)
    held = real(scenes, 10, whiten)
    assert check_fit(held, scenes.data, whiten) == []
    refused(changed(held, images=real(scenes).images), scenes.data, whiten, "images: ")
    for images in (held.to_pixels() * 255, held.to_pixels()):
        refused(changed(held, images=images), scenes.data, whiten, "images: ")
