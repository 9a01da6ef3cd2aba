"""An epoch of views and their labels as tensors of few bytes, by the names that `views.safetensors` has for them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from limbeck.distilled.label_coding import smallest_integers
from limbeck.views import ViewDraw

_BY_IMAGE, _BY_BATCH = ("order", "boxes", "flipped", "shifts", "partner"), ("weight", "pasted")


def pack(order: Tensor, draws: Sequence[ViewDraw], batch_size: int, exact: bool) -> dict[str, Tensor]:
    """An epoch's draws in few bytes: by image (N, …), by batch (N / B, …)."""
    packed = {"index": order.to(torch.int32)}
    for name in (*_BY_IMAGE, *_BY_BATCH):
        values = [value for draw in draws if (value := getattr(draw, name)) is not None]
        if values:
            whole = torch.cat(values) if name in _BY_IMAGE else torch.stack(values)
            packed[f"draw.{name}"] = whole.to(_kept_as(name, whole, batch_size, exact))
    return packed


def _kept_as(name: str, values: Tensor, batch_size: int, exact: bool) -> torch.dtype:
    if name == "order":
        return smallest_integers(values.shape[1] - 1)
    if name == "partner":
        return smallest_integers(batch_size - 1)
    kinds = {"boxes": torch.float64 if exact else torch.float32, "shifts": torch.int16, "pasted": torch.int16}
    return kinds.get(name, values.dtype)


def unpacked(held: Mapping[str, Tensor], batch_size: int) -> list[tuple[Tensor, ViewDraw]]:
    """The batches of an epoch."""
    wide = {}
    for name, value in held.items():
        if name.startswith("draw."):
            kind = torch.bool if value.dtype == torch.bool else torch.float64 if value.is_floating_point() else torch.int64
            wide[name.removeprefix("draw.")] = value.to(kind)
    batches = []
    for number, index in enumerate(held["index"].long().split(batch_size)):
        here = slice(number * batch_size, number * batch_size + len(index))
        values = {name: value[here] if name in _BY_IMAGE else value[number] for name, value in wide.items()}
        batches.append((index, ViewDraw.from_tensors(values)))
    return batches


def named(labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Labels by the names that they have beside the draws."""
    return {f"label.{name}": value for name, value in labels.items()}


def labels_of(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The labels of what `named` named."""
    return {name.removeprefix("label."): value for name, value in held.items() if name.startswith("label.")}
