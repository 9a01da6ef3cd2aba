"""`docs/fidelity.md`: every test that it names is there, every row has a figure; and how `benchmarks/fidelity.py` measures."""

import ast
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.deviation import deviation

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
fidelity = importlib.import_module("fidelity")
sys.path.remove(str(ROOT / "benchmarks"))
PAGE = fidelity.PAGE.read_text(encoding="utf-8")
ROWS = [row.groupdict() for row in fidelity.ROW.finditer(PAGE)]


def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"tests/[\w/.-]+\.py::\w+", PAGE))
    assert len(named) > 50
    for name in named:
        file, _, function = name.partition("::")
        assert (ROOT / file).is_file(), file
        assert function in functions(file), name


def test_every_row_of_the_tables_has_a_test_and_a_figure() -> None:
    cells = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [row for row in cells if row[0] != "component"]
    assert len(rows) == len(ROWS)
    for row in rows:
        assert re.fullmatch(r"equal|\de[+-]\d\d", row[3].strip()), row
        assert row[3] == "equal" or float(row[3]) < 1e-3, row


def test_what_is_compared_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    two = torch.tensor([4.0, 0.0], dtype=torch.float64)
    with fidelity.noted() as seen:
        torch.testing.assert_close(two + 1e-9, two, rtol=0, atol=1e-6)
        assert two[0].item() / 2 == pytest.approx(2.0 + 2e-10)
        assert [2 * value for value in (two + 5e-10).tolist()] == pytest.approx([8.0, 0.0], abs=1e-6)
        np.testing.assert_allclose(np.array([1.0]), np.array([1.0]))
        assert torch.allclose(torch.zeros(2), torch.full((2,), 1e-12))
        assert deviation(two * 1.5, two) == 0.5
    expected = [2.5e-10, 1e-10, 1.25e-10, 0.0, 1.0, 0.5]
    assert seen == pytest.approx(expected, rel=1e-5)
    assert len(seen) == 6  # what is compared afterwards is nobody's


def test_a_row_is_filled_with_the_largest_of_its_cases() -> None:
    recorder = fidelity.Recorder()
    recorder.found = {"tests/a.py::test_b[one-2]": [1e-9, 3e-8], "tests/a.py::test_b[two-2]": [0.0], "tests/a.py::test_bb": [1.0]}
    found = [recorder.largest("tests/a.py::test_b", case) for case in (None, "one", "two", "three")]
    assert found == [3e-8, 3e-8, 0.0, None]
    assert [fidelity.shown(value) for value in found] == ["3e-08", "3e-08", "equal", "not run"]
