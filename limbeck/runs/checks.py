"""What of a run is refused before anything is trained or written: whatever does not fit the data, the network or the machine."""

import torch

from limbeck.distilled.initial import Centre, check_ipc
from limbeck.evaluation.distances import features_of
from limbeck.evaluation.named import check_names, check_teacher
from limbeck.evaluation.view_labels import check_storable
from limbeck.matching.engine import check_engine
from limbeck.networks.names import check_network_name
from limbeck.runs import build
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import on_gpu
from limbeck.runtime.errors import require
from limbeck.runtime.ranks import Ranks
from limbeck.saliency.settings import EnhanceSettings
from limbeck.saliency.weights import NoWeighting


def check(workspace: Workspace) -> None:
    """Load the data, build the network and raise `UsageError` for what does not fit."""
    settings, method = workspace.settings, workspace.method
    settings.check_method(method)
    if isinstance(settings.network, str):
        check_network_name(settings.network)  # before the data, which may take long to load
    check_names(settings.eval)
    workspace.decoder.check()
    check_ipc(workspace.data, settings.ipc, workspace.decoder.images_per_slot)
    if settings.data.normalise != "fitted":
        workspace.preprocessing  # noqa: B018 (numbers for other channels are refused now)
    check_storable(settings.view_labels, workspace.protocol, workspace.data.num_classes)
    check_teacher(settings.eval, workspace.protocol, workspace.network_of)
    _check_ranks(workspace)
    workspace.check_shards()
    for note in check_engine(settings.engine, workspace.network, workspace.device, steps=method.steps):
        workspace.progress.say(note)
    image = torch.zeros(1, *workspace.data.shape, device=workspace.device)
    if _draws_maps(workspace):
        build.cam_of(settings.enhance).check(workspace.network.module, image)
    if method.steps:
        build.check_loss(settings, workspace.data.num_classes)
    if method.kind == "objective" and isinstance(workspace.initialisation, Centre):
        features_of(workspace.network.module, image)
    workspace.start  # noqa: B018 (read now, so that one that does not fit is refused)
    method.refuse(workspace)


def _check_ranks(workspace: Workspace) -> None:
    """Raise `UsageError` for a device that several processes cannot have."""
    ranks, named = Ranks.here(), workspace.settings.engine.device
    if not ranks.alone and on_gpu(workspace.device):
        accepted = f"auto, cuda or cpu: each of the {ranks.on_this_machine} processes takes a GPU of its own"
        require(":" not in named, "engine.device", named, accepted)
        accepted = f"at most {torch.cuda.device_count()}, the GPUs of this machine; engine.device=cpu takes none"
        require(ranks.on_this_machine <= torch.cuda.device_count(), "--nproc-per-node", ranks.on_this_machine, accepted)


def _draws_maps(workspace: Workspace) -> bool:
    """Whether maps are made of a network that must have them: to weight, or as somebody has asked for them."""
    enhance, usual = workspace.settings.enhance, EnhanceSettings()
    asked = (enhance.cam, enhance.cam_layer) != (usual.cam, usual.cam_layer)
    weights = not isinstance(build.weighting_of(enhance), NoWeighting)
    return weights or (asked and workspace.method.kind == "objective")
