"""`limbeck reproduce`: the tables and figures of the paper, run anew, and a verdict on each of its claims."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.cli.command import Command, Read, add_grid_arguments, ended, is_setting, overrides_from, running, seeds, words
from limbeck.cli.output import print_lines
from limbeck.runtime.errors import UsageError

if TYPE_CHECKING:
    from limbeck.reproduction.results import Reproduction
    from limbeck.reproduction.times import Listing


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "items",
        metavar="ITEM",
        nargs="*",
        default=[],
        help="tables and figures, such as table4 fig7, or all; settings for all distillations, key=value, may stand anywhere",
    )
    parser.add_argument("--scale", metavar="NAME", default="cpu", help="cpu, gpu or paper (default: cpu)")
    parser.add_argument("--only", metavar="NAME,…", help="of all items only these")
    listed = "run nothing; list the items with their cells and the time that these are estimated to take here"
    parser.add_argument("--list", action="store_true", help=listed)
    parser.add_argument("--data", metavar="SOURCE", help="images in the place of the scale's, such as cifar10 or a folder")
    based = "take every method's settings from this recipe, such as for images that there are none for"
    parser.add_argument("--base", metavar="RECIPE", help=based)
    parser.add_argument("--seeds", metavar="N,…", action=Read, read=seeds, help="distillation seeds (default: the scale's)")
    reuse = "first take what another grid in DIR has measured under equal settings; may be given again"
    parser.add_argument("--reuse", metavar="DIR", action="append", default=[], help=reuse)
    parser.add_argument("--output", metavar="DIR", help="where results lie (default: runs/reproduction-SCALE)")
    add_grid_arguments(parser)


def run(arguments: Namespace) -> "Reproduction | Listing":
    from limbeck.reproduction.items import ALL, chosen

    arguments.overrides = [word for word in arguments.items if is_setting(word)]
    overrides = overrides_from(arguments)
    data = overrides.pop("data.source", None)
    items = [word for word in arguments.items if not is_setting(word)]
    if arguments.only is not None:
        if items not in ([], [ALL]):
            raise UsageError(f"--only: goes with {ALL}, not beside {items[0]!r}")
        items = words(arguments.only)
    if not items and arguments.list:
        items = [ALL]
    chosen(items)  # refuses a name that is none before torch is imported

    from limbeck.reproduction.run import Asked, default_output
    from limbeck.reproduction.run import run as run_items
    from limbeck.runtime.published import working

    where = {"data": data, "base": arguments.base}
    asked = Asked.of(items, arguments.scale, seeds=arguments.seeds, **where, settings=overrides)
    output, how = arguments.output or str(default_output(asked.scale)), running(arguments)
    if arguments.list:
        from limbeck.reproduction.times import listing

        return listing(asked, Path(output), how.progress, reuse=arguments.reuse)
    with working("output", output, shared=True) as work:
        found = run_items(asked, work.folder, running=how, reuse=arguments.reuse)
    paths = {name: work.named(path) for name, path in found.paths.items()}
    return replace(found, paths=paths)


COMMAND = Command(
    help="run the paper's tables and figures anew, and judge its claims",
    add_arguments=add_arguments,
    run=run,
    show=print_lines,
    status=ended,
    keys={"output": "--output"},
    resume=(),  # finished cells are taken from the folder, others go on
    examples={
        "limbeck reproduce all --list": "what there is, and how long each item would take here",
        "limbeck reproduce table4 fig7": "two items at the size of a CPU",
        "limbeck reproduce all --scale paper --data cifar10": "everything, as large as published",
    },
)
