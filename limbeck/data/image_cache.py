"""Decoded images, kept as one memory-mapped array (N, C, H, W) per list of images (paths, sizes, times of change) and size.

It is made in blocks, each noted with its checksum in a journal, so that a run that was killed goes on. Every process verifies the
whole when it opens it, and makes it anew where it is not what was written. Images that cannot be read are blank rows, listed in
`content.json` and tried every time.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from limbeck.data.content import CONTENT, Content, journal_line, read_journal
from limbeck.data.decode import (
    CHUNK,
    Bytes,
    DecodedPart,
    Header,
    Item,
    Lost,
    Unreadable,
    checksum,
    decode_all,
    decode_into,
    notes_on,
    read_headers,
    refuse,
)
from limbeck.data.levels import Levels, Span, found_levels, say, wanted_levels
from limbeck.data.resize import wanted_sides
from limbeck.data.settings import DataSettings
from limbeck.runtime.disk import FULL, allocate, free, in_words, naming, why
from limbeck.runtime.errors import UsageError
from limbeck.runtime.executor import spread
from limbeck.runtime.files import write_json, write_text
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.kept import cache_root, elsewhere, get, say_damaged, unusable_cache
from limbeck.runtime.leftovers import passing_folder
from limbeck.runtime.progress import Progress
from limbeck.runtime.sealed import Damaged

FORMAT = 2  # counts up when the same files would be decoded to other pixels


class Decoded(NamedTuple):
    """Decoded images.

    Args:
        images: uint8 with shape (N, C, H, W), memory-mapped, C = 1 where no image has colour and 3 otherwise.
        content: their `array_fingerprint`.
        bad: those that cannot be read; their rows are blank.
        levels: what is black and white in those of more than eight bits; None where there are none.
        notes: what is to be said of them.
        beyond: see `Content`.
    """

    images: np.ndarray
    content: str
    bad: list[Unreadable]
    levels: Levels | None = None
    notes: Sequence[str] = ()
    beyond: str | None = None


def decoded(items: Sequence[Item], settings: DataSettings, progress: Progress, listed: Sequence[Item] = ()) -> Decoded:
    """The images, from the cache or put there now.

    Args:
        items: at least one.
        settings: `size`, to bring all to (None wants them to have one size already), `crop`, `range`, `skip_bad` and `workers`.
        progress: where the decoding reports, and what is skipped or lost is said.
        listed: all images of the source, over which it is found what is black and white, where `range` does not say it and some of
            the items have more than eight bits: only then the others are looked at.

    Raises:
        UsageError: when sizes differ and `size` is None, when no image can be read, or, without `skip_bad`, when one cannot; the
            message names the first few and how many there are. When the disk is too small.
    """
    place = usable_place(partial(_place, items), settings, lambda place: _open(place, len(items)))

    @cache
    def others() -> list[Item]:
        own = set(items)
        return [item for item in listed if item not in own]

    def sound() -> Decoded | None:
        held = _open(place, len(items))
        if held is not None and held.levels is not None and settings.range is None and held.beyond != _named(others()):
            return None
        # One that could not be read can perhaps be by now: a disk may have been away.
        again = [] if held is None else decode_all(None, "squash", [items[row] for row, _, _ in held.bad])
        return held if all(isinstance(one, str) for one in again) else None

    held = get(place, sound, lambda: _fill(place, items, settings, progress, others))
    report(held.bad, len(items), settings.skip_bad, place, progress)
    say(held.notes, settings.source, progress)
    return held


def glimpsed(
    items: Sequence[Item], few: int | None, settings: DataSettings, progress: Progress, listed: Sequence[Item]
) -> tuple[Decoded, np.ndarray]:
    """The images, and the row of each; unless they are in the cache, only `few` (None: all), which the others share."""
    if few is None or few >= len(items) or _open(_place(items, settings), len(items), whole=False) is not None:
        return decoded(items, settings, progress, listed), np.arange(len(items))
    chosen = np.arange(few) * len(items) // few
    with passing_folder() as folder, elsewhere(folder):
        held = decoded([items[int(i)] for i in chosen], settings, progress)
        held = held._replace(images=np.array(held.images))
    return held, np.searchsorted(chosen, np.arange(len(items)), side="right") - 1


def report(bad: Sequence[Unreadable], total: int, skip_bad: bool, place: Path, progress: Progress) -> None:
    """Say which images are skipped.

    Raises:
        UsageError: when they may not be, or none is left.
    """
    if bad and (not skip_bad or len(bad) == total):
        raise refuse(bad, total)
    if bad:
        shown = "; ".join(f"'{name}': {reason}" for _, name, reason in bad[:3])
        where = f"; … all of them in {place / 'content.json'}" if len(bad) > 3 else ""
        progress.say(f"skipped {len(bad)} of {total} images, which cannot be read: {shown}{where}")


def _place(items: Sequence[Item], settings: DataSettings) -> Path:
    sides = wanted_sides(settings)
    centre = [settings.crop] if sides and settings.crop != "squash" else []
    given = [] if (levels := wanted_levels(settings)) is None else [list(levels)]
    return cache_root() / "images" / fingerprint(FORMAT, sides, _identities(items), *centre, *given)


def usable_place(place_of: Callable[[DataSettings], Path], settings: DataSettings, opened: Callable[[Path], Any], /) -> Path:
    """Where images are kept, or will be: where no range was given, too, if they came out as with the one that is given."""
    if settings.range is not None:
        plain = place_of(replace(settings, range=None))
        held = opened(plain)
        if held is not None and held.levels in (None, wanted_levels(settings)):
            return plain
    return place_of(settings)


def _identities(items: Iterable[Item]) -> Iterator[tuple[Any, ...]]:
    """What tells an image from others and from its own later self: path, size, time of change, and where in an archive."""
    of = cache(identity)  # of an archive
    for item in items:
        assert not isinstance(item, Bytes), "what is held in memory goes into a cache of its own"
        yield identity(item) if isinstance(item, Path) else (*of(item.archive), item.offset, item.size)


def _named(others: Sequence[Item]) -> str | None:
    return fingerprint(_identities(others)) if others else None


def identity(path: Path) -> tuple[Any, ...]:
    """Path, size in bytes and time of change of a file; the path alone where there is none."""
    try:
        state = path.stat()
    except (OSError, ValueError):  # or none can be called so
        return (str(path),)
    return str(path), state.st_size, state.st_mtime_ns


def _open(place: Path, count: int, *, whole: bool = True) -> Decoded | None:
    """What is there; None where nothing is, or something else, or something damaged, which is said.

    Not `whole`, pixels are only verified where the file's size or time of change is another one than it was.
    """
    try:
        described = Content.of(place)
        if described is None:
            return None
        images = mapped(place / "images.npy")
        fits = images.dtype == np.uint8 and images.ndim == 4 and len(images) == count
        if not fits or not is_sound(place, described, images, whole=whole):
            raise Damaged("it is not what was written")
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        say_damaged(place)
        return None
    return Decoded(images, described.content, described.unreadable, described.range, described.notes, described.beyond)


def is_sound(place: Path, described: Content, images: np.ndarray, *, whole: bool = True) -> bool:
    """Whether the array there is the one that `content.json` describes: all its bytes are looked at, once by a process."""
    state = file_state(place)
    now = (str(place), *state)
    if now in _sound or (not whole and described.file == state):
        return True
    if array_fingerprint(images) != described.content:
        return False
    _sound.add(now)
    if described.file != state:
        with suppress(OSError):  # a cache that others own is read all the same
            write_json(place / "content.json", replace(described, file=state), CONTENT, place.name)
    return True


_sound = set[tuple[str, int, int]]()  # arrays that this process has verified: where they are, and their files' states


def mapped(path: Path) -> np.ndarray:
    """The array in a file of ours, memory-mapped.

    Raises:
        OSError: when there is none.
        Damaged: when it is broken.
    """
    try:
        found: np.ndarray = np.load(path, mmap_mode="r")
    except OSError:
        raise
    except Exception as error:  # a header can be broken in many ways
        raise Damaged("it is no array") from error
    return found


def file_state(place: Path) -> tuple[int, int]:
    """Size and time of change of the array's file, by which it is known to be the one that was verified."""
    state = (place / "images.npy").stat()
    return state.st_size, state.st_mtime_ns


