"""The research code's YAML files become recipes: names, their defaults, what is dropped and what nobody knows."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from limbeck.augmentation import NO_AUGMENTATION
from limbeck.cli.command import Parser
from limbeck.cli.recipes import COMMAND
from limbeck.data.registry import find_subset, subsets
from limbeck.experts.trainer import rate_of
from limbeck.matching.adjoint import InnerLoop, Tesla
from limbeck.matching.distances import MatchingLoss
from limbeck.matching.steps import StepDraw, StudentStep
from limbeck.networks.flat import flat_network
from limbeck.recipes import key_types, load_recipe, parse_overrides, settings_from_plain
from limbeck.recipes_import.names import NAMES
from limbeck.recipes_import.translate import Imported, guess, import_recipe, import_values
from limbeck.runtime.errors import UsageError

EDF = """
dataset: ImageNet
subset: imagenette
res: 128
model: ConvNetD5
device: [0, 1, 2, 3]
ipc: 10
syn_steps: 40
expert_epochs: 2
zca: True
zca: False
lr_img: 1000
lr_teacher: 0.01
lr_lr: 1e-5
lr_y: 2.
Momentum_y: 0.9
buffer_path: /home/somebody/buffers
data_path: /home/somebody/imagenet
cam_path: /home/somebody/resnet18.pth
project: imagenette_ipc10
Iteration: 10000
num_eval: 1
eval_it: 500
skip_first_eva: True
threshold: 1.5
batch_syn: 200
batch_train: 128
pix_init: samples_predicted_correctly
min_start_epoch: 0
current_max_start_epoch: 10
max_start_epoch: 20
expansion_end_epoch: 1000
beta: 1
interval: 100
loss_threshold: 0.25
warp_factor: 9
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "old.yaml"
    path.write_text(text)
    return path


def loaded(imported: Imported, tmp_path: Path) -> Any:
    (tmp_path / "new.yaml").write_text(imported.text("old.yaml"))
    return load_recipe(str(tmp_path / "new.yaml"))


def test_a_released_edf_file_is_the_published_recipe(tmp_path: Path) -> None:
    imported = import_recipe(write(tmp_path, EDF))
    settings = loaded(imported, tmp_path)
    assert settings == load_recipe("imagenette/ConvNetD5/edf-ipc10", {"eval.protocol": "dd"})
    assert imported.method == "edf" and "method" not in imported.values
    assert imported.unknown == ["warp_factor"]
    assert imported.dropped == ["device", "buffer_path", "data_path", "cam_path", "project", "skip_first_eva"]
    text = imported.text("old.yaml")
    assert "somebody" not in text and "# unknown keys, left out: warp_factor\n" in text
    assert set(yaml.safe_load(text)) <= {key.split(".")[0] for key in key_types()}


def test_what_a_file_leaves_out_is_the_research_codes_default(tmp_path: Path) -> None:
    imported = import_values({"lr_y": 5.0})
    settings = loaded(imported, tmp_path)
    assert (settings.method, settings.ipc, settings.data.zca, settings.network) == ("datm", 1, True, "ConvNetD3")
    assert (settings.outer.iterations, settings.outer.max_match_loss, settings.match.syn_steps) == (5000, 1.0, 80)
    assert (settings.schedule.first_max_start_epoch, settings.schedule.max_start_epoch, settings.schedule.iterations) == (
        20,
        25,
        3000,
    )
    assert (settings.eval.every, settings.eval.every_seeds, settings.eval.batch_size) == (100, 5, 256)
    assert settings.outer.lr_label == 5.0 and settings.experts.optimiser == "gsam"
    assert any(note.startswith("not in the file, so by the defaults of DATM: dataset, model, ipc") for note in imported.notes)


