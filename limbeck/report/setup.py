"""What a run was made with: experts, time, settings, environment."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.accuracy import percent
from limbeck.report.contents import Run
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.fingerprint import encodable
from limbeck.runtime.tables import duration

STAGES = {
    "experts": "Experts",
    "initial": "Initial images and labels",
    "compile": "Compilation",
    "distil": "Distillation",
    "build": "Making the images",
    "label views": "Labels of views",
    "evaluate": "Final evaluation",
    "features": "Map of features",
}


@dataclass(frozen=True)
class Making:
    """The experts, as pairs of name and value, and every stage with its time and its share of the longest one, in percent."""

    experts: list[tuple[str, str]]
    seconds: list[tuple[str, str, float | None]]


def making(run: Run) -> Making | None:
    """What it took to make the set; None where nothing is known."""
    made = Making(_experts(run), _seconds(run))
    return made if made.experts or made.seconds else None


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


def environment(run: Run) -> list[tuple[str, str]]:
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


def settings(run: Run) -> "tuple[Setting, ...]":
    """Every setting, those that are not the defaults marked."""
    return _tree(run.settings, encodable(DistillSettings()))


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
