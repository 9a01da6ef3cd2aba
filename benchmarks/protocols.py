"""One distilled set under every protocol: how far figures move when nothing changes but the way of measuring.

    python benchmarks/protocols.py runs/scenes --output protocols-of-scenes.json

A finished protocol is kept in the output file and not measured again; a file of another set, of other settings or of another
version of a protocol is refused. Prints a table like that of `docs/evaluation.md`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from isa import add_isa, take_isa

from limbeck.accuracy import Accuracies, Accuracy, Comparison, percent
from limbeck.cli.evaluate import distilled_folder
from limbeck.distilled.contents import TENSORS
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.protocols import PROTOCOLS
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import checksum, write_json

KEPT = ("accuracy", "recovery_ratio", "gain", "protocol", "network", "data", "environment")


def measured(run: str, protocol: str, words: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "limbeck", "evaluate", run, "--protocol", protocol, "--no-record", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return {key: found["sets"][0][key] for key in KEPT} | {"seconds": found["seconds"]["evaluate"]}


def fingerprint(run: str) -> str:
    """The checksum of the set's tensors."""
    try:
        folder = distilled_folder(Path(run))
        DistilledSet.load(folder)
    except UsageError as error:
        sys.exit(str(error))
    return checksum(folder / TENSORS)


def differing(row: dict[str, Any], asked: dict[str, Any]) -> str:
    """In which way a kept row was measured otherwise than asked; rows of earlier versions do not say of which set they are."""
    found = {**row, "version": row["protocol"]["version"]}
    said = {"of": "of another set", "words": "with other settings", "version": "with another version of its protocol"}
    return " and ".join(said[key] for key, value in asked.items() if found.get(key) != value)


def text(found: Accuracy) -> str:
    return f"{found} [{found.interval}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder or a distilled set")
    parser.add_argument("words", nargs="*", help="key=value, for all protocols")
    parser.add_argument("--output", type=Path, required=True)
    add_isa(parser)
    arguments = parser.parse_args()
    take_isa(arguments.isa)
    held: dict[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    asked = {"of": fingerprint(arguments.run), "words": arguments.words}
    for name in held:
        if said := differing(held[name], asked | {"version": PROTOCOLS[name].version if name in PROTOCOLS else None}):
            sys.exit(f"--output: {name} of {arguments.output} was measured {said}; name another file")
    for name in PROTOCOLS:
        if name not in held:
            held[name] = measured(arguments.run, name, arguments.words) | asked
            write_json(arguments.output, held)
            print(f"{name}: {text(Accuracy.from_dict(held[name]['accuracy']['distilled']))}", file=sys.stderr, flush=True)
    print("| protocol | random | **distilled** | gain, 95 % interval | recovery | time |")
    print("|---|---|---|---|---|---|")
    for name, row in held.items():
        accuracy, gain = Accuracies.from_dict(row["accuracy"]), row["gain"]
        columns = [f"`{name}`", text(accuracy.random), f"**{text(accuracy.distilled)}**"]
        columns += ["–" if gain is None else Comparison.from_dict(gain).points, percent(row["recovery_ratio"])]
        print(f"| {' | '.join(columns)} | {row['seconds']:.0f} s |")


if __name__ == "__main__":
    main()
