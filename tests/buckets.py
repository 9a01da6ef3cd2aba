"""A server on this machine that speaks the protocol of S3, for tests of what lies elsewhere."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from limbeck.runtime import remote

KEY, SECRET = "AKIALIMBECKTESTKEY7Q", "lEt/nObOdY+sEeThIsSeCrEtKeYoFtEsTs0000zz"
_numbers = count()


@dataclass
class Server:
    """A running server.

    Args:
        endpoint: its URL.
    """

    endpoint: str

    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """The URL of a new bucket; the environment has the keys for it."""
        set_environment(monkeypatch, self.endpoint)
        name = f"bucket-{next(_numbers)}"
        files().mkdir(name)
        return f"s3://{name}"


def set_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Keys and endpoint, and nothing remembered of others."""
    for name, value in (("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_all()


def forget_all() -> None:
    """What this process knows of places elsewhere is that of another test."""
    remote._made.cache_clear()
    remote.FETCHED.clear()
    remote.ORIGINS.clear()


def files() -> Any:
    """The file system of the server, past Limbeck."""
    return remote._store("test", "s3")


@contextmanager
def serving() -> Iterator[Server]:
    """A server that ends with the block."""
    pytest.importorskip("s3fs", reason="what lies in stores of objects needs the extra remote")
    moto = pytest.importorskip("moto.server", reason="the server of the tests is moto's")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield Server(f"http://127.0.0.1:{server.get_host_and_port()[1]}")
    finally:
        server.stop()
