"""What of a run's settings its result depends on, and so whether a stopped run may go on with others.

    result    the set depends on the value, or the choice among its iterations does
    content   what the value stands for counts, not how it is spelt: a fingerprint decides, or what was decided when the run began
    late      only the final evaluation reads it, which is then made again
    none      no result depends on it

What a method never reads is `none`, whatever it is.

Of what earlier versions computed otherwise from the same settings nothing is taken for what is computed now:

    1   the first
    2   ConvNets pad images of 28×28 pixels; PAD's windows end with epochs 40 and 60; the protocol `kd-rded` as RDED has it
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from limbeck.evaluation.protocols import PROTOCOLS, Protocol, find
from limbeck.evaluation.protocols import resolve as resolve_protocol
from limbeck.methods.registry import RECOVERED, known
from limbeck.networks.convnet import PADDED
from limbeck.runs.settings import DistillSettings, coresets_of
from limbeck.runs.unread import OF_CORESETS, idle_keys, unread_but_for_baselines
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.plugins import is_foreign

Effect = Literal["result", "content", "late", "none"]

NUMERICS = 3
NONE = frozenset(("output", "track", "features", "data.workers", "outer.checkpoint_every", "engine.memory", "engine.shard"))
# Of what the images are the fingerprint says everything but how networks see them; `init` and the experts have fingerprints, too.
CONTENT = frozenset(("network", "init", "experts.store", "engine.device", "engine.micro_batch"))
SEEN = frozenset(("data.normalise", "data.zca"))
FULL = frozenset(f"eval.full_{name}" for name in ("epochs", "seeds", "lr", "batch_size"))
LATE = frozenset(("eval.seeds", "eval.networks", "eval.random_lr", "eval.baselines"))


def effect_of(key: str, settings: DistillSettings, read: Protocol | None = None) -> Effect:
    """What of a run with those settings, and the protocol as it was read, depends on the dotted key."""
    if key in NONE:
        return "none"
    if (
        key in CONTENT
        or (key.startswith("data.") and key not in SEEN)
        or (key == "eval.protocol" and is_file_of_protocol(settings))
    ):
        return "content"
    if key in LATE or _of_baselines(key, settings) or (key in FULL and not reads_full(settings, read)):
        return "late"
    return "result"


def _of_baselines(key: str, settings: DistillSettings) -> bool:
    """Whether nothing but coresets beside the figure depends on the key."""
    return key.startswith(OF_CORESETS) and bool(coresets_of(settings)) and key in unread_but_for_baselines(settings, [key])


def effects(keys: Iterable[str], settings: DistillSettings, read: Protocol | None = None) -> dict[str, Effect]:
    """The same of several, of which those that the method never reads have none."""
    keys = list(keys)
    idle = idle_keys(settings, keys)
    return {key: "none" if key in idle else effect_of(key, settings, read) for key in keys}


def reads_full(settings: DistillSettings, read: Protocol | None = None) -> bool:
    """Whether networks of the full data are asked before the final evaluation: as teachers, for maps, or to choose images by."""
    method = known(settings.method)
    trained = method is not None and method.kind == "objective" and method.experts
    return not trained or (read or resolve_protocol(settings.eval)).labels == "teacher"


def is_file_of_protocol(settings: DistillSettings) -> bool:
    """Whether the protocol is a file of the user's, which stands for what it says."""
    return isinstance(settings.eval.protocol, str) and settings.eval.protocol not in PROTOCOLS


def protocol_in_file(settings: DistillSettings, read: Protocol | None = None) -> str | None:
    """The fingerprint of what the file says that the protocol is, or said when it was read; None where it is no file."""
    named = settings.eval.protocol
    return fingerprint((read or find(named)).facts) if isinstance(named, str) and is_file_of_protocol(settings) else None


def protocol_chooses(settings: DistillSettings, read: Protocol | None = None) -> bool:
    """Whether an iteration is chosen by the protocol, so that the set depends on it, and not its figures alone."""
    method = known(settings.method)
    return (read or resolve_protocol(settings.eval)).validation and (method is None or method.kind == "objective")


def same_place(one: Any, other: Any) -> bool:
    """Whether two values are paths of one place, or the same."""
    if one == other:
        return True
    if not all(isinstance(value, str) and not is_foreign(value) for value in (one, other)):
        return False
    here, there = (Path(value).expanduser() for value in (one, other))
    return os.path.exists(here) and os.path.exists(there) and here.resolve() == there.resolve()


def otherwise(numerics: int, settings: DistillSettings, *, padded: bool) -> str | None:
    """What a version computed otherwise under these settings, as the beginning of a sentence; None where nothing.

    Args:
        numerics: of that version.
        settings: of a run.
        padded: whether its network is a ConvNet that pads the images.
    """
    method = known(settings.method)
    if numerics < 3 and method is not None and method.make == f"{RECOVERED}:make":
        return f"method: {settings.method!r} shifted images to both sides"
    if numerics >= 2:
        return None
    if padded:
        return f"network: {settings.network!r} did not pad images of {PADDED}×{PADDED} pixels"
    if settings.experts.curriculum == "pad" and (method is None or method.experts):
        return "experts.curriculum: 'pad' took other images in some epochs"
    if settings.eval.protocol == "kd-rded":
        return "eval.protocol: 'kd-rded' shuffled and cropped images otherwise"
    return None
