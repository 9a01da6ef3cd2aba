"""`limbeck completion`: what a shell asks when somebody presses Tab.

The script that it prints asks the command itself, with what was typed in the environment variable LIMBECK_COMPLETE, so that what
is offered is what this version accepts. (Libraries that complete argparse's parsers know nothing of settings, key=value, nor of
recipes, and take each command's parser to be made beforehand.) Nothing here needs torch.
"""

import os
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin

from limbeck.cli.command import Command, parser_of

SHELLS = ("bash", "zsh", "fish")
SCRIPTS = Path(__file__).with_name("scripts")
INSTALLS = {
    'eval "$(limbeck completion bash)"': "in ~/.bashrc",
    'eval "$(limbeck completion zsh)"': "in ~/.zshrc",
    "limbeck completion fish > ~/.config/fish/completions/limbeck.fish": "once",
}


@dataclass(frozen=True)
class Script:
    """What a shell runs, or what it is offered."""

    text: str

    def __str__(self) -> str:
        return self.text.removesuffix("\n")


def command(commands: Mapping[str, Command]) -> Command:
    """The command that completes those."""

    def run(arguments: Namespace) -> Script:
        line = os.environ.get("LIMBECK_COMPLETE")
        return Script(script_of(arguments.shell) if line is None else "\n".join(candidates(line, commands)))

    return Command(
        help="print a script by which bash, zsh or fish complete commands, options and settings",
        add_arguments=add_arguments,
        run=run,
        show=print,
        examples=INSTALLS,
    )


def script_of(shell: str) -> str:
    """What that shell runs once, so that it asks from then on."""
    return (SCRIPTS / f"complete.{shell}").read_text(encoding="utf-8")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


def candidates(line: str, commands: Mapping[str, Command]) -> list[str]:
    """What the last word of a line may become; nothing where that may be a file.

    Args:
        line: as typed up to the cursor, `limbeck` its first word.
        commands: by name.
    """
    words = line.split()[1:]
    current = words.pop() if words and not line[-1].isspace() else ""
    if not words:
        return _beginning(current, [*commands, "--help", "--version"])
    name, *before = words
    if name not in commands:
        return []
    chosen, actions = commands[name], commands[name].actions
    if before and before[0] in actions:
        chosen = actions[before.pop(0)]
        actions = {}
    parser = parser_of(chosen, "limbeck")
    options = {option: action for action in parser._actions for option in action.option_strings}
    if before and (awaited := options.get(before[-1])) is not None and awaited.nargs != 0:
        return _listed(current, _values(awaited))
    if current.startswith("-"):
        return _beginning(current, options)
    if "=" in current:
        key, _, value = current.partition("=")
        return [f"{key}={found}" for found in _listed(value, _values_of(key))]
    places = [action for action in parser._actions if not action.option_strings]
    return _beginning(
        current, [*(actions if not before else ()), *(found for one in places for found in _values(one)), *_keys(places)]
    )


def _beginning(current: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(current)]


def _listed(current: str, names: Iterable[str]) -> list[str]:
    """The same of the last of names that are joined by commas."""
    done, comma, last = current.rpartition(",")
    return [f"{done}{comma}{name}" for name in _beginning(last, names)]


def _values(action: Action) -> list[str]:
    """What may stand for an argument, where that is a name that Limbeck knows."""
    if action.choices is not None:
        return list(map(str, action.choices))
    known: dict[str, Callable[[], Iterable[str]]] = {"recipe": _recipes, "recipes": _recipes, "base": _recipes}
    known |= {"methods": _methods, "baselines": _coresets, "protocol": _protocols}
    if action.dest == "name" and action.metavar == "NAME":
        return list(_recipes())
    return list(known[action.dest]()) if action.dest in known else []


def _recipes() -> Iterable[str]:
    from limbeck.recipes import recipe_names

    return recipe_names()


def _methods() -> Iterable[str]:
    from limbeck.methods.registry import METHODS

    return METHODS


def _coresets() -> Iterable[str]:
    from limbeck.methods.registry import CORESETS

    return ("all", *CORESETS)


def _protocols() -> Iterable[str]:
    from limbeck.runs.cited import PROTOCOLS

    return PROTOCOLS


def _keys(places: Iterable[Action]) -> list[str]:
    """The settings, key=, where words may be such."""
    from limbeck.runs.settings import key_types

    return [f"{key}=" for key in key_types()] if any("key=value" in f"{one.metavar} {one.help}" for one in places) else []


def _values_of(key: str) -> list[str]:
    """The values of a setting that have a name."""
    from limbeck.runs.settings import key_types
    from limbeck.runtime.checked import options_of

    if key in ("method", "eval.protocol"):
        return list(_methods() if key == "method" else _protocols())
    found = list[str]()
    for kind, _ in options_of(key_types()[key]) if key in key_types() else ():
        found += ["true", "false"] if kind is bool else map(str, get_args(kind)) if get_origin(kind) is Literal else []
    return found
