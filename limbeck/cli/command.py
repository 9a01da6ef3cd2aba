"""What a command is, and the parser that all of them share: errors of one line instead of argparse's usage text."""

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NoReturn

from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.notices import by_kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from limbeck.runtime.executor import Shard
    from limbeck.studies.matrix import Running


WIDTH = 79  # of what --help prints


class Read(argparse.Action):
    """An option whose text is read where it is typed: `read` gets its name and the text, and may raise `UsageError`."""

    def __init__(self, *, read: Callable[[str, str], Any], **given: Any) -> None:
        super().__init__(**given)
        self.read = read

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, self.read(self.option_strings[0], values))


@dataclass(frozen=True)
class Done:
    """What a command has written: paths by name."""

    paths: Mapping[str, str]


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print its usage and exit; options cannot be abbreviated."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        hint = " (settings are given without dashes: key=value)" if message.startswith("unrecognized") and "=" in message else ""
        raise UsageError(f"{message}{hint}; see `{self.prog} --help`")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Args:
        help: what it does, in a line.
        add_arguments: declares its arguments.
        run: does it and returns what it found; `--json` prints that as `to_dict` or the fields have it.
        show: prints the same for people.
        resume: what to add to an interrupted command line in order to go on; None when it starts anew anyway.
        actions: commands of its own, by the word behind its name: `limbeck experts show`.
        status: the exit status of what was found, once that is printed; a `Failure` that it raises is said in the last line.
        examples: command lines, and what they do.
        keys: what its help calls that which messages of the parts it calls name otherwise.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Any]
    show: Callable[[Any], None]
    resume: tuple[str, ...] | None = None
    actions: Mapping[str, "Command"] = field(default_factory=dict)
    status: Callable[[Any], int] = lambda found: 0
    examples: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)

    def as_typed(self, message: str) -> str:
        """A message that begins with a key, with the word that `--help` shows in its place."""
        key, colon, rest = message.partition(":")
        return f"{self.keys.get(key, key)}{colon}{rest}"


def listing(commands: Mapping[str, Command]) -> str:
    """Names and help, a line each."""
    lines = (fill(f"  {name:<10} {command.help}", WIDTH, subsequent_indent=" " * 13) for name, command in commands.items())
    return "\n".join(lines)


def parser_of(command: Command, name: str) -> Parser:
    """What reads the words behind `limbeck COMMAND`, and explains them within 80 columns."""
    # No subparsers of argparse: those cannot take settings, key=value, between options, and all would be made for each command.
    parser = Parser(prog=name, description=fill(command.help, WIDTH), formatter_class=argparse.RawDescriptionHelpFormatter)
    shown = [
        f"  {line}\n{fill(said, WIDTH, initial_indent=' ' * 6, subsequent_indent=' ' * 6)}"
        for line, said in command.examples.items()
    ]
    parts = ["examples:\n" + "\n".join(shown)] if shown else []
    if command.actions:
        parts.append(f"also:\n{listing(command.actions)}\n\n`{name} ACTION --help` explains one of them.")
    parser.epilog = "\n\n".join(parts) or None
    command.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, all else on standard error")
    return parser


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that works from a recipe."""
    parser.add_argument("recipe", metavar="RECIPE", help="a name that `limbeck recipes` lists, or a .yaml file of your own")
    parser.add_argument("--data", metavar="SOURCE", help="the same as data.source=SOURCE")
    add_skip_bad(parser)
    add_deterministic(parser)
    add_trust(parser)
    add_overrides(parser, "settings that replace the recipe's, such as ipc=10 match.drop_ratio=0.25")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option of every command that reads recipes."""
    parser.add_argument("--trust", action="store_true", help="run code, package.module:Name, that a recipe's file names")


def add_baselines(parser: argparse.ArgumentParser) -> None:
    """The option of every command that measures sets."""
    said = "coresets beside every figure, and whether the set beats the best of them: all, or NAME,…; the same as eval.baselines=…"
    parser.add_argument("--baselines", metavar="NAME,…", nargs="?", const="all", action=Read, read=_coresets, help=said)


