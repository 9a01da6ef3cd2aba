"""What a command is, and the parser that all of them share: errors of one line instead of argparse's usage text."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from limbeck.runtime.errors import UsageError


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
        run: does it and returns what `--json` prints.
        show: prints the same for people.
        resume: what to add to an interrupted command line in order to go on; None when it starts anew anyway.
        actions: commands of its own, by the word behind its name: `limbeck experts show`.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], dict[str, Any]]
    show: Callable[[dict[str, Any]], None]
    resume: tuple[str, ...] | None = None
    actions: Mapping[str, "Command"] = field(default_factory=dict)


def listing(commands: Mapping[str, Command]) -> str:
    """Names and help, a line each."""
    return "\n".join(f"  {name:<10} {command.help}" for name, command in commands.items())


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that works from a recipe."""
    parser.add_argument("recipe", metavar="RECIPE", help="a name that `limbeck recipes` lists, or a .yaml file of your own")
    parser.add_argument("--data", metavar="SOURCE", help="the same as data.source=SOURCE")
    add_skip_bad(parser)
    add_overrides(parser, "settings that replace the recipe's, such as ipc=10 match.drop_ratio=0.25")


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    """The option that goes with `--data`."""
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave images out that cannot be read; the same as data.skip_bad=true"
    )


def skipping(arguments: argparse.Namespace) -> dict[str, str]:
    """What that option sets."""
    return {"data.skip_bad": "true"} if getattr(arguments, "skip_bad", False) else {}


def add_overrides(parser: argparse.ArgumentParser, text: str) -> None:
    """`key=value …`, anywhere on the command line."""
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help=text)


def overrides_from(arguments: argparse.Namespace, **options: str | None) -> dict[str, str]:
    """The overrides as typed, under those of the options that were given: overrides_from(arguments, output="runs/a")."""
    from limbeck.recipes import parse_overrides

    given = {"data.source": arguments.data, **skipping(arguments), **options}
    return parse_overrides(arguments.overrides) | {key: value for key, value in given.items() if value is not None}
