"""What a job costs on a Ray cluster of this machine beside what it computes, and what ten killed workers cost 200 jobs.

    python benchmarks/ray_tasks.py                   # writes benchmarks/results/ray_tasks.json

Beside it the same jobs by processes of this machine (`Local`). Jobs do nothing, or wait for so many seconds.
"""

import argparse
import json
import os
import platform
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from limbeck.runtime.executor import Executor, Local, Tick, cores
from limbeck.runtime.executor.on_ray import Ray

RESULT = Path(__file__).parent / "results" / "ray_tasks.json"


def pause(log: str, job: tuple[int, float], tick: Tick) -> int:
    """Wait, and note begin and end."""
    note(log, f"begun {job[0]} {os.getpid()}")
    time.sleep(job[1])
    note(log, f"made {job[0]} {os.getpid()}")
    return job[0]


def nothing(shared: bytes, job: int, tick: Tick) -> int:
    """Only that it was called."""
    return job


def note(log: str, line: str) -> None:
    """Add a line."""
    with open(log, "ab") as file:
        file.write(f"{line}\n".encode())


def seconds(executor: Executor, function: Any, shared: Any, jobs: list[Any]) -> float:
    """Of all these jobs."""
    began = time.perf_counter()
    assert len(list(executor.run(function, shared, jobs, at_once=cores()))) == len(jobs)
    return time.perf_counter() - began


@contextmanager
def killing(log: Path, count: int) -> Iterator[list[int]]:
    """Kill so many workers, one after the other, while each is at a job."""
    killed, over = list[int](), threading.Event()

    def kill() -> None:
        while len(killed) < count and not over.wait(0.2):
            last = {int(pid): word for word, _, pid in map(str.split, log.read_text().splitlines())} if log.exists() else {}
            if busy := [pid for pid, word in last.items() if word == "begun" and pid not in killed]:
                os.kill(busy[0], signal.SIGKILL)
                killed.append(busy[0])

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        yield killed
    finally:
        over.set()
        killer.join()


def main() -> None:
    """Measure, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    count, found = (
        arguments.jobs,
        {"cores": cores(), "jobs": arguments.jobs, "processor": platform.processor() or platform.machine()},
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with Ray() as cluster:
            found["seconds to begin"] = time.perf_counter() - began
            for name, executor in (("ray", cluster), ("local", Local())):
                seconds(executor, nothing, b"", [0] * 2 * cores())  # by then the processes are there
                for size in (0, 10_000_000):
                    shared = os.urandom(size)
                    taken = seconds(executor, nothing, shared, list(range(count)))
                    found[f"milliseconds a job, {name}, {size} bytes in common"] = 1000 * taken / count
            jobs, logs = [(number, 0.2) for number in range(count)], [Path(folder) / name for name in ("whole", "killed")]
            whole = seconds(cluster, pause, str(logs[0]), jobs)
            with killing(logs[1], arguments.kills) as killed:
                hurt = seconds(cluster, pause, str(logs[1]), jobs)
            lines = [line.split() for line in logs[1].read_text().splitlines()]
            found |= {"seconds of jobs of 0.2 s": whole, "with killed workers": hurt, "killed": len(killed)}
            found["begun"] = sum(word == "begun" for word, *_ in lines)
            found["finished"] = sum(word == "made" for word, *_ in lines)
    found |= {name: version(name) for name in ("ray", "limbeck")}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
