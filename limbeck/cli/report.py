"""`limbeck report`: pages of what is on disk, from nothing but the files that are there."""

from argparse import ArgumentParser, Namespace

from limbeck.cli.command import Command, Done
from limbeck.cli.output import print_paths


def add_arguments(parser: ArgumentParser) -> None:
    what = "a run folder; several run folders or distilled sets; or what compare, comp-dd or complexity has written"
    parser.add_argument("paths", metavar="PATH", nargs="+", help=what)
    where = "the page (default: report.html in the folder; limbeck-report.html here for several)"
    parser.add_argument("--output", metavar="FILE", help=where)


def run(arguments: Namespace) -> Done:
    from limbeck.report.write import write_report

    return Done({"report": str(write_report(*arguments.paths, output=arguments.output))})


COMMAND = Command(
    help="write a page of a run, of several runs or sets side by side, or of a comparison",
    add_arguments=add_arguments,
    run=run,
    show=print_paths,
)
