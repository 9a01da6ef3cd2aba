"""A cell of a grid: one distillation, and `cells/NAME.json`, the small file that is kept of it. It says which settings are not
the defaults, so that results measured under others are noticed; `runs/NAME/` and `logs/NAME.log` are of cells that are not
finished.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import Self

from limbeck.accuracy import Accuracies
from limbeck.evaluation.coresets import Coresets
from limbeck.evaluation.scores import Doubt, joined
from limbeck.methods.registry import method_of
from limbeck.networks.convnet import PADDED
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.folder import RESULTS
from limbeck.runs.identity import NUMERICS, effects, otherwise, same_place
from limbeck.runs.settings import DistillSettings
from limbeck.runs.unread import may_read_experts
from limbeck.runtime.checked import shown
from limbeck.runtime.errors import Failure, Unsound, UsageError, reason
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import encodable, fingerprint
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import FileKind
from limbeck.studies.contents import Noted, changed, is_still, noted
from limbeck.studies.images import SourceImages, two_of_one_source

CELL = FileKind("cell of a grid")
# Where things lie and how many processes fetch them: no result depends on these.
PLACES = ("output", "data.root", "data.workers")
KEPT = (
    "accuracy",
    "networks",
    "network",
    "recovery_ratio",
    "doubts",
    "lossless",
    "coresets",
    "best_iteration",
    "skipped_share",
    "experts",
    "seconds",
    "cpu_seconds",
    "peak_memory",
    "data",
    "environment",
)
COMPARED = ("cosine", "norm_ratio")


@dataclass(frozen=True, eq=False)
class Cell:
    """One distillation of a grid.

    Args:
        name: of its files: letters, digits and any of `._+-`, the first no dot.
        recipe: as `limbeck distill` takes it; None where the settings hold objects that no command line can name.
        overrides: dotted keys with the values as typed.
        settings: what the two make.
        facts: what the grid wants to find beside the result, such as {"method": "edf", "ipc": 1, "seed": 0}.
        trust: whether code that the recipe names may run.
    """

    name: str
    recipe: str | None
    overrides: Mapping[str, str]
    settings: DistillSettings
    facts: Mapping[str, Any] = field(default_factory=dict)
    trust: bool = False

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[\w+-][\w.+-]*", self.name, re.ASCII), self.name

    @property
    def words(self) -> list[str]:
        """The overrides as they are typed."""
        return [f"{key}={value}" for key, value in self.overrides.items()]

    @cached_property
    def all_settings(self) -> FlatSettings:
        """The settings by dotted keys."""
        return FlatSettings.of(self.settings)

    @cached_property
    def changed(self) -> FlatSettings:
        """Those that are not the defaults, apart from `PLACES`."""
        return self.all_settings.changed(without=PLACES)

    @cached_property
    def needs_experts(self) -> bool:
        """Whether it reads experts, as far as settings tell."""
        return may_read_experts(self.settings, method_of(self.settings.method))

    @cached_property
    def experts(self) -> str:
        """The same for cells that train the same experts."""
        s = self.settings
        return fingerprint(encodable([s.data, s.network, s.augment, s.experts, s.seed]))


@dataclass(frozen=True, kw_only=True)
class CellRecord(Record):
    """What a finished cell measured, as its file has it.

    Args:
        facts: what the grid wants to know of it.
        accuracy: under the network that it was distilled for.
        network: the name of that.
        networks: what was found under others, by name, in JSON's types.
        doubts: what speaks against the accuracy of the full data as a measure.
        coresets: those beside it, where they were asked for.
        settings: those that are not the defaults, by dotted keys.
        skipped_share: of its iterations.
        seconds: by stage.
        cpu_seconds: of the process, likewise; older files have none.
        peak_memory: bytes, likewise.
        comparison: means of `COMPARED` over the run; empty where nothing was compared.
        numerics: `NUMERICS` of the version that measured it.
        protocol_in_file: the fingerprint of what the file of a protocol said; None where the protocol is no file.
        start: that of the set that it started from; None where `init` is none.
        store: that of the experts in `experts.store`; None where they are the cache's.
        more: what else the file says.
    """

    name: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    settings: FlatSettings = FlatSettings()
    network: str = ""
    networks: Mapping[str, Any] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()
    coresets: Coresets | None = None
    best_iteration: int | None = None
    skipped_share: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] | None = None
    comparison: Mapping[str, float] = field(default_factory=dict)
    accuracy: Accuracies = Accuracies()
    numerics: int = 1
    protocol_in_file: str | None = None
    start: str | None = None
    store: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    LEFT_OUT: ClassVar = (
        *("facts", "recipe", "overrides", "networks", "doubts", "coresets", "best_iteration", "skipped_share"),
        *("seconds", "cpu_seconds", "peak_memory", "data", "environment", "protocol_in_file", "start", "store"),
    )
    AMONG: ClassVar = ("more",)

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Self:
        """From a file.

        Raises:
            Unsound: where it has no accuracy.
        """
        known = {one.name for one in fields(cls)}
        found = super().from_dict({key: value for key, value in held.items() if value is not None or key not in known})
        if not 0 <= found.accuracy.distilled.mean <= 1:
            raise Unsound(f"an accuracy of {held['accuracy']['distilled']['mean']!r}")
        return found

    @property
    def images(self) -> str | None:
        """The fingerprint of the images that it was measured on; None where an older file does not say it."""
        return self.data.get("fingerprint")

    @property
    def noted(self) -> Noted:
        """What files held that its settings name, by key."""
        return {"eval.protocol": self.protocol_in_file, "init": self.start, "experts.store": self.store}

    def under(self, network: str) -> Accuracies:
        """The accuracies under that network; under the cell's own where it is the empty name."""
        if network in ("", self.network):
            return self.accuracy
        return Accuracies.from_dict(self.networks[network]["accuracy"])

    def coresets_under(self, network: str) -> Coresets | None:
        """The coresets under that network, likewise."""
        if network in ("", self.network):
            return self.coresets
        found = self.networks[network].get("coresets")
        return None if found is None else Coresets.from_dict(found)


