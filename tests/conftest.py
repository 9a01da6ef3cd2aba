"""What all tests share."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch
from browser.visits import Visits, visiting
from buckets import Server, serving

if TYPE_CHECKING:
    from reliability.commands import Commands

# Where the tests run in the background, or under `nohup`, a shell has these ignored; what is tested is what a terminal has.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
hypothesis.settings.register_profile("untimed", hypothesis.settings(), deadline=None)  # no test fails because a machine is busy
hypothesis.settings.load_profile("untimed")
torch.set_num_threads(1)  # the tests run in two processes on two cores; more threads would only wait for each other
os.fsync = lambda descriptor: None  # no test looks at what is left when the power fails, and each call waits for the disk
# Where the environment says that no bytecode is to be written, each of hundreds of processes would translate everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if os.environ.get("LIMBECK_TESTS_DTYPE") == "float64":  # a leg of noxfile.py
    torch.set_default_dtype(torch.float64)


def pytest_configure(config: pytest.Config) -> None:
    """One place for compiled code, which both processes of the tests and all that they start find, and none after them."""
    if hasattr(config, "workerinput"):
        return
    place = tempfile.TemporaryDirectory(prefix="limbeck-tests-compiled-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = place.name
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # more would import torch in processes that have no core
    config.add_cleanup(place.cleanup)


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names for folders that are not there yet: pytest's own numbers look through all that there are, which are thousands."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(number) for number in count())


@pytest.fixture(autouse=True)
def cache(caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test, so that none finds what another, or the user, has left."""
    folder = next(caches)
    folder.mkdir()
    monkeypatch.setenv("LIMBECK_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Commands]":
    """Starts commands, as processes that have imported everything already."""
    from reliability.commands import commands  # which needs psutil

    with commands(tmp_path_factory.mktemp("commands")) as made:
        yield made


@pytest.fixture(scope="session")
def store() -> Iterator[Server]:
    """A server that speaks the protocol of S3, as long as the tests run."""
    with serving() as found:
        yield found


@pytest.fixture
def bucket(store: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a bucket of its own for every test, with keys for it in the environment."""
    return store.bucket(monkeypatch)


@pytest.fixture(scope="module")
def visits() -> Iterator[Visits]:
    """A browser for the tests of a module: no longer, as Playwright's loop keeps others from running in its thread."""
    with visiting() as found:
        yield found
