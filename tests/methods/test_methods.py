"""Methods by name: what they stand for, what single ones do, and what they refuse. `test_contract.py` has what holds of all."""

from functools import partial
from pathlib import Path

import pytest
import torch
from reference import student
from same_bits.record import SETTINGS
from torch import Tensor

from limbeck.distilled.set import DistilledSet
from limbeck.methods.registry import METHODS
from limbeck.networks.flat import flat_network
from limbeck.recipes import key_types, load_recipe, settings_from_plain
from limbeck.runs.distill import distill
from limbeck.runs.plan import plan
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_tensors
from limbeck.runtime.fingerprint import encodable
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.progress import NoProgress

TEACHERS = ("sre2l", "cda", "sre2l++", "fadrm", "rded")  # label what they make
OVERRIDES = SETTINGS | {
    "match.syn_steps": "2",
    "outer.checkpoint_every": "2",
    "eval.epochs": "2",
    "eval.full_epochs": "1",
    "eval.random_lr": "0.01",
    "features": "none",
}


def settings(method: str, **changes: str) -> DistillSettings:
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return load_recipe("scenes", OVERRIDES | {"method": method} | changed)


def test_every_method_has_a_preset_of_known_keys() -> None:
    assert all(key in key_types() for method in METHODS.values() for key in method.preset)
    reading = {name for name, method in METHODS.items() if method.experts}
    walking = {name for name, method in METHODS.items() if method.steps}
    assert walking == {"edf", "edf-plus", "pad", "datm", "tesla", "ftd", "mtt"} == reading - {"ncfm"}
    assert {name for name, method in METHODS.items() if method.labels == "soft"} == {*walking, *TEACHERS}


def test_a_preset_lies_under_the_recipe_and_is_stored_whole() -> None:
    mtt = load_recipe("scenes", {"method": "mtt"})
    assert (mtt.labels, mtt.init, mtt.schedule.kind, mtt.match.criterion, mtt.enhance.weighting) == (
        "hard",
        "real",
        "uniform",
        "none",
        "none",
    )
    assert load_recipe("scenes", {"method": "mtt", "init": "noise"}).init == "noise"
    assert load_recipe("scenes", {"method": "tesla"}).engine.kind == "tesla"
    ftd = load_recipe("scenes", {"method": "ftd"})
    assert (ftd.experts.optimiser, ftd.experts.alpha) == ("gsam", 0.4)
    assert settings_from_plain(encodable(ftd)) == ftd
    assert load_recipe("scenes", {"method": "edf"}) == load_recipe("scenes")


@pytest.mark.parametrize("network", ["ConvNetD2-w8", "ConvNetD2-w8-batchnorm"])
def test_teslas_soft_labels_are_what_the_target_checkpoint_says_of_the_images(tmp_path: Path, network: str) -> None:
    """Anew in every iteration: the loss of each is that of plain student steps on these labels."""
    made = settings("tesla", labels="soft", eval__every="1", network=network, augment__strategy="none", match__batch_syn="10")
    distill(made, tmp_path / "run")
    seen = [read_tensors(tmp_path / "run" / "snapshots" / f"iteration-{n:06d}.safetensors")[0] for n in range(7)]
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "iteration"]
    experts, plain = Workspace(made, NoProgress()).experts, student.plain_convnet(network, 10)

    def says(expert: int, epoch: int, x: Tensor) -> Tensor:
        return plain(experts.read(expert, epoch).double(), x.double())

    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
    if "batchnorm" not in network:  # whose teacher has statistics of the training images
        close(seen[0]["Y"].double(), says(0, made.experts.train_epochs, seen[0]["X"]))
    for before, after, row in zip(seen[:-1], seen[1:], rows, strict=True):
        assert not torch.equal(before["X"], after["X"])
        expert, epoch = row["expert"], row["start_epoch"]
        labels = says(expert, epoch + made.match.expert_epochs, before["X"])
        close(after["Y"].double(), labels)
        start, target = (experts.read(expert, at).double() for at in (epoch, epoch + made.match.expert_epochs))
        theta = start
        for _ in range(made.match.syn_steps):
            leaf = theta.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(student.loss(plain, leaf, before["X"].double(), labels), leaf)
            theta = theta - before["syn_lr"].item() * gradient
        expected = (theta - target).square().sum() / (start - target).square().sum()
        assert row["loss"] == pytest.approx(expected.item(), rel=1e-4)
    held = DistilledSet.load(tmp_path / "run" / "distilled")
    assert held.label_kind == "logits"
    with pytest.raises(UsageError, match=r"^outer.lr_label: 2.0 is not 0 with match.relabel, whose labels are made anew "):
        settings("tesla", labels="soft", outer__lr_label="2")


