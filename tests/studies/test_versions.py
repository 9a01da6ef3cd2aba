"""Cells of several versions that stand together are said to be so."""

import json
from pathlib import Path
from typing import Any

import pytest
from studies.fake_cells import cell, results

from limbeck.runtime.version import VERSION
from limbeck.studies.cells import CellFolder, CellRecord
from limbeck.studies.compare import compare_cells
from limbeck.studies.matrix import Running
from limbeck.studies.taken import taken_said
from limbeck.studies.versions import versions_said


def record(limbeck: str | None, torch: str = "2.13.0", instructions: str | None = None) -> CellRecord:
    """One that was measured so."""
    promised = {} if instructions is None else {"determinism": {"instructions": instructions}}
    return CellRecord(environment={"limbeck": limbeck, "torch": torch, **promised})


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], None),
        ([CellRecord(), record(VERSION)], None),  # a file of long ago says nothing
        ([record(VERSION, instructions="AVX2"), record(VERSION)], None),
        ([record("0.1.0"), record("0.2.0"), record("0.2.0")], "limbeck 0.1.0 in 1, 0.2.0 in 2"),
        ([record("0.2.0", "2.11.0"), record("0.2.0")], "torch 2.11.0 in 1, 2.13.0 in 1"),
        ([record("0.2.0", instructions="AVX512"), record("0.2.0", instructions="AVX2")], "instructions AVX2 in 1, AVX512 in 1"),
        ([record("0.1.0", "2.11.0"), record("0.2.0")], "limbeck 0.1.0 in 1, 0.2.0 in 1; torch 2.11.0 in 1, 2.13.0 in 1"),
    ],
)
def test_what_differs_is_counted(records: list[CellRecord], said: str | None) -> None:
    found = versions_said(records)
    assert found == ([] if said is None else [f"cells were not all measured alike, which may be what differs: {said}"])


def test_cells_of_this_version_are_taken_without_a_word() -> None:
    assert taken_said({"a": record(VERSION)}, "there") == "1 cells taken from there"
    assert taken_said({}, "there") == "0 cells taken from there"
    others = {"a": record("0.0.1"), "b": record("0.0.1"), "c": CellRecord(), "d": record(VERSION)}
    said = "4 cells taken from there, 1 measured by an unknown version, 2 measured by limbeck 0.0.1"
    assert taken_said(others, "there") == f"{said}: they may differ from what {VERSION} measures"


def test_a_comparison_of_two_versions_says_so(tmp_path: Path) -> None:
    held = CellFolder(tmp_path)
    cells = [cell(name) for name in ("edf", "datm")]
    for one, version in zip(cells, ("0.1.0", VERSION), strict=True):
        more: dict[str, Any] = {"environment": {"limbeck": version}}
        held.write(one, CellRecord.from_dict({**results(), **more}))
    table = compare_cells(cells, tmp_path, running=Running(max_seconds=0))
    (note,) = [note for note in table.notes if "not all measured alike" in note]
    assert note.endswith(f"limbeck 0.1.0 in 1, {VERSION} in 1")
    assert note in json.loads((tmp_path / "comparison.json").read_text())["notes"]
    assert note in (tmp_path / "comparison.md").read_text()
