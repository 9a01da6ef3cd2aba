"""`limbeck export`: a distilled set as a folder of images, an `.npz` file or the files of research code."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from limbeck.cli.command import Command
from limbeck.cli.evaluate import distilled_folder
from limbeck.cli.output import print_paths

HELP = "image files, one file of arrays, or images_best.pt, labels_best.pt and lr_best.pt as research code writes them"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a distilled set, or the run folder that holds one")
    parser.add_argument("--to", choices=("folder", "npz", "research"), required=True, help=HELP)
    parser.add_argument("--output", metavar="DEST", required=True, help="the folder or file to write; it must be new")


def run(arguments: Namespace) -> dict[str, Any]:
    from limbeck.distilled.export import export_folder, export_npz, export_research
    from limbeck.distilled.set import DistilledSet

    distilled = DistilledSet.load(distilled_folder(Path(arguments.path)))
    export = {"folder": export_folder, "npz": export_npz, "research": export_research}[arguments.to]
    return {"paths": {"export": str(export(distilled, Path(arguments.output)))}}


COMMAND = Command(
    help="write a distilled set as a folder of images, an .npz file or tensors of research code",
    add_arguments=add_arguments,
    run=run,
    show=print_paths,
)
