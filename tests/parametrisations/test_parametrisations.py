"""What sets store in the place of images: decoders against closed forms, and their adjoints."""

import math
import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from limbeck.parametrisations import dct
from limbeck.parametrisations.dct import Dct
from limbeck.parametrisations.multi_formation import MultiFormation, strips
from limbeck.parametrisations.parametrisation import Code, Decoder, Parametrisation, Pixels
from limbeck.parametrisations.registry import from_dict, to_dict
from limbeck.runtime.errors import UsageError

SHAPE = (3, 10, 7)  # no side is a multiple of 2 and of 3
ALL = [MultiFormation(1), MultiFormation(2), MultiFormation(3), Dct(1), Dct(2), Dct(3, 0.05), Dct(2, 1.0)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of(one: Parametrisation, slots: int = 2) -> tuple[Decoder, Tensor]:
    decoder = Decoder(one, SHAPE)
    return decoder, draw(slots, *decoder.slot_shape)


def test_each_part_of_a_slot_is_enlarged_as_torch_enlarges_it() -> None:
    decoder, p = of(MultiFormation(2))
    rows, columns = (slice(0, 5), slice(5, 10)), (slice(0, 3), slice(3, 7))
    wanted = [interpolate(p[i : i + 1, :, a, b], (10, 7), mode="bilinear")[0] for i in range(2) for a in rows for b in columns]
    assert torch.allclose(decoder(p), torch.stack(wanted), atol=1e-12)
    assert strips(10, 3) == [slice(0, 3), slice(3, 6), slice(6, 10)]


def test_images_shrink_to_the_means_of_their_blocks() -> None:
    images = draw(4, 1, 4, 6)
    slot = Decoder(MultiFormation(2), (1, 4, 6)).encoded(images)
    means = images.unflatten(-1, (3, 2)).unflatten(-3, (2, 2)).mean((-1, -3))
    assert torch.allclose(slot, torch.cat([torch.cat([means[0], means[1]], -1), torch.cat([means[2], means[3]], -1)], -2)[None])


def test_a_factor_of_one_and_all_frequencies_lose_nothing() -> None:
    images = draw(4, *SHAPE)
    for one in (Pixels(), MultiFormation(1), Dct(1), Dct(2, 1.0)):
        decoder = Decoder(one, SHAPE)
        assert torch.allclose(decoder(decoder.encoded(images)), images, atol=1e-12), one


def test_frequencies_are_those_of_the_cosine_transform_and_the_lowest_are_kept() -> None:
    h, w = 4, 6
    y, x = torch.arange(h, dtype=torch.float64)[:, None], torch.arange(w, dtype=torch.float64)
    wave = torch.cos(math.pi * (2 * y + 1) * 1 / (2 * h)) * torch.cos(math.pi * (2 * x + 1) * 2 / (2 * w))
    stored = Decoder(Dct(1, 1.0), (1, h, w)).encoded(wave[None, None])
    assert stored.abs().max().item() == pytest.approx(math.sqrt(h * w / 4))  # its norm, all of it in one frequency
    assert (stored.abs() > 1e-9).sum() == 1
    few = Decoder(Dct(2), (1, h, w))
    assert few.slot_shape == (4, 1, 6)
    # (u/4)² + (v/6)² of the first six: (0,0) (0,1) (1,0) (1,1) (0,2) (1,2)
    assert torch.allclose(few(few.encoded(wave.expand(4, 1, h, w))), wave.expand(4, 1, h, w), atol=1e-12)
    high = torch.cos(math.pi * (2 * y + 1) * 2 / (2 * h)) * torch.ones_like(x)
    assert few(few.encoded(high.expand(4, 1, h, w))).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("keep", "side", "wanted"), [(0.03, 30, 27), (0.57, 30, 513), (1 / 9, 30, 100), (1 / 9, 120, 1600), (0.5, 3, 4)]
)
def test_a_share_that_is_meant_to_be_whole_is(keep: float, side: int, wanted: int) -> None:
    assert Decoder(Dct(1, keep), (1, side, side)).slot_shape == (1, 1, wanted)


@pytest.mark.parametrize("side", [8, 30, 48, 64, 128, 224])
def test_the_least_share_that_an_error_names_is_enough(side: int) -> None:
    with pytest.raises(UsageError) as error:
        Decoder(Dct(1, 1e-9), (1, side, side)).check()
    said = re.search(r"keep: 1e-09 is not at least (\S+), one number of", str(error.value))
    assert said and Decoder(Dct(1, float(said[1])), (1, side, side)).slot_shape == (1, 1, 1)


def test_what_is_stored_of_frequencies_is_the_nearest_that_can_be() -> None:
    decoder = Decoder(Dct(2), SHAPE)
    images = draw(4, *SHAPE)
    near = decoder(decoder.encoded(images))
    assert torch.allclose(decoder(decoder.encoded(near)), near, atol=1e-12)
    assert abs(((images - near) * near).sum()) < 1e-9 * images.square().sum()


@pytest.mark.parametrize("one", ALL, ids=str)
def test_gradients_go_back_by_the_adjoint(one: Parametrisation) -> None:
    decoder, p = of(one)
    v, w = draw(*p.shape, seed=1), draw(*decoder(p).shape, seed=2)
    forth = decoder(v)  # J v: these are linear
    assert torch.allclose(decoder(p + v), decoder(p) + forth, atol=1e-12)
    back = decoder.carried(p, w)
    assert back.shape == p.shape and (forth * w).sum().item() == pytest.approx((v * back).sum().item(), rel=1e-11)
    assert decoder.decoded_shape(p) == tuple(decoder(p).shape) == (2 * one.images_per_slot, *SHAPE)


