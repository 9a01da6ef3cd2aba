"""All coresets with hard labels on the medium built-in scenes, under `dd`: benchmarks/results/coresets-scenes-medium.json.

    python benchmarks/coresets.py [--ipc 1,10] [--seeds 0,1,2] [--show]

The cells are kept in benchmarks/results/coresets: the same command goes on with those that are missing. What is finished is
written after each number of images per class, and by `--show` at once; what is there of others, and of cells that are not in the
folder, stays. Random images are the first row, with which all others are compared.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import limbeck
from limbeck import methods
from limbeck.report.of_grids import read_cells
from limbeck.runtime.files import write_json
from limbeck.studies.cells import CellRecord
from limbeck.studies.table import tabulate

CELLS = Path(__file__).parent / "results" / "coresets"
RESULT = CELLS.with_name("coresets-scenes-medium.json")
CORESETS = {
    "random": methods.random(),
    "herding": methods.herding(),
    "k-center": methods.k_center(),
    "k-means": methods.k_means(),
    "moderate": methods.moderate(),
    "el2n": methods.el2n(),
    "el2n, easiest": methods.el2n(keep="easiest"),
    "forgetting": methods.forgetting(),
    "forgetting, easiest": methods.forgetting(keep="easiest"),
    "ccs": methods.ccs(),
    "rded-hard": methods.rded_hard(),
}
# Those of the recipes scenes/*.
SETTINGS = {
    "network": "ConvNetD3-w16",
    "augment.strategy": "crop_scale",
    "augment.flip": False,
    "eval.seeds": 3,
    "eval.epochs": 300,
    "eval.full_epochs": 60,
    "eval.full_lr": 0.1,
    "features": "none",
}


def section(ipc: int, held: dict[str, Any], place: Path) -> dict[str, Any] | None:
    """What is finished of that many images per class: the cells of the results, or in their place those of the folder."""
    own = {"network": SETTINGS["network"]}
    rows = {name: CellRecord.from_dict({**own, **row}) for name, row in held.items()} | read_cells(place)[0]
    cells = dict(sorted(rows.items(), key=lambda one: (list(CORESETS).index(one[1].facts["method"]), one[1].facts["seed"])))
    if not cells:
        return None
    found = {name: {key: record.to_dict()[key] for key in ("facts", "accuracy", "seconds")} for name, record in cells.items()}
    return {"ipc": ipc, "tables": [one.to_dict() for one in tabulate(list(cells.values()))], "cells": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ipc", default="1,10")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--folder", type=Path, default=CELLS)
    parser.add_argument("--show", action="store_true", help="run nothing; write what is finished")
    words = parser.parse_args()
    seeds = [int(seed) for seed in words.seeds.split(",")]
    held: dict[str, Any] = {"settings": SETTINGS, "seeds": [], "comparisons": []}
    if RESULT.exists():
        held = json.loads(RESULT.read_text())
    if held["settings"] != SETTINGS:
        sys.exit(f"{RESULT} was measured with other settings; move it away, and the cells beside it")
    done = {one["ipc"]: one for one in held["comparisons"]}
    for ipc in map(int, words.ipc.split(",")):
        place = words.folder / f"ipc{ipc}"
        if not words.show:
            print(limbeck.compare(CORESETS, "scenes:medium", ipc=ipc, seeds=seeds, settings=SETTINGS, output=place))
        if (found := section(ipc, done.get(ipc, {}).get("cells", {}), place)) is None:
            print(f"{place}: holds no finished cell")
            continue
        done[ipc] = found
        held["seeds"] = sorted({*held["seeds"], *seeds})
        write_json(RESULT, {**held, "comparisons": [done[one] for one in sorted(done)]})


if __name__ == "__main__":
    main()
