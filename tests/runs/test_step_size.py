"""The step sizes that a set and what stands beside it are trained with: its own where it learned one, else chosen alike."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.accuracy import Accuracies, Accuracy, StepSize
from limbeck.augmentation import Dsa
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.split import Split
from limbeck.distilled.export import export_npz
from limbeck.distilled.foreign import ForeignOptions
from limbeck.distilled.read import STEP_SIZE
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.evaluator import RATES, Evaluator
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill
from limbeck.runs.evaluate import EvaluationOptions, evaluate
from limbeck.runs.results import RunResult
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.progress import NoProgress

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
    "features": "none",
    "eval.full_epochs": "1",
}
LIKES = 0.05  # the step size that the evaluation is made to like
Tried = list[tuple[str, tuple[float, ...], int]]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Tried:
    """Every choice of a step size: what was chosen for, among which, on how many images; 0.05 is the best of all."""
    found: Tried = []
    run, to_choose_on = Evaluator._run, Evaluator._to_choose_on
    chosen_on: list[Split] = []

    def noted(self: Evaluator, ipc: int, small: SmallSet) -> Split:
        chosen_on.append(to_choose_on(self, ipc, small))
        return chosen_on[-1]

    def liking(self: Evaluator, trials: Any, asked: Any, name: str, *more: Any) -> Any:
        if "step sizes" not in name:
            return run(self, trials, asked, name, *more)
        rates = tuple(trial.how.optimiser.lr for trial in trials)
        found.append((name, rates, len(asked)))
        splits = [part for part in (self.data.val, self.data.train) if len(part)]
        assert len(asked) <= max(map(len, splits))
        right = torch.nn.functional.one_hot(torch.from_numpy(chosen_on[-1].labels), self.data.num_classes).float()
        return [right if rate == LIKES else -right for rate in rates]

    monkeypatch.setattr(Evaluator, "_run", liking)
    monkeypatch.setattr(Evaluator, "_to_choose_on", noted)
    return found


def settings(**changes: str) -> DistillSettings:
    return load_recipe("scenes", SMALL | {key.replace("__", "."): value for key, value in changes.items()})


def said(result: RunResult) -> dict[str, tuple[float, str, int]]:
    """Of every row how its step size was come by."""
    return {name: (one.lr or 0.0, one.lr_from, len(one.lr_tried)) for name, one in result.accuracy.items()}


@pytest.mark.parametrize("method", ["dc", "dm"])
def test_without_a_learned_step_size_the_set_chooses_as_random_images_do(tried: Tried, tmp_path: Path, method: str) -> None:
    found = said(distill(settings(method=method), tmp_path / "run"))
    assert found["distilled"] == found["random"][:2] + (6,) == (LIKES, "validation", 6)
    assert found["initial"] == (LIKES, "validation", 6)
    assert found["random"] == (LIKES, "validation", 5)  # η is among the usual ones by now
    held = DistilledSet.load(tmp_path / "run" / "distilled")
    assert (held.syn_lr, held.metadata[STEP_SIZE]) == (LIKES, "validation")
    val = len(Workspace(settings(), NoProgress()).data.val)
    assert {count for _, _, count in tried} == {val}
    assert {(name, rates) for name, rates, _ in tried} == {
        ("step sizes", tuple(sorted({*RATES, 0.02}))),
        ("random subset, step sizes", RATES),
    }


@pytest.mark.parametrize("method", ["random", "rded"])
def test_images_that_are_made_at_once_choose_for_themselves(tried: Tried, tmp_path: Path, method: str) -> None:
    found = said(distill(settings(method=method), tmp_path / "run"))
    assert found == {"distilled": (LIKES, "validation", 6), "random": (LIKES, "validation", 5), "full": (0.01, "given", 0)}
    assert [name for name, _, _ in tried] == ["step sizes", "random subset, step sizes"]


@pytest.mark.parametrize("changes", [{"method": "mtt", "outer__lr_lr": "0"}, {"method": "dm", "outer__lr_lr": "0.1"}])
def test_a_learned_step_size_is_the_sets_own(tried: Tried, tmp_path: Path, changes: dict[str, str]) -> None:
    result = distill(settings(**changes, eval__networks="ConvNetD1-w4,MLP-w8"), tmp_path / "run")
    found = said(result)
    assert found["distilled"] == (pytest.approx(0.02), "own", 0)
    assert found["random"] == (LIKES, "validation", 6)
    assert found["initial"][:2] == (LIKES, "validation")  # they have learned none
    other = result.networks["MLP-w8"].accuracy  # where η was not learned it is one of those tried
    assert (other.distilled.lr_from, other.distilled.lr_tried) == ("validation", other.random.lr_tried)
    assert len(other.random.lr_tried) == 6
    assert STEP_SIZE not in DistilledSet.load(tmp_path / "run" / "distilled").metadata


def test_without_a_validation_split_both_choose_on_the_same_training_images(tried: Tried, tmp_path: Path) -> None:
    found = said(distill(settings(method="dm", eval__protocol="dd-published"), tmp_path / "run"))
    assert {name: found[name][:2] for name in ("distilled", "random", "initial")} == dict.fromkeys(
        ("distilled", "random", "initial"), (LIKES, "training")
    )
    # The images that the set began as are training images themselves: none of these ten says which step size is best for them.
    assert [count for _, _, count in tried] == [70, 70, 60]


def test_a_step_size_that_is_given_is_given_to_both(tried: Tried, tmp_path: Path) -> None:
    result = distill(settings(method="dm", eval__random_lr="0.03", eval__networks="ConvNetD1-w4,MLP-w8"), tmp_path / "run")
    assert {name: row[:2] for name, row in said(result).items() if name != "full"} == dict.fromkeys(
        ("distilled", "initial", "random"), (0.03, "given")
    )
    other = result.networks["MLP-w8"].accuracy
    assert (other.distilled.lr, other.distilled.lr_from, other.random.lr) == (0.03, "elsewhere", 0.03)
    assert tried == []


def test_a_protocols_step_size_is_everybodys_and_none_of_the_set(tried: Tried, tmp_path: Path) -> None:
    result = distill(settings(method="random", eval__protocol="soft-ce"), tmp_path / "run")
    assert {row[:2] for name, row in said(result).items() if name != "full"} == {(1e-3, "protocol")}
    assert tried == []
    path = tmp_path / "run" / "distilled"
    assert DistilledSet.load(path).metadata[STEP_SIZE] == "assumed"  # AdamW's is nothing to SGD
    again = evaluate(path, settings(), options=EvaluationOptions(keep=False, trust=True))
    assert (again.accuracy.distilled.lr, again.accuracy.distilled.lr_from) == (LIKES, "validation")


@pytest.fixture
def real(tmp_path: Path) -> Callable[..., Path]:
    """A folder's worth of real images as an .npz of another program, with η or without."""

    def made(**more: Any) -> Path:
        workspace = Workspace(settings(), NoProgress())
        index = workspace.evaluator().random_index(1, "foreign").numpy()
        images = workspace.data.train.images(index).numpy().transpose(0, 2, 3, 1)
        np.savez(tmp_path / "theirs.npz", images=images, labels=workspace.data.train.labels[index], **more)
        return tmp_path / "theirs.npz"

    return made


