"""Every recipe that is shipped: it loads, explains itself, and holds what was published."""

import csv
import dataclasses
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from key_values import value_of

from limbeck.augmentation import Dsa
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.registry import find_subset
from limbeck.data.split import whole
from limbeck.evaluation.protocols import resolve
from limbeck.methods.registry import METHODS
from limbeck.networks.flat import flat_network
from limbeck.recipes import (
    FOLDER,
    describe,
    key_types,
    load_recipe,
    recipe_names,
    recipe_text,
    settings_from_plain,
)
from limbeck.runs.build import augmentation_of
from limbeck.runs.settings import DistillSettings

DEFAULTS = DistillSettings()
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MLP = flat_network("MLP-w2", (3, 8, 8), 10)
GREY = whole(np.full((2, 3, 8, 8), 128, np.uint8), np.arange(2))


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_explains_itself(name: str) -> None:
    header = [line for line in recipe_text(name).splitlines() if line.startswith("#")]
    assert len(describe(name)) > 20
    for field in ("Paper:", "Expected:", "Time:", "Hardware:", "Command:"):
        assert any(line.startswith(f"# {field}") and len(line) > len(field) + 5 for line in header), field
    command = next(line for line in header if line.startswith("# Command:"))
    assert f"limbeck distill {name}" in command
    assert says_what_was_measured(name, " ".join(header)), "Expected: needs a figure or `not run`, not only where to look"


def says_what_was_measured(name: str, header: str) -> bool:
    """Whether a figure is expected, it says that there is none, or docs/results.md has a row of that recipe or its method there."""
    expected = header.partition("# Expected:")[2].partition("# Time:")[0].partition("# Differs:")[0]
    if re.search(r"\d %|not run", expected):
        return True
    folder, _, last = name.rpartition("/")
    sections = (Path(__file__).parents[1] / "docs" / "results.md").read_text(encoding="utf-8").lower().split("\n#")
    of_folder = "\n".join(section for section in sections if folder in section.partition("\n")[0].replace("-", ""))
    return f"| `{name}` |" in "\n".join(sections) or f"| {last.rpartition('-ipc')[0]} |" in of_folder


def test_a_header_that_only_says_where_to_look_is_found() -> None:
    where = "# Expected: see docs/results.md; the paper has no figure for this size # Time: 5 %"
    assert not says_what_was_measured("cifar10/tesla-ipc1", where)
    assert says_what_was_measured("cifar10/mtt-ipc1", where) and says_what_was_measured("scenes/tesla-ipc1", where)
    assert says_what_was_measured("cifar10/tesla-ipc1", "# Expected: not run at this size # Time: 1")


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_loads_and_holds_only_differences(name: str) -> None:
    settings, given = load_recipe(name), yaml.safe_load(recipe_text(name))
    without = settings_from_plain({"method": given.get("method", DEFAULTS.method)})  # what the method stands for by itself
    for key in flat(given):
        base = DEFAULTS if key == "method" else without
        assert value_of(settings, key) != value_of(base, key), f"{key} is so without being said"


def flat(values: dict[str, Any], prefix: str = "") -> list[str]:
    rows = []
    for key, value in values.items():
        rows += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return rows


def test_every_shipped_file_is_a_recipe() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sorted(path.relative_to(FOLDER).as_posix() for path in files) == [f"{name}.yaml" for name in recipe_names()]
    assert "scenes" in recipe_names()


def test_every_published_setting_has_its_recipe() -> None:
    made = runpy.run_path(str(BENCHMARKS / "make_published_recipes.py"))["recipes"]()
    assert len(made) == 36
    for name, text in made.items():
        assert recipe_text(name) == text, f"{name}: benchmarks/make_published_recipes.py writes it anew"


def test_every_published_setting_of_ncfm_has_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    made = runpy.run_path(str(BENCHMARKS / "make_ncfm_recipes.py"))["recipes"]()
    assert len(made) == 21
    for name, text in made.items():
        assert recipe_text(name) == text, f"{name}: benchmarks/make_ncfm_recipes.py writes it anew"


