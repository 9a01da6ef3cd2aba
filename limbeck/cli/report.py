"""`limbeck report`: pages of what is on disk, from nothing but the files that are there; figures of it for papers."""

from argparse import ArgumentParser, Namespace

from limbeck.cli.command import Command, Done, Read, words
from limbeck.cli.output import print_paths
from limbeck.runtime.errors import Failure, UsageError, require


def add_arguments(parser: ArgumentParser) -> None:
    what = "a run folder; several run folders or distilled sets; or what compare, comp-dd, complexity or reproduce has written"
    parser.add_argument("paths", metavar="PATH", nargs="+", help=what)
    where = "the page (default: report.html in the folder; limbeck-report.html here for several)"
    parser.add_argument("--output", metavar="FILE", help=where)
    _add_figure_arguments(parser)


def _add_figure_arguments(parser: ArgumentParser) -> None:
    """The options for figures instead of a page."""
    from limbeck.figures.style import COLUMN, FORMATS, PAGE

    drawn = "write figures for papers into this folder, instead of a page; also of distilled sets, studies and experts"
    parser.add_argument("--figures", metavar="DIR", help=drawn)
    kinds = f"of {', '.join(FORMATS)} (default: all)"
    parser.add_argument("--formats", metavar="NAME,…", action=Read, read=lambda option, text: words(text), default=None, help=kinds)
    for name, what, inches in (("column", "most figures", COLUMN), ("page", "grids and other wide figures", PAGE)):
        said = f"how wide {what} are, in inches (default: {inches:g})"
        parser.add_argument(f"--{name}", metavar="INCHES", action=Read, read=_inches, default=None, help=said)


def run(arguments: Namespace) -> Done:
    if arguments.figures is not None:
        return Done(_draw(arguments))
    for option in ("formats", "column", "page"):
        given = getattr(arguments, option)
        said = ",".join(given) if isinstance(given, (list, tuple)) else given
        require(given is None, f"--{option}", said, "accepted without --figures")
    from limbeck.report.write import write_report
    from limbeck.runtime.published import put_file
    from limbeck.runtime.urls import is_url

    if not is_url(arguments.output):
        return Done({"report": str(write_report(*arguments.paths, output=arguments.output))})

    from limbeck.runtime.leftovers import passing_folder

    with passing_folder() as folder:
        put_file("--output", arguments.output, write_report(*arguments.paths, output=folder / "report.html"))
    return Done({"report": arguments.output})


def _draw(arguments: Namespace) -> dict[str, str]:
    """Write figures instead of a page; the folder by its name."""
    from limbeck.figures.exhibit import write_exhibits
    from limbeck.figures.paper import check_formats, check_width
    from limbeck.figures.style import COLUMN, FORMATS, PAGE
    from limbeck.report.exhibits import figures_of
    from limbeck.runtime.published import working

    require(arguments.output is None, "--output", arguments.output, "accepted beside --figures, which writes no page")
    formats = FORMATS if arguments.formats is None else arguments.formats
    widths = {
        name: usual if given is None else given
        for name, given, usual in (("column", arguments.column, COLUMN), ("page", arguments.page, PAGE))
    }
    check_formats("--formats", formats)
    for name, width in widths.items():
        check_width(f"--{name}", width)
    with working("--figures", arguments.figures, shared=True) as work:
        require(not work.folder.exists() or work.folder.is_dir(), "--figures", arguments.figures, "a folder")
        try:
            write_exhibits(list(figures_of(*arguments.paths).values()), work.folder, formats=formats, **widths)
        except OSError as error:
            raise Failure(f"the figures could not be written ({error})") from error
    return {"figures": work.named(str(work.folder))}


def _inches(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not a number of inches") from None


COMMAND = Command(
    help="write a page of a run, of several runs or sets side by side, or of a comparison; or figures for papers (--figures)",
    add_arguments=add_arguments,
    run=run,
    show=print_paths,
    keys={"path": "PATH", "folder": "--figures"},
    examples={
        "limbeck report runs/scenes": "the page of a run, again",
        "limbeck report runs/a runs/b": "two runs side by side",
        "limbeck report runs/scenes --figures figures/ --formats pdf": "figures for a paper",
    },
)
