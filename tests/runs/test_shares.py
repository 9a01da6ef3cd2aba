"""What the ranks of one run share: experts, and networks of an evaluation and of the full data, to the bit."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.colours import images
from runs.shares import SMALL, counted
from together import Team
from torch import Tensor, nn

from limbeck.accuracy import Accuracies
from limbeck.augmentation import Dsa
from limbeck.data.preprocessing import Identity
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.distilled.view_labels import VIEWS, label_views
from limbeck.evaluation import trials as trials_module
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.full import FullData
from limbeck.evaluation.settings import EvalSettings
from limbeck.experts import trainer as trainer_module
from limbeck.experts.store import TrajectoryStore
from limbeck.methods.statistics_matching import Recovery
from limbeck.networks.flat import flat_network
from limbeck.recipes import load_recipe, parse_overrides
from limbeck.runs.distill import distill
from limbeck.runs.evaluate import EvaluationOptions, evaluate
from limbeck.runtime.errors import Failure
from limbeck.runtime.files import read_tensors
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.ranks import Ranks, together
from limbeck.training.images import TensorImages
from limbeck.views import Views


def evaluator(name: str = "ConvNetD1-w4", **settings: Any) -> Evaluator:
    data = images()
    made = EvalSettings(
        **{"seeds": 3, "epochs": 2, "batch_size": 4, "full_epochs": 2, "full_batch_size": 8, "full_seeds": 3} | settings
    )
    parts = (data, Identity(), flat_network(name, data.shape, 3), made, Dsa("flip"), 0, torch.device("cpu"))
    return Evaluator(*parts)


def small(labels: Tensor) -> SmallSet:
    return SmallSet(torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)), labels, torch.arange(3), 0.05, "logits")


# Evaluations


def evaluated() -> tuple[list[Tensor], float, list[Any]]:
    found, keys = evaluator(), list[Any]()
    with together(), counted(trials_module, keys):
        logits = found.logits(small(torch.eye(3) * 5), seeds=range(10, 13))
        rate = found.random_step_size(2, 0.03).value
    return logits, rate, keys


def test_seeds_are_spread_and_equal_to_the_bit(two: Team) -> None:
    logits, rate, keys = evaluated()
    first, second = two(evaluated)
    for found in (first, second):
        assert found[1] == rate and all(torch.equal(*pair) for pair in zip(found[0], logits, strict=True))
    assert sorted([*first[2], *second[2]], key=str) == sorted(keys, key=str)
    assert [sum("choose" not in key for key in found[2]) for found in (first, second)] == [2, 1]


def evaluated_with_cores(*counts: str) -> list[Tensor]:
    before = os.environ.get("LOKY_MAX_CPU_COUNT")
    os.environ["LOKY_MAX_CPU_COUNT"] = counts[Ranks.here().number]
    try:
        with together():
            return list(evaluator().logits(small(torch.eye(3) * 5), seeds=range(5)))
    finally:
        os.environ.pop("LOKY_MAX_CPU_COUNT") if before is None else os.environ.update(LOKY_MAX_CPU_COUNT=before)


def test_machines_with_other_numbers_of_cores_train_the_same_networks(two: Team) -> None:
    wanted = evaluated_with_cores("1")
    for found in two(evaluated_with_cores, "1", "2"):
        assert len(found) == 5 and all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def by_itself() -> tuple[int, list[int]]:
    here, asked = Ranks.here(), evaluator()
    with together():
        told = here.told(lambda: len(asked.logits(small(torch.eye(3)), seeds=range(2))))
    if here.first:
        told += len(asked.logits(small(torch.eye(3)), seeds=range(3)))  # not together with the others
    return told, here.gathered(lambda: Ranks.sharing().count)


def test_what_one_rank_does_by_itself_the_others_know_nothing_of(two: Team) -> None:
    assert two(by_itself) == [(5, [1, 1]), (2, [1, 1])]


# Networks of the full data


def full(cache: Path, seeds: int = 3, long: int = 10**9) -> tuple[Tensor, float | None, list[Tensor], list[Any]]:
    """The logits, the share of the training images, the teacher and what was trained; rank 0 has the cache, the others none."""
    here, keys = Ranks.here(), list[Any]()
    os.environ["LIMBECK_CACHE"] = str(cache / str(here.number))
    trials_module.LONG = long
    made = evaluator(full_seeds=seeds)
    with together(), counted(trials_module, keys):
        found = made.full_data.found(lambda: made.images_of("test"))
        teacher = made.full_data.teacher(lambda: made.images_of("test"))
    return found.logits, found.trained, [value.detach() for value in teacher.state_dict().values()], keys


def kept(cache: Path) -> list[dict[str, Tensor]]:
    return [read_tensors(path)[0] for path in sorted(cache.glob("full/*.safetensors"))]


def assert_same_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_networks_of_the_full_data_are_spread_and_only_the_first_rank_keeps_them(two: Team, tmp_path: Path) -> None:
    logits, trained, teacher, keys = full(tmp_path / "alone")
    found = two(full, tmp_path / "two")
    for one in found:
        assert torch.equal(one[0], logits) and one[1] == trained
        assert all(torch.equal(*pair) for pair in zip(one[2], teacher, strict=True))
    assert sorted([*found[0][3], *found[1][3]]) == sorted(keys) and len(found[0][3]) == 2
    assert_same_tensors(*kept(tmp_path / "two" / "0"), *kept(tmp_path / "alone" / "0"))
    assert not (tmp_path / "two" / "1" / "full").exists()
    again = two(full, tmp_path / "two", 4)  # from what is kept, which one of them has
    assert [one[3] for one in again] == [[("full", 3)], []]


def test_one_network_is_trained_by_all_ranks(two: Team, tmp_path: Path) -> None:
    full(tmp_path / "alone", 2)
    shutil.copytree(tmp_path / "alone", tmp_path / "two")
    logits, _, _, keys = full(tmp_path / "alone")
    found = two(full, tmp_path / "two", 3, 0)
    for one in found:
        assert one[3] == keys == [("full", 2)]
        assert torch.equal(one[0], found[0][0]) and torch.equal(one[0][:2], logits[:2])
        error = (one[0][2] - logits[2]).abs().max()
        assert 0 < error < 1e-3 * logits[2].abs().max()  # in single precision


def rule(count: int) -> list[bool]:
    made = evaluator()
    full_data: FullData = made.full_data
    trials_module.LONG = 1000
    trial = trials_module.Trial(made.images_of("test"), None, full_data.how, ())  # type: ignore[arg-type]
    few = dataclasses.replace(trial, images=TensorImages(torch.zeros(1, 3, 8, 8)))
    with together():
        return [full_data.trials.shares([one] * count) for one in (trial, few)]


def test_which_networks_all_ranks_share(two: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rule(1) == [False, False]
    assert two(rule, 1) == [[True, False]] * 2  # a single image a step is little work
    assert two(rule, 2) == two(rule, 0) == [[False, False]] * 2  # each rank has one of its own


# Whole runs, and evaluations


def run(folder: Path, recipe: str, more: str) -> tuple[Any, int]:
    """What a run finds, and how many networks this rank has trained."""
    keys = list[Any]()
    os.environ["LIMBECK_CACHE"] = str(folder / "cache")
    settings = load_recipe(recipe, parse_overrides([*SMALL.split(), *more.split()]))
    with counted(trainer_module, keys), counted(trials_module, keys):
        return figures(distill(settings, folder / "run").evaluation.accuracy), len(keys)


def figures(found: Accuracies) -> tuple[Any, ...]:
    assert found.full is not None
    return found.distilled.values, found.random.values, found.full.values


def contents(folder: Path) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    return read_tensors(folder / "run" / "distilled" / "distilled.safetensors")[0], kept(folder / "cache")


def test_a_run_that_makes_its_images_at_once_is_the_same_to_the_bit(two: Team, tmp_path: Path) -> None:
    more = "rded.images=4 eval.protocol=kd-rded view_labels.store=true"
    accuracy, networks = run(tmp_path / "alone", "scenes/rded-ipc1", more)
    found = two(run, tmp_path / "two", "scenes/rded-ipc1", more)
    assert [one[0] for one in found] == [accuracy] * 2
    assert sum(one[1] for one in found) == networks and min(one[1] for one in found) > networks // 3
    (images, full_alone), (made, full_two) = contents(tmp_path / "alone"), contents(tmp_path / "two")
    assert_same_tensors(made, images)
    assert (tmp_path / "two" / "run" / VIEWS).read_bytes() == (tmp_path / "alone" / "run" / VIEWS).read_bytes()
    for one, other in zip(full_two, full_alone, strict=True):
        assert_same_tensors(one, other)


class Asked(nn.Module):
    """A linear teacher that counts the images that it is asked about, and may know nothing about some."""

    def __init__(self, knows: bool) -> None:
        super().__init__()
        self.knows, self.asked = knows, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return x.flatten(1)[:, :4] if self.knows else torch.full((len(x), 4), float("nan"))


def labelled(path: Path, epochs: int, knows: bool = True, on: int = 1) -> int | str:
    """How many images this rank asks about, or what is wrong."""
    ranks, images = Ranks.here(), TensorImages(torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(2)))
    teacher, how = Asked(knows or ranks.number != on), Views(mix="cutmix")
    try:
        label_views(path, teacher, images, how, epochs=epochs, batch_size=3, seed=0, key=("views",), ranks=ranks)
    except Failure as error:
        return str(error)
    return teacher.asked


@pytest.mark.parametrize("epochs", [1, 4, 5])
def test_labels_of_views_are_those_of_one_process_epochs_shared(two: Team, tmp_path: Path, epochs: int) -> None:
    assert labelled(tmp_path / "one", epochs) == 7 * epochs + 1  # one image tells the number of classes
    assert two(labelled, tmp_path / "two", epochs) == [7 * -(-epochs // 2) + 1, 7 * (epochs // 2) + 1]
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
    assert two(labelled, tmp_path / "two", epochs) == [1, 1]  # what is there is not asked again


def test_what_a_teacher_does_not_know_on_one_rank_ends_all_and_what_is_written_is_kept(two: Team, tmp_path: Path) -> None:
    first, second = two(labelled, tmp_path / "views", 3, False)
    assert first == second and "finite" in str(first)
    assert two(labelled, tmp_path / "views", 3) == [15, 8]
    assert labelled(tmp_path / "one", 3) == 22
    assert (tmp_path / "views").read_bytes() == (tmp_path / "one").read_bytes()


def recovered(folder: Path, stops: int) -> Path | None:
    """The folder of a run that goes on until a rank has asked for so many gradients; None where it has not come to its end."""
    more = "sre2l.iterations=8 sre2l.batch_size=4 sre2l.teacher=ConvNetD2-w4-batchnorm outer.checkpoint_every=2"
    os.environ["LIMBECK_CACHE"] = str(folder / "cache")
    settings = load_recipe("scenes/fadrm-ipc1", parse_overrides([*SMALL.split(), *more.split()]))
    gradient, asked = Recovery._gradient, list[int]()

    def counted(self: Recovery, *arguments: Any) -> Any:
        asked.append(1)
        if len(asked) == stops:
            raise Failure("stopped")
        return gradient(self, *arguments)

    Recovery._gradient = counted  # type: ignore[method-assign]
    try:
        distill(settings, folder / "run", resume=True)
    except Failure as error:
        assert str(error) == "stopped"
        return None
    finally:
        Recovery._gradient = gradient  # type: ignore[method-assign]
    return folder / "run"


def test_batches_that_are_recovered_are_spread_and_whoever_goes_on_ends_with_the_same_bits(two: Team, tmp_path: Path) -> None:
    wanted = recovered(tmp_path / "alone", 0)
    assert wanted is not None
    assert recovered(tmp_path / "changing", 12) is None  # in the second of three batches
    assert two(recovered, tmp_path / "changing", 3) == [None, None]
    assert len(list((tmp_path / "changing" / "run" / "recovery").glob("batch-*"))) > 1
    for team in (None, two):
        found = tmp_path / ("changing" if team is None else "two")
        assert (recovered(found, 0) if team is None else team(recovered, found, 0)[0]) == found / "run"
        for name in ("recovery.safetensors", "distilled/distilled.safetensors"):
            assert_same_tensors(read_tensors(found / "run" / name)[0], read_tensors(wanted / name)[0])
        assert not (found / "run" / "recovery").exists()


def test_a_run_of_trajectories_spreads_experts_and_evaluations(two: Team, tmp_path: Path) -> None:
    accuracy, networks = run(tmp_path / "alone", "scenes", "eval.every_seeds=4")
    found = two(run, tmp_path / "two", "scenes", "eval.every_seeds=4")
    assert sum(one[1] for one in found) == networks and min(one[1] for one in found) > networks // 3
    for one in found:  # the loop is equal up to rounding, and so is what was learned
        assert one[0][1:] == accuracy[1:]
    stores = [TrajectoryStore(next((tmp_path / name / "cache" / "experts").iterdir())) for name in ("alone", "two")]
    assert stores[0].content == stores[1].content
    looks = [read_metrics(tmp_path / name / "run" / "metrics.jsonl") for name in ("alone", "two")]
    first = [next(row["accuracy"] for row in rows if row["kind"] == "evaluation") for rows in looks]  # of the images as they began
    assert first[0] == first[1] and len(first[0]["values"]) == 4


def evaluated_set(folder: Path) -> tuple[Any, int]:
    keys, path = list[Any](), folder / "run" / "distilled"
    os.environ["LIMBECK_CACHE"] = str(folder / "cache")
    settings = load_recipe("scenes/rded-ipc1", parse_overrides([*SMALL.split(), "eval.seeds=4"]))
    with together(), counted(trials_module, keys):
        found = evaluate(path, settings, options=EvaluationOptions(further=("continual", "robustness", "distances"))).sets[0]
    further = {name: one.to_dict() for name, one in found.measurements.items()}
    return (*figures(found.accuracy), further), len(keys)


def test_an_evaluation_is_spread_and_noted_once(two: Team, tmp_path: Path) -> None:
    run(tmp_path / "alone", "scenes/rded-ipc1", "rded.images=4")
    shutil.copytree(tmp_path / "alone", tmp_path / "two")
    accuracy, networks = evaluated_set(tmp_path / "alone")
    found = two(evaluated_set, tmp_path / "two")
    assert all(one[0] == accuracy for one in found) and sum(one[1] for one in found) == networks
    assert min(one[1] for one in found) > networks // 3
    noted = [DistilledSet.load(tmp_path / name / "run" / "distilled").metadata["evaluations"] for name in ("alone", "two")]
    assert len(noted[0]) == len(noted[1]) == 1


@pytest.mark.slow
def test_torchrun_starts_experts_and_evaluations(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m", "limbeck"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "LIMBECK_CACHE": str(tmp_path / "ranks")}

    def limbeck(*words: str) -> Any:
        done = subprocess.run([*torchrun, *words, "--json"], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # which one of them says

    store = TrajectoryStore(Path(limbeck("experts", "scenes", *SMALL.split(), "engine.device=cpu")["paths"]["experts"]))
    made, _ = run(tmp_path, "scenes", "")  # by one process, in another cache
    assert store.content == TrajectoryStore(next((tmp_path / "cache" / "experts").iterdir())).content
    found = limbeck("evaluate", str(tmp_path / "run" / "distilled"), "--seeds", "4")["sets"][0]["accuracy"]
    assert found["full"]["values"] == list(made[2]) and found["random"]["values"][:2] == list(made[1])
