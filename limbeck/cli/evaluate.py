"""`limbeck evaluate`: train fresh networks on small sets, on as many random real images, and on the full data; `limbeck export`."""

import os
from argparse import ArgumentParser, Namespace
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import (
    Command,
    Done,
    add_baselines,
    add_deterministic,
    add_executor,
    add_skip_bad,
    is_setting,
    overrides_from,
)
from limbeck.cli.output import print_paths
from limbeck.runtime import zoo
from limbeck.runtime.bounded import json_of
from limbeck.runtime.errors import UsageError

if TYPE_CHECKING:
    from limbeck.evaluation.results import Evaluation
    from limbeck.runs.evaluate import EvaluationOptions
    from limbeck.runs.settings import DistillSettings

WHERE = ("source", "root", "range", "image_field", "label_field", "workers", "skip_bad")
CHANGEABLE = ("eval.", "engine.", "view_labels.", "network", *(f"data.{key}" for key in WHERE))
OF_OTHERS = ("data.", "augment.", "method")  # besides, where the set is another program's and does not say how it was made
READ = ("eval.", "data.", "network", "augment.")  # of a set's settings, by an evaluation
LOOKS = (5, 30)
AS_ON_CARDS = {"engine.deterministic": "true", "engine.compile": "no"}  # so that sets of the zoo have the figures of their cards
EXPORTS = "image files, one file of arrays, or images_best.pt, labels_best.pt and lr_best.pt as research code writes them"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "path",
        metavar="PATH",
        nargs="+",
        help="a distilled set, the run folder that holds one, zoo:NAME, a folder of images, an .npz or a .pt file; several are "
        "compared (settings, key=value, may stand anywhere)",
    )
    parser.add_argument("--protocol", metavar="NAME", help="the same as eval.protocol=NAME: dd, kd, … or a .yaml file of your own")
    parser.add_argument("--networks", metavar="NAME,…", help="the same as eval.networks=NAME,…")
    parser.add_argument("--seeds", metavar="N", help="the same as eval.seeds=N")
    add_baselines(parser)
    parser.add_argument("--data", metavar="SOURCE", help="where the real images are; the same as data.source=SOURCE")
    add_skip_bad(parser)
    add_deterministic(parser)
    add_executor(parser)
    parser.add_argument("--recipe", metavar="RECIPE", help="take the settings of this recipe instead of those in the (first) set")
    parser.add_argument(
        "--until-significant",
        metavar="MOST",
        nargs="?",
        const=LOOKS[1],
        type=int,
        help=f"train seeds until the sets (one: the set and random images) can be told apart, at most MOST ({LOOKS[1]})",
    )
    parser.add_argument(
        "--also", metavar="NAME,…", default="", help="further: ranking, robustness, areas, distances, search, continual, membership"
    )
    parser.add_argument("--no-record", action="store_true", help="do not note the result in the set's metadata and card")
    parser.add_argument(
        "--trust", action="store_true", help="evaluate a set whose labels look permuted, run code that it or a recipe names"
    )
    foreign = parser.add_argument_group("how sets of other programs are to be understood")
    foreign.add_argument(
        "--normalised",
        metavar="HOW",
        default="auto",
        help="images are pixels in [0, 1] (no) or from 0 to 255 (255), or normalised: as the data (yes), by published means and "
        "deviations (imagenet, cifar10, …) or by numbers ([[means],[deviations]]); auto decides where there is no doubt",
    )
    foreign.add_argument("--labels", choices=("auto", "logits", "probabilities", "hard"), default="auto", help="what labels are")
    foreign.add_argument("--syn-lr", metavar="LR", type=float, help="the step size to train with")
    foreign.add_argument("--class-order", metavar="NAME,…", help="the names of the classes in the order of the set's labels")
    foreign.add_argument("--resize", action="store_true", help="bring images to the size of the data")


