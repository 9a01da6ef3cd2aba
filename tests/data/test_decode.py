"""How image files of every kind become pixels."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from data.pictures import deep_png
from PIL import Image

from limbeck.data.decode import (
    ArchiveFile,
    Bytes,
    Header,
    Unreadable,
    checksum,
    decode_all,
    decode_into,
    read_headers,
    refuse,
)
from limbeck.data.levels import Levels
from limbeck.data.picture import ORIENTATION

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (9, 14), dtype=np.uint8)
COLOUR = rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)


def pixels(path: Path, channels: int = 3, sides: tuple[int, int] = (9, 14), levels: Levels | None = None) -> np.ndarray:
    """What `decode_into` makes of a file, as (H, W, C)."""
    storage = path.parent / "one.npy"
    np.save(storage, np.zeros((2, channels, *sides), np.uint8))
    block = decode_into(storage, "squash", levels, (1, [path]))
    written = np.load(storage)
    assert not written[0].any()
    assert block[:4] == (1, 1, checksum(written[1:]), [])
    return written[1].transpose(1, 2, 0)


def saved(folder: Path, image: Image.Image, suffix: str = ".png", **keys: object) -> Path:
    path = folder / f"image{suffix}"
    image.save(path, **keys)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_colour(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, Image.fromarray(COLOUR), suffix)
    assert read_headers([path]) == [Header(9, 14, grey=False)]
    np.testing.assert_array_equal(pixels(path), COLOUR)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".pgm"])
def test_grey(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, Image.fromarray(GREY), suffix)
    assert read_headers([path]) == [Header(9, 14, grey=True)]
    np.testing.assert_array_equal(pixels(path, channels=1)[..., 0], GREY)
    np.testing.assert_array_equal(pixels(path), np.repeat(GREY[..., None], 3, axis=2))


def test_black_and_white(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(GREY > 127))
    assert read_headers([path])[0].grey
    np.testing.assert_array_equal(pixels(path, channels=1)[..., 0], np.where(GREY > 127, 255, 0))


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    alpha = rng.integers(0, 256, (9, 14, 1), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)))
    share = alpha / 255
    assert np.abs(pixels(path) - (share * COLOUR + (1 - share) * 255)).max() <= 1
    path = saved(tmp_path, Image.fromarray(np.stack([GREY, alpha[..., 0]], axis=2)))
    assert read_headers([path])[0].grey
    assert np.abs(pixels(path, 1) - (share * GREY[..., None] + (1 - share) * 255)).max() <= 1


def test_palettes(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).quantize(16)
    path = saved(tmp_path, image)
    assert not read_headers([path])[0].grey
    np.testing.assert_array_equal(pixels(path), np.asarray(image.convert("RGB")))
    index = int(np.asarray(image)[0, 0])
    clear = pixels(saved(tmp_path, image, transparency=index))
    chosen = np.asarray(image) == index
    assert (clear[chosen] == 255).all()
    np.testing.assert_array_equal(clear[~chosen], np.asarray(image.convert("RGB"))[~chosen])


def test_cmyk(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("CMYK", (14, 9), (0, 255, 255, 0)), ".tif")
    assert (pixels(path) == [255, 0, 0]).all()


# What EXIF's orientations say, from where row 0 and column 0 of the file lie in the picture.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path, Image.fromarray(COLOUR), suffix, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    expected = UPRIGHT[orientation](COLOUR)
    assert read_headers([path]) == [Header(*expected.shape[:2], grey=False)]
    np.testing.assert_array_equal(pixels(path, sides=expected.shape[:2]), expected)


def test_exif_orientation_of_a_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    halves = np.zeros((16, 32, 3), np.uint8)
    halves[:, :16] = 255
    path = saved(tmp_path, Image.fromarray(halves), ".jpg", exif=exif)
    assert read_headers([path]) == [Header(32, 16, grey=False)]
    assert pixels(path, sides=(32, 16))[:14].min() > 240
    assert pixels(path, sides=(32, 16))[18:].max() < 15


def test_a_broken_exif_block_is_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(COLOUR), exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(pixels(path), COLOUR)


def test_a_cmyk_jpeg_and_its_inverted_kind(tmp_path: Path) -> None:
    inked = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    path = saved(tmp_path, inked, ".jpg", quality=95)  # Pillow writes it as Adobe does: inverted, and says so
    assert read_headers([path]) == [Header(16, 16, grey=False)]
    assert np.abs(pixels(path, sides=(16, 16)).astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_of_an_animated_image_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (14, 9), (255, 0, 0)), Image.new("RGB", (14, 9), (0, 0, 255))
    keys = {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path, first, suffix, save_all=True, append_images=[second], **keys)
    with Image.open(path) as image:
        assert image.n_frames == 2
    assert (pixels(path) == [255, 0, 0]).all()


def test_sides_are_reached_by_the_crop_that_is_asked_for(tmp_path: Path) -> None:
    halves = np.zeros((10, 30, 3), np.uint8)
    halves[:, 10:20] = 255
    path, storage = saved(tmp_path, Image.fromarray(halves)), tmp_path / "one.npy"
    np.save(storage, np.zeros((1, 3, 8, 8), np.uint8))
    decode_into(storage, "centre", None, (0, [path]))
    assert np.load(storage)[..., 1:-1].min() == 255  # at the edge of the cut the filter sees what was cut off
    decode_into(storage, "squash", None, (0, [path]))
    assert np.load(storage)[..., 0].max() == 0


def test_members_and_held_files_are_read_as_files_are(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(COLOUR))
    content = path.read_bytes()
    (tmp_path / "archive").write_bytes(b"before" + content + b"after")
    items = [path, ArchiveFile(tmp_path / "archive", 6, len(content), "a.png"), Bytes(content, "row 0")]
    assert read_headers(items) == [Header(9, 14, grey=False)] * 3
    for image in decode_all(None, "squash", items):
        assert not isinstance(image, str)
        np.testing.assert_array_equal(image[0], COLOUR.transpose(2, 0, 1))
        assert not image[1]
    assert str(items[1]) == f"{tmp_path / 'archive'}: a.png"


def broken_files(folder: Path) -> dict[str, Path]:
    sound = saved(folder, Image.fromarray(COLOUR), ".png").read_bytes()
    jpeg = saved(folder, Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), ".jpg").read_bytes()
    made = {
        "empty": (b"", "it holds no image of a known format"),
        "text": (b"<html>404</html>", "it holds no image of a known format"),
        "cut short": (sound[: len(sound) // 2], "truncated"),
        "cut jpeg": (jpeg[: len(jpeg) // 2], "truncated"),
        "huge": (deep_png(60000, 60000, b"", bits=8), "decompression bomb"),
    }
    for name, (content, _) in made.items():
        (folder / name).write_bytes(content)
    return {reason + f" ({name})": folder / name for name, (_, reason) in made.items()}


def test_rows_that_cannot_be_read_are_blank_and_named(tmp_path: Path) -> None:
    whole = saved(tmp_path, Image.fromarray(COLOUR), ".bmp")
    broken = broken_files(tmp_path) | {"No such file or directory (absent)": tmp_path / "absent"}
    storage = tmp_path / "rows.npy"
    np.save(storage, np.full((9, 3, 9, 14), 7, np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = decode_into(storage, "squash", None, (1, [whole, *broken.values(), whole]))
    rows = np.load(storage)
    assert (rows[[0, 8]] != 7).sum() == (rows[8] != 7).sum()
    for row in (1, 8):
        np.testing.assert_array_equal(rows[row].transpose(1, 2, 0), COLOUR)
    assert not rows[2:8].any()
    assert block.checksum == checksum(rows[1:])
    assert [(row, name) for row, name, _ in block.bad] == [(i, str(path)) for i, path in enumerate(broken.values(), 2)]
    for reason, (_, _, told) in zip(broken, block.bad, strict=True):
        assert reason.rpartition(" (")[0] in told
    assert read_headers([tmp_path / "empty", whole])[0] is None


def test_the_error_names_the_first_few_and_counts_them() -> None:
    bad = [Unreadable(row, f"{row}.png", "why") for row in range(5)]
    assert str(refuse(bad[:1], 9)) == "data.source: cannot read the image '0.png': why; data.skip_bad=true leaves it out"
    many = "('0.png': why; '1.png': why; '2.png': why; …); data.skip_bad=true leaves them out"
    assert str(refuse(bad, 9)) == f"data.source: cannot read 5 of 9 images {many}"
    assert "; …" not in str(refuse(bad[:3], 9))


def test_a_name_that_is_no_text_can_be_written_down(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(b"no image")
    storage = tmp_path / "one.npy"
    np.save(storage, np.zeros((1, 3, 8, 8), np.uint8))
    ((_, name, _),) = decode_into(storage, "squash", None, (0, [path])).bad
    assert name.encode().endswith(rb"/caf\udce9.png")
