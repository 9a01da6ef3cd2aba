"""All coresets with hard labels on the medium built-in scenes, under `dd`: benchmarks/results/coresets-scenes-medium.json.

    python benchmarks/coresets.py [--ipc 1,10] [--seeds 0,1,2] [--folder runs/coresets] [--show]

The cells are kept in the folder: the same command goes on with those that are missing. What is finished is written after
each number of images per class, and by `--show` at once. Random images are the first row, with which all others are compared.
"""

import argparse
from pathlib import Path

import limbeck
from limbeck import methods
from limbeck.report.of_grids import read_cells
from limbeck.runtime.files import write_json
from limbeck.studies.table import tabulate

RESULT = Path(__file__).parent / "results" / "coresets-scenes-medium.json"
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ipc", default="1,10")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--folder", type=Path, default=Path("runs/coresets"))
    parser.add_argument("--show", action="store_true")
    words = parser.parse_args()
    seeds, done = [int(seed) for seed in words.seeds.split(",")], []
    for ipc in map(int, words.ipc.split(",")):
        place = words.folder / f"ipc{ipc}"
        if not words.show:
            print(limbeck.compare(CORESETS, "scenes:medium", ipc=ipc, seeds=seeds, settings=SETTINGS, output=place))
        cells, _ = read_cells(place)
        cells = dict(sorted(cells.items(), key=lambda one: list(CORESETS).index(one[1].facts["method"])))
        found = {name: {key: record.to_dict()[key] for key in ("facts", "accuracy", "seconds")} for name, record in cells.items()}
        done.append({"ipc": ipc, "tables": [section.to_dict() for section in tabulate(list(cells.values()))], "cells": found})
        write_json(RESULT, {"settings": SETTINGS, "seeds": seeds, "comparisons": done})


if __name__ == "__main__":
    main()
