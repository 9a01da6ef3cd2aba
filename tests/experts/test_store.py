"""The trajectory store and the training that fills it."""

import dataclasses
from pathlib import Path

import pytest
import torch

from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.load import load_data
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.settings import DataSettings
from limbeck.experts import train as experts
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.store import TrajectoryStore
from limbeck.experts.train import ExpertTask, train_experts
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import Failure, UsageError

METADATA = {"network": "ConvNetD1-w4", "num_parameters": 5, "dtype": "float32", "seed": 0}


def task(**changes: object) -> ExpertTask:
    settings = DataSettings(source="scenes:easy", size=8, per_class=6, val_fraction=0.34)
    data = load_data(settings)
    made = ExpertSettings(num_experts=2, train_epochs=3, expert_lr=0.05, batch_size=16)
    parts = (data, fit_preprocessing(settings, data.train), flat_network("ConvNetD1-w4", data.shape, data.num_classes))
    return ExpertTask(*parts, dataclasses.replace(made, **changes), AugmentSettings(), 0, torch.device("cpu"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    thetas = {epoch: torch.randn(5) for epoch in (0, 2, 7)}
    store = TrajectoryStore(tmp_path, METADATA)
    store.write(3, thetas, {"val_accuracy": [0.5]})
    again = TrajectoryStore(tmp_path, METADATA)
    for epoch, theta in thetas.items():
        assert torch.equal(again.read(3, epoch), theta)
    assert again.holds(3, [0, 2, 7])
    assert not again.holds(3, [1])
    assert not again.holds(0, [0])
    assert again.summary()["epochs"] == [0, 2, 7]
    assert again.log(3) == {"val_accuracy": [0.5]}


def test_half_width_keeps_eleven_bits(tmp_path: Path) -> None:
    theta = torch.rand(5) + 1
    store = TrajectoryStore(tmp_path, {**METADATA, "dtype": "float16"})
    store.write(0, {0: theta}, {})
    read = store.read(0, 0)
    assert read.dtype == torch.float32
    assert ((read - theta).abs() <= 2**-11).all()


def test_other_metadata_are_refused(tmp_path: Path) -> None:
    TrajectoryStore(tmp_path, METADATA)
    with pytest.raises(UsageError, match=r"was made with seed 0, not 1$"):
        TrajectoryStore(tmp_path, {**METADATA, "seed": 1})


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a trajectory store"):
        TrajectoryStore(tmp_path)
    store = TrajectoryStore(tmp_path, METADATA)
    store.write(0, {0: torch.ones(5)}, {})
    (file,) = tmp_path.glob("expert-*/*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UsageError, match=r"epochs-0000-0000-[0-9a-f]{8}.safetensors' is broken"):
        TrajectoryStore(tmp_path)


def test_only_what_is_wanted_is_kept_and_a_second_run_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = train_experts(task(), [0, 2])
    assert store.summary()["epochs"] == [0, 2, 3]
    assert not torch.equal(store.read(0, 0), store.read(1, 0))
    assert len(store.log(1)["val_accuracy"]) == 3
    monkeypatch.setattr(experts, "train", lambda *_, **__: pytest.fail("an expert was trained again"))
    assert train_experts(task(), [0, 2]).path == store.path
    assert train_experts(task(num_experts=1), [2]).path == store.path


def test_an_interrupted_run_goes_on_and_ends_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = train_experts(task(), [0, 2])
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    real, calls = experts.train, []

    def stops(*args: object, **kwargs: object) -> object:
        calls.append(kwargs["key"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(experts, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        train_experts(task(), [0, 2])
    resumed = train_experts(task(), [0, 2])
    assert calls == [("expert", 0), ("expert", 1), ("expert", 1)]
    for expert in (0, 1):
        for epoch in (0, 2, 3):
            assert torch.equal(resumed.read(expert, epoch), whole.read(expert, epoch))


def test_more_epochs_and_experts_extend_a_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = train_experts(task(num_experts=1), [0, 1])
    more = train_experts(task(), [0, 2])
    reopened = TrajectoryStore(first.path)
    assert more.path == first.path
    assert more.held(1) == [0, 2, 3]
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    fresh = train_experts(task(num_experts=1), [0, 1, 2])
    for store, epochs in ((first, [0, 1, 3]), (more, [0, 1, 2, 3]), (reopened, [0, 1, 2, 3])):
        assert store.held(0) == epochs
        for epoch in epochs:  # also in the store that was opened before the extension
            assert torch.equal(store.read(0, epoch), fresh.read(0, epoch))


def test_a_file_that_holds_more_supplies_every_epoch(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, METADATA)
    store.write(0, {0: torch.zeros(5), 4: torch.zeros(5)}, {})
    store.write(0, {0: torch.ones(5), 2: torch.ones(5), 4: torch.ones(5)}, {})
    for opened in (store, TrajectoryStore(tmp_path)):
        assert [opened.read(0, epoch).tolist() for epoch in (0, 2, 4)] == [[1.0] * 5] * 3


def test_the_experts_use_their_own_crop_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(experts, "train", lambda n, t, i, y, how, **_: used.append((how.augment, how.optimiser.lr)) or t)
    monkeypatch.setattr(TrajectoryStore, "write", lambda *_: None)
    train_experts(task(crop_ratio=0.5), [0])
    assert used == [(AugmentSettings(crop_ratio=0.5), 0.05)] * 2


@pytest.mark.parametrize(
    "change", [{"expert_lr": 0.1}, {"train_epochs": 4}, {"batch_size": 8}, {"crop_ratio": 0.5}, {"dtype": "float16"}]
)
def test_whatever_changes_the_experts_changes_the_store(change: dict[str, object]) -> None:
    assert train_experts(task(**change), [0]).path != train_experts(task(), [0]).path


def test_an_expert_without_its_log_is_trained_again() -> None:
    store = train_experts(task(), [0])
    (store.path / "expert-0001" / "log.json").write_text("{")
    assert not store.holds(1, [0])
    assert len(train_experts(task(), [0]).log(1)["val_accuracy"]) == 3


def test_divergence_is_a_failure_that_names_the_key() -> None:
    with pytest.raises(Failure, match=r"experts.expert_lr \(1e\+30\) is too large"):
        train_experts(task(expert_lr=1e30), [0])
