"""Pages of several runs, sets, comparisons, benchmarks and complexities hold the values that were measured."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distilled.samples import sample_set
from report.fake_run import make_run
from report.page import Page
from report.tables import cells, table
from report.test_of_complexity import measured

from limbeck.distilled.small_set import SmallSet
from limbeck.parametrisations.multi_formation import MultiFormation
from limbeck.parametrisations.parametrisation import Code, Decoder
from limbeck.report import of_runs
from limbeck.report.collection import Verdict, page_of
from limbeck.report.of_complexity import complexities
from limbeck.report.of_grids import comp_dd, comparison
from limbeck.report.of_runs import names, runs
from limbeck.runs.folder import RESULTS, SETTINGS
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.studies.recovery import Recovery
from limbeck.studies.table import Table

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results"
CIFAR, SCENES = MEASURED / "compare-cifar10-ipc1", MEASURED / "comp-dd-scenes"
SIGNATURE = {"limbeck", "checksum"}


def changed(run: Path, results: Mapping[str, Any] | None = None, **settings: Any) -> Path:
    """The run with other results and settings."""
    for name, kind, keys in (("results.json", RESULTS, results or {}), ("settings.json", SETTINGS, settings)):
        write_json(run / name, {**read_json(run / name), **keys}, kind)
    return run


def accuracy(mean: float, **more: Any) -> dict[str, Any]:
    return {"accuracy": {"distilled": {"mean": mean, "std": 0.0, "ci95": None, "n": 1, "values": [mean]}}, **more}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    a, b = (make_run(folder / name, iterations=40, every=20, shape=(3, 8, 8)) for name in ("a", "b"))
    changed(b, accuracy(0.5, networks={"MLP": accuracy(0.25)}), method="mtt", seed=3)
    return a, b


def predicted(run: Path, shares: list[float]) -> None:
    """Let a run's results say how many of the test images of each class were told."""
    one = {"std": 0.0, "ci95": None, "n": 1}
    per_class = [{"mean": share, "values": [share], **one} for share in shares]
    keys = ("top5", "negative_log_likelihood", "brier", "calibration_error")
    said = {"per_class": per_class, "confusion": [], **dict.fromkeys(keys, {"mean": 0.0, "values": [0.0], **one})}
    write_json(run / "results.json", {**read_json(run / "results.json", RESULTS), "predictions": said}, RESULTS)


def test_runs_have_their_figures(two: tuple[Path, Path]) -> None:
    held = table(runs(two), "runs")
    assert [one.text for one in cells(held, "Run")] == ["a", "b"] and [one.text for one in cells(held, "Method")] == ["edf", "mtt"]
    first, second = cells(held, "Accuracy, %")
    assert (first.number, first.text) == (pytest.approx(37.25), "37.2 ± 1.0") and (second.number, second.ends) == (50.0, None)
    assert [one.number for one in cells(held, "Seed")] == [0, 3]
    assert cells(held, "Full data, %")[0].number == pytest.approx(88.15) and cells(held, "Full data, %")[1].missing
    assert [one.number for one in cells(held, "Time, s")] == pytest.approx([95.25 + 0.412 + 40.5 + 7325 + 61] * 2)
    assert "Memory, MiB" not in [column.title for column in held.columns], "none of them says"
    assert held.rows[1].facts["method"] == "mtt" and held.rows[1].facts["seed"] == "3"


def test_other_networks_and_classes_have_tables_of_their_own(two: tuple[Path, Path]) -> None:
    a, b = two
    shown = runs([a, b])
    assert [one.number for one in cells(table(shown, "networks"), "Accuracy, %")] == [25.0]
    assert [one.name for one in shown.tables] == ["runs", "networks"]
    held = read_json(b / "results.json")
    predicted(b, [0.1, 0.2, 0.3])
    found = table(runs([a, b]), "classes")
    assert [one.number for one in cells(found, "Accuracy, %")] == pytest.approx([10, 20, 30])
    write_json(b / "results.json", held, RESULTS)


def test_curves_images_and_settings_of_all_stand_together(two: tuple[Path, Path]) -> None:
    shown = runs(two)
    assert [(one.name, [line.name for line in one.curves]) for one in shown.charts] == [
        ("accuracy", ["a", "b"]),
        ("loss", ["a", "b"]),
        ("step-size", ["a", "b"]),
    ]
    assert shown.charts[0].legend == (("edf", 0, 0), ("mtt", 1, 0))
    assert shown.sets is not None and [one.name for one in shown.sets.shelves] == ["a", "b"]
    assert shown.settings.same and [(one.fact, one.values) for one in shown.filters] == [
        ("method", ("edf", "mtt")),
        ("seed", ("0", "3")),
    ]


