"""By which means and deviations images of other programs were normalised: said, told by their values, usual, or like the data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilled.foreign_files import save_npz, save_pt
from torch import Tensor

from limbeck.data.constants import CONSTANTS
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity, Normalise, constant, fit_normalise, fit_whiten
from limbeck.data.split import whole
from limbeck.distilled.export import export_research
from limbeck.distilled.foreign import ForeignOptions
from limbeck.distilled.initial import read_start
from limbeck.distilled.normalised import apart, usual_name
from limbeck.distilled.plausibility import check_fit
from limbeck.distilled.read import read_set
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.errors import UsageError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10 = constant("cifar10", 3, "")


def image_set(names: tuple[str, ...] = NAMES, channels: int = 3) -> ImageSet:
    """Images with the mean and deviation of CIFAR-10's pixels, 0.47 and 0.25 in all channels, each of a colour of its own."""
    rng = np.random.default_rng(5)
    pixels = 0.47 + 0.22 * rng.normal(size=(400, channels, 1, 1)) + 0.15 * rng.normal(size=(400, channels, 8, 8))
    split = whole((255 * pixels.clip(0, 1)).round().astype(np.uint8), np.arange(400) % len(names))
    return ImageSet(split, split, split, names, "here", "0123456789abcdef")


DATA = image_set()
FITTED = fit_normalise(DATA.train)
ORDER = np.argsort(DATA.train.labels[:100], kind="stable")
REAL = DATA.train.images(ORDER).float() / 255  # ten images a class
HARD = torch.from_numpy(DATA.train.labels[:100][ORDER])
OPTIMISED = REAL + 0.02 * torch.randn(
    REAL.shape, generator=torch.Generator().manual_seed(0)
)  # no bytes, and beyond black and white


def read(path: Path, data: ImageSet = DATA, preprocessing: Any = FITTED, **options: Any) -> DistilledSet:
    return read_set(path, data, preprocessing, options=ForeignOptions(**options))


def pixels_of(held: DistilledSet) -> Tensor:
    return held.preprocessing.inverse(held.images)


def assumed(held: DistilledSet) -> str:
    return held.metadata["assumed"][0]


def pt(tmp_path: Path, images: Tensor, name: str = "theirs.pt") -> Path:
    return save_pt(tmp_path / name, (images, HARD))


def test_the_data_are_as_the_fault_was_reported() -> None:
    """By the fitted deviations, contrast is 1.2 to 1.3 times what it was, and pixels are 13/255 off."""
    assert apart(CIFAR10.forward(REAL), FITTED, CIFAR10) == "contrast is 1.24 times what it was, and pixels are 13/255 off"


@pytest.mark.parametrize("said", ["cifar10", "imagenet", "cifar100", "svhn", ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))])
def test_what_is_said_is_taken(tmp_path: Path, said: Any) -> None:
    numbers = constant(said, 3, "")
    held = read(pt(tmp_path, numbers.forward(OPTIMISED)), normalised=said)
    assert torch.allclose(pixels_of(held), OPTIMISED, atol=1e-6)
    assert torch.equal(held.images, numbers.forward(OPTIMISED))
    (note,) = check_fit(held, DATA, FITTED)
    assert note.startswith("preprocessing: normalise (mean ") and "measured under its own" in note


def test_yes_means_like_the_data_and_numbers_for_other_channels_are_refused(tmp_path: Path) -> None:
    path = pt(tmp_path, FITTED.forward(OPTIMISED))
    assert read(path, normalised="yes").preprocessing is FITTED
    with pytest.raises(UsageError, match=r"^--normalised: 'mnist' is not for images of 3 channels, it has 1$"):
        read(path, normalised="mnist")
    with pytest.raises(UsageError, match=r"^normalised: 'imagenette' is not one of auto, yes, no, imagenet, cifar10, "):
        ForeignOptions(normalised="imagenette")  # type: ignore[arg-type]


def test_levels_from_0_to_255_have_a_way(tmp_path: Path) -> None:
    path = pt(tmp_path, 255 * REAL)
    with pytest.raises(UsageError, match="may be pixels or normalised: say --normalised yes, .* or 255 where that is white"):
        read(path)
    assert torch.allclose(read(path, normalised=255).images, FITTED.forward(REAL), atol=1e-5)


@pytest.mark.parametrize("name", [name for name, (mean, _) in CONSTANTS.items() if len(mean) == 3])
def test_bytes_tell_by_what_they_were_normalised(tmp_path: Path, name: str) -> None:
    """Real images, as random choice, herding and the like leave them: 255 times the right pixels are whole numbers."""
    for data in (DATA, image_set(tuple("abcdefghij"))):
        for path in (
            pt(tmp_path, constant(name, 3, "").forward(REAL)),
            save_npz(tmp_path / "theirs.npz", images=constant(name, 3, "").forward(REAL), labels=HARD),
        ):
            held = read(path, data)
            assert torch.allclose(pixels_of(held), REAL, atol=1e-6)
            assert assumed(held).startswith(f"images are taken as normalised by {name}, by which their pixels are bytes")
    assert read(pt(tmp_path, FITTED.forward(REAL))).preprocessing is FITTED


def test_black_and_white_tell_it_too(tmp_path: Path) -> None:
    """Optimised images that were cut to [0, 1]."""
    cut = (0.5 + 1.5 * (OPTIMISED - 0.5)).clamp(0, 1)
    held = read(pt(tmp_path, constant("imagenet", 3, "").forward(cut)), image_set(tuple("abcdefghij")))
    assert torch.allclose(pixels_of(held), cut, atol=1e-6)
    assert read(pt(tmp_path, FITTED.forward(cut))).preprocessing is FITTED


