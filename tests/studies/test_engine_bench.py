"""`limbeck bench engine`: what it measures, what it does not run, what it reuses, prints and draws."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from limbeck.cli.main import main
from limbeck.figures.engine import LOOKS, cosine_figure, engine_figures, memory_figure, time_figure
from limbeck.runtime.errors import Failure
from limbeck.runtime.fingerprint import plain
from limbeck.studies import engine_bench, engine_worker
from limbeck.studies.engine_bench import Growth, bench_engine, call_worker, convolution_flop, convolution_seconds
from limbeck.studies.settings import EngineBenchSettings, Problem, Way

TINY = ["--network", "ConvNetD2-w8", "--size", "8", "--classes", "2", "--steps", "2", "--ipc", "1", "--repeats", "2"]
BALLAST = 700_000_000


class Workers:
    """Stands in for the processes: remembers their jobs; peaks of 1000 bytes an image and step, layers of 1, 2 and 3 seconds."""

    def __init__(self, fails: tuple[str, ...] = ()) -> None:
        self.jobs: list[tuple[str, Mapping[str, Any]]] = []
        self.fails = fails

    def __call__(self, kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.jobs.append((kind, arguments))
        if kind == "probe":
            peaks = [1000 * problem.batch * problem.steps for problem, _ in arguments["cases"]]
            return {"peaks": peaks, "resident_bytes": 500}
        if kind == "convolutions":
            return {"layers": [{"flop": 10, "seconds": {"forward": [1.0], "input": [2.0], "weight": [3.0]}}]}
        if kind == "variant" and arguments["way"].kind in self.fails:
            raise Failure("no compiler")
        if kind == "variant":
            return {"seconds": [3.0, 1.0, 2.0], "warm_up_seconds": 5.0, "peak_bytes": 10, "resident_bytes": 5, "errors": None}
        return {}

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.jobs]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    stand_in = Workers()
    monkeypatch.setattr(engine_bench, "call_worker", stand_in)
    return stand_in


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a real run with two variants, and what it printed; meanwhile this process holds much memory.

    The variants are measured in processes of their own; what is not timed is done in this one, to spare their start.
    """
    folder, printed, start_process = tmp_path_factory.mktemp("bench") / "out", io.StringIO(), engine_bench.call_worker

    def call(kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if kind == "variant":
            return start_process(kind, arguments)
        return engine_worker.JOBS[kind](**json.loads(json.dumps(plain(arguments))))

    ballast = b"x" * BALLAST
    words = ["bench", "engine", *TINY, "--variants", "unroll,eager", "--output", str(folder)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(engine_bench, "call_worker", call)
        patch.setattr(engine_worker, "reuse_freed_memory", lambda: None)
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder.parent))  # set by the jobs, and taken back here
        assert main(words) == 0
    assert len(ballast) == BALLAST
    return folder, printed.getvalue()


def test_a_process_does_the_job_or_says_why_not() -> None:
    problem = Problem(network="NoNet", size=8, classes=2, images=2, batch=2, steps=1, device="cpu", threads=1)
    with pytest.raises(Failure, match=r"^UsageError: network: 'NoNet' is not a name such as"):
        call_worker("convolutions", {"problem": problem, "precision": "fp32", "micro_batch": None, "repeats": 1})


def cells_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {cell["variant"]: cell for cell in json.loads((folder / "results.json").read_text())["cells"]}


def test_both_ways_give_the_exact_gradient(measured: tuple[Path, str]) -> None:
    cells = cells_of(measured[0])
    assert list(cells) == ["unroll", "eager"]
    for cell in cells.values():
        assert set(cell["errors"]) == {"images", "labels", "syn_lr"}
        for error in cell["errors"].values():
            assert 0 < error["relative"] < 1e-4
            assert error["cosine"] == pytest.approx(1, abs=1e-6)


