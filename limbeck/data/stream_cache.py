"""Decoded images of a stream that is too large, or too far away, to be listed first: rows are decoded while they arrive.

    images.npy      (N, C, H, W), written row after row; its header says how many there are once the stream has ended
    blocks.jsonl    while it is made: a line per block, how far into which part of the stream it reaches, labels, checksum
    rows.json       when it is whole: labels, and how many rows each part has

A run that was killed skips what is there already. No more than a few blocks are ever in memory.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from limbeck.data.content import Content, journal_line, read_journal
from limbeck.data.decode import CHUNK, Bytes, Lost, Unreadable, Whole, checksum, decode_all, notes_on, row_shape, together
from limbeck.data.image_cache import check_room, finish, is_sound, mapped, report, usable_place
from limbeck.data.levels import Levels, Span, found_levels, say, wanted_levels
from limbeck.data.resize import wanted_sides
from limbeck.data.settings import DataSettings
from limbeck.runtime.disk import naming
from limbeck.runtime.errors import UsageError
from limbeck.runtime.executor import spread
from limbeck.runtime.files import read_json, write_json, write_text
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.kept import cache_root, get, say_damaged
from limbeck.runtime.progress import Progress
from limbeck.runtime.sealed import Damaged, FileKind

ROWS = FileKind("rows of a stream")
FORMAT = 2
HEADER = 128  # bytes of an .npy header for arrays of this kind, however many rows there are

Label = int | str


class Row(NamedTuple):
    """One image of a stream.

    Args:
        part: of the stream, such as `train`.
        position: how many rows of the part there are up to this one, those that were passed over included.
        content: the image file.
        label: its class, as the stream says it; None where it does not.
        flaw: why it cannot be used, where that is known before it is decoded.
    """

    part: str
    position: int
    content: bytes
    label: Label | None
    flaw: str = ""


class Note(NamedTuple):
    """A block that is written: see `Row`; `grey` is whether none of its images has colour, `bad` are those that cannot be read.

    `positions` are those of its rows; of `lost` and `spans` see `DecodedPart`.
    """

    part: str
    position: int
    labels: list[Label | None]
    checksum: int
    grey: bool
    bad: list[Unreadable]
    positions: list[int]
    lost: list[Lost]
    spans: list[Span]


@dataclass(frozen=True)
class Stream:
    """Where rows come from.

    Args:
        key: names the stream and its version: the same key gives the same rows.
        rows: the rows from the positions on that it is given by part; parts come one after the other.
        total: how many there are, for the progress; 0 where nobody knows.
    """

    key: str
    rows: Callable[[Mapping[str, int]], Iterable[Row]]
    total: int = 0


class Streamed(NamedTuple):
    """Decoded images of a stream, their `array_fingerprint`, labels, rows by part, and those that cannot be read (blank rows).

    `positions` are those of the rows in the stream; of `levels` and `notes` see `Decoded`.
    """

    images: np.ndarray
    content: str
    labels: list[Label | None]
    parts: dict[str, np.ndarray]
    bad: list[Unreadable]
    positions: list[int]
    levels: Levels | None
    notes: list[str]

    def names(self) -> Iterator[str]:
        """What the rows are called."""
        for part, rows in self.parts.items():
            for row in rows:
                yield _called(part, self.positions[row])


def streamed(stream: Stream, settings: DataSettings, progress: Progress) -> Streamed:
    """The images of a stream, from the cache or put there now; the other arguments and errors are those of `decoded`."""
    place = usable_place(partial(_place, stream), settings, _open)

    def make() -> None:
        part = place.with_name(f".{place.name}.part")
        try:
            _fill(place, part, stream, settings, progress)
        except UsageError:
            shutil.rmtree(part)  # to go on would end the same way
            raise

    held = get(place, lambda: _open(place), make)
    report(held.bad, len(held.images), settings.skip_bad, place, progress)
    say(held.notes, settings.source, progress)
    return held


def _place(stream: Stream, settings: DataSettings) -> Path:
    sides, crop = wanted_sides(settings), settings.crop
    given = [] if (levels := wanted_levels(settings)) is None else [list(levels)]
    return cache_root() / "images" / fingerprint("stream", FORMAT, stream.key, sides, crop if sides else "squash", *given)


def _open(place: Path) -> Streamed | None:
    try:
        described = Content.of(place)
        if described is None:
            return None
        rows, images = read_json(place / "rows.json", ROWS, place.name), mapped(place / "images.npy")
        fits = len(images) == len(rows["labels"]) == len(rows["positions"]) == sum(rows["parts"].values())
        if not fits or not is_sound(place, described, images):
            raise Damaged("it is not what was written")
        ends = np.cumsum(list(rows["parts"].values()))
        parts = {part: np.arange(end - count, end) for (part, count), end in zip(rows["parts"].items(), ends, strict=True)}
        of_images = (images, described.content, rows["labels"], parts, described.unreadable, rows["positions"])
        return Streamed(*of_images, described.range, list(described.notes))
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        say_damaged(place)
        return None


def _fill(place: Path, part: Path, stream: Stream, settings: DataSettings, progress: Progress) -> None:
    part.mkdir(parents=True, exist_ok=True)
    storage, journal = part / "images.npy", part / "blocks.jsonl"
    notes = _done_before(part)
    write_text(journal, "".join(map(journal_line, notes)))
    reached = {note.part: note.position for note in notes}
    count = sum(len(note.labels) for note in notes)
    shape = _shape(storage) if count else None
    pieces, given = _pieces(stream.rows(reached)), wanted_levels(settings)
    with (
        spread(partial(_decode, wanted_sides(settings), settings.crop, given), pieces, settings.workers) as blocks,
        naming(storage),
        storage.open("r+b" if count else "wb") as file,
        journal.open("a", encoding="utf-8") as lines,
        progress.stage("images", max(stream.total, count), count) as stage,
    ):
        file.seek(HEADER + count * int(np.prod(shape or ())) if count else 0)
        file.truncate()
        for block, images in blocks:
            pixels, shape, bad = _stacked(images, shape, count, block)
            if file.tell() == 0:
                check_room(part, int(np.prod(shape)) * max(stream.total, len(pixels)))
                _write_header(file, 0, shape)
            file.write(pixels.tobytes())
            file.flush()
            note = _noted(block, images, pixels, bad)
            lines.write(journal_line(note))
            lines.flush()
            notes.append(note)
            count += len(pixels)
            stage.advance(len(pixels))
        if shape is None:
            raise UsageError("data.source: the stream holds no image of the classes that are asked for")
        _write_header(file, count, shape)
    levels = None
    if spans := [span for note in notes for span in note.spans]:
        levels = given or found_levels(spans)
        if given is None:
            _decode_deep(storage, stream, notes, levels, settings, progress)
    if all(note.grey for note in notes):
        _drop_colour(storage)
    parts = {name: sum(len(note.labels) for note in group) for name, group in groupby(notes, lambda note: note.part)}
    labels, positions = [label for note in notes for label in note.labels], [at for note in notes for at in note.positions]
    write_json(part / "rows.json", {"parts": parts, "labels": labels, "positions": positions}, ROWS, place.name)
    told = notes_on([one for note in notes for one in note.lost], spans, levels, count, given is not None)
    finish(part, place, [row for note in notes for row in note.bad], levels, told)


def _decode_deep(
    storage: Path, stream: Stream, notes: Sequence[Note], levels: Levels, settings: DataSettings, progress: Progress
) -> None:
    """Decode the blocks with images of more than eight bits, which are blank, now that it is known what is black and white."""
    size = int(np.prod(_shape(storage)))
    firsts = np.cumsum([0, *(len(note.labels) for note in notes)])
    begin = {(note.part, note.positions[0]): first for note, first in zip(notes, firsts, strict=False) if note.spans}
    pieces = (block for block in _pieces(stream.rows({})) if (block[0].part, block[0].position) in begin)
    total = sum(len(note.labels) for note in notes if note.spans)
    with (
        spread(partial(_decode, wanted_sides(settings), settings.crop, levels), pieces, settings.workers) as blocks,
        naming(storage),
        storage.open("r+b") as file,
        progress.stage("images of more than 8 bits", total) as stage,
    ):
        for block, found in blocks:
            first = begin[block[0].part, block[0].position]
            for row, image in enumerate(found, first):
                if not isinstance(image, str):
                    file.seek(HEADER + row * size)
                    file.write(np.ascontiguousarray(image.pixels).data)
            stage.advance(len(block))


def _pieces(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Blocks of rows, none across two parts."""
    for _, group in groupby(rows, lambda row: row.part):
        while block := list(islice(group, CHUNK)):
            yield block


