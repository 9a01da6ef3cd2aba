"""What is lost of an image on its way to bytes, and how images of more than eight bits come through."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.pictures import Said, chunk, deep_png, fill
from PIL import Image, ImageCms

from limbeck.data.decode import Bytes, Whole, decode_all, read_headers
from limbeck.data.imageset import ImageSet
from limbeck.data.levels import Levels
from limbeck.data.load import load_data
from limbeck.data.picture import LOSSES, known_losses
from limbeck.data.settings import DataSettings
from limbeck.runtime.executor import spread

rng = np.random.default_rng(0)
GREY = rng.integers(0, 4096, (9, 14), dtype=np.uint16)
COLOUR = rng.integers(0, 4096, (9, 14, 3), dtype=np.uint16)
OPAQUE = np.full((9, 14, 1), 65535, dtype=np.uint16)
TWELVE = Levels(0, 4095)


def file(image: Image.Image, kind: str, **keys: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **keys)
    return buffer.getvalue()


def whole(content: bytes, levels: Levels | None = None) -> Whole:
    (found,) = decode_all(None, "squash", [Bytes(content, "a")], levels)
    assert isinstance(found, Whole), found
    return found


def lines(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)


def tiff(values: np.ndarray, order: str, tags: dict[int, tuple[int, ...]], packed: Callable[[bytes], bytes] = bytes) -> bytes:
    """A TIFF of one strip, written by hand."""
    mark, data = b"II" if order == "<" else b"MM", packed(values.astype(values.dtype.newbyteorder(order)).tobytes())
    tags = tags if packed is bytes else tags | {259: (8,)}
    samples = values.shape[2] if values.ndim == 3 else 1
    wanted = {256: (values.shape[1],), 257: (values.shape[0],), 258: (values.itemsize * 8,) * samples, 259: (1,)}
    wanted |= {262: (2 if samples >= 3 else 1,), 273: (8,), 277: (samples,), 278: (values.shape[0],), 279: (len(data),)} | tags
    entries, extra, at = b"", b"", 8 + len(data) + 2 + 12 * len(wanted) + 4
    for tag, numbers in sorted(wanted.items()):
        value = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(value) > 4:
            value, extra = struct.pack(f"{order}I", at + len(extra)), extra + value
        entries += struct.pack(f"{order}HHI", tag, 3, len(numbers)) + value.ljust(4, b"\0")
    directory = struct.pack(f"{order}H", len(wanted)) + entries + bytes(4)
    return mark + struct.pack(f"{order}HI", 42, 8 + len(data)) + data + directory + extra


DEEP_GREY = {
    "png": file(Image.fromarray(GREY), "PNG"),
    "tiff": file(Image.fromarray(GREY), "TIFF"),
    "deflated tiff": file(Image.fromarray(GREY), "TIFF", compression="tiff_adobe_deflate"),
    "big-endian tiff": tiff(GREY, ">", {}),
    "tiff of signed numbers": tiff(GREY.astype(np.int16), "<", {339: (2,)}),
    "tiff of 32 bits": tiff(GREY.astype(np.uint32), "<", {339: (1,)}),
    "tiff of signed 32 bits": tiff(GREY.astype(np.int32), ">", {339: (2,)}),
    "tiff of floats": file(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
    "grey png with opacity": deep_png(14, 9, lines(np.concatenate([GREY[..., None], OPAQUE], 2)), kind=4),
}


@pytest.mark.parametrize("kind", DEEP_GREY)
def test_grey_of_more_than_eight_bits(kind: str) -> None:
    content = DEEP_GREY[kind]
    assert [header and header.grey for header in read_headers([Bytes(content, "")])] == [True]
    found = whole(content)
    assert found.grey
    assert found.losses == ()
    assert found.span is not None
    assert found.span[:2] == (GREY.min(), GREY.max())
    assert not found.pixels.any()  # blank until it is known what is black and white
    np.testing.assert_array_equal(whole(content, TWELVE).pixels[1], np.rint(GREY / 4095 * 255))


DEEP = {
    "png": deep_png(14, 9, lines(COLOUR)),
    "png with opacity": deep_png(14, 9, lines(np.concatenate([COLOUR, OPAQUE], 2)), kind=6),
    "tiff": tiff(COLOUR, "<", {}),
    "big-endian tiff": tiff(COLOUR, ">", {}),
    "tiff with opacity": tiff(np.concatenate([COLOUR, OPAQUE], 2), "<", {338: (2,)}),
}


@pytest.mark.parametrize("kind", DEEP)
def test_colour_of_more_than_eight_bits(kind: str, tmp_path: Path) -> None:
    content = DEEP[kind]
    found = whole(content)
    assert (found.grey, found.losses, found.pixels.any()) == (False, (), False)
    assert found.span == (COLOUR.min(), COLOUR.max(), False)
    expected = np.rint(COLOUR / 4095 * 255).transpose(2, 0, 1)
    np.testing.assert_array_equal(whole(content, TWELVE).pixels, expected)
    (tmp_path / "a.tif").write_bytes(content)
    (from_disk,) = decode_all(None, "squash", [tmp_path / "a.tif"], TWELVE)
    np.testing.assert_array_equal(from_disk[0], expected)


def test_packed_colour_of_sixteen_bits_is_decoded_in_the_order_of_the_processor() -> None:
    for order in "<>":
        packed = tiff(COLOUR, order, {}, zlib.compress)
        with Image.open(BytesIO(packed)) as image:
            assert image.tile[0][3][0] == "RGB;16N"
        np.testing.assert_array_equal(whole(packed, TWELVE).pixels, np.rint(COLOUR / 4095 * 255).transpose(2, 0, 1))


def test_transparency_of_sixteen_bits() -> None:
    half = np.concatenate([COLOUR, np.full((9, 14, 1), 32768, np.uint16)], 2)
    found = whole(deep_png(14, 9, lines(half), kind=6), TWELVE)
    assert found.losses == ("transparent",)
    share = 128 / 255
    expected = share * np.rint(COLOUR / 4095 * 255) + (1 - share) * 255
    assert np.abs(found.pixels.transpose(1, 2, 0) - expected).max() <= 1
    clear = struct.pack(">HHH", *COLOUR[2, 3])
    found = whole(deep_png(14, 9, lines(COLOUR), more=chunk(b"tRNS", clear)), TWELVE)
    assert found.losses == ("transparent",)
    assert (found.pixels[:, 2, 3] == 255).all()
    assert (found.pixels == 255).all(0).sum() == 1


def profile(space: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()  # type: ignore[arg-type]


RGB = Image.fromarray((COLOUR // 16).astype(np.uint8))
FOREIGN = profile("sRGB").replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be")).replace(b"sRGB", b"mine")
CLEAR = RGB.quantize(16)
LOSSY = {
    "transparent png": (file(Image.merge("RGBA", [*RGB.split(), Image.new("L", RGB.size, 99)]), "PNG"), ["transparent"]),
    "opaque png": (file(Image.merge("RGBA", [*RGB.split(), Image.new("L", RGB.size, 255)]), "PNG"), []),
    "grey with opacity": (file(Image.merge("LA", [RGB.convert("L"), Image.new("L", RGB.size, 0)]), "PNG"), ["transparent"]),
    "palette": (file(CLEAR, "PNG"), []),
    "palette with a clear colour": (file(CLEAR, "PNG", transparency=CLEAR.getpixel((0, 0))), ["transparent"]),
    "palette with a clear colour that nothing has": (file(RGB.quantize(16), "PNG", transparency=200), []),
    "one bit": (file(RGB.convert("1"), "PNG"), []),
    "ink": (file(RGB.convert("CMYK"), "TIFF"), ["inks"]),
    "ink with a profile": (file(RGB.convert("CMYK"), "JPEG", icc_profile=FOREIGN), ["inks"]),
    "ink of 16 bits": (tiff(np.concatenate([COLOUR, OPAQUE], 2), "<", {262: (5,)}), ["inks", "depth"]),
    "profile": (file(RGB, "JPEG", icc_profile=FOREIGN), ["profile"]),
    "profile of a grey image": (file(RGB.convert("L"), "PNG", icc_profile=FOREIGN), ["profile"]),
    "sRGB": (file(RGB, "JPEG", icc_profile=profile("sRGB")), []),
    "animated gif": (file(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180)]), ["frames"]),
    "one frame": (file(RGB, "GIF"), []),
    "animated webp": (file(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(180)]), ["frames"]),
    "pages": (file(RGB, "TIFF", save_all=True, append_images=[RGB]), ["frames"]),
    "photograph with a preview": (file(RGB, "MPO", save_all=True, append_images=[RGB]), []),
    "further channels": (
        tiff((np.concatenate([COLOUR, COLOUR], 2) // 16).astype(np.uint8)[..., :5], "<", {338: (0, 0)}),
        ["channels"],
    ),
    "12-bit ppm": (b"P6 14 9 4095\n" + COLOUR.astype(">u2").tobytes(), ["depth"]),
    "8-bit ppm": (file(RGB, "PPM"), []),
    "turned": (file(RGB, "PNG", exif=b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"), []),
    "broken exif": (file(RGB, "PNG", exif=b"Exif\0\0nonsense"), ["exif"]),
    "broken exif in a jpeg": (file(RGB, "JPEG", exif=b"Exif\0\0nonsense"), ["exif"]),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_what_is_lost_is_known(kind: str) -> None:
    content, losses = LOSSY[kind]
    found = whole(content)
    assert list(found.losses) == losses
    assert found.losses or found.span is None


@pytest.mark.skipif(".avif" not in Image.registered_extensions(), reason="this Pillow knows no AVIF")
def test_deep_avif_is_known_by_its_header() -> None:
    content = bytearray(file(RGB, "AVIF"))
    assert whole(bytes(content)).losses == ()
    image = Image.open(BytesIO(content))
    content[content.index(b"av1C") + 6] |= 0x40  # as of ten bits, which Pillow does not write
    image.fp = BytesIO(content)
    assert known_losses(image) == ["depth"]


def test_every_kind_of_loss_is_tried() -> None:
    assert {loss for _, losses in LOSSY.values() for loss in losses} == LOSSES.keys()


def test_numbers_that_are_not_finite_are_refused() -> None:
    numbers = GREY.astype(np.float32)
    numbers[0, 0] = np.nan
    assert decode_all(None, "squash", [Bytes(file(Image.fromarray(numbers), "TIFF"), "")]) == ["it has numbers that are not finite"]


def test_a_folder_says_each_kind_once_and_again_from_the_cache(tmp_path: Path) -> None:
    fill(tmp_path / "set", a=70, b=70)
    for i in range(3):
        (tmp_path / "set" / "a" / f"clear{i}.png").write_bytes(LOSSY["transparent png"][0])
    (tmp_path / "set" / "b" / "inks.tif").write_bytes(LOSSY["ink"][0])
    for _ in range(2):
        said = Said()
        load_data(DataSettings(source=str(tmp_path / "set"), size=(9, 14), workers=1), said)
        names = ", ".join(str(tmp_path / "set" / "a" / f"clear{i}.png") for i in range(3))
        assert said.lines == [
            f"warning: {tmp_path / 'set'}: 3 of 144 images are transparent: laid on white ({names})",
            f"warning: {tmp_path / 'set'}: 1 of 144 images is in CMYK: converted to RGB without a colour profile "
            f"({tmp_path / 'set' / 'b' / 'inks.tif'})",
        ]


def scans(root: Path, count: int = 70) -> dict[str, np.ndarray]:
    """Class folders with that many 12-bit images each; the greatest number is in one alone, the least in another."""
    made = {}
    for k, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            values = rng.integers(200, 3001, (8, 9)).astype(np.uint16)
            values[0, 0] = {0: 100, count + 66: 3100}.get(k * count + i, 1000)
            Image.fromarray(values).save(root / name / f"{i:03}.png")
            made[f"{name}/{i:03}.png"] = values
    return made


@pytest.mark.parametrize("workers", [1, 2])
def test_one_range_is_found_over_a_folder(tmp_path: Path, workers: int) -> None:
    values = scans(tmp_path / "set")
    said = Said()
    made = load_data(DataSettings(source=str(tmp_path / "set"), workers=workers), said)
    assert made.levels == (100, 3100)
    assert said.lines == [
        f"note: {tmp_path / 'set'}: 140 of 140 images have more than 8 bits and numbers from 100 to 3100: "
        "100 … 3100 is black to white, in 256 levels"
    ]
    for split in (made.train, made.val, made.test):
        for i, image in enumerate(split.images()):
            np.testing.assert_array_equal(image[0], np.rint((values[str(split.name(i))] - 100.0) / 3000 * 255))
    given = load_data(DataSettings(source=str(tmp_path / "set"), range=(100, 3100), workers=1), said)
    assert (given.fingerprint, given.levels) == (made.fingerprint, made.levels)


def test_a_range_that_was_found_needs_no_second_cache(tmp_path: Path, cache: Path) -> None:
    scans(tmp_path / "set", 10)
    for levels in (None, (1000, 3100), None, (1000, 3100)):
        load_data(DataSettings(source=str(tmp_path / "set"), range=levels, workers=1))
    assert len(list((cache / "images").glob("*/images.npy"))) == 2
    found = load_data(DataSettings(source=str(tmp_path / "set"), workers=1)).levels
    load_data(DataSettings(source=str(tmp_path / "set"), range=found, workers=1))
    assert len(list((cache / "images").glob("*/images.npy"))) == 2


def test_a_given_range_cuts_and_says_so(tmp_path: Path) -> None:
    values = scans(tmp_path / "set", 10)
    said = Said()
    made = load_data(DataSettings(source=str(tmp_path / "set"), range=2000, workers=1), said)
    (line,) = said.lines
    assert line.startswith(f"warning: {tmp_path / 'set'}: 20 of 20 images have more than 8 bits: 0 … 2000 is black to white")
    name = str(made.train.name(0))
    np.testing.assert_array_equal(made.train.images()[0, 0], np.rint(values[name].clip(0, 2000) / 2000 * 255))


def test_pictures_and_arrays_in_python_share_a_range() -> None:
    values = [rng.integers(100, 4001, (8, 9)).astype(np.uint16) for _ in range(20)]
    low, high = min(map(np.min, values)), max(map(np.max, values))
    pairs = [(Image.fromarray(value), k % 2) for k, value in enumerate(values)]
    made = ImageSet.from_dataset(pairs[:14], pairs[14:], val_fraction=0)
    assert made.levels == (low, high)
    for split, part in ((made.train, values[:14]), (made.test, values[14:])):
        np.testing.assert_array_equal(split.images()[:, 0], np.rint((np.stack(part) - float(low)) / (high - low) * 255))
    arrays = [(value, k % 2) for k, value in enumerate(values)]
    assert ImageSet.from_dataset(arrays[:14], arrays[14:], val_fraction=0).fingerprint == made.fingerprint
    assert ImageSet.from_dataset(pairs[:14], pairs[14:], val_fraction=0, range=(low, high)).fingerprint == made.fingerprint
    whole = np.stack(values)
    labels = np.arange(20) % 2
    assert ImageSet.from_arrays(whole[:14], labels[:14], whole[14:], labels[14:], val_fraction=0).fingerprint == made.fingerprint
    floats = [(value.astype(np.float32), k % 2) for k, value in enumerate(values)]
    scaled = ImageSet.from_dataset(floats[:14], floats[14:], val_fraction=0, range=(low, high))
    assert scaled.fingerprint == made.fingerprint


def test_nothing_is_decoded_twice_that_is_not_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "set", a=40, b=40)
    from limbeck.data import image_cache

    calls = []
    monkeypatch.setattr(image_cache, "spread", lambda *given: calls.append(given) or spread(*given))
    load_data(DataSettings(source=str(tmp_path / "set"), size=8, workers=1))
    assert len(calls) == 1
