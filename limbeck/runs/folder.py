"""The folder of one run: what it was asked for, what was decided, and whether a second start may go on with it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from filelock import Timeout

from limbeck.methods.registry import method_of
from limbeck.networks.convnet import PADDED, ConvNet
from limbeck.networks.flat import FlatNetwork
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.settings import DistillSettings, flat
from limbeck.runs.unread import idle_keys
from limbeck.runs.workspace import Resolved, resolve
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.kept import lock
from limbeck.runtime.memory import peak_memory
from limbeck.runtime.records import Record

T = TypeVar("T")

# Keys that no result before the final evaluation depends on: a resumed run may change them, as it may what its method never reads.
LATE_KEYS = {"output", "data.root", "data.workers", "eval.seeds", "eval.networks", "eval.random_lr"} | {
    f"eval.full_{name}" for name in ("epochs", "seeds", "lr", "batch_size")
}


NUMERICS = 2  # raised when a version computes other figures from the same settings


@dataclass(frozen=True)
class State(Record):
    """The content of `state.json`.

    Args:
        data: the fingerprint of the images.
        resolved: what was decided automatically.
        stages: seconds of every stage, over all starts of the run.
        init: the content of the set that the run started from.
        cpu_seconds: of the CPU that this process took for every stage, all threads together, over all starts of the run.
        peak_memory: bytes: the most until the end of every stage, of the process or, on CUDA, of its tensors on the device.
        numerics: `NUMERICS` of the version that started the run.
    """

    data: str
    resolved: Resolved
    stages: Mapping[str, float] = field(default_factory=dict)
    init: str | None = None
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory: Mapping[str, int] = field(default_factory=dict)
    numerics: int = 1

    LEFT_OUT: ClassVar = ("init", "cpu_seconds", "peak_memory")


class RunFolder:
    """The folder of one run: its settings, what was decided automatically, the seconds of each stage.

    Args:
        path: the folder, absent or empty unless `resume`.
        settings: of the run.
        resume: whether to go on with what is there.

    Raises:
        UsageError: when there is a run already and `resume` is not asked for, or its settings are others.
    """

    def __init__(self, path: Path, settings: DistillSettings, resume: bool) -> None:
        self.path, self.settings = path, settings
        self.settings_file, self.state_file, self.results_file = (
            path / f"{name}.json" for name in ("settings", "state", "results")
        )
        if self._begun():
            if not resume:
                raise UsageError(f"output: {str(path)!r} is not empty; go on with --resume, or name another with --output")
            self._refuse_other()

    def _begun(self) -> bool:
        """Whether there is anything in the folder beyond what a run writes before its first result."""
        if not self.path.exists():
            return False
        own = (self.settings_file.name, self.state_file.name)
        return not self.path.is_dir() or any(file.name not in own and not file.name.startswith(".") for file in self.path.iterdir())

    def _refuse_other(self) -> None:
        if not self.settings_file.exists():
            raise UsageError(f"output: {str(self.path)!r} is not the folder of a run that could be resumed")
        different = self._differences()
        free = LATE_KEYS.union(idle_keys(self.settings, [key for key, _, _ in different]))
        for key, asked, held in different:
            if key not in free:
                raise UsageError(f"{key}: {asked!r} is not {held!r}, which the run in {str(self.path)!r} was started with")

    def _differences(self) -> list[tuple[str, Any, Any]]:
        # A run that was begun before a key was known went by that key's default.
        found = FlatSettings(own_json(self.settings_file, flat))
        return sorted(FlatSettings.of(self.settings).differences(found))

    def open(self, data: str, network: FlatNetwork) -> None:
        """Write the settings and the decisions, or refuse to resume on images of another fingerprint than `data`, or what an
        earlier version started that computed otherwise.
        """
        if not self._begun():
            write_json(self.settings_file, self.settings)
            write_json(self.state_file, State(data, resolve(self.settings), numerics=NUMERICS))
        elif self._differences():  # in keys that only the final evaluation reads: it is made again
            write_json(self.settings_file, self.settings)
            self.results_file.unlink(missing_ok=True)
        if self.state.data != data:
            source = self.settings.data.source
            raise UsageError(f"data.source: the images of {source!r} have changed since the run in {str(self.path)!r} was started")
        if self.state.numerics < 2 and not self.results_file.exists():
            self._refuse_first(network)

    def _refuse_first(self, network: FlatNetwork) -> None:
        """Refuse what the first version computed otherwise."""
        experts, began = self.settings.experts, f"when the run in {str(self.path)!r} was started; start anew in another folder"
        if isinstance(network.module, ConvNet) and network.module.padding > 1:
            raise UsageError(f"network: {network.name!r} did not pad images of {PADDED}×{PADDED} pixels {began}")
        if experts.curriculum == "pad" and method_of(self.settings.method).experts:
            raise UsageError(f"experts.curriculum: 'pad' took other images in some epochs {began}")

    @property
    def state(self) -> State:
        """The content of `state.json`."""
        return own_json(self.state_file, State.from_dict)

    def note(self, **changes: Any) -> None:
        """Change fields of the state."""
        write_json(self.state_file, replace(self.state, **changes))

    def hold_start(self, content: str) -> None:
        """Note what the set that the run starts from holds, or refuse to go on when that is no longer so."""
        if self.state.init not in (None, content):
            init = self.settings.init
            raise UsageError(f"init: the set in {init!r} has changed since the run in {str(self.path)!r} was started")
        self.note(init=content)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's seconds to the stage of that name, the clock's and the CPU's, and note the memory taken."""
        began, worked = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            state = self.state
            spent = round(state.stages.get(name, 0.0) + time.perf_counter() - began, 3)
            busy = round(state.cpu_seconds.get(name, 0.0) + time.process_time() - worked, 3)
            peak = max(state.peak_memory.get(name, 0), peak_memory(torch.device(state.resolved.device)))
            self.note(
                stages={**state.stages, name: spent},
                cpu_seconds={**state.cpu_seconds, name: busy},
                peak_memory={**state.peak_memory, name: peak},
            )


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Hold the run folder against other processes.

    Raises:
        UsageError: when another process holds it.
    """
    try:
        held = lock(output / ".run").acquire(timeout=0)
    except Timeout as error:
        raise UsageError(f"output: another process is running in {str(output)!r}") from error
    except OSError as error:
        raise UsageError(f"output: {str(output)!r} cannot be written: {error.strerror}") from error
    with held:
        yield


def own_json(path: Path, read: Callable[[Any], T]) -> T:
    """What `read` makes of a file that the run wrote itself."""
    try:
        return read(read_json(path))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"output: {str(path)!r} is broken ({error}); start anew in another folder") from error
