"""What files hold that a cell names beside its images, and that may be others under the same name: the protocol's, the set to start
from, the store of experts.

A finished cell keeps their fingerprints as its run noted them (`State`). Of code of the user's own nothing is noted.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from limbeck.distilled.settings import STARTS
from limbeck.experts.store import TrajectoryStore
from limbeck.runs.folder import STATE, State
from limbeck.runs.identity import is_file_of_protocol, protocol_in_file
from limbeck.runs.settings import DistillSettings, value_of
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import read_json
from limbeck.runtime.plugins import is_foreign
from limbeck.studies.images import SourceImages

DID = {"eval.protocol": "said", "init": "held", "experts.store": "held"}
Noted = Mapping[str, str | None]  # fingerprints by these keys


def noted(run: Path, settings: DistillSettings) -> Noted:
    """What the run in that folder noted of them."""
    try:
        state = State.from_dict(read_json(run / "state.json", STATE))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    store = None if settings.experts.store is None else state.experts
    return {"eval.protocol": state.protocol, "init": state.init, "experts.store": store}


def changed(before: Noted, settings: DistillSettings, images: SourceImages, opening: bool = True) -> str:
    """What speaks against what was measured when these were noted; empty where nothing does.

    Args:
        before: what was noted.
        settings: that name the files today.
        images: of the grid.
        opening: whether sets and stores are opened.
    """
    for key in DID if opening else ("eval.protocol",):
        same, what = _same(key, before, settings, images), f"what {key} {value_of(settings, key)!r} {DID[key]}"
        if same is False:
            return f"was measured with {what} then"
        if key == "init" and same is None and before.get(key) is None:
            return f"is of an earlier version, which did not note {what}"
    return ""


def may_be_taken(before: Noted, settings: DistillSettings, images: SourceImages) -> bool:
    """Whether what was measured elsewhere when these were noted may count here: from the very set, and no other files."""
    return _same("init", before, settings, images) is True and not changed(before, settings, images)


def is_still(key: str, before: Noted, settings: DistillSettings, images: SourceImages) -> bool:
    """Whether the value of one of these keys, however it is spelt, is known to stand for what it stood for then."""
    return before.get(key) is not None and _names_a_file(key, settings) and _same(key, before, settings, images) is True


def _same(key: str, before: Noted, settings: DistillSettings, images: SourceImages) -> bool | None:
    """The same of a value that is spelt as it was; None where nobody can tell."""
    if not _names_a_file(key, settings):
        return True
    was = before.get(key)
    now = None if was is None else _today(key, settings, images)
    return None if now is None else now == was


def _names_a_file(key: str, settings: DistillSettings) -> bool:
    if key == "eval.protocol":
        return is_file_of_protocol(settings)
    if key == "experts.store":
        return settings.experts.store is not None
    init = settings.init
    return isinstance(init, str) and init not in STARTS and (not is_foreign(init) or os.path.exists(init))


def _today(key: str, settings: DistillSettings, images: SourceImages) -> str | None:
    """The fingerprint of what the file holds; None where it cannot be read."""
    with suppress(Failure, UsageError, OSError, LookupError):
        if key == "eval.protocol":
            return protocol_in_file(settings)
        if key == "experts.store":
            return TrajectoryStore.at(str(settings.experts.store), key).content
        return images.start(settings)
    return None
