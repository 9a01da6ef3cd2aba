"""`evaluate` on sets that are made of real images: figures that repeat, comparisons, records, and sets that must be refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilled.samples import changed
from shared_cache import cache, cache_of_the_module  # noqa: F401
from torch import Tensor, nn

from limbeck.data.preprocessing import Normalise, constant
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.statistics import Looks, decide, differences
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill
from limbeck.runs.evaluate import EvaluationOptions, evaluate
from limbeck.runs.measurements import FURTHER
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, read_tensors
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.progress import NoProgress

OVERRIDES = {
    "data.size": "16",
    "data.per_class": "40",
    "network": "ConvNetD2-w16",
    "eval.epochs": "30",
    "eval.seeds": "2",
    "features": "none",
    "eval.full_epochs": "20",
    "eval.full_lr": "0.05",
    "eval.full_batch_size": "40",
    "eval.random_lr": "0.05",
    "augment.strategy": "crop",
    "augment.crop_ratio": "0.1",
}
QUIET = EvaluationOptions(keep=False)


def settings(**changes: str) -> DistillSettings:
    return load_recipe("scenes", OVERRIDES | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    return Workspace(settings(), NoProgress())


def real_set(workspace: Workspace, ipc: int, **changes: Any) -> DistilledSet:
    """Training images with nearly hard soft labels."""
    subset = workspace.evaluator().random_subset(ipc, 0.05, "set")
    held = DistilledSet(
        set=SmallSet(subset.images, 10 * subset.labels, subset.classes, 0.05, "logits"),
        preprocessing=workspace.preprocessing,
        class_names=workspace.data.class_names,
        metadata={"fingerprints": {"data": workspace.data.fingerprint}},
    )
    return changed(held, **changes)


def test_the_same_figures_twice_and_a_record_in_the_set(workspace: Workspace, tmp_path: Path) -> None:
    path = real_set(workspace, 2).save(tmp_path / "set")
    before = (path / "distilled.safetensors").read_bytes()
    first, second = evaluate(path, settings()), evaluate(path, settings())
    for key in ("accuracy", "recovery_ratio", "lossless", "compression", "gain", "predictions", "protocol", "network", "data"):
        assert getattr(first, key) == getattr(second, key), key
    assert first.protocol["seeds"] == [1000, 1001]
    assert tuple(first.protocol[key] for key in ("name", "version", "epochs")) == ("dd", 1, 30)
    assert first.data["fingerprint"] == workspace.data.fingerprint
    assert first.compression.images.to_dict() == {"distilled": 20, "real": 360, "ratio": 20 / 360}
    matrix = torch.tensor(first.predictions.confusion)
    assert matrix.diagonal().sum() / matrix.sum() == pytest.approx(first.accuracy.distilled.mean)
    held = DistilledSet.load(path)
    assert [record["accuracy"] for record in held.metadata["evaluations"]] == [first.accuracy.to_dict()]  # said once
    assert (path / "distilled.safetensors").read_bytes() == before
    card = (path / "README.md").read_text()
    assert card.count("| dd 1, 30 epochs | ConvNetD2-w16 |") == 1


def test_a_folder_that_cannot_be_written_to_costs_nobody_the_result(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = real_set(workspace, 1).save(tmp_path / "set")
    said: list[str] = []

    class Noted(NoProgress):
        def say(self, message: str) -> None:
            said.append(message)

    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("limbeck.distilled.set.write_json", refuse)
    assert evaluate(path, settings(), progress=Noted()).accuracy.distilled.n == 2
    assert said == [f"warning: {path} could not be written to (the file system is read-only); the result is not noted there"]


def test_several_sets_and_networks_are_compared_on_the_same_seeds(workspace: Workspace, tmp_path: Path) -> None:
    many, few = real_set(workspace, 8).save(tmp_path / "many"), real_set(workspace, 1).save(tmp_path / "few")
    found = evaluate([many, few], settings(eval__networks="ConvNetD2-w16,ConvNetD1-w8"), options=QUIET)
    assert [one.paths["distilled"] for one in found.sets] == [str(many), str(few)]
    assert [row.network for row in found.comparisons] == ["ConvNetD2-w16", "ConvNetD1-w8"]
    for row in found.comparisons:
        records = [one.by_network[row.network] for one in found.sets]
        a, b = (record.accuracy.distilled.values for record in records)
        assert row.mean == pytest.approx(np.mean(np.array(a) - np.array(b)))
        assert row.p_adjusted >= row.p
    assert found.comparisons[0].mean > 0.05
    assert "evaluations" not in DistilledSet.load(many).metadata


def test_seeds_are_added_until_a_verdict_and_no_further(workspace: Workspace, tmp_path: Path) -> None:
    many, few = real_set(workspace, 8).save(tmp_path / "many"), real_set(workspace, 1).save(tmp_path / "few")
    looks = Looks(least=3, most=8)
    apart = evaluate([many, few], settings(), options=EvaluationOptions(looks=looks, keep=False))
    (row,) = apart.comparisons
    assert row.verdict == "a better"
    assert row.n in looks.at[:3]
    same = evaluate([few, few], settings(), options=EvaluationOptions(looks=Looks(least=2, most=3), keep=False))
    assert (same.comparisons[0].verdict, same.comparisons[0].n) == ("undecided", 3)
    alone = evaluate(few, settings(), options=EvaluationOptions(looks=Looks(least=2, most=3), keep=False))
    (row,) = alone.comparisons
    values = alone.accuracy.distilled.values, alone.accuracy.random.values
    decided = [count for count in (2, 3) if decide(differences(*values)[:count], Looks(least=2, most=3)) is not None]
    assert (row.a, row.b, row.n) == (str(few), "random images", len(values[0])) and len(values[1]) == row.n == decided[0]
    assert row.verdict == decide(differences(*values), Looks(least=2, most=3))


def plant(held: DistilledSet, fault: str) -> DistilledSet:
    names, order = held.class_names, torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
    if fault == "permuted labels":  # as a program that sorts classes otherwise writes them: labels and classes agree
        return changed(held, labels=held.labels[:, order], classes=order.argsort()[held.classes])
    if fault == "labels of another class":
        return changed(held, labels=held.labels.roll(1, 1))
    if fault == "swapped class order":
        return dataclasses.replace(held, class_names=(names[1], names[0], *names[2:]))
    if fault == "pixels":
        return changed(held, images=held.to_pixels())
    if fault == "normalised twice":
        return changed(held, images=held.preprocessing.forward(held.images))
    assert fault == "another normalisation"
    return dataclasses.replace(held, preprocessing=Normalise(torch.full((3,), 0.5), torch.full((3,), 0.5)))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("permuted labels", "permuted"),
        ("labels of another class", "label"),
        ("swapped class order", "class"),
        ("pixels", "pixels"),
        ("normalised twice", "normalised"),
        ("another normalisation", "normal"),
    ],
)
def test_a_planted_fault_is_refused_in_a_line(workspace: Workspace, tmp_path: Path, fault: str, message: str) -> None:
    path = plant(real_set(workspace, 5), fault).save(tmp_path / "set")
    with pytest.raises(UsageError) as error:
        evaluate(path, settings(), options=QUIET)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_sound_set_is_not_refused_and_trust_lets_a_permuted_one_pass(workspace: Workspace, tmp_path: Path) -> None:
    sound = real_set(workspace, 5)
    assert evaluate(sound.save(tmp_path / "sound"), settings(), options=QUIET).notes == ()
    permuted = plant(sound, "permuted labels").save(tmp_path / "permuted")
    found = evaluate(permuted, settings(), options=EvaluationOptions(trust=True, keep=False))
    assert found.accuracy.distilled.mean < 0.1  # chance is a tenth, and these labels are always wrong


def test_a_check_without_power_says_so(workspace: Workspace, tmp_path: Path) -> None:
    """A network that has learned next to nothing of the full data cannot tell whether labels are permuted."""
    path = real_set(workspace, 5).save(tmp_path / "set")
    assert [one.kind for one in evaluate(path, settings(), options=QUIET).doubts if one.kind == "labels unchecked"] == []
    weak = settings(eval__full_epochs="1", eval__full_lr="0.0001", eval__epochs="1", eval__networks="ConvNetD2-w16,ConvNetD1-w8")
    found = evaluate([path, path], weak, options=QUIET)
    for one in found.sets:
        (doubt,) = (doubt for doubt in one.doubts if doubt.kind == "labels unchecked")
        assert doubt.text.startswith("not checked: whether labels are permuted, for the network trained on the full data takes ")
        assert doubt.text.endswith(" of 50 images for their class, which is too little to tell")
    held = found.to_dict()["sets"][0]["doubts"]
    assert type(found).from_dict(found.to_dict()).sets[0].doubts == found.sets[0].doubts
    assert {"kind", "text"} == held[-1].keys()
    assert str(found).count("not checked: whether labels") == 1  # a line for the kind, however many sets and networks


def test_full_data_that_lose_to_their_random_subset_are_no_measure(workspace: Workspace, tmp_path: Path) -> None:
    path = real_set(workspace, 8).save(tmp_path / "set")
    found = evaluate(path, settings(eval__full_epochs="1", eval__full_lr="0.0001"), options=EvaluationOptions(trust=True))
    kinds = [one.kind for one in found.doubts]
    assert kinds[-2:] == ["below random", "recovery"]
    assert "no measure: networks of the full data lose to a random subset" in " ".join(str(found).split())
    assert "no measure" in (path / "README.md").read_text() or "Evaluated later" in (path / "README.md").read_text()
    assert [one["kind"] for one in DistilledSet.load(path).metadata["evaluations"][0]["doubts"]] == kinds


class Small(nn.Module):
    """A user's own network."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(x))
        return logits