@pytest.mark.parametrize(
    ("given", "method", "owner", "wanted"),
    [
        # T, M, ZCA, the end of the start epochs, iterations, the start, the trainings of an evaluation
        ({"ipc": 1}, "mtt", "MTT", (20, 3, False, 25, 5000, "real", 5)),
        ({"ipc": 1, "ema_decay": 0.999}, "ftd", "FTD", (20, 3, False, 25, 5000, "real", 5)),
        ({"teacher_label": False}, "tesla", "TESLA", (20, 3, False, 25, 10_000, "real", 3)),
        ({"lr_y": 5.0}, "datm", "DATM", (80, 2, True, 25, 5000, "correct", 5)),
        ({"Initial_Step": 8}, "datm", "DATM's first release", (20, 3, True, 25, 5000, "real", 5)),
        ({"depth_ratio": 0.5}, "pad", "PAD", (80, 2, True, 25, 5000, "correct", 5)),
        ({"beta": 1}, "edf", "DATM", (80, 2, True, 25, 5000, "correct", 5)),
    ],
)
def test_a_file_takes_the_defaults_of_its_own_method(
    given: dict[str, Any], method: str, owner: str, wanted: tuple[Any, ...], tmp_path: Path
) -> None:
    imported = import_values(given)
    settings = loaded(imported, tmp_path)
    match, schedule, outer = settings.match, settings.schedule, settings.outer
    sizes = (match.syn_steps, match.expert_epochs, settings.data.zca, schedule.max_start_epoch, outer.iterations)
    assert (*sizes, settings.init, settings.eval.every_seeds) == wanted
    assert imported.method == settings.method == method
    assert any(note.startswith(f"not in the file, so by the defaults of {owner}: ") for note in imported.notes)
    hard = method in ("mtt", "ftd", "tesla")
    assert (settings.labels, schedule.kind) == (("hard", "uniform") if hard else ("soft", "sequential"))
    assert settings.experts.optimiser == ("sgd" if method in ("mtt", "tesla") else "gsam")
    assert settings.experts.train_epochs == (50 if hard else 100)
    assert settings.match.batch_syn == (256 if method == "pad" else None)
    assert settings.outer.ema_decay == (0.999 if method == "ftd" else None)


@pytest.mark.parametrize("named", [False, True], ids=["told by its keys", "named"])
def test_the_step_size_of_tesla_is_half_of_the_releases(named: bool, tmp_path: Path) -> None:
    given = {"lr_img": 1000, "teacher_label": True} | ({} if not named else {"random_trajectory": True})
    imported = import_values(given, "tesla" if named else None)
    settings = loaded(imported, tmp_path)
    assert (settings.outer.lr_img, settings.labels, settings.engine.kind) == (500.0, "soft", "tesla")
    assert any(note.startswith("lr_img: 1000 is outer.lr_img 500: ") for note in imported.notes)
    assert any(note.startswith("random_trajectory") for note in imported.notes) == named
    assert import_values({"lr_img": 1000}, "mtt").values.get("outer.lr_img", 1000.0) == 1000.0


def test_half_of_its_step_size_along_the_whole_gradient_is_teslas_released_step(tmp_path: Path) -> None:
    """f(x) = W x, ℓ = ½ ‖f − y‖²: g_n = (W_n x − y) xᵀ, and for any c with W's shape ∂⟨c, g_n⟩/∂x = cᵀ(W_n x − y) + W_nᵀ c x."""
    draws = torch.Generator().manual_seed(0)
    start, target, y = (torch.randn(shape, generator=draws, dtype=torch.float64) for shape in ((2, 3), (2, 3), (2,)))
    x, eta, steps, there = torch.randn(3, generator=draws, dtype=torch.float64), 0.1, 4, 1000.0
    ways, gradients = [start], []
    for _ in range(steps):
        gradients.append(torch.outer(ways[-1] @ x - y, x))
        ways.append(ways[-1] - eta * gradients[-1])
    c = (eta * (target - start) + eta**2 * torch.stack(gradients).sum(0)) / (start - target).square().sum()
    released = torch.stack([c.T @ (way @ x - y) + way.T @ c @ x for way in ways[:-1]]).sum(0)  # without the 2

    network = flat_network(lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)), (3, 1, 1), 2)
    step = StudentStep(network, lambda logits, labels: (logits - labels).square().sum(1).mean() / 2)
    augment = [StepDraw(torch.tensor([0]), NO_AUGMENTATION.draw(draws, (1, 3, 1, 1))) for _ in range(steps)]
    loss = MatchingLoss(start.flatten(), target.flatten())
    inner = InnerLoop(step, start.flatten(), augment)
    [found] = Tesla()(inner, x.view(1, 3, 1, 1), y.view(1, 2), torch.tensor(eta, dtype=torch.float64), loss)
    here = loaded(import_values({"lr_img": there}, "tesla"), tmp_path).outer.lr_img
    assert torch.allclose(here * found.images.flatten(), there * released, rtol=1e-9, atol=0)


def test_comp_dd_as_its_files_spell_it() -> None:
    spelt = ("birds", "dogs", "cars", "fish", "snake", "insect", "round", "music")
    wanted = {f"{name.removesuffix('s')}-{level}" for name in spelt for level in ("easy", "hard")}
    found = {find_subset(f"{name}_{level}").name for name in spelt for level in ("easy", "hard")}
    assert found == {f"comp-dd/{name}" for name in wanted} == {name for name in subsets() if name.startswith("comp-dd/")}


