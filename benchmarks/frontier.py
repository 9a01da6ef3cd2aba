"""EDF, DATM, NCFM and DM with one and with four images a slot, at equal bytes and equal CPU seconds, under two protocols.

    python benchmarks/frontier.py scenes-medium --ipc 1 --seeds 3
    python benchmarks/frontier.py cifar10 imagenette --show

Step sizes are those of the recipes, but DM's, which is the number of images per class: a third of the recipe's for scenes at one.
They are divided by factor² where a slot is enlarged and the step is SGD's, since that is what a number of it gathers. Cells are
kept in `benchmarks/results/frontier/`, and the same command goes on; `equal_cpu.py` says how.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from equal_cpu import DATA, EXPERTS, common, compare, laid, trajectory

KEPT = Path("benchmarks/results/frontier")  # where the command is given: the root of the repository
METHODS = ("edf", "datm", "ncfm", "dm")
FACTORS = (1, 2)
SECONDS = {1: 45, 5: 90, 10: 90}  # of CPU for the outer loop, by images per class
PROTOCOLS = ("dd", "ncfm-2025")
EPOCHS = 300  # of both protocols; NCFM's has 2000 where it is published
ALIKE = {"datm": "edf", "datm-x4": "edf-x4"}
PAIRS = "edf:datm,ncfm:dm,edf:ncfm,edf-x4:edf,datm-x4:datm,ncfm-x4:ncfm,dm-x4:dm,edf-x4:ncfm-x4,edf-x4:datm-x4"


def entrant(method: str, factor: int) -> str:
    """Its name in tables."""
    return method if factor == 1 else f"{method}-x{factor**2}"


def recipe(data: str, method: str, factor: int, ipc: int, iterations: int) -> dict[str, Any]:
    """Its settings."""
    own: dict[str, Any]
    if method in ("edf", "datm"):
        own = trajectory(data, ipc, iterations)
        own["outer"]["lr_img"] /= factor**2
        if method == "edf":
            own = laid(own, {"match": {"drop_ratio": 0.25 if ipc > 1 else 0}, "enhance": {"cam_every": 50}})
    elif method == "ncfm":
        own = {"experts": EXPERTS[data], "real": {"batch": 64}, "ncfm": {"frequencies": 512}, "outer": {"lr_img": 0.01}}
    else:  # the gradient of a mean over n images is 1/n of an image's own
        own = {"real": {"batch": 64}, "outer": {"lr_img": ipc / factor**2}}
    enlarged = {"parametrisation": {"kind": "multi", "factor": factor}} if factor > 1 else {}
    return laid(common(data, ipc, iterations, EPOCHS, 2), own, enlarged, {"method": method, "outer": {"iterations": iterations}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", choices=DATA, help="which images")
    parser.add_argument("--ipc", type=int, nargs="+", help="images per class (default: 1 and 10; 1 and 5 of imagenette)")
    parser.add_argument("--seeds", type=int, default=3, help="distillation seeds")
    parser.add_argument("--show", action="store_true", help="run nothing; show what is finished")
    given = parser.parse_args()
    for data in given.data:
        for ipc in given.ipc or (1, 5 if data == "imagenette" else 10):
            entrants = {entrant(m, factor): partial(recipe, data, m, factor, ipc) for m in METHODS for factor in FACTORS}
            compare(entrants, KEPT / f"{data}-ipc{ipc}", SECONDS[ipc], given.seeds, PROTOCOLS, PAIRS, ALIKE, given.show)


if __name__ == "__main__":
    main()
