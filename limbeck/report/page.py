"""Pages: one layout for all of them, and the parts that a page is made of.

A part is a function, which makes what is to be shown of a source, and a template `templates/sections/NAME.html.j2`, which sees
it under the name `it`. Where the function gives nothing (None, or something empty), the part is left out; where either fails, which
files from anywhere may lead to, the page says so and goes on without.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from limbeck.runtime.errors import reason

S = TypeVar("S")
T = TypeVar("T")
WORD = re.compile(
    "[a-z]+ "
)  # which begins a sentence: names of runs and files, which stay as they are, have a colon, a dot, a slash
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Part(Generic[S]):
    """One part of a page.

    Args:
        name: of its template `sections/NAME.html.j2`.
        called: what a note calls it that says that it could not be shown.
        make: from the source of the page what the template sees as `it`.
        scripts: files in `templates/` that it needs at the end of the page, such as `film.js.j2`.
        styles: those that it needs in the head, beside `page.css.j2`.
    """

    name: str
    called: str
    make: Callable[[S], object]
    scripts: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()


class Attempts:
    """Makes what a page shows; of files that hold something else than a run leaves, a part may be missing, which a note says."""

    def __init__(self, notes: Sequence[str] = ()) -> None:
        self.notes = list(notes)

    def __call__(self, called: str, make: Callable[[], T], otherwise: Any) -> T:
        try:
            return make()
        except Exception as error:  # whatever such files lead to
            self.notes.append(f"{called} could not be shown: {reason(error)}")
            missing: T = otherwise
            return missing


def render(
    parts: Sequence[Part[S]],
    source: S,
    title: str,
    facts: Sequence[str] = (),
    notices: Sequence[str] = (),
    attempts: Attempts | None = None,
) -> str:
    """A page.

    Args:
        parts: in their order.
        source: what they are made from.
        title: of the page.
        facts: a few words each, below the title.
        notices: what a reader should know before the rest, a sentence each.
        attempts: has notes already, on what could not be read.
    """
    attempts = attempts or Attempts()
    made = [(part, attempts(part.called, partial(_section, part, source), "")) for part in parts]
    shown = [(part, section) for part, section in made if section]
    page = _environment().get_template("page.html.j2")
    text: str = page.render(
        title=title,
        facts=facts,
        notices=[*notices, *attempts.notes],
        sections=[section for _, section in shown],
        scripts=list(dict.fromkeys(name for part, _ in shown for name in part.scripts)),
        styles=list(dict.fromkeys(name for part, _ in shown for name in part.styles)),
    )
    return text.encode(errors="backslashreplace").decode()  # a name may be no Unicode text


def _section(part: Part[S], source: S) -> str:
    """The part as HTML, marked as such; empty where there is nothing."""
    from markupsafe import Markup

    found = part.make(source)
    if found is None or (isinstance(found, (str, list, tuple, dict)) and not found):
        return ""
    return Markup(_environment().get_template(f"sections/{part.name}.html.j2").render(it=found))  # noqa: S704 (an escaping template's)


@cache
def _environment() -> Any:
    """What renders the templates: everything is escaped, and a name that is not there is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.tests["sentence"] = lambda said: WORD.match(said) is not None
    return made
