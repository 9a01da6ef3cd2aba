"""What a plan predicts, against what then happens."""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs.small_run import OVERRIDES, settings

from limbeck.cli.main import main
from limbeck.matching.engine import Arrangement
from limbeck.networks.flat import flat_network
from limbeck.recipes import load_recipe, settings_from_plain
from limbeck.runs.advice import less_memory
from limbeck.runs.distill import distill, train_experts
from limbeck.runs.plan import FEW, StandIn, _few_classes, plan
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress


def test_a_plan_is_the_sum_of_its_parts():
    result = plan(settings())
    assert result.seconds == pytest.approx(sum(result.parts.values()))
    assert set(result.parts) == {"compile", "iterations", "maps", "comparisons", "checkpoints", "evaluations"}
    assert result.parts["iterations"] == pytest.approx(30 * result.seconds_per_iteration)
    assert result.parts["maps"] > 0
    assert 2**26 < result.peak_memory < 2**35
    assert result.engine == Arrangement(compiled=False)


def test_more_of_everything_takes_longer():
    few, many = plan(settings()), plan(settings(**{"outer.iterations": "3000", "eval.epochs": "4000"}))
    for part in ("iterations", "maps", "comparisons", "evaluations"):
        assert many.parts[part] > 5 * few.parts[part]


def test_the_experts_stage_takes_nothing_once_they_are_there(cache: Path):
    first = plan(settings()).to_dict()["experts"]
    assert not list(cache.glob("experts/*"))
    assert (first["missing_experts"], first["epochs"]) == (2, 8)
    assert first["seconds"] == pytest.approx(sum(first["parts"].values()))
    assert first["seconds"] > 0
    assert first["to_write"] == first["disk"]
    store = train_experts(settings())
    assert first["disk"] == pytest.approx(store.summary().bytes, rel=0.1)
    found = plan(settings()).to_dict()["experts"]
    nothing = {"seconds": 0.0, "parts": {}, "at_once": 0, "missing_experts": 0, "epochs": 0, "to_write": 0}
    assert found == first | nothing
    more = plan(settings(experts__num_experts="3")).to_dict()["experts"]
    assert (more["missing_experts"], more["epochs"]) == (1, 4)
    assert more["seconds"] > 0


def test_parts_that_are_switched_off_cost_nothing():
    result = plan(settings(**{"enhance.weighting": "none", "match.criterion": "none"}))
    assert result.parts["maps"] == 0


def test_a_budget_that_is_named_is_filled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("limbeck.matching.engine.SMALL", 0)  # or all of so few steps are kept in any case
    auto, named = (plan(settings(engine__compile="yes", engine__memory=memory)).engine for memory in ("auto", "1GiB"))
    assert auto is not None and named is not None
    assert (auto.kept, named.kept) == (0, int(OVERRIDES["match.syn_steps"]))


def test_advice():
    result = plan(settings(**{"eval.every": "1", "eval.epochs": "2000"}))
    assert any("raise eval.every (1)" in sentence for sentence in result.advice)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"engine.kind": "unroll"}, "engine.kind=exact takes that of one step for the same gradient"),
        ({}, "set engine.memory, such as engine.memory=2GiB, or lower match.batch_syn"),
        ({"engine.memory": "1GiB"}, "lower engine.memory or lower match.batch_syn"),
        ({"method": "dm"}, "lower real.batch (64)"),
        ({"method": "sre2l"}, "lower sre2l.batch_size (100)"),
        ({"method": "random"}, ""),
    ],
)
def test_what_would_takeless_memory_is_what_the_method_reads(keys: dict[str, str], said: str):
    assert less_memory(Workspace(load_recipe("scenes", keys), NoProgress())) == said


def test_what_distill_refuses_is_refused():
    with pytest.raises(UsageError, match="^ipc: "):
        plan(settings(ipc="500"))


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    plan(settings())
    assert list(tmp_path.iterdir()) == []


