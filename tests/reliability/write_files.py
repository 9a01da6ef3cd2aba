"""Every kind of file that is read back, as small as it can be, written by whichever version of Limbeck is imported.

    python tests/reliability/write_files.py tests/reliability/written/VERSION

`test_compatibility.py` reads what earlier versions have written so. A version whose files change in form adds a folder, and none is
ever written again: what is in there is what people have on their disks.
"""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from limbeck.cli.main import main
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill
from limbeck.runtime.progress import NoProgress, NoStage, Stage

SETTINGS = {
    "data.source": "scenes:easy",
    "data.size": "16",
    "data.per_class": "4",
    "data.val_fraction": "0.25",
    "network": "ConvNetD2-w4",
    "experts.num_experts": "1",
    "experts.train_epochs": "2",
    "experts.batch_size": "16",
    "match.syn_steps": "2",
    "match.expert_epochs": "1",
    "match.batch_syn": "5",
    "schedule.first_max_start_epoch": "1",
    "schedule.max_start_epoch": "1",
    "schedule.iterations": "2",
    "enhance.cam_every": "2",
    "outer.iterations": "6",
    "outer.checkpoint_every": "2",
    "engine.compile": "no",
    "eval.every": "3",
    "eval.every_seeds": "1",
    "eval.epochs": "3",
    "eval.seeds": "2",
    "eval.full_epochs": "2",
}
EDF = {"match.drop_ratio": "0.25", "experts.store": "experts"}
SRE2L = {"method": "sre2l", "sre2l.iterations": "4", "outer.checkpoint_every": "1"}
VIEWS = {"method": "random", "eval.protocol": "kd", "eval.epochs": "2", "view_labels.store": "true"}


def words(settings: dict[str, str]) -> list[str]:
    """As a command line has them."""
    return [f"{key}={value}" for key, value in settings.items()]


def command(*given: str) -> None:
    """Run a command, which has to succeed."""
    with redirect_stdout(io.StringIO()):
        status = main([*given, "--json"])
    if status:
        raise RuntimeError(f"limbeck {' '.join(given)} ended with {status}")


class Stops(NoProgress):
    """Interrupts a stage."""

    def __init__(self, name: str, at: int) -> None:
        self.name, self.left = name, at

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator["Stage"]:
        yield self if name == self.name else NoStage()  # type: ignore[misc]

    def advance(self, steps: int = 1, **facts: Any) -> None:
        """Count down."""
        self.left -= steps
        if self.left == 0:
            raise KeyboardInterrupt


def stopped(path: str, settings: dict[str, str], stage: str, at: int) -> None:
    """A run that was interrupted in a stage."""
    try:
        distill(load_recipe("scenes", {**SETTINGS, **settings}), Path(path), progress=Stops(stage, at))
    except KeyboardInterrupt:
        return
    raise RuntimeError(f"{path} was not stopped")


def pictures(folder: Path) -> None:
    """Twelve images of two classes."""
    draws = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")
            os.utime(folder / name / f"{number}.png", ns=(0, 0))


def write() -> None:
    """All of them, in the working directory."""
    stopped("stopped", EDF, "distil", 5)
    stopped("recovery", SRE2L, "sre2l", 3)
    command("distill", "scenes", "--output", "finished", *words({**SETTINGS, **EDF, "outer.iterations": "2"}))
    command("distill", "scenes", "--output", "views", *words({**SETTINGS, **VIEWS}))
    small = {**SETTINGS, "outer.iterations": "2"}
    command("compare", "--methods", "dm,random", "--base", "scenes", "--seeds", "0,1", "--output", "compare", *words(small))
    pictures(Path("pictures"))
    load_data(DataSettings(source="pictures", size=(8, 8)), NoProgress())


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    target.mkdir(parents=True)
    os.environ["LIMBECK_CACHE"] = str(target / "cache")
    os.chdir(target)
    write()
    print(json.dumps(sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()), indent=1))
