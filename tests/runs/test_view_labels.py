"""Labels of views from the keys of a recipe to a set that is evaluated from them, and added to sets that are there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distilled.samples import changed
from torch import Tensor

from limbeck.cli.main import main
from limbeck.distilled import view_labels
from limbeck.distilled.epoch_file import EpochFile
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.evaluator import Evaluator
from limbeck.recipes import load_recipe, settings_from_plain
from limbeck.runs.distill import distill
from limbeck.runs.evaluate import EvaluationOptions, evaluate
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json
from limbeck.runtime.fingerprint import encodable

OVERRIDES = {
    "method": "rded",
    "data.size": "16",
    "data.per_class": "12",
    "data.val_fraction": "0.25",
    "network": "ConvNetD2-w8",
    "engine.compile": "no",
    "eval.protocol": "kd-rded",
    "eval.epochs": "3",
    "eval.seeds": "2",
    "features": "none",
    "eval.full_epochs": "1",
}


def settings(**changes: str) -> DistillSettings:
    return load_recipe("scenes", OVERRIDES | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module", autouse=True)
def cache_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The teacher is trained once for all tests here."""
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("cache")
        patched.setenv("LIMBECK_CACHE", str(folder))
        yield folder


@pytest.fixture
def cache() -> None:
    """Instead of the empty cache that every other test has."""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, cache_of_the_module: Path) -> Path:
    """A set without labels of views."""
    run = tmp_path_factory.mktemp("bare") / "run"
    distill(settings(), run)
    return run / "distilled"


def copy_of(path: Path, place: Path) -> Path:
    return DistilledSet.load(path).save(place)


def kept(path: Path) -> list[Tensor]:
    views = DistilledSet.load(path).views
    assert views is not None
    return [views.labels(epoch) for epoch in range(views.epochs)]


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(a, b) for a, b in zip(kept(one), kept(other), strict=True))


def never(*_: Any, **__: Any) -> None:
    pytest.fail("labels were made again")


def test_a_run_stores_them_and_its_set_is_evaluated_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = settings(view_labels__store="true", view_labels__top="3")
    results = distill(made, tmp_path / "run")
    path = tmp_path / "run" / "distilled"
    held = DistilledSet.load(path)
    assert held.views is not None and held.views.epochs == 3
    assert held.views.about.coding.to_dict() == {"dtype": "bf16", "top": 3, "temperature": 20.0}
    known = {"epochs": 3, "batch_size": 10, "teacher": "ConvNetD2-w8", "coding": held.views.about.coding.to_dict()}
    assert results.evaluation.view_labels.to_dict() == {**known, "bytes_per_view": held.views.bytes_per_view}
    assert held.metadata["evaluation"]["view_labels"] == results.evaluation.view_labels.to_dict()
    assert "label views" in results.seconds
    assert settings_from_plain(held.metadata["settings"]) == made == settings_from_plain(encodable(made))
    monkeypatch.setattr(view_labels, "encode", never)
    again = evaluate(path, made)
    assert again.accuracy.distilled == results.accuracy.distilled
    assert again.view_labels == results.evaluation.view_labels
    live = evaluate(path, settings(eval__view_labels="live"), options=EvaluationOptions(keep=False))
    assert live.view_labels is None
    assert live.accuracy.random == again.accuracy.random
    assert evaluate(path, settings(eval__protocol="none")).protocol["name"] == "none"  # asks no teacher, needs no labels
    assert same(path, copy_of(path, tmp_path / "copy"))


