"""One distillation on several processes: what they end with, what only rank 0 writes and says, and what happens when one dies."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from reliability import kills
from reliability.commands import Commands, Running, parts
from reliability.disks import disk, fill
from together import free_port

from limbeck.methods.state import OuterState
from limbeck.runtime.files import read_tensors

WITHIN = 30.0  # seconds


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests here: experts are trained once."""
    return tmp_path_factory.mktemp("cache")


def words(run: Path, *more: str, **changes: str) -> list[str]:
    return ["distill", "scenes", "--output", str(run), *kills.words(features="none", **changes), *more]


def together(started: Commands, cache: Path, typed: list[str], count: int = 2, **environment: str) -> list[Running]:
    """The command in so many processes, as torchrun starts them."""
    port = str(free_port())
    variables = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [started.start(typed, cache, **variables, RANK=str(k), LOCAL_RANK=str(k), **environment) for k in range(count)]


def rows(run: Path) -> list[dict[str, object]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def said(ranks: list[Running]) -> list[str]:
    return [line for rank in ranks for line in rank.said.splitlines() if line.startswith("limbeck: ")]


def ended(ranks: list[Running]) -> list[int]:
    """Their exit statuses, which are there in time."""
    began = time.monotonic()
    found = [rank.wait() for rank in ranks]
    assert time.monotonic() - began < WITHIN
    return found


def test_two_ranks_end_with_what_one_process_ends_with(tmp_path: Path, started: Commands, kept: Path) -> None:
    few = {"outer__iterations": "4", "eval__every": "2", "enhance__cam_every": "2"}
    started.run(words(tmp_path / "one", **few), kept)
    ranks = together(started, kept, words(tmp_path / "two", **few, engine__shard="yes"))
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.said for rank in ranks]
    one, two = (read_tensors(tmp_path / name / "snapshots" / "iteration-000004.safetensors")[0] for name in ("one", "two"))
    for name in ("X", "Y", "syn_lr", "weights", "maps"):
        assert torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-4), name
    files = [sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*")) for name in ("one", "two")]
    assert files[0] == files[1] and parts(tmp_path, kept) == []
    assert ranks[1].said == "" and (ranks[1].folder / "out").read_text() == ""
    assert "distilled" in (ranks[0].folder / "out").read_text()
    state = json.loads((tmp_path / "two" / "state.json").read_text())
    assert state["resolved"]["ranks"] == state["resolved"]["engine"]["ranks"] == 2


def test_a_setting_that_cannot_be_is_said_once(tmp_path: Path, started: Commands, kept: Path) -> None:
    for typed in (
        words(tmp_path / "a", match__drop_ratio="2"),
        words(tmp_path / "b", network="ConvNetD2-w8-batchnorm", engine__shard="yes"),
    ):
        ranks = together(started, kept, typed)
        assert 2 in ended(ranks)
        assert len(said(ranks)) == 1 and "error: " in said(ranks)[0]
    why = (
        "engine.shard: 'yes' is not auto or no: ConvNetD2-w8-batchnorm has batch norm, whose statistics are those of a whole batch"
    )
    assert said(ranks) == [f"limbeck: error: {why}"] and not (tmp_path / "b").exists()


LONG = {"method": "mtt", "outer__iterations": "100000", "eval__every": "100000", "outer__checkpoint_every": "5"}


@pytest.mark.parametrize("dies", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rank_that_dies_ends_the_run_and_leaves_the_checkpoint(tmp_path: Path, started: Commands, kept: Path, dies: int) -> None:
    run = tmp_path / "run"
    ranks = together(started, kept, typed := words(run, **LONG), TORCHELASTIC_RUN_ID="first")
    ranks[dies].until(lambda: len(rows(run)) > 8)
    ranks[dies].send(signal.SIGKILL)
    assert sorted(ended(ranks)) == [-signal.SIGKILL, 1]
    assert len(said(ranks)) == 1 and f"failed: rank {dies} of 2 has ended, and with it the run; " in said(ranks)[0]
    assert said(ranks)[0].endswith(f"continue with: torchrun --nproc-per-node 2 -m limbeck {' '.join(typed)} --resume")
    assert "Traceback" not in "".join(rank.said for rank in ranks)
    reached = OuterState.load(run / "checkpoint.safetensors", torch.device("cpu")).iteration
    assert reached >= (5 if dies == 0 else 7)  # rank 0 saves what it has when another one dies

    # Another job may not go on without --resume; the same one, started anew by torchrun, does.
    again = together(started, kept, typed, TORCHELASTIC_RUN_ID="second", TORCHELASTIC_RESTART_COUNT="1")
    assert 2 in ended(again) and "is not empty; go on with --resume" in said(again)[0]
    again = together(started, kept, typed, TORCHELASTIC_RUN_ID="first", TORCHELASTIC_RESTART_COUNT="1")
    again[0].until(lambda: int(str(rows(run)[-1]["iteration"])) > reached + 6)

    # Both are asked to end: the last iteration is kept, and one process goes on with it.
    for rank in again:
        rank.send(signal.SIGTERM)
    assert ended(again) == [143, 143]
    assert len(said(again)) == 1 and said(again)[0].startswith("limbeck: interrupted by SIGTERM; continue with: torchrun")
    reached = OuterState.load(run / "checkpoint.safetensors", torch.device("cpu")).iteration
    assert f"stopped after {reached} of 100000 iterations, which are kept" in again[0].said
    assert [row["iteration"] for row in rows(run) if row["kind"] == "iteration"] == list(range(reached))
    alone = started.start([*typed, "--resume"], kept)
    alone.until(lambda: int(str(rows(run)[-1]["iteration"])) > reached + 3)
    alone.send(signal.SIGTERM)
    assert alone.wait() == 143 and parts(run) == []


def test_a_sharded_run_that_is_asked_to_end_keeps_its_last_iteration(tmp_path: Path, started: Commands, kept: Path) -> None:
    run = tmp_path / "run"
    ranks = together(started, kept, words(run, **LONG | {"outer__checkpoint_every": "100000", "engine__shard": "yes"}))
    ranks[0].until(lambda: len(rows(run)) > 5)
    for rank in ranks:
        rank.send(signal.SIGINT)
    assert ended(ranks) == [130, 130]
    reached = OuterState.load(run / "checkpoint.safetensors", torch.device("cpu")).iteration
    assert [row["iteration"] for row in rows(run) if row["kind"] == "iteration"] == list(range(reached)) and reached > 3


@pytest.mark.slow
def test_a_disk_that_is_full_ends_all_ranks_and_the_run_goes_on(tmp_path: Path, started: Commands, kept: Path) -> None:
    with disk(tmp_path / "disk", "64m") as place:
        run = place / "run"
        ranks = together(started, kept, typed := words(run, **LONG))
        ranks[0].until(lambda: len(rows(run)) > 8)
        filler = fill(place)
        assert ended(ranks) == [1, 1]
        assert "the disk is full" in said(ranks[:1])[0] and said(ranks[:1])[0].endswith("--resume"), said(ranks)
        filler.unlink()
        before = OuterState.load(run / "checkpoint.safetensors", torch.device("cpu")).iteration
        again = together(started, kept, [*typed, "--resume"])
        again[0].until(lambda: int(str(rows(run)[-1]["iteration"])) > before + 6)
        for rank in again:
            rank.send(signal.SIGTERM)
        assert ended(again) == [143, 143]


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["no", "yes"])
def test_ranks_that_are_killed_at_any_moment_leave_what_others_leave(
    tmp_path: Path, started: Commands, kept: Path, shard: str
) -> None:
    """With as many ranks the bits are the same: the sum of two numbers does not depend on who adds them."""
    few = {"outer__iterations": "40", "outer__checkpoint_every": "3", "eval__every": "20", "engine__shard": shard}
    chance, killed = random.Random(5), 0
    whole = together(started, kept, words(tmp_path / "whole", **few))
    assert [rank.wait() for rank in whole] == [0, 0]
    for attempt in range(12):
        again = {"TORCHELASTIC_RUN_ID": "one", "TORCHELASTIC_RESTART_COUNT": str(attempt)}
        ranks = together(started, kept, words(tmp_path / "killed", **few), **again)
        if attempt < 8:
            time.sleep(chance.uniform(0.5, 12.0))
            killed += psutil.Process((victim := chance.choice(ranks)).pid).status() != psutil.STATUS_ZOMBIE
            victim.send(signal.SIGKILL)
            time.sleep(0.3)
            for rank in ranks:  # as torchrun does, without which ranks that have not met yet would wait for each other
                rank.send(signal.SIGTERM)
        statuses = [rank.wait() for rank in ranks]
        if statuses == [0, 0]:
            break
        assert len(said(ranks)) <= 1 and "Traceback" not in "".join(rank.said for rank in ranks)
    assert killed >= 3
    one, other = (read_tensors(tmp_path / name / "snapshots" / "iteration-000040.safetensors")[0] for name in ("whole", "killed"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert parts(tmp_path, kept) == []


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_torchrun_starts_anew_what_a_death_has_ended(tmp_path: Path, kept: Path, dies: int) -> None:
    run = tmp_path / "run"
    typed = words(run, method="mtt", outer__iterations="300", eval__every="300", outer__checkpoint_every="5")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    environment = {**os.environ, "LIMBECK_CACHE": str(kept), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*torchrun, "-m", "limbeck", *typed], env=environment, stderr=subprocess.PIPE, text=True) as command:
        while len(rows(run)) < 20:
            assert command.poll() is None
            time.sleep(0.05)
        [victim] = [one for one in psutil.Process(command.pid).children() if one.environ().get("RANK") == str(dies)]
        victim.kill()
        errors = command.communicate(timeout=300)[1]
    assert command.returncode == 0, errors
    assert [row["iteration"] for row in rows(run) if row["kind"] == "iteration"] == list(range(300))
    assert (run / "results.json").exists() and errors.count("limbeck: ") <= 1
