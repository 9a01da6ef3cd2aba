"""RandAugment and AutoAugment: their operations in closed form, their tables, and how a protocol has them."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.augmentation import Dsa
from limbeck.data.preprocessing import Identity, Normalise
from limbeck.evaluation.policies import DRAWN, AutoAugment, RandAugment, Step, applied, pairs_of
from limbeck.evaluation.protocols import PROTOCOLS, find
from limbeck.evaluation.view_labels import asks
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator
from limbeck.training.layers import Layers, drawn
from limbeck.views import Views

GREYS = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
AUTO = ("autoaugment-imagenet", "autoaugment-cifar10")


def after(operation: str, strength: float = 0.0, pixels: np.ndarray = GREYS) -> np.ndarray:
    return np.asarray(applied(Image.fromarray(pixels), Step(operation, strength))).astype(int)


@pytest.mark.parametrize("operation", [name for name in DRAWN if name not in ("AutoContrast", "Equalize")])
def test_at_strength_nought_nothing_is_done(operation: str) -> None:
    assert (after(operation) == GREYS).all()  # no pixel is 255, from which on the weakest solarisation inverts


@pytest.mark.parametrize(
    ("operation", "strength", "expected"),
    [
        ("Solarize", 0.6, np.where(GREYS >= 102, 255 - GREYS.astype(int), GREYS)),
        ("Solarize", 1.0, 255 - GREYS.astype(int)),
        ("Posterize", 1.0, GREYS // 16 * 16),
        ("Posterize", 0.4, GREYS // 4 * 4),  # 8 − round(1.6) bits
        ("Invert", 0.0, 255 - GREYS.astype(int)),
        ("AutoContrast", 0.0, np.floor(GREYS * (255 / 252))),
        ("Brightness", -1.0, np.trunc(np.float32(0.1) * GREYS)),
        ("TranslateX", 331 / 150 / 8, np.concatenate([GREYS[:, 1:], np.full((8, 1), 128)], 1)),
        ("TranslateY", -331 / 150 / 8, np.concatenate([np.full((1, 8), 128), GREYS[:-1]])),
    ],
)
def test_operations_in_closed_form(operation: str, strength: float, expected: np.ndarray) -> None:
    found = after(operation, strength)
    assert np.abs(found - expected).max() <= (1 if operation in ("AutoContrast", "Brightness") else 0)


def test_colours_and_what_is_around_them() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert (after("Rotate", 1.0, colours)[0, 0] == 128).all()
    grey = np.asarray(Image.fromarray(colours).convert("L")).astype(int)[:, :, None]
    assert np.abs(after("Color", -1.0, colours) - (grey + 0.1 * (colours - grey))).max() <= 1
    sheared = after("ShearX", 1.0, colours)
    assert (sheared[0] == colours[0]).all() and (sheared[7, :6] == colours[7, 2:]).all()  # by ⌊½ + 0.3 · 7½⌋


def test_the_tables_are_of_operations_that_there_are() -> None:
    for name in AUTO:
        pairs = pairs_of(name)
        assert len(pairs) == 25 and all(len(pair) == 2 for pair in pairs)
        assert all(
            operation in {*DRAWN, "Invert"} and 0 <= share <= 1 and 0 <= k <= 9 for pair in pairs for operation, share, k in pair
        )
    assert pairs_of(AUTO[0])[0] == [("Posterize", 0.4, 8), ("Rotate", 0.6, 9)]
    assert pairs_of(AUTO[1])[-1] == [("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)]


def test_the_tables_and_operations_are_torchvisions() -> None:
    try:
        from torchvision.transforms import autoaugment as theirs
    except Exception as error:  # absent, or made for another torch
        pytest.skip(f"torchvision: {error}")
    for name, policy in zip(AUTO, (theirs.AutoAugmentPolicy.IMAGENET, theirs.AutoAugmentPolicy.CIFAR10), strict=True):
        made = theirs.AutoAugment(policy)
        assert pairs_of(name) == [[(operation, share, k or 0) for operation, share, k in pair] for pair in made.policies]
    space = theirs.RandAugment()._augmentation_space(31, (8, 8))
    assert sorted(space) == sorted(DRAWN)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8))
    for operation, (strengths, signed) in space.items():
        for m in (3, 17, 30):
            theirs_at = float(strengths[m]) if strengths.ndim else 0.0
            expected = theirs._apply_op(image, operation, theirs_at, theirs.InterpolationMode.NEAREST, [128, 128, 128])
            found = applied(image, Step(operation, m / 30))
            if signed and operation.startswith("Translate"):
                continue  # by whole pixels there, and the other way
            assert np.array_equal(found, expected), (operation, m)


def test_draws_are_of_each_image_and_repeat() -> None:
    x = torch.rand(6, 3, 8, 8, generator=generator(0, "x"))
    one, again = (RandAugment(Identity(), 2, 30).draw(generator(0, "a"), x.shape)(x) for _ in range(2))
    assert torch.equal(one, again) and one.shape == x.shape
    same = x[:1].expand(6, -1, -1, -1)
    made = RandAugment(Identity(), 2, 30).draw(generator(0, "a"), x.shape)(same)
    assert len({image.numpy().tobytes() for image in made}) > 3
    alike = RandAugment(Identity(), 2, 30).draw(generator(0, "a"), x.shape, siamese=True)(same)
    assert (alike == alike[:1]).all()
    steps = [step.operation for seed in range(300) for step in RandAugment(operations=3).steps(generator(seed, "b"))]
    assert set(steps) == set(DRAWN) and len(steps) == 900 and max(Counter(steps).values()) < 100
    found = [len(AutoAugment(found_on=AUTO[0]).steps(generator(seed, "b"))) for seed in range(300)]
    share = np.mean([one[1] for pair in pairs_of(AUTO[0]) for one in pair])
    assert np.mean(found) == pytest.approx(2 * share, abs=0.15) and set(found) == {0, 1, 2}


def test_images_go_through_their_preprocessing() -> None:
    normalise = Normalise(torch.tensor([0.5]), torch.tensor([0.2]))
    x = normalise.prepare(torch.from_numpy(GREYS)[None, None])
    nothing = RandAugment(normalise, 1, 0).draw(generator(6, "identity"), x.shape)
    torch.testing.assert_close(nothing(x), x)  # at strength nought only AutoContrast and Equalize do something
    with pytest.raises(UsageError, match="protocol.policy: 'RandAugment' is not made for images of 2 channels: 1 or 3"):
        RandAugment(normalise).draw(generator(0, "a"), (1, 2, 8, 8))


def test_protocols_put_it_between_crops_and_the_rest(tmp_path: Path) -> None:
    network, dsa, plain = flat_network("ConvNetD1-w4", (3, 8, 8), 3), Dsa(), Identity()

    def layers(name: str, **changes: object) -> object:
        protocol = dataclasses.replace(PROTOCOLS[name], policy="randaugment", policy_magnitude=5, **changes)  # type: ignore[arg-type]
        return protocol.training(network, dsa, 0.1, 1, "hard", plain).augment

    policy = RandAugment(plain, 2, 5)
    assert layers("none") == policy
    assert layers("dd") == Layers(views=Views(crop_scale=None, flip=False), between=(policy, dsa))
    assert layers("kd") == Layers(views=Views(mix="cutmix"), between=(policy,))
    assert layers("ncfm-2025") == Layers(
        views=Views(crop_scale=(0.5, 1.0), flip=False, mix="cutmix", mix_share=0.5), between=(policy, dsa)
    )
    assert asks(PROTOCOLS["kd"]) and not asks(dataclasses.replace(PROTOCOLS["kd"], policy="randaugment"))
    (tmp_path / "mine.yaml").write_text("base: dd\npolicy: randaugment\npolicy_magnitude: 31\n")
    with pytest.raises(UsageError, match=r"protocol.policy_magnitude: 31 is not in 0 … 30"):
        find(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("base: dd\npolicy: trivialaugment\n")
    with pytest.raises(UsageError, match="protocol.policy: 'trivialaugment' is not one of none, randaugment, "):
        find(str(tmp_path / "mine.yaml"))


def test_layers_change_images_in_turn_and_mix_labels_alike() -> None:
    x, labels = torch.rand(4, 3, 8, 8, generator=generator(0, "x")), torch.eye(4)
    layers = Layers(views=Views(crop_scale=None, flip=True, mix="mixup"), between=(Dsa("flip"),))
    change, mix = drawn(layers, generator(3, "layers"), x.shape)
    mixed, weights = change(x), mix(labels)
    # Whatever was mirrored, rows keep their sums, and these are mixed as the labels are.
    torch.testing.assert_close(mixed.sum(3), torch.einsum("ij,jchw->ichw", weights, x).sum(3))
    assert (weights.sum(1) == 1).all() and len(weights[0].nonzero()) == 2


def test_only_so_many_batches_are_mixed() -> None:
    views = Views(crop_scale=None, flip=False, mix="cutmix", mix_share=0.25)
    mixed = 0
    for seed in range(400):
        _, mix = drawn(views, generator(seed, "share"), (4, 3, 8, 8))
        mixed += mix(torch.eye(4)) is not mix.args[0] and mix.args[0].partner is not None  # type: ignore[attr-defined]
    assert mixed / 400 == pytest.approx(0.25, abs=0.08)
