"""Recipes and overrides become settings of the right types; whatever is wrong is said in one line that names the key."""

import csv
import dataclasses
import json
import math
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from limbeck.augmentation import Dsa
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.registry import find_subset
from limbeck.data.split import whole
from limbeck.evaluation.protocols import resolve
from limbeck.methods.registry import METHODS
from limbeck.methods.settings import OuterSettings
from limbeck.networks.flat import flat_network
from limbeck.recipes import (
    FOLDER,
    describe,
    key_types,
    load_recipe,
    parse_overrides,
    recipe_names,
    recipe_text,
    settings_from_plain,
    settings_yaml,
)
from limbeck.runs.build import augmentation_of
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import plain

DEFAULTS = DistillSettings()
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MLP = flat_network("MLP-w2", (3, 8, 8), 10)
GREY = whole(np.full((2, 3, 8, 8), 128, np.uint8), np.arange(2))


def value_of(settings: DistillSettings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def overridden(word: str) -> Any:
    """The value that `key=value` gives to its key."""
    return value_of(settings_from_plain({}, parse_overrides([word])), word.partition("=")[0])


def from_yaml(tmp_path: Path, text: str | bytes) -> DistillSettings:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_recipe(str(path))


def refusal(call: Any, *arguments: Any) -> str:
    """The message of the `UsageError` that the call ends in, which is one line."""
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Every recipe that is shipped


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
    list(csv.DictReader((BENCHMARKS / "published" / "ncfm_settings.csv").open(encoding="utf-8"))),
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
    assert outer.lr_img == {"adamw": 0.001, "sgd": 0.01}[row["optimization.optimizer"]]  # the former is scaled by a tenth
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
# What the releases of EDF have in all of them alike (PAPER §§ 1, 3 to 8, 12), and what a recipe says of Limbeck besides.
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
    list(csv.DictReader((BENCHMARKS / "published" / "edf_settings.csv").open(encoding="utf-8"))),
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


# Values


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("ipc=10", 10),
        ("seed=-1", -1),
        ("match.drop_ratio=0.25", 0.25),
        ("outer.lr_img=1e3", 1000.0),
        ("outer.lr_img=5", 5.0),
        ("outer.lr_lr=1E-6", 1e-6),
        ("outer.max_match_loss=inf", math.inf),
        ("outer.max_match_loss=.inf", math.inf),
        ("outer.ema_decay=null", None),
        ("outer.ema_decay=0.99", 0.99),
        ("data.size=48", 48),
        ("data.size=[32, 48]", (32, 48)),
        ("data.size=null", None),
        ("data.normalise=imagenet", "imagenet"),
        ("data.normalise=true", "fitted"),
        ("data.normalise=false", "none"),
        ("data.normalise=[[0.5],[0.25]]", ((0.5,), (0.25,))),
        ("data.normalise=[[0.4, 0.5, 0.6], [1, 0.2, 0.3]]", ((0.4, 0.5, 0.6), (1.0, 0.2, 0.3))),
        ("data.source=123", "123"),
        ("data.source=a=b: c", "a=b: c"),
        ("data.source=@folder", "@folder"),
        ("output=runs/a", "runs/a"),
        ("augment.flip=false", False),
        ("engine.compile=no", "no"),
        ("enhance.cam_threshold=0.3", 0.3),
        ("enhance.cam_threshold=mean", "mean"),
    ],
)
def test_override(word: str, value: Any) -> None:
    read = overridden(word)
    assert read == value
    assert type(read) is type(value)


def test_last_override_of_a_key_counts() -> None:
    assert parse_overrides(["ipc=1", "seed=2", "ipc=10"]) == {"ipc": "10", "seed": "2"}


def test_yaml_is_read_by_the_rules_of_yaml_1_2(tmp_path: Path) -> None:
    outer = "outer: {lr_img: 1e2, lr_lr: 1E-6, max_match_loss: .inf}"
    others = "engine: {compile: no}\naugment: {flip: False}\ndata: {size: [32, 48], seed: 010}"
    settings = from_yaml(tmp_path, f"{outer}\n{others}")
    assert (settings.outer.lr_img, settings.outer.lr_lr, settings.outer.max_match_loss) == (100.0, 1e-6, math.inf)
    assert (settings.engine.compile, settings.augment.flip, settings.data.size, settings.data.seed) == ("no", False, (32, 48), 10)


