"""`method=` on a recipe of another method: what stays, what gives way to the method's own, and what of the command line counts."""

import math
from pathlib import Path

import pytest

from limbeck.methods.method import Method
from limbeck.methods.registry import METHODS, REAL
from limbeck.recipes import load_recipe, recipe_names, remarks
from limbeck.runs.settings import value_of

STAYS = ("data", "network", "augment", "experts.num_experts", "experts.train_epochs", "experts.expert_lr", "eval", "ipc", "seed")
OWN = ("init", "labels", "match.criterion", "enhance.weighting", "engine.kind", "schedule.kind", "experts.curriculum")
OWN += ("outer.lr_img", "outer.img_momentum", "outer.lr_label", "outer.lr_lr", "outer.ema_decay")


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("edf", (1500.0, 3.0, 0.95, "correct", "soft", "sequential")),
        ("pad", (1500.0, 3.0, None, "correct", "soft", "sequential")),
        ("datm", (1500.0, 3.0, None, "correct", "soft", "sequential")),
        ("tesla", (1500.0, 3.0, None, "real", "hard", "uniform")),
        ("ftd", (1500.0, 3.0, 0.95, "real", "hard", "uniform")),
        ("mtt", (1500.0, 3.0, None, "real", "hard", "uniform")),
        ("dsa", (1.0, math.inf, None, "real", "hard", "sequential")),
        ("dc", (1.0, math.inf, None, "noise", "hard", "sequential")),
        ("dm", (3.0, math.inf, None, "real", "hard", "sequential")),
        ("ncfm", (0.01, math.inf, None, "real", "hard", "sequential")),
    ],
)
def test_the_line_of_the_readme(method: str, own: tuple[object, ...]) -> None:
    base, made = load_recipe("scenes"), load_recipe("scenes", {"method": method})
    keys = ("outer.lr_img", "outer.max_match_loss", "outer.ema_decay", "init", "labels", "schedule.kind")
    assert tuple(value_of(made, key) for key in keys) == own
    assert made.outer.iterations == base.outer.iterations and made.match.syn_steps == base.match.syn_steps


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recipe", ["scenes", "scenes/dc-ipc1", "cifar10/edf-ipc10", "imagenette/ConvNetD5/edf-ipc1"])
def test_what_is_measured_on_and_by_stays(recipe: str, method: str) -> None:
    base, made = load_recipe(recipe), load_recipe(recipe, {"method": method})
    assert made.method == method
    experts = METHODS[base.method].experts
    for key in STAYS:  # DC's recipe has no experts: another method's come with their own sizes
        assert value_of(made, key) == value_of(base, key) or (key.startswith("experts.") and not experts), key


@pytest.mark.parametrize("folder", ["scenes", "imagenette"])
def test_every_method_is_itself_on_every_others_recipe(folder: str) -> None:
    for method, kind in METHODS.items():
        own = load_recipe(f"{folder}/{method}-ipc1")
        for other in ("edf", "ftd", "dc", "random"):
            made = load_recipe(f"{folder}/{other}-ipc1", {"method": method})
            for key in OWN if kind.kind == "objective" else ("labels", "match.criterion", "sre2l.iterations", "rded"):
                assert value_of(made, key) == value_of(own, key), (other, method, key)


@pytest.mark.parametrize("method", ["edf", "mtt", "dm", "sre2l"])
def test_recipes_of_every_size_take_methods_of_every_kind(method: str) -> None:
    for recipe in [name for name in recipe_names() if "/edf-" in name][::4] + ["scenes", "scenes/hard-edf-ipc3", "scenes/mtt-ipc3"]:
        assert load_recipe(recipe, {"method": method}).method == method


def test_published_settings_have_no_tuned_ones_beside_them() -> None:
    dm = load_recipe("imagenette/ConvNetD5/edf-ipc1", {"method": "dm"})
    assert (dm.outer.lr_img, dm.outer.max_match_loss, dm.outer.lr_label, dm.real.batch) == (1.0, math.inf, 0.0, 256)
    ftd = load_recipe("imagenette/ConvNetD5/edf-ipc1", {"method": "ftd"})
    assert (ftd.outer.lr_img, ftd.outer.max_match_loss, ftd.outer.ema_decay, ftd.experts.alpha) == (10_000.0, 1.5, 0.999, 0.4)


