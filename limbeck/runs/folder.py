"""The folder of one run: what it was asked for, what was decided, and whether a second start may go on with it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import torch

from limbeck.distilled.settings import STARTS
from limbeck.evaluation.protocols import PROTOCOLS, Protocol
from limbeck.networks.convnet import ConvNet
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.names import same_network
from limbeck.runs.data_card import FILE as DATA_CARD
from limbeck.runs.decided import Resolved, resolve
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.identity import NUMERICS, Effect, effect_of, effects, otherwise, protocol_chooses, protocol_in_file
from limbeck.runs.settings import DistillSettings, flat
from limbeck.runtime.devices import same_device
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.launch import job, restarted
from limbeck.runtime.leftovers import tidy, tidy_passing
from limbeck.runtime.locks import Busy, lock
from limbeck.runtime.memory import peak_memory
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import FileKind

SETTINGS, STATE, RESULTS = FileKind("run settings"), FileKind("run state"), FileKind("run results")
T = TypeVar("T")


@dataclass(frozen=True)
class State(Record):
    """The content of `state.json`.

    Args:
        data: the fingerprint of the images.
        resolved: what was decided automatically.
        stages: seconds of every stage, over all starts of the run.
        init: the content of the set that the run started from.
        experts: that of the experts.
        protocol: that of the file of the user's that the protocol is; None where it is none.
        cpu_seconds: of the CPU that this process took for every stage, all threads together, over all starts of the run.
        peak_memory: bytes: the most until the end of every stage, of the process or, on CUDA, of its tensors on the device.
        numerics: `NUMERICS` of the version that started the run.
        run: what its files say that they belong to; None in runs of earlier versions.
        job: what started the processes that last went on with it, and starts them anew when one has died.
        now: the stage that it is in, or was in when it was killed.
    """

    data: str
    resolved: Resolved
    stages: Mapping[str, float] = field(default_factory=dict)
    init: str | None = None
    experts: str | None = None
    protocol: str | None = None
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory: Mapping[str, int] = field(default_factory=dict)
    numerics: int = 1
    run: str | None = None
    job: str | None = None
    now: str | None = None

    LEFT_OUT: ClassVar = ("init", "experts", "protocol", "cpu_seconds", "peak_memory", "run", "job", "now")


class RunFolder:
    """The folder of one run: its settings, what was decided automatically, the seconds of each stage.

    Args:
        path: the folder, absent or empty unless `resume`.
        settings: of the run.
        resume: whether to go on with what is there.
        protocol: what its file said when the run read it; None reads it again.

    Raises:
        UsageError: when there is a run already and `resume` is not asked for, or its settings are others.
    """

    def __init__(self, path: Path, settings: DistillSettings, resume: bool, protocol: Protocol | None = None) -> None:
        self.path, self.settings, self.resume, self.protocol = path, settings, resume, protocol
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
        own = (self.settings_file.name, self.state_file.name, DATA_CARD)
        return not self.path.is_dir() or any(file.name not in own and not file.name.startswith(".") for file in self.path.iterdir())

    def _prepared(self, data: str) -> bool:
        """Whether the same run was stopped here before its first result: what was decided then, and how long it took, is kept."""
        try:
            held, now = self.state, resolve(self.settings)
            alike = (held.data, held.run, held.numerics) == (data, self._identity(data), NUMERICS)
            return alike and same_device(now.device, held.resolved.device) and not self._differences()
        except (OSError, UsageError):
            return False

    def _refuse_other(self) -> None:
        if not self.settings_file.exists():
            raise UsageError(f"output: {str(self.path)!r} is not the folder of a run that could be resumed")
        different = self._differences()
        found = effects((key for key, _, _ in different), self.settings, self.protocol)
        for key, asked, held in different:
            if found[key] == "result" or (found[key] == "content" and not self._may_be(key, asked, held)):
                raise UsageError(f"{key}: {asked!r} is not {held!r}, which the run in {str(self.path)!r} was started with")

    def _may_be(self, key: str, asked: Any, held: Any) -> bool:
        """Whether two values can stand for the same, as far as that is known before anything is loaded."""
        if key == "network":
            return same_network(asked, held)
        if key == "init":  # two sets, and no way to make one
            return asked not in STARTS and held not in STARTS
        if key == "eval.protocol":  # two files
            return self.state.protocol is not None and isinstance(held, str) and held not in PROTOCOLS
        if key == "engine.micro_batch":
            decided = self.state.resolved.engine
            return asked == "auto" or decided is None or decided.micro_batch == asked
        return True

    def _differences(self) -> list[tuple[str, Any, Any]]:
        # A run that was begun before a key was known went by that key's default.
        found = FlatSettings(own_json(self.settings_file, flat, SETTINGS))
        return sorted(FlatSettings.of(self.settings).differences(found))

    def open(self, data: str, network: FlatNetwork) -> list[str]:
        """Write the settings and the decisions, or refuse to resume on images of another fingerprint than `data`, or what an
        earlier version started that computed otherwise.

        Returns:
            What a user should hear about settings that are others now, a sentence each.
        """
        if not self._begun() and not (self.resume and self._prepared(data)):
            write_json(self.settings_file, self.settings, SETTINGS)
            write_json(self.state_file, State(data, resolve(self.settings), numerics=NUMERICS, run=self._identity(data)), STATE)
        if self.state.job != job():
            self.note(job=job())
        different = self._differences()
        notes = self._hold_protocol(data)
        if self.state.data != data:
            self._refuse_images(different)
        padded = isinstance(network.module, ConvNet) and network.module.padding > 1
        before = None if self.results_file.exists() else otherwise(self.state.numerics, self.settings, padded=padded)
        if before:
            raise UsageError(f"{before} when the run in {str(self.path)!r} was started; start anew in another folder")
        if different:
            found = effects((key for key, _, _ in different), self.settings, self.protocol)
            write_json(self.settings_file, self.settings, SETTINGS)
            if "late" in found.values():  # the final evaluation is made again
                self.results_file.unlink(missing_ok=True)
            if "engine.memory" in found and self.state.resolved.engine is not None:
                notes.append("note: engine.memory: how the engine works was decided when the run was started, and stays so")
        return notes

    def _hold_protocol(self, data: str) -> list[str]:
        """Note what a file of a protocol says, or refuse another that would have chosen another iteration, or other images."""
        held, said = self.state.protocol, protocol_in_file(self.settings, self.protocol)
        changed = held is not None and said is not None and said != held
        if changed and (protocol_chooses(self.settings, self.protocol) or self.state.data != data):
            advice = "`limbeck evaluate` measures its set under another"
            what = f"the protocol in {self.settings.eval.protocol!r} has changed since the run in {str(self.path)!r} was started"
            raise UsageError(f"eval.protocol: {what}; {advice}")
        if changed:  # before what it was is forgotten
            self.results_file.unlink(missing_ok=True)
        if said != held:
            self.note(protocol=said)
        if not changed:
            return []
        return [f"note: eval.protocol: {self.settings.eval.protocol!r} has changed; the final evaluation is made again"]

    def _refuse_images(self, different: Sequence[tuple[str, Any, Any]]) -> NoReturn:
        """Refuse other images, by the keys that may make them others, the source first."""
        began = f"since the run in {str(self.path)!r} was started"
        own = [
            one for one in different if one[0].startswith("data.") and effect_of(one[0], self.settings, self.protocol) == "content"
        ]
        own.sort(key=lambda one: one[0] != "data.source")
        if not own:
            raise UsageError(f"data.source: the images of {self.settings.data.source!r} have changed {began}")
        said = ", ".join(f"{key} {asked!r} instead of {held!r}" for key, asked, held in own)
        raise UsageError(f"{own[0][0]}: the images have changed {began}, with {said}")

    @property
    def state(self) -> State:
        """The content of `state.json`."""
        return own_json(self.state_file, State.from_dict, STATE)

    @property
    def run_id(self) -> str:
        """What the files of the run say that they belong to."""
        return self.state.run or ""

    def note(self, **changes: Any) -> None:
        """Change fields of the state."""
        write_json(self.state_file, replace(self.state, **changes), STATE)

    def results(self, read: Callable[[Any], T], say: Callable[[str], None]) -> T | None:
        """What `read` makes of the results; None where there are none, or damaged ones, which is said."""
        if not self.results_file.exists():
            return None
        try:
            return read(read_json(self.results_file, RESULTS, self._of_results))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            say(f"warning: {str(self.results_file)!r} is broken ({error}); the final evaluation is made again")
            return None

    def write_results(self, result: Record) -> None:
        """Write the results."""
        write_json(self.results_file, result, RESULTS, self._of_results)

    @property
    def _of_results(self) -> str:
        """The run, and how it was evaluated."""
        return fingerprint(self.run_id, self._values("late").keys) if self.run_id else ""

    def _identity(self, data: str) -> str:
        """The same for runs that have the same result."""
        said = protocol_in_file(self.settings, self.protocol)
        return fingerprint(data, self._values("result").keys, str(self.settings.init), *([] if said is None else [said]))

    def _values(self, effect: Effect) -> FlatSettings:
        """The settings that have that effect."""
        keys = FlatSettings.of(self.settings).keys
        found = {key: keys[key] for key, found in effects(keys, self.settings, self.protocol).items() if found == effect}
        # As before there were any baselines.
        return FlatSettings({key: value for key, value in found.items() if (key, value) != ("eval.baselines", None)})

    def hold_start(self, content: str) -> None:
        """Note what the set that the run starts from holds, or refuse to go on when that is no longer so."""
        if self.state.init not in (None, content):
            init = self.settings.init
            raise UsageError(f"init: the set in {init!r} has changed since the run in {str(self.path)!r} was started")
        self.note(init=content)

    def hold_experts(self, content: str) -> None:
        """Note what the experts are, or refuse to go on with others, wherever they lie."""
        if self.state.experts not in (None, content):
            place = self.settings.experts.store
            raise UsageError(f"experts.store: the experts in {place!r} are not those that the run in {str(self.path)!r} began with")
        self.note(experts=content)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's seconds to the stage of that name, the clock's and the CPU's, and note the memory taken."""
        began, worked = time.perf_counter(), time.process_time()
        self.note(now=name)
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
                now=None,
            )


def begun_by_this_job(output: Path) -> bool:
    """Whether this process was started anew, as torchrun does when one has died, and those before it began the run in `output`."""
    state = output / "state.json"
    return restarted() and state.exists() and own_json(state, State.from_dict, STATE).job == job()


@contextmanager
def alone(output: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the run folder against other processes.

    Args:
        output: the folder.
        patience: seconds to wait for one that may be ending.

    Raises:
        UsageError: when another process holds it.
    """
    try:
        held = lock(output / ".run").acquire(timeout=patience)
    except Busy as error:
        raise UsageError(f"output: another process is running in {str(output)!r} ({error})") from error
    except OSError as error:
        raise UsageError(f"output: {str(output)!r} cannot be written: {error.strerror}") from error
    with held:
        tidy_passing()
        for folder in (output, output / "snapshots"):
            tidy(folder, alone=True)
        yield


def own_json(path: Path, read: Callable[[Any], T], kind: FileKind) -> T:
    """What `read` makes of a file that the run wrote itself."""
    try:
        return read(read_json(path, kind))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"output: {str(path)!r} is broken ({error}); start anew in another folder") from error