def _coresets(option: str, text: str) -> str:
    from limbeck.runs.settings import named_coresets

    return ",".join(named_coresets(option, text))


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    """The option that goes with `--data`."""
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave images out that cannot be read; the same as data.skip_bad=true"
    )


def add_deterministic(parser: argparse.ArgumentParser) -> None:
    """The option of every command that computes."""
    said = "the same bits on every number of threads and cores; the same as engine.deterministic=true"
    parser.add_argument("--deterministic", action="store_true", help=said)


def switched(arguments: argparse.Namespace) -> dict[str, str]:
    """What these two options set."""
    keys = {"skip_bad": "data.skip_bad", "deterministic": "engine.deterministic"}
    return {key: "true" for name, key in keys.items() if getattr(arguments, name, False)}


def add_overrides(parser: argparse.ArgumentParser, text: str) -> None:
    """`key=value …`, anywhere on the command line."""
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help=text)


def overrides_from(arguments: argparse.Namespace, **options: str | None) -> dict[str, str]:
    """The overrides as typed, and those of the options that were given: overrides_from(arguments, output="runs/a").

    Raises:
        UsageError: when a word is no setting, or a key is given twice, once as an option.
    """
    from limbeck.recipes import parse_overrides

    typed = parse_overrides(arguments.overrides)
    baselines = {"eval.baselines": getattr(arguments, "baselines", None)}
    wanted = {"data.source": getattr(arguments, "data", None), **baselines, **switched(arguments), **options}
    given = {key: value for key, value in wanted.items() if value is not None}
    for key in typed.keys() & given.keys():
        option = "--data" if key == "data.source" else f"--{key.rpartition('.')[2].replace('_', '-')}"
        raise UsageError(f"{key}: is given twice, once as {option}")
    return typed | given


def is_setting(word: str) -> bool:
    """Whether a word among others is key=value, and not the name of something."""
    return re.match(r"[a-z]\w*(\.[a-z]\w*)*=", word) is not None and not os.path.exists(word)


