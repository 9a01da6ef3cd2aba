"""A whole run: what it leaves behind, what it refuses, and that a killed one ends with the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from limbeck.accuracy import Accuracy
from limbeck.augmentation import Dsa
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.evaluator import Evaluator
from limbeck.experts.imported import import_lists
from limbeck.experts.store import TrajectoryStore
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Exact
from limbeck.matching.schedules import Sequential
from limbeck.matching.steps import StudentStep
from limbeck.methods.materials import Matching
from limbeck.methods.trajectory import TrajectoryMatching
from limbeck.networks.flat import flat_network
from limbeck.recipes import load_recipe, settings_from_plain
from limbeck.report.write import write_report
from limbeck.runs import distill as running
from limbeck.runs.distill import distill, train_experts
from limbeck.runs.evaluate import evaluate
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import read_json, read_tensors
from limbeck.runtime.locks import lock
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.progress import NoProgress

OVERRIDES = {
    "data.size": "16",
    "data.per_class": "12",
    "data.val_fraction": "0.25",
    "network": "ConvNetD2-w8",
    "experts.num_experts": "2",
    "experts.train_epochs": "4",
    "experts.batch_size": "32",
    "augment.strategy": "color_crop_cutout_scale",
    "match.syn_steps": "3",
    "match.expert_epochs": "1",
    "match.batch_syn": "7",
    "match.drop_ratio": "0.25",
    "schedule.first_max_start_epoch": "1",
    "schedule.max_start_epoch": "3",
    "schedule.iterations": "20",
    "enhance.cam": "smooth_gradcam_pp",
    "enhance.cam_every": "4",
    "outer.iterations": "30",
    "outer.lr_img": "20",
    "outer.ema_decay": "0.9",
    "outer.max_match_loss": "1.5",
    "outer.checkpoint_every": "7",
    "engine.compile": "no",
    "eval.every": "10",
    "eval.every_seeds": "1",
    "eval.epochs": "3",
    "eval.seeds": "2",
    "eval.full_epochs": "1",
}


def settings(**changes: str) -> DistillSettings:
    return load_recipe("scenes", OVERRIDES | {key.replace("__", "."): value for key, value in changes.items()})


def test_a_run_says_what_was_chosen_for_it(tmp_path: Path) -> None:
    class Said(NoProgress):
        lines: ClassVar[list[str]] = []

        def say(self, message: str) -> None:
            self.lines.append(message)

    chosen = {key: value for key, value in OVERRIDES.items() if key != "match.drop_ratio"} | {"outer.iterations": "1"}
    distill(load_recipe("scenes", chosen), tmp_path / "run", progress=Said())
    assert Said.lines == ["note: match.drop_ratio=0, EDF's published for 1 image per class"]


def test_a_periodic_evaluation_takes_the_classes_that_the_images_were_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SmallSet] = []
    monkeypatch.setattr(Evaluator, "distilled", lambda self, small, **words: seen.append(small) or Accuracy(mean=0.5))
    evaluator = Workspace(settings(), NoProgress()).evaluator()
    start = SmallSet(torch.zeros(2, 3, 16, 16), torch.eye(2), torch.tensor([0, 1]), 0.1, "logits")
    found = running._look(evaluator, start, start.images + 1, start.labels.flip(0), 0.2)
    assert found == Accuracy(mean=0.5)
    assert seen[0].classes.tolist() == [0, 1] and seen[0].labels.argmax(1).tolist() == [1, 0] and seen[0].syn_lr == 0.2


def test_a_run_leaves_everything_behind(tmp_path: Path) -> None:
    made = settings()
    results = distill(made, tmp_path / "run", recipe="scenes")
    assert results.to_dict() == read_json(tmp_path / "run" / "results.json")
    assert {name for name, _ in results.accuracy.items()} == {"distilled", "initial", "random", "full"}
    for name in ("distilled", "initial", "random", "full"):
        assert results.accuracy[name].n == 2
        assert all(0 <= value <= 1 for value in results.accuracy[name].values)
    ratio = results.accuracy.distilled.mean / results.accuracy.full.mean
    assert results.recovery_ratio == pytest.approx(ratio)
    assert list(results.seconds) == ["experts", "initial", "compile", "distil", "evaluate", "features"]
    held = DistilledSet.load(tmp_path / "run" / "distilled")
    snapshot, header = read_tensors(tmp_path / "run" / "snapshots" / f"iteration-{results.best_iteration:06d}.safetensors")
    assert torch.equal(held.images, snapshot["X"])
    assert torch.equal(held.labels, snapshot["Y"])
    assert held.syn_lr == snapshot["syn_lr"].item()
    assert snapshot["maps"].shape == (10, 16, 16)
    assert settings_from_plain(held.metadata["settings"]) == made
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["iteration"] for row in rows if row["kind"] == "iteration"] == list(range(30))
    evaluations = {row["iteration"]: row["accuracy"]["mean"] for row in rows if row["kind"] == "evaluation"}
    assert list(evaluations) == [0, 10, 20, 30]
    assert evaluations[results.best_iteration] == max(evaluations.values())
    # ⌊αP⌋ parameters are dropped, so that the kept shares of the layers, weighted by their sizes, add up to P − ⌊αP⌋.
    _, header = read_tensors(tmp_path / "run" / "snapshots" / "iteration-000030.safetensors")
    network = flat_network(made.network, (3, 16, 16), 10)
    sizes = dict(zip(network.shapes, network.sizes, strict=True))
    kept = sum(size * header["kept_share"][name] for name, size in sizes.items())
    assert kept == pytest.approx(network.num_parameters - network.num_parameters // 4)
    store = TrajectoryStore(Path(results.paths["experts"]))
    assert store.summary().epochs == [0, 1, 2, 3, 4]
    again = evaluate(tmp_path / "run" / "distilled", made)
    assert again.accuracy.distilled == results.accuracy.distilled
    assert again.accuracy.random == results.accuracy.random
    assert train_experts(made).path == store.path


def test_the_best_checkpoint_on_test_stands_beside_the_one_that_validation_chooses(tmp_path: Path) -> None:
    made = settings(method="dm", outer__iterations="6", eval__every="2", eval__protocol="edf-2024", features="none")
    results = distill(made, tmp_path / "run")
    rows = [row["accuracy"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "evaluation"]
    tested, own = [row["best_on_test"]["mean"] for row in rows], results.accuracy.distilled
    assert len(tested) == 4
    assert own.best_on_test is not None and own.best_on_test.mean == max([*tested, own.mean])
    assert results.accuracy.random.best_on_test is None
    assert read_json(tmp_path / "run" / "results.json")["accuracy"]["distilled"]["best_on_test"] == own.best_on_test.to_dict()
    said = f"best on test (optimistic: chosen on the images that it is measured on): distilled {own.best_on_test}"
    assert said in " ".join(str(results.table()).split())
    page = write_report(tmp_path / "run").read_text()
    assert said in page and "Distilled images, best on test (optimistic)" in page
    assert said in (tmp_path / "run" / "distilled" / "README.md").read_text().replace("\\", "")


@pytest.mark.parametrize("engine", ["exact", "unroll"])
@pytest.mark.parametrize("init", ["real", "noise"])
def test_engines_and_starts(tmp_path: Path, engine: str, init: str) -> None:
    results = distill(settings(engine__kind=engine, init=init, outer__iterations="2", eval__every="2"), tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "iteration"]
    assert all(row["grad_norm_images"] > 0 for row in rows)
    assert DistilledSet.load(Path(results.paths["distilled"])).ipc == 1


def test_the_control_weightings_and_plain_matching(tmp_path: Path) -> None:
    norms = {}
    for weighting in ("activation", "constant", "shuffled", "none"):
        made = settings(enhance__weighting=weighting, match__criterion="none", outer__iterations="1", eval__every="9")
        distill(made, tmp_path / weighting)
        rows = read_metrics(tmp_path / weighting / "metrics.jsonl")
        norms[weighting] = next(row["grad_norm_images"] for row in rows if row["kind"] == "iteration")
        compared = [row for row in rows if row["kind"] == "comparison"]
        assert len(compared) == (weighting != "none")
        if weighting == "constant":
            assert 0 < compared[0]["cosine"] < 1.0001
    assert len({round(norm, 9) for norm in norms.values()}) == 4
    assert norms["none"] < norms["constant"]


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


def test_published_numbers_go_through_a_run(tmp_path: Path) -> None:
    """The set holds them, its experts and full-data networks are of their own, and they are read back by whoever evaluates it."""
    fitted = distill(settings(outer__iterations="1"), tmp_path / "fitted")
    made = settings(outer__iterations="1", data__normalise="imagenet")
    result = distill(made, tmp_path / "run")
    assert result.accuracy.full != fitted.accuracy.full
    held = DistilledSet.load(tmp_path / "run" / "distilled")
    mean, std = (held.preprocessing.tensors()[name] for name in ("mean", "std"))
    assert torch.equal(mean, torch.tensor([0.485, 0.456, 0.406])) and torch.equal(std, torch.tensor([0.229, 0.224, 0.225]))
    assert held.metadata["settings"]["data"]["normalise"] == "imagenet"
    assert "normalise (mean 0.485 0.456 0.406, std 0.229 0.224 0.225)" in (tmp_path / "run" / "distilled" / "README.md").read_text()
    stores = {Workspace(one, NoProgress()).expert_task.find_store().path for one in (made, settings(outer__iterations="1"))}
    assert len(stores) == 2
    again = evaluate(tmp_path / "run" / "distilled", settings_from_plain(held.metadata["settings"]))
    assert again.accuracy.distilled == result.accuracy.distilled and again.sets[0].notes == ()
    with pytest.raises(UsageError, match="^experts: .* is not a store of preprocessing 'normalise .0.48"):
        distill(made, tmp_path / "other", experts=train_experts(settings(outer__iterations="1")))
    with pytest.raises(UsageError, match="^data.normalise: 'mnist' is not for images of 3 channels, it has 1$"):
        distill(settings(data__normalise="mnist"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("numbers", ["fitted", "imagenet"])
def test_imported_experts_that_saw_published_numbers_are_not_met_silently_with_others(tmp_path: Path, numbers: str) -> None:
    said: list[str] = []

    class Said(NoProgress):
        def say(self, message: str) -> None:
            said.append(message)

    made = settings(data__normalise=numbers)
    network = Workspace(made, NoProgress()).network
    lists = [[[torch.full(shape, float(epoch)) for shape in network.shapes.values()] for epoch in range(5)] for _ in range(3)]
    torch.save(lists, tmp_path / "replay_buffer_0.pt")
    store = import_lists([tmp_path / "replay_buffer_0.pt"], tmp_path / "store", network)
    assert Workspace(made, Said(), store).experts.imported
    warned = [line for line in said if line.startswith("warning: data.normalise: 'fitted'")]
    assert len(warned) == (numbers == "fitted") == sum("these experts were imported" in line for line in said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__size": "28"}, "network: 'ConvNetD2-w8' did not pad images of 28×28 pixels"),
        ({"experts__curriculum": "pad"}, "experts.curriculum: 'pad' took other images in some epochs"),
        ({"eval__protocol": "kd-rded"}, "eval.protocol: 'kd-rded' shuffled and cropped images otherwise"),
        ({}, ""),
    ],
)
def test_what_the_first_version_computed_otherwise_is_not_resumed(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    made = settings(outer__iterations="1", **changes)
    distill(made, tmp_path / "run")
    state = read_json(tmp_path / "run" / "state.json")
    assert state.pop("numerics") == 2
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


def test_the_checkpoint_is_chosen_on_validation_with_other_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[int]]] = []
    real = Evaluator.logits

    def noted(self: Evaluator, subset: Any, seeds: Any, split: str = "test", *arguments: Any, **options: Any) -> Any:
        calls.append((split, list(seeds)))
        return real(self, subset, seeds, split, *arguments, **options)

    monkeypatch.setattr(Evaluator, "logits", noted)
    distill(settings(outer__iterations="1", eval__every_seeds="2"), tmp_path / "run")
    assert calls[:2] == [("val", [0, 1])] * 2
    assert calls[2:] == [("test", [1000, 1001])] * 2


def test_the_workspace_hands_out_what_the_settings_say(tmp_path: Path) -> None:
    made = settings(experts__label_experts="1")
    workspace = Workspace(made, NoProgress())
    module = workspace.map_network
    last = workspace.experts.read(0, made.experts.train_epochs)
    assert torch.equal(torch.cat([value.flatten() for value in module.parameters()]), last)
    assert workspace.evaluator().factor == 1  # of 16×16 pixels
    assert Workspace(settings(rded__factor="2"), NoProgress()).evaluator().factor == 2
    all_of_them = Workspace(settings(), NoProgress()).initial()
    assert not torch.equal(workspace.initial().labels, all_of_them.labels)


def test_a_key_that_the_method_never_reads_may_change(tmp_path: Path) -> None:
    distill(settings(method="mtt", outer__iterations="2"), tmp_path / "run")
    file = tmp_path / "run" / "settings.json"
    held = read_json(file)
    file.write_text(json.dumps({**held, "sre2l": {**held["sre2l"], "lr": 0.5}, "match": {**held["match"], "relabel": True}}))
    distill(settings(method="mtt", outer__iterations="2"), tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match=r"^match.syn_steps: 4 is not 3"):
        distill(settings(method="mtt", outer__iterations="2", match__syn_steps="4"), tmp_path / "run", resume=True)


class Recording(TrajectoryStore):
    """Three experts whose θ*_e is e everywhere; it notes what is read."""

    def __init__(self, size: int) -> None:
        self.size, self.reads = size, list[tuple[int, int]]()

    def read(self, expert: int, epoch: int, device: torch.device | None = None) -> torch.Tensor:
        self.reads.append((expert, epoch))
        return torch.full((self.size,), float(epoch))


def test_start_and_target_lie_expert_epochs_apart() -> None:
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 2)
    store, schedule = Recording(network.num_parameters), Sequential(0, 2, 4, iterations=10)
    matching = Matching(schedule=schedule, syn_steps=2, expert_epochs=3)
    step = StudentStep(network, soft_cross_entropy)
    objective = TrajectoryMatching(store, 3, step, Exact(), matching, Dsa(), 0)
    x, y = torch.randn(2, 3, 8, 8), torch.randn(2, 2)
    for iteration in range(60):
        update = objective.gradients({}, x, y, torch.tensor(0.0), iteration, plain=False)
        assert update.gradients.loss.item() == pytest.approx(1.0)  # a student that does not move is as far as it was
        (expert, start), (same, target) = store.reads[-2:]
        assert (same, target) == (expert, start + 3)
        assert update.facts == {"expert": expert, "start_epoch": start}
    assert {expert for expert, _ in store.reads} == {0, 1, 2}
    assert {start for _, start in store.reads[::2]} == {0, 1, 2, 3}


def test_nothing_is_written_for_an_impossible_run(tmp_path: Path) -> None:
    impossible = (
        {"ipc": "10"},
        {"network": "ConvNetD5"},
        {"data__source": str(tmp_path / "none")},
        {"enhance__cam_layer": "blocks.7"},
    )
    for change in impossible:
        with pytest.raises(UsageError):
            distill(settings(**change), tmp_path / "run")
        assert not (tmp_path / "run").exists()


class Killed:
    """Runs of the command that are killed when something has happened, and resumed."""

    def __init__(self, started: Commands, output: Path, cache: Path, **changes: str) -> None:
        overrides = OVERRIDES | {key.replace("__", "."): value for key, value in changes.items()}
        words = [f"{key}={value}" for key, value in overrides.items()]
        self.commands, self.cache = started, cache
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
