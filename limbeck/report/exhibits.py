"""`figures_of`: everything that can be drawn of a run, a distilled set, a comparison, a benchmark, complexities or experts.

What a folder is is seen from its files. The same figures become files for papers by `limbeck report --figures`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from limbeck.distilled.set import DistilledSet
from limbeck.experts.store import TrajectoryStore
from limbeck.figures import complexity, experts
from limbeck.figures.comparisons import comparison_figure, recovery_figure
from limbeck.figures.exhibit import Exhibit
from limbeck.image_complexity.results import Summary
from limbeck.image_complexity.run import SUMMARY
from limbeck.report.contents import is_run, read_run
from limbeck.report.exhibits_of_runs import of_run, of_set, of_several
from limbeck.runtime.errors import UsageError, one_line, require
from limbeck.runtime.files import read_json
from limbeck.runtime.located import here
from limbeck.runtime.sealed import FileKind
from limbeck.studies.recovery import RECOVERY, Recovery
from limbeck.studies.table import Table

ACCEPTED = "the folder of a run, a distilled set, a comparison, comp-dd, complexity or experts"
T = TypeVar("T")


def figures_of(*paths: Path | str) -> dict[str, Exhibit]:
    """What can be drawn of what lies in a folder, or of several runs and sets side by side: figures with captions, by name.

    Args:
        paths: the folder of a run, a distilled set, a comparison, `comp-dd`, `complexity` or experts; or several of runs and sets.

    Raises:
        UsageError: when a folder is none of these, or there is nothing to draw.

    Example:
        >>> import limbeck
        >>> quick = {"size": 16, "per_class": 12, "epochs": 1, "full_epochs": 1, "random_lr": 0.01}
        >>> run = limbeck.distill("scenes:easy", "random", network="ConvNetD2-w4", output="runs/a", **quick)
        >>> limbeck.figures_of("runs/a")["grid"].figure
        <Figure size 850x106 with 1 Axes>
    """
    require(len(paths) > 0, "PATH", "", ACCEPTED)
    places = [Path(here("PATH", str(path))) for path in paths]
    found = _of(places[0]) if len(places) == 1 else of_several(places)
    if not found:
        raise UsageError(f"PATH: there is nothing to draw in {', '.join(repr(str(path)) for path in places)} yet")
    return {one.name: one for one in found}


def _of(path: Path) -> list[Exhibit]:
    require(path.is_dir(), "PATH", str(path), ACCEPTED)
    for file, make in STUDIES.items():
        if (path / file).is_file():
            return make(path / file)
    if DistilledSet.is_at(path):
        return of_set(DistilledSet.load(path))
    if next(path.glob("expert-*"), None) is not None:
        return _of_experts(TrajectoryStore(path))
    require(is_run(path), "PATH", str(path), ACCEPTED)
    return of_run(read_run(path))


def _of_comparison(file: Path) -> list[Exhibit]:
    table = Table.read(file)
    figure = comparison_figure(table.sections)
    caption = "Mean test accuracy with its 95 % interval over distillation seeds; a pale dot below for every seed."
    return [] if figure is None else [Exhibit("accuracies", table.title, caption, figure, wide=True)]


def _of_benchmark(file: Path) -> list[Exhibit]:
    held = _read(file, RECOVERY, Recovery.from_dict)
    figure = recovery_figure(held.tables, held.levels)
    caption = "Mean ratio of a method's accuracy to that of the full data, with its 95 % interval over distillation seeds."
    return [] if figure is None else [Exhibit("recovery", held.title, caption, figure, wide=True)]


def _of_complexity(file: Path) -> list[Exhibit]:
    held = _read(file, SUMMARY, Summary.from_dict)
    name = Path(held.data.source).name or held.data.source
    classes = "How many classes have which complexity, at every threshold; a mark below for every class."
    ranking = "Mean complexity of the images of a class with its 95 % interval, the easiest class above."
    maps = "Distribution over images of the mean activation and of the share of an image above its map's mean."
    return [
        Exhibit("classes", "Complexity of classes", classes, complexity.class_distribution(held)),
        Exhibit("ranking", "Classes by complexity", ranking, complexity.class_ranking(held)),
        Exhibit("maps", "Activation maps", maps, complexity.map_statistics({name: held}), wide=True),
    ]


def _of_experts(store: TrajectoryStore) -> list[Exhibit]:
    curves = {expert: store.accuracies(expert) for expert in store.experts}
    held = {expert: store.held(expert) for expert in store.experts}
    caption = "Validation accuracy after every epoch: each expert and their mean; at the bottom, which epochs are held."
    return [Exhibit("experts", "Experts", caption, experts.expert_curves(curves, held, store.difficulties()))]


STUDIES: Mapping[str, Callable[[Path], list[Exhibit]]] = {
    "comparison.json": _of_comparison,
    "comp-dd.json": _of_benchmark,
    "complexity.json": _of_complexity,
}


def _read(file: Path, kind: FileKind, make: Callable[[Any], T]) -> T:
    """What a study has written.

    Raises:
        UsageError: when the file is something else.
    """
    try:
        return make(read_json(file, kind))
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UsageError(f"PATH: {str(file)!r} cannot be read ({one_line(error)})") from error
