"""Recipes and overrides become settings of the right types; whatever is wrong is said in one line that names the key."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from key_values import value_of

from limbeck.methods.registry import METHODS
from limbeck.methods.settings import OuterSettings
from limbeck.recipes import (
    key_types,
    load_recipe,
    parse_overrides,
    settings_from_plain,
    settings_yaml,
)
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import plain

DEFAULTS = DistillSettings()


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
        ("matchh=1", "matchh: is not a key; did you mean match.…?"),
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
