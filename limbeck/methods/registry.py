"""The methods by name: what makes the objective of the outer loop, or the set at once.

What a trajectory method is, its settings say (`presets.py`).
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from limbeck.augmentation_settings import AugmentSettings
from limbeck.evaluation.distances import features_of
from limbeck.matching.adjoint import Adjoint
from limbeck.matching.steps import StudentStep
from limbeck.methods import selection
from limbeck.methods.distribution_matching import DistributionMatching
from limbeck.methods.gradient_matching import GradientMatching
from limbeck.methods.objective import Objective
from limbeck.methods.rded import build as build_rded
from limbeck.methods.sre2l import Recovery
from limbeck.methods.trajectory import TrajectoryMatching
from limbeck.methods.workspace import Workspace
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.training.images import Images

Engine = tuple[StudentStep, Adjoint]
Make = Callable[[Workspace, Tensor, Engine | None], Objective]
Select = Callable[[Workspace], Tensor]
Build = Callable[[Workspace, Path], tuple[Tensor, Tensor]]


def trajectories(workspace: Workspace, classes: Tensor, engine: Engine | None) -> Objective:
    """MTT and what descends from it; Discriminative Area Enhancement comes with the outer loop."""
    s = workspace.settings
    assert engine is not None, "trajectory methods walk through student steps"
    return TrajectoryMatching(workspace.experts, s.experts.num_experts, *engine, s.match, s.schedule, s.augment, s.seed)


def gradients(workspace: Workspace, classes: Tensor, engine: Engine | None) -> Objective:
    """DC, and with siamese augmentation DSA."""
    s, train = workspace.settings, workspace.data.train
    augment = s.augment if s.method == "dsa" else AugmentSettings(strategy="none")
    real = (workspace.train_images, torch.from_numpy(train.labels))
    return GradientMatching(*real, classes, workspace.network, s.real, s.match, augment, s.seed)


def distributions(workspace: Workspace, classes: Tensor, engine: Engine | None) -> Objective:
    """DM."""
    s, train = workspace.settings, workspace.data.train
    real = (workspace.train_images, torch.from_numpy(train.labels))
    return DistributionMatching(*real, classes, workspace.network, s.real, s.match, s.augment, s.seed)


def random(workspace: Workspace) -> Tensor:
    """Random images."""
    return selection.random_subset(_labels(workspace), workspace.settings.ipc, workspace.settings.seed)


def herding(workspace: Workspace) -> Tensor:
    """Images whose mean follows that of their class, in the features of a network trained on the full data."""
    return selection.herding(_features(workspace), _labels(workspace), workspace.settings.ipc)


def k_center(workspace: Workspace) -> Tensor:
    """Images that cover their class, in the same features."""
    return selection.k_center(_features(workspace), _labels(workspace), workspace.settings.ipc)


def rded(workspace: Workspace, folder: Path) -> tuple[Tensor, Tensor]:
    """X and the classes: crops of real images, stitched."""
    s, data = workspace.settings, workspace.data
    teacher = workspace.evaluator().trained(s.rded.teacher)
    with workspace.progress.stage("rded", data.num_classes) as stage:
        parts = (data.train, workspace.preprocessing, data.num_classes, s.ipc, s.rded, s.seed, workspace.device)
        return build_rded(teacher, *parts, stage.advance)


def sre2l(workspace: Workspace, folder: Path) -> tuple[Tensor, Tensor]:
    """X and the classes: images recovered from a teacher; a run that was stopped goes on."""
    s, data, path = workspace.settings, workspace.data, folder / "recovery.safetensors"
    teacher = workspace.evaluator().trained(s.sre2l.teacher)
    parts = (data.shape, data.num_classes, s.ipc, s.sre2l, s.seed, workspace.device, s.augment.flip)
    recovery = Recovery(teacher, workspace.preprocessing, *parts)
    state = read_tensors(path)[0] if path.exists() else recovery.start()
    with workspace.progress.stage("sre2l", recovery.iterations, int(state["done"])) as stage:

        def after(state: dict[str, Tensor], loss: Tensor) -> None:
            if int(state["done"]) % s.outer.checkpoint_every == 0:
                write_tensors(path, state)
            stage.advance(loss=loss.item())

        state = recovery.run(state, after)
    write_tensors(path, state)
    return recovery.result(state)


METHODS: dict[str, Make] = {
    **dict.fromkeys(("edf", "pad", "datm", "tesla", "ftd", "mtt"), trajectories),
    **dict.fromkeys(("dsa", "dc"), gradients),
    "dm": distributions,
}
BUILDERS: dict[str, Build] = {"sre2l": sre2l, "rded": rded}
SELECTIONS: dict[str, Select] = {"random": random, "herding": herding, "k-center": k_center}


def _labels(workspace: Workspace) -> Tensor:
    return torch.from_numpy(workspace.data.train.labels)


def _features(workspace: Workspace) -> Tensor:
    """Of all training images, with shape (N, D), on the CPU."""
    evaluator = workspace.evaluator()
    module = evaluator.full_data.teacher(lambda: evaluator.images_of("test"), workspace.progress)
    images: Images = workspace.train_images
    parts = torch.arange(len(images)).split(512)
    return torch.cat([features_of(module, images.fetch(index)).cpu() for index in parts])
