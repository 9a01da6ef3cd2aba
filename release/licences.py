"""The licences of what Limbeck depends on, as the installed packages state them: `python release/licences.py`, or `make licences`.

Writes `docs/licences.md`: the packages of pyproject.toml by where they belong, and all that those need which come with Limbeck. One
that is not installed where this runs is named, without a licence. It takes Python 3.11 or later, which reads TOML.
"""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
HEAD = """# Licences of dependencies

Limbeck itself is under Apache 2.0 (`LICENSE`). This page lists what it depends on, each with the licence that its package states.
`make licences` writes it anew from what is installed; the versions are those that were there.
"""
LONGEST = 200  # of a licence's name: some packages state the whole text, whose first line is taken


def name_of(requirement: str) -> str:
    """The package of a requirement, spelt as registries compare it."""
    return re.sub("[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def needed(package: str) -> list[str]:
    """What a package needs without extras, as far as that is installed."""
    try:
        return sorted({name_of(one) for one in requires(package) or [] if "extra ==" not in one})
    except PackageNotFoundError:
        return []


def with_needs(packages: Iterable[str]) -> set[str]:
    found, todo = set[str](), list(packages)
    while todo:
        if (name := todo.pop()) not in found:
            found.add(name)
            todo += needed(name)
    return found


def stated(package: str) -> tuple[str, str]:
    """The version and the licence of an installed package, in words; dashes of one that is not there."""
    try:
        held = metadata(package)
    except PackageNotFoundError:
        return "–", "not installed"
    classes = [one.rpartition(" :: ")[2] for one in held.get_all("Classifier") or [] if one.startswith("License :: ")]
    text = held["License-Expression"] or "; ".join(classes) or (held["License"] or "").strip().partition("\n")[0]
    return held["Version"], (text or "not stated")[:LONGEST].replace("|", "or")


def table(packages: Iterable[str]) -> list[str]:
    rows = [f"| {name} | {version} | {licence} |" for name in sorted(packages) for version, licence in [stated(name)]]
    return ["", "| package | version | licence |", "|---|---|---|", *rows, ""]


def page() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = {name_of(one) for one in project["dependencies"]}
    lines = [HEAD, "## What comes with Limbeck", *table(own), "## What these need", *table(present(with_needs(own) - own))]
    for extra, packages in project["optional-dependencies"].items():
        lines += [f"## Extra `{extra}`", *table({name_of(one) for one in packages})]
    return "\n".join(lines)


def present(packages: Iterable[str]) -> set[str]:
    """Those that are installed: requirements name packages of other systems and Pythons, too."""
    return {name for name in packages if stated(name)[0] != "–"}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: written")
