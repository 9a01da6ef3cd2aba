"""Trainings that cost nothing: a walk whose every step depends on where it is, on its number and on what the optimiser holds."""

from collections.abc import Sequence
from pathlib import Path

import torch

from limbeck.experts.files import Job, Recorder
from limbeck.experts.notes import Want
from limbeck.experts.store import TrajectoryStore
from limbeck.experts.train import fill

IDENTITY = {"network": "walk", "num_parameters": 700, "seed": 0}
HALF = Want(2, tuple(range(20)), 30, 2, "half")


def start_of(expert: int) -> torch.Tensor:
    return torch.randn(700, generator=torch.Generator().manual_seed(expert))


def step(theta: torch.Tensor, velocity: torch.Tensor, epoch: int) -> None:
    draws = torch.Generator().manual_seed(epoch)
    velocity.mul_(0.9).add_(torch.randn(700, generator=draws)).sub_(theta, alpha=0.1)
    theta.add_(velocity, alpha=0.01)


def walk(expert: int, epochs: int) -> list[torch.Tensor]:
    """θ after 0, 1, … epochs, without a stop."""
    theta, velocity = start_of(expert), torch.zeros(700)
    thetas = [theta.clone()]
    for epoch in range(1, epochs + 1):
        step(theta, velocity, epoch)
        thetas.append(theta.clone())
    return thetas


class Walker:
    """Trains for `fill`; notes what it was asked for."""

    def __init__(self, store: TrajectoryStore, coding: str = "fp32", log: Path | None = None) -> None:
        self.store, self.coding, self.log = store, coding, log
        self.trained: list[tuple[int, int, int]] = []

    def train(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.trained.append((job.expert, job.start, job.stop))
            recorder = Recorder(self.store.shelf(job.expert), job, self.coding)
            theta, velocity = start_of(job.expert), torch.zeros(700)
            if job.restart is not None:
                theta = job.restart.theta.clone()
                velocity = job.restart.state[0].clone()
            else:
                recorder.record(0, theta)
            for epoch in range(job.start + 1, job.stop + 1):
                step(theta, velocity, epoch)
                recorder.record(epoch, theta, epoch / 1000, [velocity])
            if self.log is not None:
                with self.log.open("a") as file:
                    file.write(f"{job.expert} {job.start} {job.stop}\n")


def filled(path: Path, want: Want = HALF) -> TrajectoryStore:
    """A store of walks."""
    store = TrajectoryStore(path, IDENTITY, {"source": "walks"})
    store.note(want)
    fill(store, want, Walker(store, want.coding).train)
    return store


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
