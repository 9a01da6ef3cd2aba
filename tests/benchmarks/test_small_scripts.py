"""Scripts of `benchmarks/` at toy size: what is timed, what they ask for, what is measured of half-width experts and updates."""

import json
from argparse import Namespace
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from limbeck.accuracy import Accuracies
from limbeck.augmentation import Dsa
from limbeck.data.load import load_data
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.settings import DataSettings
from limbeck.evaluation.statistics import summarise
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.train import ExpertTask
from limbeck.networks.flat import flat_network
from limbeck.studies.cells import CellFolder, CellRecord
from limbeck.studies.matrix import Matrix

FOLDER = str(Path(__file__).parents[2] / "benchmarks")
Script = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.syspath_prepend(FOLDER)

    def load(name: str) -> ModuleType:  # by its file: packages of tests are called like some
        spec = spec_from_file_location(f"benchmark_{name}", Path(FOLDER, f"{name}.py"))
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(module := module_from_spec(spec))
        return module

    return load


def test_half_width_is_compared_by_the_cells_that_are_there(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    half, means = script("experts_half"), {"fp32": (0.4, 0.5), "half": (0.42, 0.54)}
    for seed in (0, 1):
        for dtype in half.DTYPES:
            named = {"random": 0.1, "initial": 0.2, "distilled": means[dtype][seed]}
            found = Accuracies(**{name: summarise([mean] * 2) for name, mean in named.items()})
            CellFolder(tmp_path).write(half._cell(half.ACCURACY, seed, dtype), CellRecord(accuracy=found))
    asked = Namespace(overrides=[], max_seconds=0.0, seeds=[0, 1, 2], folder=tmp_path, jobs=1)
    half.accuracy(asked)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "4 of 6 cells are there, 2 pairs"
    assert said[3:5] == ["| 0 | 10.0 | 20.0 | 40.0 | 42.0 |", "| 1 | 10.0 | 20.0 | 50.0 | 54.0 |"]
    assert said[5].startswith("fp32: 45.00 [") and said[-1].startswith("half − fp32: 3.00 [")
    monkeypatch.setattr(half, "run_matrix", lambda cells, folder, running: Matrix({}, {"fp32-seed0": "the disk is full"}, []))
    with pytest.raises(SystemExit, match="^1 of 6 cells failed: .*the disk is full"):
        half.accuracy(asked)


def test_updates_are_those_that_are_written_out(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    matching = script("gradient_matching")
    for name, value in {"STEPS": 5, "OUTER": 2, "BATCH": 3, "NETWORK": "ConvNetD3-w4"}.items():
        monkeypatch.setattr(matching, name, value)
    draws = torch.Generator().manual_seed(0)
    images, labels = torch.randn(12, 3, 16, 16, generator=draws), torch.arange(3).repeat(4)
    found = matching.update_errors(images, labels, 3)
    assert found.keys() == {"dc", "dm"} and all(one["of_the_change"] < 1e-13 < one["change_of_x"] for one in found.values())
    monkeypatch.setattr(matching, "NO_AUGMENTATION", Dsa())
    with pytest.raises(AssertionError, match="^dc: .* apart"):
        matching.update_errors(images, labels, 3)


def test_every_variant_has_a_start_that_is_not_timed(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, asked = script("seeds"), Namespace(network="ConvNetD1-w4", size=8, ipc=1, epochs=7, seeds=3, device="cpu")
    for name in seeds.VARIANTS:
        trained: list[list[int]] = []
        monkeypatch.setitem(seeds.VARIANTS, name, lambda trials, made, test: trained.append([one.how.epochs for one in made]))  # noqa: B023
        seeds.run(name, asked)
        assert trained == [[2] * (3 if name == "vmap" else 1), [7, 7, 7]]


@pytest.mark.parametrize(
    ("variants", "lines"),
    [
        (["vmap"], []),
        (["plain"], []),
        (["limbeck"], ["5 seeds by Limbeck take 5.00 times one seed (limbeck)"]),
        (
            ["plain", "limbeck"],
            [
                "5 seeds by Limbeck take 2.50 times one seed (plain)",
                "5 seeds by Limbeck take 5.00 times one seed (limbeck)",
                "and 0.50 times 5 seeds of the plain loop",
            ],
        ),
    ],
)
def test_what_was_measured_of_seeds_is_kept(
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    variants: list[str],
    lines: list[str],
) -> None:
    seeds, output = script("seeds"), tmp_path / "seeds.json"
    monkeypatch.setattr(seeds, "in_process", lambda variant, count, words: count * (1.0 if variant == "limbeck" else 2.0))
    monkeypatch.setattr("sys.argv", ["seeds.py", "--variants", *variants, "--output", str(output)])
    seeds.main()
    (entry,) = json.loads(output.read_text())
    assert [row["variant"] for row in entry["rows"]] == [name for name in variants for _ in range(2)]
    assert [line for line in capsys.readouterr().out.splitlines() if "seed (" in line or "loop" in line] == lines


def test_the_plain_loop_saves_one_list(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    experts, saved = script("experts"), list[list[Any]]()
    settings = DataSettings(source="scenes:easy", size=16, per_class=12, val_fraction=0.25)
    data = load_data(settings)
    network = flat_network("ConvNetD1-w4", data.shape, data.num_classes)
    about = (data, fit_preprocessing(settings, data.train), network, ExpertSettings(batch_size=64), Dsa(), 0, torch.device("cpu"))
    monkeypatch.setattr(experts.torch, "save", lambda held, path: saved.append([len(one) for one in held]))
    experts.plain(Namespace(experts=3, epochs=1), ExpertTask(*about))
    assert saved == [[2, 2, 2]]


def test_a_plan_beside_its_distillation(
    script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, called = script("plan"), list[tuple[str, bool]]()

    def limbeck(*words: str, **env: str) -> dict[str, Any]:
        called.append((words[0], "TORCHINDUCTOR_CACHE_DIR" in env))
        assert all(not Path(place).exists() for place in env.values()), "code that was compiled before"
        if words[0] == "distill":
            return {"seconds": {"compile": 30.0, "distil": 20.0}, "peak_memory": {"distil": 2**20}}
        return {"seconds": 40.0, "peak_memory": 2**20, "parts": {}}

    monkeypatch.setattr(plan, "limbeck", limbeck)
    monkeypatch.setattr("sys.argv", ["plan.py", "--recipes", "scenes"])
    plan.main()
    assert "| `scenes` | 40.0 s | 50.0 s | 0.80 |" in capsys.readouterr().out
    assert called == [("experts", False), ("plan", False), ("distill", True)]
    monkeypatch.setattr("sys.argv", ["plan.py"])
    with pytest.raises(SystemExit):
        plan.main()
    assert "--cifar10 is missing, which cifar10/edf-ipc1 needs" in capsys.readouterr().err


def test_photographs_are_asked_for(script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    complexity = script("complexity")
    monkeypatch.setattr("sys.argv", ["complexity.py", "sides"])
    with pytest.raises(SystemExit):
        complexity.main()
    assert "--data is missing: sides needs a folder" in capsys.readouterr().err
