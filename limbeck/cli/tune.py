"""`limbeck tune`: settings of trajectory matching for new data, from its experts and start images."""

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import Command, add_recipe_arguments, overrides_from
from limbeck.cli.output import print_paths
from limbeck.runtime.errors import require
from limbeck.runtime.terminal import console

if TYPE_CHECKING:
    from limbeck.runs.tuning import Tuned


@dataclass(frozen=True)
class Found:
    """What was found, and where the recipe with it lies."""

    command: str
    tuned: "Tuned"
    paths: Mapping[str, str] = field(default_factory=dict)

    def __json__(self) -> Any:
        return {**self.tuned.to_dict(), "settings": self.tuned.keys, "command": self.command, "paths": self.paths}


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--output", metavar="FILE.yaml", help="write the recipe with what was found")


def run(arguments: Namespace) -> Found:
    from limbeck.recipes import load_recipe, settings_yaml

    place = None if arguments.output is None else Path(arguments.output).expanduser()
    fits = place is None or (place.suffix in (".yaml", ".yml") and not place.exists() and place.parent.is_dir())
    require(fits, "--output", arguments.output, "a new file that ends in .yaml, in a folder that is there")
    overrides = overrides_from(arguments)
    settings = load_recipe(arguments.recipe, overrides, trust=arguments.trust)

    from limbeck.runs.settings import flat
    from limbeck.runs.strangers import code_in
    from limbeck.runs.tuning import tune
    from limbeck.runtime.files import write_text
    from limbeck.runtime.fingerprint import plain
    from limbeck.runtime.progress import default_progress

    tuned = tune(settings, progress=default_progress())
    if place is None:
        given = [f"{key}={value}" for key, value in overrides.items() if key not in tuned.keys]
        words = ["limbeck", "distill", arguments.recipe, *given, *tuned.words.split(), *["--trust"] * arguments.trust]
        return Found(shlex.join(words), tuned)
    found = {**overrides, **{key: f"{value:g}" for key, value in tuned.keys.items()}}
    made = load_recipe(arguments.recipe, found, trust=arguments.trust)
    write_text(place, settings_yaml(made))
    named = code_in(flat(plain(made)))  # which nobody types beside the new file
    return Found(shlex.join(["limbeck", "distill", str(place), *["--trust"] * bool(named)]), tuned, {"recipe": str(place)})


def show(found: Found) -> None:
    """The settings with their reasons, and the command that takes them."""
    from limbeck.runtime.tables import Grid

    rows = [(one.key, f"{one.before:g}", f"{one.value:g}") for one in found.tuned.choices]
    out = console()
    out.print(Grid(("setting", "was", "is"), tuple(rows)))
    for one in found.tuned.choices:
        out.print(f"{one.key.rpartition('.')[2]}: {one.reason}", markup=False, emoji=False, highlight=False)
    # In one line, however long: it is there to be copied.
    out.print(f"distil with: {found.command}", markup=False, emoji=False, highlight=False, soft_wrap=True)
    print_paths(found)


COMMAND = Command(
    help="read settings of trajectory matching for new data from its experts and start images, without trying",
    add_arguments=add_arguments,
    run=run,
    show=show,
    keys={"recipe": "RECIPE"},
    examples={
        "limbeck tune scenes --data photos/": "print what it found, and the command that takes it",
        "limbeck tune scenes --data photos/ --output photos.yaml": "write a recipe with it",
    },
)
