"""Files that earlier versions wrote are read, and their runs go on: see `write_files.py`."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from reliability.write_files import EDF, SETTINGS, SRE2L, words

from limbeck.cli.main import main
from limbeck.data import image_cache
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.distilled.set import DistilledSet
from limbeck.experts.maintain import verify
from limbeck.experts.store import TrajectoryStore
from limbeck.methods.state import OuterState
from limbeck.recipes import load_recipe
from limbeck.report.html import write_report
from limbeck.runs.distill import distill
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json
from limbeck.runtime.kept import Kept
from limbeck.runtime.progress import NoProgress
from limbeck.studies.table import Table

WRITTEN = Path(__file__).parent / "written"
VERSIONS = sorted(path.name for path in WRITTEN.iterdir())


@pytest.fixture(params=VERSIONS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a version has written, where it works."""
    shutil.copytree(WRITTEN / request.param, tmp_path / "files")
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "files" / "cache"))
    monkeypatch.chdir(tmp_path / "files")
    return tmp_path / "files"


def test_a_stopped_run_goes_on(place: Path) -> None:
    settings = load_recipe("scenes", {**SETTINGS, **EDF})
    before = OuterState.load(place / "stopped" / "checkpoint.safetensors", torch.device("cpu"))
    assert 0 < before.iteration < settings.outer.iterations
    found = distill(settings, Path("stopped"), resume=True)
    assert found.accuracy.distilled.known and found.distilled.images.shape == before.images.shape
    rows = [json.loads(line) for line in (place / "stopped" / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows if row["kind"] == "iteration"] == list(range(settings.outer.iterations))
    # What it ends with is what a run from nothing ends with, up to how this machine rounds.
    whole = distill(settings, Path("whole"))
    torch.testing.assert_close(found.distilled.images, whole.distilled.images, rtol=1e-3, atol=1e-3)


def test_a_stopped_recovery_is_left_as_it_is(place: Path) -> None:
    """Versions before 0.2.0 shifted images to both sides: half of the iterations so and half otherwise would be neither."""
    before = {path: path.read_bytes() for path in (place / "recovery").rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"^method: 'sre2l' shifted images to both sides when the run in 'recovery' was started; "):
        distill(load_recipe("scenes", {**SETTINGS, **SRE2L}), Path("recovery"), resume=True)
    assert {path: path.read_bytes() for path in before} == before


def test_a_finished_run_is_read(place: Path) -> None:
    settings = load_recipe("scenes", {**SETTINGS, **EDF, "outer.iterations": "2"})
    noted = json.loads((place / "finished" / "results.json").read_text())["accuracy"]["distilled"]["values"]
    assert list(distill(settings, Path("finished"), resume=True).accuracy.distilled.values) == noted
    assert write_report(Path("finished")).exists()


def test_sets_are_read_and_evaluated(place: Path) -> None:
    held = DistilledSet.load("views/distilled")
    assert held.views is not None
    held.views.verify()
    for epoch in range(held.views.epochs):
        assert sum(len(index) for index, _ in held.views.draws(epoch)) == len(held)
    before = json.loads(Path("views/distilled/metadata.json").read_text())
    assert main(["evaluate", "views/distilled"]) == 0
    after = read_json(Path("views/distilled/metadata.json"))
    assert len(after.pop("evaluations")) == 1 and after == before
    assert DistilledSet.load("views/distilled").views is not None


def test_experts_are_read(place: Path) -> None:
    store = TrajectoryStore(Path("experts"))
    assert verify(store) == []
    assert {expert: store.held(expert) for expert in store.experts} == {0: [0, 1, 2]}
    assert all(bool(store.read(0, epoch).isfinite().all()) for epoch in (0, 1, 2))


def test_kept_networks_are_read(place: Path) -> None:
    files = sorted((place / "cache" / "full").glob("*.safetensors"))
    assert files
    for file in files:
        held = Kept.tensors(file, lambda held: held["logits"].ndim == 3).held()
        assert held is not None and held["theta"].isfinite().all()


def test_decoded_images_are_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie under a name that says where the images are, and when they were changed."""
    (kept,) = [path for path in (place / "cache" / "images").iterdir() if path.is_dir()]
    monkeypatch.setattr(image_cache, "_place", lambda items, settings: kept)
    monkeypatch.setattr(image_cache, "_fill", lambda *given: pytest.fail("decoded again"))
    data = load_data(DataSettings(source="pictures", size=(8, 8)), NoProgress())
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    held = {split.images().numpy()[row].tobytes() for split in (data.train, data.val, data.test) for row in range(len(split))}
    assert held == {one.tobytes() for one in pixels}


def test_cells_are_not_measured_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Table.read("compare")
    monkeypatch.setattr("limbeck.studies.matrix.distill_command", lambda *given: pytest.fail("measured again"))
    given = ["--methods", "dm,random", "--base", "scenes", "--seeds", "0,1", "--output", "compare"]
    assert main(["compare", *given, *words({**SETTINGS, "outer.iterations": "2"})]) == 0
    assert Table.read("compare").sections == before.sections


def test_a_note_is_made_once_for_each_kind(place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.runtime.sealed._said", set())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            DistilledSet.load("finished/distilled")
    said = [record.message for record in caplog.records if "kept no checksum" in record.message]
    assert len(said) == len(set(said)) <= 1
