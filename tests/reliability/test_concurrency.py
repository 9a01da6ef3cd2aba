"""Several processes on one output, store or cache, one of them killed: all is right, and nothing is done twice.

On a file system with locks and on one without, which is the harder case. `tests/runtime/test_locks.py` is the light version.
"""

import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from reliability import kills
from reliability.commands import Commands, Running, commands, parts

BOTH = [True, False]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with commands(tmp_path_factory.mktemp("commands")) as made:
        yield made


@pytest.mark.parametrize("flock", BOTH)
def test_one_output_belongs_to_one_process_and_to_the_next_when_that_is_killed(
    tmp_path: Path, started: Commands, flock: bool
) -> None:
    """The second is refused, and says by whom; one that is to go on waits for a moment, for the first may be ending."""
    cache, run = tmp_path / "cache", tmp_path / "run"
    settings = kills.words(method="dm", outer__iterations="300", eval__every="100")
    words = ["distill", "scenes", *settings, "--output"]
    started.run([*words, str(tmp_path / "whole")], cache, flock=flock)
    first = started.start([*words, str(run)], cache, flock=flock)
    first.until(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") > 20)
    second = started.start([*words, str(run)], cache, flock=flock)
    assert second.wait() == 2
    assert f"limbeck: error: output: {str(run)!r} is not empty" in second.said
    next_one = started.start([*words, str(run), "--resume"], cache, flock=flock)
    time.sleep(0.5)
    first.send(signal.SIGKILL)
    assert (first.wait(), next_one.wait()) == (-signal.SIGKILL, 0), next_one.said
    assert kills.found(run) == kills.found(tmp_path / "whole")
    assert parts(run, cache) == started.left() == []


@pytest.mark.parametrize("flock", BOTH)
def test_four_processes_fill_one_store_and_one_cache(tmp_path: Path, started: Commands, flock: bool) -> None:
    """An expert is trained by one process, and the killed one's by another, to the same files as by one process alone."""
    words = ["experts", "scenes", *kills.words(experts__num_experts="6", experts__train_epochs="60", data__size="24")]
    alone = started.start([*words, f"experts.store={tmp_path / 'alone'}"], tmp_path / "other", flock=flock)
    cache, store = tmp_path / "cache", tmp_path / "store"
    four = [started.start([*words, f"experts.store={store}"], cache, flock=flock) for _ in range(4)]
    four[0].until(lambda: any(store.glob("expert-*/*.safetensors")))
    four[0].send(signal.SIGKILL)
    found = [one.wait() for one in (alone, *four)]
    assert found == [0, -signal.SIGKILL, 0, 0, 0], "\n".join(one.said for one in four)
    assert kills.found(store) == kills.found(tmp_path / "alone")
    assert parts(store, cache) == started.left() == []


@pytest.mark.parametrize("flock", BOTH)
def test_four_evaluations_train_the_networks_of_the_full_data_once(tmp_path: Path, started: Commands, flock: bool) -> None:
    cache, run = tmp_path / "cache", tmp_path / "run"
    started.run(["distill", "scenes", "--output", str(run), *kills.words(method="random")], tmp_path / "other", flock=flock)
    words = ["evaluate", str(run), "--seeds", "2", "--json"]
    four = [started.start(words, cache, flock=flock) for _ in range(4)]
    assert [one.wait() for one in four] == [0] * 4, [one.said for one in four]
    assert sum("full data: " in one.said for one in four) == 1
    # Four equal results are noted as one.
    from limbeck.distilled.set import DistilledSet

    assert len(DistilledSet.load(run / "distilled").metadata["evaluations"]) == 1
    assert parts(run, cache) == started.left() == []


def distillations(folder: Path, until: list[Running]) -> dict[str, set[int]]:
    """The processes that distilled a cell of the grid in that folder, by the cell's run folder, until those commands have ended."""
    found = defaultdict[str, set[int]](set)
    while any(psutil.Process(one.pid).status() != psutil.STATUS_ZOMBIE for one in until):
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                if "distill" in words and any(word.startswith(str(folder / "runs")) for word in words):
                    found[next(word for word in words if word.startswith(str(folder / "runs")))].add(process.pid)
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("flock", BOTH)
def test_two_grids_on_one_folder_share_its_cells(tmp_path: Path, started: Commands, flock: bool) -> None:
    """Every cell is distilled by one of them, one killed on the way is gone on with by the other, and both have the whole table."""
    words = ["compare", "--methods", "dm,random", "--base", "scenes", "--seeds", "0,1", *kills.words()]
    cache, folder = tmp_path / "cache", tmp_path / "compare"
    started.run([*words, "--output", str(tmp_path / "alone")], tmp_path / "other", flock=flock)
    two = [started.start([*words, "--output", str(folder)], cache, flock=flock) for _ in range(2)]
    distilled = distillations(folder, two)
    assert [one.wait() for one in two] == [0, 0], "\n".join(one.said for one in two)
    assert len(distilled) == 4 and all(len(pids) == 1 for pids in distilled.values()), distilled
    alone = kills.found(tmp_path / "alone")
    assert kills.found(folder) == alone and len(list((folder / "cells").glob("*.json"))) == 4
    assert parts(folder, cache) == started.left() == []

    killed = tmp_path / "killed"
    two = [started.start([*words, "--output", str(killed)], cache, flock=flock) for _ in range(2)]
    two[0].until(lambda: any(killed.rglob("metrics.jsonl")))
    two[0].send(signal.SIGKILL, group=True)
    assert [one.wait() for one in two] == [-signal.SIGKILL, 0], two[1].said
    assert kills.found(killed) == alone
    assert parts(killed, cache) == started.left() == []


@pytest.mark.parametrize("flock", BOTH)
def test_four_processes_decode_images_into_one_cache_and_one_is_killed(tmp_path: Path, started: Commands, flock: bool) -> None:
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    draws = np.random.default_rng(0)
    for number in range(240):
        path = photos / f"class {number % 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(path)
    words = ["distill", "scenes", "--data", str(photos), *kills.words(method="random", data__per_class="50"), "--output"]
    started.run([*words, str(tmp_path / "alone")], tmp_path / "other", flock=flock)
    four = [started.start([*words, str(tmp_path / str(number))], cache, flock=flock) for number in range(4)]
    four[0].until(lambda: (cache / "images").exists())
    four[0].send(signal.SIGKILL, group=True)
    found = [one.wait() for one in four]
    assert found == [-signal.SIGKILL, 0, 0, 0], "\n".join(one.said for one in four)
    alone = kills.found(tmp_path / "alone" / "distilled")
    assert all(kills.found(tmp_path / str(number) / "distilled") == alone for number in (1, 2, 3))
    assert len([place for place in (cache / "images").iterdir() if (place / "content.json").exists()]) == 1
    assert parts(cache) == started.left() == []
