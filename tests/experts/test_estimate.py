"""What a store and its experts are predicted to take, against what they take, closed forms, and what is trained."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from experts.test_train import task
from experts.walks import IDENTITY, Walker, filled

from limbeck.experts import estimate as estimating
from limbeck.experts import trainer
from limbeck.experts.estimate import STARTING, Counts, Forecast, Pace, _sets, difficulty_seconds, estimate, few_of, forecast
from limbeck.experts.files import Job
from limbeck.experts.imported import import_lists
from limbeck.experts.notes import Want, want_of
from limbeck.experts.store import TrajectoryStore, missing_jobs
from limbeck.experts.train import ExpertTask, fill, material_of, scoring_of, train_experts
from limbeck.experts.trainer import ExpertSetup
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.executor import Shard
from limbeck.runtime.progress import NoProgress

PACE = Pace(step=1.0, look=10.0, keep=100.0)


def want(made: ExpertTask, epochs: Sequence[int]) -> Want:
    return want_of(made.settings, epochs)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("coding", "most"), [("fp32", 0.23), ("half", 0.12)])
@pytest.mark.parametrize("parameters", [320_010, 616_330])
def test_the_published_ten_images_per_class_take_little(coding: str, most: float, parameters: int) -> None:
    """Epochs 0 … 21 are reached, the last of 100 gives labels: ConvNetD3 at 32×32, ConvNetD5 at 128×128, 100 experts."""
    predicted = estimate(Want(100, tuple(range(22)), 100, 100, coding), parameters)
    assert predicted.list_format == 100 * 101 * 4 * parameters
    assert predicted.share <= most
    assert predicted.checkpoints == 23
    assert (predicted.missing_experts, predicted.epochs) == (100, 10_000)
    assert predicted.to_write == predicted.disk


@pytest.mark.parametrize("coding", ["fp32", "fp16", "half"])
def test_the_estimate_is_what_a_store_takes(tmp_path: Path, coding: str) -> None:
    want = Want(3, tuple(range(20)), 30, 2, coding)
    before = estimate(want, 700, state=1, store=TrajectoryStore(tmp_path, IDENTITY))
    assert before == estimate(want, 700, state=1)
    assert (before.missing_experts, before.epochs) == (3, 30 + 30 + 19)
    store = filled(tmp_path, want)
    assert before.disk == pytest.approx(store.summary().bytes, rel=0.1)
    wider = Want(4, tuple(range(25)), 30, 2, coding)
    after = estimate(wider, 700, state=1, store=store)
    assert (after.missing_experts, after.epochs) == (4, 3 * 5 + 24)
    assert estimate(wider, 700, store=store, shard=Shard(1, 2)).epochs == 10
    assert estimate(want, 700, state=1, store=store) == dataclasses.replace(before, missing_experts=0, epochs=0, to_write=0)


@pytest.mark.parametrize("group", [1, 2, 3, 9])
@pytest.mark.parametrize("shard", [Shard(), Shard(2, 2)])
def test_the_missing_jobs_are_those_that_are_trained(tmp_path: Path, group: int, shard: Shard) -> None:
    """Also where an expert goes on in two places: epochs 2 … 5 and 9 … 12 lie between those that are held."""
    store = filled(tmp_path, Want(3, (0, 1, 6, 7, 8), None, 0, "fp32"))
    want = Want(5, tuple(range(13)), 30, 2, "fp32")
    predicted = missing_jobs(want, store, shard)
    walker = Walker(store)
    fill(store, want, walker.train, shard=shard, group=group)
    assert sorted(walker.trained) == sorted((job.expert, job.start, job.stop) for jobs in predicted.values() for job in jobs)
    assert missing_jobs(want, store, shard) == {}


@pytest.mark.parametrize("group", [1, 2, 3])
def test_sets_are_what_is_trained_at_once(tmp_path: Path, group: int) -> None:
    store = filled(tmp_path, Want(3, (0, 1, 6, 7, 8), None, 0, "fp32"))
    wide = Want(5, tuple(range(13)), 30, 2, "fp32")
    predicted = [[(job.expert, job.start, job.stop) for job in jobs] for jobs in _sets(missing_jobs(wide, store), group)]
    walker, trained = Walker(store), list[list[tuple[int, int, int]]]()

    def train(jobs: Sequence[Job]) -> None:
        trained.append([(job.expert, job.start, job.stop) for job in jobs])
        walker.train(jobs)

    fill(store, wide, train, group=group)
    assert predicted == trained


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A step takes 1 s, a look 10, a checkpoint 100; of how many training images it was asked for."""
    asked: list[int] = []

    def pace(material: ExpertSetup, coding: str, counts: Counts) -> Pace:
        asked.append(counts.train)
        return PACE

    monkeypatch.setattr(estimating, "_pace", pace)
    return asked


