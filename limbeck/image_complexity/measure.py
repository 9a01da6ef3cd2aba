"""Measuring: the maps of all images at the layer's resolution, block by block, each a file of the cache that one process
computes under its lock; thresholds, upsampling and means follow in seconds. Which images are measured, in which order.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from limbeck.data.imageset import ImageSet
from limbeck.data.split import Split, cap
from limbeck.evaluation.areas import discriminative_area, mean_activation
from limbeck.image_complexity.classifier import Classifier
from limbeck.image_complexity.maps import blend, class_means, complexity, look
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.runtime.devices import on_gpu, one_thread
from limbeck.runtime.errors import UsageError
from limbeck.runtime.executor import Cluster, Shard, Tick, cores, current
from limbeck.runtime.files import write_json
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.kept import Kept, cache_root
from limbeck.runtime.locks import Busy, lock
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.random import generator
from limbeck.runtime.room import check_cache

PARTS = {"train": ("train", "val"), "test": ("test",), "all": ("train", "val", "test")}


@dataclass(frozen=True, eq=False)
class Pictures:
    """n images.

    Args:
        splits: by name.
        part: the place in `splits` of the split that each image is from, int64 with shape (n,), ascending.
        position: its position in that split, int64 with shape (n,).
        labels: its class, int64 with shape (n,).
        class_names: of the K classes.
        fingerprint: of the data set they are from.
    """

    splits: Mapping[str, Split]
    part: np.ndarray
    position: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def identity(self) -> str:
        """A fingerprint of the images and their order."""
        return fingerprint(self.fingerprint, list(self.splits), array_fingerprint(self.part, self.position))

    def images(self, index: np.ndarray) -> Tensor:
        """The images at `index` (int64, shape (m,)), uint8 with shape (m, C, H, W)."""
        first = next(iter(self.splits.values()))
        found = torch.empty(len(index), *first.storage.shape[1:], dtype=torch.uint8)
        for number, split in enumerate(self.splits.values()):
            chosen = np.flatnonzero(self.part[index] == number)
            found[torch.from_numpy(chosen)] = split.images(self.position[index[chosen]])
        return found

    def name(self, i: int) -> str | None:
        """What image `i` is called in its source; None where it has no name there."""
        return list(self.splits.values())[int(self.part[i])].name(int(self.position[i]))


def choose(data: ImageSet, settings: ComplexitySettings) -> Pictures:
    """The images that `split` and `per_class` ask for.

    Raises:
        UsageError: when there are none.
    """
    splits = {name: split for name in PARTS[settings.split] if len(split := getattr(data, name))}
    if not splits:
        raise UsageError(f"--split: {settings.split!r} holds no image of {data.source!r}")
    part = np.repeat(np.arange(len(splits)), [len(split) for split in splits.values()])
    position = np.concatenate([np.arange(len(split)) for split in splits.values()])
    labels = np.concatenate([split.labels for split in splits.values()])
    taken = cap(labels, settings.per_class, settings.seed)
    return Pictures(splits, part[taken], position[taken], labels[taken], data.class_names, data.fingerprint)


FORMAT = 1  # counts up when the same settings would give other maps
BLOCK = 256


@dataclass(frozen=True, eq=False)
class ImageTable:
    """What is known of n images.

    Args:
        complexity: in percent at every threshold, with shape (n, T); NaN where the network's logits are not finite.
        mean_activation: of each map, in percent, with shape (n,), NaN as before.
        area: the share of each map above its own mean, in percent, likewise.
        predicted: the network's class ids, int64 with shape (n,).
        target: those that maps are for.
        blank: which maps show no preference, bool with shape (n,).
    """

    complexity: np.ndarray
    mean_activation: np.ndarray
    area: np.ndarray
    predicted: np.ndarray
    target: np.ndarray
    blank: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """Which images have finite logits, bool with shape (n,)."""
        found: np.ndarray = np.isfinite(self.complexity[:, 0])
        return found


@dataclass(frozen=True, eq=False)
class Measurement:
    """The maps of some images by some network: made by `fill`, read by everything else.

    Args:
        pictures: the images.
        judge: the network.
        settings: `cam`, `layer`, `classes`, `batch_size` and `seed` determine the maps.

    Raises:
        UsageError: when maps are for the true class and the network does not know one of the classes.
    """

    pictures: Pictures
    judge: Classifier
    settings: ComplexitySettings

    def __post_init__(self) -> None:
        if self.settings.classes == "predicted":
            return
        missing = [name for name, k in zip(self.pictures.class_names, self.ids, strict=True) if k < 0]
        if missing:
            rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            known = f"the {len(self.judge.class_names)} classes of {self.judge.name}"
            raise UsageError(f"--classes: 'true' is not possible, {known} lack {missing[0]!r}{rest}; predicted is accepted")

    @cached_property
    def ids(self) -> np.ndarray:
        """The network's id of each class of the data, −1 where it has none, int64 with shape (K,)."""
        return self.judge.class_ids(self.pictures.class_names)

    @cached_property
    def layers(self) -> list[str]:
        """The modules that maps are made of."""
        return self.judge.layers(self.settings.layer)

    @property
    def starts(self) -> range:
        """The first image of every block."""
        return range(0, len(self.pictures), BLOCK)

    @cached_property
    def folder(self) -> Path:
        """Where the blocks lie."""
        settings = self.settings
        noise = settings.seed if settings.cam == "smooth_gradcam_pp" else None
        targets = None if settings.classes == "predicted" else self.ids.tolist()
        parts = (settings.cam, self.layers, targets, settings.batch_size, noise)
        return cache_root() / "complexity" / fingerprint(FORMAT, BLOCK, self.pictures.identity, self.judge.identity, *parts)

    def kept(self, first: int) -> Kept[dict[str, Tensor]]:
        """The block that begins with that image."""
        count, names = min(BLOCK, len(self.pictures) - first), ("predicted", "finite", "map0")
        path = self.folder / f"{first:09d}.safetensors"
        return Kept.tensors(path, lambda held: all(len(held[name]) == count for name in names))

    def missing(self) -> list[int]:
        """The first images of the blocks that are not there or damaged."""
        return [first for first in self.starts if self.kept(first).held() is None]

    def compute(self, first: int) -> dict[str, Tensor]:
        """The tensors of a block."""
        index = np.arange(first, min(first + BLOCK, len(self.pictures)))
        draws = generator(self.settings.seed, "complexity", first)
        logits, features = [], []
        maps: list[list[Tensor]] = []
        for batch in np.array_split(index, range(self.settings.batch_size, len(index), self.settings.batch_size)):
            x = self.judge.prepare(self.pictures.images(batch))
            true = torch.from_numpy(self.ids[self.pictures.labels[batch]]).to(x.device)
            wanted = None if self.settings.classes == "predicted" else true
            seen = look(self.judge.module, x, wanted, self.layers, self.settings.cam, draws)
            logits.append(seen.logits.float().cpu())
            maps.append([layer.float().cpu() for layer in seen.maps])
            features.append(seen.features.float().cpu())
        joined = torch.cat(logits)
        labels = torch.from_numpy(self.pictures.labels[index])
        finite = joined.isfinite().all(1)
        pooled = torch.cat(features)
        known = finite & pooled.isfinite().all(1)
        classes, place = labels[known].unique(return_inverse=True)
        return {
            "predicted": joined.nan_to_num().argmax(1),
            "finite": finite,
            **{f"map{number}": torch.cat(layer) for number, layer in enumerate(zip(*maps, strict=True))},
            "feature_classes": classes,
            "feature_counts": torch.bincount(place, minlength=len(classes)),
            "feature_sums": torch.zeros(len(classes), pooled.shape[1]).index_add(0, place, pooled[known]),
        }

    def blocks(self) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """Every block with the index of its images, in order.

        Raises:
            UsageError: when one is missing.
        """
        for first in self.starts:
            if (held := self.kept(first).held()) is None:
                raise UsageError(f"complexity: the maps from image {first} on are missing; measure them first")
            yield np.arange(first, min(first + BLOCK, len(self.pictures))), held

    def table(self) -> ImageTable:
        """Complexity and what else there is to say of every image."""
        n, thresholds = len(self.pictures), self.settings.thresholds
        values = np.full((n, len(thresholds) + 2), np.nan)
        predicted, blank = np.empty(n, dtype=np.int64), np.zeros(n, dtype=bool)
        for index, block in self.blocks():
            for part in np.array_split(np.arange(len(index)), range(32, len(index), 32)):  # upsampled maps are large
                maps = self._maps(block, part)
                columns = [complexity(maps, threshold) for threshold in thresholds]
                columns += [100 * mean_activation(maps), 100 * discriminative_area(maps)]
                rows, finite = index[part], block["finite"][part].numpy()
                values[rows[finite]] = torch.stack(columns, 1).numpy()[finite]
                blank[rows] = (maps.amax((1, 2)) == 0).numpy() & finite
            predicted[index] = block["predicted"].numpy()
        target = predicted if self.settings.classes == "predicted" else self.ids[self.pictures.labels]
        return ImageTable(values[:, :-2], values[:, -2], values[:, -1], predicted, target, blank)

    def maps(self, index: np.ndarray) -> Tensor:
        """The maps of the images at `index`, brought to the network's input size, with shape (m, H, W)."""
        found = torch.empty(len(index), *self.judge.shape[1:])
        for rows, block in self.blocks():
            wanted = np.flatnonzero((index >= rows[0]) & (index <= rows[-1]))
            if len(wanted):
                found[torch.from_numpy(wanted)] = self._maps(block, index[wanted] - rows[0], "image")
        return found

    def features(self) -> np.ndarray:
        """The mean features of every class, float64 with shape (K, D); NaN for a class without any."""
        count = len(self.pictures.class_names)
        sums, counts = None, np.zeros(count)
        for _, block in self.blocks():
            classes, part = block["feature_classes"].numpy(), block["feature_sums"].double().numpy()
            sums = np.zeros((count, part.shape[1])) if sums is None else sums
            sums[classes] += part
            counts[classes] += block["feature_counts"].numpy()
        assert sums is not None, "there is one image or more"
        return np.divide(sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0)

    def classes(self, table: ImageTable) -> np.ndarray:
        """c_k at every threshold, with shape (K, T)."""
        return class_means(table.complexity, self.pictures.labels, len(self.pictures.class_names))

    def _maps(self, block: dict[str, Tensor], rows: np.ndarray, where: str | None = None) -> Tensor:
        layers = [block[f"map{number}"][rows] for number in range(len(self.layers))]
        height, width = self.judge.shape[1:]
        return blend(layers, (height, width) if (where or self.settings.maps) == "image" else None)


