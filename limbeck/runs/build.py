"""From settings to objects: the one place where names become what computes.

Every key here holds one of its names, `package.module:Name` of the user's own, or, in Python, the object itself. What is
named in a module may be the object, a class or a function that makes it; these are given the settings of their group that they have
parameters for, such as `drop_ratio`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from limbeck.augmentation import Augmentation, Dsa
from limbeck.augmentation_settings import AugmentSettings
from limbeck.distilled.initial import INITIALISATIONS, Initialisation
from limbeck.distilled.settings import STARTS
from limbeck.losses import cross_entropy, soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, Exact, Tesla, Truncated, Unroll, WalkBack
from limbeck.matching.criteria import (
    Criterion,
    HighLossDropout,
    KeepAll,
    LayerDropout,
    LowLossDropout,
    RandomDropout,
    UniformDropout,
)
from limbeck.matching.distances import Distance, LayerCosine, SquaredError
from limbeck.matching.schedules import Schedule, Sequential, Uniform
from limbeck.matching.settings import EngineSettings, MatchSettings, ScheduleSettings
from limbeck.methods.materials import Matching
from limbeck.methods.method import Method
from limbeck.methods.registry import method_of
from limbeck.parametrisations import registry as parametrisations
from limbeck.parametrisations.parametrisation import Parametrisation
from limbeck.parametrisations.settings import ParametrisationSettings
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import require
from limbeck.runtime.plugins import blamed, imported, is_foreign, makes
from limbeck.saliency.maps import NOISELESS, Cam, FunctionCam, TorchCam
from limbeck.saliency.settings import EnhanceSettings
from limbeck.saliency.weights import Activation, Constant, NoWeighting, Shuffled, Weighting
from limbeck.training.gradient import Loss

T = TypeVar("T")


def matching_of(settings: DistillSettings, slots: int) -> Matching:
    """What is matched with what, in a set of that many slots."""
    match = settings.match
    return Matching(
        criterion=criterion_of(match),
        distance=distance_of(match),
        schedule=schedule_of(settings.schedule),
        syn_steps=match.syn_steps,
        expert_epochs=match.expert_epochs,
        batch_syn=batch_of(match, slots),
        small_chunk=match.small_chunk,
        relabel=match.relabel and settings.labels == "soft",
    )


def batch_of(settings: MatchSettings, slots: int) -> int | None:
    """B, images of a student step; None takes all."""
    return slots if settings.batch_syn == "slots" else settings.batch_syn


def criterion_of(settings: MatchSettings) -> Criterion:
    """Which parameters the loss keeps."""
    name, ratio = settings.criterion, settings.drop_ratio
    if _is_own(name):
        # A share of 0 is that nobody has said one.
        given = {"drop_side": settings.drop_side, **({"drop_ratio": ratio} if ratio else {})}
        return _object("match.criterion", name, Criterion, given)
    if name == "none" or ratio == 0:
        return KeepAll()
    low = LowLossDropout if settings.drop_side == "low" else HighLossDropout
    makers: dict[str, Callable[[float], Criterion]] = {"loss": low, "random": RandomDropout, "uniform": UniformDropout}
    if name in ("first", "middle", "last"):
        return LayerDropout(ratio, name)
    return makers[name](ratio)


def distance_of(settings: MatchSettings) -> Distance:
    """How the matching loss compares."""
    name = settings.distance
    if _is_own(name):
        return _object("match.distance", name, Distance, {})
    return LayerCosine() if name == "cosine" else SquaredError()


def schedule_of(settings: ScheduleSettings) -> Schedule:
    """Which start epochs an iteration may draw."""
    low, first, high = settings.min_start_epoch, settings.first_max_start_epoch, settings.max_start_epoch
    if _is_own(settings.kind):
        given = {"min_start_epoch": low, "first_max_start_epoch": first, "max_start_epoch": high, "iterations": settings.iterations}
        return _object("schedule.kind", settings.kind, Schedule, given)
    return Uniform(low, high) if settings.kind == "uniform" else Sequential(low, first, high, settings.iterations)


def epochs_of(settings: DistillSettings) -> list[int]:
    """The epochs of the experts that an iteration can read."""
    if method_of(settings.method).ends:
        return [0, settings.experts.train_epochs]
    return schedule_of(settings.schedule).epochs(settings.match.expert_epochs)


def weighting_of(settings: EnhanceSettings) -> Weighting:
    """What becomes of activation maps."""
    threshold = "mean" if settings.cam_threshold == "mean" else float(settings.cam_threshold)
    given = {"beta": settings.beta, "threshold": threshold, "cam_threshold": threshold}
    if _is_own(settings.weighting):
        return _object("enhance.weighting", settings.weighting, Weighting, given)
    makers: dict[str, Callable[..., Weighting]] = {"activation": Activation, "constant": Constant, "shuffled": Shuffled}
    return NoWeighting() if settings.weighting == "none" else makers[settings.weighting](settings.beta, threshold)


def cam_of(settings: EnhanceSettings) -> Cam:
    """What makes activation maps; a function (module, x, classes) → maps of the user's own will do."""
    if not _is_own(settings.cam):
        return TorchCam(settings.cam, settings.cam_layer)
    return _object("enhance.cam", settings.cam, Cam, {"layer": settings.cam_layer, "cam_layer": settings.cam_layer})


