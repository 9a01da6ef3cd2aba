"""`figures_of`: everything that can be drawn of a run, a distilled set, a comparison, a benchmark, complexities or experts.

The same figures become files for papers by `limbeck report --figures`.
"""

from dataclasses import replace
from pathlib import Path

from limbeck.figures.exhibit import Exhibit
from limbeck.report.exhibits_of_runs import of_several
from limbeck.report.kinds import DRAWN, as_usage, kind_of
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.located import here, origin


def figures_of(*paths: Path | str) -> dict[str, Exhibit]:
    """What can be drawn of what lies in a folder, or of several runs and sets side by side: figures with captions, by name.

    Args:
        paths: the folder of a run, a distilled set, a comparison, `comp-dd`, `complexity`, `reproduce` or experts; or several of
            runs and sets.

    Raises:
        UsageError: when a folder is none of these, or there is nothing to draw.

    Example:
        >>> import limbeck
        >>> quick = {"size": 16, "per_class": 12, "epochs": 1, "full_epochs": 1, "random_lr": 0.01}
        >>> run = limbeck.distill("scenes:easy", "random", network="ConvNetD2-w4", output="runs/a", **quick)
        >>> limbeck.figures_of("runs/a")["grid"].figure
        <Figure size 850x106 with 1 Axes>
    """
    require(len(paths) > 0, "PATH", None, DRAWN)
    places = [Path(here("PATH", str(path))) for path in paths]
    if len(places) > 1:
        found = of_several(places)
    else:
        kind = kind_of(places[0], DRAWN)
        with as_usage(places, kind):
            found = kind.draw(places[0])
    if not found:
        raise UsageError(f"PATH: there is nothing to draw in {', '.join(repr(str(path)) for path in places)} yet")
    sources = tuple(origin(path) or str(path.resolve()) for path in places)
    return {one.name: replace(one, sources=sources) for one in found}
