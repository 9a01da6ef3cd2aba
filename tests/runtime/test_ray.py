"""Jobs as tasks of a Ray cluster, begun once for this module: what comes of them, of workers that die, and of what is wrong.

Beside each other: processes of this machine, shares of processes that never meet, and the cluster, with the same bits.
"""

import json
import os
import random as chance
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runtime import ray_jobs
from runtime.ray_jobs import lines
from studies.fake_cells import cell, command, run_matrix, starts
from studies.here import without_pages
from torch import Tensor

import limbeck
from limbeck.cli.main import main
from limbeck.methods import mtt, random
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.executor import Local, on_ray, using
from limbeck.runtime.executor.on_ray import Ray
from limbeck.runtime.executor.ray_worker import versions
from limbeck.runtime.files import read_tensors

pytest.importorskip("ray", reason="ray is not installed (extra: ray)")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers are killed by signals")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Ray]:
    with Ray(processors=2) as made:
        yield made


def results(executor: Ray, function: Any, shared: Any, jobs: Any, **more: Any) -> list[Any]:
    return list(executor.run(function, shared, jobs, at_once=1, **more))


def test_results_are_in_order_and_what_was_said_is_said_here(cluster: Ray, caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = results(cluster, ray_jobs.where, 10, [3, 1, 2], told=told.append)
    assert [value for value, *_ in found] == [13, 11, 12]
    assert {threads for *_, threads, _, _ in found} == {"1"}
    assert {root for *_, root, _ in found} == {os.environ["LIMBECK_CACHE"]}
    assert str(os.getpid()) not in {pid for _, pid, *_ in found}
    assert sum(told) == 3
    assert [record.getMessage() for record in caplog.records if record.name == "limbeck"] == ["job 1 says so"]
    assert ["a piece 1 is odd" in str(one.message) for one in warned] == [True]


def test_arrays_go_by_their_file_where_it_is_seen_and_else_as_they_are(
    cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "array.npy", np.arange(20.0).reshape(5, 4))
    array = np.load(tmp_path / "array.npy", mmap_mode="r")[1:]
    assert results(cluster, ray_jobs.total, array, [0, 1]) == [(184.0, True), (185.0, True)]
    # To a worker that sees another file at that place it is sent.
    real = on_ray.packed
    monkeypatch.setattr(on_ray, "packed", lambda value, whole=False: _moved(real, value, whole, tmp_path / "array.npy"))
    assert results(cluster, ray_jobs.total, array, [0, 1]) == [(184.0, False), (185.0, False)]


def _moved(packed: Any, value: Any, whole: bool, file: Path) -> bytes:
    """The value packed, and the file changed by then."""
    made: bytes = packed(value, whole)
    os.utime(file, ns=(1, 1 + len(made)))
    return made


def test_another_version_is_refused(cluster: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "versions", lambda: (versions()[0], ("torch", "1.0")))
    with pytest.raises(UsageError, match=r"^--executor ray: \S+ has torch \S+, where jobs come from 1\.0$"):
        results(cluster, ray_jobs.where, 1, [1])


def test_a_node_that_does_not_see_the_folder_is_refused(cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def elsewhere(folder: Path | None) -> Iterator[Path]:
        yield tmp_path / "other" / "mark"

    monkeypatch.setattr(on_ray, "_marked", elsewhere)
    with pytest.raises(UsageError, match=r"^--executor ray: \S+ does not see .*other'; results need a folder on a disk that all"):
        results(cluster, ray_jobs.where, 1, [1], writes=tmp_path)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def until(what: Any, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(what())


TINY = {"data.size": 16, "data.per_class": 12, "network": "ConvNetD1-w4", "eval.random_lr": 0.01, "eval.full_epochs": 1}
FEW = {"experts.num_experts": 3, "experts.train_epochs": 2, "match.syn_steps": 2, "match.expert_epochs": 1, "outer.iterations": 2}
SHORT = {"features": "none", "schedule.first_max_start_epoch": 1, "schedule.max_start_epoch": 1, "eval.epochs": 1, "eval.seeds": 2}


def test_experts_are_the_same_by_processes_by_shares_and_by_ray(
    cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"{key}={value}" for key, value in {**TINY, **FEW, **SHORT, "engine.compile": "no"}.items()]
    base = ["experts", "scenes/mtt-ipc1", *(word for word in words if not word.startswith(("eval.", "outer.")))]
    ways = {"local": [[]], "shares": [["--shard", "1/2"], ["--shard", "2/2"]], "ray": [["--executor", "ray"]]}
    found = {}
    for name, calls in ways.items():
        for call in calls:
            assert main([*base, f"experts.store={tmp_path / name}", *call]) == 0
        files = sorted(path for path in (tmp_path / name).rglob("*.safetensors"))
        found[name] = {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in files}
    assert len(found["local"]) >= 3
    assert found["ray"] == found["local"] == found["shares"]


def test_evaluations_and_complexities_are_the_same(cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = limbeck.load_data("scenes:easy", size=16, per_class=12)
    images = limbeck.distill(data, "random", network="ConvNetD1-w4", epochs=1, full_epochs=1, random_lr=0.01).distilled
    found, measured = [], []
    for executor in ("local", cluster):
        monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / str(len(found))))
        how = {"networks": ["ConvNetD1-w4", "MLP-w8"], "epochs": 1, "full_epochs": 1, "random_lr": 0.01, "seeds": 2}
        one = limbeck.evaluate(images, data, executor=executor, **how)
        found.append({**one.to_dict(), "seconds": None})
        looked = limbeck.complexity(data, network="ConvNetD1-w4", executor=executor, full_epochs=1, workers=1)
        measured.append(looked.results.to_dict())
    assert found[0] == found[1]
    assert measured[0] == measured[1]
    assert len(list((tmp_path / "1").rglob("*.safetensors"))) == len(list((tmp_path / "0").rglob("*.safetensors"))) > 2


@pytest.mark.parametrize(
    ("names", "seeds"), [(("mtt", "centres"), 1), pytest.param(("mtt", "random", "centres"), 2, marks=pytest.mark.slow)]
)
def test_a_comparison_is_the_same(
    cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], seeds: int
) -> None:
    """Methods whose objects no command line can name."""
    known = {"mtt": mtt(), "random": random(), "centres": "k-center"}
    methods, cells = {name: known[name] for name in names}, len(names) * seeds
    tables = []
    without_pages(monkeypatch)  # here; workers draw them
    for executor in ("local", cluster):
        monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / f"cache{len(tables)}"))
        output = tmp_path / str(len(tables))
        compared = limbeck.compare(
            methods, "scenes:easy", seeds=range(seeds), settings={**TINY, **FEW, **SHORT}, output=output, executor=executor
        )
        assert not compared.failed and not compared.left
        tables.append([(row.method, row.accuracy, row.recovery_ratio) for row in compared.rows])
    assert tables[0] == tables[1] and {accuracy.n for _, accuracy, _ in tables[0]} == {seeds} and len(tables[0]) == len(names)
    kept = [sorted(path.name for path in (tmp_path / str(number) / "cells").iterdir()) for number in range(2)]
    assert kept[0] == kept[1] and len(kept[0]) == cells
    assert not (tmp_path / "1" / "runs").exists()


