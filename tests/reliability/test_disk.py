"""Disks that are full, read-only or gone: one clear error, before the work where it can be known; results stay, and runs go on."""

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.pictures import png
from reliability.disks import TINY, content, disk, fill, protect
from torch import Tensor

import limbeck
from limbeck.cli.main import main
from limbeck.data import image_cache
from limbeck.data.decode import decode_into
from limbeck.data.image_cache import set_aside
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.distilled.epoch_file import EpochFile
from limbeck.distilled.view_labels import VIEW_LABELS
from limbeck.experts.files import NotHeld
from limbeck.methods.snapshots import Snapshot
from limbeck.runs import needs
from limbeck.runs.api import settings_of
from limbeck.runs.distill import train_experts
from limbeck.runs.workspace import Workspace
from limbeck.runtime import disk as disks
from limbeck.runtime import kept as keeping
from limbeck.runtime.errors import DiskFailure, UsageError
from limbeck.runtime.executor import side_by_side
from limbeck.runtime.kept import Kept
from limbeck.runtime.locks import Lock
from limbeck.runtime.progress import NoProgress
from limbeck.runtime.room import Need, check_place, check_room, told

FULL = OSError(errno.ENOSPC, "No space left on device")
WORDS = ["data.size=16", "data.per_class=12", "network=ConvNetD2-w4", "experts.num_experts=1", "experts.train_epochs=2"]


def pictures(folder: Path, count: int = 40, side: int = 32) -> Path:
    """Folders of two classes, in colour."""
    draws = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("ant", "bee"):
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 256, (side, side, 3), dtype=np.uint8)
                (folder / split / kind / f"{number:03}.png").write_bytes(png(pixels))
    return folder


def run(output: Path, **more: Any) -> limbeck.RunResult:
    return limbeck.distill("scenes:easy", "mtt", output=output, **{**TINY, **more})


def data() -> limbeck.ImageSet:
    return limbeck.load_data("scenes:easy", size=16, per_class=12)


def refused(call: Callable[[], object], error: type[Exception] = UsageError) -> str:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_images_that_do_not_fit_are_refused_before_they_are_decoded(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DataSettings(source=str(pictures(tmp_path / "photos")), workers=workers)
    with disk(tmp_path / "small", "256k") as small:
        monkeypatch.setenv("LIMBECK_CACHE", str(small))
        message = refused(lambda: load_data(settings))
        assert message.startswith("LIMBECK_CACHE: decoded images need 491.5 kB in ")
        # What is free may be less than the disk says, as of a quota: then it shows when room is set aside, and kills nobody.
        monkeypatch.setattr(image_cache, "free", lambda place: 2**40)
        assert "the disk is full" in refused(lambda: load_data(settings))
        assert not [path for path in small.rglob("*") if path.is_file() and path.suffix != ".lock"]  # the room is free again
        monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "large"))
        assert load_data(settings).shape == (3, 32, 32)


def test_what_is_set_aside_can_be_written_on_a_full_disk(tmp_path: Path) -> None:
    items = sorted(pictures(tmp_path / "photos", 20).rglob("*.png"))
    with disk(tmp_path / "small", "1m") as small:
        set_aside(small / "part" / "images.npy", (len(items), 3, 32, 32))
        filler = fill(small)
        done = decode_into(small / "part" / "images.npy", "squash", None, (0, items))
        set_aside(tmp_path / "part" / "images.npy", (len(items), 3, 32, 32))
        assert decode_into(tmp_path / "part" / "images.npy", "squash", None, (0, items)) == done
        assert (tmp_path / "part" / "images.npy").read_bytes() == (small / "part" / "images.npy").read_bytes()
        filler.unlink()


@pytest.mark.parametrize("able", [True, False])
def test_room_is_set_aside_wherever_the_file_lies(tmp_path: Path, able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not able:  # a file system that cannot, or another system than Linux
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "unable")))
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"begun")
        file.flush()
        disks.allocate(file.fileno(), 5_000_000)
        assert os.fstat(file.fileno()).st_blocks * 512 >= 5_000_000  # no hole in it
        file.seek(0)
        assert file.read() == b"begun" + bytes(4_999_995)


def test_a_quota_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def used_up(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "posix_fallocate", used_up)
    message = refused(lambda: load_data(DataSettings(source=str(pictures(tmp_path / "photos", 4)))))
    assert "the quota is used up: set $LIMBECK_CACHE to a larger place, or a smaller data.size" in message


def test_what_a_run_will_write_is_compared_with_what_is_free(tmp_path: Path, cache: Path) -> None:
    with disk(tmp_path / "small", "64k") as small:
        message = refused(lambda: run(small / "run"))
        assert message.startswith("output: at least ")
        assert f"of results in {str(small / 'run')!r}), but " in message
        assert message.endswith("make room, or name another place by output=DIR")
        assert list(small.iterdir()) == []  # nothing is written, and nothing was trained
        assert not (cache / "experts").exists()


