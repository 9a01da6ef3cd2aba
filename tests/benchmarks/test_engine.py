"""`benchmarks/engine.py`: what it measures, what it does not run, what it reuses and draws."""

import importlib
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.fingerprint import plain

FOLDER = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, FOLDER)  # where scripts find each other, too
engine, engine_cells, engine_figures, engine_table, engine_worker = (
    importlib.import_module(name) for name in ("engine", "engine_cells", "engine_figures", "engine_table", "engine_worker")
)
sys.path.remove(FOLDER)
Growth, Problem, Way, Settings = engine_cells.Growth, engine_cells.Problem, engine_cells.Way, engine_cells.EngineBenchSettings
convolution_flop, convolution_seconds = engine_cells.convolution_flop, engine_cells.convolution_seconds
bench_engine = engine.bench_engine
LOOKS, time_figure, memory_figure = engine_figures.LOOKS, engine_figures.time_figure, engine_figures.memory_figure
TINY = Settings(network="ConvNetD2-w8", size=8, classes=2, steps=(2,), ipc=(1,), repeats=2, variants=("unroll", "eager"))


class Workers:
    """Stands in for the processes: remembers their jobs; peaks of 1000 bytes an image and step, layers of 1, 2 and 3 seconds."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, Mapping[str, Any]]] = []
        self.isas: list[str] = []
        self.fails: tuple[str, ...] = ()

    def __call__(self, kind: str, arguments: Mapping[str, Any], isa: str = "native") -> dict[str, Any]:
        self.jobs.append((kind, arguments))
        self.isas.append(isa)
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
    monkeypatch.setattr(engine_cells, "call_worker", stand_in)
    return stand_in


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a real run of two variants, all of it in this process to spare the others' start."""
    folder = tmp_path_factory.mktemp("bench") / "out"
    with pytest.MonkeyPatch.context() as patch:
        run = lambda kind, given, isa: engine_worker.JOBS[kind](**json.loads(json.dumps(plain(given))))  # noqa: E731
        patch.setattr(engine_cells, "call_worker", run)
        patch.setattr(engine_worker, "reuse_freed_memory", lambda: None)
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder.parent))  # set by the jobs, and taken back here
        bench_engine(TINY, folder)
        yield folder


def cells_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {cell["variant"]: cell for cell in json.loads((folder / "results.json").read_text())["cells"]}