TIMES = ("seconds", "cpu_seconds", "peak_memory", "checksum")  # and the checksum of what has these in it


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in TIMES}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def bits(value: Tensor) -> tuple[Any, ...]:
    return value.dtype, tuple(value.shape), value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def kept_in(folder: Path) -> dict[str, Any]:
    """Tensors of all files there, and cells without how long they took."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*.safetensors"):
        found |= {f"{path.relative_to(folder)} {name}": bits(one) for name, one in read_tensors(path)[0].items()}
    return found | {path.name: timeless(json.loads(path.read_text())) for path in folder.glob("cells/*.json")}


@pytest.mark.slow
def test_all_that_a_comparison_keeps_is_the_same(cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells, distilled sets, snapshots, experts and networks of the full data, each way with a cache of its own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as many as a task has
    changes = {**TINY, **FEW, **SHORT, "eval.full_seeds": 2, "engine.compile": "no"}
    words = ["--methods", "mtt,dm", "--data", "scenes:easy", "--seeds", "0,1", *(f"{key}={one}" for key, one in changes.items())]
    found = []
    for way in ("local", "ray"):
        monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / way / "cache"))
        assert main(["compare", *words, "--keep", "--output", str(tmp_path / way), "--executor", way]) == 0
        found.append(kept_in(tmp_path / way))
    assert found[0].keys() == found[1].keys()
    assert all(found[0][name] == found[1][name] for name in found[0])
    for part in ("cells/", "runs/dm-ipc1-seed1/distilled/", "cache/full/", "cache/experts/"):
        assert any(path.relative_to(tmp_path / "ray").as_posix().startswith(part) for path in (tmp_path / "ray").rglob("*.*")), part


def test_cells_are_commands_on_the_cluster(cluster: Ray, tmp_path: Path) -> None:
    """One fails as it would here; all others are there, once, and of a grid that is stopped nothing goes on."""
    started, bodies = tmp_path / "started", {"b": "sys.exit('limbeck: failed: it went wrong')"}
    cells = [cell(name, seed=number) for number, name in enumerate("abc")]
    with using(cluster):
        found = run_matrix(cells, tmp_path / "grid", command=command(started, bodies))
        assert list(found.results) == ["a", "c"]
        assert list(found.failed) == ["b"] and found.failed["b"].startswith("it went wrong (status 1; ")
        assert Counter(start["cell"] for start in starts(started)) == {"a": 1, "b": 1, "c": 1}
        assert {start["threads"] for start in starts(started)} == {"1"}
        body = "(run / 'checkpoint').touch(); time.sleep(600)"
        other = tmp_path / "other"
        pause = SimpleNamespace(monotonic=lambda: 1e6 if (other / "runs" / "d" / "checkpoint").exists() else 0.0, sleep=time.sleep)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("limbeck.studies.matrix.time", pause)
            left = run_matrix([cell("d")], other, command=command(started, {"d": body}), max_seconds=1.0)
    assert left.left == ["d"] and not left.failed
    assert until(lambda: gone(starts(started)[-1]["pid"]))


def test_an_error_of_a_job_is_said_as_it_is_here_and_nothing_is_tried_again(cluster: Ray, tmp_path: Path) -> None:
    for executor in (Local(), cluster):
        with pytest.raises(UsageError, match=r"^ipc: 2 is not wanted$"):
            list(executor.run(ray_jobs.refuse, tmp_path / type(executor).__name__, [1, 2], at_once=1))
    assert Counter(line[0] for line in lines(tmp_path / "Ray"))["2"] == 1
    with pytest.raises(Failure, match=r"^Odd: 1 and 2 in two lines$"):
        results(cluster, ray_jobs.odd, None, [2])


def killing(log: Path, count: int, killed: list[int], over: threading.Event) -> None:
    """Kill so many workers while they are at a job."""
    while len(killed) < count and not over.wait(0.05):
        held = lines(log)
        under_way = {pid for word, _, pid in held if word == "begun"} - set(map(str, killed))
        last = {pid: word for word, _, pid in held}
        if busy := sorted(pid for pid in under_way if last[pid] == "begun"):
            pid = int(chance.Random(len(killed)).choice(busy))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.append(pid)


@pytest.mark.parametrize(("jobs", "kills"), [(40, 3), pytest.param(200, 10, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:a worker of the cluster died")
def test_workers_that_are_killed_cost_their_jobs_only(
    cluster: Ray, tmp_path: Path, capfd: pytest.CaptureFixture[str], jobs: int, kills: int
) -> None:
    log, killed, over = tmp_path / "log", list[int](), threading.Event()
    killer = threading.Thread(target=killing, args=(log, kills, killed, over), daemon=True)
    told: list[int] = []
    killer.start()
    found = results(cluster, ray_jobs.kept, log, range(jobs), told=told.append)
    over.set()
    killer.join()
    assert found == [job * job for job in range(jobs)]
    assert len(killed) == kills
    made, begun = (Counter(job for word, job, _ in lines(log) if word == kind) for kind in ("made", "begun"))
    assert set(begun) == {str(job) for job in range(jobs)}
    # What a killed worker had written but not noted yet was there for the next one.
    assert max(made.values()) == 1 and len(made) >= jobs - kills
    assert jobs < sum(begun.values()) <= jobs + 2 * kills
    assert sum(told) == jobs
    assert "raylet" not in "".join(capfd.readouterr())


@pytest.mark.filterwarnings("ignore:a worker of the cluster died")
def test_a_job_that_kills_every_worker_is_a_failure(cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "RETRIES", 1)
    with pytest.raises(Failure, match=r"^--executor ray: a job was begun 2 times, and its worker died each time; what is finished"):
        results(cluster, ray_jobs.die, tmp_path / "log", [0])
    assert len(lines(tmp_path / "log")) == 2


def test_an_interrupt_ends_the_jobs(cluster: Ray, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def interrupt() -> None:
        until(lambda: len(lines(log)) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        results(cluster, ray_jobs.wait, log, range(5))
    assert until(lambda: all(gone(int(pid)) for _, pid in lines(log)))
    assert len(lines(log)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_ends_takes_its_processes_along(tmp_path: Path, number: signal.Signals) -> None:
    """Those of Ray's, too; asked to, it says how to go on."""
    psutil = pytest.importorskip("psutil")
    long = ["data.size=16", "data.per_class=50", "network=ConvNetD1-w4", "experts.num_experts=2", "experts.train_epochs=100000"]
    words = [sys.executable, "-m", "limbeck", "experts", "scenes/mtt-ipc1", *long, f"experts.store={tmp_path / 'store'}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*words, "--executor", "ray"], stdout=log, stderr=log, start_new_session=True)
    assert until(lambda: list(tmp_path.glob("store/expert-*/*.safetensors")) or process.poll() is not None, 300)
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in " ".join(child.cmdline()) for child in children)
    process.send_signal(number)
    assert process.wait(15) == (130 if number == signal.SIGINT else -number)
    assert not psutil.wait_procs(children, timeout=120)[1]  # the agents of a node look for it from time to time
    if number == signal.SIGINT:
        assert "limbeck: interrupted; continue with: limbeck experts" in (tmp_path / "log").read_text()