@pytest.mark.parametrize(
    "row",
    list(csv.DictReader((BENCHMARKS / "published" / "ncfm_settings.csv").read_text(encoding="utf-8").splitlines())),
    ids=lambda row: f"{row['dataset']}-{row['condense.ipc']}",
)
def test_published_settings_of_ncfm_are_loaded_key_by_key(row: dict[str, str]) -> None:
    s = load_recipe(f"ncfm/{row['dataset']}-ipc{row['condense.ipc']}")
    outer, own, experts = s.outer, s.ncfm, s.experts
    found = (outer.iterations, outer.img_optimiser, outer.img_momentum, s.real.batch, s.ipc, s.network, s.eval.epochs)
    assert [str(one) for one in found] == [
        row["condense.niter"],
        row["optimization.optimizer"],
        row["optimization.mom_img"],
        row["dataset.batch_real"],
        row["condense.ipc"],
        f"ConvNetD{row['network.depth']}",
        row["train.evaluation_epochs"],
    ]
    # Published are steps of pixels in [0, 1]: AdamW's do not depend on the gradient's length, SGD's go with it.
    scale, power = {"adamw": (float(row["optimization.lr_scale_adam"]), 1), "sgd": (1.0, 2)}[row["optimization.optimizer"]]
    std = fit_preprocessing(s.data, GREY).tensors()["std"].mean().item()
    assert outer.lr_img * std**power == pytest.approx(scale * float(row["optimization.lr_img"]), rel=0.01)
    assert not outer.adamw or outer.img_weight_decay == float(row["train.weight_decay"]) == 5e-4
    assert (own.frequencies, own.amplitude, own.phase, own.scale, own.calibration) == (4096, 0.5, 0.5, 300.0, 1.0)
    assert (s.parametrisation.kind, str(s.parametrisation.factor)) == ("multi", row["condense.factor"])
    assert (own.sampling, own.sampling_lr, s.labels, s.method) == ("normal", 1e-3, "hard", "ncfm")
    assert (experts.num_experts, experts.train_epochs) == (20, int(row["train.pertrain_epochs"]))
    assert (experts.expert_lr, experts.momentum, experts.weight_decay, experts.batch_size) == (0.01, 0.9, 5e-4, 128)
    assert (s.eval.protocol, s.data.val_fraction) == ("ncfm-2025", 0.0)


# The released settings of EDF, column by column: the key, and how its value comes from the text.
COLUMNS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "dataset": ("data.source", "imagenet:{}".format),
    "network": ("network", str),
    "resolution": ("data.size", int),
    "ipc": ("ipc", int),
    "iterations": ("outer.iterations", int),
    "syn_steps": ("match.syn_steps", int),
    "expert_epochs": ("match.expert_epochs", int),
    "batch_syn": ("match.batch_syn", int),
    "lr_img": ("outer.lr_img", float),
    "lr_label": ("outer.lr_label", float),
    "label_momentum": ("outer.label_momentum", float),
    "lr_lr": ("outer.lr_lr", float),
    "syn_lr_init": ("outer.syn_lr_init", float),
    "min_start_epoch": ("schedule.min_start_epoch", int),
    "first_max_start_epoch": ("schedule.first_max_start_epoch", int),
    "max_start_epoch": ("schedule.max_start_epoch", int),
    "schedule_iterations": ("schedule.iterations", int),
    "max_match_loss": ("outer.max_match_loss", float),
    "drop_ratio": ("match.drop_ratio", float),
    "beta": ("enhance.beta", float),
    "cam_every": ("enhance.cam_every", int),
    "cam_network": ("enhance.cam_network", {"ResNet18": "expert"}.__getitem__),  # which no recipe can have: it says so
    "cam_layer": ("enhance.cam_layer", {"layer4": "last"}.__getitem__),  # of ResNet-18's four the last
    "init": ("init", {"samples_predicted_correctly": "correct"}.__getitem__),
    "eval_every": ("eval.every", int),
    "eval_batch_size": ("eval.batch_size", {"128": None}.__getitem__),  # the protocol's
    "zca": ("data.zca", {"False": False}.__getitem__),
}
# What the releases of EDF have in all of them alike (arXiv:2410.17193), and what a recipe says of Limbeck besides.
ALIKE = {
    "data.normalise": "imagenet",
    "data.crop": "squash",
    "augment.strategy": "color_crop_cutout_flip_scale_rotate",
    "augment.crop_ratio": 0.25,
    "augment.flip": True,
    "augment.rotate": True,
    "method": "edf",
    "labels": "soft",
    "experts.num_experts": 100,
    "experts.train_epochs": 100,
    "experts.expert_lr": 0.01,
    "experts.rate": "constant",
    "experts.momentum": 0.0,
    "experts.weight_decay": 0.0,
    "experts.batch_size": 256,
    "experts.optimiser": "gsam",
    "experts.rho_min": 0.01,
    "experts.rho_max": 0.01,
    "experts.alpha": 0.3,
    "experts.curriculum": "none",
    "experts.crop_ratio": 0.125,
    "experts.label_experts": None,
    "match.criterion": "loss",
    "match.drop_side": "low",
    "match.distance": "squared",
    "match.small_chunk": "first",
    "match.match_norm": False,
    "schedule.kind": "sequential",
    "enhance.weighting": "activation",
    "enhance.cam": "smooth_gradcam_pp",
    "enhance.cam_threshold": "mean",
    "outer.img_momentum": 0.5,
    "outer.lr_momentum": 0.5,
    "outer.ema_decay": None,
    "engine.kind": "exact",
    "engine.precision": "fp32",
    "eval.protocol": "dd-published",
    "eval.epochs": None,
}


