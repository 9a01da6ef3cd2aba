"""`report.html`: one file that shows what a run did, needs nothing else and asks no server for anything."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from limbeck.accuracy import TITLES, Accuracy, percent, protocol_name
from limbeck.distilled.card import METHODS
from limbeck.evaluation.results import SetResult
from limbeck.evaluation.scores import told
from limbeck.report.contents import Run, read_run
from limbeck.report.film import film
from limbeck.report.pictures import gallery
from limbeck.report.plots import figures
from limbeck.runs.results import RunResult
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import one_line
from limbeck.runtime.files import write_text
from limbeck.runtime.fingerprint import encodable
from limbeck.runtime.tables import duration

T = TypeVar("T")
STAGES = {
    "experts": "Experts",
    "initial": "Initial images and labels",
    "compile": "Compilation",
    "distil": "Distillation",
    "evaluate": "Final evaluation",
}


def write_report(run: Path, target: Path | None = None) -> Path:
    """Write the page of a run, from the files in its folder alone; of a run that was stopped, what there is.

    Args:
        run: the folder.
        target: the page; None takes `report.html` in the folder.

    Raises:
        UsageError: when `run` is no run folder.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    held = read_run(Path(run))
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    result, part = held.result, _Parts(held.notes)
    page = environment.get_template("report.html.j2").render(
        title=part("the title", lambda: _title(held), "Distillation"),
        facts=part("the facts", lambda: _facts(held), []),
        unfinished=part("how far it came", lambda: _unfinished(held), None),
        tiles=part("the headline", lambda: [] if result is None else _headline(result), []),
        bars=part("the accuracies", lambda: [] if result is None else _bars(result), []),
        gallery=part("the images", lambda: gallery(held.distilled) if held.distilled is not None else None, None),
        film=part("the snapshots", lambda: film(held), None),
        figures=part("the figures", lambda: figures(held), []),
        measured=part("how it was measured", lambda: [] if result is None else _measured(result.evaluation), []),
        experts=part("the experts", lambda: _experts(held), []),
        seconds=part("the times", lambda: _seconds(held), []),
        settings=part("the settings", lambda: _tree(held.settings, encodable(DistillSettings())), ()),
        environment=part("the environment", lambda: _environment(held), []),
        notes=part.notes + part("the doubts", lambda: [] if result is None else _doubts(result), []),
    )
    target = held.path / "report.html" if target is None else target
    write_text(target, page.encode(errors="backslashreplace").decode())  # a name may be no Unicode text
    return target


class _Parts:
    """Makes the parts of a page; of files that hold something else than a run leaves, a part may be missing, which a note says."""

    def __init__(self, notes: Sequence[str]) -> None:
        self.notes = list(notes)

    def __call__(self, name: str, make: Callable[[], T], otherwise: Any) -> T:
        try:
            return make()
        except Exception as error:  # whatever such files lead to
            self.notes.append(f"{name} could not be shown ({type(error).__name__}: {one_line(error, 100)})")
            missing: T = otherwise
            return missing


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
        facts.append(f"{ipc} image{'s' * (ipc != 1)} per class")
    return [*facts, str(network)] if network else facts


def _unfinished(run: Run) -> str | None:
    """How far a run came that has no results."""
    if run.result is not None:
        return None
    done, wanted = len(run.iterations), _setting(run, "outer", "iterations")
    return f"{done} of {wanted} iterations" if wanted else f"{done} iterations"


def _doubts(result: RunResult) -> list[str]:
    """What speaks against what was found, a sentence each."""
    return [*result.warnings, *result.accuracy.failures, *told(result.evaluation.doubts)]


def _headline(result: RunResult) -> list[dict[str, str]]:
    """The few numbers that matter most, each with what it is and what it is to be compared with."""
    distilled, random, full = result.accuracy.distilled, result.accuracy.random, result.accuracy.full
    if not distilled.known:
        return []
    interval = "" if distilled.ci95 is None else f"95 % interval {distilled.interval}"
    value = "failed" if distilled.all_failed else percent(distilled.mean)
    tiles = [{"value": value, "name": "test accuracy from the distilled images alone", "more": interval}]
    if random.mean > 0:
        times = f"{distilled.mean / random.mean:.2f} ×"
        tiles.append({"value": times, "name": "the accuracy of as many random real images", "more": f"random images: {random}"})
    if result.recovery_ratio is not None:
        more = f"full training data: {full}" if full.known else ""
        name = "of the full training data's accuracy recovered"
        tiles.append({"value": percent(result.recovery_ratio), "name": name, "more": more})
    return tiles


def _bars(result: RunResult) -> "list[Bar]":
    bars = [Bar(name, row) for name, row in result.accuracy.items()]
    for bar in bars:  # of what is read from a file, before the page asks for it
        _ = bar.ends, str(bar.accuracy), bar.accuracy.interval, round(100 * bar.accuracy.mean, 2)
    return bars


