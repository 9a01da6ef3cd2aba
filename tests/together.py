"""Processes that compute together over gloo: started once, then sent one case after the other.

with Team(2) as team:
    team(function, …)      what it returns on every rank, in their order
"""

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

# What a process imports once, from which all others are forked: torch alone takes longer than most cases.
IMPORTED = [
    "torch.distributed",
    "torch._dynamo",
    "limbeck.runs.distill",
    "limbeck.runs.evaluate",
    "limbeck.matching.spread",
    "pytest",
]


class Team:
    """So many processes of one group; what they are sent is a function of a module's top level, and its arguments."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> "Team":
        start, port = multiprocessing.get_context("forkserver"), free_port()
        start.set_forkserver_preload(IMPORTED)
        pairs = [start.Pipe() for _ in range(self.count)]
        self.pipes = [pair[0] for pair in pairs]
        self.processes = [
            start.Process(target=_serve, args=(pair[1], number, self.count, port, dict(os.environ)), daemon=True)
            for number, pair in enumerate(pairs)
        ]
        for process, (_, pipe) in zip(self.processes, pairs, strict=True):
            process.start()
            pipe.close()
        return self

    def __exit__(self, *error: Any) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(10)
            process.kill()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What it returns on every rank; the first error of any is raised."""
        for pipe in self.pipes:
            pipe.send((function, arguments))
        found = [pipe.recv() for pipe in self.pipes]
        for _, error in found:
            if error is not None:
                raise error
        return [value for value, _ in found]


def _serve(pipe: Connection, number: int, count: int, port: int, environment: Mapping[str, str]) -> None:
    os.environ.clear()  # of whoever was the first to want processes
    os.environ.update(environment)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=count)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((function(*arguments), None))
        except Exception as error:
            pipe.send((None, error))


def free_port() -> int:
    """One that nobody listened at a moment ago."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
