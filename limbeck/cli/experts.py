"""`limbeck experts`: train the expert trajectories of a recipe, or find that they are there; look after stores of them."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import (
    Command,
    add_deterministic,
    add_executor,
    add_overrides,
    add_skip_bad,
    add_trust,
    is_setting,
    overrides_from,
)
from limbeck.cli.output import print_paths
from limbeck.cli.store import print_store
from limbeck.runtime.disk import in_words
from limbeck.runtime.errors import Failure, UsageError, require

if TYPE_CHECKING:
    from limbeck.experts.maintain import Description, Removal
    from limbeck.experts.notes import Want
    from limbeck.experts.store import TrajectoryStore
    from limbeck.runs.settings import DistillSettings

IMPORT_TAKES = ("data.", "network", "experts.dtype")


@dataclass(frozen=True)
class Filled:
    """What a store holds that was filled, and where it lies."""

    experts: Mapping[str, Any]
    paths: Mapping[str, str]


@dataclass(frozen=True)
class Shown:
    """What a store holds, and where it and its plot lie."""

    store: "Description"
    paths: Mapping[str, str]


@dataclass(frozen=True)
class Verified:
    """What is broken or missing in a store, a line each."""

    num_experts: int
    problems: Sequence[str]
    paths: Mapping[str, str]

    def __json__(self) -> Any:
        return {"verified": {"num_experts": self.num_experts, "problems": list(self.problems)}, "paths": self.paths}


@dataclass(frozen=True)
class Removed:
    """What was removed from a store, or would be."""

    removed: "Sequence[Removal]"
    bytes: int
    dry_run: bool
    paths: Mapping[str, str]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help="whose experts to train: a name that `limbeck recipes` lists, or your own .yaml file (one called like an action: "
        "./show.yaml)",
    )
    add_overrides(parser, "settings that replace the recipe's, such as experts.num_experts=10")
    parser.add_argument("--data", metavar="SOURCE", help="the same as data.source=SOURCE")
    add_skip_bad(parser)
    add_deterministic(parser)
    add_trust(parser)
    parser.add_argument("--shard", metavar="I/N", help="train only the I-th of N shares of the experts, beside other processes")
    add_executor(parser)


def run(arguments: Namespace) -> Filled:
    from limbeck.recipes import load_recipe

    settings = load_recipe(arguments.recipe, overrides_from(arguments), trust=arguments.trust)

    from limbeck.runs.distill import train_experts
    from limbeck.runtime.executor import Shard
    from limbeck.runtime.progress import NoProgress, default_progress
    from limbeck.runtime.ranks import joined, together

    share = {} if arguments.shard is None else {"shard": Shard.parse(arguments.shard)}
    with joined() as ranks, together():
        store = train_experts(settings, progress=default_progress() if ranks.first else NoProgress(), **share)
    held = {name: value for name, value in asdict(store.summary()).items() if name != "path"}
    return Filled(held, {"experts": store.place})


def add_show_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", metavar="PATH", nargs="*", default=[], help="the folder of the store")
    parser.add_argument("--plot", metavar="FILE", help="draw accuracies, and difficulties if there are any, to this .png file")
    parser.set_defaults(action="show", recipes=None)


def run_show(arguments: Namespace) -> Shown:
    from limbeck.experts.maintain import describe

    store = _store(arguments)
    found, paths = describe(store), {"experts": store.place}
    if arguments.plot is not None:
        require(arguments.plot.endswith(".png"), "--plot", arguments.plot, "a file that ends in .png")
        from limbeck.figures.experts import expert_curves
        from limbeck.figures.style import png
        from limbeck.runtime.files import write_bytes
        from limbeck.runtime.remote import Remote
        from limbeck.runtime.urls import is_url

        curves = {int(expert): curve for expert, curve in found.accuracy.items()}
        held = {expert: store.held(expert) for expert in store.experts}
        figure = expert_curves(curves, held, store.difficulties())
        if is_url(arguments.plot):
            Remote("--plot", arguments.plot).put(png(figure))
        else:
            write_bytes(Path(arguments.plot), png(figure))
        paths["plot"] = arguments.plot
    return Shown(found, paths)


def add_verify_arguments(parser: ArgumentParser) -> None:
    _add_store(parser, "verify")


def run_verify(arguments: Namespace) -> Verified:
    from limbeck.experts.maintain import verify
    from limbeck.runtime.progress import default_progress

    store = _store(arguments)
    problems = verify(store, _wants(store, arguments), progress=default_progress())
    return Verified(len(store.experts), problems, {"experts": store.place})


def add_prune_arguments(parser: ArgumentParser) -> None:
    _add_store(parser, "prune")
    parser.add_argument("--keep", metavar="EPOCHS", help="the epochs that stay, such as 0-21,100")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")


def run_prune(arguments: Namespace) -> Removed:
    from limbeck.experts.blocks import parse_epochs
    from limbeck.experts.maintain import prune
    from limbeck.experts.notes import Want

    if (arguments.keep is None) == (arguments.recipes is None):
        raise UsageError("prune: takes either --keep EPOCHS or --recipe RECIPE")
    store = _store(arguments)
    wants = _wants(store, arguments)
    if wants is None:
        keep = parse_epochs("--keep", arguments.keep)
        experts = store.experts
        require(any(set(keep) & set(store.held(expert)) for expert in experts), "--keep", arguments.keep, "an epoch that is held")
        wants = [Want(max(experts) + 1, tuple(keep), None, 0, "fp16")]
    removed = prune(store, wants, dry_run=arguments.dry_run)
    return Removed(removed, sum(removal.bytes for removal in removed), arguments.dry_run, {"experts": str(store.path)})


def add_import_arguments(parser: ArgumentParser) -> None:
    add_overrides(parser, "FILE…, and settings such as experts.dtype=half")
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help="what was trained on; the same as data.source=SOURCE (default: unknown, size and classes follow from the parameters)",
    )
    add_skip_bad(parser)
    parser.add_argument("--keep", metavar="EPOCHS", help="the epochs to take, such as 0-21,100")
    parser.add_argument("--output", metavar="PATH", required=True, help="the store to write, a new folder")
    parser.add_argument("--network", metavar="NAME", required=True, help="the network that was trained")


def run_import(arguments: Namespace) -> Filled:
    from limbeck.recipes import key_types, settings_from_plain
    from limbeck.runtime.located import here
    from limbeck.runtime.urls import is_url, local

    words: Sequence[str] = arguments.overrides
    files = [Path(here("FILE", word)).expanduser() for word in words if not is_setting(word)]
    arguments.overrides = [word for word in words if is_setting(word)]
    given = overrides_from(arguments, network=arguments.network)
    for key in given:
        if key in key_types() and not key.startswith(IMPORT_TAKES):
            raise UsageError(f"{key}: is not used here; data.*, network and experts.dtype are")
    require("data.source" in given or arguments.skip_bad is not True, "--skip-bad", True, "accepted without --data")
    settings = settings_from_plain({}, given)

    from limbeck.data.load import load_data
    from limbeck.experts.blocks import parse_epochs
    from limbeck.experts.imported import import_lists, network_of, put_store
    from limbeck.networks.flat import flat_network
    from limbeck.networks.names import check_network_name
    from limbeck.runtime.progress import default_progress

    keep = None if arguments.keep is None else parse_epochs("--keep", arguments.keep)
    place, progress = arguments.output, default_progress()
    require(bool(files), "FILE", [], "at least one file")
    if not is_url(place):
        place = str(Path(local(place)).expanduser())
        require(not Path(place).exists(), "--output", place, "a new folder")
    for file in files:
        require(os.path.isfile(file), "FILE", str(file), "a file that exists")
    check_network_name(settings.network)  # before the data, which may take long to load
    if "data.source" in given:
        data = load_data(settings.data, progress)
        network, about = (
            flat_network(settings.network, data.shape, data.num_classes),
            {"source": data.source, "data": data.fingerprint},
        )
    else:
        network, about = network_of(settings.network, files[0]), {}
    make = partial(import_lists, files, network=network, dtype=settings.experts.dtype, keep=keep, about=about, progress=progress)
    store = put_store("--output", place, make) if is_url(place) else make(Path(place))
    held = {name: value for name, value in asdict(store.summary()).items() if name not in ("path", "last_epoch_accuracy")}
    return Filled(held, {"experts.store": store.place})


def _add_store(parser: ArgumentParser, action: str) -> None:
    parser.add_argument(
        "overrides",
        metavar="PATH",
        nargs="*",
        default=[],
        help="the folder of the store; key=value, settings that replace RECIPE's",
    )
    parser.add_argument(
        "--recipe",
        metavar="RECIPE",
        dest="recipes",
        action="append",
        help="what RECIPE needs must be there, and stays; may be given more than once",
    )
    parser.add_argument("--data", metavar="SOURCE", help="of RECIPE, the same as data.source=SOURCE")
    add_trust(parser)
    parser.set_defaults(action=action)


def _store(arguments: Namespace) -> "TrajectoryStore":
    """The one store that is named; other words are settings of --recipe."""
    from limbeck.experts.store import TrajectoryStore

    paths = [word for word in arguments.overrides if not (arguments.recipes and is_setting(word))]
    if len(paths) != 1:
        raise UsageError(f"PATH: `limbeck experts {arguments.action}` takes the folder of one store, not {len(paths)}")
    return TrajectoryStore.at(paths[0], "PATH")


def _wants(store: "TrajectoryStore", arguments: Namespace) -> "list[Want] | None":
    """What the recipes of --recipe read; None without any."""
    if arguments.recipes is None:
        for key, value in {"--data": arguments.data, "--trust": arguments.trust or None}.items():
            require(value is None, key, value, "accepted without --recipe, which it is about")
        return None
    from limbeck.experts.notes import want_of
    from limbeck.recipes import load_recipe
    from limbeck.runs.build import epochs_of

    overrides = overrides_from(Namespace(overrides=[word for word in arguments.overrides if is_setting(word)], data=arguments.data))
    wants = []
    for recipe in arguments.recipes:
        settings = load_recipe(recipe, overrides, trust=arguments.trust)
        _refuse_other(store, recipe, settings)
        wants.append(want_of(settings.experts, epochs_of(settings)))
    return wants


def _refuse_other(store: "TrajectoryStore", recipe: str, settings: "DistillSettings") -> None:
    """Refuse a recipe that would not read this store; its data may still be others, which only loading them would tell."""
    from limbeck.experts.store import difference
    from limbeck.experts.train import made_with
    from limbeck.runs.build import augmentation_of

    made = made_with(settings.network, settings.experts, augmentation_of(settings.augment), settings.seed)
    wanted = {"network": settings.network} if store.imported else made.to_dict()
    if found := difference(store.metadata, wanted):
        raise UsageError(f"--recipe: {recipe!r} does not read {str(store.path)!r}, made with {found}")


def show(found: Filled) -> None:
    for name, value in found.experts.items():
        print(f"{name}: {value}")
    print_paths(found)


def show_store(found: Shown) -> None:
    print_store(found.store)
    print_paths(found)


def show_verified(found: Verified) -> None:
    for problem in found.problems:
        print(problem)
    if not found.problems:
        print(f"{found.num_experts} experts: nothing is broken or missing")
        print_paths(found)


def verified(found: Verified) -> int:
    """The exit status of a store.

    Raises:
        Failure: where something is broken or missing.
    """
    if count := len(found.problems):
        raise Failure(f"{count} thing{' is' if count == 1 else 's are'} broken or missing in {found.paths['experts']!r}")
    return 0


def show_removed(found: Removed) -> None:
    for action in found.removed:
        print(f"{action.path}: {action.what} ({in_words(action.bytes)})")
    print(f"{'would free' if found.dry_run else 'freed'} {in_words(found.bytes)}")
    print_paths(found)


COMMAND = Command(
    help="train the experts that a recipe needs, and keep them for later runs; show, verify, prune and import stores of them",
    add_arguments=add_arguments,
    run=run,
    show=show,
    resume=(),
    keys={"recipe": "RECIPE"},
    examples={
        "limbeck experts scenes": "all that this recipe needs",
        "limbeck experts scenes --shard 1/2": "the first half, beside another process that trains the second",
        "limbeck experts show experts/": "what a store holds",
    },
    actions={
        "show": Command(
            help="what a store holds",
            add_arguments=add_show_arguments,
            run=run_show,
            show=show_store,
            examples={"limbeck experts show experts/ --plot experts.png": "with the accuracy of every expert as curves"},
        ),
        "verify": Command(
            help="read everything, and say what is broken or missing",
            add_arguments=add_verify_arguments,
            run=run_verify,
            keys={"recipe": "--recipe"},
            show=show_verified,
            status=verified,
            examples={"limbeck experts verify experts/ --recipe scenes": "whether all that this recipe reads is there and sound"},
        ),
        "prune": Command(
            help="remove what nobody reads: --keep EPOCHS or --recipe RECIPE says what stays",
            add_arguments=add_prune_arguments,
            run=run_prune,
            keys={"recipe": "--recipe"},
            show=show_removed,
            examples={"limbeck experts prune experts/ --keep 0-21 --dry-run": "what would go, and how much room it takes"},
        ),
        "import": Command(
            help="make a store of files of the research code",
            add_arguments=add_import_arguments,
            run=run_import,
            show=show,
            examples={"limbeck experts import buffer.pt --network ConvNetD3 --output experts/": "what published code has trained"},
        ),
    },
)