def adjoint_of(settings: EngineSettings) -> Adjoint:
    """The way to the gradient."""
    if _is_own(settings.kind):
        return _object("engine.kind", settings.kind, Adjoint, {"steps": settings.last_steps, "last_steps": settings.last_steps})
    if settings.kind == "truncated":
        return Truncated(steps=settings.last_steps)
    makers: dict[str, type[Adjoint]] = {"exact": Exact, "unroll": Unroll, "tesla": Tesla}
    return makers[settings.kind]()


def augmentation_of(settings: AugmentSettings) -> Augmentation:
    """The augmentation of student steps, experts and evaluation."""
    ratio, flip, rotate = settings.crop_ratio, settings.flip, settings.rotate
    if _is_own(settings.strategy):
        given = {"crop_ratio": ratio, "flip": flip, "rotate": rotate}
        return _object("augment.strategy", settings.strategy, Augmentation, given)
    return Dsa(settings.strategy, ratio, flip, rotate)


def initialisation_of(init: Any) -> Initialisation:
    """What the outer loop starts from, but for sets, which are read."""
    return INITIALISATIONS[init] if init in STARTS else _object("init", init, Initialisation, {})


def loss_of(settings: DistillSettings) -> Loss:
    """ℓ of a student step."""
    named = settings.match.loss
    if _is_own(named):
        found = imported("match.loss", named, "loss") if isinstance(named, str) else named
        found = found() if isinstance(found, type) else found
        require(callable(found), "match.loss", named, "a function of logits and labels")
        loss: Loss = found
        return loss
    return soft_cross_entropy if settings.labels == "soft" else cross_entropy


def check_loss(settings: DistillSettings, classes: int) -> None:
    """Raise `UsageError` for a student's loss that cannot be called, or gives no scalar."""
    loss, labels = loss_of(settings), torch.eye(classes)
    name = getattr(loss, "__name__", type(loss).__name__)
    with blamed("match.loss", name, "raised"):
        value = loss(torch.zeros_like(labels), labels)
    good = isinstance(value, torch.Tensor) and value.ndim == 0
    require(good, "match.loss", name, "a function of logits and labels, both (N, K), that gives a scalar")


def parametrisation_of(settings: ParametrisationSettings) -> Parametrisation:
    """What a set stores."""
    if _is_own(settings.kind):
        return _object("parametrisation.kind", settings.kind, Parametrisation, {"factor": settings.factor, "keep": settings.keep})
    return parametrisations.parametrisation_of(settings.kind, settings.factor, settings.keep)


def _is_own(value: Any) -> bool:
    """Whether a key holds something of the user's, or an object, and not one of its names."""
    return not isinstance(value, str) or is_foreign(value)


def _object(key: str, value: Any, kind: type[T], given: Mapping[str, Any]) -> T:
    """The object that `value` is, or names, or whose maker it is or names.

    Raises:
        UsageError: when it is none of that kind.
    """
    found = imported(key, value, kind.__name__) if isinstance(value, str) else value
    shown = value if isinstance(value, str) else getattr(value, "__qualname__", type(value).__name__)
    if makes(found):
        with blamed(key, shown, "raised"):
            found = FunctionCam(found) if kind is Cam and _makes_maps(found) else _made(found, given)
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    require(isinstance(found, kind), key, shown, f"{article} {kind.__name__}, nor a class or a function that makes one")
    assert isinstance(found, kind)
    return found


def _makes_maps(found: Callable[..., Any]) -> bool:
    """Whether it is called with a network, images and classes."""
    return not isinstance(found, type) and len(inspect.signature(found).parameters) == 3


def _made(maker: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    known = inspect.signature(maker).parameters
    return maker(**{name: value for name, value in given.items() if name in known})


def looks_at_all(settings: DistillSettings, method: Method) -> str:
    """Why the way to the gradient, or what weighs it, needs all images together, in words; empty where it does not."""
    if method.steps and not isinstance(adjoint_of(settings.engine), (WalkBack, Unroll)):
        return "the adjoint is not one of Limbeck's"
    cam, weighting = cam_of(settings.enhance), weighting_of(settings.enhance)
    by_itself = isinstance(weighting, NoWeighting) or (
        isinstance(weighting, (Activation, Constant)) and isinstance(cam, TorchCam) and cam.kind in NOISELESS
    )
    return "" if by_itself else "maps with noise, or weights that look at several images, are drawn for all images together"
