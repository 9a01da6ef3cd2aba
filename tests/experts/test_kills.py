"""The command itself, killed at random moments and started again: its store is, file by file, that of a run that nobody stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from experts.walks import snapshot

from limbeck.experts.maintain import verify
from limbeck.experts.store import TrajectoryStore

KILLS = 20
OVERRIDES = {
    "data.size": "8",
    "data.per_class": "6",
    "data.val_fraction": "0.34",
    "network": "ConvNetD1-w4",
    "experts.num_experts": "12",
    "experts.train_epochs": "40",
    "experts.batch_size": "16",
    "experts.rate": "drop_at_half",
    "experts.momentum": "0.9",
    "experts.dtype": "half",
    "schedule.max_start_epoch": "20",
    "match.expert_epochs": "2",
    "engine.compile": "no",
}


def start(store: Path, cache: Path) -> "subprocess.Popen[bytes]":
    words = [f"{key}={value}" for key, value in OVERRIDES.items()]
    command = [sys.executable, "-m", "limbeck", "experts", "scenes", *words, f"experts.store={store}"]
    environment = {**os.environ, "LIMBECK_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> None:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()


def timed(store: Path, cache: Path) -> tuple[float, float]:
    """Seconds until a whole run begins to write, and until it ends."""
    began, process = time.monotonic(), start(store, cache)
    while not (store / "metadata.json").exists() and process.poll() is None:
        time.sleep(0.002)
    first = time.monotonic() - began
    finish(process)
    return first, time.monotonic() - began


@pytest.mark.slow
def test_experts_killed_at_twenty_random_moments_end_with_the_same_files(tmp_path: Path) -> None:
    """With momentum, a step size that falls, and checkpoints in half width: the bits hang on what each restart reads back."""
    cache, draws = tmp_path / "cache", torch.Generator().manual_seed(0)
    timed(tmp_path / "first", cache)  # fills the cache of images
    first, whole = timed(tmp_path / "whole", cache)
    shelves = [TrajectoryStore(tmp_path / "whole").shelf(expert) for expert in range(12)]
    assert "half" in {block.header.coding for shelf in shelves for block in shelf.blocks}
    expected, kills, rounds, left = snapshot(tmp_path / "whole"), 0, 0, set()
    while kills < KILLS:
        store, rounds = tmp_path / f"killed-{rounds}", rounds + 1
        assert rounds <= 5 * KILLS, f"{kills} of {KILLS} kills met a run at work"
        for _ in range(5):
            process = start(store, cache)
            time.sleep(first + float(torch.rand((), generator=draws)) * (whole - first))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL
            if (store / "metadata.json").exists():
                kills += 1
                left.add(len(list(store.glob("expert-*/*.safetensors"))))
                assert verify(TrajectoryStore(store), []) in ([], ["it holds no expert"])
        finish(start(store, cache))
        assert snapshot(store) == expected
    assert rounds > 1 and len(left) > KILLS // 3, left  # at moments that differ
