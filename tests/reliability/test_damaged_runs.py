"""Runs whose files were damaged, lost or exchanged go on with the same bits, or are refused by the file's name and the way out."""

import logging
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from distilled.samples import sample_set
from methods.test_outer import LABELS, Bowl, X, loop
from reliability.damage import swapped
from reliability.write_files import EDF, SETTINGS

from limbeck.accuracy import Accuracy
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.methods.state import OuterState
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill
from limbeck.runs.results import RunResult
from limbeck.runtime import files
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import new_folder, read_tensors
from limbeck.runtime.progress import NoProgress

STOP = 11  # of 12 iterations; checkpoints are written before the iterations 0, 5 and 10, evaluations made before 0, 4 and 8


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :])


class Says(NoProgress):
    """What was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


class Stops(Bowl):
    """Interrupted in an iteration."""

    def gradients(self, state, images, labels, syn_lr, iteration, *, plain):  # type: ignore[no-untyped-def]
        if iteration == STOP:
            raise InterruptedError
        return super().gradients(state, images, labels, syn_lr, iteration, plain=plain)


def run(folder: Path, **changes: object) -> tuple[OuterState, SmallSet, list[str]]:
    """The loop's last state, the best of it, and what was said."""
    says = Says()
    one = replace(loop(folder), progress=says, **changes)
    state = one.run(X, LABELS, 0.01)
    classes = torch.zeros(len(X), dtype=torch.int64)
    return state, one.best(state, SmallSet(X, LABELS, classes, 0.01, "logits")), says.said


def same(one: tuple[OuterState, SmallSet, list[str]], other: tuple[OuterState, SmallSet, list[str]]) -> bool:
    names = ("images", "labels", "syn_lr", "images_velocity", "labels_velocity", "average")
    equal = all(torch.equal(getattr(one[0], name), getattr(other[0], name)) for name in names)
    return equal and torch.equal(one[1].images, other[1].images) and one[1].syn_lr == other[1].syn_lr


@pytest.mark.parametrize(
    ("spoil", "iteration"),
    [
        (lambda folder: flip(folder / "checkpoint.safetensors"), 5),
        (lambda folder: (folder / "checkpoint.safetensors").unlink(), 5),
        (lambda folder: (folder / "checkpoint.safetensors").write_bytes(b""), 5),
        (lambda folder: [flip(folder / f"checkpoint{which}.safetensors") for which in ("", "-before")], 8),
    ],
)
def test_the_checkpoint_before_or_the_best_is_gone_on_from(tmp_path: Path, spoil: Callable[[Path], object], iteration: int) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        loop(tmp_path / "stopped", Stops()).run(X, LABELS, 0.01)
    spoil(tmp_path / "stopped")
    resumed = run(tmp_path / "stopped")
    assert same(whole, resumed)
    assert [f"going on from iteration {iteration} of" in line for line in resumed[2]] == [True]
    again = run(tmp_path / "stopped")  # which is finished
    assert same(whole, again) and again[2] == []


