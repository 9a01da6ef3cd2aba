"""From settings to objects: every name, something of a user's by its name, and objects themselves; and what is refused."""

import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, make_dataclass
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torchcam import methods as torchcam_methods

from limbeck.augmentation import Augmentation, Dsa
from limbeck.augmentation_settings import AugmentSettings
from limbeck.distilled.initial import INITIALISATIONS, Initialisation
from limbeck.losses import cross_entropy, kl_divergence, soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, Exact, Tesla, Truncated, Unroll
from limbeck.matching.criteria import (
    Criterion,
    HighLossDropout,
    KeepAll,
    LayerDropout,
    LowLossDropout,
    RandomDropout,
    UniformDropout,
)
from limbeck.matching.distances import Distance, LayerCosine, SquaredError
from limbeck.matching.schedules import Schedule, Sequential, Uniform
from limbeck.matching.settings import EngineSettings, MatchSettings, ScheduleSettings
from limbeck.parametrisations.dct import Dct
from limbeck.parametrisations.multi_formation import MultiFormation
from limbeck.parametrisations.parametrisation import Parametrisation, Pixels
from limbeck.parametrisations.settings import ParametrisationSettings
from limbeck.runs import build
from limbeck.runs.settings import DistillSettings, key_types
from limbeck.runtime.checked import named_by, options_of
from limbeck.runtime.errors import UsageError
from limbeck.saliency.maps import Cam, FunctionCam, TorchCam
from limbeck.saliency.settings import EnhanceSettings
from limbeck.saliency.weights import Activation, Constant, NoWeighting, Shuffled, Weighting


@dataclass(frozen=True)
class Key:
    """A key that names an object.

    Args:
        name: the key.
        kind: what it names.
        made: from the key's value and other settings of the group.
        given: settings of the group, by their name there and by that of the parameter that takes them.
    """

    name: str
    kind: type
    made: Callable[..., Any]
    given: tuple[str, str, Any] | None = None

    def of(self, value: Any) -> Any:
        return self.made(value, **({} if self.given is None else {self.given[0]: self.given[2]}))

    def mine(self) -> type:
        """A class of that kind with a parameter of that name."""
        named = [] if self.given is None else [(self.given[1], Any)]
        stubs = {name: lambda *_: None for name in self.kind.__abstractmethods__}
        return make_dataclass("Mine", [*named, ("more", int, 3)], bases=(self.kind,), namespace=stubs, frozen=True)


KEYS = [
    Key(
        "match.criterion",
        Criterion,
        lambda v, **k: build.criterion_of(MatchSettings(criterion=v, **k)),
        ("drop_ratio",) * 2 + (0.3,),
    ),
    Key("match.distance", Distance, lambda v: build.distance_of(MatchSettings(distance=v))),
    Key("schedule.kind", Schedule, lambda v, **k: build.schedule_of(ScheduleSettings(kind=v, **k)), ("iterations",) * 2 + (7,)),
    Key(
        "enhance.weighting", Weighting, lambda v, **k: build.weighting_of(EnhanceSettings(weighting=v, **k)), ("beta",) * 2 + (2.5,)
    ),
    Key("enhance.cam", Cam, lambda v, **k: build.cam_of(EnhanceSettings(cam=v, **k)), ("cam_layer", "layer", "blocks.1")),
    Key("engine.kind", Adjoint, lambda v, **k: build.adjoint_of(EngineSettings(kind=v, **k)), ("last_steps", "steps", 4)),
    Key(
        "augment.strategy",
        Augmentation,
        lambda v, **k: build.augmentation_of(AugmentSettings(strategy=v, **k)),
        ("flip",) * 2 + (False,),
    ),
    Key(
        "parametrisation.kind",
        Parametrisation,
        lambda v, **k: build.parametrisation_of(ParametrisationSettings(kind=v, **k)),
        ("factor",) * 2 + (3,),
    ),
    Key("init", Initialisation, lambda v: build.initialisation_of(v)),
]
each_key = pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)


def names_of(key: str) -> set[str]:
    return {name for option, _ in options_of(key_types()[key]) for name in get_args(option)}