def test_a_set_from_elsewhere_without_a_step_size_chooses_as_random_images_do(tried: Tried, real: Callable[..., Path]) -> None:
    networks = settings(eval__networks="ConvNetD1-w4,MLP-w8")
    found = evaluate(real(), networks, options=EvaluationOptions(keep=False, trust=True))
    for row in found.sets[0].by_network.values():
        for one in (row.accuracy.distilled, row.accuracy.random):
            assert (one.lr, one.lr_from, one.lr_tried) == (LIKES, "validation", RATES)
    assert "no file says the step size: it has none of its own" in found.notes
    line = "step sizes: distilled 0.05 (the best of 5 on validation images), random 0.05"
    assert " ".join(str(found).split()).count(line) == 1
    assert found.to_dict()["sets"][0]["accuracy"]["distilled"]["lr_from"] == "validation"


def test_one_that_says_its_step_size_has_it_with_the_first_network_alone(tried: Tried, real: Callable[..., Path]) -> None:
    networks = settings(eval__networks="ConvNetD1-w4,MLP-w8")
    found = evaluate(real(syn_lr=0.3), networks, options=EvaluationOptions(keep=False, trust=True))
    first, other = (row.accuracy for row in found.sets[0].by_network.values())
    assert (first.distilled.lr, first.distilled.lr_from) == (0.3, "own")
    assert first.random.lr_tried == other.random.lr_tried == other.distilled.lr_tried == (*RATES, 0.3)
    assert first.random.lr == other.distilled.lr == LIKES
    given = EvaluationOptions(keep=False, trust=True, foreign=ForeignOptions(syn_lr=0.2))
    asked = evaluate(real(), settings(), options=given).accuracy
    assert (asked.distilled.lr, asked.distilled.lr_from) == (0.2, "given")


