"""`benchmarks/gpu.py`: its stages at toy size on the CPU, so that they work when a GPU is there."""

import importlib
import json
import sys
import time
from pathlib import Path

import pytest

FOLDER = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, FOLDER)
gpu = importlib.import_module("gpu")
sys.path.remove(FOLDER)


def test_every_stage(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--toy", "--device", "cpu", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    found = {stage.__name__: json.loads((tmp_path / f"{stage.__name__}.json").read_text()) for stage in gpu.STAGES}
    for name, kept in found.items():
        assert kept["error"] is None and kept["rows"] and f"{name}: " in said
    exact = [row for row in found["gradient"]["rows"] if row["bound"] is not None]
    assert {row["way"] for row in exact} == set(gpu.WAYS) - {"exact, compiled"}
    assert {row["way"] for row in found["engine"]["rows"]} == {"product of matrices, fp32", "eager", "eager, half kept", "unroll"}
    assert found["resume"]["rows"] == [{"relative": 0.0}]
    assert [row["way"] for row in found["experts"]["rows"]] == ["in step", "one by one"]


def test_a_stage_that_fails_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(bench: object) -> object:
        raise RuntimeError("no such card")

    def sound(bench: object) -> object:
        yield {"found": 1.5}

    monkeypatch.setattr(gpu, "STAGES", (broken, sound))
    assert gpu.main(["--toy", "--device", "cpu", "--output", str(tmp_path), "--stages", "broken,sound"]) == 1
    assert json.loads((tmp_path / "broken.json").read_text())["error"] == "RuntimeError: no such card"
    assert json.loads((tmp_path / "sound.json").read_text())["rows"] == [{"found": 1.5}]


def test_what_takes_too_long_is_ended_and_what_it_found_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(bench: object) -> object:
        yield {"found": 1}
        time.sleep(60)

    monkeypatch.setattr(gpu, "STAGES", (slow,))
    monkeypatch.setattr(gpu, "SECONDS", 0.3)
    assert gpu.main(["--toy", "--device", "cpu", "--output", str(tmp_path), "--stages", "slow"]) == 1
    kept = json.loads((tmp_path / "slow.json").read_text())
    assert (kept["error"], kept["rows"]) == ("TimeoutError: no time was left", [{"found": 1}])