def test_a_process_does_the_job_or_says_why_not() -> None:
    problem = Problem(network="NoNet", size=8, classes=2, images=2, batch=2, steps=1, device="cpu", threads=1)
    with pytest.raises(Failure, match=r"^UsageError: network: 'NoNet' is not a name such as"):
        engine_cells.call_worker("convolutions", {"problem": problem, "precision": "fp32", "micro_batch": None, "repeats": 1})


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, str]]:
    """Those that workers are started with, which do nothing."""
    seen: list[Mapping[str, str]] = []

    def run(*_: Any, env: Mapping[str, str], **__: Any) -> Any:
        seen.append(env)
        return types.SimpleNamespace(returncode=0, stdout="{}", stderr="")

    monkeypatch.setattr(engine_cells.subprocess, "run", run)
    for name in ("ATEN_CPU_CAPABILITY", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    return seen


def test_the_instructions_of_a_worker_are_those_that_were_asked_for(environments: list[Mapping[str, str]]) -> None:
    for isa in ("native", "avx2"):
        engine_cells.call_worker("probe", {}, isa)
    assert [env.get("ATEN_CPU_CAPABILITY") for env in environments] == [None, "avx2"]


def test_threads_of_compiled_variants_wait_as_those_of_the_command(environments: list[Mapping[str, str]]) -> None:
    for variant in ("unroll", "compiled"):
        engine_cells.call_worker("variant", {"way": engine_cells.VARIANTS[variant](2)})
    assert [env.get("OMP_WAIT_POLICY") for env in environments] == [None, "PASSIVE"]


def test_both_ways_give_the_exact_gradient(measured: Path) -> None:
    cells = cells_of(measured)
    assert list(cells) == ["unroll", "eager"]
    for cell in cells.values():
        assert set(cell["errors"]) == {"images", "labels", "syn_lr"}
        for error in cell["errors"].values():
            assert 0 < error["relative"] < 1e-4
            assert error["cosine"] == pytest.approx(1, abs=1e-6)


def test_times_and_ratios(measured: Path) -> None:
    cells = cells_of(measured)
    for cell in cells.values():
        low, high = sorted(cell["seconds"])
        assert (cell["min_seconds"], cell["median_seconds"]) == (low, (low + high) / 2)
        assert cell["compile_seconds"] == 0
        assert cell["times_convolutions"] == cell["median_seconds"] / cell["convolution_seconds"]
        assert cell["times_unroll"] == cell["median_seconds"] / cells["unroll"]["median_seconds"]
        assert cell["memory_of_unroll"] == cell["peak_bytes"] / cells["unroll"]["peak_bytes"]


def test_the_script_takes_what_was_measured_from_the_folder_prints_and_draws_it(
    measured: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = cells_of(measured)
    words = "engine.py --network ConvNetD2-w8 --size 8 --classes 2 --steps 2 --ipc 1 --repeats 2 --variants unroll,eager --output"
    monkeypatch.setattr(sys, "argv", [*words.split(), str(measured)])
    engine.main()
    assert workers.jobs == []
    assert cells_of(measured) == before
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| 2 | `unroll` |"))
    assert [word.strip() for word in row.split("|")][4] == "1.00"
    assert (measured / "time.png").read_bytes().startswith(b"\x89PNG")


def test_other_settings_are_measured_again(workers: Workers, tmp_path: Path) -> None:
    settings = replace(TINY, variants=("unroll",))
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
    (cell,) = bench_engine(replace(TINY, variants=("unroll",), reference_seconds=10), tmp_path)["cells"]
    assert workers.kinds == ["probe", "convolutions", "variant"]
    assert cell["errors"] is None


def test_what_does_not_fit_is_never_run(workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "total_memory", lambda device: 224_000)
    results = bench_engine(replace(TINY, ipc=(5,), steps=(4, 8), variants=("unroll",)), tmp_path)
    # 1.4 · 1000 bytes · 10 images · 8 steps + 500: just above half of 224 000.
    assert [arguments["problem"].steps for kind, arguments in workers.jobs if kind == "variant"] == [4]
    fitting, not_fitting = results["cells"]
    assert (fitting["fits"], fitting["predicted_bytes"]) == (True, 56_500)
    assert (not_fitting["fits"], not_fitting["predicted_bytes"], "seconds" in not_fitting) == (False, 112_500, False)
    assert "does not fit (0 MB)" in "\n".join(engine_table.table(results["cells"]))


def test_every_cell_is_measured_with_each_kind_of_instructions_before_the_next(workers: Workers, tmp_path: Path) -> None:
    settings = replace(TINY, variants=("unroll", "compiled-bf16", "eager"), isa=("native", "avx2"), reference_seconds=0)
    cells = bench_engine(settings, tmp_path)["cells"]
    expected = [("native", "unroll"), ("avx2", "unroll"), ("native", "compiled-bf16"), ("native", "eager"), ("avx2", "eager")]
    assert [(cell["isa"], cell["variant"]) for cell in cells] == expected
    measured = [isa for isa, (kind, _) in zip(workers.isas, workers.jobs, strict=True) if kind == "variant"]
    assert measured == [isa for isa, _ in expected]
    assert all(cell["times_unroll"] == 1 for cell in cells)
    rows = [line.split(" | ")[0] for line in engine_table.table(cells) if "`" in line]
    assert rows == [f"| {isa}" for isa, _ in expected]
    workers.jobs.clear()
    assert bench_engine(settings, tmp_path)["cells"] == cells and workers.jobs == []
    alone = bench_engine(replace(settings, isa=("avx2",), variants=("compiled-bf16",)), tmp_path / "alone")["cells"]
    assert [cell["variant"] for cell in alone] == ["compiled-bf16"]


def test_growth_is_a_line_and_its_residual() -> None:
    at = {"isa": "native", "variant": "unroll", "batch": 10}
    cells = [
        {**at, "steps": t, "seconds": [0], "median_seconds": 1 + 2 * t, "peak_bytes": 1e9 * (t if t < 4 else 8)} for t in (1, 2, 4)
    ]
    time, memory = engine_table.growth(cells)[3:-1]
    assert time == "| `unroll` | 10 images | T | 1.00 s | 2.00 s | 0 % |"
    # least squares of (1, 1), (2, 2), (4, 8): slope 17/7, base −2; at 2 it says 20/7 where 2 was measured
    assert memory == "| `unroll` | 10 images | T | -2.0 GB | 2.4 GB | 57 % |"
    assert engine_table.growth(cells[:2]) == []


def test_a_variant_that_fails_costs_no_other(workers: Workers, tmp_path: Path) -> None:
    workers.fails = ("tesla",)
    settings = replace(TINY, variants=("unroll", "tesla"))
    unroll, tesla = bench_engine(settings, tmp_path)["cells"]
    assert unroll["median_seconds"] == 2.0 and tesla["error"] == "no compiler"
    workers.fails = ("unroll", "tesla")
    with pytest.raises(Failure, match="^no variant could be measured; unroll: no compiler$"):
        bench_engine(settings, tmp_path, fresh=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"variants": ("compiled-tf32",), "device": "cpu"}, "--variants: 'compiled-tf32' is not possible on a CPU"),
        ({"network": "NoNet"}, "--network: 'NoNet' is not a name such as"),
        ({"device": "abacus"}, "--device: 'abacus' is not auto, cpu or a CUDA device"),
    ],
)
def test_bad_options_are_refused_before_anything_is_run(
    workers: Workers, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=f"^{says}"):
        bench_engine(replace(TINY, **changes), tmp_path)
    assert workers.jobs == [] and list(tmp_path.iterdir()) == []


def test_the_kept_results_can_be_printed() -> None:
    for path in engine_table.RESULTS.glob("*.json"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert len(engine_table.table(cells)) == len(cells) + 6


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
def test_convolutions_are_counted(way: Any, first: int, later: int) -> None:
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
    assert engine_cells._share(problem) == pytest.approx(share)


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
    assert line(engine_figures.cosine_figure, tesla) == [[10, 0.9], [20, 0.8]]
    hollow = memory_figure(fake_cells(), 8e9).axes[0].get_lines()
    assert [[20, 9]] in [np.asarray(one.get_xydata()).tolist() for one in hollow]
    names = set(engine_figures.engine_figures({"cells": fake_cells(), "memory_limit_bytes": 8e9}))
    assert names == {"time", "memory", "cosine"}
    exact = [cell for cell in fake_cells() if cell["variant"] == "compiled"]
    assert set(engine_figures.engine_figures({"cells": exact, "memory_limit_bytes": 8e9})) == {"time", "memory"}
    assert engine_figures.engine_figures({"cells": [cell for cell in exact if not cell["fits"]], "memory_limit_bytes": 8e9}) == {}
