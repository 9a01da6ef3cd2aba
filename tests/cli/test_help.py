"""`--help` of every command: within 80 columns, with examples that the command takes as they are written."""

import re
import shlex
from argparse import Namespace

import pytest

from limbeck.cli.command import Command, is_setting, parser_of
from limbeck.cli.main import COMMANDS, main
from limbeck.recipes import load_recipe, parse_overrides

ALL: dict[str, Command] = {
    **COMMANDS,
    **{f"{name} {action}": made for name, one in COMMANDS.items() for action, made in one.actions.items()},
}


@pytest.mark.parametrize("name", ["", *ALL])
def test_it_fits_into_80_columns(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main([*name.split(), "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert max(map(len, said.splitlines())) <= 80
    assert name == "" or "\nexamples:\n  " in said


def arguments_of(line: str) -> tuple[str, Namespace]:
    """The command of a line, and what its parser makes of the words behind it; a shell's redirection is none of them."""
    words = shlex.split(line.partition(" > ")[0].removeprefix('eval "$(').removesuffix(')"'))
    assert words[0] == "limbeck"
    name = " ".join(words[1:3]) if " ".join(words[1:3]) in ALL else words[1]
    return name, parser_of(ALL[name], f"limbeck {name}").parse_intermixed_args(words[1 + len(name.split()) :])


@pytest.mark.parametrize("name", ALL)
def test_examples_are_taken(name: str) -> None:
    assert ALL[name].examples
    for line, said in ALL[name].examples.items():
        own, arguments = arguments_of(line)
        assert own == name or own.startswith(f"{name} "), line
        assert said and not said.endswith(".")
        recipe = getattr(arguments, "recipe", None)
        settings = [word for word in shlex.split(line.replace("--vary ", "--vary=")) if is_setting(word)]
        load_recipe(recipe or "scenes", parse_overrides(settings))


def test_items_of_a_reproduction_are_there() -> None:
    from limbeck.reproduction.items import ALL as EVERY
    from limbeck.reproduction.items import ITEMS

    named = {word for line in COMMANDS["reproduce"].examples for word in re.findall(r"\b(?:table|fig)\d+\b", line)}
    assert named and named <= {*ITEMS, EVERY}
