"""Keys that were given and change nothing are named; those that do change something, or that nobody gave, are not."""

from pathlib import Path

import pytest

from limbeck.cli.main import main
from limbeck.evaluation.protocols import PROTOCOLS
from limbeck.matching.adjoint import Truncated
from limbeck.matching.criteria import LowLossDropout
from limbeck.matching.schedules import Uniform
from limbeck.methods.registry import METHODS
from limbeck.parametrisations.multi_formation import MultiFormation
from limbeck.recipes import load_recipe, remarks
from limbeck.runs.settings import DistillSettings
from limbeck.runs.unread import idle_keys
from limbeck.saliency.maps import TorchCam
from limbeck.saliency.weights import Activation


def idle(method: str, *words: str) -> list[str]:
    given = dict(word.split("=") for word in words)
    return idle_keys(load_recipe("scenes", {"method": method, **given}), given)


@pytest.mark.parametrize("method", ["sre2l", "rded", "rded-hard", "random", "herding", "k-means", "el2n"])
def test_what_makes_its_set_at_once_has_no_loop(method: str) -> None:
    words = (
        "enhance.beta=2",
        "match.syn_steps=5",
        "outer.lr_img=3",
        "outer.iterations=9",
        "experts.num_experts=4",
        "init=noise",
        "parametrisation.factor=3",
    )
    assert idle(method, *words) == [word.partition("=")[0] for word in words]
    assert idle(method, "eval.epochs=5", "outer.syn_lr_init=0.1", "outer.checkpoint_every=9", "data.size=16", "labels=hard") == []


@pytest.mark.parametrize(
    ("method", "words", "named"),
    [
        ("edf", ("enhance.beta=2", "match.drop_ratio=0.1", "experts.num_experts=4", "schedule.iterations=5"), []),
        ("edf", ("real.batch=3", "sre2l.lr=1", "rded.crops=2", "engine.last_steps=4"), None),
        ("dm", ("parametrisation.factor=3", "parametrisation.keep=0.1"), None),
        ("dm", ("parametrisation.kind=dct", "parametrisation.factor=3", "parametrisation.keep=0.1"), []),
        ("edf", ("engine.kind=truncated", "engine.last_steps=4"), []),
        ("edf", ("match.criterion=none", "match.drop_ratio=0.5"), ["match.drop_ratio"]),
        ("edf", ("match.criterion=random",), None),  # of one image per class nothing is dropped
        ("edf", ("ipc=10", "match.criterion=random"), []),
        ("edf", ("ipc=10", "match.criterion=random", "match.drop_side=high"), ["match.drop_side"]),
        ("datm", ("match.criterion=loss", "match.drop_side=high"), None),
        ("datm", ("match.criterion=own_parts:Mine", "match.drop_side=high"), []),
        ("datm", ("match.criterion=own_parts:Mine", "match.drop_ratio=0"), ["match.drop_ratio"]),
        ("edf", ("engine.kind=unroll", "engine.memory=1GB", "engine.micro_batch=4"), ["engine.memory", "engine.micro_batch"]),
        ("edf", ("engine.memory=1GB", "engine.micro_batch=4"), []),
        ("dm", ("engine.memory=1GB", "engine.micro_batch=4"), None),
        ("rded", ("engine.memory=1GB", "engine.micro_batch=4"), None),
        ("datm", ("match.drop_ratio=0.5", "enhance.beta=2"), None),
        ("datm", ("match.criterion=none", "enhance.weighting=none", "match.syn_steps=9"), []),
        ("datm", ("match.criterion=loss", "match.drop_ratio=0.5", "enhance.weighting=activation", "enhance.beta=2"), []),
        ("mtt", ("schedule.first_max_start_epoch=1", "schedule.iterations=5"), None),
        ("mtt", ("schedule.max_start_epoch=2",), []),
        ("dm", ("real.outer_loops=2", "real.network_lr=1", "experts.num_experts=3", "schedule.max_start_epoch=9"), None),
        ("dm", ("real.batch=2", "outer.lr_img=3", "outer.ema_decay=0.5"), []),
        ("ncfm", ("real.network_lr=1", "schedule.max_start_epoch=9", "match.syn_steps=3", "ncfm.sampling_lr=1"), None),
        ("ncfm", ("ncfm.phase=1", "ncfm.sampling=learned", "ncfm.sampling_lr=1", "experts.num_experts=3"), []),
        ("dm", ("ncfm.phase=1", "outer.img_betas=[0.5, 0.5]", "outer.img_weight_decay=0.1"), None),
        ("dm", ("outer.img_optimiser=adamw", "outer.img_momentum=0.1", "outer.img_betas=[0.5, 0.5]"), ["outer.img_momentum"]),
        ("dm", ("init=correct", "experts.num_experts=3"), []),
        ("dc", ("match.syn_steps=2", "match.batch_syn=2", "engine.kind=tesla"), None),
        ("dc", ("real.outer_loops=2", "match.criterion=loss", "match.drop_ratio=0.5"), []),
        ("mtt", ("experts.rate_epochs=5", "experts.lr_min=0.001", "experts.rho_min=0.001", "experts.difficulty=el2n"), None),
        ("mtt", ("experts.rate=cosine", "experts.lr_min=0.001", "experts.rate_factor=0.5"), ["experts.rate_factor"]),
        ("mtt", ("experts.optimiser=gsam", "experts.rho_min=0.001", "experts.rho_max=0.1"), []),
        ("sre2l", ("sre2l.lr=1", "labels=hard"), []),
        ("sre2l", ("enhance.cam=layercam", "enhance.cam_layer=blocks.0", "enhance.beta=2"), None),
        ("rded", ("rded.crops=2",), []),
        ("sre2l", ("enhance.weighting=activation", "enhance.beta=2", "enhance.cam=layercam"), []),
        ("sre2l", ("rded.crops=2", "sre2l.residual=0.5", "sre2l.low_resolution=0.5", "sre2l.crop_milestone=0.5"), None),
        ("cda", ("sre2l.crop_milestone=0.5", "sre2l.lr=1"), []),
        ("fadrm", ("rded.crops=2", "rded.images=9", "sre2l.residual=0.1", "sre2l.low_resolution=0.5"), []),
        ("fadrm", ("rded.factor=2", "rded.fit=resize", "rded.teacher=ConvNetD3"), None),
        ("edf", ("rded.factor=2", "rded.fit=pad"), None),
        ("edf", ("eval.protocol=kd-rded", "rded.factor=2"), []),
        ("edf", ("eval.protocol=kd-rded", "rded.fit=pad", "rded.crops=3"), None),
    ],
)
def test_what_a_method_reads(method: str, words: tuple[str, ...], named: list[str] | None) -> None:
    assert idle(method, *words) == (
        [word.partition("=")[0] for word in words if "protocol" not in word] if named is None else named
    )