def test_the_stand_in_moves_from_epoch_to_epoch():
    network = flat_network("ConvNetD2-w8", (3, 16, 16), 10)
    stand_in = StandIn(network, 0)
    first, again, later, other = (stand_in.read(*at, "cpu") for at in ((0, 1), (0, 1), (0, 3), (1, 1)))
    assert first.equal(again)
    assert not first.equal(later)
    assert not first.equal(other)


def test_results_note_time_and_memory_of_every_stage(tmp_path: Path):
    results = distill(dataclasses.replace(settings()), tmp_path / "run")
    assert set(results.peak_memory) == set(results.seconds) == {"experts", "initial", "compile", "distil", "evaluate", "features"}
    peaks = list(results.peak_memory.values())
    assert peaks == sorted(peaks)
    assert peaks[0] > 2**26


def test_the_command(capsys: pytest.CaptureFixture[str]):
    words = [f"{key}={value}" for key, value in OVERRIDES.items()]
    assert main(["plan", "scenes", "--json", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["stage"] == "distil"
    assert result["seconds"] > 0
    assert main(["plan", "scenes", *words]) == 0
    shown = capsys.readouterr().out
    assert "in all" in shown
    assert "the experts' stage before it" in shown
    assert "experts: 8 epochs of 2 are missing" in shown
    train_experts(settings())
    assert main(["plan", "scenes", *words]) == 0
    assert "experts: nothing is missing" in capsys.readouterr().out
    assert "MiB" in shown
    assert main(["plan", "nothing-of-that-name"]) == 2


@pytest.mark.slow
def test_a_large_recipe_is_planned_within_half_a_minute(tmp_path: Path, cache: Path):
    """Twelve hundred photos of 128×128, ten an image class, forty steps an iteration, EDF's network of five blocks."""
    draws = np.random.default_rng(0)
    for part, count in (("train", 110), ("test", 10)):
        for k in range(10):
            (tmp_path / part / f"class{k}").mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((160, 160)).save(tmp_path / part / f"class{k}" / f"{number:03d}.jpg")
    keys = {"data.source": str(tmp_path), "data.size": 128, "network": "ConvNetD5", "ipc": 10, "method": "edf"}
    made, before = settings_from_plain(keys, {}, origin="test"), {path for path in cache.rglob("*") if path.is_file()}
    began = time.perf_counter()
    result = plan(made)
    taken = time.perf_counter() - began
    print(
        f"planned in {taken:.1f} s: {result.seconds / 3600:.1f} hours, experts {result.to_dict()['experts']['seconds'] / 3600:.1f}"
    )
    assert taken < 30
    assert result.notes[0] == f"{FEW} of 1100 images were decoded"
    assert {path for path in cache.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("looked_at", "seconds"), [(1, 10.0), (10**9, 1.0)])
def test_methods_that_go_class_by_class_are_timed_on_few_classes(monkeypatch, looked_at, seconds):
    monkeypatch.setattr("limbeck.runs.plan.LOOKED_AT", looked_at)
    monkeypatch.setattr("limbeck.runs.plan.seconds_of", lambda work: 1.0)
    found = plan(settings(method="dm", **{"outer.iterations": "2", "eval.every": "2"}))
    assert found.seconds_per_iteration == seconds


def test_few_classes_are_whole_ones():
    labels = np.array([2, 0, 0, 1, 2, 1, 1])
    assert _few_classes(labels, 2**17).tolist() == [False, True, True, False, False, False, False]
    assert _few_classes(labels, 2**18).tolist() == [False, True, True, False, False, False, False]
    assert _few_classes(labels, 2**15).all()


def test_real_images_that_a_plan_does_not_look_at_are_said():
    batch = {"method": "dm", "outer.iterations": "2", "eval.every": "2"}
    assert not any("real.batch" in note for note in plan(settings(**batch, **{"real.batch": "4"})).notes)
    notes = plan(settings(**batch, **{"real.batch": "500"})).notes
    assert any("in the place of real.batch=500: it takes more" in note for note in notes)
