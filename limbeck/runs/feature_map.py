"""`features.safetensors` of a run folder: where real and distilled images lie in the feature space of a network.

The network is the first of those trained on the full data that the final evaluation compares with. Of real images a few hundred
of the training split are on the map, spread evenly over every class; of distilled ones some, at several snapshots, whose places in
their order are a path. One embedding is fitted on all of these points together. Beside them stand, for images of the final set, the
training images whose features are nearest, with small pictures, so that a report needs the images no more.

No result depends on this: the map is made once the final evaluation is, and again with it.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.data.split import evenly
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.distances import features_in_parts, features_of
from limbeck.evaluation.embedding import Way, embed
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.nearest import Nearest, nearest
from limbeck.methods.snapshots import SNAPSHOT
from limbeck.runs.data_card import are_below, are_pictures, read_kept, small_pictures
from limbeck.runtime.errors import require
from limbeck.runtime.files import read_tensor_header, read_tensors, write_tensors
from limbeck.runtime.random import derived_seed
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import Damaged, FileKind
from limbeck.training.images import Chosen, LazyImages, TensorImages

FEATURES = FileKind("run features")
FILE = "features.safetensors"
REAL, DISTILLED, LOOKS = 300, 100, 6  # points of the map: real ones, distilled ones, and each of these so many times
SEARCHED, FLOATS = 5000, 2**25  # training images that near ones are sought among, and features that all of them have together
ASKED, PICTURES = 1000, 2**21  # distilled images that near ones are sought of, and bytes of pictures
NEAR, MANY = (5, 3), 100  # near ones of each, and of each of more than so many


@dataclass(frozen=True, kw_only=True)
class MapAbout(Record):
    """What a map was made of.

    Args:
        network: in words.
        dimensions: D, of the features.
        way: how points came into the plane.
        share: of the variance that the plane shows, where it is PCA's.
        iterations: after which the distilled images are shown, in order; none where there was no loop.
        best: which of these the result is; None where there was no loop, or the snapshot is lost.
        searched: among how many training images near ones were sought.
        real: how many there are.
        typical: the median distance from a real image on the map to the nearest other one that was searched; None without another.
    """

    network: str
    dimensions: int
    way: Way
    share: float | None
    iterations: tuple[int, ...]
    best: int | None = None
    searched: int
    real: int
    typical: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureMap:
    """The content of the file.

    Args:
        about: what it was made of.
        real: points of real images, float32 with shape (R, 2).
        real_classes: their classes, int64, as whole numbers are here, with shape (R,).
        paths: points of P distilled images at S looks, float32 with shape (S, P, 2).
        positions: of these in the set, with shape (P,), ascending; likewise `classes`.
        asked: positions of the images that near ones were sought of, with shape (Q,), ascending.
        near: the number, among the pictures, of the nearest images of each, the nearest first, with shape (Q, k).
        distances: to them, float32 with shape (Q, k).
        pictures: of real images, uint8 with shape (U, C, h, w).
        picture_classes: of these, with shape (U,).
        picture_positions: of these in the training split, with shape (U,).
    """

    about: MapAbout
    real: Tensor
    real_classes: Tensor
    paths: Tensor
    positions: Tensor
    classes: Tensor
    asked: Tensor
    near: Tensor
    distances: Tensor
    pictures: Tensor
    picture_classes: Tensor
    picture_positions: Tensor

    @classmethod
    def of(
        cls, evaluator: Evaluator, small: SmallSet, snapshots: Mapping[int, Path], best: int | None, *, most: Way
    ) -> "FeatureMap":
        """The map of a set, of the real images that `evaluator` measures on, and of snapshots by their iterations.

        The set is that of the iteration `best`, if it is one's.

        Raises:
            UsageError: when the network has no features, some are not finite, or they would not fit in the memory that is free.
        """
        module = evaluator.full_data.teacher(lambda: evaluator.images_of("test"))
        train, key = evaluator.data.train, "features: 'auto'"
        real = LazyImages(train, evaluator.preprocessing, evaluator.device)
        classes = small.classes.cpu()
        asked = torch.from_numpy(evenly(classes.numpy(), ASKED))
        held = TensorImages(small.images.to(evaluator.device))
        own = _finite(features_in_parts(module, Chosen(held, asked), key))
        searched = torch.from_numpy(evenly(train.labels, max(1, min(SEARCHED, FLOATS // own.shape[1]))))
        theirs = _finite(features_in_parts(module, Chosen(real, searched), key))
        found = nearest(own, theirs, NEAR[len(asked) > MANY])
        shown = torch.from_numpy(evenly(train.labels[searched.numpy()], REAL))
        looks, positions = _looks(module, snapshots, held.images, classes)
        embedded = embed(torch.cat([theirs[shown], *looks.values()]), derived_seed(evaluator.seed, "feature map"), most=most)
        points = embedded.points.split([len(shown), len(positions) * len(looks)])
        pictured, near = found.positions.unique(return_inverse=True)
        rows = searched[pictured]
        about = MapAbout(
            network=f"{evaluator.network.name}, trained on the full data",
            dimensions=own.shape[1],
            way=embedded.way,
            share=embedded.share,
            iterations=tuple(looks) if snapshots else (),
            best=best if best in snapshots else None,
            searched=len(searched),
            real=len(train),
            typical=_typical(theirs, shown),
        )
        return cls(
            about=about,
            real=points[0],
            real_classes=torch.from_numpy(train.labels)[searched[shown]],
            paths=points[1].view(len(looks), len(positions), 2),
            positions=positions,
            classes=classes[positions],
            asked=asked,
            near=near,
            distances=found.distances.float(),
            pictures=small_pictures(train, rows.numpy(), PICTURES),
            picture_classes=torch.from_numpy(train.labels)[rows],
            picture_positions=rows,
        )

    @property
    def result(self) -> int:
        """At which of the looks images are those of the result."""
        return self.about.iterations.index(self.about.best) if self.about.best in self.about.iterations else len(self.paths) - 1

    def write(self, folder: Path, of: str) -> None:
        """Write it into the folder of the run `of`."""
        write_tensors(folder / FILE, {name: getattr(self, name) for name in TENSORS}, self.about.to_dict(), FEATURES, of)

    @classmethod
    def read(cls, folder: Path) -> "FeatureMap":
        """The map in a run folder.

        Raises:
            OSError: when there is none, as in folders of earlier versions.
            Damaged: when it is not what was written, or what no run can have written.
        """
        about, tensors = read_kept(folder / FILE, FEATURES, MapAbout, TENSORS)
        held = cls(about=about, **{name: tensors[name] for name in TENSORS})
        if not held._is_sound():
            raise Damaged("its parts do not go together")
        return held

    def _is_sound(self) -> bool:
        looks = max(1, len(self.about.iterations))
        sizes = (
            self.real.shape == (len(self.real_classes), 2)
            and self.paths.shape == (looks, len(self.positions), 2)
            and self.classes.shape == self.positions.shape == (len(self.positions),)
            and self.near.shape == self.distances.shape == (len(self.asked), *self.near.shape[1:2])
            and self.picture_classes.shape == self.picture_positions.shape == (len(self.pictures),)
        )
        whole = (self.real_classes, self.positions, self.classes, self.asked, self.picture_classes, self.picture_positions)
        numbers = all(are_below(one, 2**31) for one in whole) and are_below(self.near, len(self.pictures))
        floats = all(one.is_floating_point() and bool(one.isfinite().all()) for one in (self.real, self.paths, self.distances))
        return sizes and numbers and floats and are_pictures(self.pictures, len(self.pictures))


TENSORS = tuple(one.name for one in fields(FeatureMap) if one.name != "about")


def looked_at(folder: Path, of: str, best: int) -> dict[int, Path]:
    """At most `LOOKS` sound snapshots of the run `of` by their iterations, evenly, the first, the best and the last among them."""
    found = {}
    for path in sorted((folder / "snapshots").glob("iteration-*.safetensors")):
        with suppress(OSError, Damaged, LookupError):  # the report says which cannot be read
            found[int(read_tensor_header(path, SNAPSHOT, of).metadata["iteration"])] = path
    iterations = sorted(found)
    last = len(iterations) - 1
    kept = {round(k * last / (LOOKS - 1)) for k in range(LOOKS)} if last >= LOOKS else set(range(last + 1))
    if best in found and (place := iterations.index(best)) not in kept:
        kept.remove(min(kept - {0, last}, key=lambda k: abs(k - place)))
        kept.add(place)
    return {iterations[k]: found[iterations[k]] for k in sorted(kept) if _is_snapshot(found[iterations[k]], of)}


def _is_snapshot(path: Path, of: str) -> bool:
    """Whether all of a snapshot is what was written."""
    try:
        return "X" in read_tensors(path, kind=SNAPSHOT, of=of).tensors
    except (OSError, Damaged):
        return False


def _looks(module: nn.Module, snapshots: Mapping[int, Path], images: Tensor, classes: Tensor) -> tuple[dict[int, Tensor], Tensor]:
    """The features (P, D) of the same images at every snapshot, or without any those of the set itself; their positions (P,)."""
    whole = list(range(len(classes)))
    held = {iteration: read_tensor_header(path, SNAPSHOT).metadata.get("positions", whole) for iteration, path in snapshots.items()}
    common = sorted(set(whole).intersection(*held.values()))
    positions = torch.tensor(common)[torch.from_numpy(evenly(classes[common].numpy(), DISTILLED))]
    looks = {}
    for iteration, path in snapshots.items():
        place = {position: row for row, position in enumerate(held[iteration])}
        rows = torch.tensor([place[position] for position in positions.tolist()])
        looks[iteration] = read_tensors(path, kind=SNAPSHOT).tensors["X"][rows].to(images)
    looks = looks or {0: images[positions.to(images.device)]}
    return {iteration: _finite(features_of(module, x).cpu()) for iteration, x in looks.items()}, positions


def _typical(features: Tensor, shown: Tensor) -> float | None:
    """The median distance from those shown to the nearest other one."""
    if len(features) < 2:
        return None
    found: Nearest = nearest(features[shown], features, 1, apart=shown)
    return float(np.median(found.distances.numpy()))


def _finite(features: Tensor) -> Tensor:
    require(bool(features.isfinite().all()), "features", "a value that is NaN or infinite", "finite")
    return features
