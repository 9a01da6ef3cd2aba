"""Names, notes and figures from anywhere, in the pages that are made of them, as a browser reads these: text and nothing else."""

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from browser.visits import Visits
from distilled.samples import sample_set, summary
from report.fake_run import make_run
from report.kept_files import a_card, a_map
from report.test_of_complexity import measured

from limbeck.accuracy import Accuracy
from limbeck.distilled.card import card
from limbeck.experts.store import TrajectoryStore
from limbeck.figures.confusion import confusion_map
from limbeck.figures.exhibit import Exhibit
from limbeck.report.html import write_report
from limbeck.report.notebook import film
from limbeck.report.write import write_report as write_several
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.tables import Grid, Page
from limbeck.studies.table import COMPARISON

MARK = "document.documentElement.dataset.run='yes'"
# What breaks out of text, of an attribute, of a script, of a style, of a comment and of CDATA.
HOSTILE = (
    f"<script>{MARK}</script>",
    f"<img src=x onerror={MARK}>",
    f'"><svg onload={MARK}>',
    f"' autofocus onfocus={MARK} x='",
    f"</script><script>{MARK}</script>",
    f"</style></svg>--><script>{MARK}</script>",
    f"]]><script>{MARK}</script>",
    f"{{{{ 7 * 7 }}}}<iframe srcdoc='<script>parent.{MARK}</script>'>",
)


LOOK = """() => {
    const all = [...document.querySelectorAll("*")];
    return {
        run: "run" in document.documentElement.dataset,
        tags: [...new Set(all.map(one => one.tagName.toLowerCase()))],
        handlers: all.flatMap(one => one.getAttributeNames()).filter(name => name.startsWith("on")),
        text: document.body.innerText,
    };
}"""


class Seen(NamedTuple):
    """What a browser makes of a page: whether another script has run, elements, handlers, what is to be read, complaints."""

    run: bool
    tags: set[str]
    handlers: list[str]
    text: str
    faults: list[str]


