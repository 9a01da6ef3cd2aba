"""Fixtures for modules whose tests share a cache: `from shared_cache import cache, cache_of_the_module`."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def cache_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is trained for one test serves the others."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LIMBECK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def cache() -> None:
    """Instead of the empty cache that every other test has."""
