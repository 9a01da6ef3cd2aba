"""What a plan predicts, against what then happens."""

import dataclasses
import json
from pathlib import Path

import pytest

from limbeck.cli.main import main
from limbeck.networks.flat import flat_network
from limbeck.runs.distill import distill, train_experts
from limbeck.runs.plan import StandIn, plan
from limbeck.runtime.errors import UsageError
from tests.runs.test_distill import OVERRIDES, settings


def test_a_plan_is_the_sum_of_its_parts():
    result = plan(settings())
    assert result["seconds"] == pytest.approx(sum(result["parts"].values()))
    assert set(result["parts"]) == {"compile", "iterations", "maps", "comparisons", "checkpoints", "evaluations"}
    assert result["parts"]["iterations"] == pytest.approx(30 * result["seconds_per_iteration"])
    assert result["parts"]["maps"] > 0
    assert 2**26 < result["peak_memory"] < 2**35
    assert result["engine"] == {"compiled": False, "micro_batch": None, "kept": 0, "on_host": False}


def test_more_of_everything_takes_longer():
    few, many = plan(settings()), plan(settings(**{"outer.iterations": "3000", "eval.epochs": "4000"}))
    for part in ("iterations", "maps", "comparisons", "evaluations"):
        assert many["parts"][part] > 5 * few["parts"][part]


def test_the_experts_stage_takes_nothing_once_they_are_there(cache: Path):
    first = plan(settings())["experts"]
    assert not list(cache.glob("experts/*"))
    assert (first["missing_experts"], first["epochs"]) == (2, 8)
    assert first["seconds"] == pytest.approx(sum(first["parts"].values()))
    assert first["seconds"] > 0
    assert first["to_write"] == first["disk"]
    store = train_experts(settings())
    assert first["disk"] == pytest.approx(store.summary().bytes, rel=0.1)
    found = plan(settings())["experts"]
    nothing = {"seconds": 0.0, "parts": {}, "at_once": 0, "missing_experts": 0, "epochs": 0, "to_write": 0}
    assert found == first | nothing
    more = plan(settings(experts__num_experts="3"))["experts"]
    assert (more["missing_experts"], more["epochs"]) == (1, 4)
    assert more["seconds"] > 0


def test_parts_that_are_switched_off_cost_nothing():
    result = plan(settings(**{"enhance.weighting": "none", "match.criterion": "none"}))
    assert result["parts"]["maps"] == 0


def test_advice():
    result = plan(settings(**{"eval.every": "1", "eval.epochs": "2000"}))
    assert any("raise eval.every (1)" in sentence for sentence in result["advice"])


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
    assert set(results.peak_memory) == set(results.seconds) == {"experts", "initial", "compile", "distil", "evaluate"}
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
