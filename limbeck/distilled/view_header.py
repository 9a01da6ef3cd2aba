"""What a file of labelled views says of itself, and what its tensors have to be by that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from limbeck.distilled.label_coding import LabelCoding
from limbeck.runtime.random import Key
from limbeck.runtime.records import Record
from limbeck.views import Views

FORMAT, FORMATS = 2, (1, 2)
ROUNDING = 1e-6  # of a side, by which single precision may put a border of a box outside
_KINDS = {"BOOL": "truth values", **dict.fromkeys(("F16", "BF16", "F32", "F64"), "floats")}


class Layout(NamedTuple):
    """What the numbers of a tensor are, and its shape."""

    kind: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, dtype: str, shape: list[int]) -> "Layout":
        """That of a tensor in a file, whose types safetensors names."""
        return cls(_KINDS.get(dtype, "whole numbers" if dtype[0] in "IU" else dtype), tuple(shape))

    def __str__(self) -> str:
        return f"{self.kind} {self.shape}"


@dataclass(frozen=True, kw_only=True)
class ViewsHeader(Record):
    """What the file of views says of itself.

    Args:
        format: of the file.
        count, shape: N and (C, H, W).
        epochs, batch_size, num_classes: E, B and K.
        views, coding: how the views were drawn, and how their labels are kept.
        draws: seed and key.
        images, teacher: their fingerprints; of images that are decoded, that of what is stored.
        teacher_name: what the teacher is called.
        trained: epochs of the training that a pool is for; None without a pool.
    """

    LEFT_OUT: ClassVar = ("trained",)
    format: int
    count: int
    shape: tuple[int, ...]
    epochs: int
    batch_size: int
    num_classes: int
    views: Views
    coding: LabelCoding
    draws: tuple[Key, ...]
    images: str
    teacher: str
    teacher_name: str = ""
    trained: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether it is of a format that is read, and says what can be."""
        counts = (self.count, *self.shape, self.epochs, self.batch_size, self.num_classes)
        known = self.format in FORMATS and len(self.shape) == 3 and all(type(count) is int and count >= 1 for count in counts)
        known = known and (self.trained is None or (type(self.trained) is int and self.trained > self.epochs))
        known = known and self.views.patches <= min(self.shape[1:])
        return known and (self.coding.top is None or self.coding.top < self.num_classes)

    def layouts(self) -> dict[str, Layout]:
        """What the file holds, by name, all epochs together."""
        count, views, top = self.count, self.views, self.coding.top
        batches = -(-count // self.batch_size)
        held = {"index": Layout("whole numbers", (count,)), "written": Layout("whole numbers", ())}
        if self.format > 1:
            held["digests"] = Layout("whole numbers", (8,))
        if views.patches > 1:
            held["draw.order"] = Layout("whole numbers", (count, views.patches**2))
        if views.crop_scale is not None:
            held["draw.boxes"] = Layout("floats", (count, 4))
        if views.flip:
            held["draw.flipped"] = Layout("truth values", (count,))
        if views.roll:
            held["draw.shifts"] = Layout("whole numbers", (count, 2))
        if views.mix != "none" and views.mix_share:
            held |= {"draw.partner": Layout("whole numbers", (count,)), "draw.weight": Layout("floats", (batches,))}
            if views.mix == "cutmix":
                held["draw.pasted"] = Layout("whole numbers", (batches, 4))
        held["label.logits"] = Layout("floats", (count, self.num_classes if top is None else top + 1))
        if top is not None:
            held["label.classes"] = Layout("whole numbers", (count, top))
        return {name: Layout(kind, (self.epochs, *shape)) for name, (kind, shape) in held.items()}

    def check(self, found: Mapping[str, Layout]) -> None:
        """Raise ValueError unless a file that holds these is laid out as it says."""
        wanted = self.layouts()
        if odd := sorted(wanted.keys() ^ found.keys()):
            raise ValueError(f"{odd[0]} is {'missing' if odd[0] in wanted else 'no part of it'}")
        for name, layout in wanted.items():
            if found[name] != layout:
                raise ValueError(f"{name} is {found[name]}, where its header says {layout}")

    def is_sound(self, held: Mapping[str, Tensor]) -> bool:
        """Whether in an epoch every image is seen once, nothing points at what is not there, and labels are finite."""
        (height, width), count, batch = self.shape[1:], self.count, self.batch_size
        of_batch = (count - torch.arange(count) // batch * batch).clamp_max(batch)
        sides = torch.tensor([height, width])
        bounds: dict[str, tuple[float, float | Tensor]] = {
            "label.classes": (0, self.num_classes - 1),
            "draw.partner": (0, of_batch - 1),
            "draw.order": (0, self.views.patches**2 - 1),
            "draw.shifts": (-self.views.roll, self.views.roll),
            "draw.weight": (0, 1),
            "draw.pasted": (0, sides.repeat_interleave(2)),
            "draw.boxes": (0, sides.repeat(2) * (1 + ROUNDING)),
        }
        # Numbers of eight bytes: 256 is no number of the smallest type that 256 classes fit into.
        wide = {
            name: held[name].double() if held[name].is_floating_point() else held[name].long() for name in bounds if name in held
        }
        within = all(bool(((value >= bounds[name][0]) & (value <= bounds[name][1])).all()) for name, value in wide.items())
        if (boxes := wide.get("draw.boxes")) is not None:
            within = within and bool((boxes[:, :2] + boxes[:, 2:] <= sides * (1 + ROUNDING)).all())
        whole = torch.equal(held["index"].long().sort().values, torch.arange(count))
        return whole and within and bool(held["label.logits"].isfinite().all())
