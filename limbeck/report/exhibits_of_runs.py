"""The figures of runs and of distilled sets: what the images are, what their maps say, how the run got on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from limbeck.accuracy import TITLES, percent
from limbeck.data.preprocessing import Preprocessing
from limbeck.distilled.contrast import Contrast, told
from limbeck.distilled.contrast import shown as contrasted
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.areas import discriminative_area
from limbeck.figures.areas import area_distribution
from limbeck.figures.comparisons import accuracy_figure
from limbeck.figures.exhibit import Exhibit
from limbeck.figures.features import feature_plane
from limbeck.figures.images import Strip, coloured, image_grid, overlaid, shown, strips_of
from limbeck.report.contents import Run, Snapshot, is_run, read_run
from limbeck.report.of_runs import names
from limbeck.report.plots import curves_of
from limbeck.runs.feature_map import FeatureMap
from limbeck.runtime.errors import require
from limbeck.runtime.files import read_tensors
from limbeck.runtime.sealed import Damaged

PER_CLASS, WITH_MAPS, LOOKS = 10, 3, 6  # images of a class in a grid and beside their maps; snapshots beside each other
SIDE_BY_SIDE = 10  # classes of several sets
ACROSS = "test accuracy (%)"


def of_set(held: DistilledSet) -> list[Exhibit]:
    """The images of a distilled set."""
    strips = strips_of(held, PER_CLASS)
    count = "The images" if held.set.ipc <= PER_CLASS else f"The first {PER_CLASS} of up to {held.set.ipc} images"
    _, contrast = contrasted(held)
    caption = f"{count} of every class. {told(held.preprocessing, contrast)}"
    if (number := shown(strips)) < held.num_classes:
        caption += f" Shown are {number} of {held.num_classes} classes."
    return [Exhibit("grid", "Distilled images", caption, image_grid(strips), wide=True)]


def of_run(run: Run) -> list[Exhibit]:
    """Everything that can be drawn of a run."""
    made = of_set(run.distilled) if run.distilled is not None else []
    if run.distilled is not None and run.snapshots:
        made += _of_snapshots(run, run.distilled)
    made += _features(run)
    if run.result is not None:
        known = {TITLES[name]: one for name, one in run.result.accuracy.items() if one.known}
        if known:
            caption = (
                "Of networks trained on the distilled images and on others: mean, 95 % interval, and a pale dot for every network."
            )
            made.append(Exhibit("accuracies", "Test accuracy", caption, accuracy_figure(known, ACROSS)))
    return made + curves_of(run)


def of_several(paths: Sequence[Path]) -> list[Exhibit]:
    """Runs and sets side by side.

    Raises:
        UsageError: when a folder is neither, or is given twice.
    """
    require(len({path.resolve() for path in paths}) == len(paths), "PATH", ", ".join(map(str, paths)), "different folders")
    accuracies, sets = {}, {}
    for name, path in zip(names(paths), paths, strict=True):
        if DistilledSet.is_at(path):
            sets[name] = DistilledSet.load(path)
            continue
        require(is_run(path), "PATH", str(path), "a run or a distilled set, of which several can be drawn side by side")
        run = read_run(path)
        if run.distilled is not None:
            sets[name] = run.distilled
        if run.result is not None and run.result.accuracy.distilled.known:
            accuracies[name] = run.result.accuracy.distilled
    caption = "Of networks trained on each run's distilled images: mean, 95 % interval, and a pale dot for every network."
    made = [Exhibit("accuracies", "Test accuracy", caption, accuracy_figure(accuracies, ACROSS))] if accuracies else []
    return made + _side_by_side(sets)


def _side_by_side(sets: dict[str, DistilledSet]) -> list[Exhibit]:
    """The first image of the classes that all sets have, a row for every set; nothing where images differ in size."""
    if len(sets) < 2 or len({held.shape[1:] for held in sets.values()}) > 1:
        return []
    shown = {name: {strip.name: strip.images[:1] for strip in strips_of(held, 1)} for name, held in sets.items()}
    first = next(iter(shown.values()))
    common = [name for name in first if all(name in of for of in shown.values())][:SIDE_BY_SIDE]
    if not common:
        return []
    strips = [Strip(name, np.concatenate([of[one] for one in common])) for name, of in shown.items()]
    caption = "The first image of the same classes, a row for every set, each set with a contrast of its own."
    return [Exhibit("side-by-side", "Distilled images side by side", caption, image_grid(strips, common, blocks=1), wide=True)]


@dataclass(frozen=True, eq=False)
class _Look:
    """A snapshot: uint8 images (N, H, W, 3), maps in [0, 1] with shape (N, h, w) where there are any, positions in the set."""

    iteration: int
    images: np.ndarray
    maps: torch.Tensor | None
    positions: list[int]


def _look(snapshot: Snapshot, preprocessing: Preprocessing, contrast: Contrast) -> _Look:
    tensors, header = read_tensors(snapshot.path)
    images, maps = contrast.levels(preprocessing.inverse(tensors["X"].float()).nan_to_num()), tensors.get("maps")
    known = maps is not None and maps.shape[:1] == tensors["X"].shape[:1] and bool(maps.any()) and bool(maps.isfinite().all())
    positions = header.get("positions", list(range(len(images))))
    return _Look(snapshot.iteration, coloured(images), maps.clamp(0, 1) if maps is not None and known else None, positions)


def _of_snapshots(run: Run, held: DistilledSet) -> list[Exhibit]:
    """How images came to be, and what their activation maps say."""
    last = len(run.snapshots) - 1
    best = next((k for k, one in enumerate(run.snapshots) if one.iteration == run.best_iteration), last)
    chosen = sorted({*(round(k * last / (LOOKS - 1)) for k in range(LOOKS)), best})
    _, contrast = contrasted(held)
    looks = {k: _look(run.snapshots[k], held.preprocessing, contrast) for k in chosen}
    made = _evolution([looks[k] for k in chosen if k != best or best == last or len(chosen) <= LOOKS], held)
    if looks[best].maps is not None:
        made.append(_with_maps(looks[best], held))
    return made + _areas(run, looks[0], looks[best])


def _evolution(looks: Sequence[_Look], held: DistilledSet) -> list[Exhibit]:
    """The first image of every class that all of these snapshots have, over the iterations."""
    common = sorted(set.intersection(*(set(look.positions) for look in looks)))
    classes = held.classes.tolist()
    firsts = {classes[position]: position for position in reversed(common) if position < len(classes)}
    if len(looks) < 2 or not firsts:
        return []
    strips = [
        Strip(held.class_names[k], np.stack([look.images[look.positions.index(firsts[k])] for look in looks]))
        for k in sorted(firsts)
    ]
    heads = [str(look.iteration) for look in looks]
    caption = "The first image of every class after so many iterations."
    if (number := shown(strips, heads)) < held.num_classes:
        caption += f" Shown are {number} of {held.num_classes} classes."
    return [Exhibit("evolution", "Images over the iterations", caption, image_grid(strips, heads), wide=True)]


def _with_maps(look: _Look, held: DistilledSet) -> Exhibit:
    """The first images of every class, and beside them their maps."""
    assert look.maps is not None
    classes = held.classes[torch.tensor(look.positions)].numpy()
    strips = []
    for k, name in enumerate(held.class_names):
        rows = np.flatnonzero(classes == k)[:WITH_MAPS]
        if len(rows):
            images = look.images[rows]
            strips.append(Strip(name, np.concatenate([images, overlaid(images, look.maps[rows].float().numpy())])))
    caption = (
        f"Images after {look.iteration} iterations, and over them in grey what speaks for their class: violet little, yellow much."
    )
    if (number := shown(strips)) < held.num_classes:
        caption += f" Shown are {number} of {held.num_classes} classes."
    return Exhibit("maps", "Activation maps", caption, image_grid(strips), wide=True)


def _areas(run: Run, first: _Look, best: _Look) -> list[Exhibit]:
    """The discriminative area at the start and in the result."""
    if first.maps is None or best.maps is None or first.iteration == best.iteration:
        return []
    both = sorted(set(first.positions) & set(best.positions))
    areas = {
        f"after {look.iteration} iterations": discriminative_area(look.maps[[look.positions.index(one) for one in both]]).numpy()
        for look in (first, best)
        if look.maps is not None
    }
    before, after = (percent(float(one.mean())) for one in areas.values())
    caption = (
        f"The share of an image above its activation map's mean, of {len(both)} images, by the maps that weighted the gradient: "
        f"on average {before}, then {after}. Upwards the share of images, below a mark for every image."
    )
    return [Exhibit("areas", "Discriminative area", caption, area_distribution(areas))]


def _features(run: Run) -> list[Exhibit]:
    """Where real and distilled images lie for a network; nothing in folders of earlier versions."""
    try:
        held = FeatureMap.read(run.path)
    except (OSError, Damaged):
        return []
    count = 1 + max(int(one.max()) for one in (held.real_classes, held.classes))
    names = run.distilled.class_names if run.distilled is not None else tuple(f"class {k}" for k in range(count))
    if len(names) < count:
        return []
    about = held.about
    real, real_classes, paths, classes = (one.numpy() for one in (held.real, held.real_classes, held.paths, held.classes))
    way = f"{about.way} of {about.dimensions} features of {about.network}"
    way += "" if about.share is None else f", which shows {percent(about.share)} of their variance"
    course, paths = "", paths[: held.result + 1]  # the way that led to the result
    if len(paths) > 1:
        course = f" Rings and lines: their way, from iteration {about.iterations[0]} to {about.iterations[len(paths) - 1]}."
    caption = f"{way}: small marks are {len(held.real)} real images, large ones {len(held.positions)} distilled ones.{course}"
    return [Exhibit("features", "Real and distilled images", caption, feature_plane(real, real_classes, paths, classes, names))]