def test_a_set_alone_says_what_its_metadata_say(tmp_path: Path) -> None:
    metadata = {"method": "dm", "settings": {"seed": 4, "data": {"source": "photos/cats"}}, "evaluation": accuracy(0.75)}
    later = {"evaluations": [accuracy(0.1), accuracy(0.5)]}
    paths = [sample_set(metadata=metadata).save(tmp_path / "x"), sample_set(ipc=1, metadata=later).save(tmp_path / "y")]
    shown = runs(paths)
    held = table(shown, "runs")
    assert [one.text for one in cells(held, "Method")] == ["dm", "–"]
    assert [one.number for one in cells(held, "Accuracy, %")] == [75.0, 50.0]
    assert [one.number for one in cells(held, "Images per class")] == [2, 1]
    assert shown.title == "DM · cats" and shown.facts == ("2 distilled sets",) and shown.charts == ()
    code = Code(Decoder(MultiFormation(2), (3, 8, 8)), torch.rand(3, 3, 8, 8))
    small = SmallSet.of_classes(code.images(), torch.arange(3).repeat_interleave(4), 3, 0.01)
    coded = replace(sample_set(shape=(3, 8, 8)), set=replace(small, code=code)).save(tmp_path / "z")
    assert of_runs.entry(Path(coded), "z").facts == {"ipc": "1"}  # slots, as ipc counts them


