"""`limbeck doctor`: whether Limbeck can work here; `--clean` empties the cache."""

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import Command, words
from limbeck.runtime.errors import UsageError

if TYPE_CHECKING:
    from limbeck.runs.doctor import Checkup
    from limbeck.runtime.cleaning import Cleaned

ASK = ""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--clean",
        metavar="KIND,…",
        nargs="?",
        const=ASK,
        help="remove what the cache holds of these kinds, or of `all`; without a name, ask; all is made anew when it is needed,"
        " but for `work` that is not at its URL yet, which goes by its name alone",
    )


def run(arguments: Namespace) -> "Checkup | Cleaned":
    if arguments.clean is None:
        from limbeck.runs.doctor import examine

        return examine()

    from limbeck.runtime.cleaning import clean, kinds_of

    return clean(kinds_of("--clean", words(arguments.clean or _asked())))


def _asked() -> str:
    """What a person at the terminal wants to be removed.

    Raises:
        UsageError: when nobody is there to be asked.
    """
    from limbeck.runtime.cleaning import ALL, KINDS, held
    from limbeck.runtime.disk import in_words

    if not sys.stdin.isatty():
        raise UsageError(f"--clean: is not followed by one or more of {', '.join(KINDS)}, {ALL}, and nobody is there to be asked")
    for kind in held():
        print(f"{kind.name:<11} {in_words(kind.bytes):>10}  {kind.what}", file=sys.stderr)
    print(f"remove which (names joined by commas, or {ALL}; none: nothing)? ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def status(found: Any) -> int:
    """1 where something is wrong."""
    return 1 if getattr(found, "problems", ()) else 0


COMMAND = Command(
    help="check versions, device, compiler, places and the gradient here; --clean empties the cache",
    add_arguments=add_arguments,
    run=run,
    show=print,
    status=status,
    examples={
        "limbeck doctor": "what is here, and whether the gradient is right",
        "limbeck doctor --clean images,full": "remove decoded images and networks of full data from the cache",
    },
)
