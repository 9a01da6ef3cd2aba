"""Nothing that a terminal would obey reaches it, whoever wrote it; colours and bars of ours do."""

import io
import json
import sys
from typing import Any

import pytest

from limbeck.runtime.progress import RichProgress
from limbeck.runtime.tables import Grid, Html, Page, markdown_text, table
from limbeck.runtime.terminal import console, harmless, harmless_streams

HOSTILE = "a\x1b[2J\x1b]0;mine\x07b\rc\x9b31md\u202ee\x7f"
SHOWN = "a\\u001b[2J\\u001b]0;mine\\u0007b\\u000dc\\u009b31md\\u202ee\\u007f"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_harmless_stays_as_it_is() -> None:
    for text in ("", "a\tb\nc", "naïve ± 猫 😀 👩‍🚀 עברית"):
        assert harmless(text) == text
    assert harmless(HOSTILE) == SHOWN


def test_json_stays_the_same_value() -> None:
    text = json.dumps({"name": HOSTILE, "more": "\u2028"}, ensure_ascii=False)
    assert "\x9b" in text and "\x9b" not in harmless(text)
    assert json.loads(harmless(text)) == json.loads(text)


def test_all_that_is_printed_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    out, error = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    with harmless_streams():
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
        sys.stdout.writelines([HOSTILE])
        assert sys.stdout.isatty()
    assert sys.stdout is out
    assert out.getvalue() == f"{SHOWN}\n{SHOWN}" and error.getvalue() == f"{SHOWN}\n"


def test_rich_has_its_colours_and_nothing_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    out: Any = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setenv("TERM", "xterm-256color")
    with harmless_streams():
        progress = RichProgress()
        with progress.stage(f"distil {HOSTILE}", 2) as stage:
            stage.advance(1, loss=HOSTILE)
            progress.say(HOSTILE)
        console(stderr=True).print(Grid(("x",), ((HOSTILE,),)))
    text = out.getvalue()
    assert "\x1b[" in text, "bars move about"
    assert "\x1b[2J" not in text and "\x1b]" not in text and "\x9b" not in text and "\u202e" not in text
    assert "\\u001b[2J" in text.replace("\n", "")


def test_results_that_are_printed_in_python_are_harmless() -> None:
    page = str(Page((HOSTILE, Grid(("x",), ((HOSTILE,),)))))
    assert "\x1b" not in page and page.count("\\u001b[2J") == 2


def test_only_pictures_of_ours_are_html() -> None:
    found = table([("<img src=x onerror=alert(1)>", Html("<img src='y'>"))])
    assert found == "<table><tr><td>&lt;img src=x onerror=alert(1)&gt;</td><td><img src='y'></td></tr></table>"


def test_markdown_says_what_is_written() -> None:
    assert markdown_text("<b>*a*_b_`c`|[x](y)\n# z ~~w~~ $1$ !x") == (
        r"&lt;b&gt;\*a\*\_b\_\`c\`\|\[x\](y) \# z \~\~w\~\~ \$1\$ \!x"
    )
