"""Settings that cannot lie: presets, what contradicts a method, EDF's own, and every field by every way in."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torchcam.methods
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck import methods
from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.settings import DataSettings
from limbeck.distilled.settings import ViewLabelSettings
from limbeck.evaluation.settings import EvalSettings
from limbeck.experts.settings import ExpertSettings
from limbeck.image_complexity.settings import BuildSettings, ComplexitySettings
from limbeck.matching.criteria import LowLossDropout
from limbeck.matching.schedules import Uniform
from limbeck.matching.settings import EngineSettings, MatchSettings, ScheduleSettings
from limbeck.methods.method import Method
from limbeck.methods.registry import METHODS
from limbeck.methods.settings import OuterSettings, RdedSettings, RealSettings, Sre2lSettings
from limbeck.recipes import load_recipe, settings_from_plain
from limbeck.runs.settings import DistillSettings, dotted, key_types, published_ratio, value_of
from limbeck.runtime.checked import Chosen, kinds_of, named_by, options_of
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import encodable, plain
from limbeck.saliency.settings import EnhanceSettings, TorchCam

DEFAULTS = DistillSettings()
GROUPS = {name: type(value) for name, value in DEFAULTS.items() if dataclasses.is_dataclass(value)}
CLASSES = [*GROUPS.values(), DistillSettings, ComplexitySettings, BuildSettings]
FIELDS = [(owner, name) for owner in CLASSES for name in kinds_of(owner) if name not in GROUPS or owner is not DistillSettings]


def refusal(call: Any, *arguments: Any, **keys: Any) -> str:
    with pytest.raises(UsageError) as caught:
        call(*arguments, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Presets


@pytest.mark.parametrize("method", METHODS)
def test_a_method_by_name_is_what_a_recipe_gets(method: str) -> None:
    made = DistillSettings.of(method=method)
    assert made == settings_from_plain({"method": method})
    assert all(value_of(made, key) == value for key, value in METHODS[method].preset.items())
    assert settings_from_plain(plain(made)) == made == settings_from_plain(json.loads(json.dumps(encodable(made))))
    assert dataclasses.replace(made, seed=3) == DistillSettings.of(method=method, seed=3)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "edf"])
def test_the_bare_constructor_refuses_what_contradicts_its_method(method: str) -> None:
    said = refusal(DistillSettings, method=method)
    key, preset = said.partition(":")[0], METHODS[method].preset
    value = preset[key]
    assert f"is not {value!r}, which {method} stands for; DistillSettings.of(method='{method}', …) lays" in said
    made = DistillSettings.of(method=method)
    assert refusal(dataclasses.replace, DEFAULTS, method=method) == said
    assert DistillSettings(**dict(made.items())) == made  # what agrees with the method is taken


def test_keys_are_given_in_full_in_groups_or_by_their_last_word() -> None:
    made = DistillSettings.of({"match.drop_ratio": 0.25}, method="mtt", match={"syn_steps": 3}, lr_img=5, ipc=2)
    assert (made.match.drop_ratio, made.match.syn_steps, made.outer.lr_img, made.ipc) == (0.25, 3, 5.0, 2)
    assert (made.labels, made.match.criterion) == ("hard", "none")
    assert dotted({"schedule": "uniform", "adjoint": "tesla", "augmentation": "none", "iterations": 3}) == {
        "schedule.kind": "uniform",
        "engine.kind": "tesla",
        "augment.strategy": "none",
        "outer.iterations": 3,
    }
    assert dotted({"schedule": {"kind": "uniform"}, "ema_decay": None, "match": None}) == {
        "schedule": {"kind": "uniform"},
        "outer.ema_decay": None,
        "match": None,
    }
    assert (
        refusal(DistillSettings.of, batch_size=3) == "batch_size: may be experts.batch_size or sre2l.batch_size or eval.batch_size"
    )
    assert refusal(DistillSettings.of, syn_step=3) == "syn_step: is not a key; did you mean match.syn_steps?"
    assert refusal(DistillSettings.of, {"match.syn_steps": 3}, syn_steps=4) == "match.syn_steps: is given twice"
    assert refusal(DistillSettings.of, {"match.syn_steps": 3}, match={"syn_steps": 4}) == "match.syn_steps: is given twice"


def test_what_is_given_goes_before_the_preset() -> None:
    soft = DistillSettings.of(method="tesla", labels="soft", **{"outer.lr_label": 1.0, "match.relabel": False})
    assert (soft.labels, soft.engine.kind, soft.schedule.kind) == ("soft", "tesla", "uniform")
    assert dataclasses.replace(soft, seed=1).labels == "soft"
    assert settings_from_plain(plain(soft)) == soft


def test_a_group_given_as_settings_is_whole_and_without_doubt() -> None:
    match = MatchSettings(syn_steps=3, criterion="none")
    assert DistillSettings.of(method="mtt", match=match).match == match
    assert refusal(DistillSettings.of, method="mtt", match=MatchSettings(syn_steps=3)) == (
        "match.criterion: 'loss' is not 'none', which mtt stands for; match={…} or match.criterion leaves no doubt"
    )
    odd = DistillSettings.of(method="mtt", match=MatchSettings(criterion="random", drop_ratio=0.5))
    assert (odd.match.criterion, odd.match.drop_ratio) == ("random", 0.5)


def test_a_method_of_ones_own_has_its_preset_too() -> None:
    own = Method(make=print, preset={"labels": "hard", "outer.lr_label": 0, "match.syn_steps": 5})
    made = DistillSettings.of(method=own)
    assert (made.labels, made.match.syn_steps, made.method) == ("hard", 5, own)
    assert refusal(DistillSettings, method=own).startswith("labels: 'soft' is not 'hard'")
    assert "lays what it stands for" in refusal(DistillSettings, method="mine:METHOD")
    written = encodable(made)
    assert written["method"].startswith("limbeck.methods.method:Method(make=builtins:print, preset={labels: 'hard'")
    assert encodable(settings_from_plain(written, imports=False)) == written
    wrong = Method(make=print, preset={"match.syn_steps": "many"})
    assert refusal(DistillSettings.of, method=wrong).endswith("is not a whole number (in the preset of the method)")


def test_a_method_that_was_given_settings_is_called_by_its_name() -> None:
    made = DistillSettings.of(method=methods.edf(drop_ratio=0.5, beta=2.0, criterion=LowLossDropout(0.1)), ipc=10, beta=3.0)
    assert (made.method, made.match.drop_ratio, made.enhance.beta, made.match.criterion) == ("edf", 0.5, 3.0, LowLossDropout(0.1))
    assert DistillSettings.of(method=methods.mtt(), ipc=3) == DistillSettings.of(method="mtt", ipc=3)
    assert DistillSettings.of(method=methods.edf(), ipc=10).notes() == DistillSettings(ipc=10).notes()
    assert refusal(DistillSettings, method=methods.edf(beta=2.0)).startswith("enhance.beta: 1.0 is not 2.0, which edf stands for")
    tesla = DistillSettings.of(method=methods.tesla(schedule="sequential", adjoint="exact", augmentation="none"))
    assert (tesla.schedule.kind, tesla.engine.kind, tesla.augment.strategy) == ("sequential", "exact", "none")


# EDF


@pytest.mark.parametrize(
    ("ipc", "ratio"), [(1, 0.0), (2, 0.25), (3, 0.25), (10, 0.25), (22, 0.25), (23, 0.375), (50, 0.375), (200, 0.375)]
)
def test_edf_is_edf_by_default(ipc: int, ratio: float) -> None:
    made = DistillSettings.of(method="edf", ipc=ipc)
    assert made.match.drop_ratio == ratio == published_ratio(ipc)
    assert (made.match.criterion, made.enhance.weighting, made.enhance.beta) == ("loss", "activation", 1.0)
    assert made == DistillSettings(ipc=ipc) == dataclasses.replace(DEFAULTS, ipc=ipc) == settings_from_plain({"ipc": ipc})
    assert encodable(made)["match"]["drop_ratio"] == ratio  # what metadata hold
    assert settings_from_plain(plain(made)) == made


def test_edf_says_what_it_chose() -> None:
    assert DistillSettings(ipc=10).notes() == ["note: match.drop_ratio=0.25, EDF's published for 10 images per class"]
    assert DistillSettings(ipc=3).notes() == [
        "note: match.drop_ratio=0.25, EDF's published for 10 images per class, the nearest to 3"
    ]
    assert DistillSettings(ipc=1).notes() == ["note: match.drop_ratio=0, EDF's published for 1 image per class"]


def test_weights_that_adamw_cancels_are_said() -> None:
    why = "which divides every pixel's gradient by its own root mean square"
    note = f"note: enhance.weighting changes next to nothing with outer.img_optimiser=adamw, {why}; it counts with sgd"
    adamw, weights = {"outer.img_optimiser": "adamw"}, {"enhance.weighting": "activation"}
    assert DistillSettings.of(method="edf", **adamw).notes()[1:] == [note]
    assert DistillSettings.of(method="ncfm", **weights).notes() == [note]
    for method, keys in (("edf", {"match.drop_ratio": 0.0}), ("ncfm", {}), ("datm", adamw), ("sre2l", adamw | weights)):
        assert DistillSettings.of(method=method, **keys).notes() == [], method


def test_a_ratio_that_is_given_stays() -> None:
    for ratio in (0.0, 0.25, 0.5):
        made = DistillSettings(ipc=50, match=MatchSettings(drop_ratio=ratio))
        assert made.match.drop_ratio == ratio and made.notes() == []
        assert dataclasses.replace(made, ipc=10).match.drop_ratio == ratio
        assert DistillSettings.of(ipc=50, drop_ratio=ratio).match.drop_ratio == ratio
    moved = dataclasses.replace(DistillSettings(ipc=50), match=dataclasses.replace(DistillSettings(ipc=50).match, syn_steps=3))
    assert isinstance(moved.match.drop_ratio, Chosen) and moved.match.drop_ratio == 0.375


def test_other_methods_drop_what_they_say() -> None:
    for method in METHODS:
        ratio = {"edf": 0.375, "edf-plus": 0.375, "pad": 0.25}.get(method, 0.0)
        assert DistillSettings.of(method=method, ipc=50).match.drop_ratio == ratio
    assert DistillSettings.of(ipc=50, criterion="none").match.drop_ratio == 0.0
    assert load_recipe("scenes", {"ipc": "10"}).match.drop_ratio == 0.25
    assert load_recipe("scenes", {"ipc": "10", "method": "datm"}).match.drop_ratio == 0.0


# Objects


def test_keys_that_name_objects_take_and_describe_them() -> None:
    named = {key for key, kind in key_types().items() if named_by(kind)}
    assert named == {
        "data.source", "network", "augment.strategy", "init", "method", "match.criterion", "match.distance", "match.loss",
        "schedule.kind", "enhance.weighting", "enhance.cam", "engine.kind", "eval.protocol",
        "parametrisation.kind",
    }  # fmt: skip
    made = DistillSettings.of({key: LowLossDropout(0.5) for key in named - {"method"}})
    for key in named - {"method"}:
        assert value_of(made, key) == LowLossDropout(0.5)
    described = "limbeck.matching.criteria:LowLossDropout(drop_ratio=0.5)"
    assert plain(made)["match"]["criterion"] == plain(made)["network"] == described
    assert encodable(settings_from_plain(encodable(made), imports=False)) == encodable(made)
    assert refusal(DistillSettings, method=LowLossDropout(0.5)).startswith("method: LowLossDropout(drop_ratio=0.5) is not a")


def test_a_schedule_says_itself_which_epochs_experts_must_have() -> None:
    assert DistillSettings.of(schedule=Uniform(0, 99)).schedule.kind == Uniform(0, 99)
    assert DistillSettings.of(schedule=Uniform).schedule.kind is Uniform  # it is made of the other keys
    assert refusal(DistillSettings.of, schedule=Uniform(0, 100)).startswith("experts.train_epochs: 100 is not at least")


def test_maps_of_torch_cam_are_named_as_there() -> None:
    installed = [name for name in get_args(TorchCam) if hasattr(torchcam.methods, name)]
    assert len(installed) >= 9  # earlier versions have no LeGrad
    assert EnhanceSettings(cam="XGradCAM").cam == "XGradCAM"
    assert "XGradCAM" in refusal(EnhanceSettings, cam="BestCAM")


# Whatever is wrong


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (ExpertSettings, "optimiser", "bogus"),
        (ExpertSettings, "curriculum", "bogus"),
        (ExpertSettings, "difficulty", "bogus"),
        (ExpertSettings, "num_experts", 2.5),
        (ExpertSettings, "expert_lr", "0.1"),
        (ExpertSettings, "momentum", 1.0),
        (ExpertSettings, "alpha", math.nan),
        (EngineSettings, "kind", "bogus"),
        (EngineSettings, "precision", "fp8"),
        (EngineSettings, "compile", True),
        (EngineSettings, "micro_batch", "some"),
        (EngineSettings, "memory", 4),
        (OuterSettings, "iterations", 2.5),
        (OuterSettings, "iterations", True),
        (OuterSettings, "lr_img", math.inf),
        (OuterSettings, "ema_decay", 1),
        (MatchSettings, "syn_steps", "3"),
        (MatchSettings, "match_norm", 1),
        (MatchSettings, "drop_ratio", -0.1),
        (ScheduleSettings, "kind", "bogus"),
        (EnhanceSettings, "weighting", "bogus"),
        (EnhanceSettings, "cam_network", "resnet"),
        (AugmentSettings, "flip", "no"),
        (DataSettings, "size", "64"),
        (DataSettings, "seed", None),
        (DataSettings, "seed", 2**64),
        (DistillSettings, "seed", -(2**63) - 1),
        (EvalSettings, "protocol", 3),
        (DistillSettings, "labels", "bogus"),
    ],
)
def test_wrong_values_pass_no_constructor(owner: Any, name: str, value: Any) -> None:
    assert refusal(owner, **{name: value}).startswith(f"{owner.key(name)}: {value!r} is not ")


def accepted_kinds(kind: Any) -> set[type]:
    """Of which Python types a value of `kind` may be, before ranges."""
    kinds: set[type] = {str} if named_by(kind) else set()
    for option, _ in options_of(kind):
        kinds |= {float: {int, float}, bool: {bool}, int: {int}, str: {str}}.get(
            option, {type(None)} if option is type(None) else set()
        )
        kinds |= {str} if get_origin(option) is Literal else {list} if get_origin(option) is tuple else set()
    return kinds


WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text("qxz", min_size=1), st.dictionaries(st.text("qxz"), st.integers())
)
LISTS = st.lists(st.one_of(st.booleans(), st.none(), st.text("qxz"), st.lists(st.integers())), max_size=4)


@pytest.mark.parametrize(("owner", "name"), FIELDS, ids=lambda value: value if isinstance(value, str) else value.__name__)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_wrong_types_are_refused_by_every_way_in(owner: Any, name: str, data: st.DataObject) -> None:
    kind, key = kinds_of(owner)[name], owner.key(name)
    accepted = accepted_kinds(kind)
    value = data.draw(WRONG.filter(lambda drawn: type(drawn) not in accepted) | LISTS.filter(lambda _: list not in accepted))
    if isinstance(value, dict) and owner is DistillSettings:
        value = [value]
    base = {"categories": "x"} if owner is BuildSettings else {}
    said = refusal(owner, **{**base, name: value})
    assert said.startswith(f"{key}: ") and said == refusal(dataclasses.replace, owner(**base), **{name: value})
    if key in key_types():
        assert refusal(DistillSettings.of, {key: value}).startswith(f"{key}: ")
        assert refusal(settings_from_plain, {key: value}).startswith(f"{key}: ")


@pytest.mark.parametrize("key", key_types())
@settings(max_examples=6, deadline=None, derandomize=True)
@given(text=st.text("qxz", min_size=1, max_size=5))
def test_text_that_is_no_value_is_refused(key: str, text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """By a file and by the command line; keys that take any text do take it, until somebody looks for what it names."""
    if str in [option for option, _ in options_of(key_types()[key])] and key not in ("method", "augment.strategy", "engine.memory"):
        return
    file = tmp_path_factory.mktemp("recipes") / "mine.yaml"
    file.write_text(f"{key}: {text}\n")
    for call in (lambda: load_recipe(str(file)), lambda: load_recipe("scenes", {key: text})):
        assert refusal(call).startswith(f"{key}: {text!r} is not ")


OUT_OF_RANGE = {int: (-1, -(10**12)), float: (-1.5, math.nan, -math.inf)}


@pytest.mark.parametrize("key", [key for key in key_types() if key not in ("seed", "data.seed")])
def test_numbers_out_of_range_are_refused_by_every_way_in(key: str) -> None:
    kinds = [option for option, _ in options_of(key_types()[key]) if option in OUT_OF_RANGE]
    for value in [value for kind in kinds for value in OUT_OF_RANGE[kind]]:
        group, _, name = key.rpartition(".")
        owner = GROUPS.get(group, DistillSettings)
        calls = (
            lambda: owner(**{name: value}),  # noqa: B023 (called at once)
            lambda: DistillSettings.of({key: value}),  # noqa: B023
            lambda: settings_from_plain({key: value}),  # noqa: B023
            lambda: load_recipe("scenes", {key: str(value).replace("nan", ".nan")}),  # noqa: B023
        )
        assert all(refusal(call).startswith(f"{key}: {value!r} is not ") for call in calls)


def test_settings_of_a_group_are_of_its_class() -> None:
    assert refusal(DistillSettings, match=OuterSettings()).startswith("match: OuterSettings(")
    assert refusal(DistillSettings, match={"syn_steps": 3}) == "match: {'syn_steps': 3} is not a MatchSettings"
    assert refusal(DistillSettings.of, match=OuterSettings()).startswith("match.iterations: is not a key")
    assert RealSettings(outer_loops=None) == RealSettings() and RdedSettings(factor=1) != Sre2lSettings()
    assert ViewLabelSettings(top=3).top == 3


def test_paths_are_taken_as_text(tmp_path: Path) -> None:
    made = DistillSettings(output=tmp_path, data=DataSettings(source=tmp_path, root=tmp_path), init=tmp_path)  # type: ignore[arg-type]
    assert made.output == made.data.source == made.data.root == made.init == str(tmp_path)
