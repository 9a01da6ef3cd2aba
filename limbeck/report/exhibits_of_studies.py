"""The figures of studies and of experts: what a comparison, a benchmark, complexities and a store of experts can be drawn as."""

from pathlib import Path

from limbeck.experts.store import TrajectoryStore
from limbeck.figures import complexity, experts
from limbeck.figures.comparisons import comparison_figure, recovery_figure
from limbeck.figures.exhibit import Exhibit
from limbeck.report.of_complexity import read_complexity
from limbeck.report.of_grids import read_recovery
from limbeck.studies.table import Table


def of_comparison(folder: Path) -> list[Exhibit]:
    """Methods with their intervals."""
    table = Table.read(folder)
    figure = comparison_figure(table.sections)
    caption = "Mean test accuracy with its 95 % interval over distillation seeds; a pale dot below for every seed."
    return [] if figure is None else [Exhibit("accuracies", table.title, caption, figure, wide=True)]


def of_benchmark(folder: Path) -> list[Exhibit]:
    """Recovery ratios by category and level."""
    held = read_recovery(folder)
    figure = recovery_figure(held.tables, held.levels)
    caption = "Mean ratio of a method's accuracy to that of the full data, with its 95 % interval over distillation seeds."
    return [] if figure is None else [Exhibit("recovery", held.title, caption, figure, wide=True)]


def of_complexity(folder: Path) -> list[Exhibit]:
    """How complexities, activations and areas are distributed."""
    held = read_complexity(folder)
    name = Path(held.data.source).name or held.data.source
    classes = "How many classes have which complexity, at every threshold; a mark below for every class."
    ranking = "Mean complexity of the images of a class with its 95 % interval, the easiest class above."
    maps = "Distribution over images of the mean activation and of the share of an image above its map's mean."
    return [
        Exhibit("classes", "Complexity of classes", classes, complexity.class_distribution(held)),
        Exhibit("ranking", "Classes by complexity", ranking, complexity.class_ranking(held)),
        Exhibit("maps", "Activation maps", maps, complexity.map_statistics({name: held}), wide=True),
    ]


def of_experts(folder: Path) -> list[Exhibit]:
    """Accuracies by epoch."""
    store = TrajectoryStore(folder)
    curves = {expert: store.accuracies(expert) for expert in store.experts}
    held = {expert: store.held(expert) for expert in store.experts}
    caption = "Validation accuracy after every epoch: each expert and their mean; at the bottom, which epochs are held."
    return [Exhibit("experts", "Experts", caption, experts.expert_curves(curves, held, store.difficulties()))]