@dataclass(frozen=True)
class Bar:
    """A row of the table of accuracies."""

    name: str
    accuracy: Accuracy

    @property
    def title(self) -> str:
        """What networks were trained on."""
        return TITLES[self.name]

    @property
    def ends(self) -> tuple[float, float]:
        """Where the interval begins and how wide it is, in percent of the bar's width."""
        low, high = (100 * min(max(end, 0.0), 1.0) for end in self.accuracy.ci95 or (self.accuracy.mean, self.accuracy.mean))
        return round(low, 2), round(high - low, 2)


def _measured(result: SetResult) -> list[tuple[str, str]]:
    """How the accuracies were measured and what else they say, as pairs of name and value."""
    pairs = []
    if "name" in result.protocol:
        pairs.append(("Protocol", f"{protocol_name(result.protocol)}, network {result.network}"))
    if said := result.accuracy.step_sizes:
        pairs.append(("Step sizes", said))
    if (gain := result.gain) is not None and gain.ci95 is not None:
        pairs.append(("Over random images, paired by seed", f"{gain.points} points, 95 % interval, p = {gain.p:.2g}"))
    if (lossless := result.lossless) is not None and lossless.lossless is not None:
        floor = f" ({percent(lossless.floor)} would be)" if lossless.floor is not None else ""
        pairs.append(("Lossless, to one standard deviation", "yes" if lossless.lossless else f"no{floor}"))
    if result.compression is not None:
        size = result.compression.images
        pairs.append(("Images", f"{size.distilled} instead of {size.real} ({percent(size.ratio)})"))
    if result.predictions is not None and (error := result.predictions.calibration_error) is not None:
        pairs.append(("Expected calibration error", percent(error.mean)))
    for name, row in result.networks.items():
        beside = [row.accuracy.step_sizes, *told(row.doubts)]
        shown = f"{row.accuracy.distilled} (random {row.accuracy.random})"
        pairs.append((f"With {name}", "; ".join([shown, *filter(None, beside)])))
    return pairs


def _experts(run: Run) -> list[tuple[str, str]]:
    """What is known of the experts, as pairs of name and value."""
    known = run.result.experts if run.result is not None else None
    values = [value for value in known.last_epoch_accuracy if value is not None] if known is not None else []
    pairs = [("Experts", str(known.num_experts))] if known is not None and known.num_experts is not None else []
    if values:
        text = percent(math.fsum(values) / len(values))
        text += f" ({percent(min(values))} to {percent(max(values))})" if len(values) > 1 else ""
        pairs.append(("Validation accuracy, last epoch", text))
    if "train_epochs" in (branch := run.settings.get("experts") or {}):
        pairs.append(("Epochs of each", str(branch["train_epochs"])))
    return pairs


def _seconds(run: Run) -> list[tuple[str, str, float | None]]:
    """Every stage with its time and its share of the longest one, in percent."""
    held = (run.result.seconds if run.result is not None else {}) or run.state.get("stages") or {}
    times = {name: float(value) for name, value in held.items() if isinstance(value, (int, float))}
    longest, total = max(times.values(), default=0.0), math.fsum(times.values())
    shares = {name: 100 * value / longest if longest else 0.0 for name, value in times.items()}
    rows = [(STAGES.get(name, name), duration(value), shares[name]) for name, value in times.items()]
    return [*rows, ("Total", duration(total), None)] if len(rows) > 1 else [*rows]


def _environment(run: Run) -> list[tuple[str, str]]:
    """With what the results were computed, and what was decided automatically."""
    metadata = run.distilled.metadata if run.distilled is not None else {}
    noted = run.result.evaluation.environment if run.result is not None else {}
    known = noted or metadata.get("versions") or run.state.get("environment") or {}
    prints = {f"fingerprint of {key}": value for key, value in (metadata.get("fingerprints") or {}).items()}
    resolved = {key: value for key, value in (run.state.get("resolved") or {}).items() if key not in known}
    return [(key, text(value)) for part in (known, resolved, prints) for key, value in part.items()]


@dataclass(frozen=True)
class Setting:
    """A setting, or a group of some: `changed` where it, or any below it, is not the default."""

    key: str
    changed: bool
    value: str = ""
    children: "tuple[Setting, ...] | None" = None


def _tree(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[Setting, ...]:
    """Settings as nested rows."""
    rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            below = defaults.get(key)
            children = _tree(value, below if isinstance(below, Mapping) else {})
            rows.append(Setting(key, any(row.changed for row in children), children=children))
        else:
            rows.append(Setting(key, key not in defaults or defaults[key] != value, text(value)))
    return tuple(rows)


def text(value: Any) -> str:
    """A setting as it would be written in a recipe."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(text(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text(item)}" for key, item in value.items())
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _setting(run: Run, *keys: str) -> Any:
    """A setting, or None."""
    value: Any = run.settings
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
