"""One distilled set under every protocol: how far figures move when nothing changes but the way of measuring.

    python benchmarks/protocols.py runs/scenes --output benchmarks/results/protocols.json

A finished protocol is kept in the output file and not measured again. Prints the table of `docs/evaluation.md`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from isa import add_isa, take_isa

from limbeck.evaluation.protocols import PROTOCOLS
from limbeck.runtime.files import write_json

KEPT = ("accuracy", "recovery_ratio", "gain", "protocol", "network", "data", "environment")


def measured(run: str, protocol: str, words: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "limbeck", "evaluate", run, "--protocol", protocol, "--no-record", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.splitlines()[-1]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return {key: result[key] for key in KEPT} | {"seconds": result["seconds"]["evaluate"]}


def cell(summary: dict[str, Any]) -> str:
    low, high = summary["ci95"]
    return f"{100 * summary['mean']:.1f} ± {100 * summary['std']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder or a distilled set")
    parser.add_argument("words", nargs="*", help="key=value, for all protocols")
    parser.add_argument("--output", type=Path, required=True)
    add_isa(parser)
    arguments = parser.parse_args()
    take_isa(arguments.isa)
    held: dict[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name in PROTOCOLS:
        if name not in held:
            held[name] = measured(arguments.run, name, arguments.words)
            write_json(arguments.output, held)
            print(f"{name}: {cell(held[name]['accuracy']['distilled'])}", file=sys.stderr, flush=True)
    print("| protocol | random | **distilled** | gain, 95 % interval | recovery | time |")
    print("|---|---|---|---|---|---|")
    for name, row in held.items():
        low, high = row["gain"]["ci95"]
        gain = f"{100 * row['gain']['mean']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        columns = [f"`{name}`", cell(row["accuracy"]["random"]), f"**{cell(row['accuracy']['distilled'])}**", gain]
        columns += [f"{100 * row['recovery_ratio']:.0f} %", f"{row['seconds']:.0f} s"]
        print(f"| {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