def test_times_and_ratios(measured: tuple[Path, str]) -> None:
    cells = cells_of(measured[0])
    for cell in cells.values():
        low, high = sorted(cell["seconds"])
        assert (cell["min_seconds"], cell["median_seconds"]) == (low, (low + high) / 2)
        assert cell["compile_seconds"] == 0
        assert cell["times_convolutions"] == cell["median_seconds"] / cell["convolution_seconds"]
        assert cell["times_unroll"] == cell["median_seconds"] / cells["unroll"]["median_seconds"]
        assert cell["memory_of_unroll"] == cell["peak_bytes"] / cells["unroll"]["peak_bytes"]


def test_peak_is_the_process_own(measured: tuple[Path, str]) -> None:
    for cell in cells_of(measured[0]).values():
        assert 50e6 < cell["resident_bytes"] <= cell["peak_bytes"] < BALLAST


def test_table_fits_into_a_terminal(measured: tuple[Path, str]) -> None:
    folder, printed = measured
    lines = printed.splitlines()
    row = next(words for words in map(str.split, lines) if words[:2] == ["2", "unroll"])
    of_unroll, _, _, _, memory_of_unroll, _, cosine = row[-7:]
    assert (of_unroll, memory_of_unroll, cosine) == ("1.00", "1.00", "1.0000")
    assert max(len(line.rstrip()) for line in lines if str(folder) not in line) <= 80
    assert f"results:     {folder}/results.json" in lines


