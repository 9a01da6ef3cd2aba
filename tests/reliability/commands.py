"""Commands that are started, sent signals and looked after: a process imports everything once and forks itself for each of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SERVER = """
import errno, fcntl, json, os, signal, sys

import joblib, torch, torch._dynamo
import limbeck.evaluation.trials, limbeck.experts.trainer, limbeck.training.compute
import limbeck.image_complexity.run, limbeck.report.html, limbeck.runs.distill, limbeck.runs.evaluate
from limbeck.cli.main import main

os.fsync = lambda descriptor: None  # as in all tests

def without(*_):
    raise OSError(errno.ENOLCK, "no locks available")

for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    os.setpgid(0, 0)
    os.environ.update(asked["environment"])
    for number, path in enumerate((os.devnull, asked["out"], asked["error"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), number)
    if asked["background"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not asked["flock"]:
        fcntl.flock = without
    if asked["workers"]:
        limbeck.training.compute.WORKERS_FROM_SECONDS = 0.0
        limbeck.experts.trainer.cores = limbeck.evaluation.trials.cores = lambda: 2
    sys.argv = ["limbeck", *asked["words"]]
    sys.exit(main())
"""


@dataclass
class Running:
    """A command under way, in a process group of its own."""

    commands: "Commands"
    pid: int
    folder: Path

    @property
    def said(self) -> str:
        """What it has written to standard error so far."""
        path = self.folder / "error"
        return path.read_text(errors="replace") if path.exists() else ""

    def until(self, met: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until something is so, or the command has ended."""
        began = time.monotonic()
        while not met() and time.monotonic() - began < seconds:
            if psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE:
                raise AssertionError(f"it has ended: {self.said}")
            time.sleep(0.01)
        assert met(), self.said

    def send(self, kind: signal.Signals, group: bool = False) -> None:
        """Send it a signal, or all of its group."""
        (os.killpg if group else os.kill)(self.pid, kind)

    def wait(self) -> int:
        """Its exit status; of one that was killed the negative signal."""
        return self.commands.ask(wait=self.pid)

    def processes(self) -> list[str]:
        """The command lines of its group's processes that are there still."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()) or process.name())
            except (OSError, psutil.Error):
                continue
        return found


class Commands:
    """Starts commands.

    Args:
        folder: for their output and temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        (folder / "tmp").mkdir(parents=True)
        environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request: object) -> int:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(
        self,
        words: Sequence[str],
        cache: Path,
        *,
        background: bool = False,
        flock: bool = True,
        workers: bool = False,
        **environment: str,
    ) -> Running:
        """Start `limbeck` with those words.

        Args:
            words: behind its name.
            cache: where things are kept.
            background: whether Ctrl-C is ignored, as a shell has it for what it starts in the background.
            flock: whether the file system has locks.
            workers: whether trainings are spread over two processes, however short they are.
            environment: more variables.
        """
        self.count += 1
        folder = self.folder / f"command-{self.count}"
        folder.mkdir()
        given = {"LIMBECK_CACHE": str(cache), **environment}
        places = {"out": str(folder / "out"), "error": str(folder / "error")}
        how = {"background": background, "flock": flock, "workers": workers}
        pid = self.ask(words=list(words), environment=given, **how, **places)
        return Running(self, pid, folder)

    def run(self, words: Sequence[str], cache: Path, **given: Any) -> Running:
        """The same, and wait for its end, which is to be a good one."""
        command = self.start(words, cache, **given)
        status = command.wait()
        assert status == 0, command.said
        return command

    def left(self) -> list[str]:
        """Temporary files and shared memory that commands have left."""
        shared = Path("/dev/shm")
        known = list(shared.glob("limbeck-*")) if shared.is_dir() else []
        mine = [path for path in known if not psutil.pid_exists(int(path.name.split("-")[2]))]
        passing = [path for path in (self.folder / "tmp").iterdir() if not path.name.startswith("torchinductor_")]  # torch's cache
        return sorted(map(str, (*passing, *mine)))


@contextmanager
def commands(folder: Path) -> Iterator[Commands]:
    """Until the end of the block."""
    made = Commands(folder)
    try:
        yield made
    finally:
        made.server.communicate()


def parts(*folders: Path) -> list[str]:
    """What is left half written there."""
    return sorted(
        str(path.relative_to(folder)) for folder in folders for path in folder.rglob(".*") if path.suffix in (".part", ".old")
    )
