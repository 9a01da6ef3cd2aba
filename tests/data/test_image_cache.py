"""The cache of decoded images: used again, verified, gone on with, and honest about what it could not read."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data.pictures import Said, fill, load, picture, refused
from PIL import Image

from limbeck.data import image_cache
from limbeck.data.decode import DecodedPart
from limbeck.data.image_cache import decoded
from limbeck.data.levels import Levels
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.progress import NoProgress

ONE = DataSettings(workers=1)

rng = np.random.default_rng(0)


def test_the_cache_is_used_again_and_follows_the_files(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "set", a=5, b=5)
    decoded = []
    original = image_cache.decode_into
    monkeypatch.setattr(image_cache, "decode_into", lambda *given: decoded.append(len(given[-1][1])) or original(*given))
    first = load(root)
    assert isinstance(first.train.storage, np.memmap)
    assert not first.train.storage.flags.writeable
    again = load(root)
    assert decoded == [10]
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.train.images(), first.train.images())

    load(root, size=8)
    assert decoded == [10, 10]  # another size is another array
    shutil.copytree(root, tmp_path / "copy")
    assert load(tmp_path / "copy").fingerprint == first.fingerprint  # the fingerprint is of the content, wherever it lies
    assert decoded == [10] * 3

    state = (root / "a" / "000.png").stat()
    os.utime(root / "a" / "000.png", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert load(root).fingerprint == first.fingerprint
    picture(root / "a" / "000.png")
    assert load(root).fingerprint != first.fingerprint
    assert decoded == [10] * 5


def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache: Path) -> None:
    root = fill(tmp_path / "set", a=5, b=5)
    first = load(root)
    before = first.test.images()
    (storage,) = cache.rglob("images.npy")
    for damage in (storage.read_bytes()[:-50], b""):
        storage.write_bytes(damage)
        again = load(root)
        assert again.fingerprint == first.fingerprint
        np.testing.assert_array_equal(again.test.images(), before)
    (storage.parent / "content.json").unlink()
    assert load(root).fingerprint == first.fingerprint


def test_several_processes_decode_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "set", a=150, b=10)
    alone = load(root, workers=1)
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "other"))
    assert load(root, workers=3).fingerprint == alone.fingerprint


def test_a_cache_of_another_shape_is_made_anew(tmp_path: Path, cache: Path) -> None:
    root = fill(tmp_path / "set", a=5, b=5)
    before = load(root).test.images()
    (storage,) = cache.rglob("images.npy")
    for foreign in (np.zeros((10, 3)), np.zeros((10, 3, 10, 12))):
        np.save(storage, foreign)
        np.testing.assert_array_equal(load(root).test.images(), before)


def pictures(folder: Path, count: int = 200) -> list[Path]:
    """Small grey images, so many that there are several blocks."""
    folder.mkdir()
    paths = [folder / f"{i:03}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return paths


KILLED = """
import sys, time
from pathlib import Path
from limbeck.data import image_cache
from limbeck.data.decode import decode_into
from limbeck.data.settings import DataSettings
from limbeck.runtime.progress import NoProgress

def slowly(storage, crop, levels, piece):
    if piece[0] >= 128:
        print("two blocks are done", flush=True)
        time.sleep(60)
    return decode_into(storage, crop, levels, piece)

image_cache.decode_into = slowly
image_cache.decoded(sorted(Path(sys.argv[1]).iterdir()), DataSettings(workers=int(sys.argv[2])), NoProgress())
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_is_gone_on_with(tmp_path: Path, cache: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path / "set")
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "set"), str(workers)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline().startswith("two blocks")  # two workers may print at once
    while len((journal := next((cache / "images").glob(".*.part/blocks.jsonl"))).read_text().splitlines()) < 2:
        time.sleep(0.01)
    run.kill()
    run.wait()
    run.stdout.read()  # returns when the processes it started have ended, too
    run.stdout.close()
    again = []
    original = image_cache.decode_into

    def counted(storage: Path, crop: str, levels: Levels | None, piece: tuple[int, list[Path]]) -> DecodedPart:
        again.append(piece[0])
        return original(storage, crop, levels, piece)

    monkeypatch.setattr(image_cache, "decode_into", counted)
    first, _ = journal.read_text().splitlines()
    journal.write_text(first + "\n" + "[64, 64, 12")  # the second block's line is torn, and noted again
    images = decoded(paths, ONE, NoProgress())[0]
    assert again == [64, 128, 192]
    for row, path in enumerate(paths):
        np.testing.assert_array_equal(images[row, 0], np.asarray(Image.open(path)))
    assert list((cache / "images").glob(".*.part")) == []


