"""The folder of one run: what it was asked for, what was decided, and whether a second start may go on with it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from limbeck.matching.engine import Arrangement
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.settings import DistillSettings, flat
from limbeck.runs.workspace import Resolved, resolve
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.kept import lock
from limbeck.runtime.memory import peak_memory

# Keys that no result before the final evaluation depends on: a resumed run may change them.
LATE_KEYS = {"output", "data.root", "data.workers", "eval.seeds", "eval.networks", "eval.random_lr"} | {
    f"eval.full_{name}" for name in ("epochs", "seeds", "lr", "batch_size")
}


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
        for key, asked, held in self._differences():
            if key not in LATE_KEYS:
                raise UsageError(f"{key}: {asked!r} is not {held!r}, which the run in {str(self.path)!r} was started with")

    def _differences(self) -> list[tuple[str, Any, Any]]:
        # A run that was begun before a key was known went by that key's default.
        return sorted(FlatSettings.of(self.settings).differences(FlatSettings(flat(own_json(self.settings_file)))))

    def open(self, data: str) -> None:
        """Write the settings and the decisions, or refuse to resume on images of another fingerprint than `data`."""
        if not self._begun():
            write_json(self.settings_file, self.settings)
            write_json(self.state_file, {"data": data, "resolved": resolve(self.settings), "stages": {}})
        elif self._differences():  # in keys that only the final evaluation reads: it is made again
            write_json(self.settings_file, self.settings)
            self.results_file.unlink(missing_ok=True)
        if self.state()["data"] != data:
            source = self.settings.data.source
            raise UsageError(f"data.source: the images of {source!r} have changed since the run in {str(self.path)!r} was started")

    def state(self) -> dict[str, Any]:
        """The content of `state.json`."""
        return own_json(self.state_file)

    @property
    def resolved(self) -> Resolved:
        """What was decided automatically."""
        held = self.state()["resolved"]
        engine = held.get("engine")
        return Resolved(held["device"], held["threads"], Arrangement(**engine) if engine else None)

    def decide(self, **values: Any) -> None:
        """Change what was decided."""
        state = self.state()
        write_json(self.state_file, {**state, "resolved": {**state["resolved"], **values}})

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of every stage, over all starts of the run."""
        stages: dict[str, float] = self.state()["stages"]
        return stages

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """Seconds of the CPU that this process took for every stage, all threads together, over all starts of the run."""
        return dict(self.state().get("cpu_seconds", {}))

    @property
    def peak_memory(self) -> dict[str, int]:
        """Bytes: the most until the end of every stage, of the process or, on CUDA, of its tensors on the device."""
        return dict(self.state().get("peak_memory", {}))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's seconds to the stage of that name, the clock's and the CPU's, and note the memory taken."""
        began, worked = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            state = self.state()
            state["stages"][name] = round(state["stages"].get(name, 0.0) + time.perf_counter() - began, 3)
            busy = state.setdefault("cpu_seconds", {})
            busy[name] = round(busy.get(name, 0.0) + time.process_time() - worked, 3)
            peaks = state.setdefault("peak_memory", {})
            peaks[name] = max(peaks.get(name, 0), peak_memory(torch.device(state["resolved"]["device"])))
            write_json(self.state_file, state)


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


def own_json(path: Path) -> dict[str, Any]:
    """The object in a file that the run wrote itself."""
    try:
        value: dict[str, Any] = read_json(path)
        return dict(value)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"output: {str(path)!r} is broken ({error}); start anew in another folder") from error