@pytest.mark.parametrize(
    ("method", "optimiser"),
    [("edf", "gsam"), ("pad", "gsam"), ("datm", "gsam"), ("ftd", "gsam"), ("mtt", "sgd"), ("tesla", "sgd")],
)
def test_experts_are_trained_as_the_method_was_published(method: str, optimiser: str) -> None:
    made = load_recipe("imagenette/ConvNetD5/edf-ipc1", {"method": method})
    assert made.experts.optimiser == optimiser
    assert made.outer.max_match_loss == 1.5  # in units of the loss, as are the step sizes that stay
    assert load_recipe("imagenette/ConvNetD5/edf-ipc1", {"method": method, "experts.optimiser": "gsam"}).experts.optimiser == "gsam"


def test_the_augmentation_that_stays_is_said() -> None:
    """What all are evaluated by is the recipe's; where the method was published with another, a note says so."""
    recipe = "imagenette/ConvNetD5/edf-ipc1"
    for method, said in (("datm", True), ("mtt", True), ("edf", False)):
        settings = load_recipe(recipe, {"method": method})
        note = f"note: augment.crop_ratio=0.25 stays, by which edf is distilled and evaluated here; {method}'s own is 0.125"
        assert settings.augment.crop_ratio == 0.25 and (note in remarks(recipe, {"method": method}, settings)) is said
    given = {"method": "datm", "augment.crop_ratio": "0.125"}
    assert load_recipe(recipe, given).augment.crop_ratio == 0.125 and remarks(recipe, given, load_recipe(recipe, given)) == []


def test_the_command_line_still_counts() -> None:
    given = {"method": "dm", "outer.lr_img": "7", "outer.max_match_loss": "2", "init": "noise", "eval.protocol": "none"}
    made = load_recipe("scenes", given)
    assert (made.outer.lr_img, made.outer.max_match_loss, made.init, made.eval.protocol) == (7.0, 2.0, "noise", "none")
    assert load_recipe("scenes", {"method": "sre2l", "eval.protocol": "kd-sre2l"}).eval.protocol == "kd-sre2l"


def test_the_nearest_number_of_images_per_class_is_taken_beside_it() -> None:
    few, more = (load_recipe("scenes/random-ipc1", {"method": "mtt", "ipc": ipc}) for ipc in ("1", "10"))
    assert (few.schedule.max_start_epoch, more.schedule.max_start_epoch) == (3, 4)


def test_a_file_of_ones_own_has_none_beside_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("network: ConvNetD3-w32\nouter: {lr_img: 5, iterations: 7, ema_decay: 0.9}\nreal: {batch: 9}\n")
    dm = load_recipe(str(mine), {"method": "dm"})
    assert (dm.outer.lr_img, dm.outer.iterations, dm.outer.ema_decay, dm.real.batch) == (1.0, 7, None, 9)
    assert load_recipe(str(mine), {"method": "edf"}) == load_recipe(str(mine))
    mine.write_text("method: mtt\nschedule: {max_start_epoch: 3}\n")  # EDF's own first range, 5, would be longer
    edf = load_recipe(str(mine), {"method": "edf"})
    assert (edf.schedule.kind, edf.schedule.first_max_start_epoch, edf.schedule.max_start_epoch) == ("sequential", 3, 3)


def test_a_method_of_the_users_own_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Method(make=print, preset={**REAL, "outer.lr_img": 0.5})
    monkeypatch.setattr("limbeck.methods.registry.imported", lambda *_: own)
    made = load_recipe("scenes", {"method": "mine:METHOD"})
    assert (made.outer.lr_img, made.outer.max_match_loss, made.labels, made.init) == (0.5, math.inf, "hard", "real")
