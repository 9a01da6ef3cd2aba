"""`limbeck complexity`: how complex images, classes and whole sets are to a network; benchmarks of easy and hard classes."""

import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import Command, add_deterministic, add_executor, add_overrides, add_skip_bad, is_setting, overrides_from
from limbeck.cli.output import print_paths
from limbeck.runtime.errors import Failure, UsageError, require

if TYPE_CHECKING:
    from limbeck.figures.complexity import Picture
    from limbeck.image_complexity.build import BuiltBenchmark
    from limbeck.image_complexity.run import Complexity
    from limbeck.image_complexity.settings import BuildSettings, ComplexitySettings
    from limbeck.runs.settings import DistillSettings

TAKEN = ("data.", "augment.", "eval.full_", "engine.device", "engine.compile", "engine.deterministic")
PICTURES = 10


@dataclass(frozen=True)
class Measured:
    """What was measured, None while other shares are missing; the subsets of the benchmark, the categories too small for it."""

    found: "Complexity | None" = None
    paths: Mapping[str, str] = field(default_factory=dict)
    benchmark: "BuiltBenchmark | None" = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def __json__(self) -> Any:
        if self.found is None:
            return {"complete": False, "paths": {}}
        found = {**self.found.results.to_dict(), "paths": dict(self.paths), "complete": True}
        if built := self.benchmark:
            subsets = {name: {"complexity": one.complexity, "source": self.sources[name]} for name, one in built.subsets.items()}
            found |= {"subsets": subsets, "left_out": dict(built.left_out)}
        return found


def add_arguments(parser: ArgumentParser) -> None:
    from limbeck.image_complexity.settings import CHOICES, ComplexitySettings

    own = ComplexitySettings()
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="the images; the same as data.source=SOURCE")
    parser.add_argument("--data", metavar="SOURCE", help="the same as SOURCE")
    add_skip_bad(parser)
    add_deterministic(parser)
    add_overrides(parser, "settings of the data and of a network that is trained, such as data.size=64 eval.full_epochs=20")
    parser.add_argument(
        "--network",
        metavar="NAME|FOLDER",
        default=own.network,
        help="a network to train on the data, a folder with one (of an earlier --output, or of transformers), or one of the "
        "Hugging Face Hub such as microsoft/resnet-18 (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        metavar="T,…",
        default=",".join(f"{threshold:g}" for threshold in own.thresholds),
        help="from which activation on a pixel is active; the first counts (default: %(default)s)",
    )
    texts = {
        "cam": "the kind of maps",
        "maps": "threshold maps at the layer's resolution or at that of the image",
        "classes": "maps for the true class or for the predicted one",
        "split": "which images; train has the validation images, too",
        "normalise": "inputs of a pretrained network as it came, or as ImageNet's",
    }
    for name, text in texts.items():
        shown = f"{text} (default: {getattr(own, name)})"
        parser.add_argument(f"--{name}", choices=CHOICES[name], default=getattr(own, name), help=shown)
    parser.add_argument(
        "--layer", metavar="NAME", default=own.layer, help="a module of the network, or some joined by + (default: last)"
    )
    parser.add_argument("--per-class", metavar="N", type=int, help="images of each class (default: all)")
    parser.add_argument("--size", metavar="PIXELS", type=int, help="what a pretrained network takes (default: its own; 224)")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=own.batch_size, help="images at a time (default: %(default)s)"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="processes (default: one a core; on a GPU one)")
    parser.add_argument("--shard", metavar="I/N", help="only the I-th of N shares of the images, beside other processes")
    add_executor(parser)
    parser.add_argument("--seed", metavar="N", type=int, default=own.seed, help="of all draws (default: %(default)s)")
    parser.add_argument("--output", metavar="FOLDER", help="where results lie (default: runs/complexity-SOURCE)")
    parser.add_argument("--parquet", action="store_true", help="write images.parquet, too (extra: hub)")
    building = parser.add_argument_group("a benchmark of easy and hard classes")
    building.add_argument("--build-subsets", action="store_true", help="write benchmark.json and a card to the output folder")
    building.add_argument(
        "--categories",
        metavar="WHAT",
        help="FILE.yaml (name: list of classes), wordnet:NAME=PREFIX,…:NAME=FIRST-LAST, comp-dd, or cluster:N",
    )
    building.add_argument("--classes-per-subset", metavar="N", type=int, help="of each subset (default: 10)")
    building.add_argument("--least", metavar="N", type=int, help="classes of the smallest category (default: 20)")


def run(arguments: Namespace) -> Measured:
    from limbeck.recipes import key_types, settings_from_plain

    settings = _settings(arguments)
    build = _build_settings(arguments)
    overrides = _overrides(arguments)
    for key in overrides:
        if key in key_types() and not key.startswith(TAKEN):
            used = "data.*, augment.*, eval.full_*, engine.device, engine.compile and engine.deterministic are"
            raise UsageError(f"{key}: is not used here; {used}")
    distil = settings_from_plain({}, overrides, origin="the command line")
    if build is not None:
        from limbeck.image_complexity.build import check_categories

        check_categories(build.categories)
    output = arguments.output or f"runs/complexity-{_slug(overrides['data.source'])}"

    from limbeck.runtime.determinism import repeating
    from limbeck.runtime.published import working

    with repeating(distil.engine.deterministic), working("output", os.path.expanduser(output), shared=True) as work:
        found = _measured(arguments, settings, distil, build, work.folder)
        sources = {name: source.replace(str(work.folder), work.named(str(work.folder))) for name, source in found.sources.items()}
        return replace(found, paths={name: work.named(path) for name, path in found.paths.items()}, sources=sources)