@pytest.mark.parametrize(
    ("key", "value", "beside"),
    [
        ("parametrisation.kind", MultiFormation(2), ("parametrisation.factor", "parametrisation.keep")),
        ("match.criterion", LowLossDropout(0.2), ("match.drop_ratio", "match.drop_side")),
        ("enhance.weighting", Activation(2.0), ("enhance.beta", "enhance.cam_threshold")),
        ("enhance.cam", TorchCam("layercam"), ("enhance.cam_layer",)),
        ("engine.kind", Truncated(steps=2), ("engine.last_steps",)),
        (
            "schedule.kind",
            Uniform(0, 2),
            tuple(f"schedule.{name}" for name in ("min_start_epoch", "first_max_start_epoch", "max_start_epoch", "iterations")),
        ),
    ],
)
def test_beside_an_object_nothing_is_read_that_says_how_to_make_one(key: str, value: object, beside: tuple[str, ...]) -> None:
    assert idle_keys(DistillSettings.of({"method": "edf", key: value}), [key, *beside]) == [*beside]
    given = {"method": "edf", key: type(value), "match.drop_ratio": 0.5}
    assert idle_keys(DistillSettings.of(given), [key, *beside]) == []  # it is made with them


def test_recipes_that_are_shipped_give_nothing() -> None:
    for method in METHODS:
        assert remarks("scenes", {"method": method}, load_recipe("scenes", {"method": method})) == []


def test_a_file_of_ones_own_gives_what_it_says(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("method: dm\nmatch: {syn_steps: 9}\nouter: {lr_img: 5}\n")
    assert remarks(str(mine), {}, load_recipe(str(mine))) == ["warning: dm does not read match.syn_steps"]
    given = {"method": "mtt", "real.batch": "3"}
    assert remarks(str(mine), given, load_recipe(str(mine), given)) == [
        "warning: mtt has its own outer.lr_img, not the recipe's; key=value sets them",
        "warning: mtt does not read real.batch",
    ]


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "data.size=16 data.per_class=4 network=ConvNetD1-w4 eval.epochs=1 eval.seeds=2 eval.full_epochs=1 eval.random_lr=0.01"
    small += " features=none"
    words = [
        "distill",
        "scenes",
        "method=random",
        "enhance.beta=2",
        "outer.lr_img=5",
        *small.split(),
        "--output",
        str(tmp_path / "run"),
    ]
    assert main(words) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("warning")] == ["warning: random does not read enhance.beta, outer.lr_img"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_factor_is_read_where_a_protocol_cuts_images_into_parts(protocol: str) -> None:
    settings = load_recipe("scenes", {"eval.protocol": protocol, "rded.factor": "3"})
    assert ("rded.factor" in idle_keys(settings, ["rded.factor"])) == (PROTOCOLS[protocol].patches is not None)
