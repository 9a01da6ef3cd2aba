"""`benchmarks/ranks.py` at toy size: what it compares is the same, and as many bytes are sent as it computes."""

import importlib
from pathlib import Path

import pytest

FOLDER = str(Path(__file__).parents[2] / "benchmarks")


def test_two_ranks_send_the_bytes_that_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)  # as long as processes are started that look for it there
    ranks = importlib.import_module("ranks")
    found = ranks.measure(ranks.Work("ConvNetD2-w4", 8, 2, 15, 3, "no"), pairs=1, ranks=2)
    sent = found["bytes"]["sent"]
    assert sent == found["bytes"]["computed"] and found["bytes"]["equal"] and sent[0] > sent[1] > 0
    assert found["error"] < 1e-5 and len(found["pairs"]) == 1 and found["processor"]


def test_figures_are_written_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    ranks, written = importlib.import_module("ranks"), list[Path]()
    found = {"seconds": {"one": 2.0, "ranks": 1.0}, "bytes": {"sent": [1], "computed": [1]}, "ratio": 2.0, "error": 0.0}
    monkeypatch.setattr(ranks, "measure", lambda work, pairs, ranks: found)
    monkeypatch.setattr(ranks, "write_json", lambda path, held: written.append(path))
    for words in ([], ["--output", str(tmp_path / "ranks.json")]):
        monkeypatch.setattr("sys.argv", ["ranks.py", "--network", "ConvNetD3-w32", *words])
        ranks.main()
    assert written == [tmp_path / "ranks.json"]