def test_a_pool_serves_all_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = distill(settings(view_labels__store="true", view_labels__pool="2"), tmp_path / "run")
    path = tmp_path / "run" / "distilled"
    assert (results.evaluation.view_labels.epochs, results.evaluation.view_labels.pool) == (3, 2)
    monkeypatch.setattr(view_labels, "encode", never)
    again = evaluate(path, settings(view_labels__store="true", view_labels__pool="2"))
    assert again.accuracy.distilled == results.accuracy.distilled
    for asked in (None, "1"):
        changes = {} if asked is None else {"view_labels__pool": asked}
        with pytest.raises(UsageError, match=f"view_labels.pool: {asked} is not 2, as in the labels that"):
            evaluate(path, settings(view_labels__store="true", **changes))


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = settings(view_labels__store="true")
    whole = distill(made, tmp_path / "whole")
    write, written = EpochFile.write, list[int]()

    def dies(file: Any, epoch: int, *rest: Any) -> None:
        write(file, epoch, *rest)
        written.append(epoch)
        if epoch == 1:
            raise InterruptedError

    monkeypatch.setattr(EpochFile, "write", dies)
    with pytest.raises(InterruptedError):
        distill(made, tmp_path / "killed")
    assert DistilledSet.load(tmp_path / "killed" / "distilled").views is None
    killed = distill(made, tmp_path / "killed", resume=True)
    assert written == [0, 1, 2]
    assert killed.accuracy == whole.accuracy
    ours, theirs = (tmp_path / name / "distilled" / "views.safetensors" for name in ("killed", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()
    with pytest.raises(UsageError, match="view_labels.dtype: 'fp16' is not 'bf16', which the run"):
        distill(settings(view_labels__store="true", view_labels__dtype="fp16"), tmp_path / "killed", resume=True)


def test_they_are_added_to_a_set_by_an_evaluation(bare: Path, tmp_path: Path, cache_of_the_module: Path) -> None:
    path, made = copy_of(bare, tmp_path / "set"), settings(view_labels__store="true", view_labels__dtype="fp32")
    before = (path / "distilled.safetensors").read_bytes()
    first = evaluate(path, made)
    assert first.view_labels.coding.dtype == "fp32"
    assert len(kept(path)) == 3
    assert (path / "distilled.safetensors").read_bytes() == before
    assert not list((cache_of_the_module / "views").glob("*.safetensors"))
    assert evaluate(path, made).accuracy.distilled == first.accuracy.distilled
    # As a run that stored them from the beginning has them.
    distill(made, tmp_path / "run")
    assert same(path, tmp_path / "run" / "distilled")


def test_without_a_record_the_set_stays_as_it_is(bare: Path, tmp_path: Path) -> None:
    path = copy_of(bare, tmp_path / "set")
    content = {file.name: file.read_bytes() for file in path.iterdir()}
    found = evaluate(path, settings(view_labels__store="true"), options=EvaluationOptions(keep=False))
    assert found.view_labels.epochs == 3
    assert {file.name: file.read_bytes() for file in path.iterdir()} == content


def test_a_folder_that_cannot_be_written_to_costs_nobody_the_result(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_of(bare, tmp_path / "set")

    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("limbeck.distilled.view_labels.StoredViews.put", refuse)
        found = evaluate(path, settings(view_labels__store="true"))
    assert found.view_labels.epochs == 3
    assert DistilledSet.load(path).views is None


def test_the_command_adds_them_only_where_it_is_told_to(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (str(copy_of(bare, tmp_path / name)) for name in ("one", "other"))
    words = ["--protocol", "kd", "eval.epochs=2", "view_labels.store=yes", "view_labels.top=3"]
    assert main(["evaluate", one, *words]) == 0
    assert len(kept(Path(one))) == 2
    assert "Labels of augmented views" in (Path(one) / "README.md").read_text(encoding="utf-8")
    # That one was stored with them says nothing about another.
    stored = DistilledSet.load(one)
    stored.metadata["settings"]["view_labels"] = {"store": True, "top": 3}
    stored.save(one)
    assert main(["evaluate", one, other, *words[:3]]) == 0
    assert DistilledSet.load(other).views is None
    monkeypatch.setattr(Evaluator, "_run", never)
    for path, said, message in (
        (one, [*words[:4], "view_labels.top=2"], "view_labels.top: 2 is not 3, as in the labels that"),
        (one, words[:4], "view_labels.top: None is not 3, as in"),
        (other, ["--protocol", "dd", *words[2:]], "view_labels.store: True is not possible with eval.protocol=dd"),
    ):
        capsys.readouterr()
        assert main(["evaluate", path, *said]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval__protocol": "dd"}, "view_labels.store: True is not possible with eval.protocol=dd"),
        ({"view_labels__top": "10"}, r"view_labels.top: 10 is not below the number of classes \(10\)"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        distill(settings(view_labels__store="true", **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sets_that_cannot_be_trained_on_are_refused(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy_of(bare, tmp_path / "set")
    evaluate(path, settings(view_labels__store="true"))
    monkeypatch.setattr(Evaluator, "_run", never)  # nothing is trained before it is refused
    with pytest.raises(UsageError, match="eval.epochs: 4 is not at most 3"):
        evaluate(path, settings(eval__epochs="4"))
    views = path / "views.safetensors"
    content = views.read_bytes()
    views.unlink()
    views.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(UsageError, match="its checksum is another"):
        evaluate(path, settings())
    DistilledSet.load(bare).save(tmp_path / "plain")
    from limbeck.distilled.export import export_npz

    file = export_npz(DistilledSet.load(bare), tmp_path / "set.npz")
    with pytest.raises(UsageError, match="view_labels.store: True is not possible with .*set.npz"):
        evaluate(file, settings(view_labels__store="true"))


def test_the_images_are_those_that_were_labelled(bare: Path, tmp_path: Path) -> None:
    path = copy_of(bare, tmp_path / "set")
    evaluate(path, settings(view_labels__store="true"))
    held = DistilledSet.load(path)
    other = changed(held, images=held.images.flip(3)).save(tmp_path / "changed")
    with pytest.raises(UsageError, match="made for these images: their pixels differ"):
        evaluate(other, settings())
    assert read_json(other / "metadata.json")["views"] == read_json(path / "metadata.json")["views"]
