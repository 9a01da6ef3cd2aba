"""What is said of a cluster that is asked for wrongly, is not there, or has not what jobs need: without one."""

import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from limbeck.cli.main import main
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.executor import Local, Shard, current, on_ray
from limbeck.runtime.executor.current import executing, executor_of
from limbeck.runtime.executor.on_ray import Ray

pytest.importorskip("ray", reason="ray is not installed (extra: ray)")


def test_what_a_cluster_reports_is_a_line() -> None:
    died = "\x1b[33mA worker died or was killed while executing a task by an unexpected system error. To troubleshoot,\nmore"
    room = "Warning: the following resource request cannot be scheduled: {'GPU': 1.0}.\nThis is likely due to all resources …"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for text in (died, "Task begin failed. There are 5 retries remaining, so the task will be retried. Error: ", room):
            on_ray.reported({"lines": [text], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    said = ["a worker of the cluster died; its jobs are begun again", room.partition("\n")[0]]
    assert [str(one.message) for one in warned] == said


@contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """The address of something that answers so to whatever it is sent; nothing: not at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                if answer:
                    connection.sendall(answer)
                else:
                    time.sleep(3)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_addresses_that_are_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = f"127.0.0.1:{server.getsockname()[1]}"
    for address, said in ((free, "no head of a cluster answers there"), ("nonsense", "is not HOST:PORT, or auto")):
        with pytest.raises(UsageError, match=rf"^--address: '{address}'.* ?{said}"):
            on_ray._check_answers(address)
    with (
        listening(b"HTTP/1.1 400 Bad Request\r\n") as address,
        pytest.raises(UsageError, match="is not the head of a cluster of Ray"),
    ):
        on_ray._check_answers(address)


def test_an_address_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "ANSWERS_IN", 0.2)
    with listening(b"") as address, pytest.raises(UsageError, match="no head of a cluster answers there"):
        on_ray._check_answers(address)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "slurm"], "argument --executor: invalid choice: 'slurm'"),
        (["--address", "auto"], "--address: 'auto' is not accepted without --executor ray"),
        (["--gpus", "0.5"], "--gpus: 0.5 is not accepted without --executor ray"),
        *(
            (["--executor", "ray", f"--gpus={text}"], f"--gpus: {text} is not at least 0, and a whole number above 1")
            for text in ("1.5", "-1.0", "inf", "-inf", "nan")
        ),
        (["--executor", "ray", "--gpus", "many"], "--gpus: 'many' is not a number of GPUs"),
        (["--executor", "ray", "--cpus", "0"], "--cpus: '0' is not one or more"),
    ],
)
def test_what_is_asked_wrongly_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experts", "scenes", *words]) == 2
    assert capsys.readouterr().err.startswith(f"limbeck: error: {said}")


@pytest.mark.parametrize("here", [True, False])
def test_gpus_that_nobody_has(here: bool, caplog: pytest.LogCaptureFixture) -> None:
    """On this machine none will come; a cluster may grow."""
    made = Ray(gpus=2.0)
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 2.0, "GPU": 2.0}}]
    made._ray, made._here = SimpleNamespace(nodes=lambda: nodes), here
    if here:
        with pytest.raises(UsageError, match=r"^--gpus: 2\.0 is not at most 1, the GPUs of this machine$"):
            made._check_room()
    else:
        made._check_room()
        assert "no node of the cluster has 1 CPUs and 2 GPUs for a job yet" in caplog.text
    nodes[1]["Alive"] = True
    caplog.clear()
    made._check_room()
    assert not caplog.text


def test_processes_of_rays_that_do_not_come_are_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**how: Any) -> None:
        raise Exception("The current node timed out during startup. This could happen because …\nsome of the raylet")

    made = SimpleNamespace(is_initialized=lambda: False, shutdown=lambda: None, init=init)
    monkeypatch.setattr(on_ray, "_library", lambda: made)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(Failure, match=r"^--executor ray: Ray could not be started here: The current node timed out"), Ray():
        pass


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["evaluate", "nothing", "--executor", "ray"]) == 2
    assert capsys.readouterr().err == "limbeck: error: --executor: ray needs the extra ray: pip install 'limbeck[ray]'\n"


def test_executors_have_names() -> None:
    assert isinstance(executor_of("local"), Local)
    assert executor_of("ray", None, 2, 0.5).in_step(7) == 3
    with pytest.raises(UsageError, match=r"^--executor: 'slurm' is not one of local, ray$"), executing("slurm"):
        pass
    with pytest.raises(UsageError, match=r"^executor: 3 is not an Executor"), executing(3):  # type: ignore[arg-type]
        pass
    before = current()
    with executing(Local()):
        assert current() is not before
    assert current() is before and Shard().count == 1