def test_a_store_of_experts_names_its_own_key(tmp_path: Path) -> None:
    with disk(tmp_path / "small", "8k") as small:
        given = {**TINY, "min_start_epoch": 0, "experts.store": str(small / "store")}
        message = refused(lambda: train_experts(settings_of("scenes:easy", "mtt", given)))
        assert message.startswith("experts.store: at least ")
        assert message.endswith("make room, or name another place by experts.store=DIR")
        assert list(small.iterdir()) == []


def test_places_on_one_disk_share_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [Need(tmp_path / "a" / "b", 700, "of results", "output"), Need(tmp_path, 500, "of experts", "LIMBECK_CACHE")]
    monkeypatch.setattr(disks, "free", lambda place: 1000)
    check_room(needs[:1])
    assert refused(lambda: check_room(needs)) == (
        f"output: at least 1.2 kB will be written (700 bytes of results in {str(tmp_path / 'a' / 'b')!r}, 500 bytes of experts in "
        f"{str(tmp_path)!r}), but 1.0 kB are free; make room, or name another place by output=DIR or LIMBECK_CACHE=DIR"
    )


def test_estimates_are_what_a_run_then_writes(tmp_path: Path, cache: Path) -> None:
    larger: dict[str, Any] = {"ipc": 10, "per_class": 14, "iterations": 4, "size": 32, "features": "auto"}
    settings = settings_of("scenes:easy", "mtt", {**TINY, **larger})
    workspace, output = Workspace(settings, NoProgress()), tmp_path / "run"
    (results,) = needs.output_needs(workspace, output)
    (experts,) = needs.expert_needs(workspace)
    (full,) = needs.full_needs([workspace.evaluator()])
    run(output, **larger)
    written = lambda folder: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())  # noqa: E731
    assert experts.size == pytest.approx(written(cache / "experts"), rel=0.2)
    assert full.size == pytest.approx(written(cache / "full"), rel=0.2)
    assert written(output) <= results.size * 1.1  # what is written beside its place comes on top
    assert results.size <= 2.5 * written(output)
    again = Workspace(settings, NoProgress())
    assert [need.size for need in (*needs.expert_needs(again), *needs.full_needs([again.evaluator()]))] == [0, 0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has come between, with its cache."""
    place = tmp_path_factory.mktemp("whole")
    before = os.environ.get("LIMBECK_CACHE")
    os.environ["LIMBECK_CACHE"] = str(place / "cache")
    try:
        run(place / "run")
    finally:
        os.environ.pop("LIMBECK_CACHE") if before is None else os.environ.update(LIMBECK_CACHE=before)
    return place


def test_a_run_on_a_disk_that_fills_goes_on_to_the_same_bits(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole / "cache", os.environ["LIMBECK_CACHE"], dirs_exist_ok=True)
    with disk(tmp_path / "small", "8m") as small:

        def full(snapshot: Snapshot) -> None:
            if snapshot.iteration == 2:
                fill(small)

        message = refused(lambda: run(small / "run", callbacks=[full]), DiskFailure)
        assert message.startswith(f"the disk is full: '{small / 'run'}/")
        assert message.endswith(" could not be written; make room there")
        assert refused(lambda: run(small / "run", resume=True)).startswith("output: ")  # before any work
        (small / "filler").unlink()
        run(small / "run", resume=True)
        assert content(small / "run") == content(whole / "run")


def test_a_complete_cache_need_not_be_written_to(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk(tmp_path / "cache", "16m") as place:
        shutil.copytree(whole / "cache", place, dirs_exist_ok=True)
        for lock in place.rglob("*.lock"):
            lock.unlink()
        protect(place)
        monkeypatch.setenv("LIMBECK_CACHE", str(place))
        run(tmp_path / "run")
        assert content(tmp_path / "run") == content(whole / "run")
        # And where something is missing that is said before anything is trained.
        message = refused(lambda: run(tmp_path / "other", num_experts=2))
        said = f"LIMBECK_CACHE: nothing can be kept in {str(place)!r}, which LIMBECK_CACHE names: the file system is read-only"
        assert message == f"{said}; LIMBECK_CACHE=DIR names a place where files can be written"
        assert refused(lambda: run(tmp_path / "other", full_epochs=2)) == message
        again = {key: TINY[key] for key in ("epochs", "random_lr", "seeds")}
        assert refused(lambda: limbeck.evaluate(tmp_path / "run" / "distilled", data(), full_epochs=3, **again)) == message
        assert not (tmp_path / "other").exists()
        assert refused(lambda: run(place / "run")).startswith(
            f"output: {str(place / 'run')!r} cannot be written: the file system is"
        )


def test_a_cache_that_fills_at_the_end_loses_nothing(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(whole / "cache" / "experts", os.environ["LIMBECK_CACHE"] + "/experts")
    monkeypatch.setattr(keeping, "write_tensors", lambda *_: (_ for _ in ()).throw(FULL))
    result = run(tmp_path / "run")
    assert content(tmp_path / "run") == content(whole / "run")
    assert result.accuracy.full.n == 2
    (said,) = [record.message for record in caplog.records if record.levelno == logging.WARNING and "kept" in record.message]
    assert "full cannot be written to (the disk is full): what is made is used, and not kept; LIMBECK_CACHE=DIR" in said


def test_what_cannot_be_kept_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[int]()

    def make() -> dict[str, Tensor]:
        made.append(1)
        return {"x": torch.ones(2)}

    def unable(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Lock, "acquire", unable)
    monkeypatch.setattr(keeping, "_unkept", {})
    for _ in range(2):
        assert torch.equal(Kept.tensors(tmp_path / "a.safetensors", lambda held: True).get(make)["x"], torch.ones(2))
    assert made == [1]


def test_a_run_folder_that_vanishes_is_named(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole / "cache", os.environ["LIMBECK_CACHE"], dirs_exist_ok=True)

    def remove(snapshot: Snapshot) -> None:
        if snapshot.iteration == 2:
            shutil.rmtree(tmp_path / "run")

    message = refused(lambda: run(tmp_path / "run", callbacks=[remove]), DiskFailure)
    assert message.startswith(f"{str(tmp_path / 'run')!r} has vanished: it was removed, or its disk has gone")
    run(tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == content(whole / "run")


def test_a_cache_that_is_deleted_meanwhile_is_named_and_made_anew(tmp_path: Path, whole: Path, cache: Path) -> None:
    shutil.copytree(whole / "cache", cache, dirs_exist_ok=True)

    def remove(snapshot: Snapshot) -> None:
        if snapshot.iteration == 2:
            shutil.rmtree(cache)

    message = refused(lambda: run(tmp_path / "run", callbacks=[remove]), NotHeld)
    assert message.startswith("expert 0, epoch ")
    assert str(cache / "experts") in message
    assert issubclass(NotHeld, DiskFailure)  # whose message the command ends with how to go on
    run(tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == content(whole / "run")


def test_snapshots_that_are_deleted_are_said_and_the_best_of_the_rest_is_taken(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(whole / "cache", os.environ["LIMBECK_CACHE"], dirs_exist_ok=True)

    class Stop(Exception):
        pass

    def stop(snapshot: Snapshot) -> None:
        if snapshot.iteration == 2:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "run", callbacks=[stop])
    shutil.rmtree(tmp_path / "run" / "snapshots")
    (tmp_path / "run" / "checkpoint-best.safetensors").unlink()
    result = run(tmp_path / "run", resume=True)
    assert result.best_iteration in (2, 4)
    warned = [record.message for record in caplog.records if "the best set so far" in record.message]
    assert warned[0].endswith("is gone; the best of what follows is taken")


def test_a_command_says_how_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "run" / "metrics.jsonl"))

    monkeypatch.setattr("limbeck.runs.distill.distill", full)
    words = ["distill", "scenes", "--output", str(tmp_path / "run")]
    assert main(words) == 1
    said = f"limbeck: failed: the disk is full: '{tmp_path}/run/metrics.jsonl' could not be written; make room there"
    assert f"{said}; continue with: limbeck distill scenes --output {tmp_path}/run --resume\n" in capsys.readouterr().err


def test_places_of_files_have_keys(cache: Path) -> None:
    here = OSError(errno.ENOSPC, "No space left on device", str(cache / "full" / "a.safetensors"))
    assert told(here).endswith("make room there, or LIMBECK_CACHE=DIR names another place for what is kept")
    assert told(OSError(errno.EROFS, "Read-only file system", "/dev/shm/joblib_1")).endswith(
        "make it usable, or JOBLIB_TEMP_FOLDER=DIR names another place for what processes share"
    )
    assert told(FULL) == "the disk is full; make room"


def total(array: np.ndarray) -> float:
    until = time.monotonic() + 60
    while any("collect" in thread.name for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(
            0.02
        )  # this process does nothing before the other one has come to its end, or there would be nothing left to share
    return float(array.sum())


def test_arrays_that_processes_share_find_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [np.ones(500_000) for _ in range(4)]
    with disk(tmp_path / "small", "1m") as small:
        monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(small))
        with pytest.raises(OSError, match="No space left on device") as caught:
            list(side_by_side(total, arrays, 2))
    assert told(caught.value).endswith("JOBLIB_TEMP_FOLDER=DIR names another place for what processes share")


def test_a_place_is_tried_where_it_will_lie(tmp_path: Path) -> None:
    check_place(tmp_path / "not" / "there" / "yet", "output")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert refused(lambda: check_place(tmp_path / "file" / "run", "output")).startswith("output: ")


def test_labels_of_views_are_given_room_first(tmp_path: Path) -> None:
    epoch = {"label": torch.zeros(1000, 100)}
    with disk(tmp_path / "small", "4m") as small:
        with (
            pytest.raises(OSError, match="No space left") as caught,
            EpochFile(small / "views", epoch, {"epochs": 20}, VIEW_LABELS),
        ):
            pass
        assert caught.value.filename == str(small / ".views.part")
        assert list(small.iterdir()) == []
        with EpochFile(small / "views", epoch, {"epochs": 5}, VIEW_LABELS) as file:
            fill(small)
            for number in file.missing():
                file.write(number, epoch)
        assert (small / "views").stat().st_size > 5 * 400_000
