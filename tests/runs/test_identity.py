"""Which settings a run's result depends on, and that identity is what they stand for, not how it is spelt or where it lies."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from data.pictures import Said, fill
from studies.fake_cells import cell, results
from torch import Tensor

from limbeck.evaluation.evaluator import Evaluator
from limbeck.matching.criteria import Criterion
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill
from limbeck.runs.evaluate import EvaluationOptions, evaluate
from limbeck.runs.folder import SETTINGS, RunFolder
from limbeck.runs.identity import Effect, effect_of, effects, protocol_in_file, same_place
from limbeck.runs.settings import DistillSettings, key_types
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.progress import NoProgress
from limbeck.studies.cells import CellFolder, CellRecord
from limbeck.studies.compare import check_alike
from limbeck.studies.taken import take_over

# Every key is decided here: a new one belongs into one of these lists.
TABLE: dict[Effect, str] = {
    "content": """
        data.source data.root data.classes data.size data.crop data.range data.image_field data.label_field data.per_class
        data.skip_bad data.val_fraction data.seed network init experts.store engine.micro_batch engine.device""",
    "none": "data.workers output track features outer.checkpoint_every engine.memory engine.shard",
    "late": """
        eval.seeds eval.networks eval.baselines
        eval.full_epochs eval.full_seeds eval.full_lr eval.full_batch_size eval.random_lr""",
    "result": """
        data.normalise data.zca augment.strategy augment.crop_ratio augment.flip augment.rotate ipc seed method labels
        parametrisation.kind parametrisation.factor parametrisation.keep
        experts.num_experts experts.train_epochs experts.expert_lr experts.rate experts.rate_epochs experts.rate_milestones
        experts.rate_factor experts.lr_min experts.momentum experts.weight_decay experts.batch_size experts.optimiser
        experts.rho_min experts.rho_max experts.alpha experts.curriculum experts.difficulty experts.crop_ratio
        experts.label_experts experts.dtype match.syn_steps match.expert_epochs match.batch_syn match.small_chunk match.criterion
        match.drop_ratio match.drop_side match.distance match.loss match.relabel match.match_norm schedule.kind
        schedule.min_start_epoch schedule.first_max_start_epoch schedule.max_start_epoch schedule.iterations enhance.weighting
        enhance.beta enhance.cam enhance.cam_network enhance.cam_layer enhance.cam_every enhance.cam_threshold real.batch
        real.outer_loops real.inner_loops real.network_lr real.network_momentum real.network_weight_decay real.network_batch
        rded.factor rded.images rded.crops rded.crop_scale rded.fit rded.teacher sre2l.iterations sre2l.lr sre2l.betas
        sre2l.batch_size sre2l.bn_weight sre2l.first_multiplier sre2l.crop_scale sre2l.roll sre2l.same_view sre2l.teacher
        coreset.judges coreset.epoch coreset.keep coreset.score coreset.cut coreset.bins
        sre2l.start sre2l.crop_curriculum sre2l.crop_milestone sre2l.stages sre2l.residual sre2l.low_resolution
        view_labels.store view_labels.dtype view_labels.top view_labels.pool
        outer.iterations outer.lr_img outer.img_momentum outer.lr_label
        outer.img_optimiser outer.img_betas outer.img_weight_decay ncfm.frequencies ncfm.sampling ncfm.sampling_lr ncfm.amplitude
        ncfm.phase ncfm.scale ncfm.calibration
        outer.label_momentum outer.lr_lr outer.lr_momentum outer.syn_lr_init outer.max_match_loss outer.ema_decay engine.kind
        engine.last_steps engine.precision engine.compile engine.deterministic eval.protocol eval.every eval.epochs eval.batch_size
        eval.every_seeds eval.teacher eval.view_labels""",
}


def test_of_every_key_it_is_decided_whether_results_depend_on_it() -> None:
    decided = {key: effect for effect, keys in TABLE.items() for key in keys.split()}
    assert set(key_types()) == set(decided), "a new key: decide in TABLE, and in runs/identity.py, what depends on it"
    assert {key: effect_of(key, DistillSettings()) for key in key_types()} == decided


@pytest.mark.parametrize(
    ("given", "effect"),
    [
        ({"method": "edf"}, "late"),
        ({"method": "mtt"}, "late"),
        ({"method": "mtt", "eval.protocol": "kd"}, "result"),  # the teacher of the periodic evaluations
        ({"method": "dm"}, "result"),  # its maps are made with such a network
        ({"method": "rded"}, "result"),
        ({"method": "herding"}, "result"),
    ],
)
def test_networks_of_the_full_data_are_late_unless_something_asks_them_before(given: dict[str, Any], effect: Effect) -> None:
    assert effect_of("eval.full_epochs", DistillSettings.of(given)) == effect


def test_what_a_method_never_reads_has_no_effect() -> None:
    keys = ("sre2l.lr", "match.drop_side", "match.syn_steps")
    assert effects(keys, DistillSettings.of(method="mtt")) == dict(zip(keys, ("none", "none", "result"), strict=True))


class Own(Criterion):
    """Somebody's, and no data class."""

    def __init__(self, share: float) -> None:
        self.share = share

    def keep(self, losses: Tensor, *, layers: Sequence[slice], generator: torch.Generator) -> Tensor:
        return losses < self.share


