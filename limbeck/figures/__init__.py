"""Figures: each function takes numbers, images or results and returns a matplotlib `Figure`; `save` writes one for a paper.

    from limbeck import figures
    figures.save(figures.image_grid(figures.strips_of(run.distilled)), "grid", width=figures.PAGE)

`limbeck.figures_of(folder)` makes all figures that a folder has data for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.figures.areas import area_curve as area_curve
    from limbeck.figures.areas import area_distribution as area_distribution
    from limbeck.figures.comparisons import accuracy_figure as accuracy_figure
    from limbeck.figures.comparisons import comparison_figure as comparison_figure
    from limbeck.figures.comparisons import recovery_figure as recovery_figure
    from limbeck.figures.complexity import class_distribution as class_distribution
    from limbeck.figures.complexity import class_ranking as class_ranking
    from limbeck.figures.complexity import map_statistics as map_statistics
    from limbeck.figures.confusion import confusion_map as confusion_map
    from limbeck.figures.curves import accuracy_curve as accuracy_curve
    from limbeck.figures.curves import comparison_curves as comparison_curves
    from limbeck.figures.curves import gradient_curves as gradient_curves
    from limbeck.figures.curves import kept_share as kept_share
    from limbeck.figures.curves import loss_curve as loss_curve
    from limbeck.figures.curves import step_size_curve as step_size_curve
    from limbeck.figures.exhibit import Exhibit as Exhibit
    from limbeck.figures.exhibit import write_exhibits as write_exhibits
    from limbeck.figures.experts import expert_curves as expert_curves
    from limbeck.figures.features import feature_plane as feature_plane
    from limbeck.figures.images import Strip as Strip
    from limbeck.figures.images import image_grid as image_grid
    from limbeck.figures.images import overlaid as overlaid
    from limbeck.figures.images import strips_of as strips_of
    from limbeck.figures.paper import save as save
    from limbeck.figures.style import COLUMN as COLUMN
    from limbeck.figures.style import PAGE as PAGE

_HOMES = {
    "areas": ("area_curve", "area_distribution"),
    "comparisons": ("accuracy_figure", "comparison_figure", "recovery_figure"),
    "complexity": ("class_distribution", "class_ranking", "map_statistics"),
    "confusion": ("confusion_map",),
    "curves": ("accuracy_curve", "comparison_curves", "gradient_curves", "kept_share", "loss_curve", "step_size_curve"),
    "exhibit": ("Exhibit", "write_exhibits"),
    "experts": ("expert_curves",),
    "features": ("feature_plane",),
    "images": ("Strip", "image_grid", "overlaid", "strips_of"),
    "paper": ("save",),
    "style": ("COLUMN", "PAGE"),
}
_HOME_OF = {name: f"limbeck.figures.{home}" for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME_OF]


def __getattr__(name: str) -> Any:
    """The object of that name, imported now and kept."""
    from importlib import import_module

    if name not in _HOME_OF:
        raise AttributeError(f"module 'limbeck.figures' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
