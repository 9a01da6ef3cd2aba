"""A run that recovers images: teacher, patches, and the file that a stopped one goes on from.

`statistics_matching.py` has what is done.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.settings import DataSettings
from limbeck.methods.materials import Materials
from limbeck.methods.norm_statistics import check_teacher
from limbeck.methods.realistic_patches import build as realistic_crops
from limbeck.methods.settings import OuterSettings, RdedSettings, Sre2lSettings
from limbeck.methods.statistics_matching import Recovery, State
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import put_copy, read_tensors, write_tensors
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.interruption import stoppable
from limbeck.runtime.progress import Stage
from limbeck.runtime.ranks import Ranks
from limbeck.runtime.sealed import Damaged, FileKind
from limbeck.saliency.settings import EnhanceSettings

RECOVERY = FileKind("recovery")
OTHER_NORMS = ("instancenorm", "groupnorm", "nonorm")
# Without these, where they change nothing, a stopped run has the name that it has had before they were there.
LATER = ("start", "crop_curriculum", "crop_milestone", "stages", "residual", "low_resolution")


def make(materials: Materials, folder: Path) -> tuple[Tensor, Tensor, nn.Module]:
    """X, the classes and the teacher of a run; one that was stopped goes on.

    The ranks of a run recover a share of the batches each, to the bits of one process, and on its way they write a file for each.
    Whoever goes on, one process or several, takes what is there of both kinds.
    """
    m, here = materials, Ranks.sharing()
    teacher = m.teacher(_teacher(m).name)
    flip = getattr(m.augmentation, "flip", True)  # an augmentation that does not speak of flips does not forbid them
    parts = (m.data.shape, m.data.num_classes, m.ipc, m.own(Sre2lSettings), m.seed, m.device, flip)
    enhancement = m.enhancement(torch.empty(0, dtype=torch.int64), teacher) if _is_enhanced(m) else None
    patches = _patches(m, teacher, here) if m.own(Sre2lSettings).takes_patches else None
    recovery = Recovery(teacher, m.preprocessing, *parts, patches, enhancement)
    of = fingerprint(*_own(m), m.data.fingerprint, m.ipc, m.seed, _teacher(m).name)
    whole, by_batch = _File(folder / "recovery.safetensors", of, m.progress.say), folder / "recovery"
    with stoppable():
        if here.alone and not by_batch.exists():
            state = whole.read(recovery) or recovery.start()
            with m.progress.stage("sre2l", recovery.iterations, int(state["done"])) as stage:
                state = _finished(recovery, state, whole, m, stage)
        else:
            held, mine = whole.read(recovery), range(recovery.batches)[here.share(recovery.batches)]

            def recovered() -> list[State]:
                with m.progress.stage("sre2l", len(mine) * recovery.settings.iterations) as stage:
                    return [_batch(recovery, held, number, by_batch, of, m, stage) for number in mine]

            state = recovery.joined([one for some in here.gathered(recovered) for one in some])
            here.told(lambda: whole.save(state))
            rmtree(by_batch, ignore_errors=True)
    images, classes = recovery.result(state)
    return images.to(m.device), classes, teacher


@dataclass(frozen=True)
class _File:
    """A state on disk, with the one before it beside it.

    Args:
        path: where.
        of: what the recovery depends on.
        say: takes a note for people.
    """

    path: Path
    of: str
    say: Callable[[str], None]

    @property
    def before(self) -> Path:
        return self.path.with_name(f"{self.path.stem}-before{self.path.suffix}")

    def save(self, state: State) -> None:
        """Write it."""
        if self.path.exists():
            put_copy(self.path, self.before)
        write_tensors(self.path, state, kind=RECOVERY, of=self.of)

    def read(self, recovery: Recovery) -> State | None:
        """The first of both that is sound; None where there is none, which is said unless there are no files."""
        for path in (self.path, self.before):
            try:
                state, _ = read_tensors(path, kind=RECOVERY, of=self.of)
                if not recovery.fits(state) or not all(bool(tensor.isfinite().all()) for tensor in state.values()):
                    raise Damaged("it is no state of this recovery")
                return state
            except FileNotFoundError:
                continue
            except (OSError, Damaged, LookupError, RuntimeError) as error:
                self.say(f"warning: {str(path)!r} is broken ({error}); what it held is made anew")
        return None


def _finished(recovery: Recovery, state: State, file: _File, materials: Materials, stage: Stage) -> State:
    """The last state, which is on disk, of a recovery that goes on from that one."""
    every = materials.own(OuterSettings).checkpoint_every

    def after(state: State, loss: Tensor) -> None:
        if int(state["done"]) % every == 0:
            file.save(state)
        stage.advance(loss=loss.item())

    state = recovery.run(state, after, file.save)
    write_tensors(file.path, state, kind=RECOVERY, of=file.of)
    return state


def _batch(recovery: Recovery, held: State | None, number: int, folder: Path, of: str, materials: Materials, stage: Stage) -> State:
    """The last state of a batch alone; of what is kept of it in the folder, or else in the state of all, it goes on."""
    alone = replace(recovery, only=number)
    folder.mkdir(parents=True, exist_ok=True)
    file = _File(folder / f"batch-{number:06d}.safetensors", of, materials.progress.say)
    state = file.read(alone) or (None if held is None else recovery.of_batch(held, number)) or alone.start()
    stage.advance(int(state["done"]))
    state = _finished(alone, state, file, materials, stage)
    last = number + 1 == recovery.batches  # of which alone more than the images is told
    return {name: value.cpu() for name, value in state.items() if last or name == "images"}


def _own(materials: Materials) -> tuple[Any, ...]:
    """The settings that a recovery depends on."""
    own, usual = materials.own(Sre2lSettings), Sre2lSettings()
    found: list[Any] = [{name: value for name, value in own.items() if name not in LATER or value != getattr(usual, name)}]
    found += [materials.own(RdedSettings)] if own.takes_patches else []
    found += [materials.own(EnhanceSettings)] if _is_enhanced(materials) else []
    return tuple(found)


def _is_enhanced(materials: Materials) -> bool:
    return materials.own(EnhanceSettings).weighting != "none"


def _patches(materials: Materials, teacher: nn.Module, here: Ranks) -> Tensor:
    """Of every image its real patch, with shape (ipc · K, C, H, W), in the order of the recovery's images."""
    m, data, mine = materials, materials.data, here.share(materials.data.num_classes)
    with m.progress.stage("patches", mine.stop - mine.start) as stage:
        parts = (data.train, m.preprocessing, data.num_classes, m.ipc, replace(m.own(RdedSettings), factor=1), m.seed, m.device)
        found = here.gathered(lambda: realistic_crops(teacher, *parts, lambda count: stage.advance(), mine)[0])
    images = torch.cat([some.to(m.device) for some in found])
    return images.view(data.num_classes, m.ipc, *data.shape).transpose(0, 1).flatten(0, 1)


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