def seen(visits: Visits, page: str, folder: Path) -> Seen:
    """The page as the browser has it once its scripts have run, and those that it may have put off."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    opened = visits.open(folder / "page.html")
    opened.wait_for_timeout(100)
    found = opened.evaluate(LOOK)
    opened.context.close()
    return Seen(found["run"], set(found["tags"]), found["handlers"], found["text"], visits.taken())


def test_the_browser_runs_what_is_not_escaped(visits: Visits, tmp_path: Path) -> None:
    found = seen(visits, f"<!doctype html><p>{HOSTILE[1]}</p>", tmp_path)
    assert found.run and found.handlers == ["onerror"] and "img" in found.tags and found.faults


def hostile_run(folder: Path) -> Path:
    """A run whose files hold such text wherever a word can stand."""
    names = (HOSTILE[0], HOSTILE[1], HOSTILE[4])
    run = make_run(folder / "run", names=names, iterations=20, every=10, shape=(3, 8, 8))
    settings = read_json(run / "settings.json")
    settings["data"]["source"] = f"photos/{HOSTILE[2]}"
    settings |= {"network": HOSTILE[3], "method": HOSTILE[5], HOSTILE[6]: HOSTILE[7], "deep": {HOSTILE[0]: [HOSTILE[1]]}}
    write_json(run / "settings.json", settings)
    state = read_json(run / "state.json")
    write_json(run / "state.json", {**state, "resolved": {HOSTILE[1]: HOSTILE[2]}, "stages": {HOSTILE[3]: 3.0}})
    results = read_json(run / "results.json")
    results["doubts"] = [{"kind": HOSTILE[0], "text": HOSTILE[1], "where": [HOSTILE[2]]}]
    results["networks"] = {HOSTILE[4]: {"accuracy": {"distilled": summary(0.3)}}}
    results["protocol"] = {"name": HOSTILE[5], "version": 1}
    results["network"] = HOSTILE[6]
    results["environment"] = {HOSTILE[7]: HOSTILE[0]}
    results["seconds"] = {HOSTILE[1]: 3.0, "distil": 2.0}
    results["accuracy"]["distilled"] |= {"lr": 0.1, "lr_from": HOSTILE[1]}
    write_json(run / "results.json", results)
    card, held = a_card(names, (3, 2, 1), [0, 1]), a_map(classes=4)
    replace(card, about=replace(card.about, source=HOSTILE[3], fingerprint=HOSTILE[7])).write(run, "")
    replace(held, about=replace(held.about, network=HOSTILE[6])).write(run, "")
    return run


def test_a_report_of_anything_runs_nothing_but_its_own(visits: Visits, tmp_path: Path) -> None:
    page = write_report(hostile_run(tmp_path)).read_text(encoding="utf-8")
    found = seen(visits, page, tmp_path)
    assert not found.run and not found.handlers and not found.faults and "iframe" not in found.tags
    for text in (*HOSTILE[:3], f"{HOSTILE[3]}: 12 images", f"those of {HOSTILE[6]} ("):
        assert " ".join(text.split()) in " ".join(found.text.split()), text


def hostile_grid(folder: Path) -> Path:
    """A comparison whose cells and tables hold such text."""
    for number, text in enumerate(HOSTILE):
        facts = {"method": text, "ipc": 1, "seed": number, "subset": text}
        accuracy = {"distilled": summary(0.1 * number), "random": summary(0.1)}
        cell = {"accuracy": accuracy, "facts": facts, "network": text, "settings": {text: text, "network": text}}
        write_json(folder / "cells" / f"c{number}.json", cell)
    row = {"method": HOSTILE[0], "recipe": HOSTILE[1], "accuracy": summary(0.5)}
    difference = {"n": 3, "mean": 0.1, "a": HOSTILE[0], "b": HOSTILE[1], "verdict": HOSTILE[2]}
    section = {"ipc": 1, "network": HOSTILE[3], "rows": [row], "differences": [difference], "pairs": [difference]}
    table = {"title": HOSTILE[4], "data": HOSTILE[5], "tables": [section], "notes": [HOSTILE[1]]}
    write_json(folder / "comparison.json", {**table, "failed": {HOSTILE[6]: HOSTILE[7]}, "left": [HOSTILE[0]]}, COMPARISON)
    return folder


def hostile_complexity(folder: Path) -> Path:
    """A measurement whose names are such text."""
    made = measured(folder, HOSTILE[0], network=HOSTILE[1])
    held = read_json(made / "complexity.json")
    held["classes"][0]["name"], held["network"]["layers"] = HOSTILE[2], [HOSTILE[4]]
    write_json(made / "complexity.json", held)
    entry = {"index": 0, "name": HOSTILE[5], "complexity": 1.0}
    subset = {"category": HOSTILE[6], "level": HOSTILE[7], "complexity": 1.0, "classes": [entry]}
    write_json(made / "benchmark.json", {"subsets": {HOSTILE[0]: subset}})
    return made


@pytest.mark.parametrize("kind", ["runs", "comparison", "complexity"])
def test_pages_of_several_run_nothing_but_their_own(visits: Visits, tmp_path: Path, kind: str) -> None:
    if kind == "runs":
        held = sample_set(names=(HOSTILE[1], HOSTILE[6], "newt"), metadata={"method": HOSTILE[2]})
        paths = [hostile_run(tmp_path), held.save(tmp_path / "&lt;img src=x onerror=1>")]
    else:
        paths = [hostile_grid(tmp_path / kind) if kind == "comparison" else hostile_complexity(tmp_path / kind)]
    page = write_several(*paths, output=tmp_path / "several.html").read_text(encoding="utf-8")
    found = seen(visits, page, tmp_path)
    assert not found.run and not found.handlers and not found.faults and not found.tags & {"iframe", "img"}
    text = " ".join(found.text.split())
    for words in {"runs": (HOSTILE[1], HOSTILE[2]), "comparison": HOSTILE, "complexity": HOSTILE[:3]}[kind]:
        assert " ".join(words.split()) in text, words


def test_notebooks_show_text(visits: Visits, tmp_path: Path) -> None:
    held = sample_set(names=(HOSTILE[0], HOSTILE[1], "newt"), metadata={"method": HOSTILE[2]})
    shown = Grid((HOSTILE[0],), ((HOSTILE[1],),), title=HOSTILE[2])
    page = Page((HOSTILE[3], shown, HOSTILE[4]))
    drawn = Exhibit("loss", HOSTILE[5], HOSTILE[6], confusion_map([[1.0, 0.0], [0.0, 1.0]], HOSTILE[:2]))
    store = TrajectoryStore(tmp_path / "experts", {"network": HOSTILE[1], "num_parameters": 2})
    parts = (held, page, shown, drawn, store, film(hostile_run(tmp_path), held))
    found = seen(visits, f"<!doctype html><body>{''.join(part._repr_html_() for part in parts)}", tmp_path)
    assert not found.run and not found.handlers and not found.faults and found.text.count(HOSTILE[1]) >= 2


def hostile_card() -> str:
    accuracy = {"mean": 0.5, "std": 0.1, "n": 3, "ci95": [0.4, 0.6], "lr": 0.1, "lr_from": HOSTILE[1]}
    evaluation = {
        "accuracy": {"distilled": accuracy},
        "doubts": [{"kind": "x", "text": HOSTILE[0]}],
        "network": HOSTILE[2],
        "networks": {HOSTILE[3]: {"accuracy": {"full": accuracy}}},
        "protocol": {"name": HOSTILE[4], "version": HOSTILE[5]},
        "environment": {"limbeck": HOSTILE[6]},
    }
    metadata = {
        "method": f"{HOSTILE[0]}\n---\nviewer: true\n---\n",
        "settings": {"network": f"| {HOSTILE[1]} |\n\n# x", "data": {"source": f"a/b`\n---\nlicense: mine\n{HOSTILE[7]}"}},
        "evaluation": evaluation,
        "evaluations": [evaluation],
        "```": f"```\n\n{HOSTILE[0]}\n",
    }
    return card(sample_set(names=(HOSTILE[0], f"1. x\n\n{HOSTILE[1]}", "```\n<b>"), metadata=metadata))


def test_the_head_of_a_card_holds_what_it_should() -> None:
    _, head, body = hostile_card().split("---\n", 2)
    held = yaml.safe_load(head)
    assert set(held) == {"pretty_name", "license", "tags", "task_categories", "size_categories", "viewer"}
    assert held["viewer"] is False and held["license"] == "unknown"
    assert "\n" not in held["pretty_name"]
    assert body.startswith("\n#")


def test_nothing_in_a_card_is_html_but_what_is_ours() -> None:
    _, _, body = hostile_card().split("---\n", 2)
    parts = re.split(r"^```.*$", body, flags=re.MULTILINE)
    assert len(parts) % 2 == 1, "every block of code ends"
    text = re.sub(r"`[^`\n]*`", "", "".join(parts[::2]))
    assert set(re.findall(r"<[^>\n]*>?", text)) == {"<details>", "</details>", "<summary>", "</summary>"}
    assert "<script>" not in text and "![The distilled images, a row for each class](preview.png)" in text


def test_a_card_as_html_runs_nothing(visits: Visits, tmp_path: Path) -> None:
    """Where a page shows Markdown as it is, and HTML within it is obeyed."""
    _, _, body = hostile_card().split("---\n", 2)
    parts = [
        html.escape(part) if number % 2 else part for number, part in enumerate(re.split(r"^```.*$", body, flags=re.MULTILINE))
    ]
    shown = re.sub(r"`([^`\n]*)`", lambda one: html.escape(one[1]), "".join(parts))
    found = seen(visits, f"<!doctype html><body>{shown}", tmp_path)
    assert not found.run and not found.handlers and not found.faults and not found.tags & {"svg", "iframe", "img"}


def test_accuracies_are_numbers_or_nothing() -> None:
    assert not Accuracy.from_dict({"mean": HOSTILE[0]}).known
