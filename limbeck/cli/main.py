"""The command `limbeck`: dispatch, exit statuses and messages.

Exit status 0: done; 1: failed while running; 2: the input cannot be used; 130, 143, 129: ended by Ctrl-C, SIGTERM, SIGHUP.
"""

import errno
import os
import shlex
import signal
import sys
from argparse import REMAINDER, SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper

from limbeck.cli import (
    cite,
    comp_dd,
    compare,
    completion,
    complexity,
    distill,
    doctor,
    evaluate,
    experts,
    hub,
    recipes,
    report,
    reproduce,
    tune,
    watch,
    zoo,
)
from limbeck.cli.command import Command, Parser, executing, listing, parser_of
from limbeck.cli.output import print_json, stdout_to_stderr
from limbeck.runtime.checked import shown
from limbeck.runtime.disk import of_disk
from limbeck.runtime.errors import DiskFailure, Failure, RankLost, UsageError
from limbeck.runtime.interruption import ENDS_WITH, Interrupted, end_children, end_in_time, handled
from limbeck.runtime.launch import silent, started_together, starter
from limbeck.runtime.notices import gathered
from limbeck.runtime.terminal import harmless_streams
from limbeck.runtime.version import VERSION

COMMANDS: dict[str, Command] = {
    "distill": distill.COMMAND,
    "experts": experts.COMMAND,
    "evaluate": evaluate.COMMAND,
    "compare": compare.COMMAND,
    "comp-dd": comp_dd.COMMAND,
    "complexity": complexity.COMMAND,
    "reproduce": reproduce.COMMAND,
    "export": evaluate.EXPORT,
    "push": hub.PUSH,
    "pull": hub.PULL,
    "zoo": zoo.COMMAND,
    "plan": distill.PLAN,
    "tune": tune.COMMAND,
    "recipes": recipes.COMMAND,
    "report": report.COMMAND,
    "watch": watch.COMMAND,
    "cite": cite.COMMAND,
    "doctor": doctor.COMMAND,
}
COMMANDS["completion"] = completion.command(COMMANDS)


def main(words: Sequence[str] | None = None) -> int:
    """Run `limbeck` with the words typed behind it (`sys.argv` by default); the exit status."""
    typed = sys.argv[1:] if words is None else list(words)
    if started_together() and "TORCHELASTIC_RUN_ID" in os.environ:
        os.environ.setdefault(ENDS_WITH, str(os.getppid()))  # torchrun's end is that of its processes
    try:
        with handled(lambda: _continuation(typed)):
            return _done(typed)
    except Interrupted as error:
        if words is None:
            end_in_time(error)  # whatever the interpreter waits for at its end
        end_children()
        if started_together() and error.number == signal.SIGTERM:  # which torchrun sends to those that are left
            from limbeck.runtime.ranks import ended

            if lost := ended():
                return _end(1, f"failed: {lost}, and with it the run{_continuation(typed)}")
        by = "" if error.number == signal.SIGINT else f" by {error}"
        return _end(error.status, f"interrupted{by}{_continuation(typed)}")


def _done(words: list[str]) -> int:
    """Run it, and say what went wrong; the exit status."""
    # Before torch is loaded. Threads that wait for each other actively take, on a machine with other work on it, the cores that
    # those need which they wait for: a step is then several times slower, and alone no slower without.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if started_together():
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of lost connections there is a sentence
    if silent():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without `±` shall not cost anybody the results
    with harmless_streams():
        return _status(words)


def _status(words: list[str]) -> int:
    try:
        with gathered(lambda line: None if silent() else print(line, file=sys.stderr)):
            return _run(words)
    except UsageError as error:
        return _end(2, f"error: {_as_typed(error, words)}")
    except Interrupted:
        raise
    except KeyboardInterrupt:
        return _end(130, f"interrupted{_continuation(words)}")
    except BrokenPipeError:
        # The reader has gone (`limbeck recipes | head`): give the interpreter's last flush a place to go to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (DiskFailure, RankLost) as error:
        return _end(1, f"failed: {error}{_continuation(words)}")
    except Failure as error:
        return _end(1, f"failed: {_as_typed(error, words)}")
    except Exception as error:
        if isinstance(error, OSError) and of_disk(error):
            from limbeck.runtime.room import told

            return _end(1, f"failed: {told(error)}{_continuation(words)}")
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # which nothing but a word that was given has led to
            return _end(2, f"error: {shown(error.filename)} is too long for the name of a file")
        first = str(error).strip().partition("\n")[0]
        return _end(1, f"failed: {type(error).__name__}: {first} (LIMBECK_DEBUG=1 shows where)")


def _run(words: list[str]) -> int:
    chosen = _top_parser().parse_args(words)
    command, name, rest = COMMANDS[chosen.command], f"limbeck {chosen.command}", list(chosen.rest)
    if rest and rest[0] in command.actions:
        command, name = command.actions[rest[0]], f"{name} {rest.pop(0)}"
    arguments = parser_of(command, name).parse_intermixed_args(rest)
    if not arguments.json:
        with executing(arguments):
            found = command.run(arguments)
        command.show(found)
    else:
        with stdout_to_stderr(), executing(arguments):
            found = command.run(arguments)
        print_json(found.to_dict() if hasattr(found, "to_dict") else found)
    sys.stdout.flush()
    return command.status(found)


def _top_parser() -> Parser:
    parser = Parser(
        prog="limbeck",
        usage="limbeck COMMAND …",
        description="Distil a large image data set into a tiny synthetic one that trains a network\nalmost as well.",
        epilog=f"commands:\n{listing(COMMANDS)}\n\n`limbeck COMMAND --help` explains one of them.\n"
        "`limbeck distill scenes` is a first try.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"limbeck {VERSION}", help="show the version and exit")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help=SUPPRESS)
    parser.add_argument("rest", nargs=REMAINDER, help=SUPPRESS).required = False
    return parser


def _continuation(words: list[str]) -> str:
    """How an interrupted command goes on."""
    resume = COMMANDS[words[0]].resume if words and words[0] in COMMANDS else None
    if resume is None or any(word in COMMANDS[words[0]].actions for word in words[1:2]):
        return ""
    typed = shlex.join([*words, *(word for word in resume if word not in words)])
    return f"; continue with: {starter()}limbeck {typed}"


def _as_typed(error: Exception, words: list[str]) -> str:
    """What went wrong, in the words that the help of the command has for what was typed."""
    if not words or words[0] not in COMMANDS:
        return str(error)
    command = COMMANDS[words[0]]
    key = str(error).partition(":")[0]
    if any(word.startswith(f"{key}=") for word in words):  # a setting of that name
        return str(error)
    return command.actions.get("".join(words[1:2]), command).as_typed(str(error))


def _end(status: int, message: str) -> int:
    if started_together():
        from limbeck.runtime.ranks import speaks

        if not speaks():
            return status
    if os.environ.get("LIMBECK_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    with suppress(OSError):  # a terminal that was closed
        print(f"limbeck: {message}", file=sys.stderr, flush=True)
    return status