def test_without_a_sound_checkpoint_nothing_is_begun_anew_unasked(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        loop(tmp_path, Stops()).run(X, LABELS, 0.01)
    kept = sorted(tmp_path.glob("checkpoint*"))
    assert [path.name for path in kept] == [
        "checkpoint-before.safetensors",
        "checkpoint-best.safetensors",
        "checkpoint.safetensors",
    ]
    for path in kept:
        flip(path)
    with pytest.raises(
        UsageError, match="^output: .*checkpoint.safetensors' is broken .*; delete it, and the distillation starts anew$"
    ):
        run(tmp_path)


def test_the_best_images_are_taken_from_their_checkpoint(tmp_path: Path) -> None:
    run(tmp_path / "once")
    first, snapshot = (Path("snapshots", f"iteration-00000{iteration}.safetensors") for iteration in (0, 4))
    aim = read_tensors(tmp_path / "once" / snapshot)[0]["X"].abs().max().item()
    nearest = partial(run, tmp_path, evaluate=lambda x, y, eta: Accuracy(mean=1 / (1 + abs(x.abs().max().item() - aim))))
    whole = nearest()
    assert whole[0].best is not None and whole[0].best.iteration == 4
    first, snapshot = tmp_path / first, tmp_path / snapshot
    for spoil in (flip, Path.unlink, lambda path: shutil.copy(first, path)):
        spoil(snapshot)
        again = nearest()
        assert same(whole, again)
        assert [line for line in again[2] if "its images are taken from checkpoint-best.safetensors" in line]
    flip(tmp_path / "checkpoint-best.safetensors")
    with pytest.raises(UsageError, match=f"{snapshot.name}' is broken"):
        nearest()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    for name in ("one", "other"):
        with pytest.raises(InterruptedError):
            replace(loop(tmp_path / name, Stops()), run_id=name).run(X, LABELS, 0.01)
    for which in ("", "-before", "-best"):
        swapped(*(tmp_path / name / f"checkpoint{which}.safetensors" for name in ("one", "other")))
    with pytest.raises(UsageError, match="belongs to another one"):
        replace(loop(tmp_path / "one"), run_id="one").run(X, LABELS, 0.01)


def test_lines_that_are_lost_are_said(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        loop(tmp_path, Stops()).run(X, LABELS, 0.01)
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:9]))  # evaluations 0 and 4, iterations 0 to 5, a comparison
    assert "note: metrics.jsonl has lost what was noted of iterations 6 to 9" in run(tmp_path)[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """A run with its cache and experts, in a folder."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(root / "cache"))
        patch.chdir(root)
        return root, distill(load_recipe("scenes", {**SETTINGS, **EDF}), Path("run"))


@pytest.fixture
def place(finished: tuple[Path, RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    shutil.copytree(finished[0], tmp_path / "copy")
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "copy" / "cache"))
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def resume(says: Says | None = None) -> RunResult:
    return distill(load_recipe("scenes", {**SETTINGS, **EDF}), Path("run"), resume=True, progress=says)


def test_damaged_results_are_measured_again(place: Path, finished: tuple[Path, RunResult]) -> None:
    flip(place / "run" / "results.json")
    says = Says()
    assert resume(says).accuracy == finished[1].accuracy
    assert [line for line in says.said if "results.json' is broken" in line and "is made again" in line]
    assert resume().accuracy == finished[1].accuracy


@pytest.mark.parametrize("name", ["settings.json", "state.json"])
def test_what_a_run_goes_by_is_refused(place: Path, name: str) -> None:
    flip(place / "run" / name)
    with pytest.raises(UsageError, match=f"^output: 'run/{name}' is broken .*; start anew in another folder$"):
        resume()


def test_a_damaged_expert_is_trained_again(place: Path, finished: tuple[Path, RunResult], caplog: pytest.LogCaptureFixture) -> None:
    held = (place / "run" / "distilled" / "distilled.safetensors").read_bytes()
    for path in [*(place / "run").glob("checkpoint*"), place / "run" / "results.json"]:
        path.unlink()
    shutil.rmtree(place / "run" / "distilled")
    (block,) = (place / "experts").glob("expert-0000/epochs-*")
    content = block.read_bytes()
    block.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with caplog.at_level(logging.WARNING):
        assert resume().accuracy == finished[1].accuracy
    assert [record.message for record in caplog.records if "what it held is trained again" in record.message]
    assert (place / "run" / "distilled" / "distilled.safetensors").read_bytes() == held
    assert block.read_bytes() == content


def test_a_damaged_network_of_the_full_data_is_trained_again(
    place: Path, finished: tuple[Path, RunResult], caplog: pytest.LogCaptureFixture
) -> None:
    (kept,) = (place / "cache" / "full").glob("*.safetensors")
    content = kept.read_bytes()
    flip(kept)
    (place / "run" / "results.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert resume().accuracy == finished[1].accuracy
    assert [record.message for record in caplog.records if record.message.endswith("is damaged; what it held is made anew")]
    assert kept.read_bytes() == content


def test_no_moment_finds_a_set_missing(tmp_path: Path) -> None:
    if not files.exchanged(*(tmp_path.joinpath(name) for name in _two(tmp_path))):
        pytest.skip("this system or disk cannot exchange folders")
    path, missing, done = tmp_path / "set", [], threading.Event()
    sample_set().save(path)

    def look() -> None:
        while not done.is_set():
            if not os.path.isdir(path):
                missing.append(path)

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(20):
        with new_folder(path) as made:
            (made / "number").write_text(str(number))
        assert (path / "number").read_text() == str(number)
    done.set()
    watcher.join()
    assert missing == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".one", ".other", "set"]


def _two(folder: Path) -> tuple[str, str]:
    for name in (".one", ".other"):
        (folder / name).mkdir()
    return ".one", ".other"


@pytest.mark.parametrize("after", [1, 2])
def test_a_crash_where_folders_cannot_be_exchanged_loses_no_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    old, new = sample_set(), sample_set(ipc=3)
    old.save(tmp_path / "set")
    monkeypatch.setattr(files, "exchanged", lambda *paths: False)
    rename, renamed = os.replace, []

    def dies(source: Path, target: Path) -> None:
        if Path(source).is_dir():
            if len(renamed) == after:
                raise SystemExit
            renamed.append(source)
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", dies)
        patched.setattr(files.shutil, "rmtree", lambda *given, **named: (_ for _ in ()).throw(SystemExit()))
        with pytest.raises(SystemExit):
            new.save(tmp_path / "set")
    assert len(DistilledSet.load(tmp_path / "set")) == len(old if after == 1 else new)
