"""The memory of a GPU that is not there: what is counted is linear in the steps, and is what a longer count finds."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from runs.small_run import OVERRIDES

from limbeck.cli.main import main
from limbeck.runs.computed import computed
from limbeck.runtime.devices import STAND_IN
from tests.device_paths import rehearsed


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"engine.kind": "unroll"},
        {"match.batch_syn": 3, "engine.micro_batch": 2},
        pytest.param({"match.batch_syn": 3, "match.small_chunk": "first"}, marks=pytest.mark.slow),
        {"match.relabel": True, "outer.lr_label": 0.0},
    ],
)
def test_few_steps_tell_what_many_take(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.runs.computed._evaluation", lambda *_: 0)  # which has no steps
    workspace = rehearsed(STAND_IN, "edf", **{"match.syn_steps": 9, **keys})
    told = computed(workspace).stages["iterations"]
    longer = computed(rehearsed(STAND_IN, "edf", **{"match.syn_steps": 12, **keys})).stages["iterations"]
    theta = 4 * workspace.network.num_parameters
    assert longer - told == 3 * theta if "engine.kind" not in keys else longer - told > 3 * theta
    monkeypatch.setattr("limbeck.runs.computed.FEW_STEPS", 9)
    # Every step draws an augmentation of its own, and at this size these count.
    assert told == pytest.approx(computed(workspace).stages["iterations"], rel=0.2)


def test_what_is_held_has_a_closed_form() -> None:
    """X (twice, since the start is kept), its velocity and average, Y and F, and two networks, in CUDA's grains."""
    found = computed(rehearsed(STAND_IN, "edf"), validation_images=100)
    x, y = 4 * 8 * 3 * 16 * 16, 4 * 8 * 4
    networks = 8 * rehearsed(STAND_IN, "edf").network.num_parameters
    grain = 512  # of Y, its velocity and that of η
    assert found.held == x + y + networks + (3 * x + 8 * 16 * 16 * 4 + 3 * grain)
    assert found.peak == found.held + max(found.stages.values())
    assert found.stages["evaluations"] > 100 * 4 * 3 * 16 * 16


def test_of_slots_what_is_stored_is_held() -> None:
    """P in the place of X; Y and F are of the images, of which there are four times as many."""
    stored = {"parametrisation.kind": "multi"}
    found = computed(rehearsed(STAND_IN, "edf", **stored))
    p, y, f, grain = 4 * 8 * 3 * 16 * 16, 4 * 32 * 4, 4 * 32 * 16 * 16, 512
    networks = 8 * rehearsed(STAND_IN, "edf").network.num_parameters
    assert found.held == p + y + networks + 3 * p + f + 3 * grain
    assert found.stages["iterations"] > computed(rehearsed(STAND_IN, "edf")).stages["iterations"]


def test_the_command_plans_for_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = [f"{key}={value}" for key, value in {**OVERRIDES, "enhance.cam": "gradcam"}.items()]
    assert main(["plan", "scenes", "--device", "cuda", "--devices", "4", "--json", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    one, *_, four = found["scaling"]["rows"]
    assert (one["memory"], one["seconds"], found["scaling"]["useful"]) == (found["peak_memory"], None, None)
    assert four["memory_sharded"] < four["memory"] <= one["memory"]
    assert four["sent"] > 0 and four["talk"] > 0
    assert (found["device"], found["seconds"], found["seconds_per_iteration"], found["parts"]) == ("cuda", None, None, {})
    assert 2**20 < found["peak_memory"] < 2**28
    assert main(["plan", "scenes", "--device", "cuda", *words]) == 0
    shown = capsys.readouterr().out
    assert "no CUDA device is here" in shown and "an iteration" not in shown and "in all" not in shown


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("CIFAR-100, IPC 10, DATM", 4e9), ("ImageNette, IPC 50, EDF", 16e9)])
def test_published_settings_fit(name: str, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    gpu_memory = importlib.import_module("gpu_memory")
    case = next(case for case in gpu_memory.cases() if case.name == name)
    found = gpu_memory.row(case, {"4GB": {"memory": "4GB"}})["ways"]["4GB"]
    assert found["peak"] <= most
