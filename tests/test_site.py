"""The pages as a site: each is in a table of contents, links lead somewhere, pictures say what makes them, what is named exists.

`make docs` builds it, with warnings as errors; what is held here needs no Sphinx.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

import limbeck
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.settings import DistillSettings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}
FENCED = re.compile(r"^(```|~~~).*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r"^!\[[^\]]+\]\((images/[\w-]+\.\w+)\)$", re.MULTILINE)
COMMAND = re.compile(r"`(?:python (benchmarks/\w+\.py)\b[^`]*|make demo|limbeck reproduce [^`]+)`")


def prose(text: str) -> str:
    """A page without its blocks and its code."""
    return re.sub(r"`[^`\n]*`", "", FENCED.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors that headings have, as MyST and public hosts of Git make them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def trees() -> list[str]:
    """The entries of all tables of contents."""
    found = []
    for text in PAGES.values():
        for body in re.findall(r"^:::\{toctree\}\n(.*?)^:::$", text, re.MULTILINE | re.DOTALL):
            found += [f"{line}.md" for line in body.splitlines() if line and not line.startswith(":")]
    return found


def test_every_page_is_once_in_a_table_of_contents() -> None:
    assert Counter(trees()) == Counter(PAGES.keys() - {"index.md"})


@pytest.mark.parametrize("page", ["../README.md", *sorted(PAGES)])
def test_links_lead_somewhere(page: str) -> None:
    path = DOCS / page
    for target in LINK.findall(prose(path.read_text(encoding="utf-8"))):
        if ":" in target:
            assert re.fullmatch(r"https://[a-z0-9.-]+\.[a-z]+(/[\w./%#?=&+~-]*)?", target), target
            continue
        name, _, anchor = target.partition("#")
        file = path.resolve().parent / name if name else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_picture_says_what_makes_it(page: str) -> None:
    for found in PICTURE.finditer(PAGES[page]):
        file = DOCS / found[1]
        assert file.is_file() and file.stat().st_size < 200_000, found[1]
        command = COMMAND.search(PAGES[page][found.end() :].lstrip().split("\n\n")[0])
        assert command, f"{page}: the paragraph after {found[1]} names no command"
        assert command[1] is None or (ROOT / command[1]).is_file(), command[0]


def test_no_picture_lies_there_unused() -> None:
    shown = {name for text in PAGES.values() for name in PICTURE.findall(text)}
    assert shown == {f"images/{file.name}" for file in (DOCS / "images").iterdir()}


def test_every_public_name_is_documented_once() -> None:
    directive = r"^\.\. auto(?:function|class|exception|module):: limbeck\.(\w+)$"
    named = [name for text in PAGES.values() for name in re.findall(directive, text, re.MULTILINE)]
    assert Counter(named) == Counter(set(limbeck.__all__) - {"__version__"})


@pytest.mark.parametrize("page", ["../README.md", *sorted(PAGES)])
def test_settings_and_files_that_are_named_exist(page: str) -> None:
    keys = FlatSettings.of(DistillSettings()).keys.keys()
    groups = {group for group, _, rest in (key.partition(".") for key in keys) if rest}
    for code in re.findall(r"`([^`\n]+)`", (DOCS / page).read_text(encoding="utf-8")):
        for key in re.findall(r"(?<![\w./-])[a-z_]+\.[a-z_]+(?![\w(/])", code):
            assert key.partition(".")[0] not in groups or key.endswith(".py") or key in keys, code
        for name in re.findall(r"(?<![\w/.-])(?:\w+/)+\w+\.py\b", code):
            assert (ROOT / name).is_file() or (ROOT / "limbeck" / name).is_file(), code


def test_every_method_by_name_is_in_the_reference() -> None:
    section = PAGES["reference-methods.md"].partition("## Methods by name")[2].partition("~~~")[0]
    named = re.findall(r"`(\w+)`", section.partition("|---|---|")[2])
    assert Counter(named) == Counter(limbeck.methods.__all__)