def _decode(
    sides: tuple[int, int] | None, crop: str, levels: Levels | None, block: list[Row]
) -> tuple[list[Row], list[Whole | str]]:
    """The block without its files, and its images."""
    images = [row.flaw or decode_all(sides, crop, [Bytes(row.content, "")], levels)[0] for row in block]
    return [row._replace(content=b"") for row in block], images


def _noted(block: list[Row], images: list[Whole | str], pixels: np.ndarray, bad: list[Unreadable]) -> Note:
    whole = [(row, image) for row, image in zip(block, images, strict=True) if not isinstance(image, str)]
    return Note(
        part=block[-1].part,
        position=block[-1].position,
        labels=[row.label for row in block],
        checksum=checksum(pixels),
        grey=all(image.grey for _, image in whole),
        bad=bad,
        positions=[row.position for row in block],
        lost=together(Lost(kind, 1, [_called(row.part, row.position)]) for row, image in whole for kind in image.losses),
        spans=[image.span for _, image in whole if image.span],
    )


def _stacked(
    images: list[Whole | str], shape: tuple[int, int, int] | None, first: int, block: list[Row]
) -> tuple[np.ndarray, tuple[int, int, int], list[Unreadable]]:
    """The rows to write, (n, 3, H, W), the shape of each, and those that are blank because they cannot be read."""
    sides = [image.pixels.shape[1:] for image in images if not isinstance(image, str)]
    shape = shape or ((3, *sides[0]) if sides else None)
    names = [_called(row.part, row.position) for row in block]
    if shape is None:
        raise UsageError(f"data.source: cannot read the first {len(images)} images of the stream ('{names[0]}': {images[0]})")
    pixels = np.zeros((len(images), *shape), dtype=np.uint8)
    bad = []
    for i, image in enumerate(images):
        if isinstance(image, str):
            bad.append(Unreadable(first + i, names[i], image))
        elif image.pixels.shape != shape:
            sizes = f"{shape[1]}×{shape[2]}, '{names[i]}' {image.pixels.shape[1]}×{image.pixels.shape[2]}"
            raise UsageError(f"data.size: None does not bring images of several sizes together ({sizes}); give [height, width]")
        else:
            pixels[i] = image.pixels
    return pixels, shape, bad


