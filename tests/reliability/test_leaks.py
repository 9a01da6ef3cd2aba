"""Iterations leave nothing behind: live tensors, open files, threads and processes are the same at every evaluation."""

import gc
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.experts.store import TrajectoryStore

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def leaks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("leaks")


def test_handles_and_tensors_are_flat(leaks: Any) -> None:
    first, second, *rest = leaks.samples(iterations=40, every=8)
    assert [sample.iteration for sample in (first, second, *rest)] == [0, 8, 16, 24, 32, 40]
    for name in ("files", "threads", "children", "tensors"):
        # The first two fill what is kept for the whole of a process.
        assert len({getattr(sample, name) for sample in rest}) == 1, (name, [second, *rest])


def test_reading_checkpoints_leaves_nothing_behind(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path / "store", {"num_parameters": 100})
    for expert, coding in enumerate(("fp32", "fp16", "half")):
        store.write(expert, {epoch: torch.full((100,), float(epoch)) for epoch in range(4)}, coding=coding)

    def read(times: int) -> int:
        for number in range(times):
            store.read(number % 3, number % 4)
        gc.collect()
        return sys.getallocatedblocks()

    before = read(240)
    assert read(1200) - before < 600  # safetensors 0.8.0 left an object behind for each tensor of torch's


def test_a_slope_that_is_there_is_found(leaks: Any) -> None:
    noise = [0, 3000, -2000, 1000, -3000, 2000, -1000, 500] * 5
    flat = [leaks.Sample(100 * number, 10**8 + one, 9, 1, 0, 50) for number, one in enumerate(noise)]
    assert leaks.line(flat).flat
    leaking = [leaks.Sample(one.iteration, one.resident + 100 * one.iteration, 9, 1, 0, 50) for one in flat]
    assert leaks.line(leaking).slope == pytest.approx(100, rel=0.05)
    assert not leaks.line(leaking).flat


@pytest.mark.slow
def test_memory_is_flat_over_two_thousand_iterations(leaks: Any) -> None:
    found = leaks.samples(iterations=2000, every=50)
    assert leaks.line(found).flat, leaks.line(found)