def run(arguments: Namespace) -> "Evaluation":
    from limbeck.recipes import key_types
    from limbeck.runtime.located import here

    words = [word for word in arguments.path if is_setting(word)]
    paths = [distilled_folder(Path(here("path", word))) for word in arguments.path if word not in words]
    if not paths:
        raise UsageError("path: is missing; a distilled set, a run folder, a folder of images, an .npz or a .pt file is accepted")
    arguments.overrides = words
    options = {f"eval.{name}": getattr(arguments, name) for name in ("protocol", "networks", "seeds")}
    overrides = overrides_from(arguments, **options)
    if any(word.startswith(zoo.PREFIX) for word in arguments.path):
        overrides = {**AS_ON_CARDS, **overrides}
    stored = _stored(arguments, paths[0])
    open_keys = CHANGEABLE if stored is not None else CHANGEABLE + OF_OTHERS
    for key in overrides:
        if key in key_types() and not key.startswith(open_keys):
            raise UsageError(f"{key}: is settled by the distilled set; an evaluation takes {_listed(open_keys)}")
    if arguments.until_significant is not None and "eval.seeds" in overrides and not arguments.also:
        seeds = overrides["eval.seeds"]
        raise UsageError(f"eval.seeds: {seeds} is not accepted beside --until-significant, which decides how many are trained")
    settings = _settings(arguments, paths[0], stored, overrides)

    from limbeck.runs.evaluate import evaluate
    from limbeck.runtime.plugins import only
    from limbeck.runtime.progress import NoProgress, default_progress
    from limbeck.runtime.ranks import joined, together

    typed = {name.strip() for value in overrides.values() for name in (value, *value.split(","))}
    known = nullcontext() if arguments.trust or arguments.recipe else only(typed)
    with joined() as ranks, together(), known:
        progress = default_progress() if ranks.first else NoProgress()
        return evaluate(paths, settings, options=_options(arguments), progress=progress)


def _listed(starts: tuple[str, ...]) -> str:
    """The keys that begin so, as they are shown: each group once."""
    groups = tuple(start for start in starts if start.endswith("."))
    return ", ".join(
        f"{start}*" if start in groups else start for start in starts if start in groups or not start.startswith(groups)
    )


def _stored(arguments: Namespace, first: Path) -> dict[str, Any] | None:
    """The settings that the set says it was made under; a recipe's, or those of a set that has none, are the user's to change."""
    if arguments.recipe:
        return None
    if not os.path.exists(first):
        raise UsageError(f"path: {str(first)!r} is not there")

    from limbeck.distilled.set import DistilledSet

    return DistilledSet.load(first).metadata.get("settings") if DistilledSet.is_at(first) else None


def _settings(arguments: Namespace, first: Path, stored: dict[str, Any] | None, overrides: dict[str, str]) -> "DistillSettings":
    from limbeck.evaluation.settings import under_another
    from limbeck.recipes import load_recipe, settings_from_plain

    if arguments.recipe:
        return load_recipe(arguments.recipe, overrides, trust=arguments.trust)
    if stored is not None:
        # Whether labels of views were stored with the first set is nothing to the others.
        stored = {key: value for key, value in stored.items() if key != "view_labels"}
        if "eval.protocol" in overrides:
            stored = under_another(stored)
        settings = settings_from_plain(stored, overrides, origin=f"the settings of {first}", imports=False)
        if not arguments.trust:
            _refuse_asked(settings, overrides, first)
        return settings
    if "data.source" not in overrides:
        raise UsageError(f"path: {str(first)!r} does not say what it was distilled from; give --data SOURCE or --recipe RECIPE")
    return settings_from_plain({}, overrides)


def _refuse_asked(settings: "DistillSettings", overrides: dict[str, str], path: Path) -> None:
    """A set that somebody else made must not choose which code runs here, what is opened, nor that it takes for ever."""
    from limbeck.recipes import key_types
    from limbeck.runs.settings import value_of
    from limbeck.runs.strangers import beyond

    asked = {key: value_of(settings, key) for key in key_types() if key.startswith(READ) and key not in overrides}
    for key, what in beyond(asked):
        way = f"give {key}=… yourself, or --trust, to allow it" if key.startswith(CHANGEABLE) else "--trust allows it"
        raise UsageError(f"{key}: {what}, as the metadata of {str(path)!r} have it; {way}")