def add_grid_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that runs a grid."""
    jobs = "distillations at a time, which share the cores (default: 1; with --executor ray as many as there is room for)"
    share = "run only the I-th of N shares of the grid, beside other processes"
    limit = "stop after that time; the same command goes on"
    parser.add_argument("--jobs", metavar="N", action=Read, read=_number, help=jobs)
    parser.add_argument("--shard", metavar="I/N", action=Read, read=_shard, help=share)
    parser.add_argument("--max-seconds", metavar="S", action=Read, read=_seconds, help=limit)
    parser.add_argument("--keep", action="store_true", help="keep the run folders of finished distillations")
    parser.add_argument("--show", action="store_true", help="run nothing; show what is finished")
    add_executor(parser)


def add_executor(parser: argparse.ArgumentParser) -> None:
    """The options of every command that has many jobs, or one of those; `executing` does what they say."""
    group = parser.add_argument_group("where jobs run")
    named = "processes of this machine, or tasks of a Ray cluster (extra: ray)"
    group.add_argument("--executor", choices=("local", "ray"), default="local", help=f"{named} (default: local)")
    there = "of the cluster: HOST:PORT, or auto for one on this machine (default: $RAY_ADDRESS, or one that ends with the command)"
    group.add_argument("--address", metavar="ADDRESS", help=there)
    group.add_argument("--cpus", metavar="N", action=Read, read=_number, help="with ray: threads of each job (default: 1)")
    gpus = "with ray: GPUs of each job; 0.25 lets four share one (default: 0)"
    group.add_argument("--gpus", metavar="X", action=Read, read=_share, help=gpus)


@contextmanager
def executing(arguments: argparse.Namespace) -> Iterator[None]:
    """Inside the block jobs run where the options of a command say."""
    more = [getattr(arguments, name, None) for name in ("address", "cpus", "gpus")]
    named = getattr(arguments, "executor", "local")
    if (named == "local" and more == [None] * 3) or getattr(arguments, "show", False):
        yield
        return
    from limbeck.runtime.executor.current import executing as using
    from limbeck.runtime.executor.current import executor_of

    with using(executor_of(named, *more)):
        yield


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """The seeds of a grid."""
    said = "distillation seeds (default: 0,1,2)"
    parser.add_argument("--seeds", metavar="N,…", action=Read, read=seeds, default=[0, 1, 2], help=said)


def running(arguments: argparse.Namespace) -> "Running":
    """What those options say."""
    from limbeck.runtime.executor import Shard
    from limbeck.runtime.progress import default_progress
    from limbeck.studies.matrix import Running

    return Running(
        jobs=arguments.jobs,
        shard=arguments.shard or Shard(),
        max_seconds=0.0 if arguments.show else arguments.max_seconds,
        keep=arguments.keep,
        progress=default_progress(),
    )


def ended(found: Any) -> int:
    """The exit status of what a grid has found, if it is a grid's.

    Raises:
        Failure: when cells have failed.
    """
    failed: Mapping[str, str] = getattr(found, "failed", {})
    if failed:
        raise Failure(f"{len(failed)} cell{'s' * (len(failed) > 1)} failed: {'; '.join(by_kind(failed))}")
    return 0


def write_figure(figure: "Figure | None", path: Path) -> dict[str, str]:
    """Write the figure as PNG, where there is one; its path by name.

    Raises:
        Failure: when it cannot be written; the message says that finished cells are kept.
    """
    from limbeck.figures.style import png
    from limbeck.runtime.files import write_bytes

    if figure is None:
        return {}
    try:
        write_bytes(path, png(figure))
    except OSError as error:
        raise Failure(f"the figure could not be written ({error}); finished cells are in {path.parent / 'cells'}") from error
    return {"figure": str(path)}


def words(text: str) -> list[str]:
    """The words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def names(option: str, text: str) -> list[str]:
    """Names of different methods, joined by commas.

    Raises:
        UsageError: for anything else.
    """
    from limbeck.methods.registry import known

    found = words(text)
    require(bool(found), option, text, "one or more methods, joined by commas")
    if twice := [name for name in found if found.count(name) > 1]:
        raise UsageError(f"{option}: {twice[0]!r} is given twice")
    try:
        for name in found:
            known(name)
    except UsageError as error:
        raise UsageError(re.sub("^method:", f"{option}:", str(error))) from error
    return found


def seeds(option: str, text: str) -> list[int]:
    """Different seeds, joined by commas.

    Raises:
        UsageError: for anything else.
    """
    from limbeck.runtime.checked import OF_SEEDS, SEEDS

    found = numbers(option, text, least=None)
    accepted = f"one or more different whole numbers {OF_SEEDS}, joined by commas"
    require(all(one in SEEDS for one in found), option, text, accepted)
    return found


def numbers(option: str, text: str, least: int | None = 1) -> list[int]:
    """Different whole numbers, joined by commas.

    Raises:
        UsageError: for anything else.
    """
    accepted = "one or more different whole numbers" + ("" if least is None else f" from {least}") + ", joined by commas"
    try:
        found = [int(word) for word in words(text)]
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not {accepted}") from None
    good = 0 < len(set(found)) == len(found) and (least is None or min(found) >= least)
    require(good, option, text, accepted)
    return found


def _number(option: str, text: str) -> int:
    found = numbers(option, text)
    require(len(found) == 1, option, text, "one whole number")
    return found[0]


def _share(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not a number of GPUs, such as 0.25") from None


def _shard(option: str, text: str) -> "Shard":
    from limbeck.runtime.executor import Shard

    return Shard.parse(text)


def _seconds(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not a number of seconds") from None
