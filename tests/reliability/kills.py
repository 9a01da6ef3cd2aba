"""Commands that are killed at random moments and started again, until they end: what they leave is, bit for bit, what one leaves
that nobody stopped, and nothing half written stays.

    nice python tests/reliability/kills.py --kills 100 --seed 1       # of all stages together; goes on where it was stopped
    nice python tests/reliability/kills.py --stages evaluate --seed 3 --output runs/kills.json

The figures go to `benchmarks/results/kills.json`, or to `--output`, which also says how far each stage has come with its seed.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from reliability.commands import Commands, commands, parts

KEPT = Path(__file__).parents[2] / "benchmarks" / "results" / "kills.json"
MOST_IN_A_ROW = 4  # kills before a run is let go on to its end
# What differs between two runs of the same bits: times, memory, places.
VOLATILE = {"seconds", "cpu_seconds", "peak_memory", "environment", "paths", "date", "time", "versions", "stages", "output"}
TINY = {
    "data.size": "16",
    "data.per_class": "12",
    "data.val_fraction": "0.25",
    "network": "ConvNetD2-w8",
    "experts.num_experts": "2",
    "experts.train_epochs": "10",
    "experts.momentum": "0.9",
    "experts.batch_size": "32",
    "match.syn_steps": "3",
    "match.expert_epochs": "1",
    "schedule.first_max_start_epoch": "1",
    "schedule.max_start_epoch": "3",
    "enhance.cam_every": "3",
    "outer.iterations": "30",
    "outer.checkpoint_every": "7",
    "outer.ema_decay": "0.9",
    "engine.compile": "no",
    "eval.every": "10",
    "eval.every_seeds": "1",
    "eval.epochs": "8",
    "eval.seeds": "2",
    "eval.full_epochs": "3",
    "eval.random_lr": "0.01",
}


def words(**changes: str) -> list[str]:
    return [f"{key}={value}" for key, value in (TINY | {key.replace("__", "."): value for key, value in changes.items()}).items()]


@dataclass(frozen=True)
class Stage:
    """A command to kill.

    Args:
        words: behind `limbeck`, for an output folder.
        again: what is added when it goes on.
        prepare: what it needs: words of commands that are not killed, for the same folder.
        workers: whether its trainings are spread over processes.
    """

    words: Callable[[Path], list[str]]
    again: tuple[str, ...] = ()
    prepare: Callable[[Path], list[list[str]]] = lambda output: []
    workers: bool = False


def _distilled(output: Path, **changes: str) -> list[str]:
    return ["distill", "scenes", "--output", str(output / "run"), *words(**changes)]


STAGES = {
    "distill": Stage(lambda output: _distilled(output, match__drop_ratio="0.25"), ("--resume",)),
    "distill in workers": Stage(lambda output: _distilled(output, method="mtt", eval__epochs="40"), ("--resume",), workers=True),
    "distill sre2l": Stage(
        lambda output: _distilled(output, method="sre2l", sre2l__iterations="40", outer__checkpoint_every="5"), ("--resume",)
    ),
    "experts": Stage(
        lambda output: [
            *("experts", "scenes", f"experts.store={output / 'store'}"),
            *words(experts__num_experts="6", experts__train_epochs="30"),
        ],
        workers=True,
    ),
    "evaluate": Stage(
        lambda output: ["evaluate", str(output / "run"), "--seeds", "3", "--json"],
        prepare=lambda output: [_distilled(output, method="random")],
    ),
    "compare": Stage(
        lambda output: [
            *("compare", "--methods", "dm,random", "--base", "scenes", "--seeds", "0,1", "--output", str(output / "compare")),
            *words(),
        ],
    ),
    "complexity": Stage(
        lambda output: [
            *("complexity", "scenes:easy", "--network", "ConvNetD2-w8", "--output", str(output / "complexity"), "--workers", "1"),
            *words_of_data(),
        ],
    ),
}


def words_of_data() -> list[str]:
    return [f"{key}={value}" for key, value in TINY.items() if key.startswith(("data.", "eval.full_"))]


def found(output: Path) -> dict[str, str]:
    """What a command has left, by file: a hash of all that does not differ between two runs of the same bits."""
    held = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if not path.is_file() or path.suffix in (".lock", ".html", ".log", ".png") or ".lock.d" in name:
            continue
        held[name] = hashlib.sha256(_content(path)).hexdigest()[:16]
    return held


def _content(path: Path) -> bytes:
    if path.suffix == ".json":
        return _stable(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return b"\n".join(_stable(json.loads(line)) for line in path.read_text().splitlines())
    if path.suffix == ".csv":
        return json.dumps(list(csv.reader(path.read_text().splitlines()))).encode()
    if path.suffix == ".md":
        return b""  # the same figures for people, with times
    if path.suffix == ".safetensors":
        return _tensors(path)
    return path.read_bytes()


def _tensors(path: Path) -> bytes:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        names = sorted(file.keys())
        return b"".join(name.encode() + file.get_tensor(name).tobytes() for name in names)


def _stable(value: Any) -> bytes:
    def cut(item: Any) -> Any:
        if isinstance(item, Mapping):
            # Checksums of files are of what their times are, too.
            left = {key: cut(one) for key, one in item.items() if key not in VOLATILE | {"checksum", "check", "of"}}
            return {key: one for key, one in left.items() if not str(one).startswith("/")}
        return [cut(one) for one in item] if isinstance(item, list) else item

    return json.dumps(cut(value), sort_keys=True).encode()


@dataclass
class Outcome:
    """What has come of a stage.

    Args:
        kills: that met a run at work.
        runs: that were killed, some of them several times, and went on to their end.
        equal: of these, how many left the same bits.
        clean: of these, after how many nothing half written was left.
        differing: files that were others.
        left: what was left.
    """

    kills: int = 0
    runs: int = 0
    equal: int = 0
    clean: int = 0
    differing: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Killing:
    """Kills one stage.

    Args:
        name: of the stage.
        root: a folder of its own.
        started: what starts commands.
    """

    def __init__(self, name: str, root: Path, started: Commands) -> None:
        self.stage, self.root, self.commands = STAGES[name], root, started
        self.whole = 0.0
        self.expected = self._reference()

    def _begin(self, number: str) -> tuple[Path, Path]:
        place, cache = self.root / number / "output", self.root / number / "cache"
        place.mkdir(parents=True)
        for one in self.stage.prepare(place):
            self.commands.run(one, cache)
        return place, cache

    def _reference(self) -> dict[str, str]:
        place, cache = self._begin("whole")
        began = time.monotonic()
        self.commands.run(self.stage.words(place), cache, workers=self.stage.workers)
        self.whole = time.monotonic() - began
        return found(place)

    def once(self, number: int, draws: random.Random, outcome: Outcome) -> None:
        """A run that is killed a few times and goes on, and what it has left."""
        place, cache = self._begin(str(number))
        killed, again = 0, ()
        for _ in range(draws.randint(1, MOST_IN_A_ROW)):
            command = self.commands.start([*self.stage.words(place), *again], cache, workers=self.stage.workers)
            again = self.stage.again
            time.sleep(draws.random() * 0.9 * self.whole)
            group = draws.random() < 0.5  # a queue kills all of a job, the kernel's lack of memory one process
            command.send(signal.SIGKILL, group)
            status = command.wait()
            if status == 0:
                break
            assert status == -signal.SIGKILL, command.said
            killed += 1
        self.commands.run([*self.stage.words(place), *again], cache, workers=self.stage.workers)
        if killed:
            outcome.kills += killed
            outcome.runs += 1
            now = found(place)
            other = sorted(name for name in now.keys() | self.expected.keys() if now.get(name) != self.expected.get(name))
            outcome.equal += not other
            left = [*parts(place, cache), *self.commands.left()]
            outcome.clean += not left
            outcome.differing, outcome.left = (*outcome.differing, *other), (*outcome.left, *left)
        shutil.rmtree(self.root / str(number))


def run(name: str, kills: int, seed: int, folder: Path, outcome: Outcome, after: Callable[[], None] = lambda: None) -> Outcome:
    """Kill a stage until so many kills have met it at work.

    Args:
        name: of the stage.
        kills: how many.
        seed: of the moments; every run has its own draws, so that it can go on with the next one.
        folder: for what it writes.
        outcome: so far.
        after: called after every run.
    """
    with commands(folder / "commands") as started:
        killing, number = Killing(name, folder, started), outcome.runs
        while outcome.kills < kills:
            killing.once(number, random.Random(f"{seed} {name} {number}"), outcome)
            number += 1
            after()
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100, help="of all stages together")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=KEPT, help="where the figures are kept")
    given = parser.parse_args()
    names = given.stages.split(",")
    held = json.loads(given.output.read_text()) if given.output.exists() else {"seed": given.seed, "stages": {}}
    if held["seed"] != given.seed:
        parser.error(
            f"--seed: {given.seed} is not {held['seed']}, with which {given.output} was begun; name another file by --output"
        )
    outcomes = {name: Outcome(**held["stages"].get(name, {})) for name in STAGES}

    def keep() -> None:
        held["stages"] = {name: vars(one) for name, one in outcomes.items()}
        for key in ("kills", "runs", "equal", "clean"):
            held[key] = sum(getattr(one, key) for one in outcomes.values())
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(held, indent=1) + "\n")
        print({key: held[key] for key in ("kills", "runs", "equal", "clean")}, flush=True)

    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            run(name, -(-given.kills // len(names)), given.seed, Path(folder), outcomes[name], keep)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
