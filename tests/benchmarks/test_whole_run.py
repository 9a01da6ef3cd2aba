"""`benchmarks/whole_run.py`: every second of a run is in one part."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = """scenes data.size=16 data.per_class=12 network=ConvNetD2-w4 experts.num_experts=1 experts.train_epochs=2 match.syn_steps=2
schedule.first_max_start_epoch=1 schedule.max_start_epoch=1 match.expert_epochs=1 outer.iterations=2 engine.compile=no eval.epochs=1
eval.seeds=2 eval.full_epochs=1 eval.full_seeds=2 eval.random_lr=0.01"""


def test_the_parts_of_a_tiny_run_add_up(tmp_path: Path) -> None:
    kept, words = tmp_path / "kept.json", " ".join(TINY.split())
    command = [sys.executable, str(FOLDER / "whole_run.py"), words, "--output", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    (name, parts), *_ = json.loads(kept.read_text()).items()
    assert name == "scenes, native"
    expected = (
        "data",
        "experts",
        "initial",
        "compile",
        "distil",
        "weights",
        "maps",
        "periodic evaluations",
        "evaluate",
        "features",
        "full data",
        "report",
    )
    assert set(expected) | {"start and rest"} == set(parts) and min(parts.values()) >= 0
    assert "| all | " in done.stdout


def test_what_is_inside_stops_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.insert(0, str(FOLDER))
    whole_run: Any = importlib.import_module("whole_run")
    sys.path.remove(str(FOLDER))
    now = [0.0]
    monkeypatch.setattr(whole_run.time, "perf_counter", lambda: now[0])
    clock = whole_run.Clock()

    def wait(seconds: float) -> None:
        now[0] += seconds

    def outer() -> None:
        wait(2)
        whole_run.watched(clock, "inner", wait)(5)
        wait(1)

    whole_run.watched(clock, "outer", outer)()
    wait(4)
    clock.turn()
    assert dict(clock.seconds) == {"start and rest": 4, "outer": 3, "inner": 5}
