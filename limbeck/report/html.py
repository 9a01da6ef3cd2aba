"""`report.html`: one file that shows what a run did, needs nothing else and asks no server for anything."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.accuracy import TITLES, Accuracies, Accuracy, percent, protocol_name
from limbeck.distilled.card import METHODS
from limbeck.evaluation.results import SetResult
from limbeck.report.contents import Run, read_run
from limbeck.report.film import film
from limbeck.report.pictures import gallery
from limbeck.report.plots import figures
from limbeck.runs.results import RunResult
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.files import write_text
from limbeck.runtime.fingerprint import encodable

STAGES = {
    "experts": "Experts",
    "initial": "Initial images and labels",
    "compile": "Compilation",
    "distil": "Distillation",
    "evaluate": "Final evaluation",
}


def write_report(run: Path) -> Path:
    """Write `report.html` into the run folder, from the files in it alone; of a run that was stopped, what there is.

    Raises:
        UsageError: when `run` is no run folder.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    held = read_run(Path(run))
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("report.html.j2").render(_content(held))
    target = held.path / "report.html"
    write_text(target, page)
    return target


def _content(run: Run) -> dict[str, Any]:
    """Everything the template names."""
    accuracies = Accuracies() if run.result is None else run.result.accuracy
    return {
        "title": _title(run),
        "facts": _facts(run),
        "unfinished": _unfinished(run),
        "notes": run.notes,
        "tiles": [] if run.result is None else _headline(run.result),
        "rows": [_bar(name, row) for name, row in accuracies.items()],
        "gallery": gallery(run.distilled) if run.distilled is not None else None,
        "film": film(run),
        "figures": figures(run),
        "measured": [] if run.result is None else _measured(run.result.evaluation),
        "experts": _experts(run),
        "seconds": _seconds(run),
        "settings": _tree(run.settings, encodable(DistillSettings())),
        "environment": _environment(run),
    }


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


def _headline(result: RunResult) -> list[dict[str, str]]:
    """The few numbers that matter most, each with what it is and what it is to be compared with."""
    distilled, random, full = result.accuracy.distilled, result.accuracy.random, result.accuracy.full
    if not distilled.known:
        return []
    interval = "" if distilled.ci95 is None else f"95 % interval {distilled.interval}"
    tiles = [{"value": percent(distilled.mean), "name": "test accuracy from the distilled images alone", "more": interval}]
    if random.mean > 0:
        times = f"{distilled.mean / random.mean:.2f} ×"
        tiles.append({"value": times, "name": "the accuracy of as many random real images", "more": f"random images: {random}"})
    if result.recovery_ratio is not None:
        more = f"full training data: {full}" if full.known else ""
        name = "of the full training data's accuracy recovered"
        tiles.append({"value": percent(result.recovery_ratio), "name": name, "more": more})
    return tiles


def _bar(name: str, row: Accuracy) -> dict[str, Any]:
    """A row of the table, and where its bar and its interval lie, in percent of the width."""
    low, high = (100 * min(max(end, 0.0), 1.0) for end in row.ci95 or (row.mean, row.mean))
    texts = {"name": name, "title": TITLES[name], "value": str(row), "bounds": row.interval, "n": row.n or "–"}
    return texts | {"mean": round(100 * row.mean, 2), "low": round(low, 2), "width": round(high - low, 2)}


def _measured(result: SetResult) -> list[tuple[str, str]]:
    """How the accuracies were measured and what else they say, as pairs of name and value."""
    pairs = []
    if "name" in result.protocol:
        pairs.append(("Protocol", f"{protocol_name(result.protocol)}, network {result.network}"))
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
        pairs.append((f"With {name}", f"{row.accuracy.distilled} (random {row.accuracy.random})"))
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


def _seconds(run: Run) -> list[dict[str, Any]]:
    """Every stage with its time and its share of the longest one."""
    held = (run.result.seconds if run.result is not None else {}) or run.state.get("stages") or {}
    times = {name: float(value) for name, value in held.items() if isinstance(value, (int, float))}
    longest, total = max(times.values(), default=0.0), math.fsum(times.values())
    rows = [
        {"name": STAGES.get(name, name), "time": duration(value), "share": 100 * value / longest if longest else 0.0}
        for name, value in times.items()
    ]
    return [*rows, {"name": "Total", "time": duration(total), "share": None}] if len(rows) > 1 else rows


def duration(seconds: float) -> str:
    """A time for people: 0.42 s, 12.3 s, 4 min 05 s, 2 h 07 min."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def _environment(run: Run) -> list[tuple[str, str]]:
    """With what the results were computed, and what was decided automatically."""
    metadata = run.distilled.metadata if run.distilled is not None else {}
    noted = run.result.evaluation.environment if run.result is not None else {}
    known = noted or metadata.get("versions") or run.state.get("environment") or {}
    prints = {f"fingerprint of {key}": value for key, value in (metadata.get("fingerprints") or {}).items()}
    resolved = {key: value for key, value in (run.state.get("resolved") or {}).items() if key not in known}
    return [(key, text(value)) for part in (known, resolved, prints) for key, value in part.items()]


def _tree(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings as nested rows; `changed` where they, or any below them, are not the default."""
    rows: list[dict[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            below = defaults.get(key)
            children = _tree(value, below if isinstance(below, Mapping) else {})
            rows.append({"key": key, "children": children, "changed": any(row["changed"] for row in children)})
        else:
            changed = key not in defaults or defaults[key] != value
            rows.append({"key": key, "value": text(value), "children": None, "changed": changed})
    return rows


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