def test_derivatives_are_those_of_differences() -> None:
    for one in (MultiFormation(2), Dct(2)):
        decoder = Decoder(one, (1, 5, 4))
        assert torch.autograd.gradcheck(decoder, draw(2, *decoder.slot_shape).requires_grad_())


def test_a_slot_decodes_to_the_same_whatever_stands_beside_it() -> None:
    for one in ALL:
        decoder, p = of(one, 3)
        n = one.images_per_slot
        assert torch.allclose(decoder(p)[n : 2 * n], decoder(p[1:2]), atol=1e-12)


@pytest.mark.parametrize("one", [Pixels(), *ALL], ids=str)
def test_parametrisations_are_read_as_they_were_written(one: Parametrisation) -> None:
    written = to_dict(one)
    assert written is not None
    read = from_dict(written)
    assert type(read) is type(one) and to_dict(read) == written


@pytest.mark.parametrize(
    "held", [{}, {"kind": "own"}, {"kind": []}, {"kind": "multi"}, {"kind": "multi", "factor": 0}, {"kind": "dct", "factor": 2}]
)
def test_what_is_no_parametrisation_is_none(held: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        from_dict(held)


def test_the_bytes_are_those_of_what_is_stored() -> None:
    for one, numbers in ((MultiFormation(2), 3 * 64), (Dct(2), 4 * 3 * 16), (Dct(2, 0.1), 4 * 3 * 6), (Dct(3), 9 * 3 * 7)):
        decoder = Decoder(one, (3, 8, 8))
        code = Code(decoder, torch.zeros(5, *decoder.slot_shape))
        assert code.bytes == 4 * 5 * numbers
        assert code.problem(code.images()) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiFormation(0), "parametrisation.factor: 0 is not a whole number, at least 1"),
        (lambda: MultiFormation(2.0), "parametrisation.factor: 2.0 is not a whole number, at least 1"),  # type: ignore[arg-type]
        (lambda: Dct(True), "parametrisation.factor: True is not a whole number, at least 1"),
        (lambda: Dct(2, 0.0), r"parametrisation.keep: 0.0 is not in \(0, 1\]"),
        (lambda: Decoder(MultiFormation(8), SHAPE).check(), "parametrisation.factor: 8 is not at most 7, the images' shorter side"),
        (lambda: Decoder(Dct(9), SHAPE).check(), "parametrisation.factor: 9 is not at most 8 for images of 10 × 7"),
        (lambda: Decoder(Dct(2, 0.01), SHAPE).check(), "parametrisation.keep: 0.01 is not at least 0.0143, one number of 10 × 7"),
        (
            lambda: Decoder(Lossy("shape"), SHAPE).check(),
            "parametrisation.kind: 'Lossy' is not one that stores 1 images with shape",
        ),
        (lambda: Decoder(Lossy("images"), SHAPE).check(), "parametrisation.kind: 'Lossy' is not one that decodes a slot to images"),
        (lambda: Decoder(Lossy("detached"), SHAPE).check(), "parametrisation.kind: 'Lossy' is not differentiable"),
        (lambda: Decoder(Lossy("no shape"), SHAPE).check(), "parametrisation.kind: 'Lossy' raised ZeroDivisionError"),
        (lambda: Decoder(Lossy("raises"), SHAPE).check(), "parametrisation.kind: 'Lossy' raised ZeroDivisionError"),
    ],
)
def test_bad_values_are_refused_in_a_line(make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()  # type: ignore[operator]


@dataclass
class Lossy(Parametrisation):
    """One of the user's with something wrong."""

    wrong: str

    def slot_shape(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (1 // 0,) if self.wrong == "no shape" else (1,) if self.wrong == "shape" else shape

    def encode(self, images: Tensor) -> Tensor:
        return images / (1 // 0) if self.wrong == "raises" else images

    def decode(self, stored: Tensor, shape: tuple[int, int, int]) -> Tensor:
        return stored[:, :1] if self.wrong == "images" else stored.detach()


def test_images_that_are_another_codes_are_noticed() -> None:
    decoder = Decoder(MultiFormation(2), (3, 8, 8))
    code = Code(decoder, torch.randn(2, 3, 8, 8))
    assert code.problem(code.images() + 1) == "the images are not those that what is stored decodes to"
    assert "decodes to [8, 3, 8, 8]" in str(code.problem(torch.zeros(2, 3, 8, 8)))
    assert "has shape (2, 3, 4, 8)" in str(Code(decoder, torch.zeros(2, 3, 4, 8)).problem(code.images()))


def test_what_was_decoded_without_gradients_first_has_them_later() -> None:
    """Matrices are kept between calls."""
    for matrices in (dct._cosines, dct._lowest):
        matrices.cache_clear()
    decoders = [Decoder(Dct(2), (1, 6, 10)), Decoder(MultiFormation(2), (1, 6, 10))]
    for decoder in decoders:
        stored = torch.zeros(1, *decoder.slot_shape, dtype=torch.float64)
        with torch.inference_mode():
            decoder(stored)
        decoder(stored.clone().requires_grad_()).sum().backward()