def test_a_block_that_does_not_match_its_checksum_is_decoded_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, finish = pictures(tmp_path / "set"), image_cache.finish
    monkeypatch.setattr(image_cache, "finish", lambda *_: (_ for _ in ()).throw(Failure("no electricity")))
    with pytest.raises(Failure, match="no electricity"):
        decoded(paths, ONE, NoProgress())
    monkeypatch.setattr(image_cache, "finish", finish)
    (part,) = (cache / "images").glob(".*.part")
    images = np.load(part / "images.npy", mmap_mode="r+")
    images[70] ^= 1  # in the second block
    images.flush()
    again = []
    original = image_cache.decode_into
    monkeypatch.setattr(image_cache, "decode_into", lambda *all: again.append(all[3][0]) or original(*all))
    images = decoded(paths, ONE, NoProgress())[0]
    assert again == [64]
    np.testing.assert_array_equal(images[70, 0], np.asarray(Image.open(paths[70])))


def test_a_folder_goes_by_what_the_images_are(tmp_path: Path, cache: Path) -> None:
    """So that what users have decoded is found again."""
    paths = pictures(tmp_path / "set", 3)
    states = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    for sides, crop, key in ((None, "squash", []), (None, "centre", []), ((8, 9), "squash", []), ((8, 9), "centre", ["centre"])):
        decoded(paths, replace(ONE, size=sides, crop=crop), NoProgress())
        assert (cache / "images" / fingerprint(2, sides, states, *key) / "images.npy").exists()
    assert len(list((cache / "images").glob("*/images.npy"))) == 3


def test_a_changed_byte_is_found_and_mended(tmp_path: Path, cache: Path) -> None:
    paths = pictures(tmp_path / "set", 5)
    before = decoded(paths, ONE, NoProgress())
    pixels = before.images.copy()
    (storage,) = cache.rglob("images.npy")
    whole = bytearray(storage.read_bytes())
    whole[-3] ^= 16
    storage.write_bytes(whole)
    after = decoded(paths, ONE, NoProgress())
    np.testing.assert_array_equal(after.images, pixels)
    assert after.content == before.content


def test_a_cache_that_was_moved_is_verified_and_taken(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path / "set", 5)
    before = decoded(paths, ONE, NoProgress())
    (noted,) = cache.rglob("content.json")
    os.utime(noted.parent / "images.npy")
    monkeypatch.setattr(image_cache, "_fill", lambda *_: pytest.fail("it is decoded already"))
    assert decoded(paths, ONE, NoProgress()).content == before.content
    assert json.loads(noted.read_text())["file"] == list(image_cache.file_state(noted.parent))
    monkeypatch.setattr(image_cache, "array_fingerprint", lambda *_: pytest.fail("it is verified already"))
    assert decoded(paths, ONE, NoProgress()).content == before.content
    os.utime(noted.parent / "images.npy")
    with pytest.raises(pytest.fail.Exception, match="verified already"):
        decoded(paths, ONE, NoProgress())