def test_dotted_keys_and_empty_groups(tmp_path: Path) -> None:
    assert from_yaml(tmp_path, "match.drop_ratio: 0.5\nouter:\n") == settings_from_plain({"match": {"drop_ratio": 0.5}})
    assert from_yaml(tmp_path, "# nothing\n") == DEFAULTS


def test_overrides_go_before_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("ipc: 3\nseed: 4\n")
    settings = load_recipe(str(tmp_path / "mine.yml"), {"ipc": "5"})
    assert (settings.ipc, settings.seed) == (5, 4)


def test_ranges_are_checked_after_everything_is_merged() -> None:
    overrides = {"schedule.max_start_epoch": "60", "experts.train_epochs": "62"}
    assert load_recipe("scenes", overrides).schedule.max_start_epoch == 60  # either alone is out of range in `scenes`


# Round trip


CHANGED = dataclasses.replace(
    load_recipe("scenes", {"data.size": "[32, 48]", "enhance.cam_threshold": "0.3", "experts.label_experts": "2"}),
    outer=OuterSettings(max_match_loss=math.inf, lr_lr=1e-7, ema_decay=0.99),
)


def test_plain_values_come_back() -> None:
    assert settings_from_plain(plain(CHANGED)) == CHANGED
    assert settings_from_plain(plain(DEFAULTS)) == DEFAULTS


def test_json_file_is_valid_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    write_json(path, CHANGED)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    assert settings_from_plain(read_json(path)) == CHANGED


def test_yaml_text_comes_back(tmp_path: Path) -> None:
    assert from_yaml(tmp_path, settings_yaml(CHANGED)) == CHANGED


def test_every_key_has_a_type_that_its_default_fits() -> None:
    for key in key_types():
        value = value_of(DEFAULTS, key)
        assert settings_from_plain({key: value}) == DEFAULTS, key


# What is wrong


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("match.drop_rati=1", "match.drop_rati: is not a key; did you mean match.drop_ratio?"),
        ("drop_ratio=1", "drop_ratio: is not a key; did you mean match.drop_ratio?"),
        ("iterations=1", "iterations: is not a key; did you mean schedule.iterations or sre2l.iterations or outer.iterations?"),
        ("matching.syn_step=1", "matching.syn_step: is not a key; did you mean match.syn_steps?"),
        ("zzz=1", "zzz: is not a key; `limbeck recipes scenes --full` shows all"),
        ("match=1", "match: is a group of keys, such as match.syn_steps"),
        ("ipc=many", "ipc: 'many' is not a whole number"),
        ("ipc=1.5", "ipc: '1.5' is not a whole number"),
        ("ipc=true", "ipc: 'true' is not a whole number"),
        ("ipc=null", "ipc: 'null' is not a whole number"),
        ("ipc=", "ipc: '' is not a whole number"),
        ("outer.lr_img=big", "outer.lr_img: 'big' is not a number"),
        ("augment.flip=1", "augment.flip: '1' is not true or false"),
        ("data.size=[32]", "data.size: '[32]' is not a whole number or a list of 2 whole numbers or null"),
        ("experts.rate_milestones=0.5,0.7", "experts.rate_milestones: '0.5,0.7' is not a list of numbers"),
        ("sre2l.betas=0.5", "sre2l.betas: '0.5' is not a list of 2 numbers"),
        ("sre2l.crop_scale=[0.1]", "sre2l.crop_scale: '[0.1]' is not a list of 2 numbers"),
        ("rded.crop_scale=big", "rded.crop_scale: 'big' is not a list of 2 numbers"),
        ("data.classes=cat", "data.classes: 'cat' is not a list of names or whole numbers or null"),
        ("init=", "init: '' is not one of correct, real, noise, centre, or the path of a distilled set"),
        ("method=magic", f"method: 'magic' is not one of {', '.join(METHODS)}"),
        ("enhance.cam_threshold=median", "enhance.cam_threshold: 'median' is not mean or a number"),
        ("output=runs/\udcff", "output: 'runs/\\udcff' is not UTF-8 text, which the files of a run hold"),
        ("ipc=0", "ipc: 0 is not at least 1"),
        ("match.drop_ratio=1.5", "match.drop_ratio: 1.5 is not in [0, 1)"),
        ("outer.lr_img=.nan", "outer.lr_img: nan is not in [0, 1e+38]"),
        ("ipc", "'ipc' is not of the form key=value, such as ipc=10"),
        ("=3", "'=3' is not of the form key=value, such as ipc=10"),
    ],
)
def test_wrong_override(word: str, message: str) -> None:
    assert refusal(overridden, word) == message


