"""Experts in several processes and in step are the experts that are trained alone; GSAM and the curriculum are what they say."""

import dataclasses
from pathlib import Path

import pytest
import torch

from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.load import load_data
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.settings import DataSettings
from limbeck.experts import trainer as trainer_module
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.train import ExpertTask, train_experts
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.training import compute
from limbeck.training.optimisers import Gsam, Sgd

EPOCHS = [0, 1, 2, 3]


def task(**changes: object) -> ExpertTask:
    settings = DataSettings(source="scenes:easy", size=8, per_class=6, val_fraction=0.34)
    data = load_data(settings)
    made = ExpertSettings(num_experts=4, train_epochs=3, expert_lr=0.05, batch_size=16, momentum=0.5)
    parts = (data, fit_preprocessing(settings, data.train), flat_network("ConvNetD1-w4", data.shape, data.num_classes))
    return ExpertTask(*parts, dataclasses.replace(made, **changes), AugmentSettings(), 0, torch.device("cpu"))


def trajectories(monkeypatch: pytest.MonkeyPatch, folder: Path, made: ExpertTask) -> torch.Tensor:
    """θ of all experts and epochs, with shape (S, epochs, P), from a cache of their own."""
    with monkeypatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(folder))
        store = train_experts(made, EPOCHS)
        return torch.stack([torch.stack([store.read(expert, epoch) for epoch in EPOCHS]) for expert in range(4)])


def test_processes_change_no_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone = trajectories(monkeypatch, tmp_path / "alone", task())
    monkeypatch.setattr(compute, "WORKERS_FROM_SECONDS", 0.0)
    for module in (compute, trainer_module):
        monkeypatch.setattr(module, "cores", lambda: 2)
    assert torch.equal(trajectories(monkeypatch, tmp_path / "processes", task()), alone)


def test_in_step_is_alone_up_to_rounding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone = trajectories(monkeypatch, tmp_path / "alone", task())
    monkeypatch.setattr(trainer_module.Trainer, "group", 4)
    monkeypatch.setattr(trainer_module.Trainer, "train", trainer_module.Trainer._together)
    together = trajectories(monkeypatch, tmp_path / "together", task())
    assert (together - alone).abs().max() < 1e-4 * alone.abs().max()
    assert not torch.allclose(together[0], together[1], atol=1e-3)


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
    ],
)
def test_settings_are_checked(changes: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExpertSettings(**changes)
