"""What pages share: one cache for all of a module, and the Hub."""

from collections.abc import Iterator

import hubs
import pytest


@pytest.fixture(scope="module", autouse=True)
def cache_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is trained for one page serves the others."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LIMBECK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def cache() -> None:
    """Instead of the empty cache that every other test has."""


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in of the Hugging Face Hub, and a token for it."""
    with hubs.serving() as found:
        hubs.set_environment(monkeypatch, found, tmp_path_factory.mktemp("home"))
        yield
