"""Limbeck distils a large image data set into a tiny synthetic one that trains a network almost as well.

The names below are imported when they are first used, so that `import limbeck` costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.data.load import load_data as load_data
    from limbeck.distilled.set import DistilledSet as DistilledSet
    from limbeck.experts.store import TrajectoryStore as TrajectoryStore
    from limbeck.runs.distill import distill as distill
    from limbeck.runs.distill import train_experts as train_experts
    from limbeck.runs.evaluate import evaluate as evaluate
    from limbeck.runs.settings import DistillSettings as DistillSettings

    __version__: str

_HOMES = {
    "DistillSettings": "limbeck.runs.settings",
    "DistilledSet": "limbeck.distilled.set",
    "TrajectoryStore": "limbeck.experts.store",
    "distill": "limbeck.runs.distill",
    "evaluate": "limbeck.runs.evaluate",
    "load_data": "limbeck.data.load",
    "train_experts": "limbeck.runs.distill",
}

__all__ = ["DistillSettings", "DistilledSet", "TrajectoryStore", "__version__", "distill", "evaluate", "load_data", "train_experts"]


def __getattr__(name: str) -> Any:
    """The public object of that name, imported now and kept (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("limbeck")
    elif name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'limbeck' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