def test_objects_of_a_class_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    one, other = (DistillSettings.of(method="mtt", criterion=Own(share)) for share in (0.1, 0.9))
    run = tmp_path / "run"
    write_json(run / "settings.json", one, SETTINGS)
    (run / "metrics.jsonl").touch()
    RunFolder(run, one, resume=True)
    said = rf"{__name__}:Own\(share=0.9\)' is not '{__name__}:Own\(share=0.1\)', which the run in"
    with pytest.raises(UsageError, match=rf"^match.criterion: '{said}"):
        RunFolder(run, other, resume=True)
    grid = CellFolder(tmp_path / "grid")
    grid.write(cell("a", settings=one), CellRecord.from_dict(results()))
    assert grid.read(cell("a", settings=one), opening=False) is not None
    with pytest.raises(UsageError, match=rf"was measured with match.criterion '{__name__}:Own\(share=0.1\)', not '"):
        grid.read(cell("a", settings=other), opening=False)
    taken = take_over([cell("b", settings=one), cell("c", settings=other)], grid.path, tmp_path / "taken")
    assert [*taken] == ["b"]


TINY = {
    "data.size": "16",
    "data.workers": "1",
    "data.val_fraction": "0.25",
    "network": "ConvNetD1-w4",
    "method": "mtt",
    "experts.num_experts": "1",
    "experts.train_epochs": "2",
    "match.syn_steps": "1",
    "match.expert_epochs": "1",
    "schedule.max_start_epoch": "1",
    "outer.iterations": "2",
    "outer.checkpoint_every": "1",
    "engine.compile": "no",
    "eval.every": "1",
    "eval.epochs": "1",
    "eval.seeds": "2",
    "features": "none",
    "eval.full_epochs": "1",
    "eval.random_lr": "0.01",
}


