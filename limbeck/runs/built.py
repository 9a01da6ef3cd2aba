"""What a method without an outer loop makes at once."""

from pathlib import Path

import torch
from torch import Tensor

from limbeck.distilled.small_set import SmallSet
from limbeck.methods.registry import name_of
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import require
from limbeck.training.images import TensorImages
from limbeck.training.train import logits_of


def built(workspace: Workspace, folder: Path) -> SmallSet:
    """What a method makes at once: images that its teacher labels, or real images that it has chosen, with their classes."""
    train, teacher = workspace.data.train, None
    if workspace.method.kind == "images":
        images, classes, teacher = workspace.method(workspace, folder)
    else:
        index = torch.as_tensor(workspace.method(workspace)).cpu()
        classes = torch.from_numpy(train.labels)[index]
        images = workspace.preprocessing.prepare(train.images(index.numpy())).to(workspace.device)
    _check(workspace, images, classes)
    if teacher is not None and workspace.kind == "logits":
        return SmallSet(images, logits_of(teacher, TensorImages(images)), classes, None, "logits")
    return SmallSet.of_classes(images, classes, workspace.data.num_classes)


def _check(workspace: Workspace, images: Tensor, classes: Tensor) -> None:
    """Raise `UsageError` for a user's method that makes something else than `ipc` images of every class."""
    name, data, ipc = name_of(workspace.settings.method), workspace.data, workspace.settings.ipc
    shape, found = (data.num_classes * ipc, *data.shape), tuple(images.shape)
    require(found == shape, "method", name, f"one that gives images with shape {shape}: it gives {found}")
    require(bool(images.isfinite().all()), "method", name, "one that gives finite images")
    counts = torch.bincount(classes.cpu(), minlength=data.num_classes)
    require(bool((counts == ipc).all()), "method", name, f"one that gives {ipc} (ipc) images of every class: {counts.tolist()}")
