"""What could be added to EDF, each alone and then together, at equal bytes and equal CPU seconds.

    python benchmarks/edf_plus.py scenes-hard --seeds 3
    python benchmarks/edf_plus.py scenes-hard cifar10 --only edf,edf-x4 --seeds 5
    python benchmarks/edf_plus.py cifar10 --show

Three images per class (`--ipc`). Every candidate is EDF with one thing changed, and gets the CPU seconds of one core that EDF
gets; `datm` is there as a baseline. Cells are kept in `benchmarks/results/edf-plus/`, and the same command goes on;
`equal_cpu.py` says how.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from equal_cpu import DATA, common, compare, laid, trajectory

KEPT = Path("benchmarks/results/edf-plus")  # where the command is given: the root of the repository
SECONDS = 120  # of CPU for the outer loop
EPOCHS = 200
# What is changed, from EDF's settings: a candidate each.
CANDIDATES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "edf": lambda edf: {},
    "datm": lambda edf: {"method": "datm"},
    # As many images a step as EDF has, of four times as many. A number of a slot gathers the gradients of four pixels, and every
    # image is in a quarter of the steps: the same step size.
    "edf-x4": lambda edf: {"parametrisation": {"kind": "multi", "factor": 2}, "match": {"batch_syn": 10 * edf["ipc"]}},
    "edf-dct": lambda edf: {"parametrisation": {"kind": "dct", "factor": 2}},
    "edf-adamw": lambda edf: {"outer": {"img_optimiser": "adamw", "lr_img": 0.03}},
    "edf-average": lambda edf: {"outer": {"ema_decay": 0.95}},
    "edf-long": lambda edf: {"match": {"syn_steps": 2 * edf["match"]["syn_steps"]}},
    "edf-short": lambda edf: {"match": {"syn_steps": edf["match"]["syn_steps"] // 2}},
    "edf-step-2": lambda edf: {"outer": {"lr_img": edf["outer"]["lr_img"] * 2}},
    "edf-step-half": lambda edf: {"outer": {"lr_img": edf["outer"]["lr_img"] / 2}},
    "edf-norm": lambda edf: {"match": {"match_norm": True}},
    "edf-cosine": lambda edf: {"match": {"distance": "cosine"}},
    "edf-centres": lambda edf: {"init": "centre"},
    "edf-momentum": lambda edf: {"outer": {"img_momentum": 0.9, "lr_img": edf["outer"]["lr_img"] / 5}},
}
COSTLY = ("edf-x4", "edf-dct", "edf-long", "edf-short")  # whose iterations take another time than EDF's


def settings(data: str, ipc: int, iterations: int) -> dict[str, Any]:
    """EDF's."""
    own = laid(trajectory(data, ipc, iterations), {"match": {"drop_ratio": 0.25 if ipc > 1 else 0}, "enhance": {"cam_every": 50}})
    # Random images decide nothing here: their step size is not looked for.
    rest = {"method": "edf", "outer": {"iterations": iterations}, "eval": {"random_lr": 0.01}}
    return laid(common(data, ipc, iterations, EPOCHS, 3), own, rest)


def changed(data: str, ipc: int, name: str, iterations: int) -> dict[str, Any]:
    """A candidate's: what `+` joins, one over the other."""
    edf = settings(data, ipc, iterations)
    found = laid(edf, *(CANDIDATES[part](edf) for part in name.split("+")))
    if found["method"] == "datm":  # which reads neither
        del found["enhance"], found["match"]["drop_ratio"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", choices=DATA, help="which images")
    parser.add_argument(
        "--only", default=",".join(CANDIDATES), help="candidates, EDF the first; several things at once as edf-x4+edf-norm"
    )
    parser.add_argument("--ipc", type=int, default=3, help="images per class")
    parser.add_argument("--seeds", type=int, default=3, help="distillation seeds")
    parser.add_argument("--show", action="store_true", help="run nothing; show what is finished")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := {part for name in names for part in name.split("+")} - CANDIDATES.keys():
        parser.error(f"--only: {', '.join(sorted(unknown))} is not among {', '.join(CANDIDATES)}")
    parts = {name: [part for part in name.split("+") if part in COSTLY] for name in names}
    alike = {name: "+".join(costly) or "edf" for name, costly in parts.items()}
    pairs = ",".join(f"{name}:edf" for name in names if name != "edf")
    for data in given.data:
        entrants = {name: partial(changed, data, given.ipc, name) for name in names}
        compare(entrants, KEPT / f"{data}-ipc{given.ipc}", SECONDS, given.seeds, ("dd",), pairs, alike, given.show)


if __name__ == "__main__":
    main()
