"""The zoo: distilled sets with the figures of their cards, in `zoo/` (or where LIMBECK_ZOO says).

    python benchmarks/zoo.py add RUN_FOLDER NAME --licence "what may be done with the images" [key=value …]
    python benchmarks/zoo.py check [NAME …] [key=value …]

`add` puts the set of a finished run there, evaluates it by `limbeck evaluate zoo:NAME`, and writes the figure, the kind of
processor and the licence into its card. Settings are for that evaluation: `data.*` say where the images are here, others are part
of the command on the card. `check` evaluates again: on the same kind of processor every network must have the same accuracy to the
bit, elsewhere the mean must lie within the interval of the card. The status is 1 where a set does not have its figure.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from limbeck.accuracy import Accuracy
from limbeck.distilled.card import FIGURE, LICENCE, Figure
from limbeck.distilled.hub import public
from limbeck.distilled.set import DistilledSet
from limbeck.runtime import zoo
from limbeck.runtime.errors import UsageError, require

ROOT, COMMAND = Path(__file__).parents[1], ("limbeck", "evaluate")
OF_CPU = {"vendor": "vendor_id", "family": "cpu family", "model": "model", "name": "model name"}  # as /proc/cpuinfo has them


def processor() -> dict[str, str]:
    """What kind of processor this is: one of the same kind sums in the same order."""
    said = dict[str, str]()
    if (file := Path("/proc/cpuinfo")).exists():
        first = file.read_text(encoding="utf-8").partition("\n\n")[0]
        lines = dict(map(str.strip, line.split(":", 1)) for line in first.splitlines() if ":" in line)
        said = {name: lines[key] for name, key in OF_CPU.items() if key in lines}
    instructions = torch.backends.cpu.get_cpu_capability()
    return {
        **(said or {"name": platform.processor() or platform.machine()}),
        "instructions": instructions,
        "torch": str(torch.__version__),
    }


def evaluated(name: str, keys: list[str]) -> Accuracy:
    """What the command finds of a set of the zoo, in a process of its own."""
    words = [sys.executable, "-m", *COMMAND, f"{zoo.PREFIX}{name}", "--json", *keys]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env={**os.environ, zoo.PLACE: str(zoo.zoo())})
    if done.returncode:
        raise SystemExit(f"{name}: the evaluation has ended with status {done.returncode}")
    return Accuracy.from_dict(json.loads(done.stdout)["sets"][0]["accuracy"]["distilled"])


def add(run: Path, name: str, licence: str, keys: list[str]) -> Figure:
    """Put the set of a run into the zoo."""
    require(name.replace("-", "").replace(".", "").isalnum(), "NAME", name, "letters, digits, - and .")
    target = zoo.zoo() / name
    require(not target.exists(), "NAME", name, "a new name; remove its folder to measure a set anew")
    held = DistilledSet.load(run / "distilled" if (run / "distilled").is_dir() else run)
    said = {key: public(value) for key, value in held.metadata.items() if key != "evaluations"}
    held = replace(held, metadata={**said, LICENCE: licence})
    held.save(target)
    command = " ".join([*COMMAND, f"{zoo.PREFIX}{name}", *(key for key in keys if not key.startswith("data."))])
    try:
        figure = Figure(accuracy=evaluated(name, keys), command=command, processor=processor())
    except BaseException:
        shutil.rmtree(target)
        raise
    replace(held, metadata={**held.metadata, FIGURE: figure.to_dict()}).save(target)
    return figure


def verdict(known: Figure, found: Accuracy, here: dict[str, str]) -> tuple[bool, str]:
    """Whether a figure has been found again, and in which sense."""
    if known.processor == here:
        same = found.values == known.accuracy.values
        return same, "the same bits" if same else "OTHER BITS on the same kind of processor"
    low, high = known.accuracy.ci95 or (known.accuracy.mean, known.accuracy.mean)
    within = low <= found.mean <= high
    return within, f"{'within' if within else 'OUTSIDE'} the interval, on another kind of processor"


def check(names: list[str], keys: list[str]) -> bool:
    """Evaluate sets again, and say of each at once what came of it; whether all have their figures."""
    good = True
    for name in names or zoo.names():
        noted = DistilledSet.load(zoo.place("NAME", name)).metadata.get(FIGURE)
        require(noted is not None, "NAME", name, "a set with a figure; `add` writes it")
        known = Figure.from_dict(noted)
        found = evaluated(name, [*known.command.split()[len(COMMAND) + 1 :], *keys])
        fine, said = verdict(known, found, processor())
        print(f"{name}: {known.accuracy} ({known.accuracy.interval}) on its card, now {found}: {said}", flush=True)
        good = good and fine
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("add", "check"))
    parser.add_argument("words", metavar="WORD", nargs="*", help="as above")
    parser.add_argument("--licence", help="of the images, for the card")
    given = parser.parse_intermixed_args()
    keys = [word for word in given.words if "=" in word]
    words = [word for word in given.words if word not in keys]
    if given.action == "add" and (len(words) != 2 or given.licence is None):
        parser.error("add takes RUN_FOLDER NAME --licence TEXT")
    if zoo.PLACE not in os.environ:
        (ROOT / "zoo").mkdir(exist_ok=True)
    try:
        if given.action == "check":
            return 0 if check(words, keys) else 1
        figure = add(Path(words[0]), words[1], given.licence, keys)
    except UsageError as error:
        print(f"zoo: {error}", file=sys.stderr)
        return 2
    print(f"{words[1]}: {figure.accuracy} ({figure.accuracy.interval})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
