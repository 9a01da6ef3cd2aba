"""Another method on a recipe: what of the recipe stays, and what gives way.

    stays        data, network, augmentation, evaluation, images per class, seed; sizes of the experts, of matching and of the loop
    gives way    what either method stands for (its preset), and with another loss whatever is in units of the loss

What gives way, and what the recipe does not say, is the method's own: as its recipe beside this one has it, where there is one
(`scenes/dm-ipc1` beside `scenes`), because that is tuned, or else as its preset does.
"""

from collections.abc import Mapping
from typing import Any

from limbeck.methods.method import Method
from limbeck.methods.registry import method_of
from limbeck.runs.settings import DistillSettings, Keys, value_of

# What a method is measured on and by; teachers, because they go with the network.
MEASURED = ("data.", "network", "augment.", "eval.", "ipc", "seed", "output", "rded.teacher", "sre2l.teacher")
RATES = ("lr_img", "img_momentum", "lr_label", "label_momentum", "lr_lr", "lr_momentum", "max_match_loss")
OF_THE_LOSS = tuple(f"outer.{name}" for name in RATES)


def switched(held: Mapping[str, Any], old: str, new: str, beside: Mapping[str, Any]) -> Keys:
    """The recipe's settings with the method `new`, to lie over its preset.

    Args:
        held: what the recipe says, by dotted keys.
        old: the method that it is for.
        new: the method wanted instead.
        beside: what a recipe of that method for the same data says; empty where there is none.

    Raises:
        UsageError: when there is no such method.
    """
    was, now = method_of(old), method_of(new)
    gone = {"method", *was.preset, *now.preset, *(() if _share_a_loss(was, now) else OF_THE_LOSS)}
    # A preset may say how its method is evaluated: here everything is as it was.
    evaluation = [key for key in {*was.preset, *now.preset} if _is_measured(key)]
    measured = {key: was.preset.get(key, value_of(DistillSettings(), key)) for key in evaluation}
    lent = {key: value for key, value in beside.items() if not _is_measured(key)}
    kept = {key: value for key, value in held.items() if key not in gone or _is_measured(key)}
    if was.preset.get("schedule.kind") == "uniform" and "schedule.max_start_epoch" in kept:
        # A range that was whole from the start stays so, unless the method's own recipe widens it.
        lent.setdefault("schedule.first_max_start_epoch", kept["schedule.max_start_epoch"])
    return Keys({**measured, **lent, **kept, "method": new})


def _share_a_loss(was: Method, now: Method) -> bool:
    """Whether step sizes of one are such of the other; what has no loop reads none."""
    return now.kind != "objective" or (was.steps and now.steps)


def _is_measured(key: str) -> bool:
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in MEASURED)
