"""Built-in images, made in seconds and without a download: handwritten digits on pieces of photographs.

Every image is a blend,  I = B + m·(c − B):  B a crop of one of scikit-learn's two sample photographs, m ∈ [0, 1] the ink of one of
its 8×8 handwritten digits, scaled and put at a random place, c a random colour that stands out from B. The levels differ in the
side of the digit's square only, as a share of the image's shorter side.

All draws are made first, in relative units, so that a seed shows the same scenes at every size. Because the photographs say
nothing about the class, the box around the ink is the truth about where the discriminative area lies.
"""

import functools
from dataclasses import dataclass, fields, replace

import numpy as np

from limbeck.data.classes import Classes, relabelled
from limbeck.data.imageset import ImageSet
from limbeck.data.resize import wanted_sides
from limbeck.data.settings import DataSettings
from limbeck.data.split import divide, room_for, whole
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import Progress
from limbeck.runtime.random import numpy_generator

LEVELS = {"easy": (0.75, 1.0), "medium": (0.5, 0.75), "hard": (0.35, 0.6)}
CLASSES = Classes(tuple("0123456789"))
SIDE = 32
TRAIN_PER_CLASS = 300
TEST_PER_CLASS = 100

# The digits come writer by writer. At this row a writer begins: the ten before and the four from here on share no hand.
FIRST_TEST_DIGIT = 1287
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
CROP = (0.05, 0.12)  # shorter side of the crop, as a share of the photograph's
CONTRAST = 0.6  # least distance of c from the mean of B under the ink, as a share of the colour cube's diagonal
COLOURS = 16  # candidates for c, of which the first that contrasts enough is taken
INK = (48, 144)  # where scaled ink, 0 … 255, begins and where it is full: crisp edges at every size
CHUNK = 250


@dataclass(frozen=True, eq=False)
class Draws:
    """What is random about N scenes.

    Args:
        labels: (N,) digits, 0 … 9.
        digits: (N,) rows of the digits' data set.
        side: (N,) of the digit's square, as a share of the image's shorter side.
        place: (N, 2) the square's top and left in [0, 1), as shares of the room there is.
        photographs: (N,) indices of `PHOTOGRAPHS`.
        crop_side: (N,) shorter side of the crop, as a share of the photograph's.
        crop_place: (N, 2) its top and left in [0, 1), as shares of the room there is.
        colours: (N, `COLOURS`, 3) candidates in [0, 1].
    """

    labels: np.ndarray
    digits: np.ndarray
    side: np.ndarray
    place: np.ndarray
    photographs: np.ndarray
    crop_side: np.ndarray
    crop_place: np.ndarray
    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, piece: slice) -> "Draws":
        return Draws(*(getattr(self, field.name)[piece] for field in fields(self)))


def load_scenes(settings: DataSettings, progress: Progress) -> ImageSet:
    """The scenes that `settings.source` names: `scenes:easy` (or just `scenes`), `scenes:medium` or `scenes:hard`.

    Returns:
        An `ImageSet` of ten classes (or those in `data.classes`) in colour, with boxes: `per_class` images of each to train and
        validate on, and 100 to test on, which other people wrote.

    Raises:
        UsageError: when the level or a class is unknown.
    """
    level, chosen = check_scenes(settings)
    height, width = wanted_sides(settings) or (SIDE, SIDE)
    counts = {"train": settings.per_class or TRAIN_PER_CLASS, "test": TEST_PER_CLASS}
    splits = {}
    with progress.stage("scenes", 10 * sum(counts.values())) as stage:
        for part, per_class in counts.items():
            storage = room_for(10 * per_class, (3, height, width), settings.source)
            draws = draw(settings.seed, part, per_class, LEVELS[level])
            boxes = np.empty((len(draws), 4), dtype=np.int64)
            for start in range(0, len(draws), CHUNK):
                piece = slice(start, start + CHUNK)
                storage[piece], boxes[piece] = render(draws[piece], height, width)
                stage.advance(len(draws[piece]))
            splits[part] = whole(storage, draws.labels, boxes)
    if settings.classes is not None:
        for part, split in splits.items():
            positions, labels = relabelled(split.labels, chosen)
            splits[part] = replace(split.take(positions), labels=labels)
    parts = divide(settings, splits["train"], splits["test"])
    return ImageSet.of(*parts, CLASSES.take(chosen).names, settings.source)


def check_scenes(settings: DataSettings) -> tuple[str, np.ndarray]:
    """The level that `settings.source` names, and the positions of the classes that are wanted.

    Raises:
        UsageError: when the level or a class is unknown.
    """
    level = "easy" if settings.source == "scenes" else settings.source.partition(":")[2]
    if level not in LEVELS:
        raise UsageError(f"data.source: {settings.source!r} is not scenes or scenes:{'|'.join(LEVELS)}")
    return level, CLASSES.choose(settings.classes, settings.source)