@pytest.mark.parametrize(
    ("key", "made"),
    [
        (
            "match.criterion",
            {
                "loss": LowLossDropout(0.3),
                "random": RandomDropout(0.3),
                "uniform": UniformDropout(0.3),
                "first": LayerDropout(0.3, "first"),
                "middle": LayerDropout(0.3, "middle"),
                "last": LayerDropout(0.3, "last"),
                "none": KeepAll(),
            },
        ),
        ("match.distance", {"squared": SquaredError(), "cosine": LayerCosine()}),
        ("schedule.kind", {"sequential": Sequential(0, 5, 10, 7), "uniform": Uniform(0, 10)}),
        (
            "enhance.weighting",
            {"activation": Activation(2.5), "constant": Constant(2.5), "shuffled": Shuffled(2.5), "none": NoWeighting()},
        ),
        ("parametrisation.kind", {"pixels": Pixels(), "multi": MultiFormation(3), "dct": Dct(3)}),
        ("engine.kind", {"exact": Exact(), "unroll": Unroll(), "tesla": Tesla(), "truncated": Truncated(steps=4)}),
    ],
)
def test_every_name_is_an_object(key: str, made: dict[str, Any]) -> None:
    of = next(one for one in KEYS if one.name == key).of
    assert made.keys() == names_of(key)
    for name, expected in made.items():
        assert type(of(name)) is type(expected) and (of(name) == expected or name == "unroll")


def test_names_whose_objects_are_many() -> None:
    cam, start, augment = (next(one for one in KEYS if one.name == key) for key in ("enhance.cam", "init", "augment.strategy"))
    assert all(cam.of(name) == TorchCam(name, "blocks.1") for name in names_of("enhance.cam"))
    assert names_of("enhance.cam") >= {name for name, value in vars(torchcam_methods).items() if isinstance(value, type)}
    assert all(start.of(name) is made for name, made in INITIALISATIONS.items())
    assert augment.of("crop_flip") == Dsa("crop_flip", flip=False)