def test_research_code_normalises_cifar10_as_published(tmp_path: Path) -> None:
    """Optimised images tell nothing; the note says what was taken, how far the other would be off, and how to have it."""
    held = read(pt(tmp_path, CIFAR10.forward(OPTIMISED)))
    assert torch.allclose(pixels_of(held), OPTIMISED, atol=1e-6)
    note = assumed(held)
    assert note.startswith("images are taken as normalised by cifar10 (normalise (mean 0.4914 0.4822 0.4465, std 0.2023 0.1994 ")
    assert "contrast is 1.24 times what it was, and pixels are 13/255 off (--normalised yes)" in note
    (fit,) = check_fit(held, DATA, FITTED)
    assert "is measured under its own" in fit


def test_what_is_not_taken_over(tmp_path: Path) -> None:
    x = CIFAR10.forward(OPTIMISED)
    theirs, strange = pt(tmp_path, x), image_set(tuple("abcdefghij"))
    said = constant("imagenet", 3, "")
    assert read(theirs, preprocessing=said).preprocessing is said  # data.normalise=imagenet
    whiten = fit_whiten(DATA.train)
    assert read(theirs, preprocessing=whiten).preprocessing is whiten  # data.zca=true
    assert isinstance(read(theirs, preprocessing=Identity()).preprocessing, Identity)
    assert read(theirs, strange).preprocessing is FITTED
    assert read(save_npz(tmp_path / "theirs.npz", images=x, labels=HARD)).preprocessing is FITTED


def test_a_moderate_mismatch_is_noticed(tmp_path: Path) -> None:
    """Where nothing tells or says it, contrasts do: 1.24 times that of real images, and right by known numbers."""
    strange = image_set(tuple("abcdefghij"))
    wrong = read(pt(tmp_path, CIFAR10.forward(OPTIMISED)), strange)
    (note,) = check_fit(wrong, strange, FITTED)
    assert note.startswith("images: contrast is 1.2") and "(--normalised cifar10)" in note and "pixels are 13/255 off" in note
    other = read(pt(tmp_path, FITTED.forward(OPTIMISED), "ours.pt"), strange, normalised="cifar10")
    assert any("times that of real ones" in note and "(--normalised yes)" in note for note in check_fit(other, strange, FITTED))
    right = read(pt(tmp_path, CIFAR10.forward(OPTIMISED)), strange, normalised="cifar10")
    assert not any("contrast" in note for note in check_fit(right, strange, FITTED))
    wild = read(pt(tmp_path, FITTED.forward(0.5 + 3 * (OPTIMISED - 0.5))), strange)
    assert check_fit(wild, strange, FITTED) == []  # optimised for long, which no known numbers explain


@pytest.mark.parametrize("said", ["auto", "imagenet"])
def test_no_other_numbers_are_proposed_where_pixels_are_bytes(tmp_path: Path, said: str) -> None:
    """Real images of little contrast, which by chance would be that of the data by CIFAR-100's numbers."""
    pale = (255 * (0.47 + 0.87 * (REAL - 0.47))).round() / 255
    held = read(pt(tmp_path, constant("imagenet", 3, "").forward(pale)), DATA, normalised=said)
    torch.testing.assert_close(pixels_of(held), pale)
    (note,) = check_fit(held, DATA, FITTED)
    assert "is measured under its own" in note


@pytest.mark.parametrize(
    ("names", "channels", "name"),
    [
        (NAMES, 3, "cifar10"),
        (NAMES, 1, None),
        (tuple(str(digit) for digit in range(10)), 1, "mnist"),
        (tuple(str(digit) for digit in range(10)), 3, None),
        (("tench", "n02102040", "French horn"), 3, "imagenet"),
        (("tench", "my dog"), 3, None),
        (("aquarium_fish", "lawn_mower", "pickup_truck", "sweet_pepper", "willow_tree", *map(str, range(95))), 3, "cifar10"),
    ],
)
def test_what_is_usual_for_data(names: tuple[str, ...], channels: int, name: str | None) -> None:
    assert usual_name(image_set(names, channels)) == name


def test_a_start_is_prepared_as_the_run_is(tmp_path: Path) -> None:
    """The pixels stay, whatever numbers X was normalised by."""
    held, notes = read_start(pt(tmp_path, CIFAR10.forward(OPTIMISED)), 10, 0.01, DATA, FITTED)
    assert held.preprocessing is FITTED and torch.allclose(pixels_of(held), OPTIMISED, atol=1e-6)
    assert any("its pixels are prepared anew" in note for note in notes)


def test_an_export_says_the_numbers_and_comes_back_with_them(tmp_path: Path) -> None:
    held = read(pt(tmp_path, CIFAR10.forward(OPTIMISED)), normalised="cifar10")
    again = read(export_research(held, tmp_path / "research"))
    assert isinstance(again.preprocessing, Normalise) and torch.equal(again.preprocessing.std, CIFAR10.std)
    assert torch.equal(again.images, held.images) and "measured under its own" in check_fit(again, DATA, FITTED)[0]
    saved = DistilledSet.load(held.save(tmp_path / "saved"))
    assert torch.equal(saved.preprocessing.tensors()["mean"], CIFAR10.mean)
