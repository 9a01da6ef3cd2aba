"""The same bits in a fresh process, another folder, time zone and locale, and with `--deterministic` on any number of threads."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.matching.engine import Arrangement
from limbeck.runtime.determinism import ELSEWHERE, WORKSPACE, deterministic, repeating, statement
from limbeck.runtime.files import read_json
from limbeck.runtime.metrics import read_metrics

TINY = {
    "data.size": "16",
    "data.per_class": "12",
    "data.val_fraction": "0.25",
    "network": "ConvNetD2-w8",
    "ipc": "2",
    "experts.num_experts": "1",
    "experts.train_epochs": "2",
    "experts.batch_size": "32",
    "match.syn_steps": "3",
    "match.expert_epochs": "1",
    "match.drop_ratio": "0.25",
    "schedule.first_max_start_epoch": "1",
    "schedule.max_start_epoch": "2",
    "schedule.iterations": "4",
    "outer.iterations": "3",
    "engine.compile": "no",
    "eval.every": "3",
    "eval.every_seeds": "1",
    "eval.epochs": "2",
    "eval.seeds": "2",
    "features": "none",
    "eval.random_lr": "0.01",
    "eval.full_epochs": "1",
}
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT")


def started(folder: Path, *words: str, variables: dict[str, str] | None = None, **settings: str) -> "subprocess.Popen[str]":
    """A distillation in a process of its own, in `folder`, with a cache of its own."""
    folder.mkdir(parents=True)
    given = {**TINY, **{key.replace("__", "."): value for key, value in settings.items()}}
    command = [sys.executable, "-m", "limbeck", "distill", "scenes", "--output", "run", *words]
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    environment |= {"LIMBECK_CACHE": str(folder / "cache"), **(variables or {})}
    command += [f"{key}={value}" for key, value in given.items()]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def bits(folder: Path, process: "subprocess.Popen[str]") -> str:
    """All that the run left which does not tell the time, the place or what it was computed with."""
    said, _ = process.communicate()
    assert process.returncode == 0, said[-2000:]
    run, found = folder / "run", hashlib.sha256()
    for file in (run / "distilled" / "distilled.safetensors", *sorted((run / "snapshots").glob("*"))):
        found.update(file.name.encode() + file.read_bytes())
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(run / "metrics.jsonl")]
    results = read_json(run / "results.json")
    kept = {key: results.get(key) for key in ("accuracy", "recovery_ratio", "best_iteration", "predictions")}
    found.update(json.dumps([rows, kept], sort_keys=True).encode())
    for file in sorted((folder / "cache" / "experts").rglob("epochs-*.safetensors")):
        found.update(file.read_bytes())
    return found.hexdigest()


HERE = {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
THERE = {"PYTHONHASHSEED": "4242", "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "LANG": "tr_TR.UTF-8"}


def test_a_deterministic_run_is_the_same_elsewhere_and_on_any_number_of_threads(tmp_path: Path) -> None:
    """In a fresh process, another folder, time zone and locale, with other hashes, on one thread and on four."""
    places = {tmp_path / "here": ("1", HERE), tmp_path / "a" / "longer way" / "thére": ("4", THERE)}
    variables = {folder: {**threads(count), **place} for folder, (count, place) in places.items()}
    runs = {folder: started(folder, "--deterministic", variables=own) for folder, own in variables.items()}
    first, second = (bits(folder, process) for folder, process in runs.items())
    assert first == second
    for folder in places:
        held = read_json(folder / "run" / "distilled" / "metadata.json")["determinism"]
        assert held["asked"] and held["threads"] == 1 and "on another number of threads and cores" in held["same"]
        assert read_json(folder / "run" / "results.json")["environment"]["determinism"]["asked"]


@pytest.mark.slow
@pytest.mark.parametrize("count", ["1", "2"])
def test_by_default_a_run_is_the_same_elsewhere(tmp_path: Path, count: str) -> None:
    places = {tmp_path / "here": HERE, tmp_path / "a" / "longer way" / "thére": THERE}
    runs = {folder: started(folder, variables={**threads(count), **place}) for folder, place in places.items()}
    first, second = (bits(folder, process) for folder, process in runs.items())
    assert first == second
    held = read_json(tmp_path / "here" / "run" / "distilled" / "metadata.json")["determinism"]
    assert not held["asked"] and "on another number of threads and cores" in held["other"]


def threads(count: str) -> dict[str, str]:
    """Variables of a machine with so many."""
    return dict.fromkeys(VARIABLES[:3], count) | {"LOKY_MAX_CPU_COUNT": count}


CASES: dict[str, dict[str, str]] = {
    "whitened": {"data__zca": "true"},
    "pad": {"method": "pad"},
    "dm": {"method": "dm"},
    "dsa": {"method": "dsa"},
    "sre2l": {"method": "sre2l", "sre2l__iterations": "3"},
    "rded": {"method": "rded"},
    "herding": {"method": "herding"},
    "compiled": {"engine__compile": "yes", "ipc": "5"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_family_is_the_same_on_one_two_and_four_threads(tmp_path: Path, name: str) -> None:
    found = {}
    for count in ("1", "2", "4"):
        folder = tmp_path / count
        found[count] = bits(folder, started(folder, "--deterministic", variables=threads(count), **CASES[name]))
    assert len(set(found.values())) == 1, found


# --- the block and the statement ---------------------------------------------------------------------------------------------


def test_the_block_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(3)
    with pytest.raises(KeyError), repeating(True):
        assert deterministic() and torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
        assert os.environ[WORKSPACE] == ":4096:8"
        raise KeyError
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (3, before[1])
    with repeating(False):
        assert not deterministic() and torch.get_num_threads() == 3
    torch.set_num_threads(before[0])


def test_the_statement_says_what_was_and_what_was_not() -> None:
    plain = statement(torch.device("cpu"), Arrangement(False))
    assert not plain.asked and plain.same == (ELSEWHERE,) and "on another number of threads and cores" in plain.other
    with repeating(True):
        asked = statement(torch.device("cpu"), Arrangement(True, micro_batch=8, lanes=4))
    assert asked.asked and (asked.lanes, asked.micro_batch, asked.compiled) == (4, 8, True)
    assert "on another number of threads and cores" in asked.same and "where the compiler fails, or is another one" in asked.other
    held: dict[str, Any] = asked.to_dict()
    assert held["flags"]["use_deterministic_algorithms"] is True and held["torch"] == torch.__version__
    gpu = statement(torch.device("meta"))
    assert gpu.same == () and any("CUDA chooses" in one for one in gpu.other)
