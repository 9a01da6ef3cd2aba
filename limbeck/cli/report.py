"""`limbeck report`: pages of what is on disk, from nothing but the files that are there."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from limbeck.cli.command import Command, Done
from limbeck.cli.output import print_paths
from limbeck.runtime.errors import require


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a run folder, such as runs/scenes")
    parser.add_argument("--output", metavar="FILE", help="the page (default: report.html in the folder)")


def run(arguments: Namespace) -> Done:
    from limbeck.report.html import write_report

    require(len(arguments.paths) == 1, "PATH", " ".join(arguments.paths), "one run folder")
    target = {} if arguments.output is None else {"target": Path(arguments.output)}
    return Done({"report": str(write_report(Path(arguments.paths[0]), **target))})


COMMAND = Command(help="write the report of a run again", add_arguments=add_arguments, run=run, show=print_paths)
