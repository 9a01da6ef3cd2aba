"""Experts in several processes and in step are the experts that are trained alone; GSAM and the curriculum are what they say."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.augmentation import Dsa
from limbeck.data.load import load_data
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.settings import DataSettings
from limbeck.experts import trainer as trainer_module
from limbeck.experts.files import Job
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.train import ExpertTask, material_of, train_experts
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.executor import Cluster, Local, Process, using
from limbeck.training import compute
from limbeck.training.optimisers import Gsam, Sgd
from limbeck.training.rates import Constant
from limbeck.training.train import train

EPOCHS = [0, 1, 2, 3]


def task(**changes: object) -> ExpertTask:
    settings = DataSettings(source="scenes:easy", size=8, per_class=6, val_fraction=0.34)
    data = load_data(settings)
    made = ExpertSettings(num_experts=4, train_epochs=3, expert_lr=0.05, batch_size=16, momentum=0.5)
    parts = (data, fit_preprocessing(settings, data.train), flat_network("ConvNetD1-w4", data.shape, data.num_classes))
    return ExpertTask(*parts, dataclasses.replace(made, **changes), Dsa(), 0, torch.device("cpu"))


def trajectories(monkeypatch: pytest.MonkeyPatch, folder: Path, made: ExpertTask) -> torch.Tensor:
    """θ of all experts and epochs, with shape (S, epochs, P), from a cache of their own."""
    with monkeypatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(folder))
        store = train_experts(made, EPOCHS)
        return torch.stack([torch.stack([store.read(expert, epoch) for epoch in EPOCHS]) for expert in range(4)])


def in_step(self: trainer_module.Trainer, jobs: Sequence[Job]) -> None:
    """In the place of `Trainer.train`: as on a GPU."""
    trainer_module.train_in_step(self.material, jobs, [self.recorder(job) for job in jobs], lambda: self.epoch_done(1))


def test_processes_change_no_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone = trajectories(monkeypatch, tmp_path / "alone", task())
    monkeypatch.setattr(compute, "WORKERS_FROM_SECONDS", 0.0)
    for module in (compute, trainer_module):
        monkeypatch.setattr(module, "cores", lambda: 2)
    assert torch.equal(trajectories(monkeypatch, tmp_path / "processes", task()), alone)


def test_in_step_is_alone_up_to_rounding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone = trajectories(monkeypatch, tmp_path / "alone", task())
    monkeypatch.setattr(trainer_module.Trainer, "group", 4)
    monkeypatch.setattr(trainer_module.Trainer, "train", in_step)
    together = trajectories(monkeypatch, tmp_path / "together", task())
    assert (together - alone).abs().max() < 1e-4 * alone.abs().max()
    assert not torch.allclose(together[0], together[1], atol=1e-3)


class Elsewhere(Local, Cluster):
    """As a cluster whose devices hold three experts in step, of which a job's share holds two."""

    def __init__(self) -> None:
        self.sizes: list[list[int]] = []

    def apart(self, function: Any, job: Any, log: Path) -> Process:
        raise AssertionError("no expert is a command of its own")

    def in_step(self, most: int) -> int:
        return most - 1

    def run(self, function: Any, shared: Any, jobs: Any, **how: Any) -> Any:
        self.sizes.append([len(one) for one in jobs])
        return super().run(function, shared, jobs, **how)


def test_elsewhere_a_job_is_an_expert_and_on_gpus_as_many_as_fit_its_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone, executor = trajectories(monkeypatch, tmp_path / "alone", task()), Elsewhere()
    with using(executor):
        assert torch.equal(trajectories(monkeypatch, tmp_path / "elsewhere", task()), alone)
        monkeypatch.setattr(trainer_module, "on_gpu", lambda device: True)
        monkeypatch.setattr(compute.Compute, "together", lambda self, shape, batch: 3)
        together = trajectories(monkeypatch, tmp_path / "in step", task())
    assert executor.sizes == [[1, 1, 1, 1], [2, 2]]
    assert (together - alone).abs().max() < 1e-4 * alone.abs().max()


