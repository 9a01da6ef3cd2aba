"""`limbeck report`: write the report of a run again, from nothing but the files in its folder."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from limbeck.cli.command import Command
from limbeck.cli.output import print_paths


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run folder, such as runs/scenes")


def run(arguments: Namespace) -> dict[str, Any]:
    from limbeck.report.html import write_report

    return {"paths": {"report": str(write_report(Path(arguments.run)))}}


COMMAND = Command(help="write the report of a run again", add_arguments=add_arguments, run=run, show=print_paths)
