"""What a method without an outer loop makes at once; and coresets beside a figure, on request (`eval.baselines`): other ways to
choose real images, under the very same protocol.

    the set     that `method=NAME` makes of the same data, network and seed: hard labels, `coreset.*` as they are; as many images as
                there are random ones beside a set, which is as many as take its bytes
    step size   the protocol's, or the best on images that are not tested, as random images have theirs
    networks    of the same seeds as the set's

With networks other than the one distilled for, the coresets are the same ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from limbeck.distilled.initial import check_ipc
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.coresets import Coreset
from limbeck.evaluation.evaluator import Evaluator
from limbeck.methods.registry import name_of
from limbeck.runs.settings import DistillSettings, as_coreset, coresets_of
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import require
from limbeck.runtime.progress import Progress
from limbeck.training.images import TensorImages
from limbeck.training.train import logits_of


def settings_of(settings: DistillSettings, name: str, ipc: int) -> DistillSettings:
    """Those of the run that makes the coreset of that name."""
    real = replace(as_coreset(settings, name), ipc=ipc)
    return replace(real, outer=replace(settings.outer, lr_label=0.0), eval=replace(settings.eval, baselines=None))


def check(workspace: Workspace, ipc: int) -> None:
    """Raise `UsageError` where a coreset that is asked for cannot be made, before anything is trained."""
    for name in coresets_of(workspace.settings):
        one = _beside(workspace, name, ipc)
        one.method.refuse(one)
        if one.method.kind != "images":  # chosen among real ones
            check_ipc(one.data, ipc)


def coresets(workspace: Workspace, ipc: int) -> dict[str, SmallSet]:
    """The coresets that are asked for, by name, as networks of the workspace take them, without a step size."""
    found: dict[str, SmallSet] = {}
    for name in coresets_of(workspace.settings):
        with workspace.progress.stage(f"coreset {name}", 1) as stage:
            found[name] = built(_beside(workspace, name, ipc), Path())
            stage.advance()
    return found


def measured(
    evaluator: Evaluator,
    workspace: Workspace,
    sets: Mapping[str, SmallSet],
    syn_lr: float | None,
    seeds: Sequence[int],
    progress: Progress,
) -> dict[str, Coreset]:
    """The accuracies of networks trained on them.

    Args:
        evaluator: of the set that they stand beside.
        workspace: that they were made in.
        sets: by name.
        syn_lr: η of that set, which is tried, too.
        seeds: of its networks.
        progress: where to report.
    """
    found = {}
    for name, small in sets.items():
        if evaluator.preprocessing.identity != workspace.preprocessing.identity:  # the set was made under another
            small = replace(small, images=evaluator.preprocessing.forward(workspace.preprocessing.inverse(small.images)))
        step = evaluator.step_size(small, None, progress, () if syn_lr is None else (syn_lr,))
        small = replace(small, syn_lr=step.value)
        splits = ("test", "val") if len(evaluator.data.val) else ("test",)
        test, *val = evaluator.on_splits(small, seeds, splits, progress, f"coreset {name}")
        held = Coreset(accuracy=evaluator.accuracies(test).at(step))
        found[name] = replace(held, validation=evaluator.accuracies(val[0], "val")) if val else held
    return found


def _beside(workspace: Workspace, name: str, ipc: int) -> Workspace:
    """The workspace of that coreset, on the same images."""
    one = Workspace(settings_of(workspace.settings, name, ipc), workspace.progress, workspace.store)
    one.__dict__.update(data=workspace.data, protocol_named=workspace.protocol_named)  # cached properties: not read again
    return one


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
