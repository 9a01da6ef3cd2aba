"""Folders that a page is made of, tiny: a run with all that it keeps, a comparison, a benchmark."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from distilled.samples import summary
from report.fake_run import make_run
from report.kept_files import a_card, a_map

from limbeck.report.write import write_report

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results"
OF_RUN = ("run/*.json", "run/*.jsonl", "run/*.safetensors", "run/snapshots/*", "run/distilled/*.json")
OF_STUDY = ("study/*.json", "study/cells/*")
EVALUATION = {
    "accuracy": {"distilled": summary(0.4), "random": summary(0.2), "full": {**summary(0.8), "lr": 0.01, "lr_from": "given"}},
    "recovery_ratio": 0.5,
    "doubts": [{"kind": "chance", "text": "no measure"}],
    "protocol": {"name": "dd", "version": 1, "epochs": 5},
    "network": "ConvNetD2-w8",
    "networks": {"MLP": {"accuracy": {"distilled": summary(0.3)}}},
    "environment": {"limbeck": "0.1.0"},
}


def run_folder(folder: Path) -> None:
    run = make_run(folder / "run", iterations=20, every=10, shape=(3, 8, 8))
    results = run / "results.json"
    held = {key: value for key, value in json.loads(results.read_text()).items() if key not in ("limbeck", "checksum")}
    results.write_text(json.dumps({**held, **EVALUATION, "paths": {"distilled": "x"}}))
    a_card(("ant", "bee", "newt"), (3, 2, 4), [0, 1, 2]).write(run, "run")
    a_map(iterations=(0, 10, 20), best=10, classes=3).write(run, "run")


def study(name: str) -> Callable[[Path], None]:
    """What makes the folder of a grid, that of some cells of a measured one."""

    def make(folder: Path) -> None:
        (folder / "study" / "cells").mkdir(parents=True)
        for file in (*sorted((MEASURED / name).glob("*.json")), *sorted((MEASURED / name / "cells").glob("*.json"))[:4]):
            shutil.copy(file, folder / "study" / file.relative_to(MEASURED / name))

    return make


def page_of(name: str) -> Callable[[Path], str]:
    """What reads all that a page shows."""
    return lambda folder: write_report(folder / name, output=folder / "page.html").name
