"""`report.html`: one file that shows what a run did, needs nothing else and asks no server for anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.accuracy import percent
from limbeck.distilled.card import METHODS
from limbeck.evaluation.scores import told
from limbeck.methods.health import told as told_lost
from limbeck.report.contents import Run, read_run
from limbeck.report.data import data
from limbeck.report.film import film
from limbeck.report.landscape import landscape
from limbeck.report.numbers import Numbers, numbers
from limbeck.report.outcome import accuracies, headline, measured
from limbeck.report.page import Attempts, Part, render
from limbeck.report.pictures import gallery
from limbeck.report.plots import figures
from limbeck.report.recovery import recovery
from limbeck.report.setup import environment, making, settings
from limbeck.runs.results import NO_CHANGE
from limbeck.runtime.files import write_text

MANY_LOST = 0.05  # of the iterations


def parts() -> tuple[Part[Run], ...]:
    """The parts of the page, in their order."""
    return (
        Part("headline", "the headline", headline),
        Part("recovery", "the recovery", recovery, styles=("recovery.css.j2",)),
        Part("accuracies", "the accuracies", accuracies, scripts=("tables.js.j2",)),
        Part("gallery", "the images", gallery, scripts=("panel.js.j2", "classes.js.j2")),
        Part("film", "the snapshots", film, scripts=("film.js.j2", "classes.js.j2")),
        Part("landscape", "the map of features", landscape, scripts=("landscape.js.j2",), styles=("landscape.css.j2",)),
        Part("curves", "the figures", curves, scripts=("tables.js.j2",)),
        Part("data", "the data", data, scripts=("tables.js.j2",), styles=("data.css.j2",)),
        Part("measured", "how it was measured", measured),
        Part("making", "experts and times", making),
        Part("settings", "the settings", settings),
        Part("environment", "the environment", environment),
    )


@dataclass(frozen=True)
class Curves:
    """The figures, and the numbers behind them."""

    figures: Sequence[Mapping[str, str]]
    numbers: Numbers


def curves(run: Run) -> Curves | None:
    """What a run has noted; None where there is nothing to draw."""
    drawn = figures(run)
    return Curves(drawn, numbers(run)) if drawn else None


def write_report(run: Path, target: Path | None = None) -> Path:
    """Write the page of a run, from the files in its folder alone; of a run that was stopped, what there is.

    Args:
        run: the folder.
        target: the page; None takes `report.html` in the folder.

    Raises:
        UsageError: when `run` is no run folder.
    """
    held = read_run(Path(run))
    target = held.path / "report.html" if target is None else target
    write_text(target, page_of(held))
    return target


def page_of(run: Run, before: Sequence[Part[Run]] = ()) -> str:
    """The page of a run that was read; parts of another's may come `before` its own."""
    attempts = Attempts(run.notes)
    return render(
        (*before, *parts()),
        run,
        title=attempts("the title", lambda: _title(run), "Distillation"),
        facts=attempts("the facts", lambda: _facts(run), []),
        notices=attempts("how far it came", lambda: _unfinished(run), []) + attempts("the doubts", lambda: _doubts(run), []),
        attempts=attempts,
    )


def _title(run: Run) -> str:
    source = Path(str(_setting(run, "data", "source") or "")).name
    return " · ".join(part for part in (str(run.settings.get("method") or "").upper(), source) if part) or "Distillation"


def _facts(run: Run) -> list[str]:
    """What the run is, in a few words each."""
    ipc, method, network = (run.settings.get(key) for key in ("ipc", "method", "network"))
    facts = [METHODS[method]] if method in METHODS else []
    if run.distilled is not None:
        facts.append(f"{run.distilled.num_classes} classes")
    if ipc is not None:
        unit = "image" if _setting(run, "parametrisation", "kind") in (None, "pixels") else "slot"
        facts.append(f"{ipc} {unit}{'s' * (ipc != 1)} per class")
    return [*facts, str(network)] if network else facts


def _unfinished(run: Run) -> list[str]:
    """How far a run came that has no results."""
    if run.result is not None:
        return []
    done, wanted = len(run.iterations), _setting(run, "outer", "iterations")
    came = f"{done} of {wanted} iterations" if wanted else f"{done} iterations"
    return [f"This run has not ended: {came} are done. Below is what there is so far."]


def _doubts(run: Run) -> list[str]:
    """What speaks against what was found, a sentence each."""
    if (result := run.result) is None:
        return [f"At iteration {row['iteration']} the loop went back: {row.get('why')}." for row in run.metrics.get("return", [])]
    lost, no_gain = result.skipped_share or 0.0, result.no_gain
    doubts = [*result.warnings, *result.accuracy.failures, *told(result.evaluation.doubts)]
    if lost > MANY_LOST:
        why = told_lost(result.skipped) if result.skipped else NO_CHANGE
        doubts.append(f"{percent(lost)} of the iterations changed nothing: {why}.")
    return [*doubts, f"{no_gain[0].upper()}{no_gain[1:]}."] if no_gain else doubts


def _setting(run: Run, *keys: str) -> Any:
    """A setting, or None."""
    value: Any = run.settings
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
