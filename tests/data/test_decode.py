"""How image files of every kind become pixels, and what happens when the processes that decode them die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limbeck.data.decode import ORIENTATION, Header, decode_into, read_headers, spread
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import Failure, UsageError

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (9, 14), dtype=np.uint8)
COLOUR = rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)


def pixels(path: Path, channels: int = 3, sides: tuple[int, int] = (9, 14)) -> np.ndarray:
    """What `decode_into` makes of a file, as (H, W, C)."""
    storage = path.parent / "one.npy"
    np.save(storage, np.zeros((2, channels, *sides), np.uint8))
    assert decode_into(storage, (1, [path])) == 1
    written = np.load(storage)
    assert not written[0].any()
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


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path, suffix: str) -> None:
    deep = GREY.astype(np.uint16) * 256 + 200
    path = saved(tmp_path, Image.fromarray(deep), suffix)
    assert read_headers([path])[0].grey
    np.testing.assert_array_equal(pixels(path, channels=1)[..., 0], GREY)


def test_floats_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(GREY.astype(np.float32)), ".tif")
    with pytest.raises(UsageError, match=r"cannot read the image '.*': its pixels are floats"):
        pixels(path)


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


def double(number: int) -> int:
    return 2 * number


def pid(_: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def die(_: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def refuse(number: int) -> int:
    if number % 2:
        raise UsageError(f"data.source: {number}")
    return number


def test_spread_keeps_the_order_and_uses_the_processes() -> None:
    with spread(double, range(20), 3) as results:
        assert list(results) == list(range(0, 40, 2))
    with spread(pid, range(8), 2) as results:
        assert len(set(results) - {os.getpid()}) == 2
    for pieces, workers in ((range(8), 1), (range(1), 4)):
        with spread(pid, pieces, workers) as results:
            assert set(results) == {os.getpid()}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_comes_through(workers: int) -> None:
    with pytest.raises(UsageError, match=r"^data\.source: 1$"), spread(refuse, range(9), workers) as results:
        list(results)


def test_a_killed_process_is_a_failure() -> None:
    with (
        pytest.raises(Failure, match=r"^data\.workers: a process that decodes images was killed"),
        spread(die, range(4), 2) as results,
    ):
        list(results)


KILLED = """
import sys, time
from limbeck.data import image_cache
from limbeck.data.decode import decode_into
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings

def slowly(storage, piece):
    decode_into(storage, piece)
    print("decoded", flush=True)
    time.sleep(60)

image_cache.decode_into = slowly
load_data(DataSettings(source=sys.argv[1], workers=2))
"""


def test_a_killed_run_leaves_neither_a_broken_cache_nor_a_lock(tmp_path: Path, cache: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(70):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "set" / name / f"{i}.png")
    source = str(tmp_path / "set")
    run = subprocess.Popen([sys.executable, "-c", KILLED, source], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline().startswith("decoded")  # two workers may print at once
    run.kill()
    run.wait()
    run.stdout.read()  # returns when the processes it started have ended, too
    run.stdout.close()
    assert len(list((cache / "images").glob(".*.part"))) == 1
    made = load_data(DataSettings(source=source, workers=1))
    assert made.shape == (1, 8, 8)
    assert made.train.images().float().std() > 60
    assert list((cache / "images").glob(".*.part")) == []


def test_a_file_that_may_not_be_read_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_open(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("PIL.Image.open", refuse_to_open)
    with pytest.raises(UsageError) as caught:
        read_headers([tmp_path / "a.png"])
    assert str(caught.value) == f"data.source: cannot read the image '{tmp_path / 'a.png'}': Permission denied"


def interrupted(number: int) -> int:
    os.kill(os.getpid(), signal.SIGINT)
    return number


def test_ctrl_c_is_left_to_the_parent() -> None:
    with spread(interrupted, range(4), 2) as results:
        assert list(results) == [0, 1, 2, 3]