def test_the_sum_on_one_core(monkeypatch: pytest.MonkeyPatch, paced: list[int]) -> None:
    monkeypatch.setattr(trainer, "cores", lambda: 1)
    made = task(num_experts=3, train_epochs=40, label_experts=1)
    found = forecast(made, want(made, [0, 1]), None)
    per_epoch = len(made.data.train) / 16  # steps, a last batch of half the size counting half
    assert found.at_once == 1
    assert found.parts["steps"] == pytest.approx(42 * per_epoch)
    assert found.parts["accuracies"] == 42 * 10
    # Epochs 0 and 1 of three experts, 40 of one; on the way there a point every eight epochs.
    assert found.parts["checkpoints"] == 100 * (2 * 2 + 3 + (40 - 3) // 8)
    assert found.parts["workers"] == 0
    assert found.seconds == pytest.approx(sum(found.parts.values()))


def test_the_sum_with_workers(monkeypatch: pytest.MonkeyPatch, paced: list[int]) -> None:
    monkeypatch.setattr(trainer, "cores", lambda: 2)
    made = task(num_experts=3, train_epochs=10)
    found = forecast(made, want(made, [0]), None)
    per_epoch = len(made.data.train) / 16
    # Two side by side, then one alone; three gradients and a first one before the decision.
    assert found.at_once == 2
    assert found.parts["steps"] == pytest.approx(10 * per_epoch * (1 + 1))
    assert found.parts["accuracies"] == 2 * 10 * 10
    assert found.parts["workers"] == 4 + STARTING
    monkeypatch.setattr(estimating, "WORKERS_FROM_SECONDS", 1e9)
    found = forecast(made, want(made, [0]), None)
    assert found.at_once == 1
    assert found.parts["steps"] == pytest.approx(3 * 10 * per_epoch)
    assert found.parts["workers"] == 4


def test_images_that_are_not_at_hand_are_counted(paced: list[int]) -> None:
    made = task(num_experts=1, train_epochs=10)
    found = forecast(made, want(made, [0]), None, Counts(1600, 160))
    assert paced == [1600]
    assert found.parts["steps"] == 10 * 100


def test_as_many_images_are_measured_with_as_take_a_moment() -> None:
    taken = {2: 0.25}
    asked: list[int] = []

    def seconds(few: int) -> float:
        asked.append(few)
        return taken[few]

    assert few_of(seconds, 100) == 4
    assert few_of(seconds, 3) == 3
    assert few_of(lambda few: 1e-6, 100) == 100
    assert few_of(lambda few: 30.0, 100) == 2


def test_only_what_is_missing_counts(paced: list[int]) -> None:
    first = task(num_experts=1)
    store = train_experts(first, [0, 2])
    assert forecast(first, want(first, [0, 2]), store) == Forecast()
    assert paced == []
    per_epoch = len(first.data.train) / 16
    longer = task(num_experts=1, train_epochs=5)
    assert forecast(longer, want(longer, [0, 2]), store).parts["steps"] == pytest.approx(2 * per_epoch)


def test_an_imported_store_that_lacks_something_is_refused(tmp_path: Path) -> None:
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 10)
    lists = [[[torch.full(shape, float(epoch)) for shape in network.shapes.values()] for epoch in range(4)]]
    torch.save(lists, tmp_path / "replay_buffer_0.pt")
    path = import_lists([tmp_path / "replay_buffer_0.pt"], tmp_path / "store", network).path
    made = task(store=str(path), num_experts=1)
    assert forecast(made, want(made, [0]), made.find_store()).seconds == 0
    longer = task(store=str(path), num_experts=1, train_epochs=4)
    with pytest.raises(UsageError, match="^experts.store: .* was imported and lacks epochs 4 of expert 0$"):
        forecast(longer, want(longer, [0]), longer.find_store())


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9, "dtype": "half"}, {"optimiser": "gsam"}])
def test_a_forecast_measures_and_leaves_nothing(cache: Path, changes: dict[str, object]) -> None:
    made = task(**changes)
    assert made.find_store() is None
    before = files(cache)
    found = forecast(made, want(made, [0]), None)
    assert all(found.parts[part] > 0 for part in ("images", "steps", "accuracies", "checkpoints"))
    assert 0 < found.seconds < 60
    assert files(cache) == before
    empty = made.data.val.take(made.data.val.rows[:0])
    alone = dataclasses.replace(made, data=dataclasses.replace(made.data, val=empty))
    assert forecast(alone, want(alone, [0]), None).seconds > 0


def test_difficulties_count_unless_they_are_known() -> None:
    made = task(curriculum="pad")
    scoring = scoring_of(made, material_of(made))
    assert not scoring.held()
    found = forecast(made, want(made, [0]), None)
    assert found.parts["difficulty"] > 0
    scoring.curriculum(NoProgress())
    found = forecast(made, want(made, [0]), None)
    assert found.parts["difficulty"] == 0
    assert difficulty_seconds(scoring, 100) > 0


def test_a_curriculum_takes_fewer_steps(paced: list[int]) -> None:
    made = task(curriculum="pad", num_experts=1)
    per_class = len(made.data.train) // 10
    found = forecast(made, want(made, [0]), None)
    shares = [0.75 + 0.0125 * epoch for epoch in range(3)]
    assert found.parts["steps"] == pytest.approx(sum(shares) * 10 * per_class / 16)
