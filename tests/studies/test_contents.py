"""Cells of another set to start from, or of other experts, under the same name are never mixed in."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distilled.samples import changed as another
from studies.fake_cells import cell, results
from studies.test_images import write_photos

from limbeck.distilled.initial import content_of, read_start
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.experts.store import TrajectoryStore
from limbeck.runs.decided import resolve
from limbeck.runs.folder import RESULTS, STATE, State
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.progress import NoProgress
from limbeck.studies.cells import CELL, Cell, CellFolder, CellRecord
from limbeck.studies.images import SourceImages
from limbeck.studies.taken import take_over


def settings(**keys: object) -> DistillSettings:
    return DistillSettings.of({"method": "mtt", "network": "MLP-w8", "data.source": "photos.npz", **keys})


def run_of(folder: CellFolder, one: Cell, **noted: str) -> None:
    """What a finished run leaves, with what it noted."""
    run, images = folder.run_folder(one), Workspace(one.settings, NoProgress()).data.fingerprint
    write_json(run / "state.json", State(images, resolve(one.settings), **noted), STATE)
    write_json(run / "results.json", results(data={"fingerprint": images}), RESULTS)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DistilledSet:
    """A set in `start/` that fits `photos.npz`, both in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_photos(0)
    work = Workspace(settings(), NoProgress())
    images = torch.randn((3, *work.data.shape), generator=torch.Generator().manual_seed(0))
    small = SmallSet.of_classes(images, torch.arange(3), 3, 0.02)
    made = DistilledSet(set=small, preprocessing=work.preprocessing, class_names=work.data.class_names)
    made.save(Path("start"))
    return made


def test_a_cell_is_of_the_set_that_it_started_from(start: DistilledSet, tmp_path: Path) -> None:
    grid, one = CellFolder(tmp_path / "grid"), cell("a", settings=settings(init="start"))
    run_of(grid, one, init=content_of(start))
    assert grid.collect(one).start == content_of(start)
    assert grid.read(one) is not None
    assert [*take_over([one], grid.path, tmp_path / "same")] == ["a"]
    shutil.move("start", "there")  # wherever it lies
    moved = cell("a", settings=settings(init="there"))
    assert grid.read(moved) is not None
    assert take_over([moved], grid.path, tmp_path / "moved") == {}  # whose settings are spelt otherwise
    assert (
        CellFolder(grid.path).read(one) is not None and take_over([one], grid.path, tmp_path / "gone") == {}
    )  # nobody can compare
    with pytest.raises(UsageError, match="was measured with init 'start', not 'real'; name another folder"):
        grid.read(cell("a", settings=settings()))

    another(start, images=-start.images).save(Path("start"))
    assert CellFolder(grid.path).read(one, opening=False) is not None
    with pytest.raises(UsageError) as caught:
        CellFolder(grid.path).read(one)
    assert str(caught.value) == (
        f"output: '{grid.result_file(one)}' was measured with what init 'start' held then; "
        "name another folder with --output, or delete the file"
    )
    assert take_over([one], grid.path, tmp_path / "other") == {}


def test_who_did_not_note_the_set_is_read_where_there_is_none(start: DistilledSet, tmp_path: Path) -> None:
    grid = CellFolder(tmp_path / "grid")
    by_name, from_set = cell("a", settings=settings(init="noise")), cell("b", settings=settings(init="start"))
    for one in (by_name, from_set):
        run_of(grid, one)
        grid.collect(one)
        assert "start" not in read_json(grid.result_file(one))
    assert grid.read(by_name) is not None and [*take_over([by_name], grid.path, tmp_path / "new")] == ["a"]
    with pytest.raises(UsageError, match=r"b.json' is of an earlier version, which did not note what init 'start' held; name an"):
        grid.read(from_set)
    assert take_over([from_set], grid.path, tmp_path / "new") == {}


def test_a_set_is_opened_once_for_all_seeds(start: DistilledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = CellFolder(tmp_path / "grid")
    cells = [cell(name, seed=seed, settings=settings(init="start")) for seed, name in enumerate("ab")]
    for one in cells:
        run_of(grid, one, init=content_of(start))
        grid.collect(one)
    opened: list[Any] = []

    def counted(*parts: Any) -> tuple[DistilledSet, list[str]]:
        opened.append(parts[0])
        return read_start(*parts)

    monkeypatch.setattr("limbeck.runs.workspace.read_start", counted)
    assert all(grid.read(one) is not None for one in cells) and opened == ["start"]


def test_a_cell_is_of_the_experts_in_its_store(start: DistilledSet, tmp_path: Path) -> None:
    made = {"num_parameters": 3, "network": "MLP-w8"}
    store = TrajectoryStore(tmp_path / "experts", {**made, "data": "these"})
    grid, one = CellFolder(tmp_path / "grid"), cell("a", settings=settings(**{"experts.store": "experts"}))
    cached = cell("b", settings=settings())
    for each in (one, cached):
        run_of(grid, each, experts=store.content)
        grid.collect(each)
    found = [grid.read(each) for each in (one, cached)]
    assert [record and record.store for record in found] == [store.content, None]
    shutil.copytree("experts", "moved")
    assert grid.read(cell("a", settings=settings(**{"experts.store": "moved"}))) is not None
    shutil.rmtree("experts")
    assert grid.read(one) is not None
    TrajectoryStore(tmp_path / "experts", {**made, "data": "others"})
    with pytest.raises(UsageError, match="a.json' was measured with what experts.store 'experts' held then; name another folder"):
        grid.read(one)
    assert grid.read(one, opening=False) is not None and take_over([one], grid.path, tmp_path / "new") == {}
    old = replace(found[0] or CellRecord(), store=None)  # of an earlier version
    write_json(grid.result_file(one), old, CELL)
    assert grid.read(one) is not None


def test_a_start_that_is_none_has_no_fingerprint(start: DistilledSet) -> None:
    images = SourceImages()
    assert images.start(settings(init="start")) == content_of(start)
    assert images.start(settings(init="noise")) is None and images.start(settings(init="nowhere")) is None