def tiny(source: Path | str, **changes: str) -> DistillSettings:
    return load_recipe("scenes", {**TINY, "data.source": str(source)} | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill(tmp_path / "photos", cats=16, dogs=16)


@pytest.fixture
def began(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped before its final evaluation."""
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Evaluator, "full", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        distill(tiny(photos), tmp_path / "run")
    return tmp_path / "run"


def test_a_run_goes_on_however_its_images_are_spelt_and_wherever_they_are_now(
    began: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = distill(tiny(photos), tmp_path / "whole")
    (tmp_path / "link").symlink_to(photos)
    for spelt in ("photos", "./photos", "photos/", "link"):
        assert distill(tiny(spelt), began, resume=True).accuracy == whole.accuracy
    shutil.move(photos, tmp_path / "elsewhere")
    assert distill(tiny("elsewhere", data__workers="2"), began, resume=True).accuracy == whole.accuracy
    assert read_json(began / "settings.json")["data"]["source"] == "elsewhere"
    sized = distill(tiny("elsewhere", data__size="[16, 16]"), began, resume=True)  # another word for the same pixels
    assert sized.accuracy == whole.accuracy
    fill(tmp_path / "others", cats=16, dogs=16)
    with pytest.raises(
        UsageError,
        match=r"^data.source: the images have changed since .*, with data.source 'others' instead of 'elsewhere', data.size",
    ):
        distill(tiny("others"), began, resume=True)
    with pytest.raises(UsageError, match=r"^data.seed: the images have changed since .*, with data.seed 1 instead of 0$"):
        distill(tiny("elsewhere", data__seed="1", data__size="[16, 16]"), began, resume=True)
    assert read_json(began / "settings.json")["data"]["seed"] == 0  # a refusal leaves the run as it was


def test_what_changes_no_result_may_change(began: Path, photos: Path, tmp_path: Path) -> None:
    whole, said = distill(tiny(photos), tmp_path / "whole"), Said()
    free = {
        "network": "ConvNetD1-w4-instancenorm",
        "outer__checkpoint_every": "2",
        "engine__device": "cpu",
        "engine__memory": "1GiB",
        "engine__micro_batch": "auto",
    }
    found = distill(tiny(photos, **free, output="another", sre2l__lr="9"), began, resume=True, progress=said)
    assert found.accuracy == whole.accuracy
    assert said.lines == ["note: engine.memory: how the engine works was decided when the run was started, and stays so"]
    before = (began / "results.json").stat().st_mtime_ns
    distill(tiny(photos), began, resume=True)
    assert (began / "results.json").stat().st_mtime_ns == before  # and it is not measured again for that
    with pytest.raises(UsageError, match=r"^engine.micro_batch: 1 is not 'auto'"):
        distill(tiny(photos, engine__micro_batch="1"), began, resume=True)
    with pytest.raises(UsageError, match=r"^network: 'ConvNetD1-w8' is not 'ConvNetD1-w4'"):
        distill(tiny(photos, network="ConvNetD1-w8"), began, resume=True)
    with pytest.raises(UsageError, match=r"^data.zca: True is not False"):
        distill(tiny(photos, data__zca="true"), began, resume=True)


def test_experts_are_what_they_are_wherever_they_lie(photos: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    whole = distill(tiny(photos, experts__store=store), tmp_path / "run")
    shutil.move(store, tmp_path / "moved")
    (tmp_path / "run" / "results.json").unlink()
    assert distill(tiny(photos, experts__store=str(tmp_path / "moved")), tmp_path / "run", resume=True).accuracy == whole.accuracy
    (tmp_path / "run" / "results.json").unlink()
    state = read_json(tmp_path / "run" / "state.json")
    write_json(tmp_path / "run" / "state.json", {**state, "experts": "others"})
    with pytest.raises(UsageError, match=r"^experts.store: the experts in .*moved' are not those that the run in .* began with"):
        distill(tiny(photos, experts__store=str(tmp_path / "moved")), tmp_path / "run", resume=True)


def test_a_start_is_what_it_holds(photos: Path, tmp_path: Path) -> None:
    first = distill(tiny(photos, method="random"), tmp_path / "first").distilled
    start = first.save(tmp_path / "start")
    whole = distill(tiny(photos, init=str(start)), tmp_path / "run")
    shutil.move(start, tmp_path / "there")
    assert distill(tiny(photos, init=str(tmp_path / "there")), tmp_path / "run", resume=True).accuracy == whole.accuracy
    with pytest.raises(UsageError, match=r"^init: 'real' is not '.*there'"):
        distill(tiny(photos, init="real"), tmp_path / "run", resume=True)
    distill(tiny(photos, method="random", seed="5"), tmp_path / "second").distilled.save(tmp_path / "other")
    with pytest.raises(UsageError, match="^init: the set in '.*other' has changed since"):
        distill(tiny(photos, init=str(tmp_path / "other")), tmp_path / "run", resume=True)


def test_a_protocol_in_a_file_is_what_it_says(photos: Path, tmp_path: Path) -> None:
    mine, moved, said = tmp_path / "mine.yaml", tmp_path / "there" / "mine.yaml", Said()
    mine.write_text("base: dd\nmomentum: 0.5\n")
    moved.parent.mkdir()
    random = lambda path: tiny(photos, method="random", eval__protocol=str(path))  # noqa: E731
    first = distill(random(mine), tmp_path / "run", resume=True, progress=said)
    assert said.lines == [f"note: output: there is no run in {str(tmp_path / 'run')!r} to go on with; a new one begins"]
    before = (tmp_path / "run" / "results.json").stat().st_mtime_ns
    shutil.copy(mine, moved)
    assert distill(random(moved), tmp_path / "run", resume=True, progress=said) == first and len(said.lines) == 1
    assert (tmp_path / "run" / "results.json").stat().st_mtime_ns == before
    moved.write_text("base: dd\nmomentum: 0.25\n")
    again = distill(random(moved), tmp_path / "run", resume=True, progress=said)
    assert (first.evaluation.protocol["momentum"], again.evaluation.protocol["momentum"]) == (0.5, 0.25)
    assert said.lines[1:] == [f"note: eval.protocol: {str(moved)!r} has changed; the final evaluation is made again"]
    # Where it chooses among iterations, another protocol would have chosen another set.
    distill(tiny(photos, eval__protocol=str(mine)), tmp_path / "mtt")
    mine.write_text("base: dd\nmomentum: 0.25\n")
    with pytest.raises(UsageError, match=r"^eval.protocol: the protocol in '.*mine.yaml' has changed since the run in '.*mtt' was"):
        distill(tiny(photos, eval__protocol=str(mine)), tmp_path / "mtt", resume=True)
    with pytest.raises(UsageError, match=r"^eval.protocol: 'dd' is not '.*mine.yaml'"):
        distill(tiny(photos), tmp_path / "mtt", resume=True)


@pytest.mark.parametrize("becomes", ["base: dd\nmomentum: 0.25\nepochs: 1\n", "base: kd\n", None])
def test_a_run_has_one_protocol_whatever_becomes_of_its_file(photos: Path, tmp_path: Path, becomes: str | None) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: dd\nmomentum: 0.5\n")
    settings = tiny(photos, eval__protocol=str(mine))
    whole = distill(settings, tmp_path / "whole")
    changed = lambda step: mine.unlink(missing_ok=True) if becomes is None else mine.write_text(becomes)  # noqa: E731
    found = distill(settings, tmp_path / "run", callbacks=[changed])
    assert (mine.read_text() if mine.exists() else None) == becomes
    assert found.evaluation.protocol == whole.evaluation.protocol
    assert found.evaluation.accuracy == whole.evaluation.accuracy
    if becomes is not None:
        changed_since = r"^eval.protocol: the protocol in '.*mine.yaml' has changed since the run in '.*run' was"
        with pytest.raises(UsageError, match=changed_since):
            distill(settings, tmp_path / "run", resume=True)
    mine.write_text("base: dd\nmomentum: 0.5\n")
    results = tmp_path / "run" / "results.json"
    made = results.read_bytes()
    assert distill(settings, tmp_path / "run", resume=True).evaluation.accuracy == whole.evaluation.accuracy
    assert results.read_bytes() == made  # nothing was measured anew


def test_a_cell_was_measured_under_what_its_protocol_said(photos: Path, tmp_path: Path) -> None:
    mine, grid = tmp_path / "mine.yaml", CellFolder(tmp_path / "grid")
    mine.write_text("base: dd\nmomentum: 0.5\n")
    made = cell("a", settings=tiny(photos, eval__protocol=str(mine)))
    grid.write(made, replace(CellRecord.from_dict(results()), protocol_in_file=protocol_in_file(made.settings)))
    (tmp_path / "there").mkdir()
    moved = cell("a", settings=tiny(photos, eval__protocol=shutil.copy(mine, tmp_path / "there" / "mine.yaml")))
    assert grid.read(made) is not None and grid.read(moved) is not None
    mine.write_text("base: dd\nmomentum: 0.25\n")
    with pytest.raises(UsageError, match=r"was measured with what eval.protocol '.*mine.yaml' said then; name another folder"):
        grid.read(made)
    assert take_over([made], grid.path, tmp_path / "new") == {}
    mine.unlink()
    assert grid.read(made) is not None  # what a file that is gone said, nobody can compare


def test_labels_of_views_belong_to_a_set_and_not_to_its_path(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a set in a folder that cannot be written to they lie in the cache, where the moved set finds them again."""
    held = distill(tiny(photos, method="random"), tmp_path / "run").distilled
    kd, quiet = tiny(photos, eval__protocol="kd", view_labels__store="true"), EvaluationOptions(keep=False, trust=True)
    first = held.save(tmp_path / "first")
    found = evaluate(first, kd, options=quiet)
    shutil.move(first, tmp_path / "second")
    monkeypatch.setattr("limbeck.distilled.view_labels.encode", lambda *_, **__: pytest.fail("asked again"))
    again = evaluate(tmp_path / "second", kd, options=quiet)
    assert again.accuracy.distilled == found.accuracy.distilled


def test_a_grid_takes_cells_of_the_same_images(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from limbeck.runs.workspace import Workspace

    folder, silent = CellFolder(tmp_path / "grid"), NoProgress()
    made = cell("a", settings=tiny("photos"))
    content = Workspace(made.settings, silent).data.fingerprint
    folder.write(made, CellRecord.from_dict(results(data={"fingerprint": content})))
    for spelt in (str(photos), "./photos"):
        changed = tiny(spelt, network="ConvNetD1-w4-relu", outer__checkpoint_every="9", engine__device="cpu", data__workers="2")
        assert folder.read(cell("a", settings=changed)) is not None
    fill(tmp_path / "others", cats=16, dogs=16)
    for other, key in (("others", "data.source"), ("nowhere", "data.source")):
        with pytest.raises(UsageError, match=f"was measured with {key} 'photos', not '{other}'"):
            folder.read(cell("a", settings=tiny(other)))
    with pytest.raises(UsageError, match="was measured with eval.seeds 2, not 3"):  # late for a run, but another figure
        folder.read(cell("a", settings=tiny("photos", eval__seeds="3")))
    taken = take_over([cell("b", settings=tiny("photos", outer__checkpoint_every="9"))], tmp_path / "grid", tmp_path / "new")
    assert [*taken] == ["b"]
    assert check_alike([made, cell("b", settings=tiny(photos, outer__checkpoint_every="9"))]) == []


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    assert same_place("a", str(tmp_path / "a")) and same_place("./a", "a/") and same_place("b", "b")
    assert not same_place("a", "b") and not same_place("b", "./b") and not same_place("scenes:easy", "scenes:hard")
    assert not same_place(None, "a")
