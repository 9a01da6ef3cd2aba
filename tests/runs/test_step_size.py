"""The step size that a set is evaluated at: the one it learned, or else the best on the validation split."""

from pathlib import Path
from typing import Any

import pytest

from limbeck.accuracy import Accuracy
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.evaluator import RANDOM_RATES, Evaluator
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill

SMALL = {
    "data.size": "16",
    "data.per_class": "8",
    "data.val_fraction": "0.25",
    "network": "ConvNetD1-w4",
    "experts.num_experts": "1",
    "experts.train_epochs": "2",
    "match.syn_steps": "1",
    "match.expert_epochs": "1",
    "schedule.max_start_epoch": "1",
    "outer.iterations": "1",
    "outer.syn_lr_init": "0.02",
    "real.batch": "2",
    "engine.compile": "no",
    "eval.every": "1",
    "eval.every_seeds": "1",
    "eval.epochs": "1",
    "eval.seeds": "2",
    "eval.full_epochs": "1",
    "eval.random_lr": "0.01",
}
LIKES = 0.05  # the step size that the evaluation is made to like


def step_sizes(monkeypatch: pytest.MonkeyPatch, path: Path, **changes: str) -> tuple[float, list[float]]:
    """η of the set of a run, and those that were tried on the validation split beside the start's."""
    seen: list[float] = []

    def distilled(self: Evaluator, small: SmallSet, *, split: str = "test", **others: Any) -> Accuracy:
        assert split == "val" and small.syn_lr is not None
        seen.append(small.syn_lr)
        return Accuracy(mean=0.5 if small.syn_lr == LIKES else 0.1)

    monkeypatch.setattr(Evaluator, "distilled", distilled)
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    distill(load_recipe("scenes", SMALL | changed), path)
    return DistilledSet.load(path / "distilled").syn_lr, sorted({rate for rate in seen if abs(rate - 0.02) > 1e-6})


@pytest.mark.parametrize("method", ["dc", "dm"])
def test_without_a_learned_step_size_the_best_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str) -> None:
    found, tried = step_sizes(monkeypatch, tmp_path / "run", method=method)
    assert found == LIKES and tried == sorted(RANDOM_RATES)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "mtt", "outer__lr_lr": "0"},  # its students were trained with it
        {"method": "dm", "outer__lr_lr": "0.1"},
        {"method": "dm", "eval__protocol": "dd-published"},  # no images to choose on
    ],
)
def test_otherwise_the_sets_own_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, str]) -> None:
    found, tried = step_sizes(monkeypatch, tmp_path / "run", **changes)
    assert found == pytest.approx(0.02) and tried == []