def _called(part: str, position: int) -> str:
    """`train 0` is the first row of the part."""
    return f"{part} {position - 1}"


def _write_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """The header of an .npy file, which NumPy leaves room in for any count: it is always `HEADER` bytes long."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)})
    assert file.tell() == HEADER


def _shape(storage: Path) -> tuple[int, int, int]:
    """(C, H, W) of the rows in a file that may not say yet how many there are."""
    with storage.open("rb") as file:
        return row_shape(file)


def _done_before(part: Path) -> list[Note]:
    """The blocks that a killed run has left sound, up to the first that is not."""
    storage = part / "images.npy"
    try:
        shape = _shape(storage)
    except Exception:  # there is none, or its header is broken, in one of many ways
        return []
    size, notes = int(np.prod(shape)), []
    with storage.open("rb") as file:
        file.seek(HEADER)
        for line in read_journal(part / "blocks.jsonl"):
            plain = Note(*line)
            rows = np.frombuffer(file.read(len(plain.labels) * size), dtype=np.uint8)
            if checksum(rows) != plain.checksum:
                break
            bad, lost = [Unreadable(*one) for one in plain.bad], [Lost(*one) for one in plain.lost]
            notes.append(plain._replace(bad=bad, lost=lost, spans=[Span(*span) for span in plain.spans]))
    return notes


def _drop_colour(storage: Path) -> None:
    """Keep one channel of images whose three are the same, because none has colour."""
    images = np.load(storage, mmap_mode="r")
    temporary = storage.with_name("grey.npy")
    with naming(temporary), temporary.open("wb") as file:
        _write_header(file, len(images), (1, *images.shape[2:]))
        for start in range(0, len(images), 4096):
            file.write(np.ascontiguousarray(images[start : start + 4096, :1]).data)
    os.replace(temporary, storage)
