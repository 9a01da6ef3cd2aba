"""Streams are decoded while they arrive, a few blocks at a time, and gone on with where they were broken off."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from data.pictures import png
from PIL import Image

from limbeck.data import stream_cache
from limbeck.data.settings import DataSettings
from limbeck.data.stream_cache import HEADER, Row, Stream, streamed
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (300, 8, 9), dtype=np.uint8)
COLOUR = rng.integers(0, 256, (300, 8, 9, 3), dtype=np.uint8)
FIRST_TEST = 170
ONE = DataSettings(workers=1)


def stream(files: list[bytes], key: str = "x", stop: int | None = None) -> tuple[Stream, list[int]]:
    """Two parts of a stream that breaks off before the row `stop`; and the rows that were asked for."""
    asked: list[int] = []

    def rows(reached: Mapping[str, int]) -> Iterator[Row]:
        for part, begin, end in (("train", 0, FIRST_TEST), ("test", FIRST_TEST, len(files))):
            for i in range(begin + reached.get(part, 0), end):
                if i == stop:
                    raise ConnectionResetError("the line is dead")
                asked.append(i)
                yield Row(part, i - begin + 1, files[i], i % 7)

    return Stream(key, rows), asked


def files(images: np.ndarray) -> list[bytes]:
    return [png(image) for image in images]


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_labels_and_parts(workers: int) -> None:
    source, asked = stream(files(COLOUR))
    held = streamed(source, replace(ONE, workers=workers), NoProgress())
    assert isinstance(held.images, np.memmap)
    np.testing.assert_array_equal(held.images, COLOUR.transpose(0, 3, 1, 2))
    assert held.labels == [i % 7 for i in range(300)]
    assert {part: (rows[0], rows[-1] + 1) for part, rows in held.parts.items()} == {"train": (0, 170), "test": (170, 300)}
    assert asked == list(range(300))
    again = streamed(source, replace(ONE, workers=workers), NoProgress())
    assert len(asked) == 300
    assert (again.content, again.labels) == (held.content, held.labels)


def test_grey_streams_have_one_channel_and_one_colour_image_makes_three() -> None:
    held = streamed(stream(files(GREY))[0], ONE, NoProgress())
    np.testing.assert_array_equal(held.images[:, 0], GREY)
    assert held.images.shape[1] == 1
    mixed = files(GREY[:-1]) + files(COLOUR[-1:])
    held = streamed(stream(mixed, "y")[0], ONE, NoProgress())
    assert held.images.shape == (300, 3, 8, 9)
    np.testing.assert_array_equal(held.images[7], np.broadcast_to(GREY[7], (3, 8, 9)))


@pytest.mark.parametrize("bad", [[], [5, 120]])
@pytest.mark.parametrize("images", [GREY, COLOUR])
@pytest.mark.parametrize("stop", [100, FIRST_TEST, 290])
def test_a_broken_stream_is_gone_on_with(cache: Path, images: np.ndarray, stop: int, bad: list[int]) -> None:
    content, settings = files(images), replace(ONE, skip_bad=True)
    for row in bad:
        content[row] = b"no image"
    with pytest.raises(ConnectionResetError):
        streamed(stream(content, stop=stop)[0], settings, NoProgress())
    (journal,) = cache.rglob("blocks.jsonl")
    kept = sum(len(json.loads(line)[1][2]) for line in journal.read_text().splitlines())
    assert 0 < kept < stop
    source, asked = stream(content)
    held = streamed(source, settings, NoProgress())
    assert asked == list(range(kept, 300))
    assert [(row, name) for row, name, _ in held.bad] == [(row, f"train {row}") for row in bad]
    sound = np.setdiff1d(np.arange(300), bad)
    np.testing.assert_array_equal(held.images[sound, 0], images.reshape(300, 8, 9, -1)[sound, :, :, 0])
    assert not held.images[bad].any()
    assert held.labels == [i % 7 for i in range(300)]


def test_a_damaged_block_is_asked_for_again(cache: Path) -> None:
    content = files(COLOUR)
    with pytest.raises(ConnectionResetError):
        streamed(stream(content, stop=290)[0], ONE, NoProgress())
    (storage,) = cache.rglob("images.npy")
    whole = bytearray(storage.read_bytes())
    whole[HEADER + 70 * 3 * 8 * 9] ^= 1  # in the second block, of 64 … 127
    storage.write_bytes(whole)
    source, asked = stream(content)
    held = streamed(source, ONE, NoProgress())
    assert asked == list(range(64, 300))
    np.testing.assert_array_equal(held.images, COLOUR.transpose(0, 3, 1, 2))


def test_a_changed_byte_of_the_whole_is_found(cache: Path) -> None:
    before = streamed(stream(files(COLOUR))[0], ONE, NoProgress())
    (storage,) = cache.rglob("images.npy")
    whole = bytearray(storage.read_bytes())
    whole[-1] ^= 1
    storage.write_bytes(whole)
    source, asked = stream(files(COLOUR))
    assert streamed(source, ONE, NoProgress()).content == before.content
    assert len(asked) == 300


def test_no_more_than_a_few_blocks_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    source, asked = stream(files(COLOUR))
    ahead = []
    original = stream_cache._stacked

    def noted(images: object, shape: object, first: int, block: list[Row]) -> object:
        ahead.append(len(asked) - first)
        return original(images, shape, first, block)  # type: ignore[arg-type]

    monkeypatch.setattr(stream_cache, "_stacked", noted)
    streamed(source, ONE, NoProgress())
    assert max(ahead) <= 64


def test_images_that_cannot_be_read(cache: Path) -> None:
    content = files(COLOUR)
    content[5] = content[200] = b"no image"
    with pytest.raises(UsageError, match=r"cannot read 2 of 300 images \('train 5': it holds .*; 'test 30': it holds "):
        streamed(stream(content)[0], ONE, NoProgress())
    source, asked = stream(content)
    held = streamed(source, replace(ONE, skip_bad=True), NoProgress())
    assert asked == []  # the rest is kept
    assert [row for row, _, _ in held.bad] == [5, 200]
    assert not held.images[[5, 200]].any()


def test_sizes(cache: Path) -> None:
    content = files(COLOUR[:100]) + files(COLOUR[100:101, :5]) + files(COLOUR[101:])
    message = r"^data\.size: None does not bring images of several sizes together \(8×9, 'train 100' 5×9\); give \[height, width\]$"
    with pytest.raises(UsageError, match=message):
        streamed(stream(content)[0], ONE, NoProgress())
    assert list(cache.rglob("*.npy")) == []
    held = streamed(stream(content)[0], replace(ONE, size=8), NoProgress())
    assert held.images.shape == (300, 3, 8, 8)
    other = streamed(stream(content)[0], replace(ONE, size=8, crop="centre"), NoProgress())
    assert other.content != held.content


def test_an_empty_stream() -> None:
    with pytest.raises(UsageError, match="holds no image of the classes that are asked for"):
        streamed(Stream("none", lambda _: []), ONE, NoProgress())


def test_images_of_more_than_eight_bits_are_asked_for_again_when_their_range_is_known(cache: Path) -> None:
    deep = rng.integers(500, 3000, (300, 8, 9)).astype(np.uint16)
    deep[2, 0, 0], deep[299, 0, 0] = 400, 3100
    mixed = files(GREY[:150]) + [png(image) for image in deep[150:]]
    mixed[2] = png(deep[2])
    for stop in (100, 290, None):
        source, asked = stream(mixed, stop=stop)
        with suppress(ConnectionResetError):
            held = streamed(source, ONE, NoProgress())
    assert held.levels == (400, 3100)
    expected = np.rint((deep - 400.0) / 2700 * 255)
    plain = [i for i in range(150) if i != 2]
    np.testing.assert_array_equal(held.images[plain, 0], GREY[plain])
    np.testing.assert_array_equal(held.images[[2, *range(150, 300)], 0], expected[[2, *range(150, 300)]])
    assert held.notes[0].startswith("note: 151 of 300 images have more than 8 bits and numbers from 400 to 3100")
    before = len(asked)
    assert streamed(source, replace(ONE, range=(400, 3100)), NoProgress()).content == held.content
    assert len(asked) == before
    given = streamed(source, replace(ONE, range=4095), NoProgress())
    assert len(asked) == before + 300  # once is enough
    np.testing.assert_array_equal(given.images[150:, 0], np.rint(deep[150:] / 4095 * 255))


def test_losses_of_a_stream_are_said(cache: Path) -> None:
    clear = Image.fromarray(np.concatenate([COLOUR[0], COLOUR[0][..., :1] // 2], 2))
    clear.save(buffer := BytesIO(), "PNG")
    held = streamed(stream([*files(COLOUR[:170]), *[buffer.getvalue()] * 5])[0], ONE, NoProgress())
    assert held.notes == ["warning: 5 of 175 images are transparent: laid on white (test 0, test 1, test 2, …)"]