def _fill(
    place: Path, items: Sequence[Item], settings: DataSettings, progress: Progress, others: Callable[[], Sequence[Item]]
) -> None:
    """Decode into a folder beside `place`, going on where a killed run stopped, and give it the name when it is whole."""
    part = place.with_name(f".{place.name}.part")
    pieces = [(start, items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]
    storage, journal = part / "images.npy", part / "blocks.jsonl"
    done = _done_before(part, len(items))
    if done is None:
        shutil.rmtree(part, ignore_errors=True)
        shape = _shape(items, pieces, settings, progress)
        set_aside(storage, shape)
        done = {}
    write_text(journal, "".join(map(journal_line, done.values())))
    given, ready = wanted_levels(settings), sum(block.size for block in done.values())
    with naming(journal), journal.open("a", encoding="utf-8") as notes:

        def decode(which: Iterable[tuple[int, Sequence[Item]]], levels: Levels | None, name: str, ready: int, total: int) -> None:
            with (
                spread(partial(decode_into, storage, settings.crop, levels), which, settings.workers) as blocks,
                progress.stage(name, total, ready) as stage,
            ):
                for block in blocks:
                    notes.write(journal_line(block))
                    notes.flush()
                    done[block.first] = block
                    stage.advance(block.size)

        decode([piece for piece in pieces if piece[0] not in done], given, "images", ready, len(items))
        spans = [span for first in sorted(done) for span in done[first].spans]
        beyond = others() if spans and given is None else []
        further = _spans_of(beyond, settings, progress) if beyond else []
        levels = (given or found_levels([*spans, *further])) if spans else None
        # Only now is it known what is black and white in those of more than eight bits.
        if again := [piece for piece in pieces if done[piece[0]].spans and done[piece[0]].levels != levels]:
            decode(again, levels, "images of more than 8 bits", 0, sum(len(part) for _, part in again))
    blocks = [done[first] for first in sorted(done)]
    lost = [one for block in blocks for one in block.lost]
    told = notes_on(lost, spans, levels, len(items), given is not None)
    finish(part, place, [row for block in blocks for row in block.bad], levels, told, _named(beyond))


def _spans_of(items: Sequence[Item], settings: DataSettings, progress: Progress) -> list[Span]:
    """How far those images reach that have more than eight bits; those that cannot be read are left aside."""
    found, pieces = list[Span](), [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    with (
        spread(partial(decode_all, (1, 1), "squash"), pieces, settings.workers) as parts,
        progress.stage("range of all images", len(items)) as stage,
    ):
        for part in parts:
            found += [image.span for image in part if not isinstance(image, str) and image.span]
            stage.advance(len(part))
    return found


def finish(
    part: Path, place: Path, bad: Sequence[Unreadable], levels: Levels | None, notes: Sequence[str], beyond: str | None = None
) -> None:
    """Make the folder `part`, which holds all images in `images.npy`, the folder `place`."""
    with (part / "images.npy").open("rb") as file:
        os.fsync(file.fileno())
    content = array_fingerprint(np.load(part / "images.npy", mmap_mode="r"))
    described = Content(content, file_state(part), tuple(bad), levels, tuple(notes), beyond)
    write_json(part / "content.json", described, CONTENT, place.name)
    (part / "blocks.jsonl").unlink()
    shutil.rmtree(place, ignore_errors=True)  # it is damaged, and nobody else is here: the lock is held
    os.replace(part, place)


def _done_before(part: Path, count: int) -> dict[int, DecodedPart] | None:
    """The blocks, by their first row, that a killed run has left sound; None where it has left no array to go on with."""
    try:
        images = mapped(part / "images.npy")
    except (OSError, ValueError, EOFError):
        return None
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != count:
        return None
    done = {}
    for first, size, check, bad, lost, spans, levels in read_journal(part / "blocks.jsonl"):
        if not bad and checksum(images[first : first + size]) == check:  # what could not be read is tried again
            found = [Lost(*one) for one in lost], [Span(*span) for span in spans], levels and Levels(*levels)
            done[first] = DecodedPart(first, size, check, [], *found)
    return done


def _shape(
    items: Sequence[Item], pieces: Sequence[tuple[int, Sequence[Item]]], settings: DataSettings, progress: Progress
) -> tuple[int, int, int, int]:
    """(N, C, H, W) of the array to be: three channels as soon as one image has colour, and the sides that all have in common."""
    sides, headers = wanted_sides(settings), read_headers(pieces[0][1])
    if sides is None or not _any_colour(headers):  # else nothing depends on the other headers, and a million files stay closed
        rest = [piece for _, piece in pieces[1:]]
        with spread(read_headers, rest, settings.workers) as found, progress.stage("headers", len(items), len(headers)) as stage:
            for part in found:
                headers += part
                stage.advance(len(part))
                if sides is not None and _any_colour(part):
                    break
    channels = 3 if _any_colour(headers) else 1
    return (len(items), channels, *(sides or _common_sides(items, headers)))


def _any_colour(headers: Iterable[Header | None]) -> bool:
    return any(header is not None and not header.grey for header in headers)


def _common_sides(items: Sequence[Item], headers: Sequence[Header | None]) -> tuple[int, int]:
    sound = [(item, header) for item, header in zip(items, headers, strict=True) if header is not None]
    if not sound:
        return 1, 1  # no image can be read: decoding lists why
    first, (height, width, _) = sound[0]
    for item, other in sound:
        if (other.height, other.width) != (height, width):
            sizes = f"'{first}' is {height}×{width}, '{item}' {other.height}×{other.width}"
            raise UsageError(f"data.size: None does not bring images of several sizes together ({sizes}); give [height, width]")
    return height, width


def set_aside(storage: Path, shape: tuple[int, ...]) -> None:
    """Make the .npy file of an array of zeros, with room on the disk for all of it.

    Raises:
        UsageError: when the disk is too small, or cannot be written to; nothing is left there then.
    """
    size = int(np.prod(shape))
    try:
        storage.parent.mkdir(parents=True)
        check_room(storage.parent, size)
        with storage.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            begin = file.tell()
            file.flush()
            allocate(file.fileno(), begin + size)
    except (OSError, UsageError) as error:
        shutil.rmtree(storage.parent, ignore_errors=True)
        if isinstance(error, UsageError):
            raise
        raise _too_small(storage.parent, size, why(error)) if error.errno in FULL else unusable_cache(error) from error


def check_room(folder: Path, size: int) -> None:
    """Raise `UsageError` when less than `size` bytes are free for decoded images."""
    if (left := free(folder)) < size:
        raise _too_small(folder, size, f"where {in_words(left)} are free")


def _too_small(folder: Path, size: int, reason: str) -> UsageError:
    wanted = f"LIMBECK_CACHE: decoded images need {in_words(size)} in {folder}, {reason}"
    return UsageError(f"{wanted}: set $LIMBECK_CACHE to a larger place, or a smaller data.size")
