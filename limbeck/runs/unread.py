"""Which of the keys that a user gave have no meaning for the method, so that it can be said instead of passed over.

Only what the method, or another key, certainly never reads is named: of a method of the user's own, nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import translate
from functools import cache

from limbeck.experts.settings import unread
from limbeck.matching.settings import MatchSettings
from limbeck.methods.method import Method
from limbeck.methods.registry import METHODS, known, name_of
from limbeck.methods.settings import Sre2lSettings
from limbeck.runs.settings import DistillSettings, as_coreset, coresets_of
from limbeck.runtime.plugins import is_foreign, makes

OF_STEPS = ("syn_steps", "expert_epochs", "batch_syn", "small_chunk", "distance", "loss", "relabel")
BY_STEP = ("engine.memory", "engine.micro_batch")  # how much of a step is computed at once
STUDENT = ("schedule.*", *(f"match.{name}" for name in OF_STEPS), "engine.kind", "engine.last_steps", *BY_STEP)
# Of the outer loop's keys a method without it reads two: a step size to try on random images, and when a stopped run is written.
LOOP = (
    "outer.[!sc]*",
    "init",
    "match.*",
    "enhance.*",
    "schedule.*",
    "real.*",
    "engine.kind",
    "engine.last_steps",
    *BY_STEP,
    "parametrisation.factor",
    "parametrisation.keep",
)
OF_EXPERTS = tuple(key for key in LOOP if key not in ("match.*", "schedule.*"))  # of one that reads experts by the schedule
OF_CORESETS = ("coreset.", "rded.", "experts.", "schedule.", "match.")


def idle_keys(settings: DistillSettings, given: Iterable[str]) -> list[str]:
    """Those of the dotted keys `given` that change nothing under these settings, in their order."""
    never = _matching(settings)
    idle = [key for key in given if never.match(key) and not _says_none(settings, key)]
    if not idle or not (names := coresets_of(settings)):
        return idle
    beside = [_matching(as_coreset(settings, name)) for name in names]
    read = [key for key in idle if key.startswith(OF_CORESETS)]
    still = [key for key in read if all(one.match(key) for one in beside)]
    return [key for key in idle if key not in read or key in still]


def unread_but_for_baselines(settings: DistillSettings, given: Iterable[str]) -> list[str]:
    """Those that nothing reads but the coresets of `eval.baselines`."""
    alone = replace(settings, eval=replace(settings.eval, baselines=None))
    read = idle_keys(settings, given := list(given))
    return [key for key in idle_keys(alone, given) if key not in read]


def may_read_experts(settings: DistillSettings, method: Method) -> bool:
    """Whether experts are read, as far as settings tell: soft labels of a set to start from can make them needless."""
    if method.experts or method.kind != "objective":
        return method.experts or (method.difficulties and settings.coreset.judges == "experts")
    return settings.labels == "soft" or settings.init == "correct"


def _matching(settings: DistillSettings) -> re.Pattern[str]:
    """Matches keys that are not read."""
    return _one_of(tuple(_patterns(settings)))


@cache
def _one_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")


def _patterns(s: DistillSettings) -> list[str]:
    """What is not read, as patterns of keys."""
    method, called = known(s.method), name_of(s.method)
    if called not in METHODS or method is None:
        return []
    recovers = method.make == METHODS["sre2l"].make
    found = _idle_in_recovery(s.sre2l) if recovers else ["sre2l.*"]
    if called != "ncfm":
        found.append("ncfm.*")
    elif s.ncfm.sampling == "normal":
        found.append("ncfm.sampling_lr")
    if called not in ("rded", "rded-hard"):
        crops = [] if recovers and s.sre2l.takes_patches else ["rded.[!f]*"]
        found += [*crops, "rded.fit", "rded.teacher", *([] if _shuffles_parts(s) else ["rded.factor"])]
    found += ["coreset.*"] if not method.difficulties else [f"coreset.{key}" for key in _unread_coreset(s, called)]
    if not may_read_experts(s, method):
        found.append("experts.*")
    found += [f"experts.{key}" for key in sorted(unread(s.experts))]
    if s.enhance.weighting == "none":
        found += ["enhance.beta", "enhance.cam_every", "enhance.cam_threshold"]  # maps are drawn all the same
    if method.kind != "objective":
        loop = LOOP if not may_read_experts(s, method) else OF_EXPERTS
        weighted = recovers and s.enhance.weighting != "none"  # of a recovery no maps are drawn that weight nothing
        return [*found, *(pattern for pattern in loop if not (weighted and pattern == "enhance.*"))]
    found += {"pixels": ["parametrisation.factor", "parametrisation.keep"], "multi": ["parametrisation.keep"]}.get(
        str(s.parametrisation.kind), []
    )
    if called in ("dm", "ncfm"):
        found.append("real.[!b]*")  # their networks are never trained
    found.append("outer.img_momentum" if s.outer.adamw else "outer.img_[bw]*")
    found += ["real.*"] if method.steps else STUDENT
    if s.schedule.kind == "uniform":
        found += ["schedule.first_max_start_epoch", "schedule.iterations"]
    if s.engine.kind in ("exact", "tesla", "unroll"):
        found.append("engine.last_steps")
    if s.engine.kind == "unroll":
        found += BY_STEP
    if s.labels == "hard":
        found.append("match.relabel")
    return [*found, *_of_a_criterion(s.match), *_beside_objects(s)]


def _of_a_criterion(match: MatchSettings) -> list[str]:
    """What of the keys that say which parameters are dropped changes nothing."""
    if not isinstance(match.criterion, str) or is_foreign(match.criterion):
        return [] if match.drop_ratio else ["match.drop_ratio"]  # its own share is that of one of the user's then
    side = [] if match.criterion == "loss" else ["match.drop_side"]
    if match.criterion == "none":
        return ["match.drop_ratio", *side]
    return side if match.drop_ratio else ["match.criterion", "match.drop_side"]


def _beside_objects(s: DistillSettings) -> list[str]:
    """What says how to make an object that is there; a class or a function that makes one is given it."""
    held: tuple[tuple[object, tuple[str, ...]], ...] = (
        (s.match.criterion, ("match.drop_ratio", "match.drop_side")),
        (s.schedule.kind, ("schedule.[!k]*",)),
        (s.enhance.weighting, ("enhance.beta", "enhance.cam_threshold")),
        (s.enhance.cam, ("enhance.cam_layer",)),
        (s.engine.kind, ("engine.last_steps",)),
        (s.parametrisation.kind, ("parametrisation.factor", "parametrisation.keep")),
    )
    return [key for value, keys in held if not (isinstance(value, str) or makes(value)) for key in keys]


def _unread_coreset(s: DistillSettings, called: str) -> tuple[str, ...]:
    """The last words of `coreset.*` that a method which goes by difficulties does not read."""
    if called == "ccs":
        return ("keep",) if s.coreset.score == "el2n" else ("keep", "epoch")
    return ("score", "cut", "bins") if called == "el2n" else ("score", "cut", "bins", "epoch")


def _idle_in_recovery(s: Sre2lSettings) -> list[str]:
    """What a recovery without a curriculum, or in one stage, does not read."""
    found = ["sre2l.crop_milestone"] if s.crop_curriculum == "none" else []
    return found + (["sre2l.residual", "sre2l.low_resolution"] if s.stages == 1 else [])


def _shuffles_parts(s: DistillSettings) -> bool:
    """Whether the protocol is or may be one that takes the parts of an image from `rded.factor`."""
    from limbeck.evaluation.protocols import PROTOCOLS  # which needs torch, that recipes are listed without

    protocol = s.eval.protocol
    if not isinstance(protocol, str) or protocol.endswith((".yaml", ".yml")):
        return True
    return protocol not in PROTOCOLS or PROTOCOLS[protocol].patches is None


def _says_none(s: DistillSettings, key: str) -> bool:
    """Whether the key only says that something is left out, as it is."""
    return (key, s.match.criterion) == ("match.criterion", "none") or (key, s.enhance.weighting) == ("enhance.weighting", "none")
