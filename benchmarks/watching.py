"""What `limbeck watch` takes of a core while ten runs go on.

    python benchmarks/watching.py             # a minute; prints one line, and with --write keeps it in results/watch.json
    python benchmarks/watching.py --runs 10 --seconds 120 --every 20

Ten folders as runs of ten classes with ten images of 64×64 leave them, each with a row of metrics five times a second and a
snapshot every minute, as runs have that are faster than most. Two browsers look, as far as the server can tell: one at the list,
one at a run's page, each asking every two seconds and taking the page anew when it is told to. Measured is the CPU time of the
server's process (psutil) behind the first making of that page, which is told apart: it is made once, when somebody opens it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from itertools import count
from pathlib import Path
from shutil import copy
from typing import Any

import psutil

sys.path[:1] = [str(Path(__file__).parents[1] / "tests")]  # not this folder, whose report.py is another

from report.fake_run import make_run  # noqa: E402
from watch.runs import at_work  # noqa: E402

from limbeck.runs.folder import SETTINGS  # noqa: E402
from limbeck.runtime.files import read_json, write_json  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "watch.json"
ROWS, LOOKS, SNAPSHOTS = 0.2, 2.0, 60.0  # seconds between two rows, two looks, two snapshots


class Browser:
    """Asks as the script of a page does."""

    def __init__(self, address: str, page: str) -> None:
        self.address, self.page, self.tag, self.mark = address, page, "", ""
        self.pages, self.bytes, self.same = 0, 0, 0

    def look(self) -> None:
        """One look, and the page if there is something new."""
        asked = urllib.request.Request(f"{self.address}{self.page}state", headers={"If-None-Match": self.tag})
        try:
            with urllib.request.urlopen(asked) as answer:
                self.tag, found = answer.headers["etag"], json.loads(answer.read())
        except urllib.error.HTTPError as error:
            if error.code != 304:
                raise
            self.same += 1
            return
        if not self.pages or (found.get("mark") or self.mark) != self.mark:
            self.mark = found.get("mark") or ""
            with urllib.request.urlopen(f"{self.address}{self.page}") as answer:
                self.pages, self.bytes = self.pages + 1, len(answer.read())


def make_runs(folder: Path, runs: int) -> list[Path]:
    """The folders, as runs of 20 000 iterations that have made 4000."""
    first = make_run(folder / "run-1", tuple(f"class {k}" for k in range(10)), 10, (3, 64, 64), 4000, 200, finished=False)
    settings = read_json(first / "settings.json", SETTINGS)
    settings["outer"]["iterations"] = 20_000
    write_json(first / "settings.json", settings, SETTINGS)
    for k in range(2, runs + 1):
        subprocess.run(["cp", "-r", str(first), str(folder / f"run-{k}")], check=True)
    return [folder / f"run-{k}" for k in range(1, runs + 1)]


def go_on(runs: list[Path], at: int) -> None:
    """A row of each run."""
    row = {"kind": "iteration", "iteration": at, "loss": 0.25, "grad_norm_images": 0.01, "grad_norm_labels": 0.01, "grad_lr": 0.1}
    row |= {"syn_lr": 0.1, "skipped": False, "skipped_share": 0.01, "start_epoch": 3, "expert": 2, "seconds": ROWS}
    for run in runs:
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def snapshot(run: Path, at: int) -> None:
    """One more of a run, in place at once."""
    latest = max((run / "snapshots").glob("iteration-*.safetensors"))
    copy(latest, run / "snapshots" / ".new")
    (run / "snapshots" / ".new").rename(run / "snapshots" / f"iteration-{at:06d}.safetensors")


def measure(runs: list[Path], seconds: float, every: float) -> dict[str, Any]:
    """The share of a core, and what was asked meanwhile."""
    from contextlib import ExitStack

    words = [sys.executable, "-m", "limbeck", "watch", *map(str, runs)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().split()[-1]
    process, numbers = psutil.Process(server.pid), count(4000)
    used = lambda: sum(process.cpu_times()[:2])  # noqa: E731
    try:
        with ExitStack() as held:
            for run in runs:
                held.enter_context(at_work(run))
            browsers = Browser(address, ""), Browser(address, "1/")
            before = used()
            for browser in browsers:
                browser.look()
            opened, began, start = used() - before, time.monotonic(), used()
            row = look = began
            shown = [began + every * k / len(runs) for k in range(len(runs))]
            while (now := time.monotonic()) - began < seconds:
                if now >= row:
                    row, at = row + ROWS, next(numbers)
                    go_on(runs, at)
                for k, due in enumerate(shown):
                    if now >= due:
                        shown[k] += every
                        snapshot(runs[k], at)
                if now >= look:
                    look += LOOKS
                    for browser in browsers:
                        browser.look()
                time.sleep(0.02)
            spent, passed = used() - start, time.monotonic() - began
        return {
            "share_of_a_core": round(spent / passed, 4),
            "seconds": round(passed, 1),
            "runs": len(runs),
            "seconds_between_snapshots": every,
            "first_page_cpu_seconds": round(opened, 2),
            "pages_made_again": browsers[1].pages - 1,
            "page_bytes": browsers[1].bytes,
            "memory_MiB": round(process.memory_info().rss / 2**20),
        }
    finally:
        server.send_signal(2)
        server.wait(30)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=SNAPSHOTS, help="seconds between two snapshots of a run")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(make_runs(Path(folder), given.runs), given.seconds, given.every)
    print(json.dumps(found, indent=2))
    if given.write:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