@pytest.mark.parametrize(
    "row",
    list(csv.DictReader((BENCHMARKS / "published" / "edf_settings.csv").read_text(encoding="utf-8").splitlines())),
    ids=lambda row: f"{row['dataset']}-{row['ipc']}",
)
def test_published_settings_are_loaded_key_by_key(row: dict[str, str]) -> None:
    settings = load_recipe(f"{row['dataset']}/{row['network']}/edf-ipc{row['ipc']}")
    assert row.keys() == COLUMNS.keys()
    wanted = {key: read(row[column]) for column, (key, read) in COLUMNS.items()} | ALIKE
    assert {key: value_of(settings, key) for key in wanted} == wanted
    others = [key for key in key_types() if key not in wanted and value_of(settings, key) != value_of(DEFAULTS, key)]
    assert others == [], "a published recipe says what is in no table"
    assert find_subset(settings.data.source.partition(":")[2]).name == row["dataset"]
    protocol = resolve(settings.eval)
    assert (protocol.batch_size, protocol.epochs, protocol.momentum, protocol.weight_decay) == (128, 1000, 0.9, 5e-4)
    assert (protocol.validation, protocol.augment, protocol.rate, protocol.optimiser) == (False, "set", "drop_at_half", "sgd")
    ours = augmentation_of(settings.augment)
    assert ours == protocol.training(MLP, ours, 0.01, 1, "logits").augment == Dsa(crop_ratio=0.25)
    channels = fit_preprocessing(settings.data, GREY)
    assert torch.equal(channels.tensors()["mean"], torch.tensor([0.485, 0.456, 0.406]))
    assert torch.equal(channels.tensors()["std"], torch.tensor([0.229, 0.224, 0.225]))


@pytest.mark.parametrize("folder", ["scenes", "cifar10", "imagenette"])
def test_small_recipes_differ_in_their_methods_alone(folder: str) -> None:
    """Data, network, augmentation and evaluation are the same; so are the experts of methods that need no others."""
    names = [name for name in recipe_names() if re.fullmatch(rf"{folder}/[a-z0-9+-]+-ipc1", name)]
    found = {load_recipe(name).method: load_recipe(name) for name in names}
    assert found.keys() == METHODS.keys()
    base = found["edf"]
    for method, settings in found.items():
        assert (settings.data, settings.network, settings.augment) == (base.data, base.network, base.augment), method
        assert dataclasses.replace(settings.eval, every=base.eval.every) == base.eval, method
        if method in ("mtt", "tesla", "datm"):
            assert settings.experts == base.experts, method


def test_scenes_is_edf_on_easy_scenes_without_flips() -> None:
    settings = load_recipe("scenes")
    assert (settings.method, settings.data.source, settings.ipc, settings.network) == ("edf", "scenes:easy", 1, "ConvNetD3-w32")
    assert settings.augment.strategy == "crop_scale"
    assert settings.match.drop_ratio == 0  # as published for one image per class
