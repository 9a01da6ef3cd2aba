"""What a synthetic set can start from, by name, and the keys `view_labels.*`: the labels of views that a set keeps."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from limbeck.runtime.checked import Checked, Count

Start = Literal["correct", "real", "noise", "centre"]  # `initial.py` has what each is
STARTS: tuple[str, ...] = get_args(Start)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewLabelSettings(Checked):
    """What the set keeps of a teacher's labels of augmented views (`distilled/view_labels.py`).

    Args:
        store: whether the teacher of the protocol is asked once about the views of all epochs, and the set keeps what it says;
            networks are then trained on the kept labels, without the teacher.
        dtype: of the kept logits: `bf16`, `fp16`, or `fp32`, which with all classes loses nothing.
        top: how many of the likeliest classes are kept, the rest of the probability being spread evenly; None keeps all.
        pool: of how many epochs the views are labelled and kept; epoch e of a training takes those of epoch e mod `pool`. None, or
            as many as the protocol has, keeps all epochs.
    """

    prefix: ClassVar[str] = "view_labels."
    store: bool = False
    dtype: Literal["fp32", "bf16", "fp16"] = "bf16"
    top: Count | None = None
    pool: Count | None = None
