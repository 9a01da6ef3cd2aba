"""A whole run: what it leaves behind, and what it refuses."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from runs.small_run import OVERRIDES, QUICK, quick, settings
from shared_cache import cache, cache_of_the_module  # noqa: F401

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
from limbeck.runs import common
from limbeck.runs.distill import distill, train_experts
from limbeck.runs.evaluate import evaluate
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, read_tensors
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.progress import NoProgress


def test_a_run_says_what_was_chosen_for_it(tmp_path: Path) -> None:
    class Said(NoProgress):
        lines: ClassVar[list[str]] = []

        def say(self, message: str) -> None:
            self.lines.append(message)

    chosen = {key: value for key, value in OVERRIDES.items() if key != "match.drop_ratio"} | QUICK | {"outer.iterations": "1"}
    distill(load_recipe("scenes", chosen), tmp_path / "run", progress=Said())
    assert Said.lines == ["note: match.drop_ratio=0, EDF's published for 1 image per class"]


def test_a_periodic_evaluation_takes_the_classes_that_the_images_were_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SmallSet] = []
    monkeypatch.setattr(Evaluator, "distilled", lambda self, small, **words: seen.append(small) or Accuracy(mean=0.5))
    evaluator = Workspace(settings(), NoProgress()).evaluator()
    start = SmallSet(torch.zeros(2, 3, 16, 16), torch.eye(2), torch.tensor([0, 1]), 0.1, "logits")
    look = common.look(evaluator, start.classes, start.kind)
    found = look and look(start.images + 1, start.labels.flip(0), 0.2)
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
    made = quick(method="dm", outer__iterations="6", eval__every="2", eval__protocol="edf-2024")
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
    results = distill(quick(engine__kind=engine, init=init, outer__iterations="2", eval__every="2"), tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "iteration"]
    assert all(row["grad_norm_images"] > 0 for row in rows)
    assert DistilledSet.load(Path(results.paths["distilled"])).ipc == 1


def test_the_control_weightings_and_plain_matching(tmp_path: Path) -> None:
    norms = {}
    for weighting in ("activation", "constant", "shuffled", "none"):
        made = quick(enhance__weighting=weighting, match__criterion="none", outer__iterations="1", eval__every="9")
        distill(made, tmp_path / weighting)
        rows = read_metrics(tmp_path / weighting / "metrics.jsonl")
        norms[weighting] = next(row["grad_norm_images"] for row in rows if row["kind"] == "iteration")
        compared = [row for row in rows if row["kind"] == "comparison"]
        assert len(compared) == (weighting != "none")
        if weighting == "constant":
            assert 0 < compared[0]["cosine"] < 1.0001
    assert len({round(norm, 9) for norm in norms.values()}) == 4
    assert norms["none"] < norms["constant"]


def test_published_numbers_go_through_a_run(tmp_path: Path) -> None:
    """The set holds them, its experts and full-data networks are of their own, and they are read back by whoever evaluates it."""
    fitted = distill(quick(outer__iterations="1"), tmp_path / "fitted")
    made = quick(outer__iterations="1", data__normalise="imagenet")
    result = distill(made, tmp_path / "run")
    assert result.accuracy.full != fitted.accuracy.full
    held = DistilledSet.load(tmp_path / "run" / "distilled")
    mean, std = (held.preprocessing.tensors()[name] for name in ("mean", "std"))
    assert torch.equal(mean, torch.tensor([0.485, 0.456, 0.406])) and torch.equal(std, torch.tensor([0.229, 0.224, 0.225]))
    assert held.metadata["settings"]["data"]["normalise"] == "imagenet"
    assert "normalise (mean 0.485 0.456 0.406, std 0.229 0.224 0.225)" in (tmp_path / "run" / "distilled" / "README.md").read_text()
    stores = {Workspace(one, NoProgress()).expert_task.find_store().path for one in (made, quick(outer__iterations="1"))}
    assert len(stores) == 2
    again = evaluate(tmp_path / "run" / "distilled", settings_from_plain(held.metadata["settings"]))
    assert again.accuracy.distilled == result.accuracy.distilled and again.sets[0].notes == ()
    with pytest.raises(UsageError, match="^experts: .* is not a store of preprocessing 'normalise .0.48"):
        distill(made, tmp_path / "other", experts=train_experts(quick(outer__iterations="1")))
    with pytest.raises(UsageError, match="^data.normalise: 'mnist' is not for images of 3 channels, it has 1$"):
        distill(quick(data__normalise="mnist"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("numbers", ["fitted", "imagenet"])
def test_imported_experts_that_saw_published_numbers_are_not_met_silently_with_others(tmp_path: Path, numbers: str) -> None:
    said: list[str] = []

    class Said(NoProgress):
        def say(self, message: str) -> None:
            said.append(message)

    made = quick(data__normalise=numbers)
    network = Workspace(made, NoProgress()).network
    lists = [[[torch.full(shape, float(epoch)) for shape in network.shapes.values()] for epoch in range(5)] for _ in range(3)]
    torch.save(lists, tmp_path / "replay_buffer_0.pt")
    store = import_lists([tmp_path / "replay_buffer_0.pt"], tmp_path / "store", network)
    assert Workspace(made, Said(), store).experts.imported
    warned = [line for line in said if line.startswith("warning: data.normalise: 'fitted'")]
    assert len(warned) == (numbers == "fitted") == sum("these experts were imported" in line for line in said)


def test_the_checkpoint_is_chosen_on_validation_with_other_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[int]]] = []
    real = Evaluator.logits

    def noted(self: Evaluator, subset: Any, seeds: Any, split: str = "test", *arguments: Any, **options: Any) -> Any:
        calls.append((split, list(seeds)))
        return real(self, subset, seeds, split, *arguments, **options)

    monkeypatch.setattr(Evaluator, "logits", noted)
    distill(quick(outer__iterations="1", eval__every_seeds="2"), tmp_path / "run")
    assert calls[:2] == [("val", [0, 1])] * 2
    assert calls[2:] == [("test", [1000, 1001])] * 2


def test_the_workspace_hands_out_what_the_settings_say(tmp_path: Path) -> None:
    made = quick(experts__label_experts="1")
    workspace = Workspace(made, NoProgress())
    module = workspace.map_network
    last = workspace.experts.read(0, made.experts.train_epochs)
    assert torch.equal(torch.cat([value.flatten() for value in module.parameters()]), last)
    assert workspace.evaluator().factor == 1  # of 16×16 pixels
    assert Workspace(quick(rded__factor="2"), NoProgress()).evaluator().factor == 2
    all_of_them = Workspace(quick(), NoProgress()).initial()
    assert not torch.equal(workspace.initial().labels, all_of_them.labels)


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
            distill(quick(**change), tmp_path / "run")
        assert not (tmp_path / "run").exists()