def test_files_of_the_first_datm_release() -> None:
    values = {"Initial_Step": 8, "learn_end_epoch": 1, "max_start_epoch": 10, "ema_decay": 0.995, "batch_syn": "None"}
    imported = import_values(values)
    assert imported.values["schedule.first_max_start_epoch"] == 8
    assert imported.values["schedule.iterations"] == 1
    assert "match.batch_syn" not in imported.values and "outer.ema_decay" not in imported.values
    assert any("outer.ema_decay=0.995" in note for note in imported.notes)
    assert imported.unknown == []


def test_an_end_beyond_the_last_is_the_last() -> None:
    imported = import_values({"lr_y": 2.0, "current_max_start_epoch": 20, "max_start_epoch": 10})
    assert imported.values["schedule.first_max_start_epoch"] == 10


def test_mtt_has_hard_labels_and_a_uniform_schedule(tmp_path: Path) -> None:
    imported = import_values({"syn_steps": 20, "max_start_epoch": 10, "lr_lr": "1e-6", "Iteration": 5000, "dataset": "CIFAR100"})
    settings = loaded(imported, tmp_path)
    assert (imported.method, settings.labels, settings.init, settings.schedule.kind) == ("mtt", "hard", "real", "uniform")
    assert (settings.outer.lr_lr, settings.outer.lr_label, settings.outer.max_match_loss) == (1e-6, 0.0, float("inf"))
    assert settings.experts.optimiser == "sgd" and settings.data.size is None
    assert any("'cifar-100-python' is to be the path" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("CIFAR10", "cifar10"), ("CIFAR100", "cifar10"), ("Tiny", "imagenet"), ("ImageNet", "imagenet"), ("MNIST", "mnist")],
)
@pytest.mark.parametrize("key", ["loss_ratio", "lr_y", "teacher_label", "syn_steps"])
def test_images_are_normalised_as_the_research_code_does(dataset: str, name: str, key: str) -> None:
    assert (
        import_values({key: 1 if key == "teacher_label" else 0.5, "dataset": dataset} | {"syn_steps": 20}).values["data.normalise"]
        == name
    )


@pytest.mark.parametrize(("key", "ratio"), [("loss_threshold", 0.25), ("loss_ratio", 0.125), ("lr_y", 0.125), ("syn_steps", 0.125)])
def test_edf_alone_shifts_images_by_a_quarter(key: str, ratio: float, tmp_path: Path) -> None:
    assert loaded(import_values({key: 0.5 if "loss" in key else 5, "max_start_epoch": 30}), tmp_path).augment.crop_ratio == ratio
    assert loaded(import_values({key: 0.5 if "loss" in key else 5}, "mtt"), tmp_path).augment.crop_ratio == 0.125


def test_pad_by_loss_and_by_depth(tmp_path: Path) -> None:
    by_loss = import_values({"loss_ratio": 0.5, "depth_ratio": 0.5})
    settings = loaded(by_loss, tmp_path)
    assert (settings.method, settings.match.criterion, settings.match.drop_ratio) == ("pad", "loss", 0.5)
    assert (settings.match.batch_syn, settings.experts.curriculum) == (256, "pad")
    (said,) = [note for note in by_loss.notes if note.startswith("depth_ratio: 0.5 is the share of parameters")]
    advised = settings_from_plain({**by_loss.values}, parse_overrides(re.findall(r"match\.\S+=\S+", said)))
    assert (advised.match.criterion, advised.match.drop_ratio) == ("first", 0.5)
    by_depth = loaded(import_values({"depth_ratio": 0.25}), tmp_path)
    assert (by_depth.match.criterion, by_depth.match.drop_ratio) == ("first", 0.25)


def test_a_file_for_experts_alone() -> None:
    imported = import_values(
        {"train_epochs": 50, "num_experts": 20, "lr_teacher": 0.02, "rho_max": 0.1, "rho_min": 0.1, "alpha": 0.4}
    )
    values = imported.values
    assert (values["experts.expert_lr"], values["experts.train_epochs"], values["experts.num_experts"]) == (0.02, 50, 20)
    assert (values["experts.optimiser"], values["experts.rho_max"], values["experts.alpha"]) == ("gsam", 0.1, 0.4)
    assert "outer.syn_lr_init" not in values


