"""`measure_complexity`: from settings to a folder of results."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limbeck.complexity.classifier import Classifier, size_text
from limbeck.complexity.measure import Measurement, Table, fill
from limbeck.complexity.networks import is_trained_here, judge, save_network
from limbeck.complexity.pictures import PARTS, choose
from limbeck.complexity.results import image_rows, parquet_library, summary, write_parquet, write_tables
from limbeck.complexity.settings import ComplexitySettings
from limbeck.data.benchmarks import innermost
from limbeck.data.imageset import ImageSet
from limbeck.data.load import decodes_at_any_size, load_data
from limbeck.data.settings import DataSettings
from limbeck.data.split import Wanted
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.executor import Shard
from limbeck.runtime.files import write_json
from limbeck.runtime.progress import NoProgress, Progress

NETWORK = "network"


@dataclass(frozen=True, eq=False)
class Complexity:
    """What was measured, with what is needed to look further: `measurement` for maps and features, `table` for single images.

    `data` are the settings of its images, with the size they were brought to.
    """

    measurement: Measurement
    table: Table
    results: dict[str, Any]
    data: DataSettings


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
        UsageError: when the source, the network or the layer cannot be used.
        Failure: when training diverges, or no image gives finite logits.
    """
    if parquet:
        parquet_library()
    if isinstance(workspace, Workspace) or (network is None and is_trained_here(settings.network)):
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
    results = summary(measurement, table)
    results["data"]["source"] = data.source
    _warn(results, progress)
    if output is not None:
        rows = image_rows(measurement, table)
        paths = write_tables(rows, results["classes"], output)
        if parquet:
            write_parquet(rows, output / "images.parquet")
            paths["parquet"] = str(output / "images.parquet")
        if network is None and "trained_on" in found.about and not Path(settings.network).expanduser().is_dir():
            save_network(found, output / NETWORK)
            paths["network"] = str(output / NETWORK)
        write_json(output / "complexity.json", results)
        results["paths"] = {"results": str(output / "complexity.json"), **paths}
    return Complexity(measurement, table, results, source)


def _load(
    source: DataSettings, found: Classifier, settings: ComplexitySettings, progress: Progress
) -> tuple[DataSettings, ImageSet]:
    """The images for a network that is not trained on them, and the settings that they are loaded with."""
    inner = innermost(source)
    if inner.size is None and decodes_at_any_size(inner.source):
        source = replace(source, size=found.shape[1:])
    wanted = Wanted(PARTS[settings.split], settings.per_class, settings.seed)
    return source, load_data(replace(source, val_fraction=0.0), progress, wanted)


def _warn_of_size(data: ImageSet, found: Classifier, progress: Progress) -> None:
    """Say where images are enlarged, for that adds nothing to see."""
    if any(own < taken for own, taken in zip(data.shape[1:], found.shape[1:], strict=True)):
        sizes = f"of {size_text(data.shape)} pixels are enlarged to the {size_text(found.shape)} that {found.name} takes"
        progress.say(f"note: images {sizes}; photographs that are larger are better read at that size, by data.size")


def _warn(results: dict[str, Any], progress: Progress) -> None:
    if results["blank"]:
        share = 100 * results["blank"] / results["images"]
        without = results["without_blank"]
        rest = "" if without is None else f"; without them the complexity is {without:.1f} %"
        progress.say(f"warning: {results['blank']} maps ({share:.1f} %) show no preference and count as 100 %{rest}")
    if results["not_finite"]:
        progress.say(f"warning: the network's logits are not finite for {results['not_finite']} images, which are left out")
