"""`limbeck export`: a distilled set as a folder of images or an `.npz` file."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from limbeck.cli.command import Command
from limbeck.cli.evaluate import distilled_folder
from limbeck.cli.output import print_paths


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a distilled set, or the run folder that holds one")
    parser.add_argument("--to", choices=("folder", "npz"), required=True, help="image files, or one file of arrays")
    parser.add_argument("--output", metavar="DEST", required=True, help="the folder or file to write; it must be new")


def run(arguments: Namespace) -> dict[str, Any]:
    from limbeck.distilled.export import export_folder, export_npz
    from limbeck.distilled.set import DistilledSet

    distilled = DistilledSet.load(distilled_folder(Path(arguments.path)))
    export = {"folder": export_folder, "npz": export_npz}[arguments.to]
    return {"paths": {"export": str(export(distilled, Path(arguments.output)))}}


COMMAND = Command(
    help="write a distilled set as a folder of images or an .npz file",
    add_arguments=add_arguments,
    run=run,
    show=print_paths,
)