def test_every_list_key_says_what_it_holds() -> None:
    """With a value that no list is, and that even `data.classes`, of names, refuses."""
    lists = [key for key, kind in key_types().items() if "tuple" in str(kind)]
    assert len(lists) >= 6
    for key in lists:
        message = refusal(overridden, f"{key}={{a: 1}}")
        held = r"a list of (names or whole numbers|\d? ?whole numbers|\d? ?numbers|2 lists of numbers or true or false|names of .*)"
        assert re.search(rf"is not (.* or )?{held}( or null)?$", message), message


def test_long_values_are_cut() -> None:
    assert len(refusal(overridden, "ipc=" + "9x" * 500)) < 100


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("- 1\n", ["holds a list, not keys with values"]),
        ("just words\n", ["holds 'just words', not keys with values"]),
        ("match:\n  drop_ratio: 0\n  drop_ratio: 0.5\n", ["line 3", "drop_ratio is given twice"]),
        ("match: {drop_ratio: 0.5}\nmatch.drop_ratio: 0.2\n", ["match.drop_ratio: is given twice"]),
        ("ipc: [\n", ["line 2"]),
        ("ipc: 1\n\tseed: 2\n", ["line 2"]),
        ("ipc: 1\n---\nipc: 2\n", ["line 2", "single document"]),
        ("ipc: \x00\n", ["unacceptable character"]),
        ("x: !!python/object/apply:os.getcwd []\n", ["line 1", "python/object"]),
        ("[1]: 2\n", ["line 1", "unhashable"]),
        ("match: 3\n", ["match: is a group of keys, such as match.syn_steps"]),
        ("data: &a {source: *a}\n", ["line 1", "an alias stands inside of what it repeats"]),
        ("ipc: null\n", ["ipc: null is not a whole number"]),
        ("data: {source: 123}\n", ["data.source: 123 is not a name, or in Python the object itself"]),
        ("1: 2\n", ["1: is not a key"]),
        ("null: 2\n", ["None: is not a key"]),
        ("match: {drop_ratio: half}\n", ["match.drop_ratio: 'half' is not a number"]),
        ("match: {drop_ratio: 2}\n", ["match.drop_ratio: 2.0 is not in [0, 1)"]),
        (b"\xff\xfe", ["not UTF-8"]),
    ],
)
def test_wrong_file(tmp_path: Path, text: str | bytes, parts: list[str]) -> None:
    message = refusal(from_yaml, tmp_path, text)
    assert all(part in message for part in parts), message
    assert "mine.yaml" in message or "twice" in message or "not in [0, 1)" in message


@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        ("scnes", "did you mean scenes?"),
        ("", "`limbeck recipes` lists them"),
        ("../recipes/scenes", "neither the name of a recipe nor a file"),
        ("absent.yaml", "recipe: 'absent.yaml' is not a file that exists"),
        ("runs", "neither the name of a recipe nor a file"),
    ],
)
def test_unknown_recipe(recipe: str, part: str) -> None:
    assert part in refusal(load_recipe, recipe)


@pytest.mark.parametrize("values", [None, [1], "text"])
def test_settings_that_are_no_mapping(values: Any) -> None:
    assert "not keys with values" in refusal(settings_from_plain, values)