def _options(arguments: Namespace) -> "EvaluationOptions":
    from limbeck.distilled.foreign import ForeignOptions
    from limbeck.evaluation.statistics import Looks
    from limbeck.runs.evaluate import EvaluationOptions
    from limbeck.runtime.errors import require

    order = tuple(name.strip() for name in arguments.class_order.split(",")) if arguments.class_order else None
    foreign = ForeignOptions(
        normalised=_number_or_text(arguments.normalised),
        labels=arguments.labels,
        class_order=order,
        syn_lr=arguments.syn_lr,
        resize=arguments.resize,
    )
    most = arguments.until_significant
    require(most is None or most >= LOOKS[0], "--until-significant", most, f"at least {LOOKS[0]}")
    return EvaluationOptions(
        foreign=foreign,
        looks=None if most is None else Looks(least=LOOKS[0], most=most),
        further=tuple(name.strip() for name in arguments.also.split(",") if name.strip()),
        trust=arguments.trust,
        keep=not arguments.no_record,
    )


def _number_or_text(word: str) -> Any:
    """255 and lists as JSON has them; everything else as it is."""
    try:
        return json_of(word)
    except ValueError:
        return word


def distilled_folder(path: Path) -> Path:
    """`path`, or the distilled set in it when `path` is a run folder.

    Raises:
        UsageError: when `path` is the folder of a run that has not come to its end.
    """
    if os.path.isdir(path / "distilled"):
        return path / "distilled"
    if os.path.exists(path / "state.json"):
        raise UsageError(f"path: {str(path)!r} is a run that has not ended; finish it with `limbeck distill … --resume`")
    return path


COMMAND = Command(
    help="train fresh networks on small sets and measure them on the test images",
    add_arguments=add_arguments,
    run=run,
    show=print,
    keys={
        "path": "PATH",
        "further": "--also",
        **{key: f"--{key.replace('_', '-')}" for key in ("recipe", "normalised", "syn_lr", "class_order")},
    },
    resume=(),  # the networks of the full data are in the cache
    examples={
        "limbeck evaluate runs/scenes --seeds 10": "more networks of the kind that the set was made for",
        "limbeck evaluate runs/scenes --networks ResNet18,VGG11": "other networks",
        "limbeck evaluate runs/a theirs.pt --until-significant": "two sets, until they can be told apart",
        "limbeck evaluate theirs.pt --data cifar10": "a set of another program",
    },
)


def add_export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a distilled set, or the run folder that holds one")
    parser.add_argument("--to", choices=("folder", "npz", "research"), required=True, help=EXPORTS)
    parser.add_argument("--output", metavar="DEST", required=True, help="the folder or file to write; it must be new")


def export(arguments: Namespace) -> Done:
    from limbeck.runtime.located import here

    folder = distilled_folder(Path(here("path", arguments.path)))

    from limbeck.distilled.export import export_folder, export_npz, export_research
    from limbeck.distilled.set import DistilledSet
    from limbeck.runtime.published import put_new
    from limbeck.runtime.urls import is_url

    distilled = DistilledSet.load(folder)
    write = {"folder": export_folder, "npz": export_npz, "research": export_research}[arguments.to]
    if is_url(arguments.output):
        put_new("--output", arguments.output, partial(write, distilled))
        return Done({"export": arguments.output})
    return Done({"export": str(write(distilled, Path(arguments.output)))})


EXPORT = Command(
    help="write a distilled set as a folder of images, an .npz file or tensors of research code",
    add_arguments=add_export_arguments,
    run=export,
    show=print_paths,
    keys={"path": "PATH", "output": "--output"},
    examples={
        "limbeck export runs/scenes --to folder --output images/": "a folder of PNG files for each class",
        "limbeck export runs/scenes --to npz --output set.npz": "arrays",
    },
)
