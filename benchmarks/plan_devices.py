"""What `limbeck plan --devices` predicts of an iteration, beside what 1, 2 and 4 processes of this machine then take (gloo).

    python benchmarks/plan_devices.py --output benchmarks/results/plan-devices.json [key=value …]

Each process has one thread. What is between them is measured first, by sums of two sizes over two processes, and told to the plan;
so are the cores: more processes than cores take turns. Whoever measures lets nothing else run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.runs.scaling import Link, Scaling, seconds_of_sum
from limbeck.runtime.files import write_json
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.records import Record

SMALL, LARGE, REPEATS = 1, 4_000_000, 30  # numbers in a sum, and how often it is made
PROBLEM = {
    "data.size": "32",
    "network": "ConvNetD3-w64",
    "ipc": "10",
    "experts.num_experts": "2",
    "experts.train_epochs": "6",
    "match.syn_steps": "10",
    "match.batch_syn": "64",
    "schedule.first_max_start_epoch": "2",
    "schedule.max_start_epoch": "4",
    "outer.iterations": "30",
    "engine.compile": "no",
    "enhance.cam_every": "1000",
    "eval.every": "1000",
    "eval.epochs": "1",
    "eval.full_epochs": "1",
    "eval.seeds": "2",
    "eval.random_lr": "0.01",
    "features": "none",
}


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    """An iteration of so many processes, in seconds: predicted, the median of those made, and the speed-ups of both."""

    devices: int
    predicted: float
    measured: float
    ratio: float
    predicted_speed_up: float
    measured_speed_up: float
    sent: int


def fitted(devices: int, small: float, large: float) -> Link:
    """The link over which a sum of `SMALL` and one of `LARGE` numbers take that long."""
    latency = small / (2 * (devices - 1))
    rest = max(large - small, 1e-9)
    return Link("measured", 2 * (devices - 1) * 4 * (LARGE - SMALL) / devices / rest, latency)


def probe() -> None:
    """In every process: time sums of both sizes; the first one says how long they took."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = []
    for count in (SMALL, LARGE):
        buffer, taken = torch.zeros(count), []
        for _ in range(REPEATS):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(buffer)
            taken.append(time.perf_counter() - began)
        found.append(statistics.median(taken))
    if dist.get_rank() == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def started(words: list[str], devices: int = 1) -> Any:
    """What that many processes of a command print as JSON."""
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)] if devices > 1 else []
    command = [sys.executable, *together, *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout[done.stdout.index("[" if "--probe" in words else "{") :])


def limbeck(words: list[str], devices: int = 1) -> Any:
    """A command of ours, in that many processes."""
    return started(["-m", "limbeck", *words, "--json"], devices)


def seconds_of(recipe: str, words: list[str], devices: int) -> float:
    """The median of the iterations of a run, but for the first."""
    with tempfile.TemporaryDirectory() as scratch:
        limbeck(["distill", recipe, "--output", str(Path(scratch) / "run"), *words], devices)
        rows = read_metrics(Path(scratch) / "run" / "metrics.jsonl")
    seconds = [float(row["seconds"]) for row in rows if row["kind"] == "iteration"]
    return statistics.median(seconds[1:])


def main() -> None:
    """Measure, print a line for every number of processes, and keep them."""
    parser = argparse.ArgumentParser(description="limbeck plan --devices against what processes of this machine then take")
    parser.add_argument("--recipe", default="scenes")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    if arguments.probe:
        probe()
        return
    own = dict(word.split("=", 1) for word in arguments.overrides)
    words = [f"{key}={value}" for key, value in {**PROBLEM, **own}.items()]
    links = {devices: fitted(devices, *started([__file__, "--probe"], devices)) for devices in arguments.devices if devices > 1}
    link = links[min(links)]
    for devices, own_link in links.items():
        taken_by_sum = 1e3 * seconds_of_sum(4 * LARGE, devices, own_link)
        print(f"{devices} processes: {own_link}; a sum of {4 * LARGE / 1e6:g} MB {taken_by_sum:.1f} ms")
    limbeck(["experts", arguments.recipe, *words])
    said = ["--bandwidth", f"{link.bandwidth / 1e9:.9f}", "--latency", f"{1e6 * link.latency:.6f}"]
    plan = limbeck(["plan", arguments.recipe, "--devices", str(max(arguments.devices)), *said, *words])
    found = Scaling.from_dict(plan["scaling"])
    predicted = {row.devices: row for row in found.rows}
    taken = {devices: seconds_of(arguments.recipe, words, devices) for devices in arguments.devices}
    rows, first = [], arguments.devices[0]
    print("| processes | predicted | measured | ratio | speed-up predicted | measured |\n|---|---|---|---|---|---|")
    for devices, measured in taken.items():
        foretold = predicted[devices].seconds_per_iteration or 0.0
        one = predicted[first].seconds_per_iteration or 0.0
        row = Measured(
            devices=devices,
            predicted=foretold,
            measured=measured,
            ratio=foretold / measured,
            predicted_speed_up=one / foretold,
            measured_speed_up=taken[first] / measured,
            sent=predicted[devices].sent,
        )
        rows.append(row)
        print(
            f"| {devices} | {1e3 * foretold:.1f} ms | {1e3 * measured:.1f} ms | {row.ratio:.2f} "
            f"| {row.predicted_speed_up:.2f} | {row.measured_speed_up:.2f} |"
        )
    if arguments.output:
        measured_links = {str(devices): own_link.to_dict() for devices, own_link in links.items()}
        held = {"recipe": arguments.recipe, "overrides": words, "links": measured_links, "scaling": found.to_dict()}
        write_json(arguments.output, {**held, "rows": [row.to_dict() for row in rows]})


if __name__ == "__main__":
    main()
