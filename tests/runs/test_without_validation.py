"""Without validation images nothing is chosen among the iterations, and the last one is the result."""

from pathlib import Path

import numpy as np
import pytest

from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill
from limbeck.runs.plan import plan
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.metrics import read_metrics

TINY = {
    "data.source": "scenes:easy",
    "data.size": "8",
    "data.per_class": "6",
    "data.val_fraction": "0",
    "network": "ConvNetD1-w4",
    "method": "dm",
    "real.batch": "4",
    "outer.iterations": "3",
    "engine.compile": "no",
    "features": "none",
    "eval.every": "1",
    "eval.epochs": "2",
    "eval.seeds": "2",
    "eval.full_epochs": "1",
    "eval.random_lr": "0.01",
}


def settings(**changes: str) -> DistillSettings:
    return load_recipe("scenes", TINY | {key.replace("__", "."): value for key, value in changes.items()})


def test_the_last_iterate_is_the_result_and_the_last_look_counts(tmp_path: Path) -> None:
    found = distill(settings(eval__protocol="ncfm-2025"), tmp_path / "run")
    looks = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "evaluation"]
    assert [row["accuracy"] for row in looks] == [None] * 4 and found.best_iteration == 3
    own = found.accuracy.distilled
    assert own.best_on_test is not None and own.best_on_test.mean >= own.mean
    assert found.evaluation.protocol["chosen_on"] == "none"
    assert "; above, the last one" in " ".join(" ".join(map(str, found.evaluation.parts)).split())


def test_a_protocol_without_validation_chooses_by_no_images_of_the_source_either(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8), np.arange(24) % 2
    np.savez(tmp_path / "photos.npz", x_train=x, y_train=y, x_val=x[:6], y_val=y[:6], x_test=x[:8], y_test=y[:8])
    asked = settings(data__source=str(tmp_path / "photos.npz"), data__per_class="null", eval__protocol="dd-published")
    distill(asked, tmp_path / "run")
    looks = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "evaluation"]
    assert [row["accuracy"] for row in looks] == [None] * 4


def test_a_protocol_that_chooses_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^eval\.protocol: 'edf-2024' is not one for a run without validation images"):
        distill(settings(eval__protocol="edf-2024"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_counts_no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan(settings())
    assert found.parts["evaluations"] == 0 and found.evaluation is not None and found.evaluation > 0