def test_a_learned_step_size_is_for_the_labels_and_the_augmentation_it_was_learned_with() -> None:
    workspace = Workspace(settings(), NoProgress())
    small = workspace.evaluator().random_subset(1, 0.3, "set")
    soft = replace(small, labels=5 * small.labels, kind="logits")
    here = workspace.network.name

    def own(held: SmallSet, protocol: str, network: str = here, **changes: Any) -> StepSize | None:
        evaluator = workspace.evaluator()
        asked = replace(evaluator.settings, protocol=protocol)
        return replace(evaluator, settings=asked, **changes).own_step_size(held, network)

    assert own(soft, "dd") == own(small, "dd") == own(small, "dd-hard") == StepSize(0.3, "own")
    assert own(soft, "dd-hard") is None  # learned with the soft labels
    assert own(soft, "none") is None  # learned with augmentation
    assert own(soft, "dd", "another") is None
    assert own(replace(soft, syn_lr=None), "dd") is None
    for nothing in (Dsa("none"), Dsa("none", crop_ratio=0.125), Dsa("none", flip=False), Dsa("flip", flip=False)):
        assert own(soft, "none", augment=nothing) == StepSize(0.3, "own")
    assert own(soft, "none", augment=Dsa("flip")) is None


def test_nothing_is_chosen_on_test_images(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(settings(), NoProgress())
    evaluator = workspace.evaluator()
    monkeypatch.setattr(Evaluator, "images_of", lambda self, split: pytest.fail("tested") if split == "test" else self._val)
    small = evaluator.random_subset(2, None, "set")
    assert evaluator.step_size(small).value == evaluator.random_step_size(2, None).value == LIKES
    no_val = replace(evaluator, data=evaluator.data.without_validation())
    subset = set(no_val.random_index(2, "choose").tolist())
    rows = no_val._to_choose_on(2, small).rows
    assert not subset & {int(np.flatnonzero(no_val.data.train.rows == row)[0]) for row in rows}
    few = replace(no_val, data=replace(no_val.data, train=no_val.data.train.take(np.array(sorted(subset)))))
    assert few.step_size(small) == StepSize(0.01, "assumed")  # the subset is all there is


def test_how_step_sizes_were_come_by_is_said_in_words() -> None:
    known = Accuracy(mean=0.5, n=2)
    step = StepSize(0.1, "validation", RATES)
    found = Accuracies(distilled=known.at(StepSize(0.021, "own")), random=known.at(step), full=known)
    assert found.step_sizes == "distilled 0.021 (its own), random 0.1 (the best of 5 on validation images)"
    assert Accuracies.from_dict(found.to_dict()) == found
    assert Accuracies(distilled=known).step_sizes == ""
    assert known.at(StepSize(0.1, "validation")).origin == "the best on validation images"


def test_an_exported_set_has_its_step_size_still(tmp_path: Path) -> None:
    workspace = Workspace(settings(), NoProgress())
    small = workspace.evaluator().random_subset(1, 0.3, "set")
    preprocessing = fit_preprocessing(workspace.settings.data, workspace.data.train)
    held = DistilledSet(set=small, preprocessing=preprocessing, class_names=workspace.data.class_names)
    found = evaluate(export_npz(held, tmp_path / "a.npz"), settings(), options=EvaluationOptions(keep=False, trust=True))
    assert (found.accuracy.distilled.lr, found.accuracy.distilled.lr_from) == (pytest.approx(0.3), "own")
