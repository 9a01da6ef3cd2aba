"""`measure_complexity`: from settings to a folder of results."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from limbeck.data.benchmarks import innermost
from limbeck.data.imageset import ImageSet
from limbeck.data.load import decodes_at_any_size, load_data
from limbeck.data.settings import DataSettings
from limbeck.data.split import Wanted
from limbeck.image_complexity.classifier import Classifier, size_text
from limbeck.image_complexity.measure import PARTS, ImageTable, Measurement, choose, fill
from limbeck.image_complexity.networks import check_folder, check_given, is_trained_here, judge, save_network
from limbeck.image_complexity.results import Summary, image_rows, parquet_library, summary, write_parquet, write_tables
from limbeck.image_complexity.settings import Cam, ComplexitySettings
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.checked import FolderPath, checked
from limbeck.runtime.determinism import repeating
from limbeck.runtime.devices import undisturbed
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.executor import Executor, Shard
from limbeck.runtime.executor.current import executing
from limbeck.runtime.files import write_json
from limbeck.runtime.plugins import is_code
from limbeck.runtime.progress import LogProgress, NoProgress, Progress
from limbeck.runtime.published import Work, working
from limbeck.runtime.room import check_place, disks_told
from limbeck.runtime.sealed import FileKind
from limbeck.runtime.tables import Page

NETWORK = "network"
SUMMARY = FileKind("complexities")


@dataclass(frozen=True, eq=False, repr=False)
class Complexity:
    """What was measured; printed, or at the end of a cell of a notebook, it shows itself.

    Args:
        measurement: for maps and features.
        images: what is known of single images.
        results: of the classes and the whole; its `to_dict` is the layout of `complexity.json`.
        data: the settings of the images, with the size they were brought to.
        paths: of the files written.
    """

    measurement: Measurement
    images: ImageTable
    results: Summary
    data: DataSettings
    paths: Mapping[str, str] = field(default_factory=dict)

    def __json__(self) -> Any:
        """The layout of `complexity.json`."""
        return self.results.to_dict()

    @property
    def mean(self) -> float:
        """The complexity of the whole in percent, at the first threshold."""
        return self.results.complexity

    @property
    def classes(self) -> dict[str, float | None]:
        """That of every class; None without an image of finite logits."""
        return {row.name: row.complexity for row in self.results.classes}

    def table(self) -> Page:
        """Classes and the whole, for people."""
        return self.results.page

    def __repr__(self) -> str:
        return f"Complexity({self.mean:.1f} %, {len(self.classes)} classes)"

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


@disks_told()
@undisturbed()
def complexity(
    data: Any,
    *,
    network: str | Classifier = "ConvNetD3",
    cam: Cam = "gradcam",
    output: Path | str | None = None,
    executor: Executor | str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Complexity:
    """How complex images, their classes and the whole are to a network: the share of an image that does not speak for its class.

    Args:
        data: what `distill` takes: an `ImageSet`, a path or name, a data set of torch or Hugging Face.
        network: to look with: the name of one that is trained on the data, a folder, a name on the Hub, or a `Classifier`.
        cam: the kind of activation maps.
        output: the folder for tables and the network, or its URL; None writes none.
        executor: where jobs run: `local` for processes of this machine, `ray` or a `limbeck.Ray` for a cluster.
        progress: where to report; None goes through `logging`.
        **settings: what else `ComplexitySettings` has, such as `thresholds=(0.5,)`, `classes="predicted"`, `per_class=100`; and
            keys of data and training, in full (`**{"data.size": 64}`) or by their last word (`full_epochs=20`).

    Raises:
        UsageError: when the data, the network or the layer cannot be used.
        Failure: when training diverges, or no image gives finite logits.

    Example:
        >>> tiny = {"data.size": 16, "data.per_class": 12, "full_epochs": 1}
        >>> found = complexity("scenes:easy", network="ConvNetD2-w4", workers=1, **tiny)
        >>> 0 <= found.mean <= 100, len(found.classes)
        (True, 10)
    """
    accepted = "the name of a network, a folder or a Classifier"
    require(isinstance(network, (str, Classifier)), "network", getattr(network, "__name__", type(network).__name__), accepted)
    written = output is None or not Path(checked("output", FolderPath, output)).is_file()
    require(written, "output", str(output), "a folder, or None")
    own = {one.name for one in fields(ComplexitySettings)}
    named = network if isinstance(network, str) else network.name
    rest = {key: value for key, value in settings.items() if key not in own}
    classifier = network if isinstance(network, Classifier) else None
    with _named_as_here():
        look = ComplexitySettings(network=named, cam=cam, **{key: value for key, value in settings.items() if key in own})
        held = DistillSettings.of({**rest, "data.source": data})
        kept: AbstractContextManager[Work | None] = nullcontext() if output is None else working("output", output, shared=True)
        with executing(executor), repeating(held.engine.deterministic), kept as work:
            place = None if work is None else work.folder
            found = measure_complexity(look, held, place, network=classifier, progress=progress or LogProgress())
    assert found is not None, "there is one share only"
    return found if work is None else replace(found, paths={name: work.named(path) for name, path in found.paths.items()})


@contextmanager
def _named_as_here() -> Iterator[None]:
    """Let errors that name an option of the command name the argument of `complexity`."""
    try:
        yield
    except UsageError as error:
        option, _, said = str(error).partition(":")
        names = {ComplexitySettings.key(one.name): one.name for one in fields(ComplexitySettings)}
        if option not in names:
            raise
        raise UsageError(f"{names[option]}:{said}") from error


def measure_complexity(
    settings: ComplexitySettings,
    workspace: DistillSettings | Workspace,
    output: Path | None = None,
    *,
    shard: Shard = Shard(),
    parquet: bool = False,
    network: Classifier | None = None,
    progress: Progress = NoProgress(),
) -> Complexity | None:
    """The complexity of the images of a source, of its classes and of the whole.

    For a network that is there already only the images that are measured are decoded, nothing has to be held out, and files come
    at the network's size where `data.size` says none.

    Args:
        settings: how to measure.
        workspace: whose data are measured, as they are; of settings the keys `data.*` and, for a network that is trained,
            `augment.*` and `eval.full_*` count.
        output: the folder for `complexity.json`, `images.csv`, `classes.csv` and the network, if one was trained; None writes none.
        shard: a share of the images, beside other processes that take the others.
        parquet: whether to write `images.parquet`, too.
        network: to look with, instead of the one that `settings.network` names.
        progress: where to report.

    Returns:
        None as long as other shards are missing.

    Raises:
        UsageError: when the source, the network, the layer or the folder cannot be used.
        Failure: when training diverges, or no image gives finite logits.
    """
    if parquet:
        parquet_library()
    trains = network is None and is_trained_here(settings.network)
    if output is not None:
        check_place(output, "output")
        if trains and not is_code(settings.network):
            check_folder(output, output / NETWORK)
    if network is not None:
        check_given(network, settings, network.name)
    if isinstance(workspace, Workspace) or trains:
        workspace = workspace if isinstance(workspace, Workspace) else Workspace(workspace, progress)
        source, data = workspace.settings.data, workspace.data
        pictures = choose(data, settings)
        found = network or judge(settings, workspace)
    else:
        found = network or judge(settings, Workspace(workspace, progress))
        source, data = _load(workspace.data, found, settings, progress)
        pictures = choose(data, settings)
    _warn_of_size(data, found, progress)
    measurement = Measurement(pictures, found, settings)
    if missing := fill(measurement, shard, progress):
        progress.say(f"{len(missing)} of {len(measurement.starts)} blocks are other shards'; run the same when they are there")
        return None
    table = measurement.table()
    results, paths = summary(measurement, table, data.source), {}
    for warning in results.warnings:
        progress.say(warning)
    if output is not None:
        rows = image_rows(measurement, table)
        paths = {"results": str(output / "complexity.json"), **write_tables(rows, results.classes, output)}
        if parquet:
            write_parquet(rows, output / "images.parquet")
            paths["parquet"] = str(output / "images.parquet")
        if trains and is_code(settings.network):
            progress.say(f"the network is not kept: {settings.network!r} is code of yours, without which nothing can read it")
        elif trains:
            save_network(found, output / NETWORK)
            paths["network"] = str(output / NETWORK)
        write_json(output / "complexity.json", results, SUMMARY)
    return Complexity(measurement, table, results, source, paths)


def _load(
    source: DataSettings, found: Classifier, settings: ComplexitySettings, progress: Progress
) -> tuple[DataSettings, ImageSet]:
    """The images for a network that is not trained on them, and the settings that they are loaded with."""
    if not isinstance(source.source, str):  # images that are there already
        return source, load_data(source, progress)
    inner = innermost(source)
    if inner.size is None and decodes_at_any_size(inner):
        source = replace(source, size=found.shape[1:])
    wanted = Wanted(PARTS[settings.split], settings.per_class, settings.seed)
    return source, load_data(replace(source, val_fraction=0.0), progress, wanted)


def _warn_of_size(data: ImageSet, found: Classifier, progress: Progress) -> None:
    """Say where images are enlarged, for that adds nothing to see."""
    if any(own < taken for own, taken in zip(data.shape[1:], found.shape[1:], strict=True)):
        sizes = f"of {size_text(data.shape)} pixels are enlarged to the {size_text(found.shape)} that {found.name} takes"
        progress.say(f"note: images {sizes}; photographs that are larger are better read at that size, by data.size")
