"""A film of distilled images for a notebook: HTML and style sheet, no script and no widget.

Radio buttons stand for the snapshots, and a rule of the style sheet shows the picture of the one that is chosen; the last one plays
them all. Where a page takes styles or buttons away, as some that show notebooks do, all pictures stand below each other with their
captions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from limbeck.accuracy import percent
from limbeck.data.preprocessing import Preprocessing
from limbeck.distilled.contrast import Contrast
from limbeck.distilled.set import DistilledSet
from limbeck.methods.snapshots import Snapshot
from limbeck.report.contents import read_run
from limbeck.report.sheets import resized, within
from limbeck.runs.results import RunResult
from limbeck.runtime.errors import require
from limbeck.runtime.files import read_tensors
from limbeck.runtime.tables import uri

MOST_FRAMES, MOST_IMAGES, MOST_CLASSES, LARGEST, ACROSS = 12, 8, 50, 64, 10
SECONDS = 0.5  # of a picture while the film plays
ACCEPTED = "a RunResult with a run folder, the path of one, or a list of snapshots"
RULES = """
.limbeck-film { display: block; margin: 4px 0; }
.limbeck-film > input { margin: 0 2px 0 0; vertical-align: middle; accent-color: #3366ee; }
.limbeck-film > .reel { display: grid; justify-items: start; margin-top: 6px; }
.limbeck-film > .reel > figure { grid-area: 1 / 1; margin: 0; visibility: hidden; }
.limbeck-film img { image-rendering: pixelated; max-width: 100%; }
.limbeck-film > .play:checked ~ .reel > figure { animation-iteration-count: infinite; animation-timing-function: step-end; }
"""


class Shot(Protocol):
    """A snapshot, from a callback or from a file."""

    @property
    def iteration(self) -> int:
        """Finished iterations."""


S = TypeVar("S", bound=Shot)


@dataclass(frozen=True)
class Frame:
    """A picture of the film.

    Args:
        iteration: after which.
        picture: a data URI.
        said: what is known of it, in words.
        result: whether these images are the result.
    """

    iteration: int
    picture: str
    said: str
    result: bool


@dataclass(frozen=True, eq=False, repr=False)
class Film:
    """Shows itself at the end of a cell of a notebook."""

    frames: tuple[Frame, ...]
    width: int
    note: str

    def __repr__(self) -> str:
        return f"Film({len(self.frames)} snapshots, iterations {self.frames[0].iteration} to {self.frames[-1].iteration})"

    @property
    def html(self) -> str:
        """The film, to be put into a page."""
        return self._repr_html_()

    def _repr_html_(self) -> str:
        count = len(self.frames)
        start = next((k for k, frame in enumerate(self.frames) if frame.result), count - 1)
        buttons = "".join(
            f'<input type="radio" name="frame" aria-label="{escape(frame.said)}" title="{escape(frame.said)}"'
            f"{' checked' if k == start else ''}>"
            for k, frame in enumerate(self.frames)
        )
        play = '<input type="radio" name="frame" class="play" aria-label="play" title="play"> play' if count > 1 else ""
        figures = "".join(
            f'<figure><img src="{frame.picture}" width="{self.width}" alt="Images {escape(frame.said)}">'
            f"<figcaption>{escape(frame.said)}</figcaption></figure>"
            for frame in self.frames
        )
        style = f"<style>{RULES}{''.join(_rules(count))}</style>"
        # Buttons of a form know nothing of those of another film, and a notebook leaves the arrow keys to them.
        head = '<form class="limbeck-film" aria-label="images over the iterations" data-lm-suppress-shortcuts="true">'
        return f'{head}{style}{buttons}{play}<div class="reel">{figures}</div><small>{escape(self.note)}</small></form>'


def film(source: RunResult | Path | str | Sequence[Snapshot], held: DistilledSet | None = None) -> Film:
    """How distilled images have become what they are, as a film for a notebook; it needs neither script nor widget.

    Args:
        source: what `distill(output=…)` returned, a run folder, or snapshots that a callback has collected.
        held: the set that they led to, for its class names, preprocessing and contrast; None takes that of the run, and shows
            snapshots that have none from their darkest to their brightest value.

    Raises:
        UsageError: where there are no snapshots.

    Example:
        >>> import limbeck
        >>> seen = []
        >>> quick = {"size": 16, "per_class": 12, "iterations": 2, "every": 1, "epochs": 1, "full_epochs": 1, "random_lr": 0.01}
        >>> run = limbeck.distill("scenes:easy", "dm", network="ConvNetD2-w4", callbacks=[seen.append], **quick)
        >>> limbeck.film(seen, run.distilled)
        Film(3 snapshots, iterations 0 to 2)
    """
    if isinstance(source, (RunResult, str, Path)):
        place = source.paths.get("run") if isinstance(source, RunResult) else str(source)
        require(place is not None, "source", "a run without output", ACCEPTED)
        return _of_folder(Path(str(place)), held)
    shots = list(source)
    require(bool(shots) and all(isinstance(one, Snapshot) for one in shots), "source", type(source).__name__, ACCEPTED)
    best = max((one.iteration for one in shots if one.best), default=None)
    looks = [_Look(one.iteration, one.images, one.accuracy, one.loss, one.iteration == best) for one in _spread(shots, best)]
    return _film(looks, shots[0].labels.argmax(1).tolist(), held)


@dataclass(frozen=True, eq=False)
class _Look:
    """Images X (N, C, H, W) after so many iterations, and what is known of them."""

    iteration: int
    images: Tensor
    accuracy: float | None
    loss: float | None
    result: bool


def _of_folder(path: Path, held: DistilledSet | None) -> Film:
    """The film of a run's snapshots, of the images that all of them have."""
    run = read_run(path)
    require(len(run.snapshots) > 0, "source", str(path), "a run folder with snapshots")
    held = run.distilled if held is None else held
    chosen = [(one, read_tensors(one.path)) for one in _spread(run.snapshots, run.best_iteration)]
    places = [tensors.metadata.get("positions", list(range(len(tensors.tensors["X"])))) for _, tensors in chosen]
    common = sorted(set.intersection(*map(set, places)))
    require(len(common) > 0, "source", str(path), "a run folder whose snapshots have images in common")
    looks = []
    for (one, (tensors, header)), place in zip(chosen, places, strict=True):
        loss = header.get("loss")
        x = tensors["X"][[place.index(position) for position in common]]
        number = loss if isinstance(loss, (int, float)) else None
        looks.append(_Look(one.iteration, x, one.accuracy, number, one.iteration == run.best_iteration))
    labels = chosen[0][1].tensors["Y"].argmax(1)
    known = held is not None and max(common) < len(held)
    classes = held.classes[common].tolist() if known and held is not None else [int(labels[places[0].index(at)]) for at in common]
    return _film(looks, classes, held)


def _film(looks: Sequence[_Look], classes: Sequence[int], held: DistilledSet | None) -> Film:
    """The film of looks at the same images, of these classes."""
    order = list(dict.fromkeys(sorted(classes)))[:MOST_CLASSES]
    rows = [[at for at, own in enumerate(classes) if own == k][:MOST_IMAGES] for k in order]
    beside = max(1, ACROSS // max(map(len, rows)))  # classes in a row
    rows = [[at for row in rows[first : first + beside] for at in row] for first in range(0, len(rows), beside)]
    contrast, preprocessing = _contrast(looks, held)
    height, width = within(looks[0].images.shape[2], looks[0].images.shape[3], LARGEST)
    columns = max(map(len, rows))
    frames = tuple(
        Frame(one.iteration, _sheet(one, rows, (height, width), preprocessing, contrast), _said(one), one.result) for one in looks
    )
    names = [held.class_names[k] if held is not None and k < held.num_classes else f"class {k}" for k in order]
    left = len(set(classes)) - len(order)
    note = (
        f"Classes, from left to right and from row to row: {', '.join(names)}"
        + (f" and {left} more, which are not shown" if left else "")
        + "."
    )
    note += f" {contrast}" if held is not None else " Shown from the darkest value to the brightest."
    return Film(frames, columns * LARGEST, note)


def _contrast(looks: Sequence[_Look], held: DistilledSet | None) -> tuple[Contrast, Preprocessing | None]:
    """One for all pictures, and how images become pixels."""
    if held is not None:
        return Contrast.of(held.preprocessing.inverse(held.images.float())), held.preprocessing
    low, high = (float(found) for found in looks[-1].images.float().nan_to_num().aminmax())
    return Contrast(low, max(high, low + 1e-6)), None


def _sheet(
    look: _Look, rows: Sequence[Sequence[int]], size: tuple[int, int], preprocessing: Preprocessing | None, contrast: Contrast
) -> str:
    """The images as one picture, in those rows, clear between them."""
    pixels = look.images.float() if preprocessing is None else preprocessing.inverse(look.images.float())
    levels = contrast.levels(pixels.nan_to_num())
    height, width = size
    sheet = Image.new("RGBA", (max(map(len, rows)) * (width + 1) - 1, len(rows) * (height + 1) - 1))
    for down, row in enumerate(rows):
        for across, at in enumerate(row):
            sheet.paste(resized(np.asarray(levels[at]), size).convert("RGBA"), (across * (width + 1), down * (height + 1)))
    return uri(sheet)


def _said(look: _Look) -> str:
    """What is known of the images, in words."""
    found = [f"after {look.iteration} iteration{'' if look.iteration == 1 else 's'}"]
    found += [] if look.accuracy is None else [f"validation accuracy {percent(look.accuracy)}"]
    found += [] if look.loss is None else [f"loss {look.loss:.3g}"]
    return ", ".join([*found, *(["the result"] if look.result else [])])


def _spread(shots: Sequence[S], best: int | None) -> list[S]:
    """At most `MOST_FRAMES` of them, evenly, the first, the last and the best among them."""
    last = len(shots) - 1
    chosen = {round(k * last / (MOST_FRAMES - 1)) for k in range(MOST_FRAMES)} if last >= MOST_FRAMES else set(range(last + 1))
    place = next((k for k, one in enumerate(shots) if one.iteration == best), None)
    if place is not None and place not in chosen:
        chosen.remove(min(chosen - {0, last}, key=lambda k: abs(k - place)))
        chosen.add(place)
    return [shots[k] for k in sorted(chosen)]


def _rules(count: int) -> list[str]:
    """What shows the picture of the button that is chosen, and what plays all of them."""
    rules = []
    for k in range(1, count + 1):
        shown = f".limbeck-film > input:nth-of-type({k}):checked ~ .reel > figure:nth-child({k})"
        delay = f"{(k - 1) * SECONDS:g}s"
        play = f".limbeck-film > .play:checked ~ .reel > figure:nth-child({k})"
        rules += [f"{shown} {{ visibility: visible; }}\n", f"{play} {{ animation-delay: {delay}; }}\n"]
    name = f"limbeck-film-{count}"
    rules.append(f"@keyframes {name} {{ 0% {{ visibility: visible; }} {100 / count:.4g}%, 100% {{ visibility: hidden; }} }}\n")
    playing = f".limbeck-film > .play:nth-of-type({count + 1}):checked ~ .reel > figure"
    rules.append(f"{playing} {{ animation-name: {name}; animation-duration: {count * SECONDS:g}s; }}\n")
    return rules
