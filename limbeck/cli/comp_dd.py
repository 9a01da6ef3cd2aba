"""`limbeck comp-dd`: methods on Comp-DD's easy and hard subsets, or on the built-in scenes, as tables, figure and submission."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.cli.command import (
    Command,
    Read,
    add_grid_arguments,
    add_overrides,
    add_seeds,
    ended,
    names,
    numbers,
    running,
    words,
    write_figure,
)
from limbeck.cli.output import print_lines
from limbeck.runtime.errors import UsageError, require

if TYPE_CHECKING:
    from limbeck.studies.recovery import Recovery
    from limbeck.studies.submission import Submission

OUTPUT = "runs/comp-dd"


def add_arguments(parser: ArgumentParser) -> None:
    add_overrides(parser, "settings for all distillations, such as data.root=/data/imagenet eval.full_seeds=5")
    parser.add_argument("--methods", metavar="NAME,…", action=Read, read=names, help="what to run, such as edf,datm,random")
    published = "images per class; 1, 10 and 50 are published (default: 1)"
    parser.add_argument("--ipc", metavar="N,…", action=Read, read=numbers, default=[1], help=published)
    parser.add_argument("--subsets", metavar="NAME,…", help="subsets, such as bird-easy, or whole categories (default: all)")
    parser.add_argument("--scenes", action="store_true", help="run on the built-in scenes instead: easy, medium and hard")
    parser.add_argument("--data-root", metavar="DIR", help="the same as data.root=DIR: the folder with ImageNet's train/ and val/")
    add_seeds(parser)
    parser.add_argument("--reuse", metavar="DIR", help="first take what another grid in DIR has measured under equal settings")
    parser.add_argument("--output", metavar="DIR", help=f"where results lie (default: {OUTPUT}, {OUTPUT}-scenes)")
    parser.add_argument(
        "--check", metavar="DIR", help="run nothing; read the submission in DIR and say whether it agrees with itself"
    )
    add_grid_arguments(parser)


def run(arguments: Namespace) -> "Recovery | Submission":
    from limbeck.runtime.executor import Cluster, current
    from limbeck.studies import comp_dd
    from limbeck.studies.acceptance import read_submission
    from limbeck.studies.submission import run_benchmark
    from limbeck.studies.taken import take_over, taken_said

    if arguments.check is not None:
        return read_submission(Path(arguments.check), (comp_dd.comp_dd(), comp_dd.scenes()))
    benchmark = comp_dd.scenes() if arguments.scenes else comp_dd.comp_dd()
    overrides = _overrides(arguments)
    parts = benchmark.choose(None if arguments.subsets is None else words(arguments.subsets))
    if arguments.methods is None:
        raise UsageError("--methods: is missing; name one or more, such as edf,datm,random")
    cells, notes = comp_dd.plan(benchmark, parts, arguments.methods, arguments.ipc, arguments.seeds, overrides)
    if benchmark.published and not arguments.show and not isinstance(current(), Cluster):  # whose jobs may have it alone
        comp_dd.check_root(parts, cells[0].settings.data.root)
    output, how = arguments.output or (f"{OUTPUT}-scenes" if arguments.scenes else OUTPUT), running(arguments)

    from limbeck.figures.comparisons import recovery_figure
    from limbeck.runtime.located import here
    from limbeck.runtime.published import working

    with working("output", output, shared=True) as work:
        if arguments.reuse is not None:
            taken = take_over(cells, Path(here("--reuse", arguments.reuse)), work.folder)
            how.progress.say(taken_said(taken, arguments.reuse))
        found = run_benchmark(benchmark, parts, cells, notes, work.folder, how)
        figure = write_figure(recovery_figure(found.tables, found.levels), work.folder / "recovery.png")
    paths = {name: work.named(path) for name, path in {**found.paths, **figure}.items()}
    return replace(found, paths=paths)


def show(found: "Recovery | Submission") -> None:
    from limbeck.studies.submission import Submission

    if isinstance(found, Submission):
        print(f"the submission agrees with itself: {found}")
    else:
        print_lines(found)


def _overrides(arguments: Namespace) -> dict[str, str]:
    """Settings for all cells, as typed."""
    from limbeck.recipes import parse_overrides
    from limbeck.studies.entrants import OWN_KEYS, refuse_own_keys

    overrides = parse_overrides(arguments.overrides)
    refuse_own_keys(overrides, {**OWN_KEYS, "method": "--methods", "data.source": "--subsets"}, "the benchmark")
    if arguments.data_root is None:
        return overrides
    require(not arguments.scenes, "--data-root", arguments.data_root, "accepted beside --scenes, which are built in")
    if "data.root" in overrides:
        raise UsageError("data.root: is given twice, once as --data-root")
    return {**overrides, "data.root": arguments.data_root}


COMMAND = Command(
    help="run methods on Comp-DD's easy and hard subsets, or the same on the built-in scenes",
    add_arguments=add_arguments,
    run=run,
    keys={"output": "--output"},
    show=show,
    status=ended,
    resume=(),  # finished cells are taken from the folder, others go on
    examples={
        "limbeck comp-dd --scenes --methods edf,datm,random": "on the built-in images",
        "limbeck comp-dd --methods edf --subsets bird-easy --data-root /data/imagenet": "on one of its subsets",
        "limbeck comp-dd --check runs/comp-dd": "whether a submission agrees with itself",
    },
)
