"""What a store is predicted to take, against what it takes."""

import dataclasses
from pathlib import Path

import pytest
from experts.walks import IDENTITY, Walker, filled

from limbeck.experts.estimate import estimate
from limbeck.experts.store import TrajectoryStore, Want, missing_jobs
from limbeck.experts.train import fill
from limbeck.runtime.executor import Shard


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