def test_a_step_size_that_falls_falls_in_the_same_epoch(tmp_path: Path) -> None:
    """There after the epoch E // 2 + 1 that is counted from 0: 27 of 50 epochs have the first step size."""
    imported = import_values({"train_epochs": 50, "lr_teacher": 0.02, "mom": 0.5, "decay": True})
    experts = loaded(imported, tmp_path).experts
    rate = rate_of(experts)
    assert [rate.factor(epoch, experts.train_epochs) for epoch in range(50)] == [1.0] * 27 + [pytest.approx(0.1)] * 23
    assert any("momentum" in note for note in imported.notes)
    assert not any(key.startswith("experts.rate") for key in import_values({"train_epochs": 50, "decay": False}).values)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"model": "ConvNetD4BN"}, {"network": "ConvNetD4-batchnorm"}),
        ({"model": "ResNet18BN"}, {"network": "ResNet18-batchnorm"}),
        ({"model": "ConvNetBN"}, {"network": "ConvNetD3-batchnorm"}),
        ({"model": "ConvNetW64"}, {"network": "ConvNetD3-w64"}),
        ({"model": "ConvNetIN"}, {}),
        ({"model": "ConvNetMP"}, {"network": "ConvNetD3-maxpool"}),
        ({"model": "VGG11_Tiny"}, {"network": "VGG11"}),
        ({"dataset": "ImageNet", "subset": "bird_hard", "zca": False}, {"data.source": "imagenet:comp-dd/bird-hard"}),
        ({"dataset": "ImageNet", "subset": "birds_easy"}, {"data.source": "imagenet:comp-dd/bird-easy", "data.size": 128}),
        ({"dataset": "ImageNet", "subset": "dogs_hard"}, {"data.source": "imagenet:comp-dd/dog-hard"}),
        ({"dataset": "ImageNet", "subset": "cars_easy", "res": 64}, {"data.source": "imagenet:comp-dd/car-easy", "data.size": 64}),
        ({"dataset": "ImageNet", "teacher_label": True}, {"data.source": "imagenet", "data.size": 64}),
        ({"dataset": "Tiny", "res": 64}, {"data.source": "tiny-imagenet-200", "data.size": 64}),
        ({"dataset": "Tiny"}, {"data.size": 64}),
        ({"interval": 50, "act_threshold": 0.4}, {"enhance.cam_threshold": 0.4}),
        ({"interval": 50, "act_threshold": "mean"}, {}),
        ({"dsa": False}, {"augment.strategy": "none"}),
        ({"no_aug": True}, {"augment.strategy": "none"}),
        ({"Sequential_Generation": False}, {"schedule.kind": "uniform"}),
        ({"max_files": 5, "max_experts": 4}, {"experts.num_experts": 20}),
        ({"max_files": 5}, {"experts.num_experts": 50}),
        ({"dsa": "False"}, {"augment.strategy": "none"}),
        ({"loss_ratio": 0.25, "sort_method": "CIFAR10_GraNd", "init_ratio": 0.75}, {"method": "pad", "match.drop_ratio": None}),
        ({"pix_init": "noise"}, {"init": "noise"}),
    ],
)
def test_single_keys(given: dict[str, Any], values: dict[str, Any]) -> None:
    imported = import_values({"ipc": 1, **({} if "teacher_label" in given else {"lr_y": 2.0}), **given})
    assert {key: imported.values.get(key) for key in values} == values
    assert not imported.unknown
    if not values:  # the method's own
        assert not {"network", "enhance.cam_threshold"} & imported.values.keys()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"eval_mode": "M"}, "eval_mode: M is left out; eval.networks=ConvNetD3,ResNet18"),
        ({"no_aug": True}, "no_aug: true leaves augmentation out of experts and evaluation"),
        (
            {"sort_method": "CIFAR10_Uncertainty"},
            "sort_method: Uncertainty is left out; difficulty is GraNd, or experts.difficulty=el2n",
        ),
        ({"sort_method": "x_GraNd", "rm_epoch_first": 30}, "rm_epoch_first: left out; the curriculum is as PAD published it"),
    ],
)
def test_what_a_recipe_cannot_say_is_noted_with_what_it_can(given: dict[str, Any], says: str) -> None:
    imported = import_values({"ipc": 1, **given})
    (said,) = [note for note in imported.notes if note.startswith(says)]
    settings_from_plain(imported.values, parse_overrides(re.findall(r"[a-z]+\.[a-z_]+=\S+", said.replace(" evaluates", ""))))