@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_images_are_named_and_counted(tmp_path: Path, workers: int) -> None:
    root = fill(tmp_path, a=70, b=70)
    broken = root / "b" / "001.png"
    whole = broken.read_bytes()
    for damage, reason in ((b"no image", "it holds no image of a known format"), (whole[: len(whole) // 2], "truncated")):
        broken.write_bytes(damage)
        message = refused(root, workers=workers)
        assert message.startswith(f"data.source: cannot read the image '{broken}': ")
        assert reason in message
        assert message.endswith("; data.skip_bad=true leaves it out")
    broken.unlink()
    broken.symlink_to(root / "gone.png")
    assert "'" + str(broken) + "': No such file or directory" in refused(root)
    for i in range(4):
        (root / "a" / f"{i:03}.png").write_bytes(b"")
    assert refused(root).startswith("data.source: cannot read 5 of 140 images ('")


def test_skipped_images_are_said_and_left_out(tmp_path: Path, cache: Path) -> None:
    root = fill(tmp_path / "set", train__a=6, train__b=5, test__a=3, test__b=2)
    sound = load(root, val_fraction=0)
    for name in ("train/a/000.png", "train/a/003.png", "test/b/001.png"):
        (root / name).write_bytes(b"GIF89a broken")
    said = Said()
    made = load_data(DataSettings(source=str(root), val_fraction=0, skip_bad=True, workers=1), said)
    assert [np.bincount(split.labels).tolist() for split in (made.train, made.test)] == [[4, 5], [3, 1]]
    (line,) = said.lines
    assert line.startswith("skipped 3 of 16 images, which cannot be read: '")
    assert all(name in line for name in ("train/a/000.png", "train/a/003.png", "test/b/001.png"))
    left = [i for i in range(11) if i not in (0, 3)]
    np.testing.assert_array_equal(made.train.images(), sound.train.images(np.array(left)))
    (noted,) = [path for path in cache.rglob("content.json") if "known format" in path.read_text()]
    assert len(json.loads(noted.read_text())["bad"]) == 3
    assert refused(root, val_fraction=0).startswith(
        "data.source: cannot read 3 of 16 images ("
    )  # it is in the cache, and still refused


def test_a_class_whose_images_are_all_unreadable_is_refused(tmp_path: Path) -> None:
    root = fill(tmp_path, train__a=2, train__b=2, test__a=1, test__b=1)
    for i in range(2):
        (root / "train" / "b" / f"00{i}.png").write_bytes(b"")
    message = f"data.source: '{root}' has no training image that can be read of class 1 ('b')"
    assert refused(root, skip_bad=True, val_fraction=0) == message
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    assert refused(root, skip_bad=True, size=8).startswith("data.source: cannot read 6 of 6 images (")


def test_what_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "set", 5)
    state, whole = paths[2].stat(), paths[2].read_bytes()
    paths[2].write_bytes(b"\0" * len(whole))  # such as a disk that is away: neither size nor time of change tell
    os.utime(paths[2], ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(UsageError, match="cannot read the image"):
        decoded(paths, ONE, NoProgress())
    assert [row for row, _, _ in decoded(paths, replace(ONE, skip_bad=True), NoProgress()).bad] == [2]
    paths[2].write_bytes(whole)
    os.utime(paths[2], ns=(state.st_atime_ns, state.st_mtime_ns))
    found = decoded(paths, ONE, NoProgress())
    assert found.bad == []
    np.testing.assert_array_equal(found.images[2, 0], np.asarray(Image.open(paths[2])))


def test_headers_are_read_no_further_than_they_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path / "set")
    picture(paths[100])
    read = []
    original = image_cache.read_headers
    monkeypatch.setattr(image_cache, "read_headers", lambda items: read.append(len(items)) or original(items))
    assert decoded(paths, replace(ONE, size=8), NoProgress())[0].shape == (200, 3, 8, 8)
    assert read == [64, 64]  # the first image in colour is in the second block
    with pytest.raises(UsageError, match=r"^data\.size: None does not bring images of several sizes together"):
        decoded(paths, ONE, NoProgress())
    assert read == [64, 64] + [64, 64, 64, 8]


def test_a_full_disk_is_told_before_it_is_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path / "set", 3)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(UsageError, match=r"^LIMBECK_CACHE: decoded images need .* in .*LIMBECK_CACHE"):
        decoded(paths, ONE, NoProgress())


def test_a_killed_run_goes_on_with_images_of_more_than_eight_bits(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is killed: before it is known what is black and white, and after some blocks were decoded by that."""
    (tmp_path / "set").mkdir()
    values = rng.integers(500, 3000, (140, 8, 8)).astype(np.uint16)
    values[3, 0, 0], values[135, 0, 0] = 400, 3100
    paths = [tmp_path / "set" / f"{i:03}.png" for i in range(140)]
    for path, value in zip(paths, values, strict=True):
        Image.fromarray(value).save(path)
    original, calls = image_cache.decode_into, list[int]()

    def killed(*given: object) -> DecodedPart:
        calls.append(given[3][0])  # type: ignore[index]
        if len(calls) in (3, 6):
            raise Failure("no electricity")
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(image_cache, "decode_into", killed)
    for _ in range(2):
        with pytest.raises(Failure, match="no electricity"):
            decoded(paths, ONE, NoProgress())
    found = decoded(paths, ONE, NoProgress())
    assert calls == [0, 64, 128, 128, 0, 64, 64, 128]  # three blocks, the third anew; all of them again, the second anew
    assert found.levels == (400, 3100)
    np.testing.assert_array_equal(found.images[:, 0], np.rint((values - 400.0) / 2700 * 255))
