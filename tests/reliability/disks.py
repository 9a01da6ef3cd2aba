"""Small disks to fill, and a tiny run to write to them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TINY: dict[str, Any] = {"size": 16, "per_class": 12, "num_experts": 1, "train_epochs": 2, "max_start_epoch": 1, "syn_steps": 2}
TINY |= {"first_max_start_epoch": 1, "expert_epochs": 1, "epochs": 1, "full_epochs": 1, "random_lr": 0.01, "seeds": 2}
TINY |= {
    "network": "ConvNetD2-w4",
    "iterations": 4,
    "every": 2,
    "checkpoint_every": 1,
    "lr_img": 1.0,
    "lr_lr": 0.0,
    "features": "none",
}


@contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of that size of its own; skips the test where none may be mounted."""
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def protect(place: Path) -> None:
    """Make a disk read-only."""
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)


def fill(place: Path, but: int = 0) -> Path:
    """A file that takes what is free on the disk, all `but` so many bytes."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while shutil.disk_usage(place).free > but:
                file.write(bytes(min(4096, shutil.disk_usage(place).free)))
        except OSError:
            pass
    return filler


def content(run: Path) -> dict[str, bytes]:
    """What a run has left that must be the same bits."""
    files = ("distilled/distilled.safetensors", "checkpoint.safetensors")
    return {name: (run / name).read_bytes() for name in files}