def doubts_of(records: Mapping[str, CellRecord]) -> tuple[Doubt, ...]:
    """What speaks against the full data's accuracies of cells by name, under all networks: one of each kind."""
    rows = [(name, record.doubts) for name, record in records.items()]
    for name, record in records.items():
        for network, found in record.networks.items():
            rows.append((f"{name}, {network}", tuple(map(Doubt.from_dict, found.get("doubts", ())))))
    return joined(rows)


@dataclass(frozen=True)
class CellFolder:
    """The folder of a grid, and what is known of the images of its cells."""

    path: Path
    images: SourceImages = field(default_factory=SourceImages, repr=False, compare=False)

    def result_file(self, cell: Cell) -> Path:
        """Where the cell's result lies when it is finished."""
        return self.path / "cells" / f"{cell.name}.json"

    def run_folder(self, cell: Cell) -> Path:
        """Where the cell is distilled."""
        return self.path / "runs" / cell.name

    def log_file(self, cell: Cell) -> Path:
        """Where its process writes."""
        return self.path / "logs" / f"{cell.name}.log"

    def read(self, cell: Cell, *, opening: bool = True) -> CellRecord | None:
        """What the cell measured; None where it is not finished.

        Args:
            cell: of the grid.
            opening: whether what is called the same, images, sets and stores, is opened to see that it is.

        Raises:
            UsageError: when the file is broken, or was measured under other settings, on other images or from another set.
        """
        path = self.result_file(cell)
        try:
            held = CellRecord.from_dict(read_json(path, CELL))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UsageError(f"output: {str(path)!r} cannot be read: {error.strerror}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            advice = "delete it, and it is measured again"
            raise UsageError(f"output: {str(path)!r} is no result of a cell ({reason(error)}); {advice}") from error
        before, now = held.settings, cell.changed
        different = sorted(before.differences(now))
        found = effects((key for key, *_ in different), cell.settings)
        for key, *values in different:
            if found[key] == "none" or (found[key] == "content" and self._is_the_same(key, values, held, cell)):
                continue
            pairs = zip((before, now), values, strict=True)
            was, asked = (repr(value) if key in row.keys else "the default" for row, value in pairs)
            raise UsageError(f"output: {str(path)!r} was measured with {key} {was}, not {asked}; name another folder with --output")
        if opening and self.images.are_others(held.images, cell.settings):
            raise self._of_other_images(cell, f"{shown(cell.settings.data.source)} holds now")
        if said := changed(held.noted, cell.settings, self.images, opening):
            raise UsageError(f"output: {str(path)!r} {said}; name another folder with --output, or delete the file")
        if old := otherwise(held.numerics, cell.settings, padded=pads(cell.settings)):
            raise UsageError(f"output: {str(path)!r} was measured by an earlier version: {old}; name another folder with --output")
        return replace(held, facts=cell.facts)

    def _is_the_same(self, key: str, values: Sequence[Any], held: CellRecord, cell: Cell) -> bool:
        """Whether the two values of a key whose content counts mean the same: the images that it was measured on, one place."""
        if key.startswith("data."):
            return self.images.are_the_same(held.images, cell.settings)
        return _stands_for_the_same(key, values) or is_still(key, held.noted, cell.settings, self.images)

    def check_one_source(self, found: Mapping[Cell, CellRecord]) -> None:
        """See that finished cells of one source were measured on the same images, without opening them.

        Raises:
            UsageError: when they were not.
        """
        if two := two_of_one_source({cell: (cell.settings, record.images) for cell, record in found.items()}):
            raise self._of_other_images(two[1], repr(str(self.result_file(two[0]))))

    def _of_other_images(self, cell: Cell, than: str) -> UsageError:
        said = f"{str(self.result_file(cell))!r} was measured on other images than {than}"
        return UsageError(f"output: {said}; name another folder with --output, or delete the file")

    def collect(self, cell: Cell) -> CellRecord:
        """Write the result of the cell's finished run, and return it.

        Raises:
            Failure: when the run has left no results.
        """
        run = self.run_folder(cell)
        try:
            results = read_json(run / "results.json", RESULTS)
            found = CellRecord.from_dict({key: results[key] for key in KEPT if key in results})
        except FileNotFoundError as error:
            raise Failure(f"{run} holds no results") from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise Failure(f"{run} holds no results ({reason(error)})") from error
        files = noted(run, cell.settings)
        found = replace(
            found, protocol_in_file=files.get("eval.protocol"), start=files.get("init"), store=files.get("experts.store")
        )
        return self.write(cell, replace(found, numerics=NUMERICS, comparison=comparison(run / "metrics.jsonl")))

    def write(self, cell: Cell, found: CellRecord) -> CellRecord:
        """Write what was measured as the cell's result, and return it."""
        more = {**found.more, "fingerprint": fingerprint(cell.changed)}
        named = replace(found, name=cell.name, facts=cell.facts, recipe=cell.recipe, overrides=cell.overrides)
        record = replace(named, settings=cell.changed, more=more)
        write_json(self.result_file(cell), record, CELL)
        return record

    def clear(self, cell: Cell, keep: bool) -> None:
        """Delete the log, and the run folder unless it is to be kept."""
        self.log_file(cell).unlink(missing_ok=True)
        if not keep:
            shutil.rmtree(self.run_folder(cell), ignore_errors=True)
        for folder in ("logs", "runs"):
            with suppress(OSError):  # it holds another cell's, or another process has removed it
                (self.path / folder).rmdir()


def _stands_for_the_same(key: str, values: Sequence[Any]) -> bool:
    """Whether the two values of a key whose content counts mean the same by themselves, such as one place."""
    if key == "network":
        from limbeck.networks.names import same_network

        return same_network(*values)
    if key == "engine.device":
        from limbeck.runtime.devices import resolve_device, same_device

        with suppress(UsageError):
            return same_device(*(str(resolve_device(value)) for value in values))
        return False
    return same_place(*values)


def comparison(metrics: Path) -> dict[str, float]:
    """Means over a run of what it noted about its gradient beside the one without criterion and weights; empty where nothing."""
    rows = [row for row in read_metrics(metrics) if row.get("kind") == "comparison"]
    # A number that was not finite is null there.
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in COMPARED}
    return {name: sum(found) / len(found) for name, found in values.items() if found} | ({"n": len(rows)} if rows else {})


def pads(settings: DistillSettings) -> bool:
    """Whether ConvNets pad the images, as far as settings say how large these are."""
    return settings.data.size == PADDED and str(settings.network).startswith("ConvNet")
