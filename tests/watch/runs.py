"""Runs that are being made, as far as a watch can tell."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report.fake_run import make_run

from limbeck.runs.folder import SETTINGS
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.locks import lock
from limbeck.runtime.metrics import MetricsLog
from limbeck.runtime.owner import Owner


def going(path: Path, iterations: int = 20, every: int = 10, shape: tuple[int, int, int] = (3, 8, 8), total: int = 100) -> Path:
    """A run of `total` iterations that has made so many."""
    make_run(path, iterations=iterations, every=every, shape=shape, finished=False)
    settings = read_json(path / "settings.json", SETTINGS)
    settings["outer"]["iterations"] = total
    write_json(path / "settings.json", settings, SETTINGS)
    return path


@contextmanager
def at_work(path: Path) -> Iterator[None]:
    """As long as the context lasts, a process that runs, this one, holds the folder."""
    with lock(path / ".run"):
        yield


def killed(path: Path) -> None:
    """As a process leaves the folder that was killed: what it noted stays, and it is no more."""
    owner = Owner.here().to_dict()
    (path / ".run.lock").write_text(json.dumps({**owner, "pid": 2**22 - 3, "born": 1}))


def goes_on(path: Path, **row: Any) -> None:
    """One more row."""
    log = path / "metrics.jsonl"
    with log.open("a") as file:  # rows of fake runs have no sums
        file.write(json.dumps(row) + "\n")


def begins(path: Path) -> MetricsLog:
    """The file of rows of a run without any."""
    (path / "metrics.jsonl").unlink(missing_ok=True)
    return MetricsLog(path / "metrics.jsonl")