def test_modules_and_factories_are_networks(workspace: Workspace, tmp_path: Path) -> None:
    path = real_set(workspace, 2).save(tmp_path / "set")
    module = Small(3, 10)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = evaluate(path, settings(), networks=[module, "ConvNetD1-w8"], options=QUIET)
    assert (found.network, list(found.networks)) == ("Small", ["ConvNetD1-w8"])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    built = evaluate(path, settings(), networks=[lambda channels, height, width, classes: Small(channels, classes)], options=QUIET)
    assert built.accuracy.distilled.n == 2


def test_other_peoples_files_are_measured_like_our_own(workspace: Workspace, tmp_path: Path) -> None:
    held = real_set(workspace, 2)
    torch.save((held.images, held.labels), tmp_path / "theirs.pt")
    own = evaluate(held.save(tmp_path / "set"), settings(), options=QUIET)
    foreign = dataclasses.replace(EvaluationOptions().foreign, normalised="yes", labels="logits", syn_lr=0.05)
    found = evaluate(tmp_path / "theirs.pt", settings(), options=EvaluationOptions(foreign=foreign))
    assert (found.accuracy.distilled.lr_from, own.accuracy.distilled.lr_from) == ("given", "own")
    alike = dataclasses.replace(found.accuracy, distilled=dataclasses.replace(found.accuracy.distilled, lr_from="own"))
    assert alike == own.accuracy