def test_the_optimiser_is_the_one_named() -> None:
    assert trainer_module.optimiser_of(ExpertSettings(momentum=0.5, weight_decay=0.1)) == Sgd(0.01, 0.5, 0.1)
    gsam = ExpertSettings(optimiser="gsam", rho_min=0.02, rho_max=0.03, alpha=0.4)
    assert trainer_module.optimiser_of(gsam) == Gsam(0.01, rho_min=0.02, rho_max=0.03, alpha=0.4)


def test_gsam_and_curriculum_are_other_experts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = {"sgd": task(), "gsam": task(optimiser="gsam", rho_max=0.5), "pad": task(curriculum="pad")}
    found = {name: trajectories(monkeypatch, tmp_path / name, one) for name, one in made.items()}
    for name in ("gsam", "pad"):
        assert torch.equal(found[name][:, 0], found["sgd"][:, 0])
        assert not torch.allclose(found[name][:, 1], found["sgd"][:, 1], atol=1e-4)


def test_the_curriculum_is_what_epochs_take(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    real = trainer_module.train

    def notes(*args, **options):  # type: ignore[no-untyped-def]
        seen.append([len(options["pool"](epoch)) for epoch in (0, 20, 40)])
        return real(*args, **options)

    monkeypatch.setattr(trainer_module, "train", notes)
    made = task(curriculum="pad", num_experts=1)
    train_experts(made, EPOCHS)
    per_class = len(made.data.train) // 10
    assert seen == [[10 * int(0.75 * per_class), 10 * per_class, 10 * (per_class - int(0.1 * per_class))]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rho_min": 0.2}, r"experts.rho_max: 0.01 is not finite and at least experts.rho_min \(0.2\)"),
        ({"alpha": -1.0}, "experts.alpha: -1.0 is not at least 0"),
        ({"rate": "linear"}, "experts.rate: 'linear' is not one of constant, drop_at_half, steps, cosine"),
        ({"rate_epochs": 0}, "experts.rate_epochs: 0 is not at least 1, or null"),
        ({"rate_milestones": (0.5, 1.5)}, r"experts.rate_milestones: \[0.5, 1.5\] is not shares of the epochs"),
        ({"rate_milestones": (0.5, 0.2)}, r"experts.rate_milestones: \[0.5, 0.2\] is not shares .* ascending"),
        ({"rate": "cosine", "rate_epochs": 50}, r"lr_min: 0.0 is not above 0, where experts.train_epochs \(100\) goes beyond"),
        ({"rate_factor": 0.0}, "experts.rate_factor: 0.0 is not above 0 and at most 1"),
        ({"lr_min": 0.01}, "experts.lr_min: 0.01 is not at least 0 and below 0.01, expert_lr"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExpertSettings(**changes)


RATES = {
    "drop_at_half": {"rate": "drop_at_half", "rate_epochs": 3},
    "steps": {"rate": "steps", "rate_milestones": (1 / 3, 2 / 3), "rate_factor": 0.5},
    "cosine": {"rate": "cosine", "lr_min": 0.01},
}
FACTORS = {
    "drop_at_half": [1, 1, 0.1],
    "steps": [1, 0.5, 0.25],
    "cosine": [0.2 + 0.8 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3)],
}


@pytest.mark.parametrize("name", RATES)
def test_step_sizes_change_as_the_rate_says(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every epoch is one of experts whose constant step size is that epoch's, and which go on from the same parameters."""
    monkeypatch.setattr(trainer_module.Trainer, "group", 1)
    made = task(**RATES[name], num_experts=1, momentum=0.0)
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    store = train_experts(made, EPOCHS)
    material, labels = material_of(made), material_of(made).labels
    for epoch, factor in enumerate(FACTORS[name]):
        how = dataclasses.replace(material.how, optimiser=Sgd(0.05 * factor), rate=Constant(), epochs=epoch + 1)
        start = store.read(0, epoch)
        expected = train(made.network, start, material.images, labels, how, seed=0, key=("expert", 0), first_epoch=epoch)
        assert (store.read(0, epoch + 1) - expected).abs().max() < 1e-6 * expected.abs().max()
        assert not torch.equal(expected, start)


@pytest.mark.parametrize("optimiser", ["sgd", "gsam"])
def test_with_a_rate_in_step_is_alone_and_a_later_end_changes_nothing(
    optimiser: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Trained to epoch 1 and then on, alone or in step: the same step sizes, because the rate has epochs of its own."""
    made = task(rate="cosine", rate_epochs=3, optimiser=optimiser, rho_min=0.0, rho_max=0.3, train_epochs=1)
    whole = dataclasses.replace(made, settings=dataclasses.replace(made.settings, train_epochs=3))
    alone = trajectories(monkeypatch, tmp_path / "alone", whole)
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "later"))
    first = train_experts(made, [0, 1])
    later = train_experts(whole, EPOCHS)
    assert later.path == first.path
    assert torch.equal(torch.stack([torch.stack([later.read(s, epoch) for epoch in EPOCHS]) for s in range(4)]), alone)
    monkeypatch.setattr(trainer_module.Trainer, "group", 4)
    monkeypatch.setattr(trainer_module.Trainer, "train", in_step)
    together = trajectories(monkeypatch, tmp_path / "together", whole)
    assert (together - alone).abs().max() < 1e-4 * alone.abs().max()


def test_momentum_starts_anew_with_the_drop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The epoch after the drop is that of an expert that has just begun to move, also where training was stopped right before."""
    monkeypatch.setattr(trainer_module.Trainer, "group", 1)
    made = task(rate="drop_at_half", num_experts=1, momentum=0.9)
    cut = dataclasses.replace(made, settings=dataclasses.replace(made.settings, rate_epochs=3, train_epochs=2))
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    train_experts(cut, [0, 2])
    store, material = train_experts(made, EPOCHS), material_of(made)
    how = dataclasses.replace(material.how, optimiser=Sgd(0.05 * 0.1, 0.9), rate=Constant(), epochs=3)
    targets = material.labels
    expected = train(made.network, store.read(0, 2), material.images, targets, how, seed=0, key=("expert", 0), first_epoch=2)
    assert (store.read(0, 3) - expected).abs().max() < 1e-6 * expected.abs().max()


def test_gsams_radius_goes_with_the_step_size() -> None:
    rho = {"optimiser": "gsam", "rho_min": 0.02, "rho_max": 0.1, "expert_lr": 0.5}
    for rate, factors in (
        ("constant", {1.0: 0.1}),
        ("drop_at_half", {1.0: 0.1, 0.1: 0.02}),
        ("cosine", {1.0: 0.1, 0.6: 0.06, 0.2: 0.02}),
    ):
        optimiser = trainer_module.optimiser_of(ExpertSettings(**rho, rate=rate, lr_min=0.1))  # type: ignore[arg-type]
        assert isinstance(optimiser, Gsam)
        assert {factor: optimiser.rho(factor) for factor in factors} == pytest.approx(factors)
    steps = trainer_module.optimiser_of(ExpertSettings(**rho, rate="steps", rate_milestones=(0.1, 0.2), rate_factor=0.5))  # type: ignore[arg-type]
    assert isinstance(steps, Gsam)
    assert [steps.rho(factor) for factor in (1.0, 0.5, 0.25)] == pytest.approx([0.1, 0.02 + 0.08 / 3, 0.02])


def test_one_that_goes_on_from_its_beginning_is_in_step_with_new_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone = trajectories(monkeypatch, tmp_path / "alone", task())
    monkeypatch.setattr(trainer_module.Trainer, "train", in_step)
    monkeypatch.setattr(trainer_module.Trainer, "group", 4)
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "mixed"))
    train_experts(task(num_experts=1), [0])
    store = train_experts(task(), EPOCHS)
    found = torch.stack([torch.stack([store.read(expert, epoch) for epoch in EPOCHS]) for expert in range(4)])
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-3)
    assert torch.equal(found[:, 0], alone[:, 0])