def test_plots_are_written(measured: tuple[Path, str]) -> None:
    for name in ("time", "memory"):
        assert (measured[0] / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_measured_is_taken_from_the_folder(
    measured: tuple[Path, str], workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = measured[0], cells_of(measured[0])
    words = ["bench", "engine", *TINY, "--variants", "unroll,eager", "--output", str(folder)]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert workers.jobs == []
    assert {cell["variant"]: cell for cell in printed["cells"]} == before
    assert printed["paths"]["time plot"] == str(folder / "time.png")


def test_other_settings_are_measured_again(workers: Workers, tmp_path: Path) -> None:
    settings = EngineBenchSettings(network="ConvNetD2-w8", size=8, steps=(2,), ipc=(1,), variants=("unroll",))
    bench_engine(settings, tmp_path)
    assert workers.kinds == ["probe", "convolutions", "reference", "variant"]
    workers.jobs.clear()
    (tmp_path / "references").mkdir()
    (tmp_path / "references" / "ipc1-T2.safetensors").write_bytes(b"no gradient")
    bench_engine(replace(settings, repeats=5), tmp_path)
    assert workers.kinds == ["convolutions", "reference", "variant"]
    workers.jobs.clear()
    bench_engine(replace(settings, repeats=5), tmp_path, fresh=True)
    assert workers.kinds == ["probe", "convolutions", "reference", "variant"]


def test_a_gradient_that_would_take_too_long_is_not_computed(workers: Workers, tmp_path: Path) -> None:
    settings = EngineBenchSettings(network="ConvNetD2-w8", size=8, steps=(2,), ipc=(1,), variants=("unroll",), reference_seconds=10)
    (cell,) = bench_engine(settings, tmp_path)["cells"]
    assert workers.kinds == ["probe", "convolutions", "variant"]
    assert workers.jobs[-1][1]["reference"] is None
    assert cell["errors"] is None


def test_what_does_not_fit_is_never_run(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine_bench, "total_memory", lambda device: 224_000)
    words = ["--network", "ConvNetD2-w8", "--size", "8", "--classes", "2", "--ipc", "5", "--steps", "4,8", "--variants", "unroll"]
    assert main(["bench", "engine", *words, "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    # 1.4 · 1000 bytes · 10 images · 8 steps + 500: just above half of 224 000.
    assert "T = 8, unroll: does not fit (predicted 0 MB)" in out
    assert [arguments["problem"].steps for kind, arguments in workers.jobs if kind == "variant"] == [4]
    fitting, not_fitting = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert (fitting["fits"], fitting["predicted_bytes"]) == (True, 56_500)
    assert (not_fitting["fits"], not_fitting["predicted_bytes"], "seconds" in not_fitting) == (False, 112_500, False)
    assert (tmp_path / "memory.png").exists()


def test_a_variant_that_fails_costs_no_other(workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workers.fails = ("tesla",)
    words = ["bench", "engine", *TINY, "--variants", "unroll,tesla", "--output", str(tmp_path)]
    assert main(words) == 0
    assert "T = 2, tesla: failed: no compiler" in capsys.readouterr().out
    unroll, tesla = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert unroll["median_seconds"] == 2.0 and tesla["error"] == "no compiler"
    workers.fails = ("unroll", "tesla")
    assert main([*words, "--fresh"]) == 1
    assert "limbeck: failed: no variant could be measured; unroll: no compiler\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--steps", "10,x"], "--steps: 'x' is not a whole number"),
        (["--steps", "0"], "--steps: 0 is not at least 1"),
        (["--ipc", "1,1"], "--ipc: '1,1' is not one or more different numbers, joined by commas"),
        (["--variants", "unroll,magic"], "--variants: 'magic' is not some of unroll,eager,"),
        (["--variants", "compiled-tf32", "--device", "cpu"], "--variants: 'compiled-tf32' is not possible on a CPU"),
        (["--network", "NoNet"], "--network: 'NoNet' is not a name such as"),
        (["--size", "4"], "--network: 'ConvNetD3-w64' halves the image 3 times"),
        (["--classes", "1"], "--classes: 1 is not at least 2"),
        (["--device", "abacus"], "--device: 'abacus' is not auto, cpu or a CUDA device"),
        (["--repeats", "0"], "--repeats: 0 is not at least 1"),
        (["--threads", "none"], "--threads: 'none' is not a whole number"),
        (["--reference-seconds", "long"], "--reference-seconds: 'long' is not a number of seconds"),
        (["--reference-seconds", "nan"], "--reference-seconds: nan is not at least 0"),
        (["--output", "taken"], "--output: 'taken' is not a folder"),
    ],
)
def test_bad_options_are_refused_before_anything_is_run(
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    assert main(["bench", "engine", *words]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"limbeck: error: {says}") and message.count("\n") == 1
    assert workers.jobs == []
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_only_the_engine_can_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kitchen"]) == 2
    assert capsys.readouterr().err == "limbeck: error: WHAT: 'kitchen' is not engine\n"


def test_help_needs_no_torch() -> None:
    run = "import sys\nfrom limbeck.cli.main import main\ntry:\n    main(['bench', '--help'])\n"
    code = run + "finally:\n    assert 'torch' not in sys.modules"
    assert "--reference-seconds" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_growth_is_found_again() -> None:
    def held(batch: int, micro_batch: int, steps: int) -> int:
        return 1000 + 30 * micro_batch + (7 + 5 * batch) * steps

    growth = Growth.fit([held(batch, batch, steps) for batch in (2, 4) for steps in (2, 4)])
    assert growth.bytes(100, 25, 80) == held(100, 25, 80)


LAYER = {"flop": 10, "seconds": {"forward": [1.0, 2.0], "input": [10.0, 20.0], "weight": [100.0, 200.0]}}


@pytest.mark.parametrize(
    ("way", "first", "later"),
    [
        (Way(kind="exact"), 322, 443),  # 4 steps of F + W and products of 2F + 2I + W; F + I + W and 3F + 3I + 2W
        (Way(kind="unroll"), 322, 443),
        (Way(kind="tesla"), 322 - 100 - 100, 443 - 200 - 100),
        (Way(kind="truncated", last_steps=1), 0, 0),
    ],
)
def test_convolutions_are_counted(way: Way, first: int, later: int) -> None:
    step, product = (101, 111), ((122, 233) if way.kind != "tesla" else (22, 33))
    walked = 1 if way.kind == "truncated" else 4
    expected = sum(4 * one + walked * other for one, other in zip(step, product, strict=True))
    assert convolution_seconds([LAYER, LAYER], way, 4) == [expected, 2 * expected]


def test_eleven_convolutions_a_layer() -> None:
    assert convolution_flop([LAYER, LAYER], Way(kind="exact"), 3) == 3 * 10 * (7 + 11)


def test_worker_counts_the_operations_of_every_layer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine_worker, "reuse_freed_memory", lambda: None)
    monkeypatch.setattr(engine_worker, "LEAST_SECONDS", 1e-6)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    problem = Problem(network="ConvNetD2-w8", size=16, classes=2, images=10, batch=10, steps=1, device="cpu", threads=1)
    layers = engine_worker.convolutions(plain(problem), "fp32", 3, 2)["layers"]
    assert [layer["flop"] for layer in layers] == [2 * 9 * 3 * 8 * 10 * 16 * 16, 2 * 9 * 8 * 8 * 10 * 8 * 8]
    assert all(len(seconds) == 2 and min(seconds) > 0 for layer in layers for seconds in layer["seconds"].values())


@pytest.mark.parametrize(("images", "steps", "share"), [(100, 7, 1.0), (150, 2, 0.75), (150, 3, 250 / 300), (500, 3, 1.0)])
def test_smaller_last_batches_count_for_less(images: int, steps: int, share: float) -> None:
    problem = Problem(network="", size=8, classes=2, images=images, batch=100, steps=steps, device="cpu", threads=1)
    assert engine_bench._share(problem) == pytest.approx(share)


def fake_cells() -> list[dict[str, Any]]:
    cells = []
    for variant, seconds in (("unroll", 2.0), ("compiled", 1.0), ("tesla", 0.5)):
        for steps in (10, 20):
            cell = {"variant": variant, "ipc": 1, "steps": steps, "images": 10, "batch": 10, "fits": True, "predicted_bytes": 9e9}
            if (variant, steps) == ("unroll", 20):
                cells.append({**cell, "fits": False})
                continue
            errors = {"images": {"relative": 0.1, "cosine": 1 - 0.01 * steps if variant == "tesla" else 1.0}}
            measured = {"median_seconds": seconds * steps, "peak_bytes": 1e8 * steps, "convolution_seconds": 0.25 * steps}
            cells.append({**cell, "seconds": [1.0], **measured, "errors": errors})
    return cells


def line(draw: Callable[..., Any], colour: str, *arguments: Any) -> list[list[float]]:
    """The points of the first line of that colour."""
    found = [one for one in draw(fake_cells(), *arguments).axes[0].get_lines() if to_hex(one.get_color()) == colour]
    return np.asarray(found[0].get_xydata()).tolist()


def test_figures_show_what_was_measured() -> None:
    tesla, unroll = LOOKS["tesla"].colour, LOOKS["unroll"].colour
    assert line(time_figure, tesla) == [[10, 5], [20, 10]]
    assert line(time_figure, unroll) == [[10, 20]]  # what does not fit has no time
    assert line(memory_figure, tesla, 8e9) == [[10, 1], [20, 2]]
    assert line(cosine_figure, tesla) == [[10, 0.9], [20, 0.8]]
    hollow = memory_figure(fake_cells(), 8e9).axes[0].get_lines()
    assert [[20, 9]] in [np.asarray(one.get_xydata()).tolist() for one in hollow]
    names = set(engine_figures({"cells": fake_cells(), "memory_limit_bytes": 8e9}))
    assert names == {"time", "memory", "cosine"}
    exact = [cell for cell in fake_cells() if cell["variant"] == "compiled"]
    assert set(engine_figures({"cells": exact, "memory_limit_bytes": 8e9})) == {"time", "memory"}
    assert engine_figures({"cells": [cell for cell in exact if not cell["fits"]], "memory_limit_bytes": 8e9}) == {}
