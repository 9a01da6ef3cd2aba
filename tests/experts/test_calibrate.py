"""What the experts' stage is predicted to take: sums against closed forms, sets against what is trained, what is measured."""

import dataclasses
import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from experts.test_train import task
from experts.walks import Walker, filled

from limbeck.experts import calibrate, trainer
from limbeck.experts.calibrate import Pace, _sets, _timed, _Trials, difficulty_seconds, forecast
from limbeck.experts.files import Job
from limbeck.experts.imported import import_lists
from limbeck.experts.store import Want, missing_jobs, want_of
from limbeck.experts.train import ExpertTask, fill, material_of, scoring_of, train_experts
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress

PACE = Pace(step=1.0, look=10.0, keep=100.0)


def want(made: ExpertTask, epochs: Sequence[int]) -> Want:
    return want_of(made.settings, epochs)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


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
    """A step takes 1 s, a look 10, a checkpoint 100, twice that side by side, workers 1000 to start; how many were asked for."""
    asked: list[int] = []

    def pace(self: _Trials, together: int) -> Pace:
        asked.append(together)
        if together > 1:
            self.starting = 1000.0
        return dataclasses.replace(PACE, step=PACE.step * (1 + (together > 1)))

    monkeypatch.setattr(_Trials, "pace", pace)
    return asked


def test_the_sum_on_one_core(monkeypatch: pytest.MonkeyPatch, paced: list[int]) -> None:
    for module in (calibrate, trainer):
        monkeypatch.setattr(module, "cores", lambda: 1)
    made = task(num_experts=3, train_epochs=40, label_experts=1)
    found = forecast(made, want(made, [0, 1]), None)
    per_epoch = len(made.data.train) / 16  # steps, a last batch of half the size counting half
    assert found["at_once"] == 1
    assert set(paced) == {1}
    assert found["parts"]["steps"] == pytest.approx(42 * per_epoch)
    assert found["parts"]["accuracies"] == 42 * 10
    # Epochs 0 and 1 of three experts, 40 of one; on the way there a point every eight epochs.
    assert found["parts"]["checkpoints"] == 100 * (2 * 2 + 3 + (40 - 3) // 8)
    assert found["parts"]["workers"] == 0
    assert found["seconds"] == pytest.approx(sum(found["parts"].values()))


def test_the_sum_with_workers(monkeypatch: pytest.MonkeyPatch, paced: list[int]) -> None:
    for module in (calibrate, trainer):
        monkeypatch.setattr(module, "cores", lambda: 2)
    made = task(num_experts=3, train_epochs=10)
    found = forecast(made, want(made, [0]), None)
    per_epoch = len(made.data.train) / 16
    # Two side by side at two seconds a step, then one alone; three gradients and a first one before the decision.
    assert found["at_once"] == 2
    assert found["parts"]["steps"] == pytest.approx(10 * per_epoch * (2 + 1))
    assert found["parts"]["accuracies"] == 2 * 10 * 10
    assert found["parts"]["workers"] == 4 + 1000
    monkeypatch.setattr(calibrate, "WORKERS_FROM_SECONDS", 1e9)
    found = forecast(made, want(made, [0]), None)
    assert found["at_once"] == 1
    assert found["parts"]["steps"] == pytest.approx(3 * 10 * per_epoch)
    assert found["parts"]["workers"] == 4


def test_only_what_is_missing_counts(paced: list[int]) -> None:
    first = task(num_experts=1)
    store = train_experts(first, [0, 2])
    assert forecast(first, want(first, [0, 2]), store) == {"seconds": 0.0, "parts": {}, "at_once": 0}
    assert paced == []
    per_epoch = len(first.data.train) / 16
    longer = task(num_experts=1, train_epochs=5)
    assert forecast(longer, want(longer, [0, 2]), store)["parts"]["steps"] == pytest.approx(2 * per_epoch)


def test_an_imported_store_that_lacks_something_is_refused(tmp_path: Path) -> None:
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 10)
    lists = [[[torch.full(shape, float(epoch)) for shape in network.shapes.values()] for epoch in range(4)]]
    torch.save(lists, tmp_path / "replay_buffer_0.pt")
    path = import_lists([tmp_path / "replay_buffer_0.pt"], tmp_path / "store", network).path
    made = task(store=str(path), num_experts=1)
    assert forecast(made, want(made, [0]), made.find_store())["seconds"] == 0
    longer = task(store=str(path), num_experts=1, train_epochs=4)
    with pytest.raises(UsageError, match="^experts.store: .* was imported and lacks epochs 4 of expert 0$"):
        forecast(longer, want(longer, [0]), longer.find_store())


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9, "dtype": "half"}, {"optimiser": "gsam"}])
def test_a_forecast_measures_and_leaves_nothing(cache: Path, changes: dict[str, object]) -> None:
    made = task(**changes)
    assert made.find_store() is None
    before = files(cache)
    found = forecast(made, want(made, [0]), None)
    assert all(found["parts"][part] > 0 for part in ("images", "steps", "accuracies", "checkpoints"))
    assert 0 < found["seconds"] < 60
    assert files(cache) == before
    empty = made.data.val.take(made.data.val.rows[:0])
    alone = dataclasses.replace(made, data=dataclasses.replace(made.data, val=empty))
    assert forecast(alone, want(alone, [0]), None)["seconds"] > 0


def test_difficulties_count_unless_they_are_known() -> None:
    made = task(curriculum="pad")
    scoring = scoring_of(made, material_of(made))
    assert not scoring.held()
    found = forecast(made, want(made, [0]), None)
    assert found["parts"]["difficulty"] > 0
    scoring.curriculum(NoProgress())
    found = forecast(made, want(made, [0]), None)
    assert found["parts"]["difficulty"] == 0
    assert difficulty_seconds(scoring) > 0


def test_a_curriculum_takes_fewer_steps(paced: list[int]) -> None:
    made = task(curriculum="pad", num_experts=1)
    per_class = len(made.data.train) // 10
    found = forecast(made, want(made, [0]), None)
    counts = [10 * int((0.75 + 0.0125 * epoch) * per_class) for epoch in range(3)]
    assert found["parts"]["steps"] == pytest.approx(sum(counts) / 16)


def test_what_a_worker_gets_can_be_sent() -> None:
    made = task(num_experts=1)
    material = material_of(made)
    few = pickle.loads(pickle.dumps(_Trials(material, "half").few))
    assert few.coding == "half"
    assert few.gradient().compile == material.gradient().compile
    assert len(few.pool(0)) == 16
    assert _timed((few, 1)).pace.step > 0


def test_experts_in_step_are_timed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where a group shares its steps."""
    monkeypatch.setattr(trainer.Trainer, "train", trainer.Trainer._together)
    few = _Trials(material_of(task(num_experts=3, momentum=0.5)), "fp32").few
    timing = _timed((few, 3))
    assert timing.pace.step > 0
    assert timing.seconds > timing.pace.step


@pytest.mark.slow
def test_workers_are_timed_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "cores", lambda: 2)
    trials = _Trials(material_of(task()), "fp32")
    assert trials.pace(2).step > 0
    assert trials.starting > 0.5
