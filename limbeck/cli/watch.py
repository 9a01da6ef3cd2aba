"""`limbeck watch`: the pages of runs while they are made."""

import signal
from argparse import ArgumentParser, Namespace

from limbeck.cli.command import Command, Done
from limbeck.runtime.errors import require
from limbeck.runtime.interruption import Interrupted


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run folder, such as runs/scenes; it need not be there yet")


def run(arguments: Namespace) -> Done:
    from limbeck.runtime.urls import is_url
    from limbeck.watch.server import serve

    for run in arguments.runs:
        require(not is_url(run), "RUN", run, "a folder on this machine; what is published is a run that has stopped or ended")

    address = ""

    def say(found: str) -> None:
        nonlocal address
        address = found
        what = arguments.runs[0] if len(arguments.runs) == 1 else f"{len(arguments.runs)} runs"
        print(f"{what}: {found}\nCtrl-C ends the watch, and no run.", flush=True)

    try:
        serve(arguments.runs, say)
    except Interrupted as error:
        if error.number != signal.SIGINT:
            raise
    return Done({"address": address})


def show(found: Done) -> None:
    print("the watch has ended")


COMMAND = Command(
    help="show runs in a browser while they are made",
    add_arguments=add_arguments,
    run=run,
    show=show,
    examples={"limbeck watch runs/scenes": "print an address; Ctrl-C ends the watch, and no run"},
)