def test_files_of_other_numbers_are_measured_under_theirs(workspace: Workspace, tmp_path: Path) -> None:
    """As if the data were normalised by them: the set, random images and the full data."""
    held, imagenet = real_set(workspace, 2), constant("imagenet", 3, "")
    pixels = held.preprocessing.inverse(held.images)
    torch.save((imagenet.forward(pixels + 0.01), held.labels), tmp_path / "theirs.pt")
    foreign = dataclasses.replace(EvaluationOptions().foreign, labels="logits", syn_lr=0.05)

    def measured(normalised: str, **changes: str) -> Any:
        options = EvaluationOptions(foreign=dataclasses.replace(foreign, normalised=normalised))
        return evaluate(tmp_path / "theirs.pt", settings(**changes), options=options)

    found, same, wrong = measured("imagenet"), measured("yes", data__normalise="imagenet"), measured("yes")
    assert found.accuracy == same.accuracy
    assert found.accuracy.full.mean != wrong.accuracy.full.mean and found.accuracy.random.values != wrong.accuracy.random.values
    assert any("is measured under its own" in note for note in found.sets[0].notes)
    assert not any("under its own" in note for note in [*same.sets[0].notes, *wrong.sets[0].notes])


MEASURED = ("ranking", "robustness", "areas", "distances", "continual", "membership")


def test_every_further_measurement_is_tested_here() -> None:
    assert {*MEASURED, "search"} == set(FURTHER)