def test_runs_that_were_measured_otherwise_are_not_compared(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = (Path(shutil.copytree(run, tmp_path / run.name)) for run in two)
    for run, mark in ((a, "one"), (b, "two")):
        changed(run, {"data": {"source": "s", "fingerprint": mark, "split": "test"}, "network": "ConvNetD3"}, seed=0)
    shown = runs([a, b])
    assert shown.warnings[0].startswith("These were measured on different test images (a; b)") and shown.verdicts == ()
    for run in (a, b):
        changed(run, {"data": {"fingerprint": "one"}})
    shown = runs([a, b])
    assert not any("measured on" in one for one in shown.warnings)
    assert shown.verdicts == (
        Verdict("mtt − edf: +12.8 points, 1 seed: undecided", "2 images per class, ConvNetD3", {"ipc": "2", "method": "mtt"}),
    )
    changed(b, {"protocol": {"name": "dd", "version": 1, "epochs": 7}})
    assert "by different protocols (a; b)" in runs([a, b]).warnings[0] and runs([a, b]).verdicts == ()


def test_runs_with_other_settings_are_no_repetitions(two: tuple[Path, Path], tmp_path: Path) -> None:
    paths = [Path(shutil.copytree(run, tmp_path / run.name)) for run in two]
    paths.append(Path(shutil.copytree(two[1], tmp_path / "c")))
    for run, keys in zip(paths, ({"seed": 0}, {"seed": 0}, {"seed": 1}), strict=True):
        changed(run, {"data": {"fingerprint": "one"}, "network": "ConvNetD3"}, **keys)
    alike = runs(paths)
    assert [one.text for one in alike.verdicts] == ["mtt − edf: +12.8 points, 1 seed: undecided"] and alike.notes == ()
    held = read_json(paths[2] / "settings.json")
    changed(paths[2], outer={**held["outer"], "lr_img": 7.0})
    shown = runs(paths)
    assert shown.verdicts == () and "no repetitions" in shown.notes[0]
    assert [key for key, _ in shown.settings.rows] == ["outer.lr_img"]


def test_a_run_under_way_and_a_broken_one_say_so(two: tuple[Path, Path], tmp_path: Path) -> None:
    going = make_run(tmp_path / "going", iterations=40, every=20, shape=(3, 8, 8), finished=False)
    broken = make_run(tmp_path / "broken", iterations=40, every=20, shape=(3, 8, 8))
    (broken / "results.json").write_text("{")
    shown = runs([two[0], going, broken])
    assert "broken: results.json could not be read" in shown.warnings
    assert any(one.startswith("going") and "has not ended" in one for one in shown.warnings)
    assert [one.missing for one in cells(table(shown, "runs"), "Accuracy, %")] == [False, True, True]
    assert len(shown.charts[0].curves) == 3


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    assert names([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert names([Path("x/a"), Path("y/a")]) == ["x/a", "y/a"]
    assert names([Path("runs/a/distilled"), Path("runs/b")]) == ["a/distilled", "b"]


def test_a_comparison_is_what_its_file_says() -> None:
    said, shown = Table.read(CIFAR), comparison(CIFAR)
    held, section = table(shown, "methods"), said.sections[0]
    assert shown.title == said.title and len(shown.tables) == 2
    count = len(section.rows)
    assert [one.text for one in cells(held, "Method")][:count] == [row.method for row in section.rows]
    assert [one.number for one in cells(held, "Accuracy, %")][:count] == [100 * row.accuracy.mean for row in section.rows]
    against = cells(held, "Difference to edf, points")
    assert against[0].missing and [one.number for one in against[1:count]] == [100 * one.mean for one in section.differences]
    assert [one.text for one in cells(held, "Verdict")][1:count] == [one.verdict for one in section.differences]
    needed = [one.seeds_needed for one in section.differences]
    assert [one.number for one in cells(held, "Seeds that would decide")][1:count] == needed and None in needed
    assert [one.text for one in cells(held, "Method")][count:] == ["random real images", "full data"]
    assert cells(held, "Seeds")[-1].missing and not cells(held, "Accuracy, %")[-1].drawn, (
        "the full data would leave the methods no room"
    )
    texts = [one.text for one in shown.verdicts]
    assert texts[: count - 1] == list(map(str, section.differences))
    assert texts[count - 1 :] == [f"asked for by name: {one}" for one in section.pairs]


def test_every_cell_of_a_comparison_has_a_row() -> None:
    shown = comparison(CIFAR)
    held = table(shown, "cells")
    files = sorted((CIFAR / "cells").glob("*.json"))
    assert [one.text for one in cells(held, "Cell")] == [path.stem for path in files]
    means = [json.loads(path.read_text())["accuracy"]["distilled"]["mean"] for path in files]
    assert [one.number for one in cells(held, "Accuracy, %")] == pytest.approx([100 * mean for mean in means])
    facts = [json.loads(path.read_text())["facts"] for path in files]
    assert [row.facts for row in held.rows] == [{key: str(value) for key, value in one.items()} for one in facts]
    assert {one.fact: one.values for one in shown.filters}["seed"] == ("0", "1", "2", "3", "4")
    assert ("outer.lr_img", ("5000", "1", "1", "5000", "5000", "5000", "–")) in shown.settings.rows


def test_without_its_file_a_comparison_decides_nothing(tmp_path: Path) -> None:
    shutil.copytree(CIFAR / "cells", tmp_path / "grid" / "cells")
    (tmp_path / "grid" / "cells" / "broken.json").write_text("{")
    shown, whole = comparison(tmp_path / "grid"), comparison(CIFAR)
    assert shown.verdicts == () and "comparison.json is missing" in shown.warnings[1]
    assert shown.warnings[0] == "cells/broken.json could not be read"
    means = dict(
        zip(
            *([one.text for one in cells(table(shown, "methods"), "Method")], cells(table(shown, "methods"), "Accuracy, %")),
            strict=True,
        )
    )
    theirs = zip(cells(table(whole, "methods"), "Method"), cells(table(whole, "methods"), "Accuracy, %"), strict=True)
    assert means["mtt"].number == pytest.approx(next(found.number for name, found in theirs if name.text == "mtt"))


def test_a_broken_comparison_is_one_line(tmp_path: Path) -> None:
    shutil.copytree(CIFAR, tmp_path / "grid")
    (tmp_path / "grid" / "comparison.json").write_text('{"title": 3}')
    with pytest.raises(UsageError, match=r"comparison\.json' is no comparison \(.*\); `limbeck compare` with the same words"):
        comparison(tmp_path / "grid")


def test_runs_that_a_comparison_kept_show_their_images_and_curves(tmp_path: Path) -> None:
    shutil.copytree(CIFAR, tmp_path / "grid")
    make_run(tmp_path / "grid" / "runs" / "mtt-ipc1-seed1", iterations=20, every=10, shape=(3, 8, 8))
    shown = comparison(tmp_path / "grid")
    assert shown.sets is not None and [one.facts for one in shown.sets.shelves][0]["method"] == "mtt", "as the cell has it"
    assert [line.name for line in shown.charts[0].curves] == ["mtt-ipc1-seed1"]


def test_a_benchmark_of_subsets_is_what_its_file_says() -> None:
    said = Recovery.from_dict(read_json(SCENES / "comp-dd.json"))
    shown = comp_dd(SCENES)
    assert [one.text for one in shown.verdicts] == [str(order) for part in said.tables for order in part.verdicts]
    assert {one.heading for one in shown.verdicts} == {"1 image per class", "3 images per class"}
    rows = {(row.facts["subset"], row.facts["ipc"], row.facts.get("method")): row for row in table(shown, "subsets").rows}
    for part in said.tables:
        for method in part.rows:
            for subset, cell in method.cells.items():
                texts = [value.text for value in rows[subset, str(part.ipc), method.method].cells]
                assert texts[4:6] == [cell.accuracy.with_margin, cell.recovery_ratio.with_margin]
    assert [one.fact for one in shown.filters] == ["method", "ipc", "seed", "subset"]
    assert len(table(shown, "cells").rows) == 36 and shown.drawings[0].svg.startswith("<svg")
    assert not any(key == "data.source" for key, _ in shown.settings.rows)


def test_a_benchmark_without_its_file_shows_its_cells(tmp_path: Path) -> None:
    shutil.copytree(SCENES / "cells", tmp_path / "grid" / "cells")
    shown = comp_dd(tmp_path / "grid")
    assert [one.name for one in shown.tables] == ["cells"] and "comp-dd.json is missing" in shown.warnings[0]


def test_no_two_things_on_a_page_have_one_name(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Or a script would take one for the other, as the table of classes for the choice of them."""
    folders = [Path(shutil.copytree(path, tmp_path / path.name)) for path in two]
    for folder in folders:
        predicted(folder, [0.1, 0.2, 0.3])
    collections = [runs(folders), comparison(CIFAR), complexities([measured(tmp_path / "m", "x"), measured(tmp_path / "n", "y")])]
    for text in map(page_of, collections):
        names = re.findall(r'\sid="([^"]*)"', text)
        assert len(names) > 5 and [name for name, count in Counter(names).items() if count > 1] == []


def test_a_page_has_rows_numbers_and_intervals() -> None:
    page = Page(page_of(comparison(CIFAR)))
    assert page.texts("h1") == ["edf, datm, mtt, dm, dc, random on cifar10.npz"]
    assert page.texts("h2")[:4] == ["Show", "What was decided", "Methods", "Distillations"]
    assert "mtt − dm: +5.2 [+3.1, +7.2] points, 3 seeds, p 0.0258 (Holm): better" in " ".join(page.texts("li"))
    numbers = [held for held in page.attributes("td") if held.get("data-low") is not None]
    edf = Table.read(CIFAR).rows[0].accuracy
    assert edf.ci95 is not None
    ends = [(float(held["data-low"] or 0), float(held["data-high"] or 0)) for held in numbers]
    assert (100 * edf.ci95[0], 100 * edf.ci95[1]) in ends
    assert len([held for held in page.attributes("tr") if "data-facts" in held]) == 9 + 25
    assert {held["scope"] for held in page.attributes("th")} == {"row", "col"}
    assert [held["value"] for held in page.attributes("input") if "value" in held][:2] == ["edf", "edf (norm matched)"]


def test_a_page_of_two_hundred_cells_is_small(tmp_path: Path) -> None:
    place = tmp_path / "grid" / "cells"
    place.mkdir(parents=True)
    held = json.loads((CIFAR / "cells" / "mtt-ipc1-seed0.json").read_text())
    for k in range(200):
        facts = {"method": f"m{k % 20}", "ipc": 1 + k // 20 % 2, "seed": k // 40}
        (place / f"c{k:03}.json").write_text(json.dumps({**held, "name": f"c{k:03}", "facts": facts}))
    text = page_of(comparison(tmp_path / "grid"))
    assert len(text) < 1_000_000 and text.count("<tr data-facts") >= 240


def test_accuracies_of_very_many_classes_have_a_row_each(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the mean over all runs, and the run that does worst and best."""
    folders = []
    for path, shares in zip(two, ((0.25, 0.5, None), (0.75, 0.25, 0.5)), strict=True):
        per_class = [None if mean is None else {"mean": mean, "std": 0.0, "ci95": None, "n": 1} for mean in shares]
        held = read_json(path / "results.json", RESULTS)
        made = Path(shutil.copytree(path, tmp_path / path.name))
        write_json(made / "results.json", {**held, "predictions": {"confusion": [], "per_class": per_class}}, RESULTS)
        folders.append(made)
    assert len(table(runs(folders), "classes").rows) == 5
    monkeypatch.setattr(of_runs, "MOST_ROWS", 4)
    shown = table(runs(folders), "classes")
    assert [[cell.text for cell in row.cells] for row in shown.rows] == [
        ["owl", "2", "50.0", "25.0", "a", "75.0", "b"],
        ["mole", "2", "37.5", "25.0", "b", "50.0", "a"],
        ["newt", "1", "50.0", "50.0", "b", "50.0", "b"],
    ]
    assert "over all runs" in shown.caption
    monkeypatch.setattr(of_runs, "MOST_ROWS", 2)
    cut = table(runs(folders), "classes")
    assert len(cut.rows) == 2 and "The first 2 of 3 classes." in cut.caption
