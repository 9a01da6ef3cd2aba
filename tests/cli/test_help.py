"""`--help` of every command: within 80 columns, with examples that the command takes as they are written."""

import re
import shlex
from argparse import Namespace
from pathlib import Path

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


@pytest.mark.parametrize("name", [name for name, command in ALL.items() if command.keys])
def test_messages_have_words_that_it_shows(name: str) -> None:
    shown = parser_of(ALL[name], f"limbeck {name}").format_help()
    assert all(re.search(rf"(?<![\w-]){word}\b", shown) for word in ALL[name].keys.values())


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        ("compare nowhere --ipc 1", "RECIPE: 'nowhere' is neither"),
        ("evaluate zoo:nowhere", "PATH: 'zoo:nowhere' is not in the zoo"),
        ("export nowhere --to npz --output set.npz", "PATH: 'nowhere' is not a folder"),
        ("push nowhere me/mine", "SET: 'nowhere' is not a folder"),
        ("push nowhere mine", "REPO: 'mine' is not OWNER/NAME"),
        ("push nowhere me/mine --revision=", "--revision: '' is not a branch, a tag or a commit; without one it is main"),
        ("pull mine", "REPO: 'mine' is not OWNER/NAME"),
        ("pull me/mine .", "FOLDER: '.' is not a new or an empty folder"),
        ("pull me/mine --revision=", "--revision: '' is not a branch, a tag or a commit; without one it is main"),
        ("plan nowhere", "RECIPE: 'nowhere' is neither"),
        ("tune nowhere", "RECIPE: 'nowhere' is neither"),
        ("compare --methods edf,datm --base nowhere", "--base: 'nowhere' is neither"),
        ("report nowhere", "PATH: 'nowhere' is not there"),
        # Settings of the same names, which are none.
        ("compare scenes output=x --ipc 1", "output: is what a comparison runs over; use --output"),
        ("complexity scenes output=x", "output: is not used here"),
        ("distill scenes recipe=x", "recipe: is not a key"),
    ],
)
def test_messages_name_what_was_typed(
    line: str, begins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if line == "push nowhere me/mine":  # all else is right, and the Hub's library is asked for first
        pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"limbeck: error: {begins}") and said.count("\n") == 1


def test_items_of_a_reproduction_are_there() -> None:
    from limbeck.reproduction.items import ALL as EVERY
    from limbeck.reproduction.items import ITEMS

    named = {word for line in COMMANDS["reproduce"].examples for word in re.findall(r"\b(?:table|fig)\d+\b", line)}
    assert named and named <= {*ITEMS, EVERY}
