"""What is measured of a cell besides: on which images, under which protocol, by which eye."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from data.pictures import Said
from reproduction.toy import TOY
from studies.fake_cells import cell

from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.protocols import PROTOCOLS, Protocol
from limbeck.evaluation.statistics import summarise
from limbeck.methods import snapshots
from limbeck.methods.snapshots import Snapshots
from limbeck.reproduction import measures
from limbeck.reproduction.items import ITEMS
from limbeck.reproduction.measures import Finished, Measured
from limbeck.reproduction.scales import spots
from limbeck.runs.workspace import Workspace
from limbeck.runtime.progress import NoProgress


@pytest.fixture
def finished(tmp_path: Path) -> Any:
    """A set of three images of each class, drawn at random, as a distillation of toy size would leave it; no snapshots yet."""
    spot = spots(ITEMS["fig5"], replace(TOY, overrides={**TOY.overrides, "eval.batch_size": "7"}), [0])[0]
    workspace = Workspace(spot.cell.settings, NoProgress())
    classes = torch.arange(10).repeat_interleave(3)
    small = SmallSet(torch.randn(30, 3, 16, 16), torch.eye(10)[classes], classes, 0.01, "hard")
    held = SimpleNamespace(set=small, classes=classes, num_classes=10, preprocessing=workspace.preprocessing)
    return SimpleNamespace(cell=spot.cell, run=tmp_path, pictures=tmp_path / "pictures", workspace=workspace, held=held)


def test_the_course_is_that_of_the_images_that_all_snapshots_hold(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that do not change have no course, whichever of them a snapshot was left with."""
    monkeypatch.setattr(snapshots, "LOOKED_AT", 12 * 4 * 3 * 16 * 16)
    images, blank = finished.held.set.images, torch.zeros(30, 1)
    held = {"X": images, "Y": finished.held.set.labels, "syn_lr": torch.tensor(0.01), "maps": blank, "weights": blank}
    for iteration, whole in ((0, True), (1, True), (2, False)):
        Snapshots(finished.run, "").write(iteration, held, {"iteration": iteration}, whole)
    found = measures._course(finished)
    assert found.series["iterations"] == (0.0, 1.0, 2.0) and found.series["bins"] == found.series["bins_start"]
    rows = {name: row for name, row in found.series.items() if name not in ("iterations", "bins", "bins_start")}
    assert {"area", "separation", "roughness"} < rows.keys() and all(len(set(row)) == 1 for row in rows.values())
    grown = {name: value for name, value in found.values.items() if name.endswith("_growth") or name == "moved"}
    assert len(grown) > 4 and set(grown.values()) == {0.0}


def test_knowledge_is_distilled_as_its_own_protocol_says(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long and in which batches the cell's networks are trained under another one is nothing to it."""
    asked: list[Protocol] = []
    monkeypatch.setattr(Evaluator, "logits", lambda self, *_: asked.append(self.protocol))
    monkeypatch.setattr(Evaluator, "accuracies", lambda *_: summarise([0.5, 0.6]))
    assert (finished.cell.settings.eval.epochs, finished.cell.settings.eval.batch_size) == (1, 7)
    assert measures._kd(finished).values == {"accuracy": pytest.approx(0.55)}
    (own,) = asked
    assert (own.name, own.epochs, own.batch_size) == ("kd-rded", PROTOCOLS["kd-rded"].epochs, PROTOCOLS["kd-rded"].batch_size)


def test_what_another_eye_saw_is_seen_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(finished: Finished) -> Measured:
        return Measured(cell=finished.cell.name, measure="seen", values={"complexity": 0.5}, eye=finished.eye)

    monkeypatch.setitem(measures.MEASURES, "seen", seen)
    one, wanted, said = cell("a"), {"a": frozenset(("seen",))}, Said()
    by = {eye: measures.Measurements(tmp_path, wanted, eye=eye, progress=said) for eye in ("ResNet18", "VGG11")}
    by["ResNet18"].take(one, tmp_path)
    assert by["ResNet18"].of("a")["seen"].eye == "ResNet18" and not said.lines
    assert by["VGG11"].missing(one) == ["seen"] and by["VGG11"].of("a") == {}
    (line,) = said.lines
    assert line.endswith("a.seen.json' is what 'ResNet18' saw, not 'VGG11'; it is measured again where it is asked for")
    by["VGG11"].take(one, tmp_path)
    assert not by["VGG11"].missing(one) and by["ResNet18"].missing(one) == ["seen"]