def test_teslas_hard_labels_are_the_classes(tmp_path: Path) -> None:
    distill(settings("tesla"), tmp_path / "run")
    last = read_tensors(tmp_path / "run" / "snapshots" / "iteration-000006.safetensors")[0]
    assert torch.equal(last["Y"], torch.eye(10))


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("sre2l", {"network": "MLP-w8"}, "sre2l.teacher: 'MLP-w8' is not a network with batch norm"),
        ("sre2l", {"sre2l__teacher": "ConvNetD2-w8"}, "sre2l.teacher: 'ConvNetD2-w8' is not a network with batch norm"),
        (
            "fadrm",
            {"data__zca": "true", "sre2l__iterations": "8"},
            "sre2l.low_resolution: 0.8928571428571429 is not 1 with data.zca=true",
        ),
        (
            "sre2l",
            {"enhance__weighting": "activation", "enhance__cam_layer": "blocks.7"},
            "enhance.cam_layer: 'blocks.7' is not last",
        ),
        (
            "rded",
            {"enhance__weighting": "activation"},
            "enhance.weighting: 'activation' is not none: rded optimises nothing, and has",
        ),
        ("sre2l", {"sre2l__teacher": "ConvNetDD"}, "sre2l.teacher: 'ConvNetDD' is not a name such as"),
        ("rded", {"rded__factor": "2", "ipc": "3"}, "ipc: 3 is not at most 2: class 0 has 9 training images, 4 of which make one"),
        ("rded", {"rded__teacher": "ConvNetD9"}, "rded.teacher: 'ConvNetD9' is not a name such as"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, changes: dict[str, str], message: str
) -> None:
    monkeypatch.setattr("limbeck.evaluation.evaluator.Evaluator.trained", lambda *_: pytest.fail("a teacher was asked for"))
    with pytest.raises(UsageError) as caught:
        distill(settings(method, **changes), tmp_path / "run")
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_methods_without_trajectories_take_weights_from_a_network_of_the_full_data(tmp_path: Path) -> None:
    plain, weighted = (settings("dm", enhance__weighting=kind, enhance__cam_every="2") for kind in ("none", "activation"))
    distill(plain, tmp_path / "plain")
    distill(weighted, tmp_path / "weighted")
    name = "snapshots/iteration-000003.safetensors"
    ours, theirs = (read_tensors(tmp_path / folder / name)[0] for folder in ("plain", "weighted"))
    assert not torch.equal(ours["X"], theirs["X"])
    assert set(theirs["weights"].unique().tolist()) != {1.0}
    assert ours["weights"].unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "mtt", "outer__lr_label": "1"}, "outer.lr_label: 1.0 is not 0 with labels=hard"),
        ({"method": "dm", "labels": "soft"}, "labels: 'soft' is not hard, which dm needs"),
        ({"method": "magic"}, "method: 'magic' is not one of edf, edf-plus, pad, datm"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        settings(**changes)
    assert message in str(error.value)


def test_plans_of_other_methods() -> None:
    found = plan(settings("dm"))
    assert found.engine is None
    assert found.seconds > 0
    with pytest.raises(UsageError, match="method: 'random' is not one that has iterations to plan"):
        plan(settings("random"))


@pytest.mark.parametrize("criterion", ["random", "uniform", "first", "middle", "last"])
def test_every_criterion_drops_its_share_of_a_trajectory(tmp_path: Path, criterion: str) -> None:
    made = settings("edf", match__criterion=criterion, match__drop_ratio="0.25")
    distill(made, tmp_path / "run")
    _, header = read_tensors(tmp_path / "run" / "snapshots" / "iteration-000006.safetensors")
    network = flat_network(made.network, (3, 16, 16), 10)
    sizes = dict(zip(network.shapes, network.sizes, strict=True))
    kept = sum(size * header["kept_share"][name] for name, size in sizes.items())
    assert kept == pytest.approx(network.num_parameters - network.num_parameters // 4)
