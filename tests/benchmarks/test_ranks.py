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
