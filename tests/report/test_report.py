"""The report holds the run's values and needs nothing else."""

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distilled.samples import summary
from report.fake_run import KEPT, make_run
from report.page import NAMES, Page, data_of, figures_of, page, pixels_of, unpack

from limbeck.distilled.set import DistilledSet
from limbeck.report import numbers
from limbeck.report.contents import read_run
from limbeck.report.html import write_report
from limbeck.report.setup import text
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.tables import duration


def test_accuracies_are_in_the_table(report: Page) -> None:
    cells = [*report.texts("th", scope="row")[:4], *report.texts("td")[1:21]]  # after the head of the bars
    assert cells[:4] == ["Distilled images", "Initial images", "Random real images, as many", "Full training data"]
    rows = [cells[4 + 4 * k : 8 + 4 * k] for k in range(4)]
    assert rows == [
        ["", "37.2 ± 0.8 %", "36.2 … 38.3 %", "5"],
        ["", "14.2 ± 1.2 %", "12.7 … 15.7 %", "5"],
        ["", "13.1 ± 1.5 %", "11.2 … 15.0 %", "5"],
        ["", "88.1 ± 0.3 %", "87.8 … 88.5 %", "2"],
    ]
    assert report.texts("p", class_="number") == ["37.2 %", "2.84 ×", "42.3 %"]


def test_what_else_is_told(report: Page) -> None:
    assert report.texts("h1") == ["EDF · scenes"]
    pairs = dict(zip(report.texts("dt"), report.texts("dd"), strict=True))
    assert pairs["Experts"] == "3" and pairs["Validation accuracy, last epoch"] == "87.8 % (87.1 % to 88.4 %)"
    assert pairs["torch"] == "2.13.0+cpu" and pairs["compiled"] == "true" and pairs["device"] == "x86_64"
    assert pairs["fingerprint of experts"] == "fedcba9876543210"
    everything = " ".join(report.texts("main"))
    for words in ("1 min 35 s", "2 h 02 min", "8 of 400 iterations (2.0 %) were skipped", "The best is that after 300 iterations"):
        assert words in everything
    assert not report.texts("p", class_="notice")[1:]  # only the one inside <noscript>


def test_all_settings_are_in_the_tree_and_changed_ones_marked(report: Page, finished: Path) -> None:
    settings = read_json(finished / "settings.json")
    leaves = [(key, value) for branch in settings.values() if isinstance(branch, dict) for key, value in branch.items()]
    leaves += [(key, value) for key, value in settings.items() if not isinstance(value, dict)]
    shown = Counter(zip(report.texts("span", class_="key"), report.texts("span", class_="text"), strict=True))
    assert shown == Counter((key, text(value)) for key, value in leaves)
    assert report.texts("li", class_="changed") == ["network ConvNetD3-w32", "ipc 2", "drop_ratio 0.25", "iterations 400"]


def test_needs_nothing_from_elsewhere(report: Page, finished: Path) -> None:
    for tag, held, inside in report.elements:
        if held == {"rel": "icon", "href": "data:,"}:
            continue  # without which a browser asks whoever serves the page for an icon
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = held.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#"))
        if tag == "style":
            assert "url(" not in "".join(inside) and "@import" not in "".join(inside)
    content = (finished / "report.html").read_text(encoding="utf-8")
    assert "http://" not in content and "https://" not in content


def test_ids_are_unique_and_references_lead_somewhere(report: Page, finished: Path) -> None:
    ids = Counter(held["id"] for _, held, _ in report.elements if "id" in held)
    assert set(ids.values()) == {1}
    used = {held["href"] for tag, held, _ in report.elements if "href" in held and tag != "link"}
    used |= {held["clip-path"][4:-1] for _, held, _ in report.elements if "clip-path" in held}
    used |= {f"#{held[name]}" for _, held, _ in report.elements for name in ("aria-labelledby", "data-csv-of") if name in held}
    assert used and used <= {f"#{name}" for name in ids}


def test_names_in_any_script_stay_text(report: Page) -> None:
    captions = report.texts("figcaption", dir="auto")
    assert captions == [*NAMES, *NAMES]  # of the set, of the snapshots
    scripts = [(held.get("type"), held.get("src")) for held in report.attributes("script")]
    assert [source for _, source in scripts] == [None] * len(scripts)
    # Of the images, the tensors, the snapshots and the pictures of each of five, two tables.
    assert Counter(kind for kind, _ in scripts)["application/json"] == 10
    assert not [name for _, held, _ in report.elements for name in held if name.startswith("on")]
    assert report.attributes("img")[2]["alt"] == "<script>alert('x')</script>, image 1"


def test_images_are_those_of_the_set(report: Page, finished: Path) -> None:
    held = DistilledSet.load(finished / "distilled")
    sources = [attributes["src"] for attributes in report.attributes("img")]
    shown = np.stack([np.asarray(unpack(str(source))) for source in sources])
    assert np.array_equal(shown, pixels_of(finished, {"X": held.images}))
    top = held.labels[0].softmax(0).max().item()
    assert f"{100 * top:.1f} %" in str(report.attributes("img")[0]["title"])


def test_all_figures_are_there(report: Page) -> None:
    titles = ["Validation accuracy", "Matching loss", "Learned step size η", "Gradient norms"]
    titles += [
        "What dropout and enhancement change",
        "Parameters kept",
        "What is left out, over the iterations",
        "Discriminative area over the iterations",
    ]
    assert report.texts("h3", class_="title") == titles
    assert [held["aria-label"] for held in figures_of(report)] == titles
    drawn = set(report.texts("text"))
    assert {"skipped (8)", "37.9 %", *KEPT} <= drawn