def draw(seed: int, part: str, per_class: int, sides: tuple[float, float]) -> Draws:
    """Draw `per_class` scenes of each digit, in random order, in the handwriting of `part` (`train` or `test`)."""
    rng = numpy_generator(seed, "scenes", part)
    count = 10 * per_class
    labels = rng.permutation(np.repeat(np.arange(10), per_class))
    digits = np.empty(count, dtype=np.int64)
    for k in range(10):
        digits[labels == k] = rng.choice(handwriting(part, k), per_class)
    return Draws(
        labels=labels,
        digits=digits,
        side=rng.uniform(*sides, count),
        place=rng.random((count, 2)),
        photographs=rng.integers(len(PHOTOGRAPHS), size=count),
        crop_side=rng.uniform(*CROP, count),
        crop_place=rng.random((count, 2)),
        colours=rng.random((count, COLOURS, 3)),
    )


def handwriting(part: str, k: int) -> np.ndarray:
    """The rows of the digits' data set that show the digit `k` in the handwriting of `part` (`train` or `test`)."""
    rows = np.flatnonzero(_digits()[1] == k)
    return rows[rows < FIRST_TEST_DIGIT] if part == "train" else rows[rows >= FIRST_TEST_DIGIT]


def render(draws: Draws, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The images, uint8 with shape (N, 3, H, W), and the boxes around their ink, with shape (N, 4)."""
    background = backgrounds(draws, height, width).astype(np.float32)
    ink, boxes = inks(draws, height, width)
    under = np.einsum("nhw,nhwc->nc", ink, background) / ink.sum(axis=(1, 2))[:, None]
    colour = 255 * contrasting(draws.colours, under / 255)
    images = background + ink[..., None] * (colour[:, None, None].astype(np.float32) - background)
    return np.rint(images).astype(np.uint8).transpose(0, 3, 1, 2), boxes


def backgrounds(draws: Draws, height: int, width: int) -> np.ndarray:
    """B: crops of the photographs with the images' aspect ratio, uint8 with shape (N, H, W, 3)."""
    from PIL.Image import Resampling, fromarray

    photographs = [fromarray(photograph) for photograph in _photographs()]
    crops = np.empty((len(draws), height, width, 3), dtype=np.uint8)
    for i, which in enumerate(draws.photographs):
        room = np.array([photographs[which].height, photographs[which].width])
        extent = draws.crop_side[i] * min(room / (height, width)) * np.array([height, width])
        top, left = draws.crop_place[i] * (room - extent)
        box = (left, top, left + extent[1], top + extent[0])
        crops[i] = photographs[which].resize((width, height), Resampling.BILINEAR, box)
    return crops


def inks(draws: Draws, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """m in [0, 1], float32 with shape (N, H, W), and the tight boxes around it, (N, 4): top, left, bottom, right (exclusive)."""
    from PIL.Image import Resampling, fromarray

    begin, full = INK
    curve = [round(255 * min(max((level - begin) / (full - begin), 0), 1)) for level in range(256)]
    digits = [fromarray(digit) for digit in _digits()[0][draws.digits]]
    sides = np.rint(draws.side * min(height, width)).astype(np.int64)
    places = (draws.place * (np.array([height, width]) - sides[:, None] + 1)).astype(np.int64)
    ink = np.zeros((len(draws), height, width), dtype=np.float32)
    boxes = np.empty((len(draws), 4), dtype=np.int64)
    for i, (digit, side, (top, left)) in enumerate(zip(digits, sides, places, strict=True)):
        scaled = digit.resize((side, side), Resampling.BICUBIC).point(curve)
        ink[i, top : top + side, left : left + side] = np.asarray(scaled) / np.float32(255)
        inner = scaled.getbbox()
        assert inner is not None, "INK leaves something of every digit at every size"
        boxes[i] = np.array([top, left, top, left]) + np.array(inner)[[1, 0, 3, 2]]
    return ink, boxes


def contrasting(colours: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Of every row of candidates (N, `COLOURS`, 3) the first that is `CONTRAST` away from `under` (N, 3), else the farthest."""
    distance = np.linalg.norm(colours - under[:, None], axis=2) / np.sqrt(3)
    enough = distance >= CONTRAST
    chosen = np.where(enough.any(axis=1), enough.argmax(axis=1), distance.argmax(axis=1))
    picked: np.ndarray = colours[np.arange(len(colours)), chosen]
    return picked


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Ink, uint8 in 0 … 255 with shape (1797, 8, 8), and the digits that it shows."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


@functools.cache
def _photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_image

    return [load_sample_image(name) for name in PHOTOGRAPHS]
