"""The runner: what is kept, what is run again, and what a failure, a limit or an interrupt costs."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from studies.fake_cells import cell, command, results, run_matrix, starts

from limbeck.runs.identity import NUMERICS
from limbeck.runs.settings import DistillSettings, settle
from limbeck.runtime.errors import UsageError
from limbeck.runtime.executor import Shard, local
from limbeck.runtime.files import read_json
from limbeck.runtime.progress import NoProgress, Stage
from limbeck.saliency.settings import EnhanceSettings
from limbeck.studies import matrix
from limbeck.studies.cells import CellFolder, CellRecord, comparison
from limbeck.studies.matrix import distill_command
from limbeck.studies.taken import take_over


@pytest.fixture
def started(tmp_path: Path) -> Path:
    return tmp_path / "started.jsonl"


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_finished_cell_is_kept_and_not_run_again(tmp_path: Path, started: Path) -> None:
    metrics = "\n".join(
        json.dumps(row)
        for row in (
            {"kind": "iteration", "iteration": 0, "loss": 1.0},
            {"kind": "comparison", "iteration": 0, "cosine": 0.9, "norm_ratio": 1.0},
            {"kind": "comparison", "iteration": 50, "cosine": 0.7, "norm_ratio": None},
        )
    )
    cells = [cell("a"), cell("b", seed=1)]
    words = command(started, {"a": f"(run / 'metrics.jsonl').write_text({metrics!r})"})
    found = run_matrix(cells, tmp_path / "grid", command=words)
    assert list(found.results) == ["a", "b"] and not found.failed and not found.left
    assert sorted(path.relative_to(tmp_path / "grid").as_posix() for path in (tmp_path / "grid").rglob("*")) == [
        "cells",
        "cells/a.json",
        "cells/b.json",
    ]
    held = read_json(tmp_path / "grid" / "cells" / "a.json")
    assert CellRecord.from_dict(held) == found.results["a"]
    assert held["comparison"] == {"cosine": pytest.approx(0.8), "norm_ratio": 1.0, "n": 2}
    assert held["accuracy"]["distilled"]["values"] == [0.5]
    assert (held["skipped_share"], held["seconds"]["distil"], held["peak_memory"]["distil"]) == (0.25, 4.0, 300)
    assert "predictions" not in held
    assert (held["settings"], found.results["b"].settings.to_dict()) == ({}, {"seed": 1})
    assert held["fingerprint"] != found.results["b"].more["fingerprint"]
    again = run_matrix(cells, tmp_path / "grid", command=words)
    assert again.results == found.results
    assert [start["cell"] for start in starts(started)] == ["a", "b"]


def test_what_an_earlier_version_measured_otherwise_is_not_taken_for_a_result(tmp_path: Path, started: Path) -> None:
    """Its file says no version; of settings that mean what they did it counts."""
    pad = settle({"experts.curriculum": "pad"})
    cells = [cell("a"), replace(cell("b"), settings=pad)]
    run_matrix(cells, tmp_path / "grid", command=command(started))
    for name in ("a", "b"):
        file = tmp_path / "grid" / "cells" / f"{name}.json"
        held = read_json(file)
        assert held.pop("numerics") == NUMERICS
        file.write_text(json.dumps(held))
    folder = CellFolder(tmp_path / "grid")
    assert folder.read(cells[0]) is not None
    with pytest.raises(
        UsageError, match=r"b.json' was measured by an earlier version: experts.curriculum: 'pad' took other images"
    ):
        folder.read(cells[1])
    assert [*take_over(cells, tmp_path / "grid", tmp_path / "other")] == ["a"]
    sizes = {size: replace(cell("c"), settings=settle({"data.size": size})) for size in (28, 32)}
    old = CellRecord.from_dict(held)
    for size, one in sizes.items():
        (tmp_path / f"at-{size}" / "cells").mkdir(parents=True)
        folder = CellFolder(tmp_path / f"at-{size}")
        folder.write(one, old)
        with pytest.raises(UsageError, match="did not pad images of 28×28 pixels") if size == 28 else nullcontext():
            folder.read(one)


def test_run_folders_are_kept_where_asked_for(tmp_path: Path, started: Path) -> None:
    run_matrix([cell("a")], tmp_path / "grid", command=command(started), keep=True)
    assert (tmp_path / "grid" / "runs" / "a" / "results.json").is_file()
    assert not (tmp_path / "grid" / "logs").exists()


def test_another_process_may_clear_up_at_the_same_time(tmp_path: Path, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its looks and ours come between each other: a folder that is empty goes, and comes back, whoever does it."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rmdir", lambda path: (os.rmdir(path), os.rmdir(path)))  # the first time it was the other one
        found = run_matrix([cell("a")], tmp_path / "one", command=command(started))
    assert list(found.results) == ["a"] and not (tmp_path / "one" / "logs").exists()
    folder, made = CellFolder(tmp_path / "two"), list[Path]()
    folder.log_file(cell("b")).parent.mkdir(parents=True)
    folder.log_file(cell("b")).touch()
    folder.clear(cell("a"), keep=False)
    assert folder.log_file(cell("b")).exists()  # another cell's

    mkdir = Path.mkdir

    def fleeting(path: Path, *how: Any, **named: Any) -> None:
        mkdir(path, *how, **named)
        if path.name in ("logs", "c") and path not in made:
            made.append(path)
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", fleeting)
    found = run_matrix([cell("c")], tmp_path / "three", command=command(started))
    assert list(found.results) == ["c"] and {path.name for path in made} == {"logs", "c"}


def test_a_failing_cell_costs_only_itself(tmp_path: Path, started: Path) -> None:
    says = "print('limbeck: failed: expert 3 diverged', file=sys.stderr); sys.exit(1)"
    bodies = {"b": says, "c": "os.kill(os.getpid(), signal.SIGKILL)", "d": "sys.exit(0)", "e": "pass"}
    cells = [cell(name, seed=number) for number, name in enumerate("abcde")]
    found = run_matrix(cells, tmp_path, command=command(started, bodies), jobs=2)
    assert list(found.results) == ["a", "e"] and not found.left
    log = tmp_path / "logs" / "b.log"
    assert found.failed["b"] == f"expert 3 diverged (status 1; {log} has all it said)"
    assert found.failed["c"] == "its process was killed by SIGKILL"
    assert found.failed["d"] == f"{tmp_path / 'runs' / 'd'} holds no results"
    assert log.read_text() == "limbeck: failed: expert 3 diverged\n"
    again = run_matrix(cells, tmp_path, command=command(started))
    assert list(again.results) == list("abcde") and not again.failed
    assert [start["cell"] for start in starts(started)][5:] == ["b", "c", "d"]


def time_is_up_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes for the runner until there is such a file, and then all of it, however slow the machine is."""
    clock = SimpleNamespace(monotonic=lambda: 1e6 if path.exists() else 0.0, sleep=time.sleep)
    monkeypatch.setattr(matrix, "time", clock)


