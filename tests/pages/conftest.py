"""What pages share: one cache for all of a module, and the Hub."""

from collections.abc import Iterator

import hubs
import pytest
from shared_cache import cache, cache_of_the_module  # noqa: F401


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in of the Hugging Face Hub, and a token for it."""
    with hubs.serving() as found:
        hubs.set_environment(monkeypatch, found, tmp_path_factory.mktemp("home"))
        yield