def test_a_file_of_another_kind_of_method_is_refused() -> None:
    with pytest.raises(UsageError, match="^--method: 'dm' is not one of edf, pad, datm, tesla, ftd, mtt, whose files can be read$"):
        import_values({"ipc": 1}, "dm")


def test_every_name_in_the_table_is_a_key() -> None:
    assert set(NAMES.values()) <= set(key_types())


def test_guesses() -> None:
    assert [guess({key: 1}) for key in ("loss_threshold", "loss_ratio", "lr_y", "syn_steps")] == ["edf", "pad", "datm", "mtt"]
    assert guess({"pix_init": "samples_predicted_correctly"}) == "datm"
    assert [guess({key: 1}) for key in ("act_threshold", "depth_ratio", "teacher_label", "threshold", "ema_decay")] == [
        *("edf", "pad", "tesla", "datm", "ftd")
    ]
    assert import_values({"syn_steps": 3}, "edf").method == "edf"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1\n", "holds no keys with values"),
        ("", "holds no keys with values"),
        ("a: 1\n", "is no file of the research code"),
        ("ipc: [\n", "is no YAML"),
        ("ipc: many\n", "ipc: 'many' is not a whole number"),
        ("ipc: 0\n", "ipc: 0 is not at least 1"),
        ("ipc: 1\nmodel: ResNet18_AP\n", "model: 'ResNet18_AP' is not a network of the research code that there is here"),
        ("ipc: 1\nmodel: ConvNetLN\n", "model: 'ConvNetLN' is not a network"),
        ("interval: 1\nact_threshold: half\n", "enhance.cam_threshold: 'half' is not"),
        ("lr_y: 1.\npix_init: magic\n", "pix_init: 'magic' is not one of"),
        ("dataset: ImageNet\nsubset: imagenope\nipc: 1\n", "subset: 'imagenope' is none of"),
        ("loss_ratio: 2\n", "match.drop_ratio: 2.0 is not in [0, 1)"),
        ("lr_y: 1.\nmax_start_epoch: abc\n", "schedule.max_start_epoch: 'abc' is not a whole number"),
        ("teacher_label: true\nlr_img: abc\n", "outer.lr_img: 'abc' is not a number"),
        ("decay: true\ntrain_epochs: abc\n", "experts.train_epochs: 'abc' is not a whole number"),
        ("decay: true\ntrain_epochs: 0\n", "experts.train_epochs: 0 is not at least 1"),
        ("ipc: 1\nmax_files: abc\n", "max_files: 'abc' is not a whole number or null"),
    ],
)
def test_what_cannot_be_imported(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        import_recipe(write(tmp_path, text))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_no_python_in_a_file_is_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no YAML"):
        import_recipe(write(tmp_path, "ipc: !!python/object/apply:os.getcwd []\n"))


# The command

IMPORT = COMMAND.actions["import"]


def run(*words: str) -> Any:
    command, rest = (IMPORT, words[1:]) if words[0] == "import" else (COMMAND, words)
    parser = Parser(prog="limbeck recipes")
    command.add_arguments(parser)
    return command.run(parser.parse_intermixed_args(list(rest)))


def test_command_writes_a_recipe_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new.yaml"
    results = run("import", str(write(tmp_path, EDF)), "--output", str(new))
    assert load_recipe(str(new)).ipc == 10
    assert results.settings.match.drop_ratio == 0.25 and results.unknown == ["warp_factor"]
    IMPORT.show(results)
    out = capsys.readouterr().out
    assert "unknown: warp_factor\n" in out and out.endswith(f"recipe: {new}\n")
    with pytest.raises(UsageError, match="^--output: .* is not a new file"):
        run("import", str(tmp_path / "old.yaml"), "--output", str(new))
    printed = run("import", str(tmp_path / "old.yaml"), "--method", "datm")
    IMPORT.show(printed)
    assert capsys.readouterr().out.startswith("# DATM after old.yaml")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("import",), "the following arguments are required: FILE"),
        (("import", "absent.yaml"), "FILE: 'absent.yaml' cannot be read"),
        (("import", "a", "b"), "unrecognized arguments: b"),
        (("import", "a.yaml", "--full"), "unrecognized arguments: --full"),
        (("scenes", "--output", "a.yaml"), "unrecognized arguments: --output"),
        (("scenes", "cifar10"), "unrecognized arguments: cifar10"),
    ],
)
def test_command_refuses(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(*words)
    assert str(caught.value).startswith(says)


def test_command_refuses_an_unknown_method(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="^--method: 'magic' is not one of edf, "):
        run("import", str(write(tmp_path, EDF)), "--method", "magic")
