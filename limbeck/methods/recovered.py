"""A run that recovers images: teacher, patches, and the file that a stopped one goes on from. `sre2l.py` has what is done."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.settings import DataSettings
from limbeck.methods.materials import Materials
from limbeck.methods.realistic_patches import build as realistic_crops
from limbeck.methods.settings import OuterSettings, RdedSettings, Sre2lSettings
from limbeck.methods.statistics_matching import Recovery, State, check_teacher
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import put_copy, read_tensors, write_tensors
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.interruption import stoppable
from limbeck.runtime.ranks import Ranks
from limbeck.runtime.sealed import Damaged, FileKind
from limbeck.saliency.settings import EnhanceSettings

RECOVERY = FileKind("recovery")
OTHER_NORMS = ("instancenorm", "groupnorm", "nonorm")
# Without these, where they change nothing, a stopped run has the name that it has had before they were there.
LATER = ("start", "crop_curriculum", "crop_milestone", "stages", "residual", "low_resolution")


def make(materials: Materials, folder: Path) -> tuple[Tensor, Tensor, nn.Module]:
    """X, the classes and the teacher of a run; one that was stopped goes on.

    All ranks of a run train the teacher; the first one recovers the images and tells the others.
    """
    teacher = materials.teacher(_teacher(materials).name)
    images, classes = Ranks.sharing().told(lambda: _recovered(materials, folder, teacher))
    return images.to(materials.device), classes, teacher


def _recovered(materials: Materials, folder: Path, teacher: nn.Module) -> tuple[Tensor, Tensor]:
    """X and the classes."""
    m, data, path = materials, materials.data, folder / "recovery.safetensors"
    before = folder / "recovery-before.safetensors"
    flip = getattr(m.augmentation, "flip", True)  # an augmentation that does not speak of flips does not forbid them
    parts = (data.shape, data.num_classes, m.ipc, m.own(Sre2lSettings), m.seed, m.device, flip)
    enhancement = m.enhancement(torch.empty(0, dtype=torch.int64), teacher) if _is_enhanced(m) else None
    patches = _patches(m, teacher) if m.own(Sre2lSettings).takes_patches else None
    recovery = Recovery(teacher, materials.preprocessing, *parts, patches, enhancement)
    of = fingerprint(*_own(m), data.fingerprint, m.ipc, m.seed, _teacher(materials).name)
    state = _begun((path, before), recovery, of, m.progress.say) or recovery.start()

    def save(state: State) -> None:
        if path.exists():
            put_copy(path, before)
        write_tensors(path, state, kind=RECOVERY, of=of)

    with stoppable(), materials.progress.stage("sre2l", recovery.iterations, int(state["done"])) as stage:

        def after(state: State, loss: Tensor) -> None:
            if int(state["done"]) % m.own(OuterSettings).checkpoint_every == 0:
                save(state)
            stage.advance(loss=loss.item())

        state = recovery.run(state, after, save)
    write_tensors(path, state, kind=RECOVERY, of=of)
    return recovery.result(state)


def _own(materials: Materials) -> tuple[Any, ...]:
    """The settings that a recovery depends on."""
    own, usual = materials.own(Sre2lSettings), Sre2lSettings()
    found: list[Any] = [{name: value for name, value in own.items() if name not in LATER or value != getattr(usual, name)}]
    found += [materials.own(RdedSettings)] if own.takes_patches else []
    found += [materials.own(EnhanceSettings)] if _is_enhanced(materials) else []
    return tuple(found)


def _is_enhanced(materials: Materials) -> bool:
    return materials.own(EnhanceSettings).weighting != "none"


def _patches(materials: Materials, teacher: nn.Module) -> Tensor:
    """Of every image its real patch, with shape (ipc · K, C, H, W), in the order of the recovery's images."""
    m, data = materials, materials.data
    with m.progress.stage("patches", data.num_classes) as stage:
        parts = (data.train, m.preprocessing, data.num_classes, m.ipc, replace(m.own(RdedSettings), factor=1), m.seed, m.device)
        images, _ = realistic_crops(teacher, *parts, lambda count: stage.advance())
    return images.view(data.num_classes, m.ipc, *data.shape).transpose(0, 1).flatten(0, 1)


def _begun(paths: Sequence[Path], recovery: Recovery, of: str, say: Callable[[str], None]) -> State | None:
    """The state in the first of the files that is sound; None where there is none, which is said unless there are no files."""
    for path in paths:
        try:
            state, _ = read_tensors(path, kind=RECOVERY, of=of)
            if not recovery.fits(state) or not all(bool(tensor.isfinite().all()) for tensor in state.values()):
                raise Damaged("it is no state of this recovery")
            return state
        except FileNotFoundError:
            continue
        except (OSError, Damaged, LookupError, RuntimeError) as error:
            say(f"warning: {str(path)!r} is broken ({error}); what it held is made anew")
    return None


def check(materials: Materials) -> None:
    """Raise `UsageError` when there is no teacher with batch norm, nor one that maps are made of, or X cannot be made smaller."""
    network, low = _teacher(materials), materials.own(Sre2lSettings).low_resolution
    check_teacher(network.module, network.name)
    require(low == 1 or not materials.own(DataSettings).zca, "sre2l.low_resolution", low, "1 with data.zca=true")
    if _is_enhanced(materials):
        none, one = torch.empty(0, dtype=torch.int64), torch.zeros(1, *materials.data.shape, device=materials.device)
        materials.enhancement(none, network.module).cam.check(network.module, one)


def _teacher(materials: Materials) -> FlatNetwork:
    """The teacher's network, not trained: the one named, or the one distilled for, with batch norm where that is to be had."""
    named, own = materials.own(Sre2lSettings).teacher, materials.network
    if named is None and own.has_batch_norm:
        return own
    try:
        return materials.network_of(named or with_batch_norm(own.name))
    except UsageError as error:
        if named is None:
            return own
        raise UsageError(f"sre2l.teacher: {str(error).removeprefix('network: ')}") from error


def with_batch_norm(name: str) -> str:
    """The name of a network with batch norm instead of another one: ConvNetD3-w32-batchnorm for ConvNetD3-w32."""
    return "-".join([*(word for word in name.split("-") if word not in OTHER_NORMS), "batchnorm"])
