"""What all tests share."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from browser.visits import Visits, visiting
from buckets import Server, serving

# Where the tests run in the background, or under `nohup`, a shell has these ignored; what is tested is what a terminal has.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
hypothesis.settings.register_profile("untimed", hypothesis.settings(), deadline=None)  # no test fails because a machine is busy
hypothesis.settings.load_profile("untimed")
torch.set_num_threads(1)  # the tests run in two processes on two cores; more threads would only wait for each other
if os.environ.get("LIMBECK_TESTS_DTYPE") == "float64":  # a leg of noxfile.py
    torch.set_default_dtype(torch.float64)


def pytest_configure(config: pytest.Config) -> None:
    """One place for compiled code, which both processes of the tests and all that they start find, and none after them."""
    if hasattr(config, "workerinput"):
        return
    place = tempfile.TemporaryDirectory(prefix="limbeck-tests-compiled-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = place.name
    config.add_cleanup(place.cleanup)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test, so that none finds what another, or the user, has left."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LIMBECK_CACHE", str(folder))
    return folder


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
