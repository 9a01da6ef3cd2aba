"""What whole runs come to whose settings, experts or networks are no good: they end early, and say what to change."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.experts.blocks import Block
from limbeck.methods.outer import OuterLoop
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill, train_experts
from limbeck.runs.results import RunResult
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import Failure
from limbeck.runtime.metrics import read_metrics

TINY = {
    "data.size": "16",
    "data.per_class": "12",
    "data.val_fraction": "0.25",
    "network": "ConvNetD2-w8",
    "experts.num_experts": "2",
    "experts.train_epochs": "3",
    "experts.batch_size": "32",
    "match.syn_steps": "3",
    "match.expert_epochs": "1",
    "match.drop_ratio": "0.25",
    "schedule.first_max_start_epoch": "1",
    "schedule.max_start_epoch": "2",
    "schedule.iterations": "4",
    "outer.iterations": "40",
    "outer.checkpoint_every": "10",
    "real.batch": "8",
    "real.outer_loops": "3",
    "real.inner_loops": "5",
    "engine.compile": "no",
    "eval.every": "10",
    "eval.every_seeds": "1",
    "eval.epochs": "2",
    "eval.seeds": "2",
    "features": "none",
    "eval.full_epochs": "1",
    "eval.random_lr": "0.01",
}


def settings(**changes: str) -> DistillSettings:
    return load_recipe("scenes", TINY | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that experts are trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(cache))


def iterations(folder: Path) -> list[Mapping[str, Any]]:
    return [row for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == "iteration"]


@pytest.mark.parametrize(
    ("changes", "most", "blamed"),
    [
        ({"outer__lr_img": "1e9"}, 3, r"outer.lr_img \(1e\+09\) is too large"),
        ({"outer__lr_label": "1e30"}, 3, r"outer.lr_label \(1e\+30\) is too large"),
        ({"outer__lr_lr": "1e20"}, 90, r"outer.lr_lr \(1e\+20\) is too large"),
        ({"outer__syn_lr_init": "1e6"}, 20, r"outer.syn_lr_init \(1e\+06\) is too large"),
        ({"outer__syn_lr_init": "1e30"}, 20, r"outer.syn_lr_init \(1e\+30\) is too large"),
        ({"outer__max_match_loss": "1e-3"}, 20, r"outer.max_match_loss \(0.001\) is too small: the least loss was [01]\."),
        ({"method": "dsa", "real__network_lr": "1e25", "eval__every": "40"}, 40, r"real.network_lr \(1e\+25\) is too large"),
        ({"method": "dm", "outer__lr_img": "1e12"}, 3, r"outer.lr_img \(1e\+12\) is too large"),
    ],
)
def test_a_wild_setting_ends_the_run_early_and_is_named(tmp_path: Path, changes: dict[str, str], most: int, blamed: str) -> None:
    with pytest.raises(Failure) as caught:
        distill(settings(**changes), tmp_path / "run")
    assert re.search(blamed, str(caught.value)), str(caught.value)
    assert len(iterations(tmp_path / "run")) <= most and not (tmp_path / "run" / "results.json").exists()


def test_an_expert_that_is_not_finite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be where nobody looked at what is read from the store."""
    rarely = {"outer__iterations": "1000", "outer__checkpoint_every": "1000", "eval__every": "1000", "match__syn_steps": "1"}
    made = settings(**rarely, experts__store=str(tmp_path / "store"), labels="hard", init="noise", method="mtt")
    train_experts(made)
    real = Block.read

    def spoiled(self: Block, epoch: int) -> Tensor:
        return real(self, epoch) * (torch.nan if self.path.parent.name == "expert-0001" else 1.0)

    monkeypatch.setattr(Block, "read", spoiled)
    with pytest.raises(Failure, match=r"expert 1 in '.*store' holds numbers that are not finite, and is to be trained anew"):
        distill(made, tmp_path / "run")
    rows = iterations(tmp_path / "run")
    assert len(rows) <= 150 and all(row["skipped"] == (row["expert"] == 1) for row in rows)


def test_what_the_loop_did_is_in_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that grow too fast, by which the loop returns once and goes on."""
    real = OuterLoop.gradients

    def spoiled(self: OuterLoop, state: Any) -> Any:
        update, weighted, d_images = real(self, state)
        return update, weighted, d_images * (float("nan") if 12 <= state.iteration < 32 else 1.0)

    monkeypatch.setattr(OuterLoop, "gradients", spoiled)
    result = distill(settings(outer__iterations="42"), tmp_path / "run")
    assert [(one.iteration, one.to, one.step) for one in result.returns] == [(31, 10, 0.25)]
    assert result.skipped_share == pytest.approx(20 / 42) and sum(result.skipped.values()) == 20
    page = " ".join(str(result).split())
    assert "47.6 % of the iterations changed nothing: 20 times" in page
    assert "the loop went back and on with 0.25 of its step sizes in the end: from iteration 31 to 10" in page
    again = RunResult.from_dict(json.loads((tmp_path / "run" / "results.json").read_text()))
    assert again.returns == result.returns and again.skipped == result.skipped
    held = json.loads((tmp_path / "run" / "distilled" / "metadata.json").read_text())
    assert held["evaluation"]["returns"][0]["to"] == 10


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"outer.lr_img": "1e7"}, {"outer.lr_label": "1e3"}, {"method": "dm", "outer.lr_img": "1e3"}])
def test_a_run_that_returned_and_was_killed_ends_with_the_same_bits(tmp_path: Path, changes: dict[str, str]) -> None:
    """Killed after some iterations again and again, before and after it returned."""
    ends = {}
    for name, kills in (("whole", ()), ("killed", (2, 9, 23, 41))):
        folder = tmp_path / name
        for number, count in enumerate((*kills, None)):
            process = started(folder, changes, resume=number > 0)
            while count is not None and process.poll() is None and len(iterations(folder / "run")) < count:
                time.sleep(0.01)
            if count is not None:
                process.send_signal(signal.SIGKILL)
            assert process.wait(300) == (0 if count is None else -signal.SIGKILL)
        rows = [
            {key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(folder / "run" / "metrics.jsonl")
        ]
        assert any(row["kind"] == "return" for row in rows)
        snapshots = {file.name: file.read_bytes() for file in sorted((folder / "run" / "snapshots").iterdir())}
        ends[name] = (rows, snapshots, (folder / "run" / "distilled" / "distilled.safetensors").read_bytes())
    assert ends["whole"] == ends["killed"]


def started(folder: Path, changes: Mapping[str, str], *, resume: bool) -> "subprocess.Popen[bytes]":
    """A run in a process of its own."""
    given = {**TINY, "outer.iterations": "60", "outer.checkpoint_every": "5", **changes}
    words = ["distill", "scenes", "--output", "run", *(f"{key}={value}" for key, value in given.items()), *["--resume"] * resume]
    folder.mkdir(exist_ok=True)
    variables = {**os.environ, "LIMBECK_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "limbeck", *words], cwd=folder, env=variables, stderr=subprocess.DEVNULL)
