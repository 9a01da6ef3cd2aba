"""Values of settings by their keys."""

from typing import Any

from limbeck.runs.settings import DistillSettings


def value_of(settings: DistillSettings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value