def test_what_a_group_says_beside() -> None:
    assert build.criterion_of(MatchSettings(drop_ratio=0.25, drop_side="high")) == HighLossDropout(0.25)
    assert build.criterion_of(MatchSettings(drop_ratio=0.0)) == KeepAll()
    assert build.weighting_of(EnhanceSettings(cam_threshold=0.5)) == Activation(1.0, 0.5)
    s = DistillSettings.of(method="mtt", distance="cosine", **{"match.syn_steps": 7, "match.batch_syn": 3})
    m = build.matching_of(s, slots=5)
    assert (m.criterion, m.distance, m.schedule) == (KeepAll(), LayerCosine(), Uniform(0, 10))
    assert (m.syn_steps, m.expert_epochs, m.batch_syn) == (7, 2, 3)
    assert build.matching_of(DistillSettings.of(batch_syn="slots"), slots=5).batch_syn == 5
    assert build.matching_of(DistillSettings.of(), slots=5).batch_syn is None


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty module `own_parts`."""
    module = ModuleType("own_parts")
    monkeypatch.setitem(sys.modules, "own_parts", module)
    return module


@each_key
def test_something_of_ones_own(key: Key, own: ModuleType) -> None:
    mine = key.mine()
    expected = mine(*([] if key.given is None else [key.given[2]]))
    own.Mine, own.THIS, own.inner = mine, expected, SimpleNamespace(Mine=mine)

    def make(**taken: Any) -> Any:
        return mine(**taken)

    make.__signature__ = inspect.signature(mine)  # type: ignore[attr-defined]
    own.make = make
    for value in (
        "own_parts:Mine",
        "own_parts:THIS",
        "own_parts:make",
        "own_parts:inner.Mine",
        mine,
        own.make,
        partial(mine, more=3),
    ):
        assert key.of(value) == expected
    assert key.of(expected) is expected
    assert key.of("own_parts:THIS") is expected


@pytest.mark.parametrize(
    ("of", "kind", "changes", "wanted"),
    [
        (lambda s: build.criterion_of(s.match), KeepAll, {"match.drop_side": "high"}, {"drop_side": "high"}),
        (lambda s: build.criterion_of(s.match), KeepAll, {"match.drop_ratio": 0.5}, {"drop_ratio": 0.5}),
        (lambda s: build.cam_of(s.enhance), TorchCam, {"enhance.cam_layer": "blocks.1"}, {"cam_layer": "blocks.1"}),
        (lambda s: build.weighting_of(s.enhance), NoWeighting, {"enhance.cam_threshold": 0.5}, {"cam_threshold": 0.5}),
        (lambda s: build.adjoint_of(s.engine), Exact, {"engine.last_steps": 3}, {"last_steps": 3}),
    ],
)
def test_a_class_is_given_the_keys_of_its_group_by_their_names(of: Any, kind: Any, changes: Any, wanted: Any) -> None:
    """And a share of 0, which nobody has said, is left to the class."""

    class Mine(kind):  # type: ignore[misc]
        def __init__(self, drop_ratio=0.25, drop_side="low", cam_layer="", cam_threshold=0, last_steps=0) -> None:
            names = ("drop_ratio", "drop_side", "cam_layer", "cam_threshold", "last_steps")
            values = (drop_ratio, drop_side, cam_layer, cam_threshold, last_steps)
            object.__setattr__(self, "got", dict(zip(names, values, strict=True)))

    usual = {"match.criterion": Mine, "enhance.cam": Mine, "enhance.weighting": Mine, "engine.kind": Mine}
    got = of(DistillSettings.of({"method": "edf", **usual, **changes})).got
    assert got["drop_ratio"] == wanted.get("drop_ratio", 0.25)
    assert {key: got[key] for key in wanted} == wanted


def one_line(call: Callable[[], Any], start: str) -> None:
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value).startswith(start) and "\n" not in str(error.value)


@each_key
def test_anything_else_is_refused_in_a_line_that_names_the_key(key: Key, own: ModuleType) -> None:
    class Needing(key.mine()):  # type: ignore[misc]
        def __init__(self, what: int) -> None:
            raise AssertionError("it is not called")

    def broken() -> None:
        raise ZeroDivisionError("by\nnothing")

    class Other:
        pass

    vars(own).update(number=3, nothing=lambda: None, Other=Other, Abstract=key.kind, Needing=Needing, broken=broken)
    what = f"is not {'an' if key.kind.__name__[0] in 'AI' else 'a'} {key.kind.__name__}, nor a class or a function that makes one"
    for name in ("number", "nothing", "Other"):
        one_line(lambda name=name: key.of(f"own_parts:{name}"), f"{key.name}: 'own_parts:{name}' {what}")
    for value, shown in ((own.nothing, own.nothing.__qualname__), (Other, Other.__qualname__), (Other(), "Other")):
        one_line(lambda value=value: key.of(value), f"{key.name}: '{shown}' {what}")
    for name, kind in (("Abstract", "TypeError"), ("Needing", "TypeError"), ("broken", "ZeroDivisionError: by")):
        one_line(lambda name=name: key.of(f"own_parts:{name}"), f"{key.name}: 'own_parts:{name}' raised {kind}")
    one_line(lambda: key.of("own_parts:absent"), f"{key.name}: 'own_parts:absent' cannot be imported: own_parts has no 'absent'")
    one_line(lambda: key.of("absent_parts:X"), f"{key.name}: 'absent_parts:X' cannot be imported: there is no module")
    if key.name != "init":  # its settings are those of the whole tree, whose test has these
        for value in (3, None, [mine := key.mine()], {"kind": mine}):
            one_line(lambda value=value: key.of(value), f"{key.name}: ")
        one_line(lambda: key.of("magic"), f"{key.name}: 'magic' is not ")


def test_objects_of_one_kind_are_not_those_of_another() -> None:
    objects: Iterable[Any] = [LowLossDropout(0.5), SquaredError(), Uniform(), Activation(), TorchCam(), Exact(), Dsa()]
    for key in KEYS:
        for value in objects:
            if isinstance(value, key.kind):
                assert key.of(value) is value
            else:
                one_line(lambda key=key, value=value: key.of(value), f"{key.name}: '{type(value).__name__}' is not a")


def dark(module: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    return 1 - x.mean(1).sigmoid()


def test_a_function_of_images_makes_maps(own: ModuleType) -> None:
    own.dark = dark
    x, classes = torch.randn(2, 3, 4, 4), torch.tensor([0, 1])
    for value in (dark, "own_parts:dark", partial(dark), lambda module, x, classes: dark(module, x, classes)):
        cam = build.cam_of(EnhanceSettings(cam=value))
        assert isinstance(cam, FunctionCam)
        assert torch.equal(cam(nn.Linear(1, 1), x, classes, torch.Generator()), dark(nn.Identity(), x, classes))


def test_the_loss_of_a_student_step_is_that_of_its_labels_or_ones_own(own: ModuleType) -> None:
    own.kl, own.number = kl_divergence, 3
    for labels, loss in (("soft", soft_cross_entropy), ("hard", cross_entropy)):
        assert build.loss_of(DistillSettings.of(method="datm", labels=labels, lr_label=0)) is loss
    for value in (kl_divergence, "own_parts:kl"):
        assert build.loss_of(DistillSettings.of({"match.loss": value})) is kl_divergence
    one_line(
        lambda: build.loss_of(DistillSettings.of({"match.loss": "own_parts:number"})), "match.loss: 'own_parts:number' is not a"
    )


def test_every_key_that_names_an_object_is_here() -> None:
    elsewhere = {"network", "method", "data.source", "eval.protocol"}  # read where networks, methods and images are made
    assert {key for key, kind in key_types().items() if named_by(kind)} - elsewhere == {"match.loss", *(key.name for key in KEYS)}
