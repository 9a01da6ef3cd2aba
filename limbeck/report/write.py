"""`write_report`: a page of whatever lies at some paths: a run, several runs and sets, a comparison, a benchmark, complexities."""

from pathlib import Path

from limbeck.report.collection import page_of
from limbeck.report.html import write_report as write_run
from limbeck.report.kinds import RUN, SHOWN, as_usage, kind_of
from limbeck.runtime.disk import of_disk
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import write_text
from limbeck.runtime.located import here, origin

PAGE = "report.html"
SEVERAL = "limbeck-report.html"
OURS = b'<meta name="generator" content="Limbeck">'
EARLIER = " – Limbeck</title>".encode()  # of reports of before
HEAD = 2**16  # bytes in which one of the two stands


def write_report(*paths: Path | str, output: Path | str | None = None) -> Path:
    """Write the page of a run, of several runs and distilled sets, or of the folder of a study; its path.

    Args:
        paths: folders: runs and distilled sets, as many as wanted; or one that `limbeck compare` or `limbeck comp-dd` has written,
            or `limbeck reproduce`, or some of `limbeck complexity`.
        output: the page; None takes `report.html` in the folder of a run or a study, and `limbeck-report.html` in the current
            folder for several, for a set alone, to which no file is added, and for what a URL names. A file that is no page of
            Limbeck's is kept.

    Raises:
        UsageError: when a folder is none of these, they do not go together, or the page cannot be written there.

    Example:
        >>> import torch
        >>> from limbeck import DistilledSet, SmallSet
        >>> from limbeck.data.preprocessing import Identity
        >>> small = SmallSet.of_classes(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), 2, syn_lr=0.01)
        >>> held = DistilledSet(set=small, preprocessing=Identity(), class_names=("ant", "bee"))
        >>> print(write_report(held.save("a"), held.save("b")))
        limbeck-report.html
    """
    require(len(paths) > 0, "PATH", None, SHOWN)
    places = [Path(here("PATH", str(path))) for path in paths]
    kinds = [kind_of(path) for path in places]
    if twice := next((path for number, path in enumerate(places) if path.resolve() in map(Path.resolve, places[:number])), None):
        raise UsageError(f"PATH: {str(twice)!r} is given twice")
    first = kinds[0]
    for path, kind in zip(places, kinds, strict=True):
        if kind.show is None:
            raise UsageError(f"PATH: {str(path)!r} is {kind.name}, which has no page; --figures draws it")
        if kind.show is not first.show:
            raise UsageError(
                f"PATH: {str(places[0])!r} is {first.name} and {str(path)!r} is {kind.name}; only run folders and distilled sets "
                "go together"
            )
    require(len(places) == 1 or first.several, "PATH", str(places[-1]), f"possible beside another: {first.name} has its own page")
    alone = len(places) == 1 and first.place and origin(places[0]) is None  # a copy from elsewhere stays what it is
    target = Path(output) if output is not None else places[0] / PAGE if alone else Path(SEVERAL)
    check_target(target)
    try:
        if len(places) == 1 and first.name == RUN:
            return write_run(places[0], target)
        assert first.show is not None, "just asked"
        with as_usage(places, first):
            text = page_of(first.show(places))
        write_text(target, text)
    except OSError as error:
        if of_disk(error):
            raise
        raise UsageError(f"--output: {str(target)!r} cannot be written: {error.strerror or error}") from error
    return target


def check_target(path: Path) -> None:
    """Raise `UsageError` where something else than a page of ours is."""
    if not path.exists():
        return
    require(path.is_file(), "--output", str(path), "a file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UsageError(f"--output: {str(path)!r} cannot be read: {error.strerror}") from error
    if not (OURS in head or EARLIER in head):
        raise UsageError(f"--output: {str(path)!r} is there, and no page of Limbeck's; name another file")
