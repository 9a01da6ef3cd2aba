from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.whitening import whitening

from limbeck.data.constants import CONSTANTS
from limbeck.data.preprocessing import (
    MOST_PIXELS,
    Identity,
    Normalise,
    Preprocessing,
    Whiten,
    fit_preprocessing,
    fit_whiten,
    preprocessing_from,
)
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split, whole
from limbeck.runtime.errors import UsageError


def images(count: int, shape: tuple[int, int, int], seed: int = 0) -> Split:
    """Correlated pixels, and rows of the storage that are in no order and not all used."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    mixed = rng.normal(size=(count + 3, 5)) @ rng.normal(size=(5, size)) * 30 + rng.normal(size=(count + 3, size)) * 10 + 120
    storage = mixed.clip(0, 255).astype(np.uint8).reshape(-1, *shape)
    return Split(storage, rng.permutation(count + 3)[:count], np.zeros(count, np.int64))


def pixels(split: Split) -> np.ndarray:
    return split.storage[split.rows].astype(np.float64) / 255


def test_the_settings_choose() -> None:
    split = images(20, (3, 4, 4))
    assert fit_preprocessing(DataSettings(), split).kind == "normalise"
    assert fit_preprocessing(DataSettings(zca=True), split).kind == "whiten"
    assert fit_preprocessing(DataSettings(normalise="none"), split).kind == "identity"
    assert (DataSettings(normalise=False).normalise, DataSettings(normalise=True)) == ("none", DataSettings())


PUBLISHED = {
    "imagenet": ("0.485 0.456 0.406", "0.229 0.224 0.225"),
    "cifar10": ("0.4914 0.4822 0.4465", "0.2023 0.1994 0.2010"),
    "cifar100": ("0.5071 0.4866 0.4409", "0.2673 0.2564 0.2762"),
    "mnist": ("0.1307", "0.3081"),
    "fashion-mnist": ("0.2861", "0.3530"),
    "svhn": ("0.4377 0.4438 0.4728", "0.1980 0.2010 0.1970"),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_published_means_and_deviations(name: str) -> None:
    mean, std = ([float(number) for number in text.split()] for text in PUBLISHED[name])
    split = images(20, (len(mean), 4, 4))
    named = fit_preprocessing(DataSettings(normalise=name), split)
    numbers = fit_preprocessing(DataSettings(normalise=(tuple(mean), tuple(std))), split)
    expected = (pixels(split) - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    for made in (named, numbers):
        np.testing.assert_allclose(made.prepare(split.images()), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(made.inverse(made.forward(torch.from_numpy(pixels(split)))), pixels(split), atol=1e-7)
    assert named.kind == "normalise" and named.identity == numbers.identity


def test_who_was_trained_on_other_numbers_is_another() -> None:
    """Of what is fitted the images tell the numbers, so that stores and caches of before are found."""
    split = images(20, (3, 4, 4))
    ways: list[dict[str, Any]] = [{}, {"normalise": "cifar10"}, {"normalise": "cifar100"}, {"normalise": "none"}, {"zca": True}]
    found = [fit_preprocessing(DataSettings(**way), split).identity for way in ways]
    assert (found[0], found[3], found[4], len(set(found))) == ("normalise", "identity", "whiten", 5)
    assert (
        fit_preprocessing(DataSettings(normalise="imagenet", zca=True), split).identity == "whiten"
    )  # of pixels, whatever is said


@pytest.mark.parametrize(
    ("normalise", "says"),
    [
        ("imagenet1k", "data.normalise: 'imagenet1k' is not one of fitted, none, imagenet, cifar10, "),
        (((0.5,), (0.0,)), "data.normalise: [(0.5,), (0.0,)] is not "),
        (((0.5, 0.5), (0.2,)), "[[means], [deviations above 0]] with a number of each for every channel"),
        ((0.5, 0.2), "data.normalise: [0.5, 0.2] is not "),
        (None, "data.normalise: None is not "),
    ],
)
def test_what_is_no_normalisation(normalise: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        DataSettings(normalise=normalise)
    assert says in str(caught.value)


@pytest.mark.parametrize("normalise", ["mnist", ((0.5,) * 4, (0.2,) * 4)])
def test_numbers_for_other_channels_are_refused(normalise: Any) -> None:
    with pytest.raises(UsageError, match=r"^data.normalise: .* is not for images of 3 channels, it has [14]$"):
        fit_preprocessing(DataSettings(normalise=normalise), images(20, (3, 4, 4)))


def test_normalise_fits_mean_and_std_of_each_channel() -> None:
    split = images(2100, (3, 4, 5))  # more than one chunk
    fitted = fit_preprocessing(DataSettings(), split)
    assert isinstance(fitted, Normalise)
    np.testing.assert_allclose(fitted.mean, pixels(split).mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(fitted.std, pixels(split).std(axis=(0, 2, 3)), rtol=1e-6)
    x = fitted.prepare(split.images())
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x.mean(dim=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.var(dim=(0, 2, 3), correction=0), 1, rtol=1e-5)


def test_a_constant_channel_is_only_shifted() -> None:
    split = images(10, (3, 4, 4))
    split.storage[:, 1] = 77
    fitted = fit_preprocessing(DataSettings(), split)
    assert isinstance(fitted, Normalise)
    assert fitted.std[1] == 1
    assert fitted.mean[1] == pytest.approx(77 / 255)
    assert fitted.prepare(split.images())[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize("count", [400, 30])  # more images than pixels, and fewer
def test_whitening_agrees_with_the_definition(count: int) -> None:
    split = images(count, (3, 4, 5))
    fitted = fit_whiten(split)
    mean, matrix, inverse = whitening(pixels(split).reshape(count, -1), 0.1)
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-7)
    np.testing.assert_allclose(fitted.matrix, matrix, atol=1e-6)
    np.testing.assert_allclose(fitted.inverse_matrix, inverse, atol=1e-6)


@pytest.mark.parametrize("count", [200, 30])
def test_whitening_agrees_with_kornia(count: int) -> None:
    kornia = pytest.importorskip("kornia.enhance")
    split = images(count, (3, 4, 5))
    oracle = kornia.ZCAWhitening(dim=0, eps=0.1, unbiased=True, compute_inv=True).fit(torch.from_numpy(pixels(split)))
    fitted = fit_whiten(split)
    x = oracle(torch.from_numpy(pixels(split)))
    np.testing.assert_allclose(fitted.prepare(split.images()), x, atol=2e-5)
    np.testing.assert_allclose(fitted.inverse(x.float()), oracle.inverse_transform(x), atol=2e-5)


def test_whitening_in_chunks_is_whitening_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (100, 20):
        split = images(count, (1, 5, 5))
        at_once = fit_whiten(split)
        monkeypatch.setattr("limbeck.data.preprocessing.CHUNK", 7)
        np.testing.assert_allclose(fit_whiten(split).matrix, at_once.matrix, atol=1e-6)
        monkeypatch.undo()


@given(st.integers(2, 40), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_inverse_leads_back(count: int, seed: int) -> None:
    split = images(count, (3, 4, 4), seed)
    anything = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 3 - 1
    for keys in ({}, {"zca": True}, {"normalise": False}):
        fitted = fit_preprocessing(DataSettings(**keys), split)
        assert (fitted.inverse(fitted.forward(anything)) - anything).abs().max() < 1e-4
        assert (fitted.forward(fitted.inverse(anything)) - anything).abs().max() < 1e-4
        assert (fitted.inverse(fitted.prepare(split.images())) * 255 - split.images()).abs().max() < 0.02


def test_identical_images_do_not_break_whitening() -> None:
    for count in (5, 100):
        fitted = fit_whiten(whole(np.full((count, 1, 4, 4), 9, np.uint8), np.zeros(count)))
        np.testing.assert_allclose(fitted.matrix, np.eye(16) / 0.1**0.5, rtol=1e-6)


@pytest.mark.parametrize("kind", ["identity", "normalise", "whiten"])
def test_gradient_reaches_the_pixels(kind: str) -> None:
    keys = {"identity": {"normalise": False}, "normalise": {}, "whiten": {"zca": True}}[kind]
    fitted = fit_preprocessing(DataSettings(**keys), images(30, (3, 2, 3)))
    x = torch.rand(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fitted.forward, x)
    assert torch.autograd.gradcheck(fitted.inverse, x)


def all_kinds() -> list[Preprocessing]:
    split = images(30, (3, 2, 3))
    return [Identity(), fit_preprocessing(DataSettings(), split), fit_whiten(split)]


@pytest.mark.parametrize("fitted", all_kinds(), ids=lambda fitted: str(fitted.kind))
def test_made_again_from_its_tensors(fitted: Preprocessing) -> None:
    again = preprocessing_from(fitted.kind, fitted.tensors())
    x = torch.rand(4, 3, 2, 3)
    assert type(again) is type(fitted)
    assert torch.equal(again.forward(x), fitted.forward(x))
    assert torch.equal(again.inverse(x), fitted.inverse(x))


@pytest.mark.parametrize(
    ("kind", "tensors", "message"),
    [
        ("zca", {}, "preprocessing: 'zca' is not one of identity, normalise, whiten"),
        ("normalise", {"mean": torch.zeros(3)}, "preprocessing: normalise lacks std"),
        ("normalise", {"mean": torch.zeros(3), "std": torch.ones(1)}, "is not the shapes of normalise"),
        ("normalise", {"mean": torch.zeros(3, 1), "std": torch.ones(3, 1)}, "is not the shapes of normalise"),
        ("normalise", {"mean": torch.zeros(3), "std": torch.full((3,), torch.nan)}, "is not finite everywhere"),
        ("whiten", {"mean": torch.zeros(3), "matrix": torch.eye(3), "inverse_matrix": torch.eye(2)}, "is not the shapes of whiten"),
    ],
)
def test_broken_tensors_are_refused(kind: str, tensors: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        preprocessing_from(kind, tensors)


def test_large_images_are_not_whitened() -> None:
    split = whole(np.zeros((4, 3, 65, 64), np.uint8), np.zeros(4))
    with pytest.raises(
        UsageError, match=rf"^data\.zca: True is not possible for images of 12480 values: at most {MOST_PIXELS}[^\n]*$"
    ):
        fit_preprocessing(DataSettings(zca=True), split)


def test_whiten_of_a_fitted_set_is_nearly_white() -> None:
    split = images(500, (1, 4, 4))
    fitted = fit_whiten(split, epsilon=1e-6)
    assert isinstance(fitted, Whiten)
    x = fitted.prepare(split.images()).flatten(1).numpy()
    np.testing.assert_allclose(np.cov(x.T), np.eye(16), atol=2e-3)
