"""What is to be known of an item beside its verdicts: denominators that are none, networks that diverged, what is not measured."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reproduction.toy import TOY
from studies.fake_cells import accuracy, command, results, starts

import limbeck
from limbeck.cli.main import main
from limbeck.evaluation.scores import FULL_DATA
from limbeck.evaluation.statistics import summarise
from limbeck.reproduction import measures, scales, times
from limbeck.reproduction.measures import Finished, Measured
from limbeck.reproduction.results import Reproduction
from limbeck.studies import matrix
from limbeck.studies.cells import Cell

Leaving = Callable[[Callable[[Cell], Mapping[str, Any]]], Path]
CHANCE = {"kind": "chance", "text": f"{FULL_DATA}are no better than chance (10.0 %)"}
RECOVERY = {"kind": "recovery", "text": f"{FULL_DATA}lose to the set (10.0 % against 60.0 %)"}


@pytest.fixture
def leaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leaving:
    """Cells end at once with such results; what was started is noted there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(scales.SCALES, "cpu", lambda: TOY)
    monkeypatch.setattr(matrix, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(measures, "MEASURES", dict.fromkeys(measures.MEASURES, grown))

    def leave(result: Callable[[Cell], Mapping[str, Any]]) -> Path:
        words = command(tmp_path / "started.jsonl", result=result)
        body = "(run / 'settings.json').write_text('{}')"  # by which a run folder is known for one
        monkeypatch.setattr(matrix, "distill_command", lambda cell, run: [*(found := words(cell, run))[:-2], body, found[-1]])
        return tmp_path / "started.jsonl"

    return leave


def grown(finished: Finished) -> Measured:
    """Areas that grow under EDF alone."""
    area = 0.1 + 0.01 * finished.cell.settings.seed if finished.cell.settings.method == "edf" else 0.0
    return Measured(cell=finished.cell.name, measure="course", values={"area_growth": area, "area": area})


def figures(cell: Cell, full: float, **of_set: Any) -> dict[str, Any]:
    """EDF above DATM, easy images above hard ones."""
    s = cell.settings
    mean, step = {"edf": (0.6, 0.02), "datm": (0.5, 0.015), "ftd": (0.4, 0.012), "random": (0.2, 0.01)}[s.method]
    mean += step * s.seed
    mean -= (0.1 + 0.003 * s.seed) * (cell.facts["subset"] == "scenes-hard")
    return {"distilled": {**accuracy(mean), **of_set}, "full": accuracy(full)}


def test_a_ratio_to_full_data_at_chance_decides_nothing(leaving: Leaving, capsys: pytest.CaptureFixture[str]) -> None:
    leaving(lambda cell: results(accuracy=figures(cell, 0.1), doubts=[CHANCE, RECOVERY]))
    assert main(["reproduce", "fig4", "--output", "out", "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)["items"]
    assert [one["kind"] for one in item["doubts"]] == ["chance", "recovery"] and len(item["doubts"][0]["where"]) == 18
    found = Reproduction.read(Path("out"))
    assert all(one.effects and one.verdict == "undecided" and one.p is None for one in found["fig4"].findings)
    said = "undecided: no measure: networks of the full data are no better than chance (10.0 %)"
    assert [one.judgement for one in found["fig4"].findings] == [said] * 4
    assert len(found.doubts[0].where) == 18
    warning = "no measure: networks of the full data are no better than chance (10.0 %), lose to the set (10.0 % against 60.0 %)"
    assert f"- warning: {warning}" in Path("out/fig4.md").read_text()
    assert f"warning: {warning}" in " ".join(map(str, found.lines()))
    assert warning in limbeck.write_report("out").read_text()


def test_doubts_about_the_full_data_leave_claims_on_accuracies_as_they_are(leaving: Leaving) -> None:
    leaving(lambda cell: results(accuracy=figures(cell, 0.55), doubts=[RECOVERY]))
    found = limbeck.reproduce("table3", "fig4", output="out")
    assert {one.verdict for one in found["table3"].verdicts} == {"confirmed"} and found["table3"].doubts
    assert {one.judgement for one in found["fig4"].verdicts} == {"confirmed"}  # a weak denominator is the same on either side
    assert len(found.doubts) == 1 and len(found.doubts[0].where) == len(set(found.doubts[0].where)) == 30


def test_networks_that_diverged_are_told_below_the_table(leaving: Leaving) -> None:
    def diverged(cell: Cell) -> dict[str, Any]:
        some = {"n": 5, "failed": cell.settings.seed} if cell.settings.method == "datm" else {"n": 5}
        found = figures(cell, 0.8, **some)
        hard = cell.facts["subset"] == "scenes-hard"
        return results(accuracy={**found, "full": {**found["full"], "n": 3, **({"failed": 1} if hard else {})}})

    leaving(diverged)
    found = limbeck.reproduce("fig4", output="out")
    lost = "which diverged and count as 0 %"
    said = (
        f"datm, scenes-easy, ipc 1: training failed of 3 of 15 networks, {lost}",
        f"datm, scenes-hard, ipc 1: training failed of 3 of 15 networks, {lost}",
        f"full data, scenes-hard: training failed of 1 of 3 networks, {lost}",
    )
    assert found["fig4"].failures == Reproduction.read(Path("out"))["fig4"].failures == said
    text, page = Path("out/fig4.md").read_text(), limbeck.write_report("out").read_text()
    shown = [line for line in found.lines() if isinstance(line, str)]
    for one in said:
        assert f"- warning: {one}" in text and f"warning: {one}" in shown and one in page


def test_networks_that_diverged_beside_the_accuracy_are_told_too(leaving: Leaving, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"VGG11": replace(summarise([0.0, 0.5, 0.4]), failed=1), "AlexNet": summarise([0.3, 0.5, 0.4])}
    one = Measured.of_accuracies("a", "networks", found)
    assert one.values == {"VGG11": pytest.approx(0.3), "AlexNet": pytest.approx(0.4)}
    assert one.failed == {"VGG11": (1, 3), "AlexNet": (0, 3)}
    assert Measured.from_dict(one.to_dict()) == one and "failed" not in replace(one, failed={}).to_dict()
    whole = Measured.of_accuracies("b", "networks", {"VGG11": summarise([0.5, 0.5, 0.4])})
    of = lambda finished: replace(whole if finished.cell.settings.seed else one, cell=finished.cell.name)  # noqa: E731
    monkeypatch.setitem(measures.MEASURES, "networks", of)
    leaving(lambda cell: results(accuracy=figures(cell, 0.8)))
    (said, *_) = limbeck.reproduce("table9", output="out", seeds=[0, 1])["table9"].failures
    lost = "training failed of 1 of 6 networks, which diverged and count as 0 %"
    assert said == f"random, scenes-medium, ipc 2, VGG11, accuracy: {lost}"


def test_a_finished_cell_without_its_measurement_is_left(
    leaving: Leaving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = times.Kind(iterations=10.0, rest=1.0, evaluation=2.0, experts=5.0)
    monkeypatch.setattr(times, "_planned", lambda *_: kind)
    started = leaving(lambda cell: results(accuracy=figures(cell, 0.8)))
    first = limbeck.reproduce("fig5", output="out")
    assert {one.verdict for one in first["fig5"].verdicts} == {"confirmed"}
    assert limbeck.reproduce("fig5", output="out", max_seconds=0).left == ()
    shutil.rmtree("out/measured")
    assert main(["reproduce", "fig5", "--output", "out", "--list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["items"]
    assert (listed["cells"], listed["finished"]) == (9, 0)
    assert listed["seconds"] == 9 * 7.0 + 3 * 5.0  # what the cells took before without their experts, and those of three seeds
    assert listed["least_effect"] == pytest.approx(3.58, abs=0.01)
    look = limbeck.reproduce("fig5", output="out", max_seconds=0)
    assert len(look.left) == look["fig5"].left == 9 and all(line.seeds for line in look["fig5"].lines)
    assert {one.judgement for one in look.findings} == {"undecided: not measured yet"}
    assert len(starts(started)) == 9
    again = limbeck.reproduce("fig5", output="out")
    assert not again.left and again["fig5"].left == 0 and len(starts(started)) == 18
