"""Experts that are spread over ranks: the same ones, in one store, and what comes of a rank that dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from runs.colours import images
from runs.shares import SMALL, counted
from together import Team
from torch import Tensor

from limbeck.augmentation import Dsa
from limbeck.cli.main import main
from limbeck.data.preprocessing import Identity
from limbeck.experts import trainer as trainer_module
from limbeck.experts.notes import want_of
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.store import TrajectoryStore
from limbeck.experts.train import ExpertTask, train_experts
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import Failure
from limbeck.runtime.ranks import Ranks, together


def task(store: Path, count: int, lr: float) -> ExpertTask:
    data = images()
    settings = ExpertSettings(num_experts=count, train_epochs=3, expert_lr=lr, batch_size=8, store=str(store))
    network = flat_network("ConvNetD1-w4", data.shape, 3)
    return ExpertTask(data, Identity(), network, settings, Dsa("flip"), 0, torch.device("cpu"))


def experts(path: Path, count: int = 3, lr: float = 0.05) -> list[int]:
    """The numbers of those that this process has trained."""
    keys = list[Any]()
    with together(), counted(trainer_module, keys):
        made = task(path, count, lr)
        store = train_experts(made, [0, 1, 2, 3])
    assert not store.lacking(want_of(made.settings, [0, 1, 2, 3]))
    return [key[1] for key in keys]


def test_experts_are_spread_and_their_store_is_the_same(two: Team, tmp_path: Path) -> None:
    assert experts(tmp_path / "alone") == [0, 1, 2]
    first, second = two(experts, tmp_path / "two")
    assert sorted([*first, *second]) == [0, 1, 2]
    assert TrajectoryStore(tmp_path / "two").content == TrajectoryStore(tmp_path / "alone").content
    assert two(experts, tmp_path / "two") == [[], []]


def test_an_expert_that_diverges_ends_all_ranks(two: Team, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"expert \d diverged in epoch"):
        two(experts, tmp_path, 3, 1e30)


def dies(path: Path) -> str:
    """One rank is killed in the middle of its expert; what the other one says."""
    here, real = Ranks.here(), trainer_module.train

    def killed(*args: Any, **options: Any) -> Tensor:
        if here.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)  # that the other one has an expert to lose
        return real(*args, **options)

    trainer_module.train = killed
    try:
        experts(path, 4)
    except Failure as error:
        return str(error)
    return "nothing was wrong"


def test_a_rank_that_dies_loses_its_expert_which_another_trains(tmp_path: Path) -> None:
    with Team(2) as team:
        for pipe in team.pipes:
            pipe.send((dies, (tmp_path / "two",)))
        began = time.monotonic()
        said, error = team.pipes[0].recv()
        assert error is None and "of the 2 ranks has ended" in said
        assert time.monotonic() - began < 30
    assert experts(tmp_path / "alone", 4) == [0, 1, 2, 3]
    assert TrajectoryStore(tmp_path / "two").content == TrajectoryStore(tmp_path / "alone").content


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_rank_of_torchruns_that_dies_while_experts_are_trained(restarts: int, tmp_path: Path) -> None:
    start = ["--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts), "-m", "limbeck"]
    words = ["experts", "scenes", *SMALL.split(), "engine.device=cpu", "experts.num_experts=4", "experts.train_epochs=150"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "LIMBECK_CACHE": str(tmp_path)}
    store = f"experts.store={tmp_path / 'store'}"
    command = [sys.executable, "-m", "torch.distributed.run", *start, *words, store]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as torchrun:
        while not list((tmp_path / "store").glob("expert-*/epochs-*")):  # two are in the making
            assert torchrun.poll() is None
            time.sleep(0.1)
        (second,) = (one for one in psutil.Process(torchrun.pid).children() if one.environ().get("RANK") == "1")
        second.kill()
        began, said = time.monotonic(), torchrun.communicate(timeout=300)[1]
    if restarts:
        assert torchrun.returncode == 0, said
    else:
        assert torchrun.returncode != 0 and time.monotonic() - began < 30
        assert "limbeck: failed: rank 1 of 2 has ended, and with it the run" in said
        assert main([*words, store]) == 0  # goes on with what is there
    assert main([*words, f"experts.store={tmp_path / 'alone'}"]) == 0
    found, alone = TrajectoryStore(tmp_path / "store"), TrajectoryStore(tmp_path / "alone")
    for expert in range(4):
        assert found.accuracies(expert) == alone.accuracies(expert)
        assert torch.equal(found.read(expert, 150), alone.read(expert, 150))