def test_same_folder_same_bytes(report: Page, finished: Path) -> None:
    first = (finished / "report.html").read_bytes()
    assert write_report(finished).read_bytes() == first


@pytest.mark.usefixtures("no_figures")
def test_what_is_no_measure_and_how_step_sizes_were_come_by_is_shown(tmp_path: Path, finished: Path) -> None:
    run, one = shutil.copytree(finished, tmp_path / "run"), summary(0.5)
    sides = {"distilled": {**one, "lr": 0.02, "lr_from": "own"}, "random": {**one, "lr": 0.1, "lr_from": "validation"}}
    doubts = [{"kind": "recovery", "text": "no measure: networks of the full data lose to the set"}]
    other = {
        "accuracy": {**sides, "distilled": {**one, "lr": 0.3, "lr_from": "given"}},
        "doubts": [{"kind": "chance", "text": "so bad"}],
    }
    write_json(run / "results.json", {"accuracy": sides, "doubts": doubts, "networks": {"MLP": other}})
    content = page(run)
    assert content.texts("p", class_="notice")[0].startswith(doubts[0]["text"] + "; eval.full_epochs, ")
    shown = " ".join(content.texts("dd") + content.texts("td"))
    assert "distilled 0.02 (its own), random 0.1 (the best on validation images)" in shown
    assert "distilled 0.3 (given), random 0.1 (the best on validation images); so bad" in shown


@pytest.mark.usefixtures("no_figures")
def test_the_same_images_with_two_accuracies_are_explained(tmp_path: Path) -> None:
    """Where the initial images are the result, and networks take another step size on them as such."""
    run = make_run(tmp_path / "run", iterations=20, every=10)
    held = read_json(run / "results.json")
    held["accuracy"]["distilled"] |= {"lr": 0.05, "lr_from": "own"}
    held["accuracy"]["initial"] |= {"lr": 0.2, "lr_from": "validation", "lr_tried": [0.05, 0.2]}
    write_json(run / "results.json", held | {"best_iteration": 0})
    content = page(run)
    (notice,) = [one for one in content.texts("p", class_="notice") if "initial images" in one]
    assert notice.endswith(
        "they have two test accuracies by two step sizes: 0.05, its own, as the distilled ones and 0.2, the best of 2 on "
        "validation images, as the initial ones."
    )
    said = "step sizes of their own on each: distilled 0.05 (its own), initial 0.2 (the best of 2 on validation images)."
    assert said in " ".join(content.texts("p", class_="caption"))
    held["accuracy"]["initial"]["lr"] = 0.05
    write_json(run / "results.json", held | {"best_iteration": 0})
    (notice,) = [one for one in page(run).texts("p", class_="notice") if "initial images" in one]
    assert notice.endswith("than the initial images, which are the result.")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4123, "0.41 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7625, "2 h 07 min"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_settings_are_written_as_in_a_recipe() -> None:
    values = [None, True, 1, 1.0, 1e-5, 0.1, "mean", [32, 64], {"a": [None]}]
    assert [text(value) for value in values] == ["null", "true", "1", "1", "1e-05", "0.1", "mean", "[32, 64]", "a: [null]"]


def test_numbers_behind_the_curves_are_in_the_page(report: Page, finished: Path) -> None:
    rows = [row for row in read_metrics(finished / "metrics.jsonl") if row["kind"] == "iteration"]
    titles, *lines = data_of(report, "iterations")
    assert titles == ["iteration", "loss", "grad_norm_images", "grad_norm_labels", "grad_lr", "syn_lr", "skipped"]
    assert [line[0] for line in lines] == list(range(400)) and lines[57][1] is None and lines[7][6] == 1
    assert lines[100][1:6] == pytest.approx([rows[100][name] for name in titles[1:6]], rel=1e-5)
    titles, *lines = data_of(report, "evaluations")
    assert titles == ["iteration", "accuracy", "std", "n"] and [line[0] for line in lines] == [0, 100, 200, 300, 400]
    assert lines[3] == pytest.approx([300, 0.14 + 0.24 * math.sin(1.5), 0.012, 5], rel=1e-5)


def test_of_many_iterations_some_are_told_evenly(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "MOST_LINES", 150)
    found = numbers.numbers(read_run(finished))
    assert found.step == 3 and [line[0] for line in found.iterations[1:]] == list(range(0, 400, 3))
    assert numbers.numbers(replace(read_run(finished), metrics={})) == numbers.Numbers((), (), 1)


@pytest.mark.usefixtures("no_figures")
def test_what_speaks_against_a_run_stands_at_its_top(tmp_path: Path, finished: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    held = {
        **read_json(run / "results.json"),
        "best_iteration": 0,
        "skipped_share": 0.25,
        "skipped": {"the loss was not finite": 100},
    }
    write_json(run / "results.json", held)
    notes = page(run).texts("p", class_="notice")
    assert notes[0].startswith("25.0 % of the iterations changed nothing: ") and "the loss was not finite" in notes[0]
    assert notes[1] == "No iteration was better on the validation images than the initial images, which are the result."
    (run / "results.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "return", "iteration": 40, "to": 20, "step": 0.25, "why": "X grew by iteration 40"}) + "\n")
    assert page(run).texts("p", class_="notice")[1] == "At iteration 40 the loop went back: X grew by iteration 40."