def fill(measurement: Measurement, shard: Shard = Shard(), progress: Progress = NoProgress()) -> list[int]:
    """Compute the blocks of a shard that are missing; the first images of those that are then missing still, of other shards.

    Args:
        measurement: see there.
        shard: a share of the blocks.
        progress: where to report.
    """
    starts = list(measurement.starts)
    mine = {first for number, first in enumerate(starts) if shard.takes(number)}
    missing = [first for first in measurement.missing() if first in mine]
    if missing:
        check_cache()
        record = {"source": measurement.pictures.fingerprint, "network": measurement.judge.name, "settings": measurement.settings}
        write_json(measurement.folder / "about.json", record)
    executor, alone = current(), on_gpu(measurement.judge.device)
    workers = max(1, min(measurement.settings.workers or (1 if alone else cores()), len(missing)))
    # Where the measurement is sent once, a block is a job; else it goes with every job, and a process has one.
    jobs = (
        [[first] for first in missing] if isinstance(executor, Cluster) else [missing[number::workers] for number in range(workers)]
    )
    with progress.stage(f"maps, blocks of {BLOCK} images", len(mine), len(mine) - len(missing)) as stage:
        done = executor.run(_run, measurement, jobs, at_once=workers, told=stage.advance, writes=measurement.folder)
        deque(done, maxlen=0)  # what they say is in the cache
    return measurement.missing()


def _run(measurement: Measurement, starts: Sequence[int], tick: Tick) -> None:
    # On one thread, wherever that is: however many blocks are left, their bits are the same.
    with nullcontext() if on_gpu(measurement.judge.device) else one_thread():
        for first in _in_turn(measurement, starts):
            _block(measurement, first)
            tick()


def _in_turn(measurement: Measurement, starts: Sequence[int]) -> Iterator[int]:
    """Those that nobody else is at, then the others, which will be there by then."""
    busy = []
    for first in starts:
        try:
            with lock(measurement.kept(first).path).acquire(timeout=0):
                yield first
        except Busy:
            busy.append(first)
    for first in busy:
        with lock(measurement.kept(first).path):
            yield first


def _block(measurement: Measurement, first: int) -> None:
    if (block := measurement.kept(first)).held() is None:
        block.write(block.path, measurement.compute(first))
