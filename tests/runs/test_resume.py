"""What a run goes on from and what it refuses to, and that a killed one ends with the same bits."""

import json
import signal
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reliability.commands import Commands, Running
from runs.small_run import OVERRIDES, QUICK
from runs.small_run import quick as settings
from shared_cache import cache, cache_of_the_module  # noqa: F401

from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.evaluator import Evaluator
from limbeck.runs.decided import resolve
from limbeck.runs.distill import distill
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import read_json
from limbeck.runtime.locks import lock
from limbeck.runtime.metrics import read_metrics


def test_other_settings_or_images_are_not_resumed(tmp_path: Path) -> None:
    distill(settings(outer__iterations="1"), tmp_path / "run")
    with pytest.raises(UsageError, match=r"^output: .* is not empty; go on with --resume"):
        distill(settings(outer__iterations="1"), tmp_path / "run")
    with pytest.raises(UsageError, match=r"^outer.lr_img: 5.0 is not 20.0, which the run in"):
        distill(settings(outer__iterations="1", outer__lr_img="5"), tmp_path / "run", resume=True)
    state = read_json(tmp_path / "run" / "state.json")
    (tmp_path / "run" / "state.json").write_text(json.dumps(state | {"data": "other"}))
    with pytest.raises(UsageError, match=r"^data.source: the images of 'scenes:easy' have changed"):
        distill(settings(outer__iterations="1"), tmp_path / "run", resume=True)


