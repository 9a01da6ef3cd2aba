"""Labels of views in the place of a live teacher: which views they are of, and whether a set's are those that a protocol needs.

    kept, once       (x, t),  x = A(X[b]),  t = what the teacher says of x, in few bytes       for all batches b of all epochs
    trained, often   KL(softmax(t / τ) ‖ softmax(f(x) / τ))                                   for all networks f

All networks of an evaluation are trained on the same views in the same order, and differ in their starts alone; a live teacher
is asked about others for every network. What the kept labels lose is therefore measured against a teacher who is asked about
the very same views (`Evaluator.live_logits`).
"""

from typing import Any

from limbeck.distilled.label_coding import LabelCoding
from limbeck.distilled.settings import ViewLabelSettings
from limbeck.distilled.small_set import SmallSet
from limbeck.distilled.view_labels import StoredViews
from limbeck.evaluation.protocols import PROTOCOLS, Protocol
from limbeck.networks.names import same_network
from limbeck.runtime.errors import UsageError, require
from limbeck.training.images import TensorImages
from limbeck.training.train import Training
from limbeck.views import Views

DRAWS = ("evaluation", "views")  # the key of the draws that all networks share


def asks(protocol: Protocol) -> bool:
    """Whether the protocol trains on what a teacher says of views."""
    return protocol.labels == "teacher" and protocol.augment == "views" and protocol.mix_share == 1 and protocol.policy == "none"


def check_storable(settings: ViewLabelSettings, protocol: Protocol, num_classes: int) -> None:
    """Raise `UsageError` where labels of views are to be kept which the protocol does not ask for, or more than there are."""
    if not settings.store:
        return
    known = ", ".join(name for name, one in PROTOCOLS.items() if asks(one))
    accepted = f"possible with eval.protocol={protocol.name}, which asks no teacher about views ({known} do)"
    require(asks(protocol), "view_labels.store", settings.store, accepted)
    below = settings.top is None or settings.top < num_classes
    require(below, "view_labels.top", settings.top, f"below the number of classes ({num_classes})")


def coding_of(settings: ViewLabelSettings, protocol: Protocol) -> LabelCoding:
    """How labels for the protocol are kept."""
    return LabelCoding(dtype=settings.dtype, top=settings.top, temperature=protocol.temperature)


def check_fit(stored: StoredViews, small: SmallSet, how: Training, protocol: Protocol, teacher: str | None) -> None:
    """Raise `UsageError` unless a training on these labels is the one that the protocol means.

    Args:
        stored: the labels.
        small: the set.
        how: the training.
        protocol: that it follows.
        teacher: the name of the teacher who is asked for, where one is (`eval.teacher`).
    """
    about = stored.about
    _same(how.epochs <= stored.epochs, "eval.epochs", how.epochs, f"at most {stored.epochs}, for which the set has labels of views")
    # Batches that hold all images are the same, however large they could be.
    wanted, found = (min(size, len(small)) for size in (how.batch_size, about.batch_size))
    _same(wanted == found, "eval.batch_size", how.batch_size, f"{about.batch_size}, as in the set's labels of views")
    assert isinstance(how.augment, Views), "only protocols with views ask about them"
    kept = about.views.to_dict()
    for key, value in how.augment.to_dict().items():
        _same(kept[key] == value, f"views.{key}", value, f"{kept[key]!r}, as in the set's labels of views")
    spread = about.coding.top is None or about.coding.temperature == protocol.temperature
    _same(spread, "protocol.temperature", protocol.temperature, f"{about.coding.temperature}, for which the set's labels are kept")
    name = about.teacher_name
    _same(teacher is None or same_network(teacher, name), "eval.teacher", teacher, f"{name!r}, who gave the set's labels of views")
    stored.check(TensorImages(small.images), small.code)


def _same(holds: bool, key: str, value: Any, accepted: str) -> None:
    if not holds:
        raise UsageError(f"{key}: {value!r} is not {accepted} (eval.view_labels=live asks the teacher instead)")
