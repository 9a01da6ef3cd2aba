"""Limbeck distils a large image data set into a tiny synthetic one that trains a network almost as well.

The names below are imported when they are first used, so that `import limbeck` costs next to nothing. They keep their meaning
within a major version (semantic versions); whatever else the package holds may move.
"""

from typing import TYPE_CHECKING, Any

from limbeck.runtime.missing import say_what_is_missing
from limbeck.runtime.version import VERSION as __version__

if TYPE_CHECKING:
    from limbeck import figures as figures
    from limbeck import methods as methods
    from limbeck.accuracy import Accuracy as Accuracy
    from limbeck.accuracy import Comparison as Comparison
    from limbeck.augmentation import Augmentation as Augmentation
    from limbeck.augmentation import Dsa as Dsa
    from limbeck.data.imageset import ImageSet as ImageSet
    from limbeck.data.preprocessing import fit_normalise as fit_normalise
    from limbeck.distilled.hub import pull as pull
    from limbeck.distilled.hub import push as push
    from limbeck.distilled.set import DistilledSet as DistilledSet
    from limbeck.distilled.small_set import SmallSet as SmallSet
    from limbeck.evaluation.protocols import Protocol as Protocol
    from limbeck.evaluation.results import Evaluation as Evaluation
    from limbeck.experts.store import TrajectoryStore as TrajectoryStore
    from limbeck.image_complexity.run import complexity as complexity
    from limbeck.losses import cross_entropy as cross_entropy
    from limbeck.losses import soft_cross_entropy as soft_cross_entropy
    from limbeck.matching.adjoint import Adjoint as Adjoint
    from limbeck.matching.adjoint import Exact as Exact
    from limbeck.matching.adjoint import Gradients as Gradients
    from limbeck.matching.adjoint import InnerLoop as InnerLoop
    from limbeck.matching.adjoint import Tesla as Tesla
    from limbeck.matching.adjoint import Truncated as Truncated
    from limbeck.matching.adjoint import Unroll as Unroll
    from limbeck.matching.criteria import Criterion as Criterion
    from limbeck.matching.criteria import KeepAll as KeepAll
    from limbeck.matching.criteria import LayerDropout as LayerDropout
    from limbeck.matching.criteria import LowLossDropout as LowLossDropout
    from limbeck.matching.distances import Distance as Distance
    from limbeck.matching.distances import LayerCosine as LayerCosine
    from limbeck.matching.distances import MatchingLoss as MatchingLoss
    from limbeck.matching.distances import SquaredError as SquaredError
    from limbeck.matching.schedules import Schedule as Schedule
    from limbeck.matching.schedules import Sequential as Sequential
    from limbeck.matching.schedules import Uniform as Uniform
    from limbeck.matching.steps import StudentStep as StudentStep
    from limbeck.matching.steps import draw_steps as draw_steps
    from limbeck.methods.method import Method as Method
    from limbeck.methods.objective import Objective as Objective
    from limbeck.methods.snapshots import Snapshot as Snapshot
    from limbeck.networks.flat import FlatNetwork as FlatNetwork
    from limbeck.networks.flat import flat_network as flat_network
    from limbeck.parametrisations.dct import Dct as Dct
    from limbeck.parametrisations.multi_formation import MultiFormation as MultiFormation
    from limbeck.parametrisations.parametrisation import Parametrisation as Parametrisation
    from limbeck.parametrisations.parametrisation import Pixels as Pixels
    from limbeck.report.exhibits import figures_of as figures_of
    from limbeck.report.notebook import film as film
    from limbeck.report.write import write_report as write_report
    from limbeck.reproduction.results import Reproduction as Reproduction
    from limbeck.reproduction.run import reproduce as reproduce
    from limbeck.runs.api import distill as distill
    from limbeck.runs.api import evaluate as evaluate
    from limbeck.runs.api import load_data as load_data
    from limbeck.runs.api import train_experts as train_experts
    from limbeck.runs.api import tune as tune
    from limbeck.runs.results import RunResult as RunResult
    from limbeck.runs.settings import DistillSettings as DistillSettings
    from limbeck.runtime.errors import Failure as Failure
    from limbeck.runtime.errors import UsageError as UsageError
    from limbeck.runtime.executor.on_ray import Ray as Ray
    from limbeck.runtime.progress import Progress as Progress
    from limbeck.saliency.maps import Cam as Cam
    from limbeck.saliency.maps import TorchCam as TorchCam
    from limbeck.saliency.weights import Activation as Activation
    from limbeck.saliency.weights import Weighting as Weighting
    from limbeck.saliency.weights import activation_weights as activation_weights
    from limbeck.studies.compare import compare as compare
    from limbeck.studies.table import Table as Table

_HOMES = {
    "augmentation": ("Augmentation", "Dsa"),
    "data.imageset": ("ImageSet",),
    "data.preprocessing": ("fit_normalise",),
    "distilled.hub": ("pull", "push"),
    "distilled.set": ("DistilledSet",),
    "distilled.small_set": ("SmallSet",),
    "evaluation.protocols": ("Protocol",),
    "accuracy": ("Accuracy", "Comparison"),
    "evaluation.results": ("Evaluation",),
    "experts.store": ("TrajectoryStore",),
    "image_complexity.run": ("complexity",),
    "losses": ("cross_entropy", "soft_cross_entropy"),
    "matching.adjoint": ("Adjoint", "Exact", "Gradients", "InnerLoop", "Tesla", "Truncated", "Unroll"),
    "matching.criteria": ("Criterion", "KeepAll", "LayerDropout", "LowLossDropout"),
    "matching.distances": ("Distance", "LayerCosine", "MatchingLoss", "SquaredError"),
    "matching.schedules": ("Schedule", "Sequential", "Uniform"),
    "matching.steps": ("StudentStep", "draw_steps"),
    "methods.method": ("Method",),
    "methods.objective": ("Objective",),
    "methods.snapshots": ("Snapshot",),
    "networks.flat": ("FlatNetwork", "flat_network"),
    "parametrisations.dct": ("Dct",),
    "parametrisations.multi_formation": ("MultiFormation",),
    "parametrisations.parametrisation": ("Parametrisation", "Pixels"),
    "report.exhibits": ("figures_of",),
    "report.notebook": ("film",),
    "report.write": ("write_report",),
    "reproduction.results": ("Reproduction",),
    "reproduction.run": ("reproduce",),
    "runs.api": ("distill", "evaluate", "load_data", "train_experts", "tune"),
    "runs.results": ("RunResult",),
    "runs.settings": ("DistillSettings",),
    "runtime.errors": ("Failure", "UsageError"),
    "runtime.executor.on_ray": ("Ray",),
    "runtime.progress": ("Progress",),
    "saliency.maps": ("Cam", "TorchCam"),
    "saliency.weights": ("Activation", "Weighting", "activation_weights"),
    "studies.compare": ("compare",),
    "studies.table": ("Table",),
}
_HOME_OF = {name: f"limbeck.{home}" for home, names in _HOMES.items() for name in names}

say_what_is_missing()

__all__ = ["__version__", "figures", "methods", *_HOME_OF]


def __getattr__(name: str) -> Any:
    """The public object of that name, imported now and kept (PEP 562)."""
    from importlib import import_module

    if name in ("figures", "methods"):
        value: Any = import_module(f"limbeck.{name}")
    elif name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module 'limbeck' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