def test_a_run_from_before_a_key_was_known_goes_by_its_default(tmp_path: Path) -> None:
    results = distill(settings(outer__iterations="2"), tmp_path / "run")
    file = tmp_path / "run" / "settings.json"
    held = read_json(file)
    del held["data"]["crop"], held["eval"]["teacher"]
    held["data"]["normalise"] = True  # as it was said before it had names
    file.write_text(json.dumps(held))
    assert distill(settings(outer__iterations="2"), tmp_path / "run", resume=True) == results
    with pytest.raises(UsageError, match=r"^eval.teacher: 'MLP' is not None"):
        distill(settings(outer__iterations="2", eval__teacher="MLP"), tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match="^data.normalise: 'imagenet' is not 'fitted', which the run in"):
        distill(settings(outer__iterations="2", data__normalise="imagenet"), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__size": "28"}, "network: 'ConvNetD2-w8' did not pad images of 28×28 pixels"),
        ({"experts__curriculum": "pad"}, "experts.curriculum: 'pad' took other images in some epochs"),
        ({"eval__protocol": "kd-rded"}, "eval.protocol: 'kd-rded' shuffled and cropped images otherwise"),
        ({"method": "sre2l", "sre2l__iterations": "1"}, "method: 'sre2l' shifted images to both sides"),
        ({}, ""),
    ],
)
def test_what_the_first_version_computed_otherwise_is_not_resumed(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    made = settings(outer__iterations="1", **changes)
    distill(made, tmp_path / "run")
    state = read_json(tmp_path / "run" / "state.json")
    assert state.pop("numerics") == 3
    distill(made, tmp_path / "run", resume=True)
    (tmp_path / "run" / "state.json").write_text(json.dumps(state))
    distill(made, tmp_path / "run", resume=True)  # what is finished is what it was
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(UsageError, match=f"^{said} when the run in .* was started; ") if said else nullcontext():
        distill(made, tmp_path / "run", resume=True)


def test_another_device_is_not_resumed(tmp_path: Path) -> None:
    distill(settings(outer__iterations="1"), tmp_path / "run")
    state = read_json(tmp_path / "run" / "state.json")
    state["resolved"]["device"] = "cuda"
    (tmp_path / "run" / "state.json").write_text(json.dumps(state))
    with pytest.raises(UsageError, match=r"^engine.device: 'cpu' is not 'cuda'"):
        distill(settings(outer__iterations="1"), tmp_path / "run", resume=True)


def test_what_was_decided_before_the_first_result_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And how long it took: other cores decide nothing anew."""
    whole = distill(settings(outer__iterations="1"), tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Workspace, "initial", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        distill(settings(outer__iterations="1"), tmp_path / "run")
    before = read_json(tmp_path / "run" / "state.json")
    changed = {**before, "stages": {**before["stages"], "experts": 1000.0}}
    (tmp_path / "run" / "state.json").write_text(json.dumps(changed))
    monkeypatch.setattr("limbeck.runs.folder.resolve", lambda made: replace(resolve(made), threads=7))
    results = distill(settings(outer__iterations="1"), tmp_path / "run", resume=True)
    after = read_json(tmp_path / "run" / "state.json")
    assert after["resolved"]["threads"] == before["resolved"]["threads"] and results.seconds["experts"] >= 1000
    assert torch.equal(results.distilled.images, whole.distilled.images)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with lock(tmp_path / "run" / ".run"), pytest.raises(UsageError, match=r"^output: another process is running in"):
        distill(settings(), tmp_path / "run")
    assert not (tmp_path / "run" / "settings.json").exists()


def test_what_failed_before_its_first_result_can_be_started_anew(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"experts.expert_lr \(1e\+30\) is too large"):
        distill(settings(experts__expert_lr="1e30"), tmp_path / "run")
    assert distill(settings(outer__iterations="1"), tmp_path / "run").accuracy.distilled.n == 2


def test_the_final_evaluation_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(Failure, match="diverged"):
        patched.setattr(Evaluator, "full", lambda *_: (_ for _ in ()).throw(Failure("diverged")))
        distill(settings(outer__iterations="1"), tmp_path / "run")
    held = DistilledSet.load(tmp_path / "run" / "distilled")
    results = distill(settings(outer__iterations="1", eval__seeds="3"), tmp_path / "run", resume=True)
    assert results.accuracy.distilled.n == 3
    assert torch.equal(DistilledSet.load(tmp_path / "run" / "distilled").images, held.images)
    more = distill(settings(outer__iterations="1", eval__seeds="2"), tmp_path / "run", resume=True)
    assert more.accuracy.distilled.values == results.accuracy.distilled.values[:2]


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "settings.json", "state.json", "metrics.jsonl"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    made = settings(outer__iterations="1")
    distill(made, tmp_path / "run")
    if name in ("checkpoint.safetensors", "metrics.jsonl"):
        (tmp_path / "run" / "results.json").unlink()
    file = tmp_path / "run" / name
    for path in [file, *(file.parent.glob("checkpoint-*") if name.startswith("checkpoint") else ())]:
        path.write_bytes(b"\xff" + path.read_bytes()[:20])
    with pytest.raises(UsageError, match=f"^output: .*{name}' is broken"):
        distill(made, tmp_path / "run", resume=True)


def test_a_first_write_that_was_cut_off_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".settings.json.x.part").write_text("{")
    assert distill(settings(outer__iterations="1"), tmp_path / "run").best_iteration in (0, 1)


def test_a_key_that_the_method_never_reads_may_change(tmp_path: Path) -> None:
    distill(settings(method="mtt", outer__iterations="2"), tmp_path / "run")
    file = tmp_path / "run" / "settings.json"
    held = read_json(file)
    file.write_text(json.dumps({**held, "sre2l": {**held["sre2l"], "lr": 0.5}, "match": {**held["match"], "relabel": True}}))
    distill(settings(method="mtt", outer__iterations="2"), tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match=r"^match.syn_steps: 4 is not 3"):
        distill(settings(method="mtt", outer__iterations="2", match__syn_steps="4"), tmp_path / "run", resume=True)


class Killed:
    """Runs of the command that are killed when something has happened, and resumed."""

    def __init__(self, started: Commands, output: Path, kept: Path, **changes: str) -> None:
        overrides = OVERRIDES | QUICK | {key.replace("__", "."): value for key, value in changes.items()}
        words = [f"{key}={value}" for key, value in overrides.items()]
        self.commands, self.cache = started, kept
        self.words = ["distill", "scenes", "--output", str(output), *words]

    def start(self, *words: str) -> Running:
        return self.commands.start([*self.words, *words], self.cache)

    def kill_when(self, happened: Callable[[], bool], *words: str) -> None:
        command = self.start(*words)
        command.until(happened, 120)
        command.send(signal.SIGKILL)
        assert command.wait() == -signal.SIGKILL, "the run ended before it could be killed"

    def finish(self, *words: str) -> None:
        command = self.start(*words)
        assert command.wait() == 0, command.said


def outcome(run: Path) -> tuple[Any, ...]:
    """Everything of a finished run that does not tell the time or the place."""
    results = read_json(run / "results.json")
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(run / "metrics.jsonl")]
    snapshots = {file.name: file.read_bytes() for file in sorted((run / "snapshots").iterdir())}
    return (
        (run / "distilled" / "distilled.safetensors").read_bytes(),
        rows,
        snapshots,
        results["accuracy"],
        results["skipped_share"],
    )


def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, started: Commands) -> None:
    Killed(started, tmp_path / "whole", tmp_path / "cache-whole").finish()
    killed = Killed(started, tmp_path / "killed", tmp_path / "cache-killed")
    lines = tmp_path / "killed" / "metrics.jsonl"
    killed.kill_when(lambda: any((tmp_path / "cache-killed" / "experts").glob("*/expert-0000/*.safetensors")))
    killed.kill_when(lambda: len(read_metrics(lines)) >= 12, "--resume")
    killed.finish("--resume")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_a_compiled_run_killed_at_many_moments_ends_with_the_same_bits(tmp_path: Path, started: Commands) -> None:
    Killed(started, tmp_path / "whole", tmp_path / "cache-whole", engine__compile="yes").finish()
    killed = Killed(started, tmp_path / "killed", tmp_path / "cache-killed", engine__compile="yes")
    lines = tmp_path / "killed" / "metrics.jsonl"
    killed.kill_when(lambda: any((tmp_path / "cache-killed" / "experts").glob("*/expert-0000/*.safetensors")))
    for count in (1, 9, 17):  # a loop of a few milliseconds an iteration runs on until the kill arrives
        killed.kill_when(lambda count=count: len(read_metrics(lines)) >= count, "--resume")  # type: ignore[misc]
    killed.kill_when(lambda: (tmp_path / "killed" / "snapshots" / "iteration-000030.safetensors").exists(), "--resume")
    killed.kill_when(lambda: (tmp_path / "killed" / "distilled" / "preview.png").exists(), "--resume")
    killed.finish("--resume")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