def test_a_long_grid_is_run_in_pieces(tmp_path: Path, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process that finds its checkpoint ends at once.
    body = "if not (run / 'checkpoint').exists():\n (run / 'checkpoint').touch()\n time.sleep(600)"
    words = command(started, {"b": body})
    cells = [cell("a"), cell("b"), cell("c")]
    with monkeypatch.context() as patch:
        time_is_up_at(tmp_path / "runs" / "b" / "checkpoint", patch)
        first = run_matrix(cells, tmp_path, command=words, max_seconds=1.5)
    assert list(first.results) == ["a"] and first.left == ["b", "c"] and not first.failed
    assert gone(starts(started)[1]["pid"])
    assert (tmp_path / "runs" / "b" / "checkpoint").exists()
    shown = run_matrix(cells, tmp_path, command=words, max_seconds=0)
    assert shown == first and len(starts(started)) == 2
    second = run_matrix(cells, tmp_path, command=words, max_seconds=600)
    assert list(second.results) == ["a", "b", "c"] and not second.left
    assert [start["cell"] for start in starts(started)] == ["a", "b", "b", "c"]


def test_a_process_that_will_not_end_is_killed(tmp_path: Path, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "GRACE", 0.3)
    time_is_up_at(tmp_path / "runs" / "a" / "checkpoint", monkeypatch)
    body = "signal.signal(signal.SIGINT, signal.SIG_IGN); (run / 'checkpoint').touch(); time.sleep(600)"
    found = run_matrix([cell("a")], tmp_path, command=command(started, {"a": body}), max_seconds=0.6)
    assert found.left == ["a"] and not found.failed
    assert gone(starts(started)[0]["pid"])


class Interrupting(NoProgress):
    """Interrupts, as Ctrl-C would, when the first cell is done."""

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        class Interrupt(Stage):
            def advance(self, steps: int = 1, **facts: Any) -> None:
                raise KeyboardInterrupt

        yield Interrupt()


def test_an_interrupt_ends_the_processes_and_leaves_what_is_finished(tmp_path: Path, started: Path) -> None:
    bodies = {"a": f"until({str(tmp_path / 'runs' / 'b' / 'checkpoint')!r})", "b": "(run / 'checkpoint').touch(); time.sleep(60)"}
    cells = [cell("a"), cell("b", seed=1)]
    with pytest.raises(KeyboardInterrupt):
        run_matrix(cells, tmp_path, command=command(started, bodies), jobs=2, progress=Interrupting())
    assert all(gone(start["pid"]) for start in starts(started))
    left = run_matrix(cells, tmp_path, max_seconds=0)
    assert list(left.results) == ["a"] and left.left == ["b"]
    assert (tmp_path / "runs" / "b" / "checkpoint").exists()


def test_shards_take_every_cell_once(tmp_path: Path, started: Path) -> None:
    cells = [cell(name) for name in "abcde"]
    first = run_matrix(cells, tmp_path, command=command(started), shard=Shard(1, 2))
    assert list(first.results) == ["a", "c", "e"] and first.left == ["b", "d"]
    second = run_matrix(cells, tmp_path, command=command(started), shard=Shard(2, 2))
    assert list(second.results) == list("abcde") and not second.left
    assert [start["cell"] for start in starts(started)] == ["a", "c", "e", "b", "d"]


def test_jobs_run_side_by_side_on_their_share_of_the_cores(tmp_path: Path, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    meet = {name: f"(run / 'here').touch(); until({str(tmp_path / 'runs' / other / 'here')!r})" for name, other in ("ab", "ba")}
    found = run_matrix([cell("a"), cell("b", seed=1)], tmp_path, command=command(started, meet), jobs=2, keep=True)
    assert list(found.results) == ["a", "b"]
    assert [start["threads"] for start in starts(started)] == ["4", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_matrix([cell("c")], tmp_path, command=command(started), jobs=2)
    assert starts(started)[-1]["threads"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    run_matrix([cell("d")], tmp_path, command=command(started), jobs=16)
    assert starts(started)[-1]["threads"] == "1"


def test_cells_that_would_wait_for_experts_are_kept_back(tmp_path: Path, started: Path) -> None:
    # `a` ends only when `c`, of another seed, is under way beside it; `b` would wait for the experts that `a` trains.
    body = f"(run / 'here').touch(); until({str(tmp_path / 'runs' / 'c' / 'here')!r})"
    cells = [cell("a"), cell("b"), cell("c", seed=1)]
    words = command(started, {"a": body, "c": "(run / 'here').touch()"})
    found = run_matrix(cells, tmp_path, command=words, jobs=2, keep=True)
    assert list(found.results) == ["a", "b", "c"] and not found.failed
    assert {start["cell"] for start in starts(started)[:2]} == {"a", "c"}


def test_only_cells_that_read_experts_wait_for_them(tmp_path: Path, started: Path) -> None:
    """`a` chooses at random: nothing that it does is waited for, nor does `b`, of the same data and seed, come after `c`."""
    body = f"(run / 'here').touch(); until({str(tmp_path / 'runs' / 'b' / 'here')!r})"
    cells = [cell("a", settings=settle({"method": "random"})), cell("b"), cell("c", seed=1)]
    words = command(started, {"a": body, "b": "(run / 'here').touch()"})
    found = run_matrix(cells, tmp_path, command=words, jobs=2, keep=True)
    assert list(found.results) == ["a", "b", "c"] and not found.failed
    assert {start["cell"] for start in starts(started)[:2]} == {"a", "b"}


@pytest.mark.parametrize(
    ("keys", "reads"),
    [
        ({}, True),
        ({"method": "random"}, False),
        ({"method": "dm"}, False),
        ({"method": "dm", "init": "correct"}, True),
        ({"method": "el2n"}, False),
        ({"method": "el2n", "coreset.judges": "experts"}, True),
    ],
)
def test_who_reads_experts(keys: dict[str, Any], reads: bool) -> None:
    assert cell("a", settings=settle(keys)).needs_experts is reads


def test_experts_are_shared_whatever_reads_them() -> None:
    base = DistillSettings()
    other = replace(base, ipc=10, enhance=EnhanceSettings(weighting="none"), output="runs/x")
    assert cell("a", settings=base).experts == cell("b", settings=other).experts
    assert cell("a", seed=0).experts != cell("a", seed=1).experts


def test_a_result_of_other_settings_is_refused_and_nothing_run(tmp_path: Path, started: Path) -> None:
    run_matrix([cell("a")], tmp_path, command=command(started))
    other = cell("a", settings=replace(DistillSettings(), ipc=10))
    with pytest.raises(UsageError, match=r"cells/a.json' was measured with ipc the default, not 10; name another folder"):
        run_matrix([cell("b"), other], tmp_path, command=command(started))
    assert len(starts(started)) == 1
    moved = cell("a", settings=replace(DistillSettings(), output="elsewhere"))
    assert run_matrix([moved], tmp_path, command=command(started)).left == []


@pytest.mark.parametrize("text", ["", "[]", '{"settings": {}}', '{"settings": {}, "accuracy": {"distilled": {"mean": "NaN"}}}'])
def test_a_broken_result_is_named(tmp_path: Path, started: Path, text: str) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text(text)
    with pytest.raises(UsageError, match="cells/a.json' is no result of a cell .*; delete it"):
        run_matrix([cell("a")], tmp_path, command=command(started))
    assert starts(started) == []


def test_a_result_that_is_no_share_is_a_failure(tmp_path: Path, started: Path) -> None:
    found = run_matrix([cell("a")], tmp_path, command=command(started, result=lambda cell: results(51.0)))
    assert found.failed == {"a": f"{tmp_path / 'runs' / 'a'} holds no results (an accuracy of 51.0)"}


def test_what_cannot_be_run_is_refused(tmp_path: Path, started: Path) -> None:
    (tmp_path / "file").touch()
    for options, key in (
        ({"jobs": 0}, "--jobs"),
        ({"max_seconds": -1.0}, "--max-seconds"),
        ({"max_seconds": float("nan")}, "--max"),
    ):
        with pytest.raises(UsageError, match=f"^{key}"):
            run_matrix([cell("a")], tmp_path, command=command(started), **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="^output: .* cannot be written"):
        run_matrix([cell("a")], tmp_path / "file" / "grid", command=command(started))
    assert run_matrix([], tmp_path / "nothing", command=command(started)).results == {}
    assert not (tmp_path / "nothing").exists()


def test_the_words_of_a_distillation() -> None:
    words = distill_command(cell("a", seed=3), Path("runs/a"))
    expected = [sys.executable, "-m", "limbeck", "distill", "scenes", "seed=3", "--output", "runs/a", "--resume", "--json"]
    assert words == expected


def test_changed_settings_are_those_that_are_no_defaults() -> None:
    made = cell("a", settings=replace(DistillSettings(), ipc=3, output="runs/a"))
    assert made.changed.to_dict() == {"ipc": 3, "match.drop_ratio": 0.25}  # EDF's own for so many
    assert cell("a").changed.to_dict() == {}


def test_no_comparison_where_there_was_none(tmp_path: Path) -> None:
    assert comparison(tmp_path / "absent.jsonl") == {}
    assert CellFolder(tmp_path).read(cell("a")) is None


@pytest.mark.slow
def test_a_real_distillation_in_a_process_of_its_own(tmp_path: Path) -> None:
    from limbeck.recipes import load_recipe

    small = (
        "data.size=16 data.per_class=12 data.val_fraction=0.25 network=ConvNetD2-w8 experts.num_experts=2 experts.train_epochs=4"
    )
    small += " match.syn_steps=2 match.expert_epochs=1 outer.iterations=4 engine.compile=no eval.every=2 eval.every_seeds=1"
    small += " eval.epochs=2 eval.seeds=2 eval.full_epochs=1"
    overrides = dict(word.split("=") for word in small.split())
    made = cell("a")
    made = replace(made, overrides=overrides, settings=load_recipe("scenes", overrides))
    found = run_matrix([made], tmp_path)
    assert not found.failed
    assert found.results["a"].comparison["n"] == 1
    assert 0 <= found.results["a"].accuracy.distilled.mean <= 1