@pytest.mark.parametrize("name", MEASURED)
def test_further_measurements(workspace: Workspace, tmp_path: Path, name: str) -> None:
    path = real_set(workspace, 2).save(tmp_path / "set")
    found = evaluate(
        path, settings(eval__epochs="5", eval__full_epochs="3"), options=EvaluationOptions(further=[name], keep=False, trust=True)
    )
    result = plain(found.measurements[name])
    json.dumps(result, allow_nan=False)
    if name == "ranking":
        assert result["ior"] == pytest.approx(found.accuracy.distilled.mean - found.accuracy.random.mean)
        assert result["acc_real_hard"] == found.accuracy.full.mean
    elif name == "robustness":
        assert result["labels"]["stored"] == found.accuracy.distilled.mean
    elif name == "areas":
        assert result["compared_with"] == "random"
        assert result["test_images"]["chance"]["n"] == 500
    elif name == "distances":
        assert {"distilled", "random", "test"} == set(result["sets"])
    elif name == "continual":
        assert len(result["memories"]["distilled"]["steps"]) == 5
        assert result["training"] == {"protocol": "dd 1, 5 epochs", "batch_size": 128, "lr": 0.05, "random_lr": 0.05}
    else:
        assert set(result) == {"distilled", "random", "random_own", "full", "training"}


def test_what_was_measured_is_noted_before_more_is(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing is lost with a process that is killed."""
    path, seen = real_set(workspace, 2).save(tmp_path / "set"), list[Any]()

    def noted() -> list[dict[str, Any]]:
        return [one["further"] for one in DistilledSet.load(path).metadata["evaluations"] if one["accuracy"]["distilled"]["n"] == 2]

    def measure(subject: Any) -> int:
        seen.append(noted())
        return len(seen)

    for name in ("areas", "ranking"):
        monkeypatch.setitem(FURTHER, name, measure)
    short = settings(eval__epochs="2", eval__full_epochs="1")
    evaluate(path, short, options=EvaluationOptions(further=["areas", "ranking"], trust=True))
    assert seen == [[{}], [{"areas": 1}]] and noted() == [{"areas": 1, "ranking": 2}]


def test_a_search_goes_on_where_it_was_stopped(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = real_set(workspace, 2).save(tmp_path / "set")
    names = ["ConvNetD1-w4", "ConvNetD1-w8", "ConvNetD2-w8"]
    monkeypatch.setattr("limbeck.evaluation.architecture_search.search_space", lambda **_: names)
    made = settings(eval__epochs="3", eval__full_epochs="2")
    options = EvaluationOptions(further=["search"], keep=False, trust=True)
    first = evaluate(path, made, options=options).measurements["search"]
    assert set(first.accuracy) == {"distilled", "random", "full"}
    assert all(list(row) == names for row in first.accuracy.values())
    monkeypatch.setattr("limbeck.evaluation.fitting.ProtocolFit.__call__", lambda *_, **__: pytest.fail("trained again"))
    assert evaluate(path, made, options=options).measurements["search"].accuracy == first.accuracy


def test_without_validation_the_last_iterate_is_the_result_of_all_training_images(tmp_path: Path) -> None:
    short = {
        "experts.num_experts": "1",
        "experts.train_epochs": "2",
        "match.syn_steps": "2",
        "match.expert_epochs": "1",
        "schedule.first_max_start_epoch": "1",
        "schedule.max_start_epoch": "1",
        "outer.iterations": "4",
        "eval.every": "2",
        "eval.epochs": "3",
        "eval.full_epochs": "1",
        "eval.protocol": "dd-published",
    }
    made = load_recipe("scenes", OVERRIDES | short)
    results = distill(made, tmp_path / "run")
    assert results.best_iteration == 4
    assert results.protocol["validation"] is False
    assert results.evaluation.compression.images.real == 400  # nothing was kept apart
    last, header = read_tensors(tmp_path / "run" / "snapshots" / "iteration-000004.safetensors")
    assert torch.equal(DistilledSet.load(tmp_path / "run" / "distilled").images, last["X"])
    assert header["accuracy"] is None
    again = evaluate(tmp_path / "run" / "distilled", made)
    assert again.accuracy.distilled.to_dict() == read_json(tmp_path / "run" / "results.json")["accuracy"]["distilled"]