def _measured(
    arguments: Namespace, settings: "ComplexitySettings", distil: "DistillSettings", build: "BuildSettings | None", output: Path
) -> Measured:
    from limbeck.image_complexity.run import measure_complexity
    from limbeck.runtime.executor import Shard
    from limbeck.runtime.progress import default_progress

    progress = default_progress()
    shard = Shard() if arguments.shard is None else Shard.parse(arguments.shard)
    found = measure_complexity(settings, distil, output, shard=shard, parquet=arguments.parquet, progress=progress)
    if found is None:
        return Measured()
    measured = Measured(found, found.paths)
    if build is not None:
        from limbeck.data.benchmarks import PREFIX, RECORD
        from limbeck.image_complexity.build import build_benchmark, categories

        names = found.measurement.pictures.class_names
        groups = categories(build.categories, names, found.measurement.features)
        built = build_benchmark(found, groups, found.data, output, build)
        sources = {name: f"{PREFIX}{output}:{name}" for name in built.subsets}
        measured = Measured(found, {**measured.paths, "benchmark": str(output / RECORD)}, built, sources)
    try:
        return replace(measured, paths={**measured.paths, **_draw(found, output)})
    except Exception as error:
        raise Failure(f"the plots could not be drawn ({error}); the results are in {output}") from error


def show(measured: Measured) -> None:
    if measured.found is None:
        print("this share is done; the results come when all shares are")
        return
    print(measured.found)
    if built := measured.benchmark:
        for name, subset in built.subsets.items():
            print(f"{name}: {subset.complexity:.1f} %   --data {measured.sources[name]}")
        if left := built.left_out:
            print(f"too small: {', '.join(f'{name} ({count} classes)' for name, count in left.items())}")
    print_paths(measured)


def _overrides(arguments: Namespace) -> dict[str, str]:
    """The settings as typed, the source among them, however it was given."""
    words = [word for word in (arguments.source, *arguments.overrides) if word is not None]
    sources = [word for word in words if not is_setting(word)]
    arguments.overrides = [word for word in words if word not in sources]
    for word in sources[1:]:
        raise UsageError(f"{word!r} is not of the form key=value, such as data.size=64")
    if sources and arguments.data is not None:
        raise UsageError("SOURCE: is given twice, once as --data")
    arguments.data = sources[0] if sources else arguments.data
    overrides = overrides_from(arguments)
    require("data.source" in overrides, "SOURCE", None, "images, such as a folder or scenes")
    return overrides


def _settings(arguments: Namespace) -> "ComplexitySettings":
    from limbeck.image_complexity.settings import CHOICES, ComplexitySettings

    names = (*CHOICES, "network", "layer", "per_class", "size", "batch_size", "workers", "seed")
    try:
        thresholds = tuple(float(word) for word in arguments.threshold.split(","))
    except ValueError:
        raise UsageError(f"--threshold: {arguments.threshold!r} is not one number or more in (0, 1], joined by commas") from None
    return ComplexitySettings(thresholds=thresholds, **{name: getattr(arguments, name) for name in names})


def _build_settings(arguments: Namespace) -> "BuildSettings | None":
    from limbeck.image_complexity.settings import BuildSettings

    given = {name: getattr(arguments, name) for name in ("categories", "classes_per_subset", "least")}
    given = {name: value for name, value in given.items() if value is not None}
    if not arguments.build_subsets:
        for name in given:
            raise UsageError(f"--{name.replace('_', '-')}: needs --build-subsets")
        return None
    require("categories" in given, "--categories", None, "FILE.yaml, wordnet:…, comp-dd or cluster:N, which --build-subsets needs")
    require(arguments.shard is None, "--shard", arguments.shard, "possible with --build-subsets: build when all shares are there")
    return BuildSettings(**given)


def _draw(found: "Complexity", output: Path) -> dict[str, str]:
    """Write the plots; their paths by name."""
    from limbeck.figures import complexity as figures
    from limbeck.figures.style import png
    from limbeck.runtime.files import write_bytes

    results = found.results
    name = Path(results.data.source).name or results.data.source
    threshold = results.settings.thresholds[0]
    drawn = {
        "classes": figures.class_distribution(results),
        "ranking": figures.class_ranking(results),
        "maps": figures.map_statistics({name: results}),
        "extremes": figures.extreme_images(_extremes(found), threshold),
    }
    paths = {}
    for kind, figure in drawn.items():
        write_bytes(output / f"{kind}.png", png(figure))
        paths[f"{kind} plot"] = str(output / f"{kind}.png")
    return paths


def _extremes(found: "Complexity") -> "dict[str, list[Picture]]":
    from limbeck.figures.complexity import Picture
    from limbeck.image_complexity.results import extremes

    measurement, table = found.measurement, found.images
    rows = {}
    for title, index in zip(("easiest", "hardest"), extremes(table, PICTURES), strict=True):
        images, maps = measurement.pictures.images(index).numpy(), measurement.maps(index).numpy()
        captions = [f"{table.complexity[i, 0]:.0f} %" for i in index]
        rows[title] = list(map(Picture, images, maps, captions))
    return rows


def _slug(source: str) -> str:
    """The source's name as that of a folder."""
    path = Path(source)
    return re.sub(r"[^\w.-]+", "-", path.stem if os.path.exists(path) else source).strip("-.") or "images"


COMMAND = Command(
    help="measure how complex images are to a network; build benchmarks of easy and hard classes",
    add_arguments=add_arguments,
    run=run,
    keys={"output": "--output"},
    show=show,
    resume=(),  # the blocks that are done are in the cache
    examples={
        "limbeck complexity photos/": "of every image and class, with plots",
        "limbeck complexity photos/ --network microsoft/resnet-18": "to a network that is there already",
        "limbeck complexity photos/ --build-subsets --categories cluster:4": "easy and hard classes of four categories",
    },
)
