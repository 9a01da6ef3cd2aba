"""`limbeck cite`: a bibliography of what runs and distilled sets were made with."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import Command
from limbeck.runtime.errors import UsageError

if TYPE_CHECKING:
    from limbeck.runs.cited import Reference


@dataclass(frozen=True)
class Bibliography:
    """The references of all that was named, each once, and what nobody knows the references of."""

    references: "Sequence[Reference]"
    unknown: Sequence[str]

    def __str__(self) -> str:
        parts = ["\n".join([*(f"% {said}" for said in one.why), one.bibtex]) for one in self.references]
        notes = [f"% {one}: its references are not known to Limbeck, and are yours to add" for one in self.unknown]
        return "\n\n".join([*parts, *notes])


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run folder, finished or not, or a distilled set")


def run(arguments: Namespace) -> Bibliography:
    from limbeck.methods.registry import name_of
    from limbeck.recipes import settings_from_plain
    from limbeck.runs.cited import METHODS, data_of, references_of
    from limbeck.runtime.located import here
    from limbeck.runtime.version import VERSION

    found: dict[str, Reference] = {}
    unknown: dict[str, None] = {}
    for word in arguments.runs:
        plain, version = _stored(Path(here("RUN", word)), word)
        settings = settings_from_plain(plain, origin=f"the settings of {word}", imports=False)
        for one in references_of(settings, version or VERSION):
            before = found.get(one.key, one)
            found[one.key] = replace(before, why=tuple(dict.fromkeys(before.why + one.why)))
        if not data_of(source := str(settings.data.source)):
            unknown[f"data.source={source}"] = None
        if (name := name_of(settings.method)) not in METHODS:
            unknown[f"method={name}"] = None
    return Bibliography(list(found.values()), list(unknown))


def _stored(path: Path, word: str) -> tuple[Mapping[str, Any], str | None]:
    """The settings that lie in a folder, and the version that made the set in it, as far as that is said."""
    from limbeck.distilled.contents import METADATA, SET
    from limbeck.runs.folder import SETTINGS
    from limbeck.runtime.files import read_json

    try:
        if (settings := path / "settings.json").is_file():
            return read_json(settings, SETTINGS), _version(path / "distilled" / METADATA)
        if (metadata := path / METADATA).is_file() and (held := read_json(metadata, SET).get("settings")):
            return held, _version(metadata)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"RUN: {word!r} cannot be read ({error})") from error
    raise UsageError(f"RUN: {word!r} is neither a run folder nor a distilled set that says how it was made")


def _version(metadata: Path) -> str | None:
    from limbeck.distilled.contents import SET
    from limbeck.runtime.files import read_json

    versions = read_json(metadata, SET).get("versions") if metadata.is_file() else None
    return str(versions["limbeck"]) if isinstance(versions, Mapping) and "limbeck" in versions else None


COMMAND = Command(
    help="print the references, in BibTeX, of what a run or a distilled set was made with",
    add_arguments=add_arguments,
    run=run,
    show=print,
    examples={
        "limbeck cite runs/scenes > references.bib": "what a run was made with",
        "limbeck cite runs/a runs/b/distilled": "of two, each reference once",
    },
)
