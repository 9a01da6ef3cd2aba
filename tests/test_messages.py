"""What messages advise is there.

A scan reads every text of the package that is no docstring (errors, warnings, notes, help) and takes out of it options, keys with
their values, commands, environment variables, extras and pages: each must be there, and each value be accepted. The way that a
message names is gone in `test_messages_followed.py`.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from advice import KEY, OPTION

from limbeck.cli.command import Command, Parser
from limbeck.cli.main import COMMANDS
from limbeck.data.imageset import ImageSet
from limbeck.distilled.hub import push
from limbeck.recipes import settings_from_plain
from limbeck.runs.settings import DistillSettings, key_types
from limbeck.runtime.errors import UsageError

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "limbeck"
GROUPS = {key.partition(".")[0] for key in key_types() if "." in key}
MENTIONED = re.compile(rf"(?<![\w.'/`])((?:{'|'.join(sorted(GROUPS))})\.[a-z_]+)(?![\w.(/*])")
COMMAND = re.compile(r"`limbeck ([^`]*)`")
# Keywords of Python functions that messages of these functions name, and where they are.
KEYWORDS = {
    "skip_bad": ImageSet.from_dataset,
    "class_names": ImageSet.from_arrays,
    "layout": ImageSet.from_arrays,
    "method": DistillSettings.of,
    "replace_other": push,
}
# What is in a text but is no text for people.
MARKUP = re.compile(r"```python.*?```|<[^>]*>", re.DOTALL)
# What stands for something in the place of a value.
PLACEHOLDER = re.compile(r"…|\{|[A-Z]{2}|^[A-Z]$|^value|^$")
# Files and parts of data that look like keys.
NO_KEYS = re.compile(r"\.(json|jsonl|yaml|npz|npy|pt|png|md|html|safetensors|csv|parquet)$")


def text_of(node: ast.AST) -> str | None:
    """A text, with {} for what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
        return "".join(map(str, parts))
    return None


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """The texts of a module that are no docstrings, with their lines."""
    tree = ast.parse(source)
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    left_out |= {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node
    }
    for node in ast.walk(tree):
        if id(node) not in left_out and (text := text_of(node)) is not None and " " in text.strip():
            yield getattr(node, "lineno", 0), text


DRAWN = PACKAGE / "experts" / "look.py"  # as SVG

OTHERS = frozenset(("--nnodes", "--nproc-per-node", "--head"))  # options of torchrun and of ray that are named


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """Every such text of the package, with its place."""
    paths = sorted(path for path in PACKAGE.rglob("*.py") if "figures" not in path.parts and path != DRAWN)
    return tuple(
        (f"{path.relative_to(ROOT)}:{line}", text) for path in paths for line, text in texts_of(path.read_text(encoding="utf-8"))
    )


@cache
def options_of(name: str) -> frozenset[str]:
    parser = Parser(prog="limbeck")
    commands()[name].add_arguments(parser)
    return frozenset({*parser._option_string_actions, "--json", "--help"})


@cache
def commands() -> dict[str, Command]:
    return {**COMMANDS, **{f"{name} {action}": made for name, one in COMMANDS.items() for action, made in one.actions.items()}}


def faults(text: str) -> list[str]:
    """What a text names that is not there or is refused."""
    text = MARKUP.sub("", text)
    known = frozenset().union(*map(options_of, commands()), {"--version"}, OTHERS)
    wrong = [f"no command has {option}" for option in OPTION.findall(text) if option not in known]
    for key, value in KEY.findall(text):
        if key not in key_types() and key not in KEYWORDS and key != "key":
            wrong.append(f"{key}= is no key")
        elif key in key_types() and not PLACEHOLDER.search(value):
            wrong += refused(key, value.rstrip(".,:"))
    for key in MENTIONED.findall(text):
        if key not in key_types() and not NO_KEYS.search(key):
            wrong.append(f"{key} is no key")
    for words in COMMAND.findall(text):
        wrong += wrong_command(words.split())
    wrong += [f"nothing reads {name}" for name in re.findall(r"LIMBECK_[A-Z_]+", text) if name not in variables()]
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    wrong += [f"there is no extra {name}" for name in re.findall(r"limbeck\[(\w+)\]", text) if name not in extras]
    wrong += [f"there is no page {page}" for page in re.findall(r"docs/[\w-]+\.md", text) if not (ROOT / page).exists()]
    return wrong


def refused(key: str, value: str) -> list[str]:
    """Why one of the values, joined by commas, is not accepted."""
    parts = [value] if key in ("eval.networks", "data.classes") else value.split(",")
    # The method that has the key, where others refuse it.
    also = {"labels": {"outer.lr_label": "0"}, "match.relabel": {"method": "tesla", "labels": "soft", "outer.lr_label": "0"}}
    for part in parts:
        try:
            settings_from_plain({}, {**also.get(key, {}), key: part})
        except UsageError as error:
            return [f"{key}={part}: {error}"]
    return []


def wrong_command(words: list[str]) -> list[str]:
    """What is wrong with `limbeck …`."""
    if not words or words[0] in ("COMMAND", "{}"):
        return []
    name = " ".join(words[:2]) if " ".join(words[:2]) in commands() else words[0]
    if name not in commands():
        return [f"there is no command {words[0]}"]
    return [f"`limbeck {name}` has no {word}" for word in words if word.startswith("--") and word not in options_of(name)]


@cache
def variables() -> frozenset[str]:
    """The environment variables that the package reads: texts that are nothing else."""
    found = set[str]()
    for path in PACKAGE.rglob("*.py"):
        found |= set(re.findall(r'"(LIMBECK_[A-Z_]+)"', path.read_text(encoding="utf-8")))
    return frozenset(found)


def test_what_messages_name_is_there() -> None:
    wrong = {place: found for place, text in texts() if (found := faults(text))}
    assert wrong == {}
    assert len(texts()) > 1000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no; --sharpen makes them so", "no command has --sharpen"),
        ("data.skip_all=true leaves them out", "data.skip_all= is no key"),
        ("say normalised=yes", "normalised= is no key"),
        ("set engine.precision=fp8", "engine.precision=fp8: engine.precision: 'fp8' is not"),
        ("a smaller data.sise", "data.sise is no key"),
        ("`limbeck distil` does", "there is no command distil"),
        ("finish it with `limbeck report … --resume`", "`limbeck report` has no --resume"),
        ("set $LIMBECK_CASH", "nothing reads LIMBECK_CASH"),
        ("pip install 'limbeck[hubs]'", "there is no extra hubs"),
        ("docs/adapters.md has it", "there is no page docs/adapters.md"),
    ],
)
def test_the_scan_finds(text: str, says: str) -> None:
    ((_, found),) = texts_of(f"raise UsageError({text!r})")
    assert any(one.startswith(says) for one in faults(found)), faults(found)
    assert faults("data.skip_bad=true leaves it out; --resize, `limbeck distill … --resume`, engine.memory=2GiB, data.root") == []


def test_keywords_of_python_are_there() -> None:
    for name, function in KEYWORDS.items():
        parameters = inspect.signature(function).parameters.values()
        assert any(one.name == name or one.kind == one.VAR_KEYWORD for one in parameters), name
