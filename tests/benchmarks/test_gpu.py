"""`benchmarks/gpu.py`: its stages at toy size on the CPU, so that they work when a GPU is there."""

import importlib
import json
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

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


class Operations(TorchDispatchMode):
    """Those of convolutions and of their gradients."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if "convolution" in str(func):
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=found)
        return found


@pytest.mark.parametrize("name", ["eager", "kept", "unroll"])
def test_convolutions_are_as_many_as_another_layer_takes(name: str) -> None:
    """Of two networks of which one has a layer of four times four channels at 2×2 pixels more."""
    way = {"eager": gpu.Way(kind="exact"), "kept": gpu.Way(kind="exact", kept=2), "unroll": gpu.Way(kind="unroll")}[name]
    steps, images, totals = 6, 5, []
    for network in ("ConvNetD2-w4", "ConvNetD3-w4"):
        held = {"network": network, "size": 8, "classes": 5, "images": images, "batch": images, "steps": steps}
        work = gpu.iteration_of(gpu.Problem(device="cpu", threads=1, **held), way, torch.float32)
        with Operations() as counted:
            work()
        totals.append(counted.total)
    taken = (totals[1] - totals[0]) / (2 * 4 * 4 * 9 * 2 * 2 * images)
    # θ_0 is the first step's alone, and nobody asks for its gradient.
    assert taken == gpu.convolutions(way, steps) - (name == "unroll")
    assert gpu.convolutions(gpu.Way(kind="exact", compiled=True), steps) == 11 * steps


def test_a_share_is_of_the_peak_in_that_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = gpu.Bench(torch.device("cpu"), gpu.TOY, {}, tmp_path, time.monotonic() + 1000)
    monkeypatch.setattr(gpu, "iteration_of", lambda problem, way, dtype: lambda: None)
    monkeypatch.setattr(gpu, "measure", lambda work, device: (None, SimpleNamespace(peak=1)))
    monkeypatch.setattr(gpu, "on_gpu", lambda device: True)
    monkeypatch.setattr(gpu.Bench, "seconds", lambda *given: 0.5)
    assert gpu.peaks(bench) == dict.fromkeys(("fp32", "tf32", "bf16"), 4 * gpu.TOY.product**3)
    peaks = {"fp32": 1.0, "tf32": 2.0, "bf16": 4.0}
    monkeypatch.setattr(gpu, "peaks", lambda bench: peaks)
    rows = [row for row in gpu.engine(bench) if "share_of_peak" in row]
    assert {row["way"] for row in rows} == gpu.MEASURED.keys()
    layers = [3 * 4 * 9 * 8 * 8, 4 * 4 * 9 * 4 * 4]  # of ConvNetD2-w4 at 8×8
    for row in rows:
        way, steps = gpu.MEASURED[row["way"]], gpu.TOY.steps
        each = {"unroll": 9, "eager": 12, "eager, half kept": 10.5}.get(row["way"], 11)
        counted = each * steps * 2 * sum(layers) * row["batch"]
        assert math.isclose(row["share_of_peak"], counted / 0.5 / peaks[way.precision])
